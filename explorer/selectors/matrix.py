"""One call under every configuration: kernel, build option, tracker; what it answers there, and what it costs.

The intended answer is that of the series as it was merged (v6_6) in the same column.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple

from explorer.engine.profile import PROFILES, KernelProfile
from explorer.engine.uapi import KvmMrChange
from explorer.explain.words import errno_text, plural
from explorer.history.machine import Machine, machine_of
from explorer.history.rerun import Reruns
from explorer.selectors.configurations import (
    COLUMNS,
    MERGED,
    POSTED,
    ROWS,
    Answer,
    Call,
    answer_in,
    built,
    has_trackers,
    is_attached,
    is_quiet,
    settings_needed,
    variants_of,
)
from explorer.selectors.rail import RECORDED

if TYPE_CHECKING:
    from explorer.engine.state import Kvm
    from explorer.history import Run

__all__ = ["INTENDED", "MatrixCell", "MatrixColumn", "MatrixRow", "MatrixView", "select_matrix"]

INTENDED = MERGED
"""The profile whose answers are the intended ones."""
_DONE = {
    KvmMrChange.CREATE: "created",
    KvmMrChange.DELETE: "deleted",
    KvmMrChange.MOVE: "moved",
    KvmMrChange.FLAGS_ONLY: "flags set",
    KvmMrChange.NOOP: "no-op",
}
_NAMES = {KvmMrChange.FLAGS_ONLY: "flags change", KvmMrChange.NOOP: "no-op"}

Mark = Literal["allowed", "refused", "lost", "impossible", "pending"]


class MatrixCell(NamedTuple):
    """What the call comes to in one configuration."""

    profile: str
    built_in: bool
    attached: bool
    mark: Mark
    result: str
    """``0`` or such as ``−EINVAL``; empty if there is none."""
    word: str
    cost: str
    differs: bool
    """Whether the result is not the intended one."""
    here: bool
    """Whether this is the configuration of the page."""
    variants: tuple[str, ...]
    """What TDP or the other zap would change, if anything."""
    spoken: str


class MatrixRow(NamedTuple):
    """One kernel."""

    profile: str
    title: str
    test: str
    """When it refuses a MOVE."""
    provenance: str
    cells: tuple[MatrixCell, ...]
    wrong: int
    """Cells that differ from the intended answer."""
    loud: bool
    """Whether this row is the message."""


class MatrixColumn(NamedTuple):
    """One way to build and use a kernel."""

    build: str
    use: str
    how: str
    """How the run comes to be so."""


class MatrixView(NamedTuple):
    """The whole matrix."""

    op: int
    """Place of the call in the run; the run's length for the composed one."""
    title: str
    where: str
    columns: tuple[MatrixColumn, ...]
    rows: tuple[MatrixRow, ...]
    finding: str
    """What the series as posted comes to."""
    shows: tuple[str, ...]
    """Which configurations show it, and why others cannot."""
    test: Literal["posted", "merged", ""]
    """Which form of the test the page's kernel has; empty for a kernel that is neither."""
    pending: int
    """Cells that are not computed yet."""


def select_matrix(run: Run, call: Call, reruns: Reruns | None = None) -> MatrixView:
    """Return the matrix of a call; without `reruns` everything is computed, with it what they have reached."""
    if reruns is None:
        reruns = Reruns()
        reruns.follow(run.commands)
        reruns.work(settings_needed(run, call, reruns), call.op)
    own = machine_of(run.start)
    before = run.kvm_before(call.op)
    here = (own.profile, own.config.external_write_tracking, is_attached(before))
    if not is_attached(before) and not is_quiet(before, trackers=has_trackers(reruns, call)):
        here = ("", False, False)  # nobody got in, but the run asks for pages all the same
    answers = {
        (name, *column): answer_in(reruns, built(own.on(name), built_in=column[0]), call, attached=column[1])
        for name in ROWS
        for column in COLUMNS
    }
    rows = tuple(_row(name, answers, reruns, run, call, here) for name in ROWS)
    finding, shows = _finding(rows, answers)
    change = next((a.change for a in answers.values() if a is not None and a.change is not None), None)
    name = "Call" if change is None else _NAMES.get(change, change.value)
    return MatrixView(
        op=call.op,
        title=f"One {name}, every configuration",
        where=f"slot {call.command.slot}, {call.where}",
        columns=_columns(before),
        rows=rows,
        finding=finding,
        shows=shows,
        test={POSTED: "posted", MERGED: "merged"}.get(own.profile, ""),  # type: ignore[arg-type]
        pending=sum(answer is None for answer in answers.values()),
    )


# -- words -----------------------------------------------------------------------------------------


