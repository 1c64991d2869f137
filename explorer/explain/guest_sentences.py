"""The sentences of a guest's own reads and writes.

The rule is that of `sentences`: each is made from what the engine did, not from what was asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from explorer.engine.events import (
    GuestReadServed,
    GuestWriteServed,
    TrackerNotified,
)
from explorer.explain.sentence import Sentences
from explorer.explain.words import hex_text, plural

if TYPE_CHECKING:
    from explorer.engine.commands import (
        GuestRead,
        GuestWrite,
    )
    from explorer.history.moment import Moment

__all__ = ["guest_read", "guest_write"]


def guest_write(moment: Moment, command: GuestWrite) -> Sentences:
    """Return the sentences of a guest's write."""
    op = moment.op
    assert op is not None, "a write is an operation"
    served = next((e for e in op.step.events if isinstance(e, GuestWriteServed)), None)
    told = sum(isinstance(e, TrackerNotified) for e in op.step.events)
    where = hex_text(command.gpa)
    match served.outcome if served is not None else "":
        case "emulated":
            who = f"; {plural(told, 'tracker')} {'is' if told == 1 else 'are'} told" if told else ""
            return Sentences(
                f"The guest writes to {where}. The page is watched, so KVM carries the write out itself{who}.",
                "The fault is answered by emulation; `kvm_page_track_write()` runs when memory already has the new value.",
                "kvm_page_track_write",
            )
        case "ram":
            return Sentences(
                f"The guest writes to {where}. Nobody watches the page, so nobody is told.",
                "The count is 0: `kvm_faultin_pfn()` finds the page, and a writable mapping serves the write.",
                "kvm_faultin_pfn",
            )
        case "mmio":
            return Sentences(
                f"The guest writes to {where}, where there is no slot: the VMM must answer.",
                "`kvm_faultin_pfn()` finds no slot for the gfn: an MMIO exit to userspace.",
                "kvm_faultin_pfn",
            )
        case "read-only":
            return Sentences(
                f"The guest writes to {where}, which is read-only: the VMM must answer.",
                "`kvm_faultin_pfn()` gets no writable page from a READONLY slot: the write exits to userspace as MMIO.",
                "kvm_faultin_pfn",
            )
        case "apic":
            return _apic("write", where)
        case stuck if stuck in _STUCK:
            return _STUCK[stuck]
        case _:
            return Sentences(
                f"The guest writes to {where} while the slot is INVALID: it tries again until the update is over.",
                "`kvm_faultin_pfn()` answers RET_PF_RETRY for an INVALID slot.",
                "kvm_faultin_pfn",
            )


def guest_read(moment: Moment, command: GuestRead) -> Sentences:
    """Return the sentences of a guest's read."""
    op = moment.op
    assert op is not None, "a read is an operation"
    served = next((e for e in op.step.events if isinstance(e, GuestReadServed)), None)
    where = hex_text(command.gpa)
    match served.outcome if served is not None else "":
        case "ram":
            return Sentences(
                f"The guest reads from {where} and gets what memory holds.",
                "`kvm_faultin_pfn()` finds the page if it is not mapped yet; a mapping that allows writes counts as one.",
                "kvm_faultin_pfn",
            )
        case "emulated":
            return Sentences(
                f"The guest reads from {where}; KVM carries the instruction out itself.",
                "`kvm_mmu_page_fault()` has the instruction emulated.",
                "kvm_mmu_page_fault",
            )
        case "mmio":
            return Sentences(
                f"The guest reads from {where}, where there is no slot: the VMM must answer.",
                "`kvm_faultin_pfn()` finds no slot for the gfn: an MMIO exit to userspace.",
                "kvm_faultin_pfn",
            )
        case "apic":
            return _apic("read", where)
        case stuck if stuck in _STUCK:
            return _STUCK[stuck]
        case _:
            return Sentences(
                f"The guest reads from {where} while the slot is INVALID: it tries again until the update is over.",
                "`kvm_faultin_pfn()` answers RET_PF_RETRY for an INVALID slot.",
                "kvm_faultin_pfn",
            )


def _apic(does: str, where: str) -> Sentences:
    return Sentences(
        f"The guest {does}s {'to' if does == 'write' else 'from'} {where}, the page of its local APIC: "
        "KVM answers itself, and the VMM hears nothing.",
        f"`apic_mmio_{does}()`, KVM's own device at the page, is asked before userspace.",
        f"apic_mmio_{does}",
    )


_STUCK = {
    "shutdown": Sentences(
        "The guest takes a page fault and has no handler for it: the vCPU shuts down.",
        "A page fault, a double fault, a triple fault: KVM_RUN exits with KVM_EXIT_SHUTDOWN.",
        "kvm_mmu_page_fault",
    ),
    "undelivered": Sentences(
        "The guest should take a page fault, but not even that can reach it: KVM gives up on the vCPU.",
        "A page is missing while the event is delivered, which KVM cannot emulate: an internal error, suberror 3.",
        "x86_emulate_instruction",
    ),
    "no code": Sentences(
        "The vCPU's instructions lie in no slot: KVM must emulate what it cannot read, and gives up.",
        "`x86_emulate_instruction()` cannot fetch the instruction: an internal error, suberror 1.",
        "x86_emulate_instruction",
    ),
}
"""What is said of a vCPU that exits for good, by outcome; `refused_sentences` has those that end in an errno."""
