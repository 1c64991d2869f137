"""The Kernels tab: one call in every configuration, the run on every kernel, and what a person does there.

Rule: nothing is computed while the tab is closed. While it is open, work is done in pieces short enough that a
step of the page never waits for it; what is not computed yet is shown as such.
"""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial
from hashlib import blake2b
from time import monotonic
from typing import TYPE_CHECKING, Any

from explorer.app.machines import set_machine, set_profile
from explorer.app.state import (
    Notice,
    apply_composed,
    redraw,
    with_ghost,
)
from explorer.engine.profile import PROFILES, get_profile
from explorer.engine.types import ExplorerError
from explorer.explain.words import plural
from explorer.figures.eras import eras_panel
from explorer.figures.matrix import matrix_panel, no_matrix_panel
from explorer.history import Run
from explorer.history.rerun import Reruns
from explorer.selectors.configurations import MERGED, POSTED, Call, call_at, commands_before, settings_needed
from explorer.selectors.eras import COLUMNS, era_settings, select_eras
from explorer.selectors.matrix import select_matrix

if TYPE_CHECKING:
    from collections.abc import Callable

    from explorer.app.state import AppState

__all__ = ["KernelsTab", "action_of", "flip_test", "leave_question", "pick_kernel", "show_cell", "show_result"]

_PIECE = 45
"""Operations replayed before the clock is looked at."""
_TURN_SECONDS = 0.012
"""How long work goes on before other messages get their turn."""


class KernelsTab:
    """What the tab shows of a state, and how far it is."""

    def __init__(self) -> None:
        """Start with nothing replayed and nothing sent."""
        self._reruns = Reruns()
        self._state: AppState | None = None
        self._sent: dict[str, str] = {}

    def use(self, state: AppState) -> None:
        """Show this state from now on; what is true of it already is kept."""
        self._state = state
        self._reruns.follow(state.run.commands)

    def forget_sent(self) -> None:
        """Send everything again: the page does not have it."""
        self._sent.clear()

    def work(self) -> tuple[bool, bool]:
        """Replay for one turn; return whether the window is complete, and whether all is."""
        end = monotonic() + _TURN_SECONDS
        window, done = self._piece()
        while not done and monotonic() < end:
            window, done = self._piece()
        return window, done

    def _piece(self) -> tuple[bool, bool]:
        state, reruns = self._state, self._reruns
        assert state is not None, "a tab is used for a state first"
        call = _call(state)
        eras = era_settings(state.run)
        near = min(state.stop.op + COLUMNS, len(state.run))
        needed = [(eras, near)]
        if call is not None:
            needed.append((settings_needed(state.run, call, reruns), call.op))
        for settings, until in needed:
            if reruns.reached(settings) < until:
                reruns.work(settings, until, _PIECE)
                return False, False
        reruns.work(eras, len(state.run), _PIECE)
        return True, reruns.reached(eras) >= len(state.run)

    def message(self, *, done: bool) -> dict[str, Any]:
        """Return what the page should show, and whether it is all; a part that it already shows is left out."""
        state = self._state
        assert state is not None, "a tab is used for a state first"
        call = _call(state)
        panels = {
            "matrix": matrix_panel(select_matrix(state.run, call, self._reruns))
            if call is not None
            else no_matrix_panel(),
            "eras": eras_panel(select_eras(state.run, state.stop.op, state.ghost, self._reruns, pair=state.view.pair)),
        }
        fresh = {}
        for name, panel in panels.items():
            digest = blake2b(json.dumps(panel).encode(), digest_size=9).hexdigest()
            if self._sent.get(name) != digest:
                self._sent[name] = digest
                fresh[name] = panel
        return {"t": "kernels", "rev": state.revision, "done": done, "panels": fresh}


def _call(state: AppState) -> Call | None:
    return call_at(state.run, state.stop.op, state.ghost if state.at_end else None)


# -- actions ---------------------------------------------------------------------------------------


def action_of(kind: str, key: str) -> Callable[[AppState], AppState]:
    """Return what a click in the tab asks for.

    Parameters
    ----------
    kind
        ``matrix`` or ``era`` for a cell, ``pick`` for a kernel's name, ``test`` for the switch.
    key
        What was clicked, such as ``v6_6:1:0``, ``v6_6:12``, ``v6_6`` or ``posted``.
    """
    name, _, rest = key.partition(":")
    match kind:
        case "matrix":
            built_in, _, attached = rest.partition(":")
            return partial(show_cell, profile=name, built_in=built_in == "1", attached=attached == "1")
        case "era":
            return partial(show_result, profile=name, op=int(rest))
        case "pick":
            return partial(pick_kernel, profile=name)
        case _:
            return partial(flip_test, form=name)


def leave_question(state: AppState) -> AppState:
    """Put the opening question aside: who looks at every kernel's answer does not predict it."""
    return redraw(replace(state, question=False)) if state.question else state


def flip_test(state: AppState, form: str = "") -> AppState:
    """Turn the test of 6.6 round: as posted or as merged; from another kernel, as posted first.

    Parameters
    ----------
    state
        The state before.
    form
        ``posted`` or ``merged``; empty for the other one.
    """
    forms = {"posted": POSTED, "merged": MERGED}
    if form and form not in forms:
        raise ExplorerError(f"the test has no form {form[:20]!r}; there are {', '.join(forms)}")
    to = forms.get(form) or (MERGED if state.machine.profile == POSTED else POSTED)
    return set_profile(state, to) if to != state.machine.profile else state


def pick_kernel(state: AppState, profile: str) -> AppState:
    """Compare a kernel with the one chosen before it."""
    get_profile(profile)
    pair = state.view.pair or (state.machine.profile, state.machine.profile)
    if profile == pair[1]:
        return state
    return replace(state, view=state.view._replace(pair=(pair[1], profile)))


def show_cell(state: AppState, profile: str, *, built_in: bool, attached: bool) -> AppState:
    """Switch the page to a cell of the matrix and go to the end of its call."""
    get_profile(profile)
    call = _call(state)
    if call is None:
        return state
    config = replace(state.machine.config, external_write_tracking=built_in)
    machine = state.machine._replace(profile=profile, config=config)
    before = commands_before(state.run, call, machine, attached=attached)
    if before == state.run.commands[: call.op]:
        there = set_machine(state, machine) if machine != state.machine else state
        return _to_the_end_of(there, call.op)
    run = Run(machine.start(), (*before, call.command))
    later = max(len(state.run) - call.op - 1, 0)
    build = "built in" if built_in else "not built in"
    what = "KVMGT attaches before the call" if attached else "the run without what its trackers do"
    aside = f" {plural(later, 'later operation')} set aside." if later else ""
    return with_ghost(
        replace(
            state,
            machine=machine,
            run=run,
            stop=run.last_stop,
            compose=replace(state.compose, shown=False),
            view=state.view._replace(focus=None, window=None, page=None),
            question=False,
            earlier=state,
            notes=(),
            notice=Notice(
                f"A branch on {PROFILES[profile].title}, external tracking {build}: {what}.{aside}",
                stays=True,
                back=True,
            ),
        )
    )


def show_result(state: AppState, profile: str, op: int) -> AppState:
    """Switch the page to a kernel and go to the end of an operation."""
    there = set_profile(state, profile) if profile != state.machine.profile else state
    return _to_the_end_of(there, op)


def _to_the_end_of(state: AppState, op: int) -> AppState:
    if op < len(state.run):
        return replace(state, stop=state.run.end_of(op))
    said = state.notice
    return replace(apply_composed(replace(state, stop=state.run.last_stop)), notice=said)
