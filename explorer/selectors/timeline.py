"""The run on one line: a glyph for each operation, and the steps of the one that is open."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from explorer.engine.commands import SetMemoryRegion
from explorer.explain.sentences import op_words
from explorer.explain.sources import name_in
from explorer.explain.words import errno_text, plural
from explorer.selectors.glyphs import CHANGE_TITLES, glyph_of
from explorer.selectors.phases import PhaseCell, SetBox, select_phases

if TYPE_CHECKING:
    from explorer.engine.commands import Command
    from explorer.history import OpDetail, Outcome, Run
    from explorer.history.moment import Moment
    from explorer.selectors.branches import Branch

__all__ = ["NEIGHBOURS", "STRETCH", "TimelineNode", "TimelineView", "in_sight", "select_timeline"]

NEIGHBOURS = 16
"""Operations shown on each side of the current one at least, as far as there are any."""
STRETCH = 24
"""Operations through which the cursor moves along a line that stands still; then the line moves on at once.

A line that moved with every step would be drawn anew with every step: a fifth of the picture.
"""


class TimelineNode(NamedTuple):
    """One operation, or several neighbouring creations drawn as a stack."""

    first: int
    last: int
    """Index of the last operation of the stack."""
    glyph: str
    title: str
    detail: str
    errno: str
    """Empty for success."""
    tense: str
    """``past``, ``now`` or ``future``."""
    ghost: bool = False
    """Whether it is the composed operation, not yet applied."""


class TimelineView(NamedTuple):
    """The timeline at a moment."""

    caption: str
    sub: str
    nodes: tuple[TimelineNode, ...]
    cells: tuple[PhaseCell, ...]
    """Steps of the open operation; empty if it has none to show."""
    open_after: int
    """Index in `nodes` of the node the steps belong to; -1 if there is none."""
    invalid: tuple[int, int] | None
    """First and last step in which readers see INVALID."""
    handle: str
    """What the cursor says."""
    hidden_before: int
    hidden_after: int
    ops: int
    branch: Branch | None = None
    """What leaves the line at one of its operations."""


def in_sight(run: Run, op: int) -> range:
    """Return the operations that the line shows while the cursor is at one of them; -1 is the start of the run."""
    stretch = max(op, 0) // STRETCH * STRETCH
    return range(max(0, stretch - NEIGHBOURS), min(len(run), stretch + STRETCH + NEIGHBOURS))


def select_timeline(run: Run, moment: Moment, branch: Branch | None = None) -> TimelineView:
    """Return the timeline at a moment of a run.

    Parameters
    ----------
    run
        The run.
    moment
        A moment of it.
    branch
        What leaves the line; it shows if its operation does.
    """
    at = moment.stop.op
    shown = in_sight(run, at)
    first, last = shown.start, shown.stop
    nodes = _nodes(run, first, last, at)
    if moment.ghost is not None and last == len(run):
        nodes.append(_ghost(moment.ghost))
    strip = select_phases(moment)
    open_after = next((i for i, node in enumerate(nodes) if node.first <= at <= node.last), -1)
    cells: tuple[PhaseCell, ...] = strip.cells if strip is not None else ()
    invalid = (
        next(((b.first, b.last) for b in strip.bands if b.content == "INVALID"), None) if strip is not None else None
    )
    if moment.ghost is not None and moment.at_end and at == len(run) - 1 and nodes and nodes[-1].ghost:
        cells, open_after, invalid = _ghost_cells(moment.ghost), len(nodes) - 1, None
    done = plural(at + 1, "operation")
    return TimelineView(
        caption="Operations",
        sub=f"{at + 1} of {len(run)}" if len(run) else "none yet",
        nodes=tuple(nodes),
        cells=cells,
        open_after=open_after,
        invalid=invalid,
        handle=_handle(moment) or done,
        hidden_before=first,
        hidden_after=len(run) - last,
        ops=len(run),
        branch=branch if branch is not None and first <= branch.after < last else None,
    )


def _nodes(run: Run, first: int, last: int, at: int) -> list[TimelineNode]:
    nodes: list[TimelineNode] = []
    for index in range(first, last):
        command, outcome = run.commands[index], run.outcomes[index]
        tense = "past" if index < at else "now" if index == at else "future"
        kind = glyph_of(command, outcome)
        previous = nodes[-1] if nodes else None
        stackable = (
            kind == "create"
            and previous is not None
            and previous.glyph == "create"
            and index != at
            and not (previous.first <= at <= previous.last)
        )
        if stackable and previous is not None:
            nodes[-1] = previous._replace(
                last=index, title="Create", detail=plural(index - previous.first + 1, "slot"), tense=tense
            )
            continue
        title, detail = _words(command, outcome)
        errno = errno_text(outcome.errno) if outcome.errno is not None else ""
        nodes.append(TimelineNode(index, index, kind, title, detail, errno, tense))
    return nodes


def _words(command: Command, outcome: Outcome) -> tuple[str, str]:
    title, detail = op_words(command)
    if isinstance(command, SetMemoryRegion):
        title = CHANGE_TITLES[outcome.change]
    return title, errno_text(outcome.errno) if outcome.errno is not None else detail


def _ghost(ghost: OpDetail) -> TimelineNode:
    title, detail = op_words(ghost.command)
    if isinstance(ghost.command, SetMemoryRegion) and ghost.step.change is not None:
        title = {"CREATE": "Create", "DELETE": "Delete", "MOVE": "MOVE", "FLAGS_ONLY": "Flags", "NOOP": "No-op"}[
            ghost.step.change.value
        ]
    glyph = "move" if title == "MOVE" else "other"
    return TimelineNode(ghost.number, ghost.number, glyph, f"{title}?", detail, "", "future", ghost=True)


def _ghost_cells(ghost: OpDetail) -> tuple[PhaseCell, ...]:
    empty = (SetBox("none", False), SetBox("none", False))
    if len(ghost.cells) == 1:
        return ()
    # Where it would be refused is not marked before the operation is applied.
    return tuple(
        PhaseCell(n, cell.word, "", name_in(cell.function, cell.kvm.profile) or "", empty, "future", False)
        for n, cell in enumerate(ghost.cells, 1)
    )


def _handle(moment: Moment) -> str:
    op = moment.op
    if op is None:
        return ""
    if len(op.cells) == 1:
        title, detail = op_words(op.command)
        return f"{op.number + 1}  {title.lower()} {detail}".rstrip()
    strip = select_phases(moment)
    word = strip.cells[moment.stop.cell].word if strip is not None else ""
    if moment.at_end and op.step.errno is not None:
        word += f" {errno_text(op.step.errno)}"
    return f"{op.number + 1}.{moment.stop.cell + 1}  {word}"
