"""The guest looks: what a store by a vCPU meets, at any moment of an update.

Models the fault path of arch/x86/kvm/mmu/mmu.c as far as memslots and write tracking decide it.
Not modelled: page-table walks, SPTEs, huge pages, what the emulator does to a shadowed table, the host
page that backs the slot. Read next: `apply`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from explorer.engine.dirty_log import mark_page_dirty_in_slot
from explorer.engine.events import GuestWriteServed
from explorer.engine.lookup import gfn_to_memslot
from explorer.engine.page_track import kvm_gfn_is_write_tracked
from explorer.engine.trackers import kvm_page_track_write
from explorer.engine.types import PAGE_SHIFT
from explorer.engine.uapi import KVM_MEM_READONLY, KVM_MEMSLOT_INVALID

if TYPE_CHECKING:
    from explorer.engine.draft import KvmDraft
    from explorer.engine.types import AsId

__all__ = ["guest_write"]


def guest_write(kvm: KvmDraft, gpa: int, nbytes: int, as_id: AsId) -> str:
    """Serve one guest store and return how: ``ram``, ``emulated``, ``mmio``, ``read-only`` or ``retry``.

    References
    ----------
    arch/x86/kvm/mmu/mmu.c: kvm_faultin_pfn(), page_fault_handle_page_track() [v6_1 to v7_3]
    arch/x86/kvm/x86.c: emulator_write_phys() [v6_1, v6_12; emulator_write_guest() in v7_3]
    """
    gfn = gpa >> PAGE_SHIFT
    slot = gfn_to_memslot(kvm.active(as_id), gfn)
    if slot is None:
        outcome = "mmio"
    elif slot.flags & KVM_MEMSLOT_INVALID:
        outcome = "retry"
    elif slot.flags & KVM_MEM_READONLY:
        outcome = "read-only"
    elif kvm_gfn_is_write_tracked(kvm, slot, gfn):
        outcome = "emulated"
        mark_page_dirty_in_slot(kvm, slot, gfn)
        # Memory holds the new value before anybody is told.
        kvm_page_track_write(kvm, gpa, nbytes)
    else:
        outcome = "ram"
        mark_page_dirty_in_slot(kvm, slot, gfn)
    kvm.emit(GuestWriteServed, gpa=gpa, as_id=as_id, outcome=outcome)
    return outcome
