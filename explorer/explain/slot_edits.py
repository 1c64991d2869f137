"""What could be changed in a refused region call because of the slots, the trackers and the memory there are.

Read next: `gmem_edits`, `changes`.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from explorer.engine.apply import apply
from explorer.engine.commands import AttachTracker, DetachTracker
from explorer.engine.lookup import overlapping_slot
from explorer.engine.state import Kvmgt
from explorer.engine.types import PAGE_SHIFT, PAGE_SIZE, SlotId
from explorer.engine.uapi import (
    KVM_MEM_GUEST_MEMFD,
    KVM_MEM_LOG_DIRTY_PAGES,
    KVM_MEM_MAX_NR_PAGES,
    KVM_MEM_READONLY,
)
from explorer.explain.edits import (
    ARGUMENT,
    CALL_BEFORE,
    LAST_RESORT,
    OTHER_ID,
    Edit,
    deletion,
    end_of,
    near,
    old_slot,
    start_of,
    with_base,
    with_flags,
    with_hva,
    with_size,
    with_slot,
)
from explorer.explain.words import hex_text, size_text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from explorer.engine.commands import SetMemoryRegion
    from explorer.engine.state import Kvm, KvmMemorySlot

__all__ = ["SLOT_EDITS"]

_MOST_JUMPS = 4096
"""Slots that are passed in the search for a free place or id."""


def _first_deleted(call: SetMemoryRegion, slot: KvmMemorySlot) -> Edit:
    if slot.id == call.slot:
        moves = slot.base_gfn != start_of(call)
        where = f" at {hex_text(call.guest_phys_addr)}" if moves else ""
        return Edit("delete", CALL_BEFORE, f"DELETE and CREATE{where}", call, (deletion(slot),))
    return Edit("delete other", CALL_BEFORE, f"delete slot {slot.id} first", call, (deletion(slot),))


def _user_slot_id(kvm: Kvm, call: SetMemoryRegion) -> Iterator[Edit]:
    if call.as_id >= len(kvm.memslots):
        yield with_slot(call, kvm.profile.user_mem_slots - 1, "the last there may be")
        return
    if not call.memory_size:
        yield from _slot_exists(kvm, call)
        return
    free = _free_id(kvm, call, kvm.profile.user_mem_slots - 1)
    if free is not None:
        yield with_slot(call, free, "the nearest that is free")


def _free_id(kvm: Kvm, call: SetMemoryRegion, wanted: int) -> int | None:
    used = kvm.active(call.as_id).id_hash
    last = min(wanted, kvm.profile.user_mem_slots - 1)
    up = (i for i in range(last + 1, min(last + _MOST_JUMPS, kvm.profile.user_mem_slots)) if SlotId(i) not in used)
    down = (i for i in range(last, max(last - _MOST_JUMPS, -1), -1) if SlotId(i) not in used)
    found = [i for i in (next(up, None), next(down, None)) if i is not None]
    return min(found, key=lambda i: abs(i - wanted), default=None)


def _slot_exists(kvm: Kvm, call: SetMemoryRegion) -> Iterator[Edit]:
    """Delete another slot, for the one that is named does not exist."""
    ids = kvm.active(call.as_id).id_hash
    for found in (ids.floor(SlotId(call.slot)), ids.ceiling(SlotId(call.slot))):
        if found is not None:
            yield with_slot(call, found[0], "which exists")
    for as_id in range(len(kvm.memslots)):
        if as_id != call.as_id and kvm.slot(call.slot, as_id) is not None:
            yield Edit(
                "as_id", OTHER_ID, f"address space {as_id}, which has slot {call.slot}", replace(call, as_id=as_id)
            )
    yield with_size(call, PAGE_SIZE, "which makes it a CREATE")._replace(size=LAST_RESORT)


def _changed(kvm: Kvm, call: SetMemoryRegion, *edits: Edit) -> Iterator[Edit]:
    """Keep what an existing slot has, or take away the slot, or leave it alone."""
    yield from edits
    old = old_slot(kvm, call)
    if old is not None:
        yield _first_deleted(call, old)
    free = _free_id(kvm, call, call.slot)
    if free is not None:
        yield with_slot(call, free, "which is free")._replace(size=CALL_BEFORE)  # a slot more, as good as a call more


def _same_hva(kvm: Kvm, call: SetMemoryRegion) -> Iterator[Edit]:
    old = old_slot(kvm, call)
    return _changed(kvm, call, *([with_hva(call, old.userspace_addr, "as the slot has")] if old else []))


def _same_size(kvm: Kvm, call: SetMemoryRegion) -> Iterator[Edit]:
    old = old_slot(kvm, call)
    return _changed(kvm, call, *([with_size(call, old.npages << PAGE_SHIFT, "as the slot has")] if old else []))


def _same_flag(bit: int) -> Callable[[Kvm, SetMemoryRegion], Iterator[Edit]]:
    return lambda kvm, call: _changed(kvm, call, with_flags(call, call.flags ^ bit))


def _overlap(kvm: Kvm, call: SetMemoryRegion) -> Iterator[Edit]:
    other = overlapping_slot(kvm.active(call.as_id), call.slot, start_of(call), end_of(call))
    if other is None:
        return
    for below in (True, False):
        gfn = _free_place(kvm, call, below=below)
        if gfn is not None:
            where = "below" if below else "above"
            distance = size_text(abs(gfn - start_of(call)) << PAGE_SHIFT)
            why = f"{'down' if below else 'up'} by {distance}: the nearest place {where} that is free"
            yield with_base(call, gfn << PAGE_SHIFT, why)
    if other.base_gfn > start_of(call):
        room = (other.base_gfn - start_of(call)) << PAGE_SHIFT
        yield with_size(call, room, f"{size_text(room)}: up to slot {other.id}")
    elif other.end_gfn < end_of(call):
        behind = overlapping_slot(kvm.active(call.as_id), call.slot, other.end_gfn, end_of(call))
        end = end_of(call) if behind is None else behind.base_gfn
        base, room = other.end_gfn << PAGE_SHIFT, (end - other.end_gfn) << PAGE_SHIFT
        if room:
            words = f"base {hex_text(base)} and size {hex_text(room)}: what is free behind slot {other.id}"
            smaller = replace(call, guest_phys_addr=base, memory_size=room)
            yield Edit("base and size", 2 * ARGUMENT + near(room, call.memory_size), words, smaller)
    same = (other.npages << PAGE_SHIFT, other.userspace_addr) == (call.memory_size, call.userspace_addr)
    if same:
        yield with_slot(call, other.id, "the slot that has this memory")
    yield _first_deleted(call, other)


def _free_place(kvm: Kvm, call: SetMemoryRegion, *, below: bool) -> int | None:
    """Return the nearest gfn from which the call would touch no other slot."""
    slots, npages = kvm.active(call.as_id), call.memory_size >> PAGE_SHIFT
    limit = kvm.config.max_gfn() + 1
    gfn = min(start_of(call), limit - npages)
    for _ in range(_MOST_JUMPS):
        if gfn < 0 or gfn + npages > limit:
            return None
        other = overlapping_slot(slots, call.slot, gfn, gfn + npages)
        if other is None:
            return gfn
        gfn = other.base_gfn - npages if below else other.end_gfn
    return None


# -- the end of memory, trackers, the kernel's own memory ------------------------------------------


def _top(kvm: Kvm, call: SetMemoryRegion) -> Iterator[Edit]:
    """Stay below the last address a guest can have."""
    end = (kvm.config.max_gfn() + 1) << PAGE_SHIFT
    if call.memory_size <= end:
        yield with_base(call, end - call.memory_size, f"so that it ends at {hex_text(end)}, where guest memory ends")
    if PAGE_SIZE <= end - call.guest_phys_addr < call.memory_size:
        yield with_size(call, end - call.guest_phys_addr, "to where guest memory ends")


def _npages(kvm: Kvm, call: SetMemoryRegion) -> Iterator[Edit]:
    yield with_size(call, KVM_MEM_MAX_NR_PAGES << PAGE_SHIFT, "the most a slot may have")
    old = old_slot(kvm, call)
    if old is not None:
        yield with_size(call, old.npages << PAGE_SHIFT, "as the slot has")


def _external_user(kvm: Kvm, call: SetMemoryRegion) -> Iterator[Edit]:
    users = kvm.track_notifiers
    if users and not kvm.profile.has_external_user_inverted:
        kvmgt = all(isinstance(kvm.trackers[user], Kvmgt) for user in users)
        who = "KVMGT" if kvmgt else "the tracker" if len(users) == 1 else "the trackers"
        detached = tuple(DetachTracker(user=user) for user in users)
        yield Edit("detach", CALL_BEFORE - 0.5, f"detach {who} first", call, detached)
    elif not users:
        words = "attach a tracker first: the test as posted wants one"
        yield Edit("attach", LAST_RESORT, words, call, (AttachTracker(),))
    old = old_slot(kvm, call)
    if old is not None:
        yield _first_deleted(call, old)


def _memory(kvm: Kvm, call: SetMemoryRegion) -> Iterator[Edit]:
    """Ask for less: what is needed grows with the slot."""
    if call.flags & KVM_MEM_LOG_DIRTY_PAGES:
        yield with_flags(call, call.flags & ~KVM_MEM_LOG_DIRTY_PAGES)
    old = old_slot(kvm, call)
    if old is not None:
        yield _first_deleted(call, old)
    fits, too_many = 0, call.memory_size >> PAGE_SHIFT
    while old is None and too_many - fits > 1:
        middle = (fits + too_many) // 2
        smaller = replace(call, memory_size=middle << PAGE_SHIFT)
        fits, too_many = (middle, too_many) if apply(kvm, smaller, record=False).errno is None else (fits, middle)
    if fits:
        yield with_size(call, fits << PAGE_SHIFT, "the most for which there is memory")
    others = [slot for slot in kvm.slots() if slot.id != call.slot and slot.id < kvm.profile.user_mem_slots]
    if others:
        yield _first_deleted(call, max(others, key=lambda slot: slot.npages))


SLOT_EDITS: dict[str, Callable[[Kvm, SetMemoryRegion], Iterator[Edit]]] = {
    "user_slot_id": _user_slot_id,
    "gpa_no_wrap": _top,
    "npages": _npages,
    "slot_exists": _slot_exists,
    "same_hva": _same_hva,
    "same_size": _same_size,
    "same_readonly": _same_flag(KVM_MEM_READONLY),
    "same_guest_memfd": _same_flag(KVM_MEM_GUEST_MEMFD),
    "overlap": _overlap,
    "external_user": _external_user,
    "max_gfn": _top,
    "bitmap_memory": _memory,
    "array_memory": _memory,
}
"""Edits by the check that fired. `vm_alive`, `pages_accounted` and `total_no_wrap` have none: no argument helps."""
