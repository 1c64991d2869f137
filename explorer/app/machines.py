"""Other kernels and other settings for the same operations, and what differs there.

A change is compared with the machine before it. Who turns through several, with nothing done in between, compares
with the one they set out from: the kernel before the last press is none they think of.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from explorer.app.state import AppState, Notice, Walk, with_ghost
from explorer.engine.profile import PROFILES, get_profile
from explorer.explain.apart import Answers, apart
from explorer.history import Run

if TYPE_CHECKING:
    from explorer.history.machine import Machine

__all__ = ["set_machine", "set_profile"]


def set_machine(state: AppState, machine: Machine) -> AppState:
    """Run the same operations on another kernel or machine, and say which results differ."""
    run = Run(machine.start(), state.run.commands)
    began, from_run = _set_out(state)
    notice = Notice(_told(state, machine, run, began, from_run)) if len(run) or state.ghost is not None else None
    at_its_end = state.stop == state.run.end_of(state.stop.op)
    stop = run.end_of(state.stop.op) if at_its_end else run.clamp(state.stop)
    walk = Walk(began, from_run, notice) if notice is not None else None
    return with_ghost(replace(state, machine=machine, run=run, stop=stop, notice=notice, walk=walk, question=False))


def set_profile(state: AppState, name: str) -> AppState:
    """Choose another kernel."""
    get_profile(name)
    return set_machine(state, state.machine._replace(profile=name))


def _set_out(state: AppState) -> tuple[Machine, Run]:
    """Return what to compare with: where the walk began while what it last said still stands, else the present."""
    walk = state.walk
    if walk is not None and state.notice is walk.said and walk.run.commands == state.run.commands:
        return walk.machine, walk.run
    return state.machine, state.run


def _told(state: AppState, machine: Machine, run: Run, began: Machine, from_run: Run) -> str:
    title, before = PROFILES[machine.profile].title, PROFILES[began.profile].title
    if machine == began:
        return f"{title} again, the machine this comparison began with."
    lead, other = f"On {title}", before
    if machine._replace(profile=began.profile) != began:
        same = machine.profile == began.profile
        lead, other = f"On {title} set up so", "the setting before" if same else f"{before} as it was set up"
    composed = state.ghost.command if state.ghost is not None else None
    there, here = _answers(from_run, state), _answers(run, state)
    return f"{lead}, {apart(run.commands, there, here, other, composed)}"


def _answers(run: Run, state: AppState) -> Answers:
    if state.ghost is None:
        return Answers(run.outcomes)
    return Answers(run.outcomes, run.then(state.ghost.command).outcomes[-1])
