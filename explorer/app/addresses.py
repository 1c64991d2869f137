"""The state as the parameters of an address, and back; notes, which an address carries."""

from __future__ import annotations

from dataclasses import replace

from explorer.app.compose import Compose
from explorer.app.link import pack, pack_story, unpack, unpack_story
from explorer.app.notes import written
from explorer.app.state import (
    AppState,
    Notice,
    load,
    with_ghost,
)
from explorer.engine.commands import parse_command
from explorer.engine.types import ExplorerError
from explorer.history import Run, Stop
from explorer.history.machine import Machine
from explorer.scenarios import load_scenario, scenario_names

__all__ = ["from_link", "to_link", "write_note"]


def to_link(state: AppState) -> dict[str, str]:
    """Return the state as the parameters of an address: a story and a place, or machine, operations and place."""
    if _is_told(state):
        if state.question and state.earlier is None:
            return {}
        steps = len(load_scenario(state.source).steps)
        return pack_story(state.source, state.stop, applied=state.stop.op < steps < len(state.run))
    return pack(machine=state.machine, commands=state.run.commands, stop=state.stop, title=state.title)


def _is_told(state: AppState) -> bool:
    """Return whether the run is a story's, on the machine it is told on, with nothing of one's own."""
    if state.source not in scenario_names() or state.notes:  # a note needs the run it is bound to, whole
        return False
    scenario = load_scenario(state.source)
    steps = tuple(step.do for step in scenario.steps)
    whole = steps if scenario.next is None else (*steps, scenario.next)
    machine = Machine(scenario.profile.name, scenario.config)
    return state.machine == machine and state.run.commands in (steps, whole)


def from_link(state: AppState, parameters: dict[str, str]) -> AppState:
    """Return the state an address describes; a bad one changes nothing but the notice."""
    try:
        story = unpack_story(parameters)
        if story is not None:
            return load(story.name, view=state.view, stop=story.stop, applied=story.applied)
        link = unpack(parameters)
        if link is None:
            return state
        run = Run(link.machine.start(), (parse_command(line) for line in link.commands))
    except ExplorerError as error:
        return replace(state, notice=Notice(f"This address cannot be opened: {error}", "error"))
    return with_ghost(
        replace(
            state,
            machine=link.machine,
            run=run,
            stop=run.clamp(link.stop),
            title=link.title or state.title,
            compose=Compose(),
            question=False,
            answered=None,
            notice=None,
            notes=(),
            views=(),
        )
    )


def write_note(state: AppState, stop: Stop, text: str) -> AppState:
    """Write a note at a stop of the run; an empty one takes the note that is there away."""
    if not -1 <= stop.op < len(state.run):
        return replace(state, notice=Notice("A note needs a stop of the run: apply the operation first.", "error"))
    notes = written(state.notes, state.run.clamp(stop), text)
    said = None
    if notes and not to_link(state) and not state.question:
        said = Notice("This run is too long for an address: export it to keep the note.", stays=True)
    return replace(state, notes=notes, notice=said)
