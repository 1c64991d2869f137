"""The sentences of how a region call ends: a check that refuses, and what it returns with.

The rule is that of `sentences`: each is made from what the engine did, not from what was asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from explorer.engine.mmu import zaps_all
from explorer.engine.uapi import KvmMrChange
from explorer.explain.ledger import ledger_of
from explorer.explain.sentence import Sentences
from explorer.explain.words import plural, size_text
from explorer.explain.xray import in_the_way_of, named

if TYPE_CHECKING:
    from explorer.explain.ledger import Ledger
    from explorer.history.moment import Moment

__all__ = ["refused", "returned", "what_goes"]


def refused(moment: Moment) -> Sentences:
    """Return the sentences of a step in which a check refuses."""
    op = moment.op
    assert op is not None, "a refusal is inside an operation"
    guard = op.step.refused_by
    assert guard is not None, "a refused step names its check"
    operands = next((r.operands for r in op.step.results if r.guard is guard), "")
    late = any(cell.word == "zap" for cell in op.cells[: moment.stop.cell])
    cost = f"after it had hidden the slot from every reader and thrown away {what_goes(moment)}"
    if guard.name == "external_user":
        if moment.kvm.profile.has_external_user_inverted:
            return Sentences(
                f"KVM said no because nobody watches from outside: the test is upside down. It said so {cost}.",
                "As posted, `kvm_page_track_has_external_user()` asks whether the list is empty, and it is.",
                guard.function,
            )
        return Sentences(
            f"KVM said no only {cost}.",
            "A page tracker is attached, so `kvm_page_track_has_external_user()` is true. `kvm_arch_prepare_memory_region()` asks it first of all for a MOVE; the steps before had already run.",
            guard.function,
        )
    if guard.name == "overlap":
        return Sentences(
            f"{named(in_the_way_of(moment))} in the way. Slots of one address space may not overlap.",
            f"`kvm_check_memslot_overlap()`: {operands}. Nothing was touched yet.",
            guard.function,
        )
    newcomer = f"KVM said no{f', {cost}' if late else ''}. The check that failed: {guard.title}."
    return Sentences(newcomer, f"`{guard.function}()`: {operands}.", guard.function)


def returned(moment: Moment) -> Sentences:
    """Return the sentences of a call that comes back."""
    op, call = moment.op, moment.call
    assert op is not None, "a return ends an operation"
    assert call is not None, "a return ends a region call"
    if op.step.errno is not None:
        return refused(moment)
    ledger = ledger_of(moment)
    match moment.change:
        case KvmMrChange.MOVE:
            words = "The slot moved. " + _watches_after_a_move(ledger)
        case KvmMrChange.CREATE:
            words = f"The guest has {size_text(call.memory_size)} more memory, in slot {call.slot}."
        case KvmMrChange.DELETE:
            words = f"Slot {call.slot} is gone. A guest access there now goes to the VMM."
        case KvmMrChange.FLAGS_ONLY:
            words = f"Slot {call.slot} has its new flags."
        case _:
            words = "There was nothing to do: KVM returned before it touched anything."
    return Sentences(
        words, f"The ioctl returns 0; generation is {moment.kvm.active(call.as_id).generation}.", "kvm_vm_ioctl"
    )


def _watches_after_a_move(ledger: Ledger | None) -> str:
    if ledger is None or not ledger.before:
        return "Nobody watched a page of it."
    if ledger.lost:
        living = ", and the shadow pages they stand for live on" if ledger.count("lost", "shadow paging") else ""
        were = "was" if ledger.lost == 1 else "were"
        return f"{plural(ledger.lost, 'watch')} of {ledger.losers} {were} lost on the way{living}."
    if ledger.dropped:
        return f"KVMGT dropped its {plural(ledger.dropped, 'watch')} on the way and does not ask again: its own flags still say tracked."
    if ledger.kept:
        return f"Its lists came along unchanged, so {plural(ledger.kept, 'watch')} now stand{'s' if ledger.kept == 1 else ''} for other pages."
    return (
        "Its watches went with their shadow pages. On this setup that is harmless: what is mapped next is watched anew."
    )


def what_goes(moment: Moment) -> str:
    """Return which mappings a zap of this kernel takes."""
    return "every mapping of the VM" if zaps_all(moment.kvm) else "the mappings of this slot only"
