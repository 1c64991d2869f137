"""The part of the x86 MMU that memslots need: shadow pages of guest tables, and the zaps.

A shadow page that shadows a guest page table is *accounted*: at upper levels its page is write-tracked,
at level 1 it only forbids huge pages. Zapping takes exactly that back, from whatever slot the lookup
finds at that moment; that is why KVM zaps before it switches to new arrays.

Models arch/x86/kvm/mmu/mmu.c. Not modelled: direct shadow pages and TDP MMU roots (only the entries in them), the
mark of pages out of sync, roots kept alive by a vCPU, the yield inside a long zap, the write of a guest into a table
that is shadowed, the flush between the zap of pages and their end. Read next: `hostmem`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from explorer.engine.events import MappingsZapped, ShadowPageZapped, ShadowTableShadowed
from explorer.engine.locks import need_arch_lock
from explorer.engine.lookup import gfn_to_memslot, kvm_is_visible_gfn
from explorer.engine.page_track import (
    SHADOW_PAGING,
    allocate_missing_counts,
    kvm_page_track_write_tracking_enabled,
    update_gfn_disallow_lpage_count,
    write_track_add,
    write_track_remove,
)
from explorer.engine.spte import INDIRECT, drop_page_sptes, kvm_mmu_slot_gfn_write_protect, zap_sptes
from explorer.engine.state import ShadowPage, Sptes
from explorer.engine.trackers import notify_flush_slot
from explorer.engine.types import AsId, Errno, Gfn
from explorer.engine.uapi import KVM_MEMSLOT_INVALID, KVM_X86_DEFAULT_VM, KVM_X86_QUIRK_SLOT_ZAP_ALL

if TYPE_CHECKING:
    from explorer.engine.commands import ShadowTables
    from explorer.engine.draft import KvmDraft
    from explorer.engine.state import Kvm, KvmMemorySlot

__all__ = [
    "kvm_arch_flush_shadow_memslot",
    "kvm_mmu_zap_all_fast",
    "mmu_first_shadow_root_alloc",
    "shadow_guest_table",
    "shadow_tables",
    "zaps_all",
]

_PAGING_LEVELS = 5
"""Levels a guest's page tables have at most (LA57)."""


# -- making shadow pages ---------------------------------------------------------------------------


def shadow_tables(kvm: KvmDraft, command: ShadowTables) -> Errno | None:
    """Shadow a walk of guest tables in consecutive pages; with TDP there is nothing to shadow.

    A root that lies in no visible slot gets no shadow page; nor do the tables below it if the walk cannot
    read one of them: it ends in a guest page fault before anything is fetched.

    References
    ----------
    arch/x86/kvm/mmu/mmu.c: mmu_alloc_shadow_roots(); arch/x86/kvm/mmu/paging_tmpl.h: walk_addr_generic(),
    fetch() [all profiles]
    """
    if command.as_id >= len(kvm.memslots) or not 1 <= command.levels <= _PAGING_LEVELS:
        return Errno.EINVAL
    if kvm.config.tdp:
        return None
    as_id = AsId(command.as_id)
    tables = [Gfn(command.gfn + at) for at in range(command.levels)]
    readable = [kvm_is_visible_gfn(kvm, as_id, gfn) for gfn in tables]
    if not readable[0]:
        return None
    if not kvm.shadow_root_allocated:
        need_arch_lock(kvm.before, command)
    mmu_first_shadow_root_alloc(kvm)
    for at, gfn in enumerate(tables if all(readable) else tables[:1]):
        shadow_guest_table(kvm, gfn, command.levels - at, as_id)
    return None


def mmu_first_shadow_root_alloc(kvm: KvmDraft) -> None:
    """Give every slot what shadow paging needs, because the first shadow root is about to exist.

    References
    ----------
    arch/x86/kvm/mmu/mmu.c: mmu_first_shadow_root_alloc() [v6_1 to v7_3]
    """
    if kvm.shadow_root_allocated:
        return
    kvm.enter("mmu_first_shadow_root_alloc")
    if not kvm_page_track_write_tracking_enabled(kvm):
        allocate_missing_counts(kvm)
    kvm.shadow_root_allocated = True


