"""One failing line that is pasted: put after the log that is shown, or into the smallest VM that explains it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from explorer.app.compose import compose_for
from explorer.app.state import AppState, Notice, append, with_ghost
from explorer.engine.profile import get_profile
from explorer.engine.uapi import KvmMrChange
from explorer.explain.why import why
from explorer.explain.words import errno_text
from explorer.history import Run
from explorer.history.machine import Machine
from explorer.scenarios import load_scenario, scenario_names
from explorer.trace.one_line import LogBefore, OneLine, read_one_line
from explorer.trace.records import TraceError

if TYPE_CHECKING:
    from explorer.explain.why import Reason, Why

__all__ = ["failing_line", "show_line"]

_LONGEST = 1 << 16
_TITLE = "One failing line"


def failing_line(data: bytes) -> OneLine | None:
    """Return the call that pasted text shows if it is one line of a call that failed, else None."""
    if len(data) > _LONGEST:
        return None
    try:
        line = read_one_line(data.decode("utf-8", "backslashreplace"))
    except TraceError:
        return None
    return line if line.ret == -1 else None


def show_line(state: AppState, line: OneLine) -> AppState:
    """Go to the refusal of a line, made to happen if need be; one that nothing explains changes nothing."""
    if _is_a_story(state) or not len(state.run):
        return _show_alone(state, line)
    at = _where_it_is(state.run, line)
    if at is not None:
        there = f"The line is operation {at + 1} of {state.title}."
        seen = state.view._replace(focus=None, window=None, page=None)
        return with_ghost(
            replace(state, stop=state.run.end_of(at), view=seen, question=False, notice=Notice(there, stays=True))
        )
    before = LogBefore(state.run.end, (f"The line stands behind the last call of {state.title}.",))
    found = why(line, get_profile(state.machine.profile), before)
    if not found.reasons:
        return replace(state, notice=Notice(found.answer, "error"))
    reason = found.reasons[0]
    machine, run = state.machine, state.run
    if reason.start.config != run.end.config:
        machine = machine._replace(config=reason.start.config)
        run = Run(machine.start(), run.commands)
    base = replace(state, machine=machine, run=run, stop=run.last_stop)
    after = replace(append(base, *reason.commands, line.call), earlier=state)
    return _with_notice(after, line, found, reason)


def _show_alone(state: AppState, line: OneLine) -> AppState:
    """Show the smallest VM in which the call is refused as recorded, on the kernel that is chosen."""
    found = why(line, get_profile(state.machine.profile))
    if not found.reasons:
        return replace(state, notice=Notice(found.answer, "error"))
    reason = found.reasons[0]
    machine = Machine(reason.start.profile.name, reason.start.config)
    run = Run(machine.start(), (*reason.commands, line.call))
    alone = replace(
        state,
        machine=machine,
        run=run,
        stop=run.last_stop,
        title=_TITLE,
        owners=(),
        backings=(),
        recorded=None,
        view=state.view._replace(focus=None, window=None, page=None),
        answered=None,
        earlier=state,
        source="",
        about="",
        notes=(),
    )
    return _with_notice(alone, line, found, reason)


def _is_a_story(state: AppState) -> bool:
    """Return whether a story of the library is shown: its VM is not the one a line is from."""
    return state.source in scenario_names() and state.title == load_scenario(state.source).title


def _where_it_is(run: Run, line: OneLine) -> int | None:
    """Return the last operation of the run that is the line, or None."""
    pairs = zip(run.commands, run.outcomes, strict=True)
    same = [
        at
        for at, (command, outcome) in enumerate(pairs)
        if outcome.errno is not None and outcome.errno.name == line.errno and command == line.call
    ]
    return same[-1] if same else None


def _with_notice(state: AppState, line: OneLine, found: Why, reason: Reason) -> AppState:
    """Say what is taken for granted, and what else would look the same; the fields have the call, to be changed."""
    others = tuple(
        f"{' '.join(other.assumptions) or 'The arguments alone are refused.'} Then {other.xray.function}() answers"
        f" {errno_text(other.xray.errno)}: “{other.xray.guard.title}” fails."
        for other in found.reasons[1:]
    )
    more = " The line alone cannot decide: other reasons are listed." if others else ""
    assumed = " ".join((*found.assumptions, *reason.assumptions))
    compose = replace(compose_for(line.call), shown=False)
    if reason.xray.change is KvmMrChange.CREATE:
        compose = replace(compose, kind="create")
    return with_ghost(
        replace(
            state,
            compose=compose,
            question=False,
            notice=Notice(assumed + more, "info", others, heading="Other reasons", stays=True, back=True),
        )
    )
