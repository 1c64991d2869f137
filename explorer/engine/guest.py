"""The guest looks: what a store or a load by a vCPU meets, at any moment of an update.

One instruction is a fetch, if it is known where the code lies, and one access. Each goes through the guest's
page tables if it has paging, then through what KVM maps; where that says no, KVM emulates, userspace answers,
or the vCPU cannot go on.

Models KVM_RUN as far as memslots decide it: arch/x86/kvm/mmu/mmu.c: kvm_mmu_page_fault();
arch/x86/kvm/x86.c: emulator_read_phys(), emulator_write_phys().
Not modelled: other instructions, segments, interrupts, the local APIC's registers, what the emulator does to a
shadowed table. Read next: `vcpu`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from explorer.engine.dirty_log import mark_page_dirty_in_slot
from explorer.engine.events import GuestReadServed, GuestWriteServed
from explorer.engine.fault import direct_access
from explorer.engine.hostmem import hva_of_gpa, read_host, write_host
from explorer.engine.lookup import gfn_to_memslot
from explorer.engine.shadow import shadow_access, tdp_paging_access
from explorer.engine.trackers import kvm_page_track_write
from explorer.engine.types import PAGE_SHIFT, PAGE_SIZE, AsId, Errno, Gfn

if TYPE_CHECKING:
    from explorer.engine.draft import KvmDraft

__all__ = ["OUTCOMES", "guest_read", "guest_write"]

OUTCOMES: dict[str, str] = {
    "ram": "an entry maps the page and memory answers",
    "emulated": "KVM carries the instruction out itself, in memory",
    "mmio": "userspace answers, for no slot holds the address",
    "read-only": "userspace answers, for the slot is read-only",
    "retry": "the slot is INVALID and the vCPU tries again",
    "fault": "the VMM has nothing mapped there: KVM_RUN returns EFAULT",
    "hangs": "KVM handles the same fault for ever, until a signal comes",
    "shutdown": "the vCPU cannot reach its page tables and shuts down",
    "no tables": "TDP and page tables in no slot: what follows is not modelled",
    "no code": "the instructions cannot be fetched: what follows is not modelled",
}
_WIDEST = 64
"""Bytes of the widest store of one instruction."""
_SERVED = ("ram", "emulated")
_ERRNOS = {"fault": Errno.EFAULT, "hangs": Errno.EINTR}


def guest_write(kvm: KvmDraft, gpa: int, nbytes: int, as_id: AsId, value: int = 0) -> Errno | None:
    """Serve one guest store; the outcome is in the event, an error of KVM_RUN is returned.

    References
    ----------
    arch/x86/kvm/mmu/mmu.c: kvm_mmu_page_fault() [all profiles]
    arch/x86/kvm/x86.c: emulator_write_phys() [v6_1, v6_12; emulator_write_guest() in v7_3]
    """
    nbytes = min(nbytes, _WIDEST)
    outcome, found = _access(kvm, gpa, as_id, write=True)
    if outcome in _SERVED:
        hva = _served_by(kvm, as_id, found, outcome, write=True)
        if hva is None:
            outcome = "mmio"
        elif outcome == "ram":
            write_host(kvm, hva, value, nbytes)
        else:
            _emulate_write(kvm, as_id, found, hva, nbytes, value)
    kvm.emit(GuestWriteServed, gpa=gpa, as_id=as_id, outcome=outcome)
    return _ERRNOS.get(outcome)


def guest_read(kvm: KvmDraft, gpa: int, nbytes: int, as_id: AsId) -> Errno | None:
    """Serve one guest load; what it got is in the event."""
    outcome, found = _access(kvm, gpa, as_id, write=False)
    hva = _served_by(kvm, as_id, found, outcome, write=False) if outcome in _SERVED else None
    if outcome in _SERVED and hva is None:
        outcome = "mmio"
    value = 0 if hva is None else read_host(kvm, hva, min(nbytes, _WIDEST))
    kvm.emit(GuestReadServed, gpa=gpa, as_id=as_id, outcome=outcome, value=value)
    return _ERRNOS.get(outcome)


def _served_by(kvm: KvmDraft, as_id: AsId, gpa: int, outcome: str, *, write: bool) -> int | None:
    """Return the host address that an access ends at; None if KVM emulates it and finds no slot to use.

    An entry serves the guest until it is zapped, also after its slot became INVALID for everybody else.
    """
    slot = gfn_to_memslot(kvm.active(as_id), gpa >> PAGE_SHIFT)
    if outcome == "ram" and slot is not None:
        return slot.userspace_addr + gpa - (slot.base_gfn << PAGE_SHIFT)
    return hva_of_gpa(kvm, as_id, gpa, write=write)


def _emulate_write(kvm: KvmDraft, as_id: AsId, gpa: int, hva: int, nbytes: int, value: int) -> None:
    """Store for the guest and tell everybody; memory holds the new value before anybody is told.

    References
    ----------
    arch/x86/kvm/x86.c: emulator_write_phys() [v6_1, v6_12; emulator_write_guest() in v7_3]
    """
    write_host(kvm, hva, value, nbytes)
    slot = gfn_to_memslot(kvm.active(as_id), gpa >> PAGE_SHIFT)
    if slot is not None:
        mark_page_dirty_in_slot(kvm, slot, gpa >> PAGE_SHIFT)
    kvm_page_track_write(kvm, gpa, nbytes, value)


def _access(kvm: KvmDraft, address: int, as_id: AsId, *, write: bool) -> tuple[str, int]:
    """Run one instruction as far as its access; return the outcome and the guest physical address it met."""
    vcpu = kvm.vcpu
    if kvm.config.processor == "pvm" and vcpu.mode != "long":
        # PVM runs nothing but 64-bit code on the processor: every other instruction is emulated.
        return "emulated", address
    if vcpu.code is not None:
        outcome, _ = _reach(kvm, vcpu.code, as_id, write=False)
        if outcome not in _SERVED:
            return outcome if outcome in ("hangs", "shutdown", "no tables") else "no code", address
        if outcome == "emulated":
            return _emulated(kvm, address, as_id, write=write)
    return _reach(kvm, address, as_id, write=write)


def _reach(kvm: KvmDraft, address: int, as_id: AsId, *, write: bool) -> tuple[str, int]:
    if kvm.vcpu.mode != "long":
        return direct_access(kvm, as_id, Gfn(address >> PAGE_SHIFT), write=write), address
    access = tdp_paging_access if kvm.config.tdp else shadow_access
    outcome, gfn = access(kvm, as_id, address, write=write)
    return outcome, address if gfn is None else (gfn << PAGE_SHIFT) + address % PAGE_SIZE


def _emulated(kvm: KvmDraft, address: int, as_id: AsId, *, write: bool) -> tuple[str, int]:
    """Answer for an instruction whose fetch was emulated: KVM walks and accesses for it."""
    outcome, gpa = _reach(kvm, address, as_id, write=write)
    return ("emulated" if outcome == "ram" else outcome), gpa