def shadow_guest_table(kvm: KvmDraft, gfn: Gfn, level: int, as_id: AsId) -> bool:
    """Make sure the guest page table at `gfn` has a shadow page; return whether one was made.

    No shadow page is made for a table that lies in no slot or in an INVALID one: the walk that would
    lead to it cannot read the guest's entries there.

    References
    ----------
    arch/x86/kvm/mmu/mmu.c: kvm_mmu_get_shadow_page() [v6_1 to v7_3], kvm_mmu_get_page() [up to v5_10]
    """
    slot = gfn_to_memslot(kvm.active(as_id), gfn)
    if slot is None or slot.flags & KVM_MEMSLOT_INVALID:
        return False
    key = kvm.mmu_page_hash.get((gfn, level, as_id))
    if key is not None:
        return False
    page = ShadowPage(gfn, level, as_id, kvm.mmu_valid_gen)
    kvm.active_mmu_pages = kvm.active_mmu_pages.set(kvm.next_mmu_page, page)
    kvm.mmu_page_hash = kvm.mmu_page_hash.set((gfn, level, as_id), kvm.next_mmu_page)
    kvm.next_mmu_page += 1
    _account_shadowed(kvm, page, slot)
    kvm.emit(ShadowTableShadowed, gfn=gfn, level=level, as_id=as_id)
    return True


def _account_shadowed(kvm: KvmDraft, page: ShadowPage, slot: KvmMemorySlot) -> None:
    """Forbid huge pages over a shadowed table and, at upper levels, track writes to it.

    References
    ----------
    arch/x86/kvm/mmu/mmu.c: account_shadowed() [all profiles]
    """
    kvm.enter("account_shadowed")
    kvm.indirect_shadow_pages += 1
    if page.level > 1:
        write_track_add(kvm, slot, page.gfn, SHADOW_PAGING)
    else:
        update_gfn_disallow_lpage_count(kvm, slot, page.gfn, 1)
        kvm_mmu_slot_gfn_write_protect(kvm, slot, page.gfn)


def _unaccount_shadowed(kvm: KvmDraft, page: ShadowPage) -> None:
    """Take back what `_account_shadowed` did, from the slot the lookup finds now.

    References
    ----------
    arch/x86/kvm/mmu/mmu.c: unaccount_shadowed() [all profiles]
    """
    kvm.enter("unaccount_shadowed")
    kvm.indirect_shadow_pages -= 1
    slot = gfn_to_memslot(kvm.active(page.as_id), page.gfn)
    if slot is None:
        kvm.warn("unaccount_shadowed", f"no slot holds gfn {page.gfn:#x} any more: NULL dereference")
    elif page.level > 1:
        write_track_remove(kvm, slot, page.gfn, SHADOW_PAGING)
    else:
        update_gfn_disallow_lpage_count(kvm, slot, page.gfn, -1)


# -- zapping ---------------------------------------------------------------------------------------


def _kvm_mmu_prepare_zap_page(kvm: KvmDraft, key: int, page: ShadowPage) -> None:
    """Un-account one shadow page and take it off the lists.

    References
    ----------
    arch/x86/kvm/mmu/mmu.c: __kvm_mmu_prepare_zap_page() [v5_10 to v7_3], kvm_mmu_prepare_zap_page() [pre_edd4]
    """
    kvm.enter("__kvm_mmu_prepare_zap_page")
    kvm.active_mmu_pages = kvm.active_mmu_pages.discard(key)
    kvm.mmu_page_hash = kvm.mmu_page_hash.discard((page.gfn, page.level, page.as_id))
    drop_page_sptes(kvm, page.as_id, INDIRECT + key)
    _unaccount_shadowed(kvm, page)
    kvm.emit(ShadowPageZapped, gfn=page.gfn, level=page.level, as_id=page.as_id)


