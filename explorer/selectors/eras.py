"""One sequence under every kernel: a ribbon of results, where kernels part, and what changes between two of them.

The window shows the operations around the cursor; the counts are of the whole run, as far as it was replayed.
Costs inside a call are not compared: two results are equal if the caller and the guest cannot tell them apart.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from explorer.engine.commands import (
    ClearDirtyLog,
    GetDirtyLog,
    GuestRead,
    GuestWrite,
    SetMemoryRegion,
    TrackGfn,
    UntrackGfn,
)
from explorer.engine.profile import PROFILES
from explorer.engine.uapi import KvmMrChange
from explorer.explain.sentences import op_words
from explorer.explain.words import count_text, errno_text, plural
from explorer.history.machine import machine_of
from explorer.history.rerun import Reruns, Result, Setting
from explorer.selectors.configurations import MERGED, POSTED
from explorer.selectors.glyphs import CHANGE_TITLES

if TYPE_CHECKING:
    from explorer.engine.commands import Command
    from explorer.history import OpDetail, Run

__all__ = ["COLUMNS", "EraCell", "EraChange", "EraColumn", "EraRow", "ErasView", "era_settings", "select_eras"]

COLUMNS = 10
"""Operations, or stacks of them, in the window."""
LISTED = 6
"""Changed results that are listed one by one."""
_SCAN = 160
"""Operations on each side of the cursor that may fill the window."""
_ACCESS = {
    "ram": ("plain", "", "memory"),
    "emulated": ("plain", "", "caught"),
    "mmio": ("exit", "", "MMIO exit"),
    "read-only": ("exit", "", "VMM exit"),
}


class EraCell(NamedTuple):
    """What one operation, or each of a stack, comes to on one kernel."""

    profile: str
    op: int
    kind: str
    """``plain``, ``moved``, ``refused``, ``seen``, ``lost``, ``exit`` or ``pending``."""
    glyph: str
    text: str
    differs: bool
    """Whether it is another result than the page's kernel gives."""
    first: bool
    """Whether it is this kernel's first such result in the run."""
    spoken: str


class EraColumn(NamedTuple):
    """One operation, or neighbours of one kind with the same result everywhere."""

    first: int
    last: int
    title: str
    detail: str
    now: bool
    composed: bool
    parts: bool
    """Whether the kernels part here for the first time."""


class EraRow(NamedTuple):
    """One kernel."""

    profile: str
    title: str
    summary: str
    here: bool
    """Whether it is the page's kernel, with which the others are compared."""
    picked: bool
    """Whether it is one of the two that are compared in the list of changes."""
    cells: tuple[EraCell, ...]
    first: int | None
    """First operation with another result than on the page's kernel."""
    differing: int


class EraChange(NamedTuple):
    """One operation that comes to something else on the second of two kernels."""

    op: int
    title: str
    before: str
    after: str


class ErasView(NamedTuple):
    """The ribbon, and the comparison of two kernels."""

    reference: str
    columns: tuple[EraColumn, ...]
    rows: tuple[EraRow, ...]
    hidden_before: int
    hidden_after: int
    first: int | None
    """First operation at which not all kernels agree."""
    pair: tuple[str, str]
    """Titles of the two kernels compared."""
    changed: int
    changes: tuple[EraChange, ...]
    """The first of them."""
    reached: int
    """Operations replayed on every kernel."""
    ops: int


def era_settings(run: Run) -> tuple[Setting, ...]:
    """Return the settings of the ribbon: every kernel, on the run's machine."""
    own = machine_of(run.start)
    return tuple(Setting(own.on(name)) for name in PROFILES)


def select_eras(
    run: Run,
    op: int,
    ghost: OpDetail | None = None,
    reruns: Reruns | None = None,
    *,
    pair: tuple[str, str] | None = None,
) -> ErasView:
    """Return the ribbon around an operation; without `reruns` everything is computed.

    Parameters
    ----------
    run, op
        The sequence, and where the cursor is in it; -1 is the start.
    ghost
        The composed operation, which stands at the end if there is one.
    reruns
        What was replayed so far; what was not is shown as such.
    pair
        Names of two profiles whose results are compared; without it the page's kernel and the series.
    """
    if reruns is None:
        reruns = Reruns()
        reruns.follow(run.commands)
        reruns.work(era_settings(run), len(run))
    return _Eras(run, op, ghost, reruns).view(pair)


