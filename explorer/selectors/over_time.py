"""Slots over time: a bar for each slot at a place, from the operation that made it to the one that took it away.

Of a long run a window around the cursor is shown, and a line of the whole run says what lies outside: refused calls
and MOVEs are counted wherever they are. Read next: `time_rows`, `time_words`.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from itertools import pairwise
from typing import TYPE_CHECKING, Literal, NamedTuple

from explorer.engine.commands import SetMemoryRegion
from explorer.engine.types import PAGE_SHIFT
from explorer.engine.uapi import KVM_MEM_LOG_DIRTY_PAGES, KVM_MEM_READONLY, KvmMrChange
from explorer.explain.words import hex_text, plural, size_text
from explorer.history.lives import NOTHING
from explorer.selectors.style import flags_words
from explorer.selectors.time_rows import Row, Rows, rows_of
from explorer.selectors.time_words import (
    Count,
    Naming,
    Recorded,
    began_words,
    counts_of,
    ended_words,
    life_hover,
    now_words,
    refused_hover,
)

if TYPE_CHECKING:
    from explorer.history import Run, Stop
    from explorer.history.lives import Life, Lives

__all__ = [
    "WHOLE_UP_TO",
    "LifeRow",
    "TimeBar",
    "TimeGap",
    "TimeLine",
    "TimeMark",
    "TimeRiser",
    "TimeView",
    "moved_to",
    "select_over_time",
]

WHOLE_UP_TO = 480
"""Operations up to which a run is shown whole; each has two pixels then."""
_WINDOWS = (240, 120, 60, 30)
_MOST_MARKS = 1500
_LINE = 40.0
"""Room for the line of the whole run."""
_LINE_PARTS = 200
_MARK = 13.0
"""Marks nearer than this are one."""
_CHAR = 7.5
_TICK_ROOM = 15.0
_LABEL_ROOM = 12.5
_MOST_TOLD = 200
"""Lives told in words."""


class TimeBar(NamedTuple):
    """A slot at a place, in pixels from the top left corner of the chart."""

    style: str
    x0: float
    x1: float
    top: float
    bottom: float
    hover: str
    label: str = ""
    label_x: float = 0.0


class TimeGap(NamedTuple):
    """A collapsed hole."""

    top: float
    bottom: float
    size: str
    """Empty where there is no room for it."""


class TimeRiser(NamedTuple):
    """A line from where host memory was to where it is."""

    kind: Literal["recreated", "moved"]
    xs: tuple[float, ...]
    ys: tuple[float, ...]


class TimeMark(NamedTuple):
    """A refused call at the place it asked for, or a MOVE at the place it led to; or several so near as to be one."""

    kind: Literal["rejected", "move"]
    x: float
    y: float
    ops: tuple[int, ...]
    hover: str


class TimeLine(NamedTuple):
    """The whole run on one line."""

    parts: tuple[tuple[float, float, float], ...]
    """From, to, and how many slots there are at most, as a share of the most there ever are."""
    most: str
    refused: tuple[float, ...]
    moved: tuple[float, ...]
    window: tuple[float, float]


class LifeRow(NamedTuple):
    """One life in words."""

    slot: str
    place: str
    size: str
    flags: str
    began: str
    ended: str


class TimeView(NamedTuple):
    """Everything the tab shows."""

    notice: str
    """Why there is nothing to show, or empty."""
    where: str
    """Which operations are shown."""
    outside: str
    """What is not shown, or not on its own; empty if nothing."""
    now: str
    """What the operation at the cursor did."""
    counts: tuple[Count, ...]
    spaces: tuple[tuple[int, str, bool], ...]
    """Address spaces to choose from, if there are several: number, title, whether it is shown."""
    first: int = 0
    last: int = 0
    """Operations shown, half-open, from 0."""
    tried: tuple[tuple[int, int], ...] = ()
    """Windows that were too full, and the one shown."""
    ops: int = 0
    width: float = 0.0
    height: float = 0.0
    """Of the chart, without the line of the whole run."""
    at: float = 0.0
    """Where the cursor is."""
    gaps: tuple[TimeGap, ...] = ()
    bars: tuple[TimeBar, ...] = ()
    risers: tuple[TimeRiser, ...] = ()
    marks: tuple[TimeMark, ...] = ()
    addresses: tuple[tuple[float, str], ...] = ()
    ticks: tuple[tuple[float, str], ...] = ()
    line: TimeLine | None = None
    rows: tuple[LifeRow, ...] = ()
    rows_note: str = ""

    @property
    def sentence(self) -> str:
        """What a screen reader says of the picture."""
        return f"Slots over time, {self.where}. {self.outside}".rstrip()


def select_over_time(
    run: Run,
    stop: Stop,
    *,
    as_id: int = 0,
    room: tuple[float, float] = (970, 560),
    naming: Naming | None = None,
    log: Recorded | None = None,
) -> TimeView:
    """Return the slots of an address space over time.

    Parameters
    ----------
    run, stop
        The run and the place in it that the window is around.
    as_id
        Address space; one that the VM does not have is the first.
    room
        Width and height in pixels for chart and line, names of the axes not counted.
    naming
        Who owns a slot.
    log
        How the results of an imported log compare with the model's.
    """
    lives, naming = run.lives, naming or Naming()
    as_id = as_id if as_id < len(run.start.memslots) else 0
    base = TimeView("", "", "", now_words(run, stop.op), counts_of(run, log), _spaces(run, as_id), ops=len(run))
    if not len(run):
        return base._replace(notice="No operation yet. Each slot becomes a bar here, from the operation that makes it.")
    if not any(life.as_id == as_id for life in lives.lives) and not _refused_in(run, as_id, 0, len(run)):
        return base._replace(notice="No operation of this run makes a slot in this address space.")
    width, height = room[0], room[1] - (_LINE if len(run) > WHOLE_UP_TO else 0)
    tried = []
    for first, last in _windows(len(run), stop.op):
        tried.append((first, last))
        shown = _in_window(lives, as_id, first, last)
        changing = [n for n in shown if lives.lives[n].first >= first or lives.ends[n] < last]
        still = [n for n in shown if not (lives.lives[n].first >= first or lives.ends[n] < last)]
        asked = (_asked_for(run, op) for op in _refused_in(run, as_id, first, last))
        beyond = max((gfn for gfn in asked if gfn is not None), default=0)
        rows = rows_of([lives.lives[n] for n in changing], [lives.lives[n] for n in still], height, beyond=beyond)
        if rows.fits and 2 * len(changing) + len(still) <= _MOST_MARKS:
            break
    chart = _Chart(run, as_id, (first, last), width, rows, naming)
    bars = chart.bars(changing, still)
    risers, marks = chart.risers(changing), (*chart.moves(), *chart.refused())
    told, more = _told(run, naming, shown, stop.op)
    return base._replace(
        where=_where(first, last, len(run)),
        outside=_outside(run, (first, last), marks, rows),
        first=first,
        last=last,
        tried=tuple(tried),
        width=width,
        height=height,
        at=chart.cursor(stop.op),
        gaps=_gaps(rows),
        bars=_labelled(bars, risers, marks),
        risers=risers,
        marks=marks,
        addresses=_addresses(rows),
        ticks=_ticks(first, last, chart.column),
        line=_line(run, as_id, (first, last), width) if len(run) > WHOLE_UP_TO else None,
        rows=told,
        rows_note=more,
    )


def moved_to(view: TimeView, run: Run, stop: Stop) -> TimeView | None:
    """Return the view of the same run at another stop if it shows the same operations, else None."""
    same = tuple(_windows(len(run), stop.op))[: len(view.tried)] == view.tried
    if not same or view.notice or view.ops != len(run):
        return None
    column = view.width / (view.last - view.first)
    return view._replace(now=now_words(run, stop.op), at=_cursor(stop.op, view.first, column))


# -- what is shown ---------------------------------------------------------------------------------


def _windows(ops: int, at: int) -> list[tuple[int, int]]:
    """Return the windows around an operation, from the widest; they move on by a quarter of their width."""
    if ops <= WHOLE_UP_TO:
        return [(0, ops)]
    found = []
    for wide in _WINDOWS:
        first = (at - wide // 2) // (wide // 4) * (wide // 4)
        first = max(0, min(first, ops - wide))
        found.append((first, first + wide))
    return found


def _in_window(lives: Lives, as_id: int, first: int, last: int) -> list[int]:
    end = bisect_left(lives.lives, last, key=lambda life: life.first)
    return [n for n in range(end) if lives.ends[n] >= first and lives.lives[n].as_id == as_id]


def _spaces(run: Run, as_id: int) -> tuple[tuple[int, str, bool], ...]:
    used = sorted({life.as_id for life in run.lives.lives} | {as_id})
    words = {0: "memory", 1: "SMM"}
    return tuple((n, f"{n}: {words.get(n, '')}", n == as_id) for n in used) if len(used) > 1 else ()


def _between(ops: tuple[int, ...], first: int, last: int) -> tuple[int, ...]:
    return ops[bisect_left(ops, first) : bisect_left(ops, last)]


def _refused_in(run: Run, as_id: int, first: int, last: int) -> tuple[int, ...]:
    found = _between(run.lives.refused, first, last)
    return tuple(op for op in found if _space_of(run, op) in (as_id, None))


def _moved_in(run: Run, as_id: int, first: int, last: int) -> tuple[int, ...]:
    found = _between(run.lives.of(KvmMrChange.MOVE), first, last)
    return tuple(op for op in found if _space_of(run, op) == as_id)


def _space_of(run: Run, op: int) -> int | None:
    """Return the address space a region call is for; None for other operations and for spaces there are not."""
    command = run.commands[op]
    there = isinstance(command, SetMemoryRegion) and command.as_id < len(run.start.memslots)
    return command.as_id if there and isinstance(command, SetMemoryRegion) else None


def _where(first: int, last: int, ops: int) -> str:
    if last - first == ops:
        return f"all {ops:,} operations" if ops > 1 else "one operation"
    return f"operations {first + 1:,} to {last:,} of {ops:,}"


def _outside(run: Run, window: tuple[int, int], marks: tuple[TimeMark, ...], rows: Rows) -> str:
    """Return what is not shown or shares a mark: nothing is left out in silence."""
    told = []
    for kind, ops, one, many in (
        ("rejected", run.lives.refused, "refused", "octagons"),
        ("move", run.lives.of(KvmMrChange.MOVE), "moved", "arrows"),
    ):
        inside = _between(ops, *window)
        drawn = [mark for mark in marks if mark.kind == kind]
        here = sum(len(mark.ops) for mark in drawn)
        if here > len(drawn):
            told.append(f"{here:,} {one} in {len(drawn):,} {many}")
        if len(inside) > here:
            told.append(f"{len(inside) - here:,} {one} in another address space")
        if len(ops) > len(inside):
            told.append(f"{len(ops) - len(inside):,} {one} outside the window")
    packed = sum(row.slots for row in rows.rows)
    if packed:
        told.append(f"{packed:,} slots that do not change here share bars")
    return f"{'; '.join(told)}." if told else ""


# -- the chart -------------------------------------------------------------------------------------


def _cursor(op: int, first: int, column: float) -> float:
    """Return the place of the end of an operation: the middle of its column, or the edge before the first."""
    return max(op - first + 0.5, 0.0) * column


class _Chart:
    def __init__(self, run: Run, as_id: int, window: tuple[int, int], width: float, rows: Rows, naming: Naming) -> None:
        self.run, self.lives, self.as_id = run, run.lives, as_id
        self.first, self.last = window
        self.column = width / (self.last - self.first)
        self.rows, self.naming = rows, naming

    def x(self, op: int) -> float:
        return (min(max(op, self.first), self.last) - self.first) * self.column

    def cursor(self, op: int) -> float:
        return _cursor(op, self.first, self.column)

    def bars(self, changing: list[int], still: list[int]) -> list[tuple[TimeBar, tuple[str, ...]]]:
        """Return the bars, each with what could be written on it, the longest first."""
        packed = [row for row in self.rows.rows if row.kind == "packed"]
        own = [n for n in still if not packed or self._row(n).kind != "packed"]
        found = [self._bar(n) for n in (*own, *changing) if self.lives.ends[n] > self.first]
        return [*(self._pack(row) for row in packed), *found]

    def _row(self, number: int) -> Row:
        row = self.rows.at(self.lives.lives[number].base_gfn)
        assert row is not None, "a life has rows of its own"
        return row

    def _bar(self, number: int) -> tuple[TimeBar, tuple[str, ...]]:
        life = self.lives.lives[number]
        top, bottom = self.rows.span(life)
        x0, x1 = self.x(life.first), self.x(self.lives.ends[number])
        owner, size = self.naming.owner(life), size_text(life.npages << PAGE_SHIFT)
        name = owner or f"slot {life.slot}"
        hover = life_hover(self.run, self.naming, number)
        return TimeBar(_style(life), x0, max(x1, x0 + 1.5), top, bottom, hover), (f"{name}, {size}", name)

    def _pack(self, row: Row) -> tuple[TimeBar, tuple[str, ...]]:
        words = f"{plural(row.slots, 'slot')} that do not change here"
        place = f"{hex_text(row.first_gfn << PAGE_SHIFT)} to {hex_text((row.end_gfn << PAGE_SHIFT) - 1)}"
        bar = TimeBar("packed", 0, self.x(self.last), row.top, row.bottom, f"<b>{words}</b><br>gpa {place}")
        return bar, (words, plural(row.slots, "slot"))

    def risers(self, changing: list[int]) -> tuple[TimeRiser, ...]:
        found = []
        for number in changing:
            life = self.lives.lives[number]
            change = self.run.outcomes[life.first].change if life.first >= self.first else None
            if life.before == NOTHING or change not in (KvmMrChange.CREATE, KvmMrChange.MOVE):
                continue
            old = self.lives.lives[life.before]
            ended = self.lives.ends[life.before]
            if ended < self.first:
                continue
            x0, x1 = self.x(ended), self.x(life.first)
            y0, y1 = (sum(self.rows.span(each)) / 2 for each in (old, life))
            kind: Literal["recreated", "moved"] = "moved" if change is KvmMrChange.MOVE else "recreated"
            found.append(TimeRiser(kind, (x0, x1, x1), (y0, y0, y1)))
        return tuple(found)

    def moves(self) -> tuple[TimeMark, ...]:
        spots = []
        for op in _moved_in(self.run, self.as_id, self.first, self.last):
            life = self.lives.lives[bisect_left(self.lives.lives, op, key=lambda life: life.first)]
            spots.append((op, self.x(op), sum(self.rows.span(life)) / 2))
        return tuple(
            TimeMark("move", x, y, ops, "<br>".join(now_words(self.run, op) for op in ops[:6]))
            for x, y, ops in _together(spots)
        )

    def refused(self) -> tuple[TimeMark, ...]:
        spots = [
            (op, self.cursor(op), self._asked(op)) for op in _refused_in(self.run, self.as_id, self.first, self.last)
        ]
        return tuple(TimeMark("rejected", x, y, ops, refused_hover(self.run, ops)) for x, y, ops in _together(spots))

    def _asked(self, op: int) -> float:
        """Return the height of the place that a refused call asked for; what asks for none is at the bottom."""
        gfn, bottom = _asked_for(self.run, op), self.rows.rows[0].bottom
        y = self.rows.middle(gfn) if gfn is not None else bottom
        return min(max(y, _MARK / 2), bottom - _MARK / 2)


def _asked_for(run: Run, op: int) -> int | None:
    """Return the first gfn a refused call asked for; None for a DELETE and for what is no region call."""
    command = run.commands[op]
    asks = isinstance(command, SetMemoryRegion) and command.memory_size
    return command.guest_phys_addr >> PAGE_SHIFT if asks and isinstance(command, SetMemoryRegion) else None


def _style(life: Life) -> str:
    if life.flags & KVM_MEM_READONLY:
        return "read_only"
    return "dirty" if life.flags & KVM_MEM_LOG_DIRTY_PAGES else "slot"


def _together(spots: list[tuple[int, float, float]]) -> list[tuple[float, float, tuple[int, ...]]]:
    """Return marks that would lie on each other as one, with all their operations."""
    cells: dict[tuple[int, int], list[tuple[int, float, float]]] = {}
    for op, x, y in spots:
        cells.setdefault((int(x / _MARK), int(y / _MARK)), []).append((op, x, y))
    return [
        (sum(x for _, x, _ in cell) / len(cell), sum(y for _, _, y in cell) / len(cell), tuple(op for op, _, _ in cell))
        for cell in cells.values()
    ]


# -- words on the chart ----------------------------------------------------------------------------


def _labelled(
    bars: list[tuple[TimeBar, tuple[str, ...]]], risers: tuple[TimeRiser, ...], marks: tuple[TimeMark, ...]
) -> tuple[TimeBar, ...]:
    """Write on each bar the longest of its names that has room beside lines and marks."""
    lines = sorted((riser.xs[-1], min(riser.ys), max(riser.ys)) for riser in risers)
    spots = sorted((mark.x, mark.y) for mark in marks)
    labelled = []
    for bar, names in bars:
        if bar.bottom - bar.top >= _LABEL_ROOM:
            for name in names:
                x = _room_on(bar, len(name) * _CHAR + 10, lines, spots)
                if x is not None:
                    bar = bar._replace(label=name, label_x=x)  # noqa: PLW2901 - the same bar, with its name
                    break
        labelled.append(bar)
    return tuple(labelled)


def _room_on(
    bar: TimeBar, wide: float, lines: list[tuple[float, float, float]], spots: list[tuple[float, float]]
) -> float | None:
    """Return the middle of a stretch of a bar that no line and no mark crosses; None if there is none."""
    if bar.x1 - bar.x0 < wide:
        return None
    middle = (bar.top + bar.bottom) / 2
    crossing = [
        x
        for x, top, bottom in lines[bisect_left(lines, (bar.x0,)) : bisect_right(lines, (bar.x1,))]
        if top < middle + 9 and bottom > middle - 9
    ]
    crossing += [
        x for x, y in spots[bisect_left(spots, (bar.x0,)) : bisect_right(spots, (bar.x1,))] if abs(y - middle) < 16
    ]
    edges = sorted([bar.x0, *crossing, bar.x1])
    # The widest stretch between what crosses; marks are wider than lines.
    room, x = max((right - left, (left + right) / 2) for left, right in pairwise(edges))
    return x if room >= wide + (10 if crossing else 0) else None


def _gaps(rows: Rows) -> tuple[TimeGap, ...]:
    """Return the holes between slots; the largest have their size, as far as there is room."""
    holes = [row for row in rows.rows if row.kind == "gap"]
    taken: list[float] = []
    sizes = {}
    for row in sorted(holes, key=lambda row: row.first_gfn - row.end_gfn):
        if all(abs(row.middle - y) >= _TICK_ROOM for y in taken):
            taken.append(row.middle)
            beyond = row is rows.rows[-1]
            sizes[row] = "beyond" if beyond else size_text((row.end_gfn - row.first_gfn) << PAGE_SHIFT)
    return tuple(TimeGap(row.top, row.bottom, sizes.get(row, "")) for row in holes)


def _addresses(rows: Rows) -> tuple[tuple[float, str], ...]:
    """Return where slots begin, tall rows first, as far as there is room."""
    taken: list[tuple[float, str]] = []
    starts = [row for row in rows.rows if row.kind != "gap"]
    for row in sorted(starts, key=lambda row: (row is not starts[0], row.top - row.bottom)):
        y = row.bottom - min((row.bottom - row.top) / 2, 7)
        if all(abs(y - other) >= _TICK_ROOM for other, _ in taken):
            taken.append((y, hex_text(row.first_gfn << PAGE_SHIFT)))
    return tuple(sorted(taken))


def _ticks(first: int, last: int, column: float) -> tuple[tuple[float, str], ...]:
    """Return numbers of operations, at least 60 pixels apart."""
    step = next(s for s in (1, 2, 5, 10, 20, 50, 100, 200, 500) if s * column >= 60 or s == 500)
    numbers = [n for n in range(first + 1, last + 1) if n % step == 0 or n == first + 1]
    if len(numbers) > 1 and (numbers[1] - numbers[0]) * column < 45:
        numbers.pop(1)
    ticks = (((n - first - 0.5) * column, f"{n:,}") for n in numbers)
    return tuple((x, text) for x, text in ticks if x > (len(text) - 1) * 3.5 - 4)  # the axis is named on its left


def _line(run: Run, as_id: int, window: tuple[int, int], width: float) -> TimeLine:
    """Return the whole run on one line: how many slots there are, what was refused, what was moved."""
    lives, ops = run.lives, len(run)
    begun, ended = [0] * (ops + 1), [0] * (ops + 1)
    for life, end in zip(lives.lives, lives.ends, strict=True):
        if life.as_id == as_id:
            begun[life.first + 1] += 1
            if end <= ops:
                ended[end + 1] += 1
    there, now = [], 0
    for n in range(ops + 1):
        now += begun[n] - ended[n]
        there.append(now)
    most = max(there)
    per = ops / _LINE_PARTS
    wide = width / _LINE_PARTS
    parts = tuple(
        (n * wide, (n + 1) * wide, max(there[int(n * per) : int((n + 1) * per) + 1]) / (most or 1))
        for n in range(_LINE_PARTS)
    )

    def places(found: tuple[int, ...]) -> tuple[float, ...]:
        return tuple(sorted({(int(op / per) + 0.5) * wide for op in found}))

    return TimeLine(
        parts,
        f"up to {most:,}",
        places(_refused_in(run, as_id, 0, ops)),
        places(_moved_in(run, as_id, 0, ops)),
        (window[0] / ops * width, window[1] / ops * width),
    )


# -- the same in words -----------------------------------------------------------------------------


def _told(run: Run, naming: Naming, shown: list[int], at: int) -> tuple[tuple[LifeRow, ...], str]:
    """Return the lives nearest to the cursor, in order, and how many are not told."""
    lives = run.lives

    def away(number: int) -> int:
        return max(lives.lives[number].first - at, at - lives.ends[number], 0)

    near = sorted(sorted(shown, key=away)[:_MOST_TOLD])
    rows = tuple(_life_row(run, naming, number) for number in near)
    more = len(shown) - len(near)
    return rows, f"and {more:,} more, further away" if more else ""


def _life_row(run: Run, naming: Naming, number: int) -> LifeRow:
    life, end = run.lives.lives[number], run.lives.ends[number]
    owner = naming.owner(life)
    return LifeRow(
        f"slot {life.slot}" + (f", {owner}" if owner else ""),
        hex_text(life.base_gfn << PAGE_SHIFT),
        size_text(life.npages << PAGE_SHIFT),
        flags_words(life.flags),
        began_words(run, life),
        ended_words(run, end),
    )
