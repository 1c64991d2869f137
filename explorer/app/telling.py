"""Stories, the claims of the thread, and the newcomer's question."""

from __future__ import annotations

from dataclasses import replace

from explorer.app.link import place_of
from explorer.app.state import (
    Answer,
    AppState,
    Notice,
    apply_composed,
    focused_slot,
    load,
    with_ghost,
)
from explorer.engine.commands import parse_command
from explorer.explain.claims import claim_named
from explorer.explain.ledger import watches_of
from explorer.history import Run, Stop
from explorer.history.machine import Machine
from explorer.scenarios import guided, load_scenario, scenario_names

__all__ = ["answer", "show_claim", "tell", "truth", "turn"]

_KINDS_OF_CLAIM = {
    "proved": "proved in the model",
    "conditional": "conditional, L says on what",
    "opinion": "not modelled",
}


def tell(state: AppState, scenario: str, stop: Stop | None = None) -> AppState:
    """Tell another story, from where it opens or from `stop`; the run before it is kept."""
    told = load(scenario, view=state.view, stop=stop)
    kept = Notice("What you had made of the run before is kept.", stays=True, back=True) if _is_own(state) else None
    return replace(told, earlier=state, notice=kept, revision=state.revision + 1)


def _is_own(state: AppState) -> bool:
    """Return whether a run has more than its story, or another past."""
    if state.source not in scenario_names():
        return len(state.run) > 0
    scenario = load_scenario(state.source)
    steps = tuple(step.do for step in scenario.steps)
    return state.run.commands not in (steps, (*steps, scenario.next))


def show_claim(state: AppState, name: str) -> AppState:
    """Open the state that shows a claim of the thread; the run before it is kept."""
    claim = claim_named(name)
    if claim is None or claim.shown is None:
        return replace(state, notice=Notice(f"No claim called {name[:40]!r} can be shown.", "error"))
    shown = claim.shown
    scenario = load_scenario(shown.story)
    machine = Machine(shown.profile or scenario.profile.name, scenario.config)
    last = parse_command(shown.do) if shown.do else scenario.next
    commands = [step.do for step in scenario.steps] + ([last] if last is not None else [])
    run = Run(machine.start(), commands)
    opened = load(shown.story, view=state.view, stop=run.last_stop)
    told = replace(
        opened,
        machine=machine,
        run=run,
        stop=run.clamp(place_of(shown.at)),
        source="" if shown.do else opened.source,
        earlier=state,
        notice=Notice(f"{claim.words} ({_KINDS_OF_CLAIM[claim.kind]})", stays=True, back=True),
        revision=state.revision + 1,
    )
    return with_ghost(told)


def turn(state: AppState, by: int) -> AppState:
    """Tell the beat of the guided story `by` further on; from elsewhere it begins, and at its ends nothing happens."""
    beats = guided()
    here = next((at for at, scenario in enumerate(beats) if scenario.id == state.source), None)
    there = 0 if here is None else here + by
    return tell(state, beats[there].id) if 0 <= there < len(beats) else state


def answer(state: AppState, guess: int) -> AppState:
    """Take the newcomer's prediction and apply the operation; the engine knows the truth."""
    right = guess == truth(state)
    applied = apply_composed(state)
    return replace(applied, answered=Answer(guess, right, applied.stop.op))


def truth(state: AppState) -> int:
    """Return which answer is right, from the composed operation: 1 follow, 2 stay behind, 3 gone."""
    ghost = state.ghost
    if ghost is None:
        return 0
    focus = focused_slot(state)
    before = watches_of(ghost.before, focus)
    after_slot = ghost.step.kvm.slot(focus.id, focus.as_id) if focus is not None else None
    after = watches_of(ghost.step.kvm, after_slot)
    if not after:
        return 3
    return 2 if {w.gfn for w in after} == {w.gfn for w in before} else 1
