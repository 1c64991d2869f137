"""The ladder of checks a region call must pass, in kernel order, as tables.

Rule 1: a row is one comparison with one errno; rows that share an ``if`` in the kernel are separate
rows here, in the order in which C evaluates them, so that each cause can be named.
Rule 2: a row that passes changes nothing. What a refusal has already cost depends on where the row
stands: rows of `PREPARE` are asked only after the old slot was invalidated and zapped.

Models the checks of virt/kvm/kvm_main.c: kvm_vm_ioctl_set_memory_region(), check_memory_region_flags(),
kvm_set_memory_region(), of arch/x86/kvm/x86.c: kvm_arch_prepare_memory_region(), and of
virt/kvm/guest_memfd.c: kvm_gmem_prepare_memory_region(), kvm_gmem_commit_memory_region().
Not modelled: a fault while the argument is copied (EFAULT), small allocations that fail, VMs with protected
state (no READONLY), the TDX shared bit; the padding of REGION2, which no kernel checks. Read next: `swap`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING, Literal, NamedTuple

from explorer.engine.commands import SetMemoryRegion, SetMemoryRegion2
from explorer.engine.guest_memfd import bound_to, has_file
from explorer.engine.lookup import overlapping_slot
from explorer.engine.metadata import bitmap_sizes, fits_in_memory, metadata_sizes
from explorer.engine.page_track import kvm_page_track_has_external_user
from explorer.engine.types import PAGE_SHIFT, PAGE_SIZE, U64_MAX, Errno, SlotId
from explorer.engine.uapi import (
    KVM_MEM_GUEST_MEMFD,
    KVM_MEM_LOG_DIRTY_PAGES,
    KVM_MEM_MAX_NR_PAGES,
    KVM_MEM_READONLY,
    TASK_SIZE_MAX,
    KvmMrChange,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from explorer.engine.draft import KvmDraft
    from explorer.engine.profile import KernelProfile
    from explorer.engine.region_call import RegionUpdate
    from explorer.engine.state import GmemBinding

__all__ = ["Guard", "GuardResult", "Ladder", "first_refusal", "ladder_for", "ladder_of"]

CREATE, DELETE, MOVE, FLAGS_ONLY = (
    KvmMrChange.CREATE,
    KvmMrChange.DELETE,
    KvmMrChange.MOVE,
    KvmMrChange.FLAGS_ONLY,
)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Guard:
    """One check: what must hold, where it is, and what is returned if it does not."""

    name: str
    """Identifier, such as ``overlap``."""
    title: str
    """What must hold, in a few words."""
    function: str
    """Kernel function it stands in."""
    errno: Errno
    passes: Callable[[KvmDraft, RegionUpdate], bool]
    operands: Callable[[KvmDraft, RegionUpdate], str]
    """The values compared, for a reader."""
    behaviour: Callable[[KernelProfile], bool] = lambda _profile: True
    """Whether a profile has the check at all."""


class GuardResult(NamedTuple):
    """What became of one check in one call."""

    guard: Guard
    passed: bool
    operands: str


class Ladder(NamedTuple):
    """The checks of one profile, by where they stand. Each part is in kernel order."""

    ioctl: tuple[Guard, ...]
    """Asked of every call in the ioctl's own code, before the memslot code is entered."""
    arguments: tuple[Guard, ...]
    """Asked of every call, before a slot is looked up."""
    delete: tuple[Guard, ...]
    create: tuple[Guard, ...]
    existing: tuple[Guard, ...]
    """Asked when a slot with the id exists and the size is not zero."""
    place: tuple[Guard, ...]
    """Asked of CREATE and MOVE; the last that is free."""
    bitmap: tuple[Guard, ...]
    """Asked of whatever keeps a slot, when its dirty bitmap is prepared; of a MOVE after the zap from v5.17 on."""
    prepare_move: tuple[Guard, ...]
    """Asked of MOVE after the old slot was invalidated and zapped."""
    prepare_create: tuple[Guard, ...]
    gmem: tuple[Guard, ...]
    """Asked of a CREATE on guest_memfd before the slot is prepared."""
    gmem_commit: tuple[Guard, ...]
    """Asked of it when it is prepared."""

    def of(self, change: KvmMrChange | None) -> tuple[Guard, ...]:
        """Return the whole ladder of one kind of change, top to bottom."""
        match change:
            case KvmMrChange.DELETE:
                return self.ioctl + self.arguments + self.delete
            case KvmMrChange.CREATE:
                before = self.ioctl + self.arguments + self.create + self.place + self.gmem
                return before + self.bitmap + self.prepare_create + self.gmem_commit
            case KvmMrChange.MOVE:
                return self.ioctl + self.arguments + self.existing + self.place + self.bitmap + self.prepare_move
            case KvmMrChange.FLAGS_ONLY:
                return self.ioctl + self.arguments + self.existing + self.bitmap
            case _:
                return self.ioctl + self.arguments + self.existing


