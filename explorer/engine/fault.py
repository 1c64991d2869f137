"""A fault in a direct table: what maps a page of a guest that does without paging, or whose tables TDP walks.

A store or load of the guest is served by the processor if an entry allows it. Else it faults, and KVM maps the
page, gives write access back, refuses because the page is write-tracked, or lets userspace answer.

Models arch/x86/kvm/mmu/mmu.c: direct_page_fault(), kvm_tdp_mmu_page_fault() and what they call; make_spte() of
arch/x86/kvm/mmu/spte.c.
Not modelled: the MMIO entries that remember a hole, faults on instruction fetches only, page sizes above 2 MiB,
asynchronous page faults, private memory. Read next: `shadow`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from explorer.engine.dirty_log import mark_page_dirty_in_slot
from explorer.engine.events import PageMapped
from explorer.engine.hostmem import host_page_is_there, hva_of_gpa, kvm_mmu_max_mapping_level, maps_writable
from explorer.engine.lapic import is_disabled_apic_page
from explorer.engine.lookup import gfn_to_memslot
from explorer.engine.page_track import kvm_gfn_is_write_tracked
from explorer.engine.spte import INDIRECT, install_spte, set_spte_bits, spte_at
from explorer.engine.state import Spte
from explorer.engine.types import PG_LEVEL_4K, AsId, Gfn, Level, gfn_to_gpa, pages_per_hpage
from explorer.engine.uapi import KVM_MEM_LOG_DIRTY_PAGES, KVM_MEM_READONLY, KVM_MEMSLOT_INVALID

if TYPE_CHECKING:
    from explorer.engine.draft import KvmDraft
    from explorer.engine.state import KvmMemorySlot, SpteKey

__all__ = ["FIXED", "access_entry", "direct_access", "fast_page_fault", "kvm_faultin_pfn", "make_spte", "prefetch_page"]

FIXED = "fixed"
"""The fault was repaired and the processor tries again (RET_PF_FIXED)."""
_PTE_PREFETCH_NUM = 8
_TRIES = 4


def direct_access(kvm: KvmDraft, as_id: AsId, gfn: Gfn, *, write: bool) -> str:
    """Access one page through the direct table of an address space, as the processor does.

    Returns
    -------
    str
        ``ram`` if an entry serves it, else what the fault came to: ``emulated``, ``mmio``, ``read-only``,
        ``retry`` or ``fault``.
    """
    for _ in range(_TRIES):
        found = spte_at(kvm, as_id, gfn)
        if found is not None and access_entry(kvm, as_id, found, gfn, write=write):
            return "ram"
        outcome = _direct_page_fault(kvm, as_id, gfn, write=write)
        if outcome != FIXED:
            return outcome
    raise AssertionError(f"a fault on gfn {gfn:#x} is repaired again and again")


def access_entry(kvm: KvmDraft, as_id: AsId, found: tuple[SpteKey, Spte], gfn: Gfn, *, write: bool) -> bool:
    """Return whether a present entry serves an access; a write sets its D bit, which PML logs.

    References
    ----------
    arch/x86/kvm/vmx/vmx.c: vmx_flush_pml_buffer() [v6_1 to v7_3]
    """
    (owner, index), spte = found
    if not write:
        return True
    if not spte.writable:
        return False
    if not spte.dirty:
        set_spte_bits(kvm, as_id, owner, gfn if owner < INDIRECT else index)
        slot = gfn_to_memslot(kvm.active(as_id), gfn)
        if kvm.config.pml_enabled and slot is not None:
            mark_page_dirty_in_slot(kvm, slot, gfn)
    return True


def _direct_page_fault(kvm: KvmDraft, as_id: AsId, gfn: Gfn, *, write: bool) -> str:
    """Serve a fault; the order of the questions is the kernel's.

    References
    ----------
    arch/x86/kvm/mmu/mmu.c: direct_page_fault() [v5_10 to v7_3], tdp_page_fault() [pre_edd4], direct_map()
    [v6_6 to v7_3], __direct_map() [up to v6_1], page_fault_handle_page_track() [all profiles]
    """
    kvm.enter("kvm_mmu_page_fault")
    slot = gfn_to_memslot(kvm.active(as_id), gfn)
    present = spte_at(kvm, as_id, gfn)
    # Before anything is looked up: a present entry of a tracked page stays as it is.
    if present is not None and write and kvm_gfn_is_write_tracked(kvm, slot, gfn):
        return "emulated"
    if present is not None and write and fast_page_fault(kvm, as_id, present, gfn):
        return FIXED
    outcome, host_writable = kvm_faultin_pfn(kvm, as_id, gfn, write=write)
    if outcome != FIXED or slot is None:
        return outcome
    level = kvm_mmu_max_mapping_level(kvm, slot, gfn)
    spte, protected = make_spte(kvm, slot, gfn, level, host_writable=host_writable)
    install_spte(kvm, as_id, as_id, spte)
    kvm.emit(PageMapped, gfn=spte.gfn, level=level, as_id=as_id, writable=spte.writable, prefetched=False)
    if level == PG_LEVEL_4K and not kvm.config.tdp_mmu_enabled:
        _direct_pte_prefetch(kvm, as_id, gfn)
    return "emulated" if protected and write else FIXED


def fast_page_fault(kvm: KvmDraft, as_id: AsId, present: tuple[SpteKey, Spte], gfn: Gfn) -> bool:
    """Give write access back that only the dirty log took, without asking again; return whether it was that.

    A huge entry of a logged slot stays protected: it must be split first.

    References
    ----------
    arch/x86/kvm/mmu/mmu.c: fast_page_fault(), fast_pf_fix_direct_spte() [all profiles]
    """
    (owner, _), spte = present
    slot = gfn_to_memslot(kvm.active(as_id), gfn)
    if slot is None or spte.writable or not spte.mmu_writable:
        return False
    if spte.level > PG_LEVEL_4K and slot.flags & KVM_MEM_LOG_DIRTY_PAGES:
        return False
    kvm.enter("fast_page_fault")
    set_spte_bits(kvm, as_id, owner, gfn)
    mark_page_dirty_in_slot(kvm, slot, gfn)
    return True


def kvm_faultin_pfn(kvm: KvmDraft, as_id: AsId, gfn: Gfn, *, write: bool) -> tuple[str, bool]:
    """Look for the host page behind a gfn; return what the fault comes to, and whether it may map writable.

    References
    ----------
    arch/x86/kvm/mmu/mmu.c: kvm_faultin_pfn() [v6_1 to v7_3], try_async_pf() [up to v5_10],
    kvm_handle_error_pfn() [v6_6 to v7_3], handle_abnormal_pfn() [up to v6_1]
    """
    kvm.enter("kvm_faultin_pfn")
    slot = gfn_to_memslot(kvm.active(as_id), gfn)
    if slot is None:
        return "mmio", False
    if slot.flags & KVM_MEMSLOT_INVALID:
        return "retry", False
    if slot.id >= kvm.profile.user_mem_slots and is_disabled_apic_page(kvm, slot):
        return "emulated", False
    if write and slot.flags & KVM_MEM_READONLY:
        return "read-only", False
    hva = hva_of_gpa(kvm, as_id, gfn_to_gpa(gfn), write=write)
    if hva is None:
        return "fault", False
    return FIXED, maps_writable(kvm, slot, hva, write=write)


def make_spte(
    kvm: KvmDraft,
    slot: KvmMemorySlot,
    gfn: Gfn,
    level: Level,
    *,
    host_writable: bool,
    access_writable: bool = True,
    prefetch: bool = False,
) -> tuple[Spte, bool]:
    """Return the entry for a page, and whether write access was held back because somebody watches.

    An entry that may be written through counts as a write at once: the page of a logged slot is dirty, even if
    the guest only read.

    References
    ----------
    arch/x86/kvm/mmu/spte.c: make_spte() [v5_10 to v7_3]; arch/x86/kvm/mmu/mmu.c: set_spte() [up to v5_10]
    """
    pages = pages_per_hpage(level)
    writable = host_writable and access_writable
    protected = writable and _mmu_try_to_unsync_pages(kvm, slot, gfn, prefetch=prefetch)
    writable = writable and not protected
    if writable:
        mark_page_dirty_in_slot(kvm, slot, gfn)
    return Spte(Gfn(gfn & -pages), pages, level, writable, writable, writable), protected


def _mmu_try_to_unsync_pages(kvm: KvmDraft, slot: KvmMemorySlot, gfn: Gfn, *, prefetch: bool) -> bool:
    """Return whether a page must stay read-only: it is tracked, or a prefetch meets a shadowed last-level table.

    A last-level table that the guest writes to goes out of sync instead.

    References
    ----------
    arch/x86/kvm/mmu/mmu.c: mmu_try_to_unsync_pages() [v6_1 to v7_3], mmu_need_write_protect() [up to v5_10]
    """
    if kvm_gfn_is_write_tracked(kvm, slot, gfn):
        return True
    return prefetch and any((gfn, PG_LEVEL_4K, AsId(as_id)) in kvm.mmu_page_hash for as_id in range(len(kvm.memslots)))


# -- prefetch --------------------------------------------------------------------------------------


def _direct_pte_prefetch(kvm: KvmDraft, as_id: AsId, gfn: Gfn) -> None:
    """Map neighbours within the same eight entries; the TDP MMU does not.

    References
    ----------
    arch/x86/kvm/mmu/mmu.c: __direct_pte_prefetch() [all profiles; up to v5_10 not those behind the last entry
    that is present]
    """
    first = gfn & -_PTE_PREFETCH_NUM
    start: int | None = None
    for at in range(first, first + _PTE_PREFETCH_NUM):
        if at == gfn or spte_at(kvm, as_id, at) is not None:
            if start is not None and not _direct_pte_prefetch_many(kvm, as_id, start, at):
                return
            start = None
        elif start is None:
            start = at
    if start is not None and kvm.profile.prefetch_completes_window:
        _direct_pte_prefetch_many(kvm, as_id, start, first + _PTE_PREFETCH_NUM)


def _direct_pte_prefetch_many(kvm: KvmDraft, as_id: AsId, start: int, end: int) -> bool:
    """Map ``[start, end)`` as far as the host has the pages; return whether it had the first.

    References
    ----------
    arch/x86/kvm/mmu/mmu.c: direct_pte_prefetch_many() [all profiles], kvm_mmu_prefetch_sptes() [v6_18, v7_3]
    """
    slot = gfn_to_memslot(kvm.active(as_id), start)
    if slot is None or end > slot.end_gfn:
        return False
    for at in range(start, end):
        spte = prefetch_page(kvm, as_id, Gfn(at))
        if spte is None:
            return at > start
        install_spte(kvm, as_id, as_id, spte)
    return True


def prefetch_page(kvm: KvmDraft, as_id: AsId, gfn: Gfn, *, access_writable: bool = True) -> Spte | None:
    """Return an entry for a page nobody asked for, if the host has it and its slot is neither logged nor read-only.

    References
    ----------
    arch/x86/kvm/mmu/mmu.c: gfn_to_memslot_dirty_bitmap() [all profiles]; virt/kvm/kvm_main.c:
    gfn_to_page_many_atomic() [up to v6_12], kvm_prefetch_pages() [v6_18, v7_3]
    """
    slot = gfn_to_memslot(kvm.active(as_id), gfn)
    if slot is None or slot.flags & (KVM_MEMSLOT_INVALID | KVM_MEM_LOG_DIRTY_PAGES | KVM_MEM_READONLY):
        return None
    hva = hva_of_gpa(kvm, as_id, gfn_to_gpa(gfn), write=True)
    if hva is None or not host_page_is_there(kvm, hva):
        return None
    spte, _ = make_spte(kvm, slot, gfn, PG_LEVEL_4K, host_writable=True, access_writable=access_writable, prefetch=True)
    kvm.emit(PageMapped, gfn=gfn, level=PG_LEVEL_4K, as_id=as_id, writable=spte.writable, prefetched=True)
    return spte
