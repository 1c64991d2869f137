"""The lane of watches: a mark for each count of a page, with its fate, and words where there is room."""

from __future__ import annotations

from typing import TYPE_CHECKING

from explorer.engine.state import WriteTrack
from explorer.explain.ledger import Watch, ledger_of, watches_of
from explorer.explain.words import hex_text
from explorer.selectors.lane_parts import MARKS, Label, Lane, Mark, MarkKind, focus_slot, new_slot

if TYPE_CHECKING:
    from explorer.history.moment import Moment
    from explorer.selectors.gpa_map import Window

__all__ = ["apart", "counts_beside", "marks_of", "watches_lane"]

SPACING = 25.0
"""Least distance between two marks, in pixels."""
BESIDE = 60
"""Least distance between two marks, in pixels, that leaves room for a count."""


def watches_lane(moment: Moment, windows: tuple[Window, ...]) -> Lane:
    """Draw the watches of the slot the operation is about, each with its fate so far."""
    ledger = ledger_of(moment)
    slot = focus_slot(moment)
    labels: list[Label] = []
    watches = (
        ledger.watches
        if ledger is not None and moment.old is not None and moment.on_call
        else watches_of(moment.kvm, slot)
    )
    marks = marks_of(watches, windows, y=0.45)
    labels += _mark_labels(watches, marks, windows)
    new = new_slot(moment)
    if new is not None:
        array = moment.kvm.heap.get(new.arch.gfn_write_track) if new.arch.gfn_write_track is not None else None
        for window in windows:
            inside = window.first_gfn <= new.base_gfn and new.end_gfn <= window.end_gfn
            if inside and isinstance(array, WriteTrack) and not array.counts and (len(windows) > 1 or not watches):
                middle = (window.at(new.base_gfn) + window.at(new.end_gfn)) / 2
                labels.append(Label(middle, 0.45, f"none: {new.npages:,} zeros", "ink_3"))
    if watches and not marks and not labels:
        labels.append(Label((windows[0].x0 + windows[0].x1) / 2, 0.45, "those of the slot are elsewhere", "ink_3"))
    if not watches and not labels:
        text = "none" if slot is None or slot.arch.gfn_write_track is not None else "no counts: write tracking is off"
        labels.append(Label((windows[0].x0 + windows[0].x1) / 2, 0.45, text, "ink_3"))
    return Lane("Watches", "count per page", (), marks, tuple(labels))


def _mark_labels(watches: tuple[Watch, ...], marks: tuple[Mark, ...], windows: tuple[Window, ...]) -> list[Label]:
    if not marks:
        return []
    labels: list[Label] = []

    def tell(text: str, role: str, *, bold: bool = False) -> None:
        """Write behind the last mark, or under the marks if the window ends before the words do."""
        end = next((w.x1 for w in windows if last.x <= w.x1), windows[-1].x1)
        if last.x + 18 + len(text) * 7.4 <= end:
            labels.append(Label(last.x + 18, 0.45, text, role, "left", bold=bold))
        else:
            labels.append(Label(end - 8, 0.1, text, role, "right", "small", bold=bold))

    released = sum(1 for w in watches if w.fate == "released")
    dropped = sum(1 for w in watches if w.fate == "dropped")
    lost = sum(1 for w in watches if w.fate == "lost")
    last = max(marks, key=lambda mark: mark.x)
    first = next((at for at, mark in enumerate(marks) if mark.kind == "external"), None)
    named = first is not None and marks[first].x - (marks[first - 1].x if first else 0) > 76
    if first is not None and named:
        labels.append(Label(marks[first].x - 16, 0.45, "tracker", "external", "right"))
    labels += counts_beside(marks, named=first if named else None)
    told = ((released, "released"), (dropped, "dropped by KVMGT"), (lost, "lost"))
    words = [f"{count} {what}" for count, what in told if count]
    if words:
        role = "lost" if lost or dropped else "internal"
        tell(", ".join(words), role, bold=role == "lost")
    held = [w for w in watches if w.fate == "held"]
    if held and not words:
        trackers = sum(1 for w in held if w.by == "tracker")
        text = f"{len(held)}"
        if trackers and trackers < len(held):
            text += f": {len(held) - trackers} shadow paging, {trackers} tracker"
        else:
            text += " tracker" if trackers else " shadow paging"
        tell(text, "external" if trackers else "internal")
    return labels


def counts_beside(marks: tuple[Mark, ...], *, named: int | None = None) -> list[Label]:
    """Write its count beside each mark of a tracker that has room: behind it, or before it unless a name is there."""
    labels = []
    for at, mark in enumerate(marks[:-1]):
        if mark.kind != "external":
            continue
        if marks[at + 1].x - mark.x > BESIDE:
            labels.append(Label(mark.x + 16, mark.y, "1", "external", "left", bold=True))
        elif at != named and mark.x - (marks[at - 1].x if at else 0) > BESIDE:
            labels.append(Label(mark.x - 16, mark.y, "1", "external", "right", bold=True))
    return labels


def marks_of(
    watches: tuple[Watch, ...], windows: tuple[Window, ...], *, y: float, spread: bool = True
) -> tuple[Mark, ...]:
    """Place a mark for each watch, stepping aside where pages lie closer than marks are wide."""
    placed: list[tuple[float, MarkKind, str]] = []
    for watch in sorted(watches[: 4 * MARKS], key=lambda watch: (watch.gfn, watch.by == "shadow paging")):
        for window in windows:
            if window.first_gfn <= watch.gfn < window.end_gfn:
                kind: MarkKind = (
                    "released"
                    if watch.fate == "released"
                    else "lost"
                    if watch.fate in ("dropped", "lost")
                    else "external"
                    if watch.by == "tracker"
                    else "internal"
                )
                by = "an external tracker" if watch.by == "tracker" else "shadow paging"
                hover = f"<b>gfn {hex_text(watch.gfn)}</b><br>watched by {by}<br>{_fate_text(watch)}"
                placed.append((window.at(watch.gfn + 0.5), kind, hover))
                break
    if len(placed) > MARKS:
        placed = [placed[i * len(placed) // MARKS] for i in range(MARKS)]
    if not spread:
        return tuple(Mark(x, kind, x, hover, y) for x, kind, hover in placed)
    xs = apart([x for x, _, _ in placed], windows)
    return tuple(Mark(x, kind, true, hover, y) for x, (true, kind, hover) in zip(xs, placed, strict=True))


def _fate_text(watch: Watch) -> str:
    return {
        "held": "the count is in the array",
        "released": "released by the zap",
        "dropped": "dropped by KVMGT’s own callback",
        "lost": "lost with the old array",
    }[watch.fate]


def apart(xs: list[float], windows: tuple[Window, ...]) -> list[float]:
    """Push positions apart to at least `SPACING`, keeping their order and staying in the plot."""
    if not xs:
        return []
    moved = list(xs)
    for at in range(1, len(moved)):
        moved[at] = max(moved[at], moved[at - 1] + SPACING)
    over = moved[-1] - (windows[-1].x1 - 8)
    if over > 0:
        moved[-1] -= over
        for at in range(len(moved) - 2, -1, -1):
            moved[at] = min(moved[at], moved[at + 1] - SPACING)
    return moved