def first_refusal(kvm: KvmDraft, update: RegionUpdate, guards: tuple[Guard, ...]) -> Guard | None:
    """Ask `guards` in order and return the first that refuses; note the results if someone records."""
    if kvm.events is None:
        for guard in guards:
            if not guard.passes(kvm, update):
                return guard
        return None
    for guard in guards:
        passed = guard.passes(kvm, update)
        update.results.append(GuardResult(guard, passed, guard.operands(kvm, update)))
        if not passed:
            return guard
    return None


def _multiple(value: int) -> str:
    return f"{value:#x} is {'a' if value % PAGE_SIZE == 0 else 'no'} multiple of {PAGE_SIZE:#x}"


def _end(update: RegionUpdate) -> int:
    return (update.call.guest_phys_addr >> PAGE_SHIFT) + update.npages


_VM_ALIVE = Guard(
    name="vm_alive",
    title="the VM was not marked dead",
    function="kvm_vm_ioctl",
    errno=Errno.EIO,
    passes=lambda kvm, _: not kvm.vm_bugged,
    operands=lambda kvm, _: "KVM_BUG marked it dead" if kvm.vm_bugged else "alive",
)
_REGION_FLAGS = Guard(
    name="region_flags",
    title="only flags the plain region ioctl knows",
    function="kvm_vm_ioctl",
    errno=Errno.EINVAL,
    passes=lambda _, u: not u.call.flags & ~(KVM_MEM_LOG_DIRTY_PAGES | KVM_MEM_READONLY),
    operands=lambda _, u: f"{u.call.flags:#x}, known {KVM_MEM_LOG_DIRTY_PAGES | KVM_MEM_READONLY:#x}",
    behaviour=lambda profile: profile.region_flags_checked_first,
)
_USER_SLOT_ID = Guard(
    name="user_slot_id",
    title="slot id in userspace’s range",
    function="kvm_vm_ioctl_set_memory_region",
    errno=Errno.EINVAL,
    passes=lambda kvm, u: u.call.slot < kvm.profile.user_mem_slots or u.internal,
    operands=lambda kvm, u: (
        f"{u.call.slot} {'<' if u.call.slot < kvm.profile.user_mem_slots else '>='} {kvm.profile.user_mem_slots}"
    ),
)
_REGION2_EXISTS = Guard(
    name="region2_exists",
    title="the kernel knows the call",
    function="kvm_arch_vm_ioctl",
    errno=Errno.ENOTTY,
    passes=lambda kvm, _: kvm.profile.set_user_memory_region2,
    operands=lambda kvm, _: f"it {'has' if kvm.profile.set_user_memory_region2 else 'does not have'} REGION2",
    behaviour=lambda profile: not profile.set_user_memory_region2,
)


def check_memory_region_flags(kvm: KvmDraft, flags: int) -> int:
    """Return the flags that a region call may have beside those it has.

    References
    ----------
    virt/kvm/kvm_main.c: check_memory_region_flags() [all profiles]
    """
    if not flags & KVM_MEM_GUEST_MEMFD:
        return KVM_MEM_LOG_DIRTY_PAGES | KVM_MEM_READONLY
    # Private memory is neither logged nor read-only, and not every VM may have it.
    return KVM_MEM_GUEST_MEMFD if kvm.profile.guest_memfd_for_every_vm or kvm.config.has_private_mem else 0


