"""What could be changed in a refused region call, check by check, each edit with its size.

An edit is a guess: it looks at the check that fired, at the arguments and at the slots there are, and never at the
kernel's version. Whether it helps is not decided here: `changes` runs it in the engine, and where another check fires
then, asks again. Read next: `slot_edits`.
"""

from __future__ import annotations

from dataclasses import replace
from math import log2
from typing import TYPE_CHECKING, NamedTuple

from explorer.engine.commands import SetMemoryRegion, SetMemoryRegion2
from explorer.engine.draft import KvmDraft
from explorer.engine.gmem_guards import check_memory_region_flags
from explorer.engine.types import PAGE_SHIFT, PAGE_SIZE, U64_MAX
from explorer.engine.uapi import (
    KVM_MEM_GUEST_MEMFD,
    KVM_MEM_LOG_DIRTY_PAGES,
    KVM_MEM_READONLY,
    TASK_SIZE_MAX,
)
from explorer.explain.words import hex_text, size_text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from explorer.engine.commands import Command
    from explorer.engine.state import Kvm, KvmMemorySlot

__all__ = [
    "ARGUMENT",
    "ARGUMENT_EDITS",
    "CALL_BEFORE",
    "LAST_RESORT",
    "OTHER_ID",
    "Edit",
    "deletion",
    "end_of",
    "near",
    "old_slot",
    "start_of",
    "with_base",
    "with_flags",
    "with_hva",
    "with_size",
    "with_slot",
]

ARGUMENT, OTHER_ID, CALL_BEFORE = 1.0, 2.0, 3.0
"""Sizes: another value of an argument, another slot than the one meant, a call more."""
LAST_RESORT = 4.0


class Edit(NamedTuple):
    """One thing done otherwise."""

    kind: str
    """What it touches: an argument's name, or the call that comes before."""
    size: float
    """How much is changed; the smaller, the earlier it is tried."""
    words: str
    call: SetMemoryRegion
    """The call after the edit."""
    before: tuple[Command, ...] = ()
    """Calls to make first."""


def start_of(call: SetMemoryRegion) -> int:
    """Return the first gfn a call asks for."""
    return call.guest_phys_addr >> PAGE_SHIFT


def end_of(call: SetMemoryRegion) -> int:
    """Return the first gfn behind what a call asks for."""
    return start_of(call) + (call.memory_size >> PAGE_SHIFT)


def deletion(slot: KvmMemorySlot) -> SetMemoryRegion:
    """Return the call that deletes a slot."""
    return SetMemoryRegion(slot=slot.id, as_id=slot.as_id, guest_phys_addr=0, memory_size=0)


def near(a: int, b: int) -> float:
    """Return a distance in bytes as a fraction below 1: of two edits of one kind the nearer one is the smaller."""
    return log2(abs(a - b) + 1) / 65


def old_slot(kvm: Kvm, call: SetMemoryRegion) -> KvmMemorySlot | None:
    """Return the slot that a call names, or None."""
    return kvm.slot(call.slot, call.as_id) if call.as_id < len(kvm.memslots) else None


# -- the arguments one by one ----------------------------------------------------------------------


def with_base(call: SetMemoryRegion, gpa: int, why: str = "") -> Edit:
    """Return the edit to another guest address."""
    way = "up" if gpa > call.guest_phys_addr else "down"
    distance = size_text(abs(gpa - call.guest_phys_addr))
    words = f"base {hex_text(gpa)}, {why or f'{way} by {distance}'}"
    return Edit("base", ARGUMENT + near(gpa, call.guest_phys_addr), words, replace(call, guest_phys_addr=gpa))


def with_size(call: SetMemoryRegion, size: int, why: str = "") -> Edit:
    """Return the edit to another size."""
    words = f"size {hex_text(size)}, {why or size_text(size)}"
    return Edit("size", ARGUMENT + near(size, call.memory_size), words, replace(call, memory_size=size))


def with_hva(call: SetMemoryRegion, hva: int, why: str) -> Edit:
    """Return the edit to another host address."""
    words = f"host address {hex_text(hva)}, {why}"
    return Edit("hva", ARGUMENT + near(hva, call.userspace_addr), words, replace(call, userspace_addr=hva))


def with_flags(call: SetMemoryRegion, flags: int) -> Edit:
    """Return the edit to other flags."""
    dropped, added = call.flags & ~flags, flags & ~call.flags
    parts = [f"{word} {_flag_names(bits)}" for word, bits in (("without", dropped), ("with", added)) if bits]
    bits = (dropped | added).bit_count()
    return Edit(
        "flags",
        ARGUMENT + bits / 65,
        f"flags {hex_text(flags)}, {' and '.join(parts)}",
        replace(call, flags=flags),
    )


