"""What an operation that is no region call did: a row for each value it changed, in kernel order."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from explorer.engine.events import (
    ArrayAllocated,
    ArrayFreed,
    DirtyLogCleared,
    DirtyLogRead,
    GpuEntryShadowed,
    GuestWriteServed,
    KernelWarned,
    PageMarkedDirty,
    ShadowPageZapped,
    ShadowTableShadowed,
    TrackerAttached,
    TrackerDetached,
    TrackerForgot,
    TrackerNotified,
    VmBugged,
    WriteTracked,
    WriteUntracked,
)
from explorer.explain.sources import name_in
from explorer.explain.words import hex_text, pages_text, plural, size_text

if TYPE_CHECKING:
    from explorer.engine.events import Event
    from explorer.engine.profile import KernelProfile
    from explorer.history.moment import Moment

__all__ = ["MOST", "Effect", "EffectsView", "select_effects"]

MOST = 60
"""Rows; what is beyond is counted."""
_ARRAYS = {
    "rmap": "reverse maps",
    "lpage_info": "huge-page counters",
    "gfn_write_track": "write-track counts",
    "dirty_bitmap": "dirty bitmap",
}


class Effect(NamedTuple):
    """One value that changed, or one thing that happened."""

    what: str
    before: str
    """Empty for what has no value."""
    after: str
    function: str
    """Kernel function in the profile's tree; empty where none is named."""


class EffectsView(NamedTuple):
    """What an operation did."""

    rows: tuple[Effect, ...]
    more: int
    """Rows that were left out."""


def select_effects(moment: Moment) -> EffectsView | None:
    """Return what the operation did; None at the start and in a region call, which has a view of its own."""
    if moment.op is None or moment.call is not None:
        return None
    profile = moment.kvm.profile
    rows = [row for event in moment.op.step.events if (row := _row(event, profile)) is not None]
    return EffectsView(tuple(rows[:MOST]), max(len(rows) - MOST, 0))


def _row(event: Event, profile: KernelProfile) -> Effect | None:
    found = _words(event)
    if found is None:
        return None
    what, before, after, function = found
    return Effect(what, before, after, (name_in(function, profile) or "") if function else "")


def _words(event: Event) -> tuple[str, str, str, str] | None:
    """Return what, before, after and the kernel function, by its newest name."""
    match event:
        case WriteTracked():
            what = f"count of gfn {hex_text(event.gfn)}, for {event.by}"
            return what, str(event.count - 1), str(event.count), "__kvm_write_track_add_gfn"
        case WriteUntracked():
            what = f"count of gfn {hex_text(event.gfn)}, for {event.by}"
            return what, str(event.count + 1), str(event.count), "__kvm_write_track_remove_gfn"
        case ShadowTableShadowed():
            return f"shadow page of gfn {hex_text(event.gfn)}, level {event.level}", "none", "made", "account_shadowed"
        case ShadowPageZapped():
            what = f"shadow page of gfn {hex_text(event.gfn)}, level {event.level}"
            return what, "there", "zapped", "unaccount_shadowed"
        case ArrayAllocated():
            return f"{_ARRAYS[event.kind]} of slot {event.slot}", "none", size_text(event.size_bytes), ""
        case ArrayFreed():
            return f"{_ARRAYS[event.kind]} of slot {event.slot}", "there", "freed", ""
        case TrackerAttached():
            return f"tracker {event.user}", "absent", "attached", "kvm_page_track_register_notifier"
        case TrackerDetached():
            return f"tracker {event.user}", "attached", "gone", "kvm_page_track_unregister_notifier"
        case TrackerNotified():
            where = f"{pages_text(event.npages)} from gfn {hex_text(event.gfn)}" if event.npages > 1 else ""
            return f"tracker {event.user} hears {event.callback}", "", where or f"gfn {hex_text(event.gfn)}", ""
        case TrackerForgot():
            return f"table of tracker {event.user}", "", f"{plural(len(event.gfns), 'page')} dropped", ""
        case GpuEntryShadowed():
            leads = "scratch" if event.page is None else f"page {hex_text(event.page)}"
            what = f"entry {event.index} of the GPU's table {hex_text(event.table)}"
            return what, "", leads, "ppgtt_handle_guest_write_page_table"
        case GuestWriteServed():
            return f"guest write to {hex_text(event.gpa)}", "", event.outcome, ""
        case PageMarkedDirty():
            what = f"dirty bit of page {event.index} of slot {event.slot}"
            return what, "", "1", "mark_page_dirty_in_slot"
        case DirtyLogRead():
            what = f"dirty log of slot {event.slot}"
            return what, "", f"{plural(event.count, 'page')} reported", "kvm_get_dirty_log_protect"
        case DirtyLogCleared():
            what = f"dirty log of slot {event.slot}"
            return what, "", f"{plural(event.count, 'page')} cleared", "kvm_clear_dirty_log_protect"
        case KernelWarned():
            return f"WARN in {event.function}()", "", event.what, ""
        case VmBugged():
            return "the VM", "alive", "marked dead", ""
        case _:
            return None