_FLAGS = Guard(
    name="flags",
    title="only known flags",
    function="check_memory_region_flags",
    errno=Errno.EINVAL,
    passes=lambda kvm, u: not u.call.flags & ~check_memory_region_flags(kvm, u.call.flags),
    operands=lambda kvm, u: f"{u.call.flags:#x}, known {check_memory_region_flags(kvm, u.call.flags):#x}",
)
_SIZE_ALIGNED = Guard(
    name="size_aligned",
    title="size in whole pages",
    function="kvm_set_memory_region",
    errno=Errno.EINVAL,
    passes=lambda _, u: not u.call.memory_size & (PAGE_SIZE - 1),
    operands=lambda _, u: f"size {_multiple(u.call.memory_size)}",
)
_GPA_ALIGNED = Guard(
    name="gpa_aligned",
    title="guest address on a page",
    function="kvm_set_memory_region",
    errno=Errno.EINVAL,
    passes=lambda _, u: not u.call.guest_phys_addr & (PAGE_SIZE - 1),
    operands=lambda _, u: f"gpa {_multiple(u.call.guest_phys_addr)}",
)
_HVA_ALIGNED = Guard(
    name="hva_aligned",
    title="host address on a page",
    function="kvm_set_memory_region",
    errno=Errno.EINVAL,
    passes=lambda kvm, u: not u.call.userspace_addr & (PAGE_SIZE - 1) or not u.checks_hva(kvm.profile),
    operands=lambda _, u: f"hva {_multiple(u.call.userspace_addr)}",
)
_HVA_USER_RANGE = Guard(
    name="hva_user_range",
    title="host range belongs to userspace",
    function="kvm_set_memory_region",
    errno=Errno.EINVAL,
    passes=lambda kvm, u: u.call.userspace_addr + u.call.memory_size <= TASK_SIZE_MAX or not u.checks_hva(kvm.profile),
    operands=lambda _, u: (
        f"hva end {u.call.userspace_addr + u.call.memory_size:#x}, userspace ends at {TASK_SIZE_MAX:#x}"
    ),
)
_GMEM_OFFSET_ALIGNED = Guard(
    name="gmem_offset_aligned",
    title="offset in the file on a page",
    function="kvm_set_memory_region",
    errno=Errno.EINVAL,
    passes=lambda _, u: not _offset(u) & (PAGE_SIZE - 1),
    operands=lambda _, u: f"offset {_multiple(_offset(u))}",
)
_GMEM_NO_WRAP = Guard(
    name="gmem_no_wrap",
    title="part of the file does not wrap",
    function="kvm_set_memory_region",
    errno=Errno.EINVAL,
    passes=lambda _, u: _offset(u) + u.call.memory_size <= U64_MAX,
    operands=lambda _, u: f"offset + size = {_offset(u) + u.call.memory_size:#x}, most is {U64_MAX:#x}",
)
_AS_ID = Guard(
    name="as_id",
    title="address space and id exist",
    function="kvm_set_memory_region",
    errno=Errno.EINVAL,
    passes=lambda kvm, u: u.call.as_id < len(kvm.memslots),
    operands=lambda kvm, u: (
        f"address space {u.call.as_id}, there {'is' if len(kvm.memslots) == 1 else 'are'} {len(kvm.memslots)}"
    ),
)
_GPA_NO_WRAP = Guard(
    name="gpa_no_wrap",
    title="range does not wrap",
    function="kvm_set_memory_region",
    errno=Errno.EINVAL,
    passes=lambda _, u: u.call.guest_phys_addr + u.call.memory_size <= U64_MAX,
    operands=lambda _, u: f"gpa + size = {u.call.guest_phys_addr + u.call.memory_size:#x}, most is {U64_MAX:#x}",
)
_NPAGES = Guard(
    name="npages",
    title="at most 2^31 - 1 pages",
    function="kvm_set_memory_region",
    errno=Errno.EINVAL,
    passes=lambda _, u: u.npages <= KVM_MEM_MAX_NR_PAGES,
    operands=lambda _, u: f"{u.npages} pages, most are {KVM_MEM_MAX_NR_PAGES}",
)
_SLOT_EXISTS = Guard(
    name="slot_exists",
    title="there is a slot to delete",
    function="kvm_set_memory_region",
    errno=Errno.EINVAL,
    passes=lambda _, u: u.old is not None,
    operands=lambda _, u: (
        f"size 0, slot {u.call.slot} {'exists' if u.old else 'does not exist'} in address space {u.call.as_id}"
    ),
)
_PAGES_ACCOUNTED = Guard(
    name="pages_accounted",
    title="the VM has as many pages as the slot",
    function="kvm_set_memory_region",
    errno=Errno.EIO,
    passes=lambda kvm, u: u.old is None or kvm.nr_memslot_pages >= u.old.npages,
    operands=lambda kvm, u: f"VM has {kvm.nr_memslot_pages}, slot {u.old.npages if u.old else 0}",
)
_TOTAL_NO_WRAP = Guard(
    name="total_no_wrap",
    title="pages of the VM do not wrap",
    function="kvm_set_memory_region",
    errno=Errno.EINVAL,
    passes=lambda kvm, u: kvm.nr_memslot_pages + u.npages <= U64_MAX,
    operands=lambda kvm, u: f"{kvm.nr_memslot_pages} + {u.npages} pages",
)
_GMEM_IMMUTABLE = Guard(
    name="gmem_immutable",
    title="a slot that exists is not put on guest_memfd",
    function="kvm_set_memory_region",
    errno=Errno.EINVAL,
    passes=lambda _, u: not u.call.flags & KVM_MEM_GUEST_MEMFD,
    operands=lambda _, u: f"slot {u.call.slot} exists; with guest_memfd it can only be deleted",
)
_SAME_HVA = Guard(
    name="same_hva",
    title="host address unchanged",
    function="kvm_set_memory_region",
    errno=Errno.EINVAL,
    passes=lambda _, u: u.old is not None and u.call.userspace_addr == u.old.userspace_addr,
    operands=lambda _, u: f"hva {u.call.userspace_addr:#x}, slot has {u.old.userspace_addr if u.old else 0:#x}",
)
_SAME_SIZE = Guard(
    name="same_size",
    title="size unchanged",
    function="kvm_set_memory_region",
    errno=Errno.EINVAL,
    passes=lambda _, u: u.old is not None and u.npages == u.old.npages,
    operands=lambda _, u: f"{u.npages} pages, slot has {u.old.npages if u.old else 0}",
)
_SAME_READONLY = Guard(
    name="same_readonly",
    title="READONLY unchanged",
    function="kvm_set_memory_region",
    errno=Errno.EINVAL,
    passes=lambda _, u: u.old is not None and not (u.call.flags ^ u.old.flags) & KVM_MEM_READONLY,
    operands=lambda _, u: (
        f"READONLY {'on' if u.call.flags & KVM_MEM_READONLY else 'off'},"
        f" slot has it {'on' if u.old and u.old.flags & KVM_MEM_READONLY else 'off'}"
    ),
)