def _row(
    name: str,
    answers: dict[tuple[str, bool, bool], Answer | None],
    reruns: Reruns,
    run: Run,
    call: Call,
    here: tuple[str, bool, bool],
) -> MatrixRow:
    profile = PROFILES[name]
    machine = machine_of(run.start).on(name)
    cells = []
    for built_in, attached in COLUMNS:
        answer, intended = answers[name, built_in, attached], answers[INTENDED, built_in, attached]
        differs = (
            answer is not None
            and intended is not None
            and not answer.impossible
            and not intended.impossible
            and (answer.errno, answer.change) != (intended.errno, intended.change)
        )
        variants = _different(reruns, built(machine, built_in=built_in), call, answer, attached=attached)
        mark, result, word, cost = _shown(answer)
        is_here = here == (name, built_in, attached)
        spoken = ", ".join(
            (
                profile.title,
                _column_title(built_in=built_in, attached=attached),
                f"{result} {word}".strip(),
                *((cost,) if cost else ()),
                *(("not the intended result",) if differs else ()),
                *variants,
                *(("where the page is",) if is_here else ()),
            )
        )
        cells.append(MatrixCell(name, built_in, attached, mark, result, word, cost, differs, is_here, variants, spoken))
    wrong = sum(cell.differs for cell in cells)
    title = f"{profile.title} as merged" if name == INTENDED else profile.title
    return MatrixRow(
        name, title, _test(profile), _backing(name), tuple(cells), wrong, profile.kind == "posted" and wrong > 0
    )


def _different(
    reruns: Reruns, machine: Machine, call: Call, answer: Answer | None, *, attached: bool
) -> tuple[str, ...]:
    """Return what other paging or the other zap would change."""
    if answer is None or answer.impossible:
        return ()
    told = []
    for name, variant in variants_of(machine, call):
        other = answer_in(reruns, variant, call, attached=attached)
        if other is not None and other.verdict != answer.verdict:
            _, result, word, _ = _shown(other)
            told.append(f"{name}: {result} {word}".strip())
    return tuple(told)


def _shown(answer: Answer | None) -> tuple[Mark, str, str, str]:
    """Return mark, result, word and cost."""
    if answer is None:
        return "pending", "", "not computed yet", ""
    if answer.impossible:
        return "impossible", "", "cannot be", answer.impossible
    cost = f"gen +{answer.generation}" if answer.generation else ""
    if answer.zap:
        cost += f", zap {answer.zap}"
    if answer.errno is not None:
        return "refused", errno_text(answer.errno), "", cost or "free"
    harm = next(iter(_harm(answer)), "")
    if harm:
        return "lost", "0", harm, cost
    return "allowed", "0", _DONE.get(answer.change, "done") if answer.change is not None else "done", cost


def _harm(answer: Answer) -> tuple[str, ...]:
    """Return what the call did to watches although it was allowed, and whether the kernel warned."""
    told = ((answer.lost, "lost"), (answer.dropped, "dropped by KVMGT"), (answer.astray, "astray"))
    warned = ("the kernel warned",) if answer.warned else ()
    return (*(f"{plural(n, 'watch')} {what}" for n, what in told if n), *warned)


def _test(profile: KernelProfile) -> str:
    if not profile.move_refused_for_external_user:
        return "never asks"
    return "list empty" if profile.has_external_user_inverted else "list not empty"


def _backing(name: str) -> str:
    kernel = RECORDED.get(name)
    return f"checked on {kernel}" if kernel is not None else "what-if" if name == "v6_6_nocheck" else "model"


def _column_title(*, built_in: bool, attached: bool) -> str:
    return f"{'built in' if built_in else 'not built in'}, {'tracker attached' if attached else 'nobody attached'}"


def _columns(before: Kvm) -> tuple[MatrixColumn, ...]:
    attached_now = is_attached(before)
    how = {
        True: "as in the run" if attached_now else "KVMGT added",
        False: "tracker left out" if attached_now else "as in the run",
    }
    return tuple(
        MatrixColumn(
            f"external write tracking {'' if built_in else 'not '}built in",
            "tracker attached" if attached else "nobody attached",
            how[attached] if built_in == before.config.external_write_tracking else "",
        )
        for built_in, attached in COLUMNS
    )


def _finding(
    rows: tuple[MatrixRow, ...], answers: dict[tuple[str, bool, bool], Answer | None]
) -> tuple[str, tuple[str, ...]]:
    """Return what the series as posted comes to, and which configurations show it."""
    row = next(row for row in rows if row.profile == POSTED)
    cells = [cell for cell in row.cells if cell.mark != "impossible"]
    wrong = [cell for cell in cells if cell.differs]
    if not cells or any(cell.mark == "pending" for cell in (*row.cells, *rows[0].cells)):
        return "", ()
    if not wrong:
        why = "" if _moves(answers) else ": only a MOVE meets the test"
        return f"As posted, all {len(cells)} answers are the intended ones{why}", ()
    shows: tuple[str, ...] = ()
    if any(not c.built_in and not c.differs for c in cells):
        shows = ("not built in, `kvm_page_track_has_external_user()` is a constant false: such a build cannot show it",)
    return f"As posted, {len(wrong)} of {len(cells)} answers are not the intended ones", shows


def _moves(answers: dict[tuple[str, bool, bool], Answer | None]) -> bool:
    return any(answer is not None and answer.change is KvmMrChange.MOVE for answer in answers.values())
