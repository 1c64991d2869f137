"""A log in the page: its run, what its lines became, where it differs, who owns its slots."""

from __future__ import annotations

from typing import TYPE_CHECKING

from explorer.engine.profile import PROFILES
from explorer.explain.words import plural
from explorer.history import Run, RunDraft
from explorer.trace import import_log

if TYPE_CHECKING:
    from explorer.engine.apply import Step
    from explorer.engine.commands import Command
    from explorer.engine.state import Kvm
    from explorer.trace import ImportedLog
    from explorer.trace.lift import Row
    from explorer.trace.preview import PreviewRow

__all__ = ["divergence_words", "first_difference", "preview_note", "preview_table", "read_log"]

_BECAME = {"operation": "operations", "doubtful": "doubtful", "used": "used to tell VMs apart", "skipped": "not used"}


def read_log(data: bytes, *, name: str, limit_bytes: int) -> tuple[ImportedLog, Run]:
    """Return a log and the run of its busiest VM; what the replay has applied is not applied again.

    Raises
    ------
    TraceError
        If it is no log that can be read, or larger than the limit.
    """
    drafts: dict[int, RunDraft] = {}

    def watch(vm: int, command: Command, before: Kvm, step: Step | None) -> None:
        if vm not in drafts:
            drafts[vm] = RunDraft(Run(before))
        drafts[vm].add(command, before, step)

    log = import_log(data, name=name, limit_bytes=limit_bytes, watch=watch)
    return log, Run.new(log.profile, log.config) if log.vm is None else drafts[log.vm].run()


def preview_table(log: ImportedLog) -> tuple[tuple[str, str, str], ...]:
    """Return rows of line, what it became, and what or why."""
    return tuple(
        (
            _place(row),
            row.became if row.operation is None else f"{row.became} {row.operation + 1}".removeprefix("operation "),
            row.why,
        )
        for row in log.preview.rows
    )


def _place(row: PreviewRow) -> str:
    if row.lines == 1:
        return str(row.line)
    return (
        f"{row.line} to {row.line + row.lines - 1}"
        if row.became == "skipped"
        else f"{row.line} and {row.lines - 1} more"
    )


def preview_note(log: ImportedLog) -> str:
    """Return how many lines became what, and how many rows the table leaves out."""
    counts = [f"{count:,} {_BECAME[became]}" for became, count in log.preview.lines.items() if count]
    hidden = log.preview.hidden
    rest = f" {hidden:,} rows are left out here; explorer replay --preview prints all." if hidden else ""
    ended = f" Reading ended {log.stopped}." if log.stopped else ""
    return f"Lines: {', '.join(counts) or 'none'}.{rest}{ended}"


def divergence_words(log: ImportedLog) -> str:
    """Return where recorded and modelled results first differ, and which kernel fits best; empty if none does."""
    row, found = log.first_disagreement, log.divergence
    if row is None or found is None:
        return ""
    words = f"Line {row.line} is the first that differs: {_difference(row)}."
    own, best = found.of(log.profile.name), found.best
    of = f"of {'' if found.whole else 'the first '}{plural(best.operations, 'operation')}"
    if best.disagreements >= own.disagreements:
        return f"{words} No kernel explains more than {PROFILES[own.profile].title} does, {own.explained:,} {of}."
    fits, here = PROFILES[best.profile].title, PROFILES[own.profile].title
    return f"{words} {fits} fits best: it explains {best.explained:,} {of}, {here} {own.explained:,}."


def _difference(row: Row) -> str:
    recorded = "success" if row.recorded_ret == 0 else row.recorded_errno
    modelled = "success" if row.errno is None else f"{row.errno} from the check {row.guard}"
    return f"{row.kind or row.op} of slot {row.slot}, recorded {recorded}, modelled {modelled}"


def first_difference(log: ImportedLog) -> tuple[str, int] | None:
    """Return the words of a button and the operation of the first line that differs, if the run holds it."""
    row = log.first_disagreement
    if row is None or row.vm != log.vm:
        return None
    # A call that was supplied for a line stands before the line's own.
    at = next((at for at in range(len(log.lines) - 1, -1, -1) if log.lines[at] == row.line), None)
    return None if at is None else (f"Go to line {row.line}", at)