_SAME_GUEST_MEMFD = Guard(
    name="same_guest_memfd",
    title="GUEST_MEMFD unchanged",
    function="kvm_set_memory_region",
    errno=Errno.EINVAL,
    passes=lambda _, u: u.old is not None and not (u.call.flags ^ u.old.flags) & KVM_MEM_GUEST_MEMFD,
    operands=lambda _, u: (
        f"GUEST_MEMFD {'on' if u.call.flags & KVM_MEM_GUEST_MEMFD else 'off'},"
        f" slot has it {'on' if u.old and u.old.flags & KVM_MEM_GUEST_MEMFD else 'off'}"
    ),
    behaviour=lambda profile: profile.set_user_memory_region2,
)


def _overlap_operands(kvm: KvmDraft, update: RegionUpdate) -> str:
    start = update.call.guest_phys_addr >> PAGE_SHIFT
    other = overlapping_slot(kvm.active(update.call.as_id), update.call.slot, start, _end(update))
    if other is None:
        return "no other slot"
    return f"gfns [{start:#x}, {_end(update):#x}) touch slot {other.id} at [{other.base_gfn:#x}, {other.end_gfn:#x})"


_OVERLAP = Guard(
    name="overlap",
    title="no overlap with another slot",
    function="kvm_check_memslot_overlap",
    errno=Errno.EEXIST,
    passes=lambda kvm, u: (
        overlapping_slot(kvm.active(u.call.as_id), SlotId(u.call.slot), u.call.guest_phys_addr >> PAGE_SHIFT, _end(u))
        is None
    ),
    operands=_overlap_operands,
)


