"""What lies on the timeline besides operations: broken invariants and notes; and the way to the first violation.

Rule: frames do not wait for this. Invariants are evaluated in turns while the page rests, and their marks are laid
on the timeline that is already drawn.
"""

from __future__ import annotations

from dataclasses import replace
from time import monotonic, process_time
from typing import TYPE_CHECKING, Any

from explorer.app.state import Notice, step_to
from explorer.figures.dom import el
from explorer.figures.invariants import broken_panel, note_mark, violation_mark
from explorer.history.checks import Checks
from explorer.selectors.invariants import first_sentence, near_of, select_invariants

if TYPE_CHECKING:
    from explorer.app.state import AppState

__all__ = ["TimelineMarks", "go_to_first"]

_TURN_SECONDS = 0.006
"""How long work goes on before other messages get their turn."""
_FAR_SECONDS = 10.0
"""Work spent on what is not in sight, for each run; the rest of a long run is looked at where it is shown."""
_ASKED_SECONDS = 1.0
"""Work at once when a person asks for the first violation, of the processor; a run of some hundred operations is
through by then."""


class TimelineMarks:
    """What is known of a run, as the stage draws it."""

    def __init__(self) -> None:
        """Start with nothing evaluated."""
        self.checks = Checks()
        self._sent: dict[str, Any] = {}
        self._state: AppState | None = None
        self._spent = 0.0

    def use(self, state: AppState) -> None:
        """Show this state from now on."""
        if self._state is None or self._state.run is not state.run:
            self._spent = 0.0
        self._state = state
        self.checks.follow(state.run)

    def work(self) -> bool:
        """Evaluate for one turn, first what can be in sight; return whether anything is left."""
        assert self._state is not None, "marks are used for a state first"
        start = monotonic()
        near = near_of(self._state.run, self._state.stop.op)
        more = True
        while more and monotonic() - start < _TURN_SECONDS:
            more = self.checks.work(near, far=self._spent < _FAR_SECONDS)
        self._spent += monotonic() - start
        return more

    def look_for_first(self) -> None:
        """Evaluate until the first is known to be that, for as long as a person would wait.

        First the end, and backwards from there by halves, then from the start on.
        """
        end = process_time() + _ASKED_SECONDS
        while not self.checks.first_is_sure and process_time() < end and self.checks.work((), far=True):
            pass

    def message(self, state: AppState) -> dict[str, Any]:
        """Return marks, what the rail says, and notes, as far as they are known."""
        self.use(state)
        view = select_invariants(state.run, self.checks, state.stop.op)
        panels: list[Any] = []
        told: dict[str, int] = {}
        for op, rows in view.broken:
            panel = broken_panel(rows)
            if panel not in panels:
                panels.append(panel)
            told[str(op)] = panels.index(panel)
        self._sent = {
            "broken": [[mark.op, violation_mark(mark), mark.text] for mark in view.marks],
            "panels": panels,
            "told": told,
            "status": el("p", el("small", view.status), cls="told-status"),
            "first": view.first is not None,
            "notes": [[note.stop.op, note.stop.cell, note.text] for note in state.notes],
            "note": note_mark(),
        }
        return self._sent

    def fresh(self, state: AppState) -> dict[str, Any] | None:
        """Return the message if it says something new since the last one."""
        before = self._sent
        message = self.message(state)
        return message if message != before else None


def go_to_first(state: AppState, marks: TimelineMarks) -> AppState:
    """Go to the end of the operation that breaks an invariant first, and say which."""
    marks.use(state)
    marks.look_for_first()
    first = marks.checks.first
    said = first_sentence(state.run, marks.checks)
    if first is None:
        return replace(state, notice=Notice(said))
    return replace(step_to(state, state.run.end_of(first)), notice=Notice(said))
