"""A guest with paging and TDP: the processor walks the guest's tables itself, as if it wrote to each of them.

A table that it may not write to, or that lies in no slot, ends the walk at KVM, which has only the emulator: it
walks again in software and carries the instruction out, or makes the guest take a page fault. The guest of the
recordings has no handler; what becomes of its page fault is here too, for each way to reach the tables.

Models the faults of a nested walk: arch/x86/kvm/mmu/mmu.c: kvm_mmu_page_fault(); arch/x86/kvm/x86.c:
x86_emulate_instruction(), inject_emulated_exception(); the exits while an event is delivered of
arch/x86/kvm/vmx/vmx.c and arch/x86/kvm/svm/svm.c.
Not modelled: a guest with a handler for page faults, an IDT elsewhere than after a reset, the state of a vCPU after
a shutdown. Read next: `lapic`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from explorer.engine.fault import direct_access
from explorer.engine.hostmem import read_host
from explorer.engine.lookup import gfn_to_memslot
from explorer.engine.shadow import (
    ADDRESS,
    LEVELS,
    PRESENT,
    Entry,
    Walk,
    ends_walk,
    shadow_access,
    table_index,
    update_accessed_dirty_bits,
    walk_guest_tables,
)
from explorer.engine.spte import spte_at
from explorer.engine.types import PAGE_SHIFT, PAGE_SIZE, AsId, Gfn

if TYPE_CHECKING:
    from explorer.engine.draft import KvmDraft

__all__ = ["Met", "deliver_page_fault", "tdp_paging_access"]

_PF_GATE = {"long": 0xE0, "prot": 0x70, "real": 0x38}
"""Where the processor looks for the handler of a page fault, with the IDT that a reset leaves: 14 gates behind 0."""


class Met(NamedTuple):
    """What an access met."""

    outcome: str
    """One of `explorer.engine.guest.OUTCOMES`, or ``page fault`` for one of the guest's."""
    gpa: int | None = None
    """Guest physical address; None if it was not reached."""
    entry: int | None = None
    """The guest's table entry at which the walk was handed to the emulator."""
    next_hangs: bool = False
    """Whether the instruction is carried out, but the vCPU gets no further than to the next one."""


def tdp_paging_access(kvm: KvmDraft, as_id: AsId, address: int, *, write: bool) -> Met:
    """Let the processor walk the guest's tables, then access the page.

    References
    ----------
    arch/x86/kvm/mmu/mmu.c: kvm_mmu_page_fault() [all profiles]
    """
    table, entries = kvm.vcpu.cr3 & ADDRESS, []
    for level in range(LEVELS, 0, -1):
        gfn, entry = Gfn(table >> PAGE_SHIFT), table + table_index(address, level) * 8
        mapped = spte_at(kvm, as_id, gfn) is not None
        outcome = direct_access(kvm, as_id, gfn, write=True)
        if outcome in ("retry", "fault"):
            return Met(outcome)
        if outcome != "ram":
            _remember(kvm, as_id, gfn, outcome)
            return _emulate_for_table(kvm, as_id, address, entry, mapped=mapped, write=write)
        pte = _read_mapped(kvm, as_id, entry)
        if not pte & PRESENT:
            return Met("page fault")
        entries.append(Entry(level, entry, pte))
        table = pte & ADDRESS
        if ends_walk(level, pte):
            break
    walk = Walk.ending(tuple(entries), address)
    update_accessed_dirty_bits(kvm, as_id, walk, write=write, log=False)
    outcome = direct_access(kvm, as_id, walk.gfn, write=write)
    return Met(outcome, (walk.gfn << PAGE_SHIFT) + address % PAGE_SIZE)


def _emulate_for_table(kvm: KvmDraft, as_id: AsId, address: int, entry: int, *, mapped: bool, write: bool) -> Met:
    """Emulate an instruction because a table cannot be written to.

    Before KVM could tell that fault from a write to a table that it shadows itself, it unprotected nothing and
    tried again for ever, but only once an entry mapped the table.

    References
    ----------
    arch/x86/kvm/mmu/mmu.c: kvm_mmu_page_fault() [all profiles], kvm_mmu_write_protect_fault() [v6_12 to v7_3]
    """
    loops = not kvm.profile.walk_of_tracked_table_is_emulated
    if mapped and loops:
        return Met("hangs")
    walk = walk_guest_tables(kvm, as_id, address)
    if walk is None:
        return Met("page fault")
    update_accessed_dirty_bits(kvm, as_id, walk, write=write, log=True)
    now_mapped = spte_at(kvm, as_id, Gfn(entry >> PAGE_SHIFT)) is not None
    gpa = (walk.gfn << PAGE_SHIFT) + address % PAGE_SIZE
    return Met("emulated", gpa, entry, next_hangs=loops and now_mapped)