def _offset(update: RegionUpdate) -> int:
    return update.call.guest_memfd_offset if isinstance(update.call, SetMemoryRegion2) else 0


def _fd(update: RegionUpdate) -> int:
    return update.call.guest_memfd if isinstance(update.call, SetMemoryRegion2) else 0


def _file_size(kvm: KvmDraft, update: RegionUpdate) -> int:
    file = kvm.guest_memfds.get(_fd(update))
    return 0 if file is None else file.size


def _gmem_holder(kvm: KvmDraft, update: RegionUpdate) -> GmemBinding | None:
    file = kvm.guest_memfds.get(_fd(update))
    return None if file is None else bound_to(file, _offset(update) >> PAGE_SHIFT, update.npages)


def _gmem_overlap_operands(kvm: KvmDraft, update: RegionUpdate) -> str:
    first = _offset(update) >> PAGE_SHIFT
    holder = _gmem_holder(kvm, update)
    pages = f"pages [{first:#x}, {first + update.npages:#x}) of the file"
    return f"{pages} are free" if holder is None else f"slot {holder.slot} has some of {pages}"


_GMEM_FD = Guard(
    name="gmem_fd",
    title="the descriptor is open",
    function="kvm_gmem_prepare_memory_region",
    errno=Errno.EBADF,
    passes=lambda _, u: has_file(_fd(u)),
    operands=lambda _, u: f"descriptor {_fd(u) if has_file(_fd(u)) else _fd(u) - (1 << 32)}",
)
_GMEM_FILE = Guard(
    name="gmem_file",
    title="the descriptor is a guest_memfd of this VM",
    function="kvm_gmem_prepare_memory_region",
    errno=Errno.EINVAL,
    passes=lambda kvm, u: _fd(u) in kvm.guest_memfds,
    operands=lambda kvm, u: f"descriptor {_fd(u)} {'is' if _fd(u) in kvm.guest_memfds else 'is none'}",
)
_GMEM_SIZE = Guard(
    name="gmem_size",
    title="part lies in the file",
    function="kvm_gmem_prepare_memory_region",
    errno=Errno.EINVAL,
    passes=lambda kvm, u: _offset(u) + u.call.memory_size <= _file_size(kvm, u),
    operands=lambda kvm, u: f"ends at {_offset(u) + u.call.memory_size:#x}, the file at {_file_size(kvm, u):#x}",
)
_GMEM_FREE = Guard(
    name="gmem_overlap",
    title="no other slot has the part",
    function="kvm_gmem_prepare_memory_region",
    errno=Errno.EINVAL,
    passes=lambda kvm, u: _gmem_holder(kvm, u) is None,
    operands=_gmem_overlap_operands,
    behaviour=lambda profile: not profile.guest_memfd_binds_late,
)
_GMEM_STILL_FREE = replace(
    _GMEM_FREE,
    function="kvm_gmem_commit_memory_region",
    errno=Errno.EEXIST,
    behaviour=lambda profile: profile.guest_memfd_binds_late,
)


def _external_user_operands(kvm: KvmDraft, _: RegionUpdate) -> str:
    if not kvm.config.external_write_tracking:
        return "not built in, so always none"
    n = len(kvm.track_notifiers)
    text = f"{n or 'none'} attached"
    return f"inverted as posted: {text}" if kvm.profile.has_external_user_inverted else text


