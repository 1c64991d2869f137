"""The lanes of the detail: slots, watches, huge pages, host memory; or one slot before, during and after."""

from __future__ import annotations

from typing import TYPE_CHECKING

from explorer.engine.lookup import slots_in_gfn_range
from explorer.engine.uapi import KvmMrChange
from explorer.explain.ledger import watches_of
from explorer.explain.words import pages_text, plural
from explorer.explain.xray import in_the_way_of, in_the_way_of_next
from explorer.selectors.host_lane import host_lane_of
from explorer.selectors.huge_lane import huge_pages_lane
from explorer.selectors.lane_parts import (
    MARKS,
    Bar,
    Label,
    Lane,
    fitting,
    focus_slot,
    ghost_target,
    holes,
    outline,
    slot_bar,
)
from explorer.selectors.refused_lanes import before_during_after
from explorer.selectors.tracker_lane import tracker_lane_of
from explorer.selectors.watch_lane import marks_of, watches_lane

if TYPE_CHECKING:
    from explorer.explain.xray import InTheWay
    from explorer.history.moment import Moment
    from explorer.selectors.gpa_map import Window

__all__ = ["lanes_of"]


def lanes_of(moment: Moment, windows: tuple[Window, ...], *, host_lane: bool, newcomer: bool) -> tuple[Lane, ...]:
    """Return the lanes for a moment: three moments of one slot once a call was refused late."""
    if not windows:
        return ()
    if newcomer:
        return (_opening(moment, windows),)
    op = moment.op
    if op is not None and moment.on_call and op.step.errno is not None and any(c.word == "zap" for c in op.cells):
        refused = next(i for i, cell in enumerate(op.cells) if cell.refused)
        if moment.stop.cell >= refused:
            return before_during_after(moment, windows)
    lanes = [_slots(moment, windows), watches_lane(moment, windows), huge_pages_lane(moment, windows)]
    believed = tracker_lane_of(moment, windows) if host_lane else None
    if believed is not None:
        lanes.insert(2, believed)
    if host_lane:
        lanes.append(host_lane_of(moment, windows))
    return tuple(lanes)


# -- the newcomer's lane ---------------------------------------------------------------------------


def _opening(moment: Moment, windows: tuple[Window, ...]) -> Lane:
    slot = focus_slot(moment)
    if slot is None:
        return Lane("", "")
    window = windows[0]
    bars = [slot_bar(slot, window, label="", y0=0.58, y1=0.9, divide=True)]
    labels: list[Label] = []
    target = ghost_target(moment)
    if target is not None and (target[0], target[1]) != (slot.base_gfn, slot.end_gfn):
        bars.append(
            Bar(window.at(target[0]), window.at(target[1]), "new_uncommitted", "", "where it would go", 0.55, 0.93)
        )
        shift = target[0] - slot.base_gfn
        sign = "+" if shift > 0 else "\N{MINUS SIGN}"
        x = window.at(max(target[1], slot.end_gfn)) + 8
        labels += [
            Label(x, 0.8, f"{sign}{pages_text(abs(shift))}", "new_line", "left", bold=True),
            Label(x, 0.68, "if moved", "new_line", "left", "small"),
        ]
    watches = watches_of(moment.kvm, slot)
    marks = marks_of(watches, (window,), y=0.74, spread=False)
    brackets: list[tuple[float, float, float]] = []
    if marks:
        left, right = marks[0].x, marks[-1].x
        brackets.append((left - 8, right + 8, 0.53))
        labels += [
            Label((left + right) / 2, 0.36, plural(len(watches), "watched page"), "internal", size="title", bold=True),
            Label((left + right) / 2, 0.22, "the guest’s upper page tables, one shadow page each", "ink_2"),
        ]
    return Lane(
        f"Slot {slot.id}",
        pages_text(slot.npages),
        tuple(bars),
        marks,
        tuple(labels),
        brackets=tuple(brackets),
        stem_from=0.74,
    )


# -- the lane of slots -----------------------------------------------------------------------------


