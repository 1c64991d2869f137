"""What a moment says from afar, for the layout of a talk: a verdict, at most four numbers, one sentence, a place."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from explorer.selectors.effects import select_effects
from explorer.selectors.guards import BillRow, select_guards

if TYPE_CHECKING:
    from explorer.history.moment import Moment
    from explorer.selectors.beats import BeatView
    from explorer.selectors.rail import RailView
    from explorer.selectors.verdict import Icon

__all__ = ["SlideView", "select_slide"]

MOST_ROWS = 4


class SlideView(NamedTuple):
    """Everything a talk shows of a moment besides the map, the strip and the ledger."""

    icon: Icon
    headline: str
    """The errno of a refusal, else the verdict."""
    subtitle: str
    role: str
    """Colour role of the subtitle."""
    rows: tuple[BillRow, ...]
    """What was, what is: the bill of a refusal, or what an operation without steps changed."""
    caption: str
    place: str
    """Such as ``step 8 of 8``."""
    beat: str
    """Such as ``Beat 5 of 9``; empty outside of the guided story."""


def select_slide(moment: Moment, rail: RailView, beat: BeatView | None, ops: int, caption: str = "") -> SlideView:
    """Return the slide of a moment.

    Parameters
    ----------
    moment
        Where the run is.
    rail
        The rail at this moment: verdict and sentence are its own.
    beat
        The card of the story that is told, if one is.
    ops
        How many operations the run has.
    caption
        A sentence of the story in place of the rail's.
    """
    refused = rail.icon == "octagon"
    return SlideView(
        icon=rail.icon,
        headline=rail.errno if refused else rail.verdict,
        subtitle=f"refused, {rail.subtitle}" if refused else rail.subtitle,
        role=rail.subtitle_role,
        rows=_bill(moment) if refused else _effects(moment),
        caption=caption or rail.newcomer,
        place=_place(moment, ops),
        beat=beat.place if beat is not None and beat.place.startswith("Beat") else "",
    )


def _bill(moment: Moment) -> tuple[BillRow, ...]:
    """Return what a refusal cost, and of what it kept the watches of a tracker: they are why it was refused."""
    guards = select_guards(moment)
    if guards is None:
        return ()
    spent = [row for row in guards.bill if row.paid and (row.before, row.after) != ("0", "0")]
    kept = [row for row in guards.bill if not row.paid and row.mark == "external"]
    return (*spent[: MOST_ROWS - len(kept[:1])], *kept[:1])


def _effects(moment: Moment) -> tuple[BillRow, ...]:
    effects = select_effects(moment)
    if effects is None:
        return ()
    return tuple(BillRow(row.what, row.before, row.after, "") for row in effects.rows[:MOST_ROWS])


def _place(moment: Moment, ops: int) -> str:
    op = moment.op
    if op is not None and len(op.cells) > 1:
        return f"step {moment.stop.cell + 1} of {len(op.cells)}"
    return f"operation {moment.stop.op + 1} of {ops}" if moment.stop.op >= 0 else "the start"
