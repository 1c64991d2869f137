"""Dirty logging: which pages of a slot were written since somebody asked.

A page is marked when KVM lets the guest write to it, and that must be noticed again after each report: entries
lose write access, or with PML their D bit.

Models virt/kvm/kvm_main.c: kvm_get_dirty_log_protect(), kvm_clear_dirty_log_protect(),
mark_page_dirty_in_slot(); arch/x86/kvm/x86.c: kvm_mmu_slot_apply_flags().
Not modelled: the dirty ring, the PML buffer (a page is marked at once). Read next: `fault`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from explorer.engine.events import DirtyLogCleared, DirtyLogRead, PageMarkedDirty
from explorer.engine.hostmem import host_page_is_there, hva_of_gpa, kvm_mmu_max_mapping_level
from explorer.engine.lookup import id_to_memslot
from explorer.engine.runset import RunSet
from explorer.engine.spte import direct_owners, drop_frame, install_spte, rearm_dirty_pages, split_huge_sptes, sptes_in
from explorer.engine.state import DirtyBitmap, Spte
from explorer.engine.types import PG_LEVEL_2M, PG_LEVEL_4K, ArrayId, Errno, Gfn, gfn_to_gpa, pages_per_hpage
from explorer.engine.uapi import (
    KVM_DIRTY_LOG_INITIALLY_SET,
    KVM_DIRTY_LOG_MANUAL_PROTECT_ENABLE,
    KVM_MEM_LOG_DIRTY_PAGES,
    KVM_MEM_READONLY,
)

if TYPE_CHECKING:
    from explorer.engine.draft import KvmDraft
    from explorer.engine.state import KvmMemorySlot

__all__ = [
    "account_dirty_logging",
    "enable_manual_protect",
    "kvm_clear_dirty_log_protect",
    "kvm_get_dirty_log_protect",
    "kvm_mmu_slot_apply_flags",
    "mark_page_dirty_in_slot",
]

_WORD = 64


def mark_page_dirty_in_slot(kvm: KvmDraft, slot: KvmMemorySlot, gfn: int) -> None:
    """Set the bit of a page if its slot is logged.

    References
    ----------
    virt/kvm/kvm_main.c: mark_page_dirty_in_slot() [all profiles]
    """
    found = _bitmap(kvm, slot)
    if found is None:
        return
    array_id, bitmap = found
    index = gfn - slot.base_gfn
    kvm.heap = kvm.heap.set(array_id, DirtyBitmap(bitmap.npages, bitmap.dirty.add(index)))
    kvm.emit(PageMarkedDirty, slot=slot.id, as_id=slot.as_id, index=index)


def _bitmap(kvm: KvmDraft, slot: KvmMemorySlot | None) -> tuple[ArrayId, DirtyBitmap] | None:
    if slot is None or slot.dirty_bitmap is None:
        return None
    bitmap = kvm.heap.get(slot.dirty_bitmap)
    return (slot.dirty_bitmap, bitmap) if isinstance(bitmap, DirtyBitmap) else None


def kvm_get_dirty_log_protect(kvm: KvmDraft, slot_id: int, as_id: int) -> Errno | None:
    """Report the dirty pages of a slot; without manual protection, clear them too.

    References
    ----------
    virt/kvm/kvm_main.c: kvm_get_dirty_log_protect() [all profiles]
    """
    kvm.enter("kvm_get_dirty_log_protect")
    if as_id >= len(kvm.memslots) or slot_id >= kvm.profile.user_mem_slots:
        return Errno.EINVAL
    slot = id_to_memslot(kvm.active(as_id), slot_id)
    found = _bitmap(kvm, slot)
    if found is None or slot is None:
        return Errno.ENOENT
    array_id, bitmap = found
    if kvm.events is not None:
        kvm.events.append(
            DirtyLogRead(slot=slot_id, as_id=as_id, runs=tuple(bitmap.dirty.runs()), count=len(bitmap.dirty))
        )
    if not kvm.manual_dirty_log_protect:
        kvm.heap = kvm.heap.set(array_id, DirtyBitmap(bitmap.npages, RunSet()))
        _rearm(kvm, slot, bitmap.dirty, 0, bitmap.npages)
    return None


def kvm_clear_dirty_log_protect(
    kvm: KvmDraft, slot_id: int, as_id: int, first_page: int, num_pages: int
) -> Errno | None:
    """Clear the dirty pages of a range; it must be in whole words or reach the end of the slot.

    References
    ----------
    virt/kvm/kvm_main.c: kvm_clear_dirty_log_protect() [v5_10 to v7_3]
    """
    kvm.enter("kvm_clear_dirty_log_protect")
    if as_id >= len(kvm.memslots) or slot_id >= kvm.profile.user_mem_slots:
        return Errno.EINVAL
    if first_page % _WORD:
        return Errno.EINVAL
    slot = id_to_memslot(kvm.active(as_id), slot_id)
    found = _bitmap(kvm, slot)
    if found is None or slot is None:
        return Errno.ENOENT
    array_id, bitmap = found
    reaches_end = first_page + num_pages == bitmap.npages
    if first_page > bitmap.npages or num_pages > bitmap.npages - first_page or (num_pages % _WORD and not reaches_end):
        return Errno.EINVAL
    dirty = bitmap.dirty.remove_span(first_page, first_page + num_pages)
    kvm.emit(DirtyLogCleared, slot=slot_id, as_id=as_id, count=len(bitmap.dirty) - len(dirty))
    kvm.heap = kvm.heap.set(array_id, DirtyBitmap(bitmap.npages, dirty))
    _rearm(kvm, slot, bitmap.dirty, first_page, first_page + num_pages)
    return None


def _rearm(kvm: KvmDraft, slot: KvmMemorySlot, dirty: RunSet, first: int, end: int) -> None:
    """Let the next write to each page that was dirty in ``[first, end)`` be noticed.

    If the log began with every page set, huge mappings were spared then and are dealt with here.

    References
    ----------
    arch/x86/kvm/mmu/mmu.c: kvm_arch_mmu_enable_log_dirty_pt_masked() [all profiles; the huge ones from v6_1 on]
    """
    if kvm.events is not None and any(run_start < end and first < run_end for run_start, run_end in dirty.runs()):
        # The kernel enters it for each word of 64 pages that has a bit, the engine once for all of them.
        kvm.enter("kvm_arch_mmu_enable_log_dirty_pt_masked")
    if not kvm.sptes.entries:
        return
    for run_start, run_end in dirty.runs():
        start, stop = slot.base_gfn + max(run_start, first), slot.base_gfn + min(run_end, end)
        if start >= stop:
            continue
        if kvm.manual_dirty_log_protect & KVM_DIRTY_LOG_INITIALLY_SET and _splits(kvm):
            split_huge_sptes(kvm, slot, start, stop)
        rearm_dirty_pages(kvm, slot, start, stop)


def _splits(kvm: KvmDraft) -> bool:
    return kvm.config.tdp_mmu_enabled and kvm.profile.splits_huge_pages_early


def kvm_mmu_slot_apply_flags(kvm: KvmDraft, old: KvmMemorySlot, new: KvmMemorySlot) -> None:
    """Adapt mappings to a log that was switched on or off.

    On: every page must be seen when it is written next, unless all are reported dirty from the start (then 5.10
    still protects the huge ones). Off: huge pages may come back.

    References
    ----------
    arch/x86/kvm/x86.c: kvm_mmu_slot_apply_flags() [all profiles; for read-only slots it does nothing from v5_10 on];
    arch/x86/kvm/mmu/mmu.c: kvm_mmu_slot_try_split_huge_pages() [v6_1 to v7_3], kvm_mmu_slot_leaf_clear_dirty()
    [all profiles; with PML], kvm_mmu_slot_remove_write_access() [all profiles]
    """
    toggled = (old.flags ^ new.flags) & KVM_MEM_LOG_DIRTY_PAGES
    if not toggled or new.flags & KVM_MEM_READONLY:
        return
    if not new.flags & KVM_MEM_LOG_DIRTY_PAGES:
        _drop_small_mappings(kvm, new)
        return
    if kvm.manual_dirty_log_protect & KVM_DIRTY_LOG_INITIALLY_SET:
        if not kvm.profile.initially_set_spares_huge_pages and kvm.sptes.entries:
            rearm_dirty_pages(kvm, new, new.base_gfn, new.end_gfn, least=PG_LEVEL_2M)
        return
    if kvm.profile.splits_huge_pages_early:
        kvm.enter("kvm_mmu_slot_try_split_huge_pages")
        if _splits(kvm):
            split_huge_sptes(kvm, new, new.base_gfn, new.end_gfn)
    if kvm.config.pml_enabled:
        kvm.enter("kvm_mmu_slot_leaf_clear_dirty")
    kvm.enter("kvm_mmu_slot_remove_write_access")
    if kvm.sptes.entries:
        rearm_dirty_pages(kvm, new, new.base_gfn, new.end_gfn)


def _drop_small_mappings(kvm: KvmDraft, slot: KvmMemorySlot) -> None:
    """Zap small mappings of direct tables where a huge one may be, or make it of them.

    References
    ----------
    arch/x86/kvm/mmu/mmu.c: kvm_mmu_zap_collapsible_sptes() [up to v6_12; by the host's page alone up to v5_10],
    kvm_mmu_recover_huge_pages(); arch/x86/kvm/mmu/tdp_mmu.c: kvm_tdp_mmu_recover_huge_pages() [v6_18, v7_3]
    """
    if kvm.profile.small_mappings_after_logging == "promoted":
        kvm.enter("kvm_mmu_recover_huge_pages")
    else:
        kvm.enter("kvm_mmu_zap_collapsible_sptes")
    if not kvm.sptes.entries:
        return
    after, pages = kvm.profile.small_mappings_after_logging, pages_per_hpage(PG_LEVEL_2M)
    frames = {
        (key[0], frame): spte
        for key, spte in reversed(sptes_in(kvm, slot.as_id, slot.base_gfn, slot.end_gfn))
        if key[0] in direct_owners(slot.as_id) and spte.level == PG_LEVEL_4K
        for frame in range(key[1] & -pages, key[1] + spte.span, pages)
    }
    for (owner, frame), first in frames.items():
        gfn = Gfn(max(frame, slot.base_gfn))
        if after == "zapped if the host has huge pages":
            hva = hva_of_gpa(kvm, slot.as_id, gfn_to_gpa(gfn), write=True)
            fits = kvm.config.host_huge_pages and hva is not None and host_page_is_there(kvm, hva)
        else:
            fits = kvm_mmu_max_mapping_level(kvm, slot, gfn) > PG_LEVEL_4K
        if not fits:
            continue
        if after == "promoted" and kvm.config.tdp_mmu_enabled:
            huge = Spte(Gfn(frame), pages, PG_LEVEL_2M, first.writable, first.mmu_writable, first.dirty)
            install_spte(kvm, slot.as_id, owner, huge)
        else:
            drop_frame(kvm, slot.as_id, owner, gfn, min(frame + pages, slot.end_gfn))


def enable_manual_protect(kvm: KvmDraft, arg: int) -> Errno | None:
    """Choose who clears the log: INITIALLY_SET needs MANUAL_PROTECT_ENABLE.

    References
    ----------
    virt/kvm/kvm_main.c: kvm_vm_ioctl_enable_cap_generic() [v5_10 to v7_3]
    """
    allowed = KVM_DIRTY_LOG_MANUAL_PROTECT_ENABLE
    if arg & KVM_DIRTY_LOG_MANUAL_PROTECT_ENABLE:
        allowed |= KVM_DIRTY_LOG_INITIALLY_SET
    if arg & ~allowed:
        return Errno.EINVAL
    kvm.manual_dirty_log_protect = arg
    return None


def account_dirty_logging(kvm: KvmDraft, old: KvmMemorySlot | None, new: KvmMemorySlot | None) -> None:
    """Count the slots that are logged; an absent slot is not.

    References
    ----------
    virt/kvm/kvm_main.c: kvm_commit_memory_region() [v6_6 to v7_3; v6_1 counts in
    kvm->arch.cpu_dirty_logging_count instead]
    """
    before = old is not None and bool(old.flags & KVM_MEM_LOG_DIRTY_PAGES)
    after = new is not None and bool(new.flags & KVM_MEM_LOG_DIRTY_PAGES)
    kvm.nr_memslots_dirty_logging += after - before