_EXTERNAL_USER = Guard(
    name="external_user",
    title="no external page tracker",
    function="kvm_arch_prepare_memory_region",
    errno=Errno.EINVAL,
    passes=lambda kvm, _: not kvm_page_track_has_external_user(kvm),
    operands=_external_user_operands,
    behaviour=lambda profile: profile.move_refused_for_external_user,
)
_MAX_GFN = Guard(
    name="max_gfn",
    title="end gfn within reach",
    function="kvm_arch_prepare_memory_region",
    errno=Errno.EINVAL,
    passes=lambda kvm, u: _end(u) - 1 <= kvm.config.max_gfn(),
    operands=lambda kvm, u: f"last gfn {_end(u) - 1:#x}, most is {kvm.config.max_gfn():#x}",
    behaviour=lambda profile: profile.prepare_checks_max_gfn,
)
_BITMAP_MEMORY = Guard(
    name="bitmap_memory",
    title="memory for the dirty bitmap",
    function="kvm_alloc_dirty_bitmap",
    errno=Errno.ENOMEM,
    passes=lambda kvm, u: kvm.config.host_memory is None or fits_in_memory(kvm, bitmap_sizes(u.old, u.new)),
    operands=lambda kvm, u: _memory_operands(kvm, bitmap_sizes(u.old, u.new)),
)
_ARRAY_MEMORY = Guard(
    name="array_memory",
    title="memory for new arrays",
    function="kvm_alloc_memslot_metadata",
    errno=Errno.ENOMEM,
    passes=lambda kvm, u: kvm.config.host_memory is None or fits_in_memory(kvm, metadata_sizes(kvm, u.new)),
    operands=lambda kvm, u: _memory_operands(kvm, metadata_sizes(kvm, u.new)),
)


def _memory_operands(kvm: KvmDraft, sizes: tuple[int, ...]) -> str:
    if not sizes:
        return "none needed"
    have = "no limit set" if kvm.config.host_memory is None else f"{kvm.config.host_memory - kvm.heap_bytes:,} left"
    return f"{sum(sizes):,} bytes needed, {have}"


def ladder_for(profile: KernelProfile, call: SetMemoryRegion) -> Ladder:
    """Return the checks that a call can meet on a profile."""
    if not isinstance(call, SetMemoryRegion2):
        return ladder_of(profile)
    return ladder_of(profile, "gmem" if call.flags & KVM_MEM_GUEST_MEMFD else "region2")


@cache
def ladder_of(profile: KernelProfile, kind: Literal["region", "region2", "gmem"] = "region") -> Ladder:
    """Return the checks a profile has, in its order, for one of the two ioctls or for the second with guest_memfd."""
    gmem = kind == "gmem"

    def part(*guards: Guard) -> tuple[Guard, ...]:
        return tuple(guard for guard in guards if guard.behaviour(profile))

    return Ladder(
        ioctl=part(_VM_ALIVE, _REGION_FLAGS if kind == "region" else _REGION2_EXISTS, _USER_SLOT_ID),
        arguments=part(
            _FLAGS,
            _SIZE_ALIGNED,
            _GPA_ALIGNED,
            _HVA_ALIGNED,
            _HVA_USER_RANGE,
            *((_GMEM_OFFSET_ALIGNED, _GMEM_NO_WRAP) if gmem else ()),
            _AS_ID,
            _GPA_NO_WRAP,
            _NPAGES,
        ),
        delete=part(_SLOT_EXISTS, _PAGES_ACCOUNTED),
        create=part(_TOTAL_NO_WRAP),
        existing=part(*((_GMEM_IMMUTABLE,) if gmem else ()), _SAME_HVA, _SAME_SIZE, _SAME_READONLY, _SAME_GUEST_MEMFD),
        place=part(_OVERLAP),
        bitmap=part(_BITMAP_MEMORY),
        # A kernel in which a MOVE keeps the arrays allocates none for it.
        prepare_move=part(_EXTERNAL_USER, _MAX_GFN, *(() if profile.move_keeps_arch_metadata else (_ARRAY_MEMORY,))),
        prepare_create=part(_MAX_GFN, _ARRAY_MEMORY),
        gmem=part(_GMEM_FD, _GMEM_FILE, _GMEM_SIZE, _GMEM_FREE) if gmem else (),
        gmem_commit=part(_GMEM_STILL_FREE) if gmem else (),
    )
