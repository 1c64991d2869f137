"""Which named invariants hold along a run, and which operation breaks one: words for the timeline and the rail."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from explorer.engine.commands import SetMemoryRegion
from explorer.engine.invariants import INVARIANTS, STEP_INVARIANTS, get_invariant, get_step_invariant
from explorer.explain.sentences import op_words
from explorer.explain.sources import name_in
from explorer.explain.words import hex_text, plural
from explorer.history.checks import MOST_CHECKED
from explorer.selectors.timeline import in_sight

if TYPE_CHECKING:
    from explorer.engine.invariants import Invariant, StepInvariant, Violation
    from explorer.history import Run
    from explorer.history.checks import Broken, Checks

__all__ = ["BreakMark", "BrokenRow", "InvariantsView", "first_sentence", "near_of", "select_invariants"]

_NAMED = 3
"""Broken invariants that a mark names."""


class BrokenRow(NamedTuple):
    """One invariant that does not hold at a stop."""

    number: int
    name: str
    sentence: str
    """What must hold, where it does not, and what is there instead."""
    since: str
    """Which operation broke it."""
    why: str
    """Whether it is known of this kernel, and through what."""
    now: bool
    """Whether the operation of this stop broke it."""


class BreakMark(NamedTuple):
    """An operation that breaks an invariant which held before."""

    op: int
    word: str
    text: str


class InvariantsView(NamedTuple):
    """What is known around a stop."""

    marks: tuple[BreakMark, ...]
    broken: tuple[tuple[int, tuple[BrokenRow, ...]], ...]
    """For each operation near the stop after which something is broken, what."""
    status: str
    """How much of the run was looked at."""
    first: int | None
    """The earliest operation known to break something."""


def near_of(run: Run, op: int) -> list[int]:
    """Return the operations whose marks can be in sight, nearest ahead first, and the one before them."""
    shown = in_sight(run, op)
    ahead, behind = range(op, shown.stop), range(op - 1, shown.start - 2, -1)
    return [*ahead[:4], *behind[:2], *ahead[4:], *behind[2:]]


def select_invariants(run: Run, checks: Checks, op: int) -> InvariantsView:
    """Return what is known of the invariants around an operation of a run; -1 is its start."""
    near = sorted(near_of(run, op))
    marks = tuple(_mark(at, checks.breaks[at]) for at in near if at in checks.breaks)
    broken = []
    for at in near:
        found = (*(checks.after(at) or ()), *checks.by_step(at))
        if found:
            broken.append((at, tuple(_row(run, checks, each, at) for each in found)))
    return InvariantsView(marks, tuple(broken), _status(run, checks, op), checks.first)


def first_sentence(run: Run, checks: Checks) -> str:
    """Return which operation breaks an invariant first, as far as is known."""
    first = checks.first
    name = run.start.profile.name
    if first is None:
        seen = _seen(run, checks)
        of_states, of_steps = len(INVARIANTS), _of_steps(run)
        return f"No invariant is broken on {name}: {of_states} of states and {of_steps} of steps hold {seen}."
    words = _names(checks.breaks[first])
    sure = (
        "The first violation"
        if checks.first_is_sure
        else f"The earliest violation found so far ({checks.checked:,} of {plural(len(run), 'operation')} looked at in"
        " order, and backwards by halves from the end)"
    )
    where = _row(run, checks, checks.breaks[first][0], first)
    return f"{sure} on {name}: {_title(run, first)} breaks {words}. {where.sentence}"


def _of_steps(run: Run) -> int:
    """Return how many properties of steps concern the kernel of a run."""
    return sum(each.concerns(run.start.profile) for each in STEP_INVARIANTS)


def _seen(run: Run, checks: Checks) -> str:
    n = checks.checked
    if n >= len(run):
        return f"after each of {plural(len(run), 'operation')}"
    return f"after the first {plural(n, 'operation')} of {len(run):,}; later ones are not all looked at"


def _names(broken: tuple[Broken, ...]) -> str:
    names = [f"“{_invariant(b).name}” (I{b.number})" for b in broken[:_NAMED]]
    more = f" and {len(broken) - _NAMED} more" if len(broken) > _NAMED else ""
    return ", ".join(names) + more


def _mark(op: int, broken: tuple[Broken, ...]) -> BreakMark:
    return BreakMark(op, "violation", f"breaks {_names(broken)}")


def _invariant(broken: Broken) -> Invariant | StepInvariant:
    return get_step_invariant(broken.number) if broken.of_step else get_invariant(broken.number)


def _row(run: Run, checks: Checks, broken: Broken, op: int) -> BrokenRow:
    invariant = _invariant(broken)
    profile = run.start.profile
    since = op if broken.of_step else checks.since(broken.number, op)
    if not invariant.holds(profile):
        why = f"Known of {profile.title}: {invariant.otherwise}."
    elif invariant.unless:
        why = f"{profile.title} promises it, unless {invariant.unless}."
    else:
        why = f"{profile.title} promises it: kernel or model is wrong here."
    more = f" {plural(broken.places - 1, 'further place')}." if broken.places > 1 else ""
    return BrokenRow(
        number=invariant.number,
        name=invariant.name,
        sentence=f"{_place(broken.first)}: {broken.first.expected} expected, {broken.first.found} found.{more}",
        since=f"broken by {_title(run, since)}" if since is not None else "broken by an earlier operation",
        why=why,
        now=since == op,
    )


def _place(found: Violation) -> str:
    parts = []
    if found.gfn is not None:
        parts.append(f"gfn {hex_text(found.gfn)}")
    if found.slot is not None:
        parts.append(f"slot {found.slot}")
    if found.as_id:
        parts.append(f"address space {found.as_id}")
    return ", ".join(parts) or "The whole VM"


def _title(run: Run, op: int) -> str:
    """Return an operation's number, name and, for a region call, its kernel function."""
    command, outcome = run.commands[op], run.outcomes[op]
    title, detail = op_words(command)
    if isinstance(command, SetMemoryRegion):
        function = name_in("kvm_set_memory_region", run.start.profile) or "kvm_set_memory_region"
        title = outcome.change.value if outcome.change is not None else "the refused call"
        return f"operation {op + 1}, {title} of slot {command.slot} by {function}()"
    return f"operation {op + 1}, {title.lower()} {detail}".rstrip()


def _status(run: Run, checks: Checks, op: int) -> str:
    if checks.is_skipped(op):
        return f"Invariants are not evaluated here: more than {MOST_CHECKED:,} slots, shadow pages and watches."
    found = checks.after(op)
    if found is None:
        return "Invariants are not evaluated here yet."
    by_step = len(checks.by_step(op))
    total = len(INVARIANTS) + (_of_steps(run) if op >= 0 else 0)
    held = total - len(found) - by_step
    when = f"after operation {op + 1}" if op >= 0 else "at the start"
    return f"{held} of {total} invariants hold {when} on {run.start.profile.title}."
