"""The guest looks: what a store or a load by a vCPU meets, at any moment of an update.

One instruction is a fetch, if it is known where the code lies, and one access. Each goes through the guest's
page tables if it has paging, then through what KVM maps; where that says no, KVM emulates, userspace or the local
APIC answers, or the vCPU cannot go on.

Models KVM_RUN as far as memslots decide it: arch/x86/kvm/mmu/mmu.c: kvm_mmu_page_fault();
arch/x86/kvm/x86.c: x86_emulate_instruction(), emulator_read_write_onepage().
Not modelled: other instructions, segments, interrupts, what the emulator does to a shadowed table, code in the
APIC's page. Read next: `vcpu`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from explorer.engine.dirty_log import mark_page_dirty_in_slot
from explorer.engine.events import GuestReadServed, GuestWriteServed
from explorer.engine.fault import direct_access
from explorer.engine.hostmem import hva_of_gpa, read_host, write_host
from explorer.engine.lapic import apic_outcome, apic_read, apic_write
from explorer.engine.lookup import gfn_to_memslot
from explorer.engine.shadow import shadow_access, update_accessed_dirty_bits, walk_guest_tables
from explorer.engine.tdp_walk import Met, deliver_page_fault, tdp_paging_access
from explorer.engine.trackers import kvm_page_track_write
from explorer.engine.types import PAGE_SHIFT, PAGE_SIZE, AsId, Errno, Gfn

if TYPE_CHECKING:
    from explorer.engine.draft import KvmDraft

__all__ = ["OUTCOMES", "guest_read", "guest_write"]

OUTCOMES: dict[str, str] = {
    "ram": "an entry maps the page and memory answers",
    "emulated": "KVM carries the instruction out itself, in memory",
    "apic": "the local APIC answers, in the kernel",
    "mmio": "userspace answers, for no slot holds the address",
    "read-only": "userspace answers, for the slot is read-only",
    "retry": "the slot is INVALID and the vCPU tries again",
    "fault": "the VMM has nothing mapped there: KVM_RUN returns EFAULT",
    "hangs": "KVM handles the same fault for ever, until a signal comes",
    "waits": "the vCPU is not the first and nobody has started it: KVM_RUN sleeps until a signal comes",
    "shutdown": "the guest's page fault finds no handler: a triple fault, and the vCPU shuts down",
    "undelivered": "KVM cannot give the guest its page fault: an internal error, KVM_INTERNAL_ERROR_DELIVERY_EV",
    "no code": "KVM cannot read the instruction it must emulate: an internal error, KVM_INTERNAL_ERROR_EMULATION",
}
_WIDEST = 64
"""Bytes of the widest store of one instruction."""
_SERVED = ("ram", "emulated")
_ERRNOS = {"fault": Errno.EFAULT, "hangs": Errno.EINTR, "waits": Errno.EINTR}


def guest_write(kvm: KvmDraft, gpa: int, nbytes: int, as_id: AsId, value: int = 0) -> Errno | None:
    """Serve one guest store; the outcome is in the event, an error of KVM_RUN is returned.

    References
    ----------
    arch/x86/kvm/mmu/mmu.c: kvm_mmu_page_fault() [all profiles]
    arch/x86/kvm/x86.c: emulator_write_phys() [v6_1, v6_12; emulator_write_guest() in v7_3]
    """
    nbytes = min(nbytes, _WIDEST)
    met = _access(kvm, gpa, as_id, write=True)
    found = gpa if met.gpa is None else met.gpa
    outcome = apic_outcome(kvm, as_id, found, met.outcome)
    if outcome == "apic":
        apic_write(kvm, found, nbytes, value, met.outcome)
    elif outcome in _SERVED:
        hva = _served_by(kvm, as_id, found, outcome, write=True)
        if hva is None:
            outcome = "mmio"
        elif outcome == "ram":
            write_host(kvm, hva, value, nbytes)
        else:
            _emulate_write(kvm, as_id, found, hva, nbytes, value)
    outcome = "hangs" if met.next_hangs else outcome
    kvm.emit(GuestWriteServed, gpa=found, as_id=as_id, outcome=outcome)
    return _ERRNOS.get(outcome)


def guest_read(kvm: KvmDraft, gpa: int, nbytes: int, as_id: AsId, answer: int = 0) -> Errno | None:
    """Serve one guest load; what it got is in the event."""
    nbytes = min(nbytes, _WIDEST)
    met = _access(kvm, gpa, as_id, write=False)
    found = gpa if met.gpa is None else met.gpa
    outcome = apic_outcome(kvm, as_id, found, met.outcome)
    value = 0
    if outcome == "apic":
        value = apic_read(kvm, found, nbytes, met.outcome)
    elif outcome in _SERVED:
        hva = _served_by(kvm, as_id, found, outcome, write=False)
        outcome = "mmio" if hva is None else outcome
        value = 0 if hva is None else read_host(kvm, hva, nbytes)
    if outcome == "mmio":
        value = answer
    if outcome in ("mmio", "emulated") and kvm.setup.irqchip:
        # The one reader of what the emulator's buffer holds is a read that no register of the APIC answers.
        kvm.vcpu = kvm.vcpu.with_read(value, nbytes)
    outcome = "hangs" if met.next_hangs else outcome
    kvm.emit(GuestReadServed, gpa=found, as_id=as_id, outcome=outcome, value=value)
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


def _access(kvm: KvmDraft, address: int, as_id: AsId, *, write: bool) -> Met:
    """Run one instruction as far as its access; return what it met, and where."""
    vcpu = kvm.vcpu
    if kvm.setup.irqchip and kvm.setup.vcpus and kvm.setup.vcpus[0] != 0:
        return Met("waits")
    if vcpu.injected:
        return Met(deliver_page_fault(kvm, as_id))
    if kvm.config.processor == "pvm" and vcpu.mode != "long":
        # PVM runs nothing but 64-bit code on the processor: every other instruction is emulated.
        readable = vcpu.code is None or hva_of_gpa(kvm, as_id, vcpu.code, write=False) is not None
        return Met("emulated" if readable else "no code", address)
    if vcpu.code is not None:
        fetch = _reach(kvm, vcpu.code, as_id, write=False)
        if fetch.outcome == "mmio":
            return Met("no code")
        if fetch.outcome == "emulated":
            return _emulated(kvm, address, as_id, fetch, write=write)
        if fetch.outcome != "ram":
            return fetch
    met = _reach(kvm, address, as_id, write=write)
    return met if met.entry is None else _at_entry(met, met.entry, address)


def _reach(kvm: KvmDraft, address: int, as_id: AsId, *, write: bool) -> Met:
    if kvm.vcpu.mode != "long":
        return Met(direct_access(kvm, as_id, Gfn(address >> PAGE_SHIFT), write=write), address)
    if kvm.config.tdp:
        met = tdp_paging_access(kvm, as_id, address, write=write)
    else:
        outcome, gfn = shadow_access(kvm, as_id, address, write=write)
        met = Met(outcome, None if gfn is None else (gfn << PAGE_SHIFT) + address % PAGE_SIZE)
    return Met(deliver_page_fault(kvm, as_id)) if met.outcome == "page fault" else met


def _emulated(kvm: KvmDraft, address: int, as_id: AsId, fetch: Met, *, write: bool) -> Met:
    """Answer for an instruction whose fetch KVM was asked for: it reads the code, walks and accesses itself."""
    if fetch.gpa is None or hva_of_gpa(kvm, as_id, fetch.gpa, write=False) is None:
        return Met("no code")
    if kvm.vcpu.mode != "long":
        return Met("emulated", address)
    walk = walk_guest_tables(kvm, as_id, address)
    if walk is None:
        return Met(deliver_page_fault(kvm, as_id))
    update_accessed_dirty_bits(kvm, as_id, walk, write=write, log=True)
    met = fetch._replace(gpa=(walk.gfn << PAGE_SHIFT) + address % PAGE_SIZE)
    return met if fetch.entry is None else _at_entry(met, fetch.entry, address)


def _at_entry(met: Met, entry: int, address: int) -> Met:
    """Return where the emulator accesses memory when a table entry was what the exit named.

    It takes the address of the exit for that of the data if both have the same place in their page.

    References
    ----------
    arch/x86/kvm/x86.c: x86_emulate_instruction(), emulator_read_write_onepage() [all profiles]
    """
    return met._replace(gpa=entry) if (entry ^ address) % PAGE_SIZE == 0 else met