def _flag_names(flags: int) -> str:
    names = {
        KVM_MEM_LOG_DIRTY_PAGES: "LOG_DIRTY_PAGES",
        KVM_MEM_READONLY: "READONLY",
        KVM_MEM_GUEST_MEMFD: "GUEST_MEMFD",
    }
    known = [name for bit, name in names.items() if flags & bit]
    rest = flags & ~sum(names)
    return " and ".join([*known, hex_text(rest)] if rest else known)


def with_slot(call: SetMemoryRegion, slot: int, why: str) -> Edit:
    """Return the edit to another slot id."""
    return Edit("slot", OTHER_ID + near(slot, call.slot), f"slot {slot}, {why}", replace(call, slot=slot))


def _aligned(call: SetMemoryRegion, value: int, edit: Callable[[SetMemoryRegion, int, str], Edit]) -> Iterator[Edit]:
    down = value & -PAGE_SIZE
    yield edit(call, down, "rounded down to a page")
    if down + PAGE_SIZE <= U64_MAX:
        yield edit(call, down + PAGE_SIZE, "rounded up to a page")


def _size_aligned(_kvm: Kvm, call: SetMemoryRegion) -> Iterator[Edit]:
    return (edit for edit in _aligned(call, call.memory_size, with_size) if edit.call.memory_size)


def _gpa_aligned(_kvm: Kvm, call: SetMemoryRegion) -> Iterator[Edit]:
    return _aligned(call, call.guest_phys_addr, with_base)


def _hva_aligned(_kvm: Kvm, call: SetMemoryRegion) -> Iterator[Edit]:
    return _aligned(call, call.userspace_addr, with_hva)


def _hva_user_range(kvm: Kvm, call: SetMemoryRegion) -> Iterator[Edit]:
    old = old_slot(kvm, call)
    if old is not None and call.memory_size:
        yield with_hva(call, old.userspace_addr, "which the slot has")
    if call.memory_size <= TASK_SIZE_MAX:
        yield with_hva(call, (TASK_SIZE_MAX - call.memory_size) & -PAGE_SIZE, "so that userspace’s range holds it")
    if PAGE_SIZE <= TASK_SIZE_MAX - call.userspace_addr < call.memory_size:
        yield with_size(call, TASK_SIZE_MAX - call.userspace_addr, "to the end of userspace’s range")


def _as_id(kvm: Kvm, call: SetMemoryRegion) -> Iterator[Edit]:
    for as_id in range(len(kvm.memslots) - 1, -1, -1):
        words = f"address space {as_id}, which exists"
        yield Edit("as_id", OTHER_ID + near(as_id, call.as_id), words, replace(call, as_id=as_id))


def _flags(kvm: Kvm, call: SetMemoryRegion) -> Iterator[Edit]:
    plain = call.flags & (KVM_MEM_LOG_DIRTY_PAGES | KVM_MEM_READONLY)
    yield with_flags(call, plain)
    on_file = call.flags & check_memory_region_flags(KvmDraft(kvm, record=False), call.flags)
    if on_file & KVM_MEM_GUEST_MEMFD and isinstance(call, SetMemoryRegion2):
        yield with_flags(call, on_file)


def _plain_flags(_kvm: Kvm, call: SetMemoryRegion) -> Iterator[Edit]:
    yield with_flags(call, call.flags & (KVM_MEM_LOG_DIRTY_PAGES | KVM_MEM_READONLY))


def _region2_exists(_kvm: Kvm, call: SetMemoryRegion) -> Iterator[Edit]:
    plain = SetMemoryRegion(**{name: getattr(call, name) for name in SetMemoryRegion.__dataclass_fields__})
    plain = replace(plain, flags=plain.flags & ~KVM_MEM_GUEST_MEMFD)
    on_file = ", without GUEST_MEMFD" if call.flags & KVM_MEM_GUEST_MEMFD else ""
    yield Edit("ioctl", ARGUMENT, f"KVM_SET_USER_MEMORY_REGION instead of REGION2{on_file}", plain)


ARGUMENT_EDITS: dict[str, Callable[[Kvm, SetMemoryRegion], Iterator[Edit]]] = {
    "region_flags": _plain_flags,
    "flags": _flags,
    "region2_exists": _region2_exists,
    "size_aligned": _size_aligned,
    "gpa_aligned": _gpa_aligned,
    "hva_aligned": _hva_aligned,
    "hva_user_range": _hva_user_range,
    "as_id": _as_id,
}
"""Edits by the check that fired."""