class _Eras:
    """The ribbon in the making: what all its parts look up."""

    def __init__(self, run: Run, op: int, ghost: OpDetail | None, reruns: Reruns) -> None:
        self.commands: tuple[Command, ...] = run.commands if ghost is None else (*run.commands, ghost.command)
        self.op = op
        self.ghost = ghost.command if ghost is not None else None
        self.reruns = reruns
        self.settings = dict(zip(PROFILES, era_settings(run), strict=True))
        self.own = machine_of(run.start).profile
        self.firsts = {name: self.differing(self.own, name)[:1] for name in PROFILES}
        self.first = min((found[0] for found in self.firsts.values() if found), default=None)

    def result(self, name: str, op: int) -> Result | None:
        setting = self.settings[name]
        if self.ghost is not None and op == len(self.commands) - 1:
            return self.reruns.result_beyond(setting, self.ghost)
        return self.reruns.result(setting, op)

    def differing(self, one: str, other: str) -> list[int]:
        found, _ = self.reruns.differing(self.settings[one], self.settings[other])
        if self.ghost is None:
            return found
        last = len(self.commands) - 1
        a, b = self.result(one, last), self.result(other, last)
        return found if a is None or b is None or a == b else [*found, last]

    def view(self, pair: tuple[str, str] | None) -> ErasView:
        columns = self._window()
        other = pair or (self.own, self._telling())
        changed = self.differing(*other)
        return ErasView(
            reference=PROFILES[self.own].title,
            columns=columns,
            rows=tuple(self._row(name, columns, other) for name in PROFILES),
            hidden_before=columns[0].first if columns else 0,
            hidden_after=len(self.commands) - 1 - columns[-1].last if columns else 0,
            first=self.first,
            pair=(PROFILES[other[0]].title, PROFILES[other[1]].title),
            changed=len(changed),
            changes=tuple(self._change(at, *other) for at in changed[:LISTED]),
            reached=self.reruns.reached(self.settings.values()),
            ops=len(self.reruns.commands),
        )

    def _telling(self) -> str:
        """Return a kernel to compare the page's with: one that gives other results, the series before the rest."""
        names = [name for name in (MERGED, POSTED, *PROFILES) if name != self.own]
        return next((name for name in names if self.differing(self.own, name)), names[0])

    def _window(self) -> tuple[EraColumn, ...]:
        """Return the columns around the cursor, neighbours that are alike as one."""
        at = min(max(self.op, 0), len(self.commands) - 1)
        columns: list[EraColumn] = []
        for index in range(max(at - _SCAN, 0), min(at + _SCAN, len(self.commands))):
            column = self._column(index)
            before = columns[-1] if columns else None
            if before is not None and self._alike(before, column):
                n = index - before.first + 1
                columns[-1] = before._replace(last=index, detail=plural(n, "call"))
            else:
                columns.append(column)
        here = next((n for n, column in enumerate(columns) if column.first <= at <= column.last), 0)
        start = max(min(here - COLUMNS // 2, len(columns) - COLUMNS), 0)
        return tuple(columns[start : start + COLUMNS])

    def _column(self, op: int) -> EraColumn:
        command = self.commands[op]
        title, detail = op_words(command)
        result = self.result(self.own, op)
        if isinstance(command, SetMemoryRegion) and result is not None:
            change = result.change or next(
                (r.change for name in PROFILES if (r := self.result(name, op)) is not None and r.change), None
            )
            title = CHANGE_TITLES[change]
        composed = self.ghost is not None and op == len(self.commands) - 1
        return EraColumn(op, op, title, detail, op == self.op, composed, op == self.first)

    def _alike(self, before: EraColumn, column: EraColumn) -> bool:
        """Return whether a column adds nothing to the one before: the same kind of call, fine on every kernel."""
        if before.now or column.now or column.composed or before.title != column.title:
            return False
        results = [self.result(name, op) for op in (before.last, column.first) for name in PROFILES]
        return results[0] is not None and results[0].errno is None and all(r is results[0] for r in results)

    def _row(self, name: str, columns: tuple[EraColumn, ...], pair: tuple[str, str]) -> EraRow:
        profile = PROFILES[name]
        first = self.firsts[name][0] if self.firsts[name] else None
        cells = tuple(self._cell(name, column, first) for column in columns)
        differing = self.differing(self.own, name)
        return EraRow(
            name, profile.title, profile.summary, name == self.own, name in pair, cells, first, len(differing)
        )

    def _cell(self, name: str, column: EraColumn, first: int | None) -> EraCell:
        op = column.first
        result, own = self.result(name, op), self.result(self.own, op)
        kind, glyph, text = _shown(self.commands[op], result)
        differs = result is not None and own is not None and result != own
        spoken = f"{PROFILES[name].title}, operation {column.last + 1}, {column.title} {column.detail}: {text}"
        if differs:
            spoken += f", {_shown(self.commands[op], own)[2]} on {PROFILES[self.own].title}"
        return EraCell(name, column.last, kind, glyph, text, differs, differs and op == first, spoken)

    def _change(self, op: int, one: str, other: str) -> EraChange:
        command = self.commands[op]
        before, after = (_shown(command, self.result(name, op))[2] for name in (one, other))
        return EraChange(op, self._column(op).title, before, after)


def _shown(command: Command, result: Result | None) -> tuple[str, str, str]:
    """Return how a result is drawn: kind, glyph and words."""
    if result is None:
        return "pending", "", "…"
    if result.errno is not None:
        return "refused", "rejected", errno_text(result.errno)
    if result.trouble:
        words = {"dead": "VM dead", "warned": "WARN"}
        return ("lost", "violation", words[result.trouble]) if result.trouble in words else ("exit", "", "not asked")
    match command:
        case SetMemoryRegion():
            if result.change is KvmMrChange.MOVE:
                return "moved", "", "0 moved"
            return "plain", "", "0 no-op" if result.change is KvmMrChange.NOOP else "0"
        case GuestWrite() | GuestRead():
            return _accessed(command, result)
        case TrackGfn() | UntrackGfn():
            return "plain", "", "0" if result.number else "0 no watch"
        case GetDirtyLog() | ClearDirtyLog():
            return "plain", "", f"{count_text(result.number)} dirty"
        case _:
            return "plain", "", "0"


def _accessed(command: GuestRead | GuestWrite, result: Result) -> tuple[str, str, str]:
    if isinstance(command, GuestWrite):
        if result.number:
            return "seen", "external", "seen"
        if result.missed:
            return "lost", "lost", "missed"
    return _ACCESS.get(result.outcome, ("exit", "", result.outcome or "retry"))