def _remember(kvm: KvmDraft, as_id: AsId, gfn: Gfn, outcome: str) -> None:
    """Keep that a direct table has an entry which says that no slot holds a page.

    References
    ----------
    arch/x86/kvm/mmu/mmu.c: kvm_handle_noslot_fault() [v6_6 to v7_3], handle_abnormal_pfn() [up to v6_1],
    mark_mmio_spte() [all profiles]
    """
    if outcome == "mmio" and kvm.config.tdp:
        kvm.sptes = kvm.sptes._replace(mmio=kvm.sptes.mmio.set((as_id, gfn), None))


def _read_mapped(kvm: KvmDraft, as_id: AsId, gpa: int) -> int:
    """Return what an entry that maps the page gives the processor, also after its slot became INVALID."""
    slot = gfn_to_memslot(kvm.active(as_id), gpa >> PAGE_SHIFT)
    return 0 if slot is None else read_host(kvm, slot.userspace_addr + gpa - (slot.base_gfn << PAGE_SHIFT), 8)


# -- the guest's page fault ------------------------------------------------------------------------


def deliver_page_fault(kvm: KvmDraft, as_id: AsId) -> str:
    """Let the processor look for the guest's handler of a page fault; return what the vCPU comes to.

    The memory behind the IDT holds no gate, so a page fault that can be delivered ends in a triple fault.

    References
    ----------
    arch/x86/kvm/x86.c: kvm_multiple_exception() [all profiles]
    """
    outcome = _read_gate(kvm, as_id, _PF_GATE[kvm.vcpu.mode])
    if outcome == "ram":
        outcome = "shutdown"
    # What was on its way when the vCPU stopped is queued again; a fault that the emulator raised anew is not.
    queued = outcome in ("undelivered", "fault") or (outcome == "hangs" and kvm.profile.emulation_refused_in_vectoring)
    if queued != kvm.vcpu.injected:
        kvm.vcpu = kvm.vcpu._replace(injected=queued)
    return outcome


def _read_gate(kvm: KvmDraft, as_id: AsId, gate: int) -> str:
    if kvm.vcpu.mode == "long" and not kvm.config.tdp:
        if walk_guest_tables(kvm, as_id, gate) is None:
            return "shutdown"
        outcome, _ = shadow_access(kvm, as_id, gate, write=False)
        return _while_vectoring(kvm, outcome)
    table = gate
    if kvm.vcpu.mode == "long":
        table = kvm.vcpu.cr3 & ADDRESS
        for level in range(LEVELS, 0, -1):
            outcome = _vectoring_access(kvm, as_id, Gfn(table >> PAGE_SHIFT), write=True)
            if outcome != "ram":
                return outcome
            pte = _read_mapped(kvm, as_id, table + table_index(gate, level) * 8)
            if not pte & PRESENT:
                return "shutdown"
            table = pte & ADDRESS
            if ends_walk(level, pte):
                table += gate
                break
    return _vectoring_access(kvm, as_id, Gfn(table >> PAGE_SHIFT), write=False)


def _vectoring_access(kvm: KvmDraft, as_id: AsId, gfn: Gfn, *, write: bool) -> str:
    """Access a page for the processor while it delivers an event.

    A page that KVM remembers as MMIO has an exit of its own, EPT misconfiguration or a reserved bit. It is looked at
    before anybody asks whether a slot holds the page by now.

    References
    ----------
    arch/x86/kvm/vmx/vmx.c: vmx_handle_exit() [v5_10 to v6_12], handle_ept_misconfig() [v6_18, v7_3];
    arch/x86/kvm/svm/svm.c: npf_interception() [v7_3]
    """
    profile, intel = kvm.profile, kvm.config.processor == "intel"
    if kvm.config.tdp and (as_id, gfn) in kvm.sptes.mmio and spte_at(kvm, as_id, gfn) is None:
        if not profile.emulation_refused_in_vectoring:
            if intel:
                return "undelivered"
        elif intel or profile.amd_expedites_mmio:
            return "hangs"
    outcome = direct_access(kvm, as_id, gfn, write=write)
    _remember(kvm, as_id, gfn, outcome)
    return _while_vectoring(kvm, outcome)


def _while_vectoring(kvm: KvmDraft, outcome: str) -> str:
    """Return what becomes of a vCPU that would need the emulator while an event is delivered.

    Where emulation is not refused it forgets the event, meets the cause of the page fault again and raises it anew:
    for ever, unless Intel's exit for a remembered page comes in between.

    References
    ----------
    arch/x86/kvm/x86.c: x86_emulate_instruction() [all profiles]; arch/x86/kvm/x86.h: kvm_clear_exception_queue()
    [all profiles]; arch/x86/kvm/vmx/vmx.c: vmx_check_emulate_instruction(); arch/x86/kvm/svm/svm.c:
    svm_check_emulate_instruction() [v6_18, v7_3]
    """
    if outcome in ("ram", "retry", "fault"):
        return outcome
    if kvm.profile.emulation_refused_in_vectoring:
        return "undelivered"
    return "undelivered" if outcome == "mmio" and kvm.config.tdp and kvm.config.processor == "intel" else "hangs"