def _slots(moment: Moment, windows: tuple[Window, ...]) -> Lane:
    """Draw what readers find, and dotted what an update or the composed operation adds to it."""
    as_id = moment.focus.as_id if moment.focus is not None else 0
    bars: list[Bar] = []
    for window in windows:
        found = tuple(slots_in_gfn_range(moment.kvm.active(as_id), window.first_gfn, window.end_gfn))
        for slot in found[:200]:
            label = f"slot {slot.id}, INVALID" if slot.invalid else f"slot {slot.id}"
            bars.append(fitting(slot_bar(slot, window, label=label)))
    ways = tuple(way for way in in_the_way_of(moment) if way.slot.as_id == as_id) if moment.on_call else ()
    if ways and moment.target is not None:
        return _in_the_way(moment.target, ways, bars, windows, "asked for, refused: nothing was built here")
    ghost = ghost_target(moment)
    composed = tuple(way for way in in_the_way_of_next(moment) if way.slot.as_id == as_id)
    if composed and ghost is not None:
        return _in_the_way(ghost, composed, bars, windows, "composed: it would be refused")
    labels: list[Label] = []
    for planned in _planned(moment, windows):
        covering = [bar for bar in bars if bar.x0 < planned.x1 and planned.x0 < bar.x1]
        if not covering:
            bars.append(planned)
            continue
        # Words inside would run into the slot's own: they go beside, if there is room.
        bars.append(planned._replace(label=""))
        end = max([planned.x1, *(bar.x1 for bar in covering)])
        text = planned.label.partition(":")[0]
        room = max(window.x1 for window in windows if window.x0 <= planned.x0) - end
        if planned.label and room > len(text) * 7:
            role = "ink_3" if planned.style == "was_here" else "new_line"
            labels.append(Label(end + 8, 0.7 - 0.4 * len(labels), text, role, "left", "small"))
    if len(labels) == 1:
        labels[0] = labels[0]._replace(y=0.5)
    labels += holes(windows, bars)
    return Lane("Slots", "what readers see", tuple(bars), labels=tuple(labels))


def _in_the_way(
    target: tuple[int, int], ways: tuple[InTheWay, ...], bars: list[Bar], windows: tuple[Window, ...], words: str
) -> Lane:
    """Draw the slots above, and below them the place that was asked for, with what is taken of it."""
    upper = [bar._replace(y0=0.56, y1=0.94) for bar in bars]
    asked = outline(target, windows, "refused_target", words)
    lower = [bar._replace(y0=0.06, y1=0.44, refused=True) for bar in asked]
    taken = tuple(
        (window.at(first), window.at(end), way.words)
        for window in windows
        for way in ways[:MARKS]
        for first, end in [(max(way.first_gfn, window.first_gfn), min(way.end_gfn, window.end_gfn))]
        if first < end
    )
    return Lane("Slots", "and what is in the way", (*upper, *lower), frames=taken)


def _planned(moment: Moment, windows: tuple[Window, ...]) -> list[Bar]:
    """Return dotted and dashed outlines: where a slot will be, would be, or was."""
    call, target, old, change = moment.call, moment.target, moment.old, moment.change
    bars: list[Bar] = []
    if call is not None and moment.op is not None and call.as_id < len(moment.kvm.memslots):
        seen = moment.kvm.slot(call.slot, call.as_id)
        arrived = seen is not None and target is not None and seen.base_gfn == target[0] and not seen.invalid
        if (
            target is not None
            and change in (KvmMrChange.MOVE, KvmMrChange.CREATE)
            and not arrived
            and not moment.at_end
        ):
            new = moment.kvm.pending.new if moment.kvm.pending is not None else None
            built = new is not None and new.arch.lpage_info is not None
            label = f"slot {call.slot}, being built: no reader sees it" if built else f"slot {call.slot} is to go here"
            bars += outline(target, windows, "new_uncommitted", label)
        left = seen is None or (old is not None and seen.base_gfn != old.base_gfn)
        if old is not None and left and change in (KvmMrChange.MOVE, KvmMrChange.DELETE):
            bars += outline((old.base_gfn, old.end_gfn), windows, "was_here", "was here")
    ghost = ghost_target(moment)
    if ghost is not None and moment.at_end:
        slot = focus_slot(moment)
        if slot is None or ghost != (slot.base_gfn, slot.end_gfn):
            bars += outline(ghost, windows, "new_uncommitted", "composed: where it would go")
    return bars
