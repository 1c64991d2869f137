"""Write tracking: a count per page, and the list of those who asked for it.

A page with a count above zero must not be writable for the guest; every write to it is emulated and
reported. KVM's shadow paging adds one count per shadowed upper-level table, an external tracker one per
request. Every add and remove moves the huge-page counters of the page's frames as well.

Models arch/x86/kvm/mmu/page_track.c and update_gfn_disallow_lpage_count() of arch/x86/kvm/mmu/mmu.c.
Not modelled: TLB flushes, track_srcu. Read next: `gtt`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from explorer.engine.events import WriteTracked, WriteUntracked
from explorer.engine.lookup import gfn_to_memslot
from explorer.engine.sortedmap import SortedMap
from explorer.engine.spte import kvm_mmu_slot_gfn_write_protect
from explorer.engine.state import KvmArchMemorySlot, LpageInfo, WriteTrack
from explorer.engine.types import PG_LEVEL_1G, PG_LEVEL_2M, Errno, gfn_to_index

if TYPE_CHECKING:
    from explorer.engine.draft import KvmDraft
    from explorer.engine.state import KvmMemorySlot

__all__ = [
    "SHADOW_PAGING",
    "allocate_missing_counts",
    "kvm_enable_external_write_tracking",
    "kvm_gfn_is_write_tracked",
    "kvm_page_track_has_external_user",
    "kvm_page_track_write_tracking_enabled",
    "kvm_write_track_add_gfn",
    "kvm_write_track_remove_gfn",
    "store_arch_in_place",
    "update_gfn_disallow_lpage_count",
    "write_track_add",
    "write_track_count",
    "write_track_remove",
]

U16_MAX = 0xFFFF
_BIT_31 = 1 << 31
SHADOW_PAGING = "shadow paging"


def kvm_page_track_write_tracking_enabled(kvm: KvmDraft) -> bool:
    """Return whether slots have write-track counts at all.

    References
    ----------
    arch/x86/kvm/mmu/page_track.c: kvm_page_track_write_tracking_enabled() [v6_1 to v7_3; from v6_12 on demand]
    """
    match kvm.profile.track_arrays:
        case "always":
            return True
        case "by config":
            asked = kvm.config.external_write_tracking
        case "on demand":
            asked = kvm.external_write_tracking_enabled
    return asked or not kvm.config.tdp or kvm.shadow_root_allocated


def kvm_page_track_has_external_user(kvm: KvmDraft) -> bool:
    """Return whether an external tracker is registered; as posted, the opposite.

    Without CONFIG_KVM_EXTERNAL_WRITE_TRACKING the function is a constant false, which is why builds
    without the option could not show that the posted test was inverted.

    References
    ----------
    arch/x86/kvm/mmu/page_track.h: kvm_page_track_has_external_user() [v6_6 to v7_3; v6_6_posted inverted]
    """
    if not kvm.config.external_write_tracking:
        return False
    return bool(kvm.track_notifiers) is not kvm.profile.has_external_user_inverted


def write_track_count(kvm: KvmDraft, slot: KvmMemorySlot, gfn: int) -> int:
    """Return the write-track count of a page of `slot`; 0 if the slot has no counts."""
    if slot.arch.gfn_write_track is None:
        return 0
    array = kvm.heap.get(slot.arch.gfn_write_track)
    return array.counts.get(gfn - slot.base_gfn, 0) if isinstance(array, WriteTrack) else 0


def kvm_gfn_is_write_tracked(kvm: KvmDraft, slot: KvmMemorySlot | None, gfn: int) -> bool:
    """Return whether guest writes to a page must be intercepted.

    References
    ----------
    arch/x86/kvm/mmu/page_track.c: kvm_gfn_is_write_tracked() [v6_6 to v7_3; from v7_3 on, and in stable 6.1,
    both address spaces], kvm_slot_page_track_is_active() [v6_1], kvm_page_track_is_active()
    [up to v5_10]
    """
    if slot is None or not kvm_page_track_write_tracking_enabled(kvm):
        return False
    if write_track_count(kvm, slot, gfn):
        return True
    if not kvm.profile.write_tracked_in_both_spaces:
        return False
    return any(
        write_track_count(kvm, other, gfn) > 0
        for as_id in range(len(kvm.memslots))
        if as_id != slot.as_id and (other := gfn_to_memslot(kvm.active(as_id), gfn)) is not None
    )


def _update_gfn_write_track(kvm: KvmDraft, slot: KvmMemorySlot, gfn: int, count: int) -> int | None:
    """Add `count` to a page's 16-bit count unless that leaves its range; return the new count.

    References
    ----------
    arch/x86/kvm/mmu/page_track.c: update_gfn_write_track() [v6_6 to v7_3], update_gfn_track() [up to v6_1]
    """
    kvm.enter("update_gfn_write_track")
    array_id = slot.arch.gfn_write_track
    array = kvm.heap.get(array_id) if array_id is not None else None
    if array_id is None or not isinstance(array, WriteTrack):
        kvm.warn("update_gfn_write_track", f"slot {slot.id} has no counts (use after free or never allocated)")
        return None
    index = gfn - slot.base_gfn
    value = array.counts.get(index, 0) + count
    if not 0 <= value <= U16_MAX:
        kvm.warn("update_gfn_write_track", f"count of gfn {gfn:#x} would become {value}; it stays {value - count}")
        return None
    counts = array.counts.set(index, value) if value else array.counts.discard(index)
    kvm.heap = kvm.heap.set(array_id, WriteTrack(array.n, counts))
    return value


def update_gfn_disallow_lpage_count(kvm: KvmDraft, slot: KvmMemorySlot, gfn: int, count: int) -> None:
    """Add `count` to the huge-page counters of the 2 MiB and the 1 GiB frame of a page.

    References
    ----------
    arch/x86/kvm/mmu/mmu.c: update_gfn_disallow_lpage_count() [all profiles; it WARNs below zero,
    from v6.8 when bit 31 flips]
    """
    kvm.enter("update_gfn_disallow_lpage_count")
    array_id = slot.arch.lpage_info
    info = kvm.heap.get(array_id) if array_id is not None else None
    if array_id is None or not isinstance(info, LpageInfo):
        kvm.warn("update_gfn_disallow_lpage_count", f"slot {slot.id} has no lpage_info (use after free)")
        return
    levels = list(info.levels)
    for at, level in enumerate((PG_LEVEL_2M, PG_LEVEL_1G)):
        entry = levels[at]
        index = gfn_to_index(gfn, slot.base_gfn, level)  # type: ignore[arg-type]
        if index >= entry.n:
            kvm.warn(
                "update_gfn_disallow_lpage_count",
                f"gfn {gfn:#x} has index {index} of {entry.n} at level {level}: past the end of the array",
            )
            continue
        added = entry.added.get(index, 0) + count
        old = entry.value(index)
        new = old + count
        if new < 0 if kvm.profile.disallow_lpage_warns == "below zero" else (old ^ new) & _BIT_31:
            kvm.warn(
                "update_gfn_disallow_lpage_count", f"disallow_lpage of gfn {gfn:#x} at level {level} becomes {new}"
            )
        levels[at] = entry._replace(added=entry.added.set(index, added) if added else entry.added.discard(index))
    kvm.heap = kvm.heap.set(array_id, LpageInfo((levels[0], levels[1])))


def write_track_add(kvm: KvmDraft, slot: KvmMemorySlot, gfn: int, by: str) -> None:
    """Start intercepting writes to a page, once more.

    The huge-page counters move even if the count was already at its limit.

    References
    ----------
    arch/x86/kvm/mmu/page_track.c: __kvm_write_track_add_gfn() [v6_6 to v7_3], kvm_slot_page_track_add_page()
    [up to v6_1]; arch/x86/kvm/mmu/mmu.c: kvm_mmu_gfn_disallow_lpage() [all profiles]
    """
    kvm.enter("__kvm_write_track_add_gfn")
    if _refused_as_disabled(kvm, "__kvm_write_track_add_gfn"):
        return
    count = _update_gfn_write_track(kvm, slot, gfn, 1)
    kvm.enter("kvm_mmu_gfn_disallow_lpage")
    update_gfn_disallow_lpage_count(kvm, slot, gfn, 1)
    kvm_mmu_slot_gfn_write_protect(kvm, slot, gfn)
    if count is not None:
        kvm.emit(WriteTracked, gfn=gfn, slot=slot.id, as_id=slot.as_id, count=count, by=by)


def write_track_remove(kvm: KvmDraft, slot: KvmMemorySlot, gfn: int, by: str) -> None:
    """Stop intercepting writes to a page, once.

    A removal too many warns, leaves the count at zero and still lowers the huge-page counters, which
    from then on disagree with the counts.

    References
    ----------
    arch/x86/kvm/mmu/page_track.c: __kvm_write_track_remove_gfn() [v6_6 to v7_3],
    kvm_slot_page_track_remove_page() [up to v6_1]; arch/x86/kvm/mmu/mmu.c: kvm_mmu_gfn_allow_lpage() [all profiles]
    """
    kvm.enter("__kvm_write_track_remove_gfn")
    if _refused_as_disabled(kvm, "__kvm_write_track_remove_gfn"):
        return
    count = _update_gfn_write_track(kvm, slot, gfn, -1)
    kvm.enter("kvm_mmu_gfn_allow_lpage")
    update_gfn_disallow_lpage_count(kvm, slot, gfn, -1)
    if count is not None:
        kvm.emit(WriteUntracked, gfn=gfn, slot=slot.id, as_id=slot.as_id, count=count, by=by)


def _refused_as_disabled(kvm: KvmDraft, function: str) -> bool:
    if kvm_page_track_write_tracking_enabled(kvm):
        return False
    if kvm.profile.tracking_misuse == "bug the vm":
        kvm.bug(function, "a page is tracked although write tracking was never enabled")
    else:
        kvm.warn(function, "a page is tracked although write tracking is not enabled")
    return True


def kvm_write_track_add_gfn(kvm: KvmDraft, gfn: int, by: str) -> Errno | None:
    """Track a page for an external user: in the normal address space, INVALID slots included.

    References
    ----------
    arch/x86/kvm/mmu/page_track.c: kvm_write_track_add_gfn() [v6_6 to v7_3], kvm_slot_page_track_add_page() [up to v6_1;
    its caller did the lookup]
    """
    kvm.enter("kvm_write_track_add_gfn")
    slot = gfn_to_memslot(kvm.active(0), gfn)
    if slot is None:
        return Errno.EINVAL
    write_track_add(kvm, slot, gfn, by)
    return None


def kvm_write_track_remove_gfn(kvm: KvmDraft, gfn: int, by: str) -> Errno | None:
    """Untrack a page for an external user.

    References
    ----------
    arch/x86/kvm/mmu/page_track.c: kvm_write_track_remove_gfn() [v6_6 to v7_3], kvm_slot_page_track_remove_page() [up to
    v6_1; its caller did the lookup]
    """
    kvm.enter("kvm_write_track_remove_gfn")
    slot = gfn_to_memslot(kvm.active(0), gfn)
    if slot is None:
        return Errno.EINVAL
    write_track_remove(kvm, slot, gfn, by)
    return None


def kvm_enable_external_write_tracking(kvm: KvmDraft) -> None:
    """Give every slot its counts, because the first external tracker registers.

    References
    ----------
    arch/x86/kvm/mmu/page_track.c: kvm_enable_external_write_tracking() [v6_12 to v7_3]
    """
    kvm.enter("kvm_enable_external_write_tracking")
    if kvm.external_write_tracking_enabled:
        return
    if not kvm_page_track_write_tracking_enabled(kvm):
        allocate_missing_counts(kvm)
    # Published last, with release semantics: whoever sees the flag may rely on the arrays.
    kvm.external_write_tracking_enabled = True


def allocate_missing_counts(kvm: KvmDraft) -> None:
    """Allocate the counts of every published slot that has none.

    Only the *active* set is walked. While a slot is being moved or deleted that is its INVALID copy, so
    the update must pick the new pointer up before it restores or frees the old object.

    References
    ----------
    arch/x86/kvm/mmu/page_track.c: kvm_page_track_write_tracking_alloc() [v6_1 to v7_3; of each slot in turn]
    """
    for as_id in range(len(kvm.memslots)):
        for slot in tuple(kvm.active(as_id).slots()):
            if slot.arch.gfn_write_track is not None:
                continue
            array_id = kvm.allocate(WriteTrack(slot.npages, SortedMap()), slot)
            arch = KvmArchMemorySlot(slot.arch.rmap, slot.arch.lpage_info, array_id)
            store_arch_in_place(kvm, slot, arch)


def store_arch_in_place(kvm: KvmDraft, slot: KvmMemorySlot, arch: KvmArchMemorySlot) -> None:
    """Change ``slot->arch`` of one slot object, in whichever sets hold that object."""
    for memslots in kvm.memslots[slot.as_id].sets:
        if memslots.id_hash.get(slot.id) == slot:
            kvm.put_set(slot.as_id, memslots._replace(id_hash=memslots.id_hash.set(slot.id, slot.with_arch(arch))))
    update = kvm.update
    if update is None:
        return
    # The call in progress holds pointers to the objects, not copies of them.
    if update.old == slot:
        update.old = slot.with_arch(arch)
    elif update.invalid == slot:
        update.invalid = slot.with_arch(arch)
