"""The state that shows an imported log."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from explorer.app.compose import Compose
from explorer.app.imports import (
    divergence_words,
    first_difference,
    preview_note,
    preview_table,
)
from explorer.app.state import (
    AppState,
    Notice,
    with_ghost,
)
from explorer.engine.profile import PROFILES
from explorer.explain.words import plural
from explorer.history.machine import Machine
from explorer.selectors.time_words import Recorded

if TYPE_CHECKING:
    from explorer.engine.state import Kvm, KvmMemorySlot
    from explorer.history import Run
    from explorer.trace import ImportedLog

__all__ = ["show_log"]

_LINES_TOLD = 200
"""Unused lines of a log that are told one by one."""


def show_log(state: AppState, log: ImportedLog, run: Run) -> AppState:
    """Show the run of an imported log, at its end; a log without an operation changes nothing."""
    detail = _unused_lines(log)
    if not len(run):
        notice = Notice(log.summary_sentence(), "error", detail, table=preview_table(log), table_note=preview_note(log))
        return replace(state, notice=notice)
    return with_ghost(
        replace(
            state,
            machine=Machine(log.profile.name, log.config),
            run=run,
            stop=run.last_stop,
            title=log.name,
            owners=(),
            backings=(),
            recorded=Recorded(log.compared, log.disagreements, log.vms, PROFILES[log.profile.name].title),
            compose=replace(Compose.fresh("move", run.end, _newest_slot(run.end)), shown=False),
            question=False,
            answered=None,
            earlier=state,
            view=state.view._replace(focus=None, window=None, page=None),
            notice=Notice(
                f"{log.summary_sentence()} {divergence_words(log) or _replayed_on(log)}",
                "error" if log.disagreements else "info",
                detail,
                stays=True,
                table=preview_table(log),
                table_note=preview_note(log),
                go=first_difference(log),
                back=True,
            ),
            source="",
            about="",
            notes=(),
            views=(),
        )
    )


def _replayed_on(log: ImportedLog) -> str:
    return f"Replayed as on {PROFILES[log.profile.name].title}."


def _newest_slot(kvm: Kvm) -> KvmMemorySlot | None:
    last = kvm.active().id_hash.last()
    return kvm.slot(last[0]) if last is not None else None


def _unused_lines(log: ImportedLog) -> tuple[str, ...]:
    """Return why lines were not used: each of them, or, of very many, how many for each reason."""
    if len(log.gaps) <= _LINES_TOLD:
        return tuple(f"line {gap.line}: {gap.reason}" for gap in log.gaps)
    by_reason: dict[str, list[int]] = {}
    for gap in log.gaps:
        by_reason.setdefault(gap.reason, []).append(gap.line)
    told = [
        f"{plural(len(lines), 'line')}, the first is {lines[0]}: {reason}"
        for reason, lines in sorted(by_reason.items(), key=lambda item: -len(item[1]))
    ]
    rest = "explorer replay lists every line"
    return (
        *told[:_LINES_TOLD],
        f"and {len(told) - _LINES_TOLD} reasons more; {rest}" if len(told) > _LINES_TOLD else rest,
    )
