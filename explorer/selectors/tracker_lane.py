"""The lane of the tracker's own tables: which pages KVMGT believes it watches, whatever KVM counts for them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from explorer.engine.state import Kvmgt
from explorer.explain.words import hex_text
from explorer.selectors.lane_parts import MARKS, Label, Lane, Mark
from explorer.selectors.watch_lane import apart

if TYPE_CHECKING:
    from explorer.history.moment import Moment
    from explorer.selectors.gpa_map import Window

__all__ = ["tracker_lane_of"]

HEIGHT = 0.45
LETTER = 7.4


def tracker_lane_of(moment: Moment, windows: tuple[Window, ...]) -> Lane | None:
    """Draw a mark for each page whose flag says tracked, crossed if its protect table no longer holds the page.

    Returns None if there is no KVMGT, or it never asked to watch a page: then the lane would say nothing.
    """
    trackers = [tracker for tracker in moment.kvm.trackers.values() if isinstance(tracker, Kvmgt)]
    pages = {
        int(gfn): gfn in tracker.protect_table
        for tracker in trackers
        for gfn, tracked in tracker.page_track_tree.items()
        if tracked
    }
    if not pages:
        return None
    placed = [
        (window.at(gfn + 0.5), gfn, protected)
        for gfn, protected in sorted(pages.items())[: 4 * MARKS]
        for window in windows
        if window.first_gfn <= gfn < window.end_gfn
    ][:MARKS]
    xs = apart([x for x, _, _ in placed], windows)
    marks = tuple(
        Mark(x, "external" if protected else "lost", true, _hover(gfn, protected=protected), HEIGHT)
        for x, (true, gfn, protected) in zip(xs, placed, strict=True)
    )
    return Lane(
        "KVMGT’s flags", "what it believes", marks=marks, labels=(_label(pages, marks, windows),), stem_from=0.85
    )


def _hover(gfn: int, *, protected: bool) -> str:
    table = "in its protect table" if protected else "gone from its protect table: it will not ask again"
    return f"<b>gfn {hex_text(gfn)}</b><br>page_track_tree: tracked<br>{table}"


def _label(pages: dict[int, bool], marks: tuple[Mark, ...], windows: tuple[Window, ...]) -> Label:
    gone = sum(1 for protected in pages.values() if not protected)
    text = f"{len(pages)} set" + (f", {gone} not in its table" if gone else "")
    role = "lost" if gone else "external"
    if not marks:
        return Label((windows[0].x0 + windows[0].x1) / 2, HEIGHT, f"{text}, elsewhere", role, bold=gone > 0)
    last = max(mark.x for mark in marks)
    end = next((window.x1 for window in windows if last <= window.x1), windows[-1].x1)
    if last + 18 + len(text) * LETTER <= end:
        return Label(last + 18, HEIGHT, text, role, "left", bold=gone > 0)
    return Label(end - 8, 0.1, text, role, "right", "small", bold=gone > 0)