def kvm_mmu_zap_all_fast(kvm: KvmDraft) -> None:
    """Throw away every mapping of the VM, in both address spaces.

    References
    ----------
    arch/x86/kvm/mmu/mmu.c: kvm_mmu_zap_all_fast() [v5_10 to v7_3], kvm_mmu_invalidate_zap_all_pages() [pre_edd4]
    """
    kvm.enter("kvm_mmu_zap_all_fast")
    kvm.mmu_valid_gen ^= 1
    zapped = 0
    kvm.sptes = _only_indirect(kvm.sptes)
    # Oldest first, and stop at the first page of the new generation: such a page was made while the
    # lock was given up, uses the sets as they are now, and stays.
    for key, page in tuple(kvm.active_mmu_pages.items()):
        if page.mmu_valid_gen == kvm.mmu_valid_gen:
            break
        _kvm_mmu_prepare_zap_page(kvm, key, page)
        zapped += 1
    kvm.emit(MappingsZapped, scope="all", shadow_pages=zapped)


def _only_indirect(sptes: Sptes) -> Sptes:
    """Drop every direct table at once; entries of a shadow page go with the page."""
    if not sptes.rmap:
        return Sptes()
    entries = sptes.entries
    for key in entries:
        if key[0] >= INDIRECT:
            break
        entries = entries.discard(key)
    return Sptes(entries, sptes.rmap)


def _kvm_mmu_zap_memslot(kvm: KvmDraft, slot: KvmMemorySlot) -> None:
    """Throw away only what maps one slot; shadow pages of tables that lie in it go with the fix.

    References
    ----------
    arch/x86/kvm/mmu/mmu.c: kvm_mmu_zap_memslot(), kvm_mmu_zap_memslot_pages_and_flush() [v6_12 to v7_3; where
    `zaps_all` is false]
    """
    kvm.enter("kvm_mmu_zap_memslot")
    zap_sptes(kvm, slot.as_id, slot.base_gfn, slot.end_gfn)
    zapped = 0
    if kvm.profile.quirk_off_zaps_shadow_pages:
        # By gfn, whatever address space a page was made for: its role is not compared.
        found = [item for item in kvm.active_mmu_pages.items() if slot.base_gfn <= item[1].gfn < slot.end_gfn]
        for key, page in sorted(found, key=lambda item: (item[1].gfn, -item[0])):
            _kvm_mmu_prepare_zap_page(kvm, key, page)
            zapped += 1
    kvm.emit(MappingsZapped, scope="slot", shadow_pages=zapped)


def zaps_all(kvm: KvmDraft | Kvm) -> bool:
    """Return whether a MOVE or DELETE zaps the whole VM rather than the slot alone.

    Where the quirk exists it holds for VMs of the plain type only; it is on until userspace switches it off.

    References
    ----------
    arch/x86/kvm/mmu/mmu.c: kvm_memslot_flush_zap_all() [v6_12 to v7_3; before it is always so]
    """
    slot_only = kvm.config.vm_type != KVM_X86_DEFAULT_VM or kvm.disabled_quirks & KVM_X86_QUIRK_SLOT_ZAP_ALL
    return not (kvm.profile.slot_zap_quirk and slot_only)


def kvm_arch_flush_shadow_memslot(kvm: KvmDraft, slot: KvmMemorySlot) -> None:
    """Remove every mapping of a slot that is about to go, and tell trackers that hear of it here.

    References
    ----------
    arch/x86/kvm/mmu/mmu.c: kvm_arch_flush_shadow_memslot() [all profiles; up to v6_1 in x86.c and through
    the notifier list]
    """
    kvm.enter("kvm_arch_flush_shadow_memslot")
    if kvm.profile.region_hook == "track_flush_slot":
        _kvm_page_track_flush_slot(kvm, slot)
    if kvm.profile.kvm_is_a_track_notifier:
        # KVM's own node registered first, when the VM was made, so it is called last.
        kvm.enter("kvm_mmu_invalidate_zap_pages_in_memslot")
        kvm_mmu_zap_all_fast(kvm)
    elif zaps_all(kvm):
        kvm_mmu_zap_all_fast(kvm)
    else:
        _kvm_mmu_zap_memslot(kvm, slot)


def _kvm_page_track_flush_slot(kvm: KvmDraft, slot: KvmMemorySlot) -> None:
    """Tell external trackers that a slot is flushed, although the update may still fail.

    References
    ----------
    arch/x86/kvm/mmu/page_track.c: kvm_page_track_flush_slot() [up to v6_1]
    """
    kvm.enter("kvm_page_track_flush_slot")
    for user in kvm.track_notifiers:
        notify_flush_slot(kvm, user, slot)
