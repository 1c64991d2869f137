"""The sentences of what has a page's writes intercepted: shadow paging and trackers.

The rule is that of `sentences`: each is made from what the engine did, not from what was asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from explorer.engine.events import (
    ArrayAllocated,
    ShadowTableShadowed,
    WriteTracked,
    WriteUntracked,
)
from explorer.engine.state import Kvmgt
from explorer.explain.ledger import watches_of
from explorer.explain.sentence import Sentences
from explorer.explain.words import hex_text, plural

if TYPE_CHECKING:
    from explorer.engine.commands import (
        AttachTracker,
        DetachTracker,
        TrackGfn,
        UntrackGfn,
    )
    from explorer.history.moment import Moment

__all__ = ["attached", "detached", "shadowed_tables", "tracked", "untracked"]


def shadowed_tables(moment: Moment) -> Sentences:
    """Return the sentences of guest page tables that are shadowed."""
    op = moment.op
    assert op is not None, "tables are shadowed in an operation"
    made = sum(isinstance(event, ShadowTableShadowed) for event in op.step.events)
    watched = sum(isinstance(event, WriteTracked) for event in op.step.events)
    if made:
        times = "once" if made == 1 else f"{made} times"
        last = " The last level is not: it forbids huge pages, and may go out of sync." if made > watched else ""
        return Sentences(
            "These pages hold the guest’s own page tables. KVM keeps a shadow of each, and watches the upper ones for writes.",
            f"`account_shadowed()` ran {times}: each upper-level table is write-tracked.{last}",
            "account_shadowed",
        )
    if moment.kvm.config.tdp:
        return Sentences(
            "The processor walks the guest’s tables itself, so KVM shadows none.",
            "With TDP, and no nested guest, there is no shadow root: `account_shadowed()` has nothing to do, and nobody inside KVM tracks writes.",
            "account_shadowed",
        )
    return Sentences(
        "KVM makes no new shadow: these tables have one, or they do not lie in memory the guest can use.",
        "`account_shadowed()` did not run: a shadow page exists already, or no visible slot holds the table.",
        "account_shadowed",
    )


def attached(moment: Moment, command: AttachTracker) -> Sentences:
    """Return the sentences of a tracker that registers."""
    op = moment.op
    assert op is not None, "a tracker attaches in an operation"
    who = (
        "KVMGT, the driver of Intel’s virtual GPU,"
        if command.kind == "kvmgt"
        else "A tracker that only logs its callbacks"
    )
    held = sum(watch.by == "tracker" for slot in moment.kvm.slots() for watch in watches_of(moment.kvm, slot))
    now = (
        "No page is watched for it yet."
        if not held
        else f"{plural(held, 'watch')} of an external tracker {'is' if held == 1 else 'are'} there already."
    )
    arrays = sum(isinstance(e, ArrayAllocated) for e in op.step.events)
    tail = (
        f" It is the first, so `kvm_enable_external_write_tracking()` gave {plural(arrays, 'slot')} counts."
        if arrays
        else ""
    )
    return Sentences(
        f"{who} is attached. {now}",
        f"`kvm_page_track_register_notifier()` put it at the head of the list: it is called first.{tail}",
        "kvm_page_track_register_notifier",
    )


def detached(moment: Moment, command: DetachTracker) -> Sentences:
    """Return the sentences of a tracker that lets go of everything."""
    op = moment.op
    assert op is not None, "a tracker detaches in an operation"
    known = op.before.trackers.get(command.user)
    if known is None or not known.attached:
        return Sentences(
            "No such tracker is attached, so nothing happens.",
            "`kvm_page_track_unregister_notifier()` was not called.",
            "kvm_page_track_unregister_notifier",
        )
    back = sum(isinstance(event, WriteUntracked) for event in op.step.events)
    if isinstance(known, Kvmgt):
        newcomer = f"KVMGT gives back {plural(back, 'watch')} and is detached."
        first = "KVMGT first lets go of every page it shadows; then "
    else:
        newcomer = "The tracker is detached. Watches it did not give back stay."
        first = ""
    return Sentences(
        newcomer,
        f"{first}`kvm_page_track_unregister_notifier()` took it off the list.",
        "kvm_page_track_unregister_notifier",
    )


def tracked(moment: Moment, command: TrackGfn) -> Sentences:
    """Return the sentences of a page whose writes are asked for."""
    op = moment.op
    assert op is not None, "a page is tracked in an operation"
    page = hex_text(command.gfn)
    up = next((e for e in op.step.events if isinstance(e, WriteTracked)), None)
    if up is None:
        return Sentences(
            f"KVMGT believes that it watches page {page} already, so it does not ask KVM.",
            "`intel_vgpu_enable_page_track()` returns at once where the `tracked` flag is set, or KVMGT’s own table has the page.",
            "intel_vgpu_enable_page_track",
        )
    return Sentences(
        f"The tracker asks KVM to catch every guest write to page {page}.",
        f"`kvm_write_track_add_gfn()`: the page’s count is {up.count} now, and no huge page may cover it.",
        "kvm_write_track_add_gfn",
    )


def untracked(moment: Moment, command: UntrackGfn) -> Sentences:
    """Return the sentences of a page whose writes are asked for no more."""
    op = moment.op
    assert op is not None, "a page is let go in an operation"
    page = hex_text(command.gfn)
    down = next((e for e in op.step.events if isinstance(e, WriteUntracked)), None)
    if down is None:
        return Sentences(
            f"KVMGT forgets page {page}; KVM takes no watch away.",
            "`intel_vgpu_unregister_page_track()`: KVM watched the page no more for KVMGT, or no slot holds it.",
            "intel_vgpu_unregister_page_track",
        )
    return Sentences(
        f"The tracker lets page {page} go.",
        f"`kvm_write_track_remove_gfn()`: the page’s count is {down.count} now.",
        "kvm_write_track_remove_gfn",
    )
