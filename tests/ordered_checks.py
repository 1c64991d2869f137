"""The checks of a region call in the order of kernel-reference section 4.2, as one list, without the engine.

Written from sections 2, 4.2, 4.3, 4.6 and 8 alone; nothing here imports `explorer`. It judges which check a refusal
is due to: the first row that a call violates.
"""

from __future__ import annotations

from dataclasses import dataclass, field

PAGE = 4096
LOG, READONLY, GMEM = 1, 2, 4
USERSPACE_ENDS = 0x7FFF_FFFF_F000


@dataclass(frozen=True)
class Slot:
    """A slot as userspace made it."""

    as_id: int
    id: int
    base: int
    npages: int
    hva: int
    flags: int


@dataclass(frozen=True)
class File:
    """A guest_memfd and the parts of it that slots have, as first page and number."""

    size: int
    parts: tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Vm:
    """A VM before a call, as far as checks ask for it."""

    version: tuple[int, int]
    """Of the kernel, such as ``(6, 12)``."""
    slots: tuple[Slot, ...]
    spaces: int
    max_gfn: int
    dead: bool = False
    external_users: int = 0
    private: bool = False
    """Whether the type of the VM has private memory."""
    files: dict[int, File] = field(default_factory=dict)
    host_memory: int | None = None


@dataclass(frozen=True)
class Call:
    """KVM_SET_USER_MEMORY_REGION, or REGION2 if `two`."""

    slot: int
    as_id: int
    flags: int
    gpa: int
    size: int
    hva: int
    two: bool = False
    fd: int = 0
    offset: int = 0

    @property
    def base(self) -> int:
        return self.gpa // PAGE

    @property
    def npages(self) -> int:
        return self.size // PAGE


def first_violated(vm: Vm, call: Call) -> tuple[str, str] | None:
    """Return name and errno of the first check that a call violates, or None."""
    for name, errno, violated in _rows(vm, call):
        if violated:
            return name, errno
    return None


def _rows(vm: Vm, call: Call):
    gmem = call.two and bool(call.flags & GMEM)
    file = vm.files.get(call.fd)
    yield "vm_alive", "EIO", vm.dead  # row 0
    if call.two:
        yield "region2_exists", "ENOTTY", vm.version < (6, 8)
    else:
        yield "region_flags", "EINVAL", vm.version >= (6, 8) and call.flags & ~(LOG | READONLY)  # row 2
    yield "user_slot_id", "EINVAL", call.slot >= (509 if vm.version < (5, 12) else 32764)  # row 3
    on_file = GMEM if vm.version >= (6, 18) or vm.private else 0
    yield "flags", "EINVAL", call.flags & ~(on_file if call.flags & GMEM else LOG | READONLY)  # row 5, section 4.3
    yield "size_aligned", "EINVAL", call.size % PAGE  # row 6
    yield "gpa_aligned", "EINVAL", call.gpa % PAGE  # row 7
    yield "hva_aligned", "EINVAL", call.hva % PAGE  # row 8
    yield "hva_user_range", "EINVAL", call.hva + call.size > USERSPACE_ENDS
    yield "gmem_offset_aligned", "EINVAL", gmem and call.offset % PAGE  # row 9
    yield "gmem_no_wrap", "EINVAL", gmem and call.offset + call.size >= 1 << 64
    yield "as_id", "EINVAL", call.as_id >= vm.spaces  # row 10
    yield "gpa_no_wrap", "EINVAL", call.gpa + call.size >= 1 << 64  # row 11
    yield "npages", "EINVAL", call.npages > (1 << 31) - 1  # row 12
    old = next((s for s in vm.slots if (s.as_id, s.id) == (call.as_id, call.slot)), None)  # row 13
    if not call.size:
        yield "slot_exists", "EINVAL", old is None  # row D1
        return
    if old is not None:
        yield "gmem_immutable", "EINVAL", gmem  # row M1
        yield "same_hva", "EINVAL", call.hva != old.hva  # row M2
        yield "same_size", "EINVAL", call.npages != old.npages
        yield "same_readonly", "EINVAL", (call.flags ^ old.flags) & READONLY
        yield "same_guest_memfd", "EINVAL", (call.flags ^ old.flags) & GMEM
        if call.base == old.base:
            return  # row M3: flags only, or nothing
    others = [s for s in vm.slots if s.as_id == call.as_id and s.id != call.slot]
    end = call.base + call.npages
    yield "overlap", "EEXIST", any(s.base < end and call.base < s.base + s.npages for s in others)  # row O1
    if gmem:
        first = call.offset // PAGE
        taken = file is not None and any(a < first + call.npages and first < a + n for a, n in file.parts)
        yield "gmem_fd", "EBADF", call.fd >> 31  # row G1
        yield "gmem_file", "EINVAL", file is None
        yield "gmem_size", "EINVAL", file is not None and call.offset + call.size > file.size
        yield "gmem_overlap", "EINVAL", taken and vm.version < (7, 0)
    yield "external_user", "EINVAL", old is not None and vm.version >= (6, 6) and vm.external_users  # section 4.6
    yield "max_gfn", "EINVAL", vm.version >= (5, 17) and end - 1 > vm.max_gfn
    yield "array_memory", "ENOMEM", vm.host_memory is not None and _array_bytes(call) > vm.host_memory
    yield "gmem_overlap", "EEXIST", gmem and taken


def _array_bytes(call: Call) -> int:
    """Return the least that the arrays of a slot take, section 11.7 without reverse maps."""
    last = call.base + call.npages - 1
    n2m, n1g = (last // n - call.base // n + 1 for n in (512, 512 * 512))
    return 4 * (n2m + n1g) + 2 * call.npages
