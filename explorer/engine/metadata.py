"""The arrays behind a slot: how long they are, how they start, when they come and go.

Models arch/x86/kvm/x86.c: kvm_alloc_memslot_metadata(), memslot_rmap_alloc(), kvm_arch_free_memslot();
arch/x86/kvm/mmu/page_track.c: kvm_page_track_create_memslot(); virt/kvm/kvm_main.c:
kvm_alloc_dirty_bitmap(), kvm_free_memslot().
Not modelled: what an rmap entry points to; allocators. Memory runs out only against
``VmConfig.host_memory``, as a whole. Read next: `spte`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from explorer.engine.draft import built
from explorer.engine.events import DirtyBitmapHandedOver
from explorer.engine.guest_memfd import kvm_gmem_unbind
from explorer.engine.page_track import kvm_page_track_write_tracking_enabled
from explorer.engine.runset import RunSet
from explorer.engine.sortedmap import SortedMap
from explorer.engine.state import (
    DirtyBitmap,
    KvmArchMemorySlot,
    LpageInfo,
    LpageLevel,
    RmapArrays,
    WriteTrack,
)
from explorer.engine.types import (
    LEVELS,
    PAGE_SHIFT,
    PG_LEVEL_1G,
    PG_LEVEL_2M,
    Gfn,
    Hva,
    Level,
    hpages,
)
from explorer.engine.uapi import (
    KVM_DIRTY_LOG_INITIALLY_SET,
    KVM_MEM_GUEST_MEMFD,
    KVM_MEM_LOG_DIRTY_PAGES,
)

if TYPE_CHECKING:
    from explorer.engine.draft import KvmDraft
    from explorer.engine.state import KvmMemorySlot

_NOTHING_ADDED: SortedMap[int, int] = SortedMap()
_NOTHING_DIRTY = RunSet()

__all__ = [
    "bitmap_sizes",
    "fits_in_memory",
    "initial_lpage_level",
    "kvm_alloc_dirty_bitmap",
    "kvm_alloc_memslot_metadata",
    "kvm_arch_free_memslot",
    "kvm_free_memslot",
    "kvm_memslots_have_rmaps",
    "metadata_sizes",
    "prepare_dirty_bitmap",
]


def kvm_memslots_have_rmaps(kvm: KvmDraft) -> bool:
    """Return whether slots need rmap arrays: the TDP MMU does without until a shadow root exists.

    References
    ----------
    arch/x86/kvm/mmu.h: kvm_memslots_have_rmaps() [v6_1 to v7_3; up to v5_10 they always have]
    """
    return not (kvm.profile.rmaps_on_demand and kvm.config.tdp_mmu_enabled) or kvm.shadow_root_allocated


def kvm_alloc_memslot_metadata(kvm: KvmDraft, slot: KvmMemorySlot) -> KvmArchMemorySlot:
    """Allocate fresh arrays for a slot that is created or moved; all counts start at zero.

    The pointers the slot inherited from its old object are dropped first, so whatever the old arrays
    hold stays behind. That is the step Yan Zhao's question of March 2023 is about.

    References
    ----------
    arch/x86/kvm/x86.c: kvm_alloc_memslot_metadata() [v5_10 to v7_3], kvm_arch_create_memslot() [pre_edd4; on
    CREATE only]
    """
    kvm.enter("kvm_alloc_memslot_metadata")
    rmap = None
    if kvm_memslots_have_rmaps(kvm):
        kvm.enter("memslot_rmap_alloc")
        rmap = kvm.allocate(_rmaps(slot), slot)
    levels = (
        initial_lpage_level(slot.base_gfn, slot.npages, slot.userspace_addr, PG_LEVEL_2M),
        initial_lpage_level(slot.base_gfn, slot.npages, slot.userspace_addr, PG_LEVEL_1G),
    )
    lpage_info = kvm.allocate(built(LpageInfo, (levels,)), slot)
    kvm.enter("kvm_page_track_create_memslot")
    gfn_write_track = None
    if kvm_page_track_write_tracking_enabled(kvm):
        gfn_write_track = kvm.allocate(built(WriteTrack, (slot.npages, _NOTHING_ADDED)), slot)
    return built(KvmArchMemorySlot, (rmap, lpage_info, gfn_write_track))


def _rmaps(slot: KvmMemorySlot) -> RmapArrays:
    base, npages = slot.base_gfn, slot.npages
    return RmapArrays((npages, hpages(base, npages, PG_LEVEL_2M), hpages(base, npages, PG_LEVEL_1G)))


def initial_lpage_level(base_gfn: Gfn, npages: int, userspace_addr: Hva, level: Level) -> LpageLevel:
    """Return the counters of one level as a new slot gets them.

    Three rules mark entries with 1, by assignment: the head if the slot starts inside a huge frame, the
    tail if it ends inside one, and all of them if guest and host address lie differently in a huge page.

    References
    ----------
    arch/x86/kvm/x86.c: kvm_alloc_memslot_metadata() [v5_10 to v7_3], kvm_arch_create_memslot() [pre_edd4]
    """
    inside = (1 << ((level - 1) * 9)) - 1
    head = 1 if base_gfn & inside else 0
    tail = 1 if (base_gfn + npages) & inside else 0
    everywhere = 1 if (base_gfn ^ (userspace_addr >> PAGE_SHIFT)) & inside else 0
    return built(LpageLevel, (hpages(base_gfn, npages, level), head, tail, everywhere, _NOTHING_ADDED))


def kvm_arch_free_memslot(kvm: KvmDraft, slot: KvmMemorySlot) -> None:
    """Free the architecture arrays of a slot, whatever they still hold.

    References
    ----------
    arch/x86/kvm/x86.c: kvm_arch_free_memslot(); arch/x86/kvm/mmu/page_track.c: kvm_page_track_free_memslot()
    [all profiles]
    """
    kvm.enter("kvm_arch_free_memslot")
    kvm.free(slot, slot.arch.rmap, slot.arch.lpage_info)
    kvm.enter("kvm_page_track_free_memslot")
    kvm.free(slot, slot.arch.gfn_write_track)


def kvm_alloc_dirty_bitmap(kvm: KvmDraft, slot: KvmMemorySlot) -> KvmMemorySlot:
    """Return the slot with a new dirty bitmap: empty, or full if INITIALLY_SET was asked for.

    References
    ----------
    virt/kvm/kvm_main.c: kvm_alloc_dirty_bitmap() [v5_10 to v7_3], kvm_create_dirty_bitmap() [pre_edd4]
    """
    kvm.enter("kvm_alloc_dirty_bitmap")
    full = kvm.manual_dirty_log_protect & KVM_DIRTY_LOG_INITIALLY_SET
    dirty = RunSet.span(0, slot.npages) if full else _NOTHING_DIRTY
    return slot._replace(dirty_bitmap=kvm.allocate(DirtyBitmap(slot.npages, dirty), slot))


def prepare_dirty_bitmap(kvm: KvmDraft, old: KvmMemorySlot | None, new: KvmMemorySlot) -> KvmMemorySlot:
    """Return the new slot with the bitmap it needs: the one its old object has, or a new one.

    References
    ----------
    virt/kvm/kvm_main.c: kvm_prepare_memory_region() [v6_1 to v7_3], __kvm_set_memory_region() [up to
    v5_10]
    """
    if not new.flags & KVM_MEM_LOG_DIRTY_PAGES:
        return new
    if old is not None and old.dirty_bitmap is not None:
        bitmap = kvm.heap.get(old.dirty_bitmap)
        kvm.emit(
            DirtyBitmapHandedOver,
            slot=new.id,
            as_id=new.as_id,
            dirty_pages=len(bitmap.dirty) if isinstance(bitmap, DirtyBitmap) else 0,
        )
        return new._replace(dirty_bitmap=old.dirty_bitmap)
    return kvm_alloc_dirty_bitmap(kvm, new)


def kvm_free_memslot(kvm: KvmDraft, slot: KvmMemorySlot) -> None:
    """Free a slot with its bitmap and its arrays; its part of a guest_memfd is free again.

    References
    ----------
    virt/kvm/kvm_main.c: kvm_free_memslot() [all profiles]
    """
    kvm.enter("kvm_free_memslot")
    if slot.flags & KVM_MEM_GUEST_MEMFD:
        kvm_gmem_unbind(kvm, slot)
    kvm.free(slot, slot.dirty_bitmap)
    kvm_arch_free_memslot(kvm, slot)


# -- memory ----------------------------------------------------------------------------------------


def metadata_sizes(kvm: KvmDraft, slot: KvmMemorySlot | None) -> tuple[int, ...]:
    """Return the bytes of each array that `kvm_alloc_memslot_metadata` would allocate for `slot`."""
    if slot is None:
        return ()
    sizes = [8 * hpages(slot.base_gfn, slot.npages, level) for level in LEVELS] if kvm_memslots_have_rmaps(kvm) else []
    sizes += [4 * hpages(slot.base_gfn, slot.npages, level) for level in LEVELS[1:]]
    if kvm_page_track_write_tracking_enabled(kvm):
        sizes.append(2 * slot.npages)
    return tuple(sizes)


def bitmap_sizes(old: KvmMemorySlot | None, new: KvmMemorySlot | None) -> tuple[int, ...]:
    """Return the bytes of the dirty bitmap that has to be allocated, if one has."""
    if new is None or not new.flags & KVM_MEM_LOG_DIRTY_PAGES or (old is not None and old.dirty_bitmap is not None):
        return ()
    return (DirtyBitmap(new.npages, _NOTHING_DIRTY).size_bytes,)


def fits_in_memory(kvm: KvmDraft, sizes: tuple[int, ...]) -> bool:
    """Return whether arrays of these sizes fit beside those there are."""
    limit = kvm.config.host_memory
    return limit is None or kvm.heap_bytes + sum(sizes) <= limit
