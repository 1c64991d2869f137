"""The lanes of the detail: slots, watches, huge pages, host memory; or one slot before, during and after.

Vertical positions are fractions of a lane, 0 at its foot. A mark's meaning is its kind; colour comes later.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Literal, NamedTuple

from explorer.engine.commands import SetMemoryRegion
from explorer.engine.lookup import slots_in_gfn_range
from explorer.engine.state import LpageInfo, LpageLevel, WriteTrack
from explorer.engine.types import PAGE_SHIFT, PG_LEVEL_2M
from explorer.engine.uapi import KvmMrChange
from explorer.explain.ledger import Watch, ledger_of, watches_of
from explorer.explain.words import hex_text, pages_text, plural, size_text
from explorer.explain.xray import in_the_way_of, in_the_way_of_next
from explorer.selectors.style import slot_hover, style_of

if TYPE_CHECKING:
    from explorer.engine.state import Kvm, KvmMemorySlot
    from explorer.explain.xray import InTheWay
    from explorer.history.moment import Moment
    from explorer.selectors.gpa_map import Window

__all__ = ["Bar", "Label", "Lane", "Mark", "Ribbon", "lanes_of"]

MarkKind = Literal["internal", "external", "returned", "lost"]
PAGES_DIVIDED = 64
"""Most pages that are drawn with a line between each two."""
SPACING = 25.0
"""Least distance between two marks, in pixels."""
MARKS = 24
"""Most marks in a lane; more are drawn as one mark with their number."""
HUGE_BARS = 10


class Bar(NamedTuple):
    """A stretch of pages."""

    x0: float
    x1: float
    style: str
    """Role of the fill."""
    label: str
    hover: str
    y0: float = 0.25
    y1: float = 0.75
    dividers: tuple[float, ...] = ()
    refused: bool = False
    """Whether an octagon stands at its head."""


class Mark(NamedTuple):
    """A watch, or several of one kind on pages that lie too close to tell apart."""

    x: float
    kind: MarkKind
    true_x: float
    """Where its page is; a stem leads there if the mark had to step aside."""
    hover: str
    y: float = 0.5


class Label(NamedTuple):
    """Words in a lane."""

    x: float
    y: float
    text: str
    role: str
    anchor: Literal["left", "center", "right"] = "center"
    size: Literal["body", "title", "small"] = "body"
    bold: bool = False


class Ribbon(NamedTuple):
    """Which host addresses back which guest pages."""

    top0: float
    top1: float
    bottom0: float
    bottom1: float
    dotted: bool


class Lane(NamedTuple):
    """One row of the detail."""

    name: str
    sub: str
    bars: tuple[Bar, ...] = ()
    marks: tuple[Mark, ...] = ()
    labels: tuple[Label, ...] = ()
    ribbons: tuple[Ribbon, ...] = ()
    brackets: tuple[tuple[float, float, float], ...] = ()
    """Braces under a group of marks: from, to, height."""
    frames: tuple[tuple[float, float, str], ...] = ()
    """Edges around the parts of slots that are in the way: from, to, and what a pointer reads."""
    stem_from: float = 1.0
    """Height from which stems of marks come down."""
    rule_below: bool = False
    """Whether a dashed line divides this lane from the next."""


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
            return _before_during_after(moment, windows)
    lanes = [_slots(moment, windows), _watches(moment, windows), _huge_pages(moment, windows)]
    if host_lane:
        lanes.append(_host(moment, windows))
    return tuple(lanes)


# -- the newcomer's lane ---------------------------------------------------------------------------


def _opening(moment: Moment, windows: tuple[Window, ...]) -> Lane:
    slot = _focus_slot(moment)
    if slot is None:
        return Lane("", "")
    window = windows[0]
    bars = [_slot_bar(slot, window, label="", y0=0.58, y1=0.9, divide=True)]
    labels: list[Label] = []
    target = _ghost_target(moment)
    if target is not None and (target[0], target[1]) != (slot.base_gfn, slot.end_gfn):
        bars.append(
            Bar(window.at(target[0]), window.at(target[1]), "new_uncommitted", "", "where it would go", 0.55, 0.93)
        )
        shift = target[0] - slot.base_gfn
        sign = "+" if shift > 0 else "\N{MINUS SIGN}"
        x = window.at(max(target[1], slot.end_gfn)) + 8
        labels += [
            Label(x, 0.78, f"{sign}{pages_text(abs(shift))}", "new_line", "left", bold=True),
            Label(x, 0.69, "if moved", "new_line", "left", "small"),
        ]
    watches = watches_of(moment.kvm, slot)
    marks = _marks(watches, (window,), y=0.74, spread=False)
    brackets: list[tuple[float, float, float]] = []
    if marks:
        left, right = marks[0].x, marks[-1].x
        brackets.append((left - 8, right + 8, 0.53))
        labels += [
            Label((left + right) / 2, 0.36, plural(len(watches), "watched page"), "internal", size="title", bold=True),
            Label((left + right) / 2, 0.24, "the guest’s upper page tables, one shadow page each", "ink_2"),
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


def _focus_slot(moment: Moment) -> KvmMemorySlot | None:
    focus = moment.focus
    if focus is None or focus.as_id >= len(moment.kvm.memslots):
        return None
    return moment.kvm.slot(focus.slot_id, focus.as_id)


def _ghost_target(moment: Moment) -> tuple[int, int] | None:
    ghost = moment.ghost
    if ghost is None or not isinstance(ghost.command, SetMemoryRegion) or not ghost.command.memory_size:
        return None
    start = ghost.command.guest_phys_addr >> PAGE_SHIFT
    return (start, start + (ghost.command.memory_size >> PAGE_SHIFT))


# -- the usual lanes -------------------------------------------------------------------------------


def _slot_bar(
    slot: KvmMemorySlot,
    window: Window,
    *,
    label: str,
    style: str | None = None,
    y0: float = 0.25,
    y1: float = 0.75,
    divide: bool = False,
) -> Bar:
    start, end = max(slot.base_gfn, window.first_gfn), min(slot.end_gfn, window.end_gfn)
    dividers = tuple(window.at(gfn) for gfn in range(start + 1, end)) if divide and slot.npages <= PAGES_DIVIDED else ()
    return Bar(window.at(start), window.at(end), style or style_of(slot), label, slot_hover(slot, {}), y0, y1, dividers)


def _slots(moment: Moment, windows: tuple[Window, ...]) -> Lane:
    """Draw what readers find, and dotted what an update or the composed operation adds to it."""
    as_id = moment.focus.as_id if moment.focus is not None else 0
    bars: list[Bar] = []
    for window in windows:
        found = tuple(slots_in_gfn_range(moment.kvm.active(as_id), window.first_gfn, window.end_gfn))
        for slot in found[:200]:
            label = f"slot {slot.id}, INVALID" if slot.invalid else f"slot {slot.id}"
            bars.append(_fitting(_slot_bar(slot, window, label=label)))
    ways = tuple(way for way in in_the_way_of(moment) if way.slot.as_id == as_id) if moment.on_call else ()
    if ways and moment.target is not None:
        return _in_the_way(moment.target, ways, bars, windows, "asked for, refused: nothing was built here")
    ghost = _ghost_target(moment)
    composed = tuple(way for way in in_the_way_of_next(moment) if way.slot.as_id == as_id)
    if composed and ghost is not None:
        return _in_the_way(ghost, composed, bars, windows, "composed: it would be refused")
    labels: list[Label] = []
    for outline in _planned(moment, windows):
        covering = [bar for bar in bars if bar.x0 < outline.x1 and outline.x0 < bar.x1]
        if not covering:
            bars.append(outline)
            continue
        # Words inside would run into the slot's own: they go beside, if there is room.
        bars.append(outline._replace(label=""))
        end = max([outline.x1, *(bar.x1 for bar in covering)])
        text = outline.label.partition(":")[0]
        room = max(window.x1 for window in windows if window.x0 <= outline.x0) - end
        if outline.label and room > len(text) * 7:
            role = "ink_3" if outline.style == "was_here" else "new_line"
            labels.append(Label(end + 8, 0.7 - 0.4 * len(labels), text, role, "left", "small"))
    if len(labels) == 1:
        labels[0] = labels[0]._replace(y=0.5)
    labels += _holes(windows, bars)
    return Lane("Slots", "what readers see", tuple(bars), labels=tuple(labels))


def _in_the_way(
    target: tuple[int, int], ways: tuple[InTheWay, ...], bars: list[Bar], windows: tuple[Window, ...], words: str
) -> Lane:
    """Draw the slots above, and below them the place that was asked for, with what is taken of it."""
    upper = [bar._replace(y0=0.56, y1=0.94) for bar in bars]
    asked = _outline(target, windows, "refused_target", words)
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
            bars += _outline(target, windows, "new_uncommitted", label)
        left = seen is None or (old is not None and seen.base_gfn != old.base_gfn)
        if old is not None and left and change in (KvmMrChange.MOVE, KvmMrChange.DELETE):
            bars += _outline((old.base_gfn, old.end_gfn), windows, "was_here", "was here")
    ghost = _ghost_target(moment)
    if ghost is not None and moment.at_end:
        slot = _focus_slot(moment)
        if slot is None or ghost != (slot.base_gfn, slot.end_gfn):
            bars += _outline(ghost, windows, "new_uncommitted", "composed: where it would go")
    return bars


def _holes(windows: tuple[Window, ...], bars: list[Bar]) -> list[Label]:
    """Say so in a window where nothing is: it is a hole."""
    empty = [w for w in windows if not any(bar.x0 < w.x1 and w.x0 < bar.x1 for bar in bars)]
    return [Label((w.x0 + w.x1) / 2, 0.5, "hole", "ink_3") for w in empty]


def _outline(span: tuple[int, int], windows: tuple[Window, ...], style: str, label: str) -> list[Bar]:
    for window in windows:
        if window.first_gfn <= span[0] and span[1] <= window.end_gfn:
            hover = f"gfn {hex_text(span[0])} to {hex_text(span[1] - 1)}<br>{label}"
            return [_fitting(Bar(window.at(span[0]), window.at(span[1]), style, label, hover, 0.2, 0.8))]
    return []


def _fitting(bar: Bar) -> Bar:
    """Shorten a label to its bar: the words before the comma, then nothing."""
    for label in (bar.label, bar.label.partition(":")[0], bar.label.partition(",")[0]):
        if len(label) * 7.6 + 12 < bar.x1 - bar.x0:
            return bar._replace(label=label)
    return bar._replace(label="")


def _watches(moment: Moment, windows: tuple[Window, ...]) -> Lane:
    """Draw the watches of the slot the operation is about, each with its fate so far."""
    ledger = ledger_of(moment)
    slot = _focus_slot(moment)
    labels: list[Label] = []
    watches = (
        ledger.watches
        if ledger is not None and moment.old is not None and moment.on_call
        else watches_of(moment.kvm, slot)
    )
    marks = _marks(watches, windows, y=0.45)
    labels += _mark_labels(watches, marks, windows)
    new = _new_slot(moment)
    if new is not None:
        array = moment.kvm.heap.get(new.arch.gfn_write_track) if new.arch.gfn_write_track is not None else None
        for window in windows:
            inside = window.first_gfn <= new.base_gfn and new.end_gfn <= window.end_gfn
            if inside and isinstance(array, WriteTrack) and not array.counts and (len(windows) > 1 or not watches):
                middle = (window.at(new.base_gfn) + window.at(new.end_gfn)) / 2
                labels.append(Label(middle, 0.45, f"none: {new.npages:,} zeros", "ink_3"))
    if not watches and not labels:
        text = "none" if slot is None or slot.arch.gfn_write_track is not None else "no counts: write tracking is off"
        labels.append(Label((windows[0].x0 + windows[0].x1) / 2, 0.45, text, "ink_3"))
    return Lane("Watches", "count per page", (), marks, tuple(labels))


def _new_slot(moment: Moment) -> KvmMemorySlot | None:
    """Return the new slot object of a MOVE or CREATE once it has arrays."""
    if moment.change not in (KvmMrChange.MOVE, KvmMrChange.CREATE) or moment.op is None or not moment.on_call:
        return None
    pending = moment.kvm.pending
    if pending is not None:
        return pending.new if pending.new is not None and pending.new.arch.lpage_info is not None else None
    return _focus_slot(moment) if moment.op.step.errno is None else None


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

    returned = sum(1 for w in watches if (w.by, w.fate) == ("shadow paging", "returned"))
    dropped = sum(1 for w in watches if (w.by, w.fate) == ("tracker", "returned"))
    lost = sum(1 for w in watches if w.fate == "lost")
    last = max(marks, key=lambda mark: mark.x)
    first = next((at for at, mark in enumerate(marks) if mark.kind == "external"), None)
    if first is not None and marks[first].x - (marks[first - 1].x if first else 0) > 76:
        labels.append(Label(marks[first].x - 16, 0.45, "tracker", "external", "right"))
    for mark, after in itertools.pairwise(marks):
        if mark.kind == "external" and after.x - mark.x > 60:
            labels.append(Label(mark.x + 16, 0.45, "1", "external", "left", bold=True))
    told = ((returned, "returned"), (dropped, "dropped by the tracker"), (lost, "lost"))
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


def _marks(
    watches: tuple[Watch, ...], windows: tuple[Window, ...], *, y: float, spread: bool = True
) -> tuple[Mark, ...]:
    """Place a mark for each watch, stepping aside where pages lie closer than marks are wide."""
    placed: list[tuple[float, MarkKind, str]] = []
    for watch in watches[: 4 * MARKS]:
        for window in windows:
            if window.first_gfn <= watch.gfn < window.end_gfn:
                kind: MarkKind = (
                    "returned"
                    if watch.fate == "returned"
                    else "lost"
                    if watch.fate == "lost"
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
    xs = _apart([x for x, _, _ in placed], windows)
    return tuple(Mark(x, kind, true, hover, y) for x, (true, kind, hover) in zip(xs, placed, strict=True))


def _fate_text(watch: Watch) -> str:
    if (watch.by, watch.fate) == ("tracker", "returned"):
        return "dropped by the tracker’s own callback"
    return {
        "held": "the count is in the array",
        "returned": "taken back by who asked",
        "lost": "lost with the old array",
    }[watch.fate]


def _apart(xs: list[float], windows: tuple[Window, ...]) -> list[float]:
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


def _huge_pages(moment: Moment, windows: tuple[Window, ...]) -> Lane:
    """Say for each 2 MiB frame whether a huge page may map it, and if not, what forbids it."""
    bars: list[Bar] = []
    as_id = moment.focus.as_id if moment.focus is not None else 0
    shown = [
        slot
        for window in windows
        for slot in tuple(slots_in_gfn_range(moment.kvm.active(as_id), window.first_gfn, window.end_gfn))[:8]
    ]
    new = _new_slot(moment)
    if new is not None and all((s.base_gfn, s.npages) != (new.base_gfn, new.npages) for s in shown):
        shown.append(new)
    for window in windows:
        for slot in shown:
            found = _huge_bars(moment.kvm, slot, window)
            over = [at for at, bar in enumerate(bars) if any(bar.x0 < b.x1 and b.x0 < bar.x1 for b in found)]
            if over:  # old and new arrays over the same pages: one above the other
                for at in over:
                    bars[at] = bars[at]._replace(y0=0.54, y1=0.94, label=f"old: {bars[at].label}")
                found = [bar._replace(y0=0.06, y1=0.46, label=f"new: {bar.label}") for bar in found]
            bars += found
    return Lane("2 MiB pages", "disallow_lpage", tuple(_fitting(bar) for bar in bars[: 4 * HUGE_BARS]))


def _huge_bars(kvm: Kvm, slot: KvmMemorySlot, window: Window) -> list[Bar]:
    info = kvm.heap.get(slot.arch.lpage_info) if slot.arch.lpage_info is not None else None
    start, end = max(slot.base_gfn, window.first_gfn), min(slot.end_gfn, window.end_gfn)
    if not isinstance(info, LpageInfo) or start >= end:
        return []
    level = info.levels[PG_LEVEL_2M - 2]
    frames = range(start >> 9, ((end - 1) >> 9) + 1)
    if len(frames) > HUGE_BARS:
        return _huge_runs(kvm, slot, window, level, frames)
    bars = []
    for frame in frames:
        x0, x1 = (
            window.at(max(frame << 9, window.first_gfn, start)),
            window.at(min((frame + 1) << 9, window.end_gfn, end)),
        )
        text = _huge_text(kvm, slot, level, frame)
        style = "huge_yes" if text == "yes" else "huge_no"
        bars.append(Bar(x0, x1, style, text, f"2 MiB frame at gfn {hex_text(frame << 9)}<br>{text}", 0.28, 0.72))
    return bars


def _huge_runs(kvm: Kvm, slot: KvmMemorySlot, window: Window, level: LpageLevel, frames: range) -> list[Bar]:
    """Draw neighbouring frames with one answer as one bar; a single forbidden frame stays visible."""
    base = slot.base_gfn >> 9
    special = {0, level.n - 1} | {index for index, _ in level.added.items()}
    edges = sorted(
        {frames.start} | {f for i in special for f in (base + i, base + i + 1) if frames.start <= f < frames.stop}
    )
    bars = []
    for at, first in enumerate(edges):
        last = edges[at + 1] if at + 1 < len(edges) else frames.stop
        text = _huge_text(kvm, slot, level, first)
        x0 = window.at(max(first << 9, window.first_gfn, slot.base_gfn))
        x1 = window.at(min(last << 9, window.end_gfn, slot.end_gfn))
        style = "huge_yes" if text == "yes" else "huge_no"
        label = f"{plural(last - first, 'frame')}: {text}"
        bars.append(Bar(x0, max(x1, x0 + 2), style, label, f"from gfn {hex_text(first << 9)}<br>{label}", 0.28, 0.72))
    return bars


def _huge_text(kvm: Kvm, slot: KvmMemorySlot, level: LpageLevel, frame: int) -> str:
    """Return ``yes``, or ``no`` with the terms of the counter that forbid it."""
    index = frame - (slot.base_gfn >> 9)
    if not 0 <= index < level.n:
        return "no entry"
    value = level.value(index)
    if not value:
        return "yes"
    terms = []
    if level.mark(index):
        terms.append("host misaligned 1" if level.all else ("head 1" if index == 0 and level.head else "tail 1"))
    watches = sum(1 for watch in watches_of(kvm, slot) if watch.gfn >> 9 == frame)
    tables = sum(
        1
        for page in kvm.active_mmu_pages.values()
        if page.level == 1 and page.as_id == slot.as_id and page.gfn >> 9 == frame
    )
    if watches:
        terms.append(f"watches {watches}")
    if tables:
        terms.append(f"tables {tables}")
    return "no: " + " + ".join(terms) + (f" = {value}" if len(terms) > 1 else "")


def _host(moment: Moment, windows: tuple[Window, ...]) -> Lane:
    """Draw the host memory behind the slot; a MOVE leaves it where it is."""
    slot = (moment.old if moment.on_call else None) or _focus_slot(moment)
    if slot is None:
        return Lane("Host memory", "hva", labels=(Label(windows[0].x1 / 2, 0.4, "no slot here", "ink_3"),))
    spans: list[tuple[int, int, bool]] = [(slot.base_gfn, slot.end_gfn, False)]
    target = moment.target
    if moment.change is KvmMrChange.MOVE and target is not None and moment.on_call:
        spans.append((*target, not moment.at_end))
    drawn = [
        (window.at(start), window.at(end), dotted)
        for start, end, dotted in spans
        for window in windows
        if window.first_gfn <= start and end <= window.end_gfn
    ]
    if not drawn:
        return Lane(
            "Host memory", "same hva", labels=(Label(windows[0].x1 / 2, 0.4, hex_text(slot.userspace_addr), "ink_2"),)
        )
    left, right = min(x0 for x0, _, _ in drawn), max(x1 for _, x1, _ in drawn)
    wide = min(max(x1 - x0 for x0, x1, _ in drawn), 280.0)
    x0 = (left + right) / 2 - wide / 2
    first, size = slot.userspace_addr, slot.npages << PAGE_SHIFT
    hover = (
        f"<b>host memory of slot {slot.id}</b><br>hva {hex_text(first)} to {hex_text(first + size - 1)}"
        f"<br>{size_text(size)}"
    )
    bar = Bar(x0, x0 + wide, "new_plain", hex_text(first), hover, 0.1, 0.5)
    ribbons = tuple(Ribbon(a, b, x0, x0 + wide, dotted) for a, b, dotted in drawn)
    return Lane("Host memory", "same hva" if len(drawn) > 1 else "hva", (bar,), ribbons=ribbons)


# -- before, during, after -------------------------------------------------------------------------


def _before_during_after(moment: Moment, windows: tuple[Window, ...]) -> tuple[Lane, ...]:
    """Draw a refused MOVE or DELETE as the window of time in which readers saw INVALID."""
    op, old, target = moment.op, moment.old, moment.target
    if op is None or old is None:
        return ()
    hidden = next(i for i, cell in enumerate(op.cells) if cell.swaps)
    restored = next((i for i, cell in enumerate(op.cells) if i > hidden and cell.swaps), len(op.cells) - 1)
    home = next((w for w in windows if w.first_gfn <= old.base_gfn and old.end_gfn <= w.end_gfn), windows[0])
    ledger = ledger_of(moment)
    now = ledger.watches if ledger is not None else ()
    before = tuple(w._replace(fate="held") for w in now)
    at_home = _slot_bar(old, home, label=f"slot {old.id}", y0=0.58, y1=0.96)
    slot_before = Lane(
        "Before",
        f"steps 1 to {hidden}",
        (at_home,),
        _marks(before, windows, y=0.28),
        (*_count_labels(before, windows, "shadow paging"), *_holes(windows, [at_home])),
        stem_from=0.58,
        rule_below=True,
    )
    refused_bars = _outline_refused(target, windows) if target is not None and moment.change is KvmMrChange.MOVE else []
    invalid = op.cells[hidden].kvm.slot(old.id, old.as_id)
    hidden_bar = _slot_bar(
        invalid or old, home, label=f"slot {old.id}: INVALID to every reader", style="invalid", y0=0.3, y1=0.7
    )
    if any(bar.x0 < hidden_bar.x1 and hidden_bar.x0 < bar.x1 for bar in refused_bars):
        # Asked for a place over its own: one above the other.
        hidden_bar = hidden_bar._replace(y0=0.54, y1=0.92)
        refused_bars = [bar._replace(y0=0.08, y1=0.46) for bar in refused_bars]
    during = Lane("During", f"steps {hidden + 1} to {restored}", (hidden_bar, *refused_bars), rule_below=True)
    if moment.stop.cell < restored:
        after = Lane(
            "After",
            f"step {restored + 1} on",
            labels=(Label(home.x0 + (home.x1 - home.x0) / 2, 0.5, "not yet", "ink_3"),),
        )
        return (slot_before, during, after)
    marks = _marks(now, windows, y=0.28)
    after = Lane(
        "After",
        f"step {restored + 1} on",
        (at_home._replace(label=f"slot {old.id}, back"),),
        marks,
        (*_count_labels(now, windows, "returned"), *_holes(windows, [at_home])),
        stem_from=0.58,
    )
    return (slot_before, during, after)


def _outline_refused(target: tuple[int, int], windows: tuple[Window, ...]) -> list[Bar]:
    bars = _outline(target, windows, "refused_target", "asked for, refused: nothing was built here")
    return [bar._replace(y0=0.3, y1=0.7, refused=True) for bar in bars]


def _count_labels(watches: tuple[Watch, ...], windows: tuple[Window, ...], word: str) -> list[Label]:
    """Say behind the last mark how many watches are shadow paging's; the number alone if the window ends first."""
    marks = _marks(watches, windows, y=0.28)
    own = [w for w in watches if w.by == "shadow paging"]
    if not marks or not own:
        return []
    x = max(mark.x for mark in marks) + 18
    text = f"{len(own)} {word}"
    end = next((window.x1 for window in windows if x <= window.x1), windows[-1].x1)
    fits = x + len(text) * 7.4 <= end
    return [Label(x, 0.28, text if fits else str(len(own)), "internal", "left", bold=word == "returned")]
