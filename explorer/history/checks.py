"""The named invariants along a run: which are broken after which operation, found out piece by piece.

A check of one state costs a pass over its slots and shadow pages, so a run is checked one invariant of one state
at a time: first around the place that is looked at, then at the end, from where what is broken is traced back by
bisection, then from the start on. States are those at the end of operations; inside a region call much is allowed.
With the state after an operation the properties of its step are checked, which speak of nothing else.

Rule: nothing is guessed. An operation breaks an invariant if it holds before and does not hold after, both looked
at, or if its step breaks a property of steps; and the first of a run is called that only once every operation before
it was looked at.
Not modelled: states that hold more than `MOST_CHECKED` slots, shadow pages, entries and watched pages together,
which are not looked at.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from explorer.engine.apply import apply
from explorer.engine.invariants import INVARIANTS, STEP_INVARIANTS
from explorer.engine.state import WriteTrack

if TYPE_CHECKING:
    from collections.abc import Iterable

    from explorer.engine.apply import Step
    from explorer.engine.invariants import Violation
    from explorer.engine.state import Kvm
    from explorer.history.run import Run

__all__ = ["MOST_CHECKED", "Broken", "Checks"]

MOST_CHECKED = 1500
"""Slots, shadow pages, their entries and watched pages, together, of a state that is checked."""


class Broken(NamedTuple):
    """One invariant that does not hold after an operation, or that its step breaks."""

    number: int
    first: Violation
    """Of its violations, the first."""
    places: int
    """How many violations there are."""
    of_step: bool = False
    """Whether it is a property of steps; some numbers are those of a state's and of a step's."""


class _Open(NamedTuple):
    """An operation that is being checked."""

    op: int
    before: Kvm
    step: Step | None
    """None at the start of the run, which no operation made."""
    kvm: Kvm
    """The state after it."""
    found: tuple[Broken, ...]
    next: int
    """Position in `INVARIANTS`, and behind its end in `STEP_INVARIANTS`."""


class Checks:
    """What was found out about one run."""

    def __init__(self) -> None:
        """Start with nothing checked."""
        self._run: Run | None = None
        self._found: dict[int, tuple[Broken, ...]] = {}
        self._skipped: set[int] = set()
        self._steps: dict[int, tuple[Broken, ...]] = {}
        """What the step of an operation breaks; operations that break nothing are not in it."""
        self._breaks: dict[int, tuple[Broken, ...]] = {}
        self._open: _Open | None = None
        self._near: tuple[int, Kvm] | None = None
        self._looked: tuple[Kvm, tuple[Broken, ...]] | None = None
        self._prefix = self._scan = 0

    def follow(self, run: Run) -> None:
        """Check this run from now on; what it has in common with the one before stays."""
        old, self._run = self._run, run
        if old is run:
            return
        same = _shared(old, run) if old is not None else -1
        if old is not None and same == len(old):
            return  # it grew
        for of in (self._found, self._steps, self._breaks):
            for op in [op for op in of if op >= same]:
                del of[op]
        self._skipped = {op for op in self._skipped if op < same}
        self._open = self._near = self._looked = None
        self._prefix, self._scan = min(self._prefix, max(same, 0)), min(self._scan, max(same, 0))

    # -- answers ---------------------------------------------------------------------------------

    def after(self, op: int) -> tuple[Broken, ...] | None:
        """Return what is broken after an operation, -1 for the start; None if it was not looked at."""
        return self._found.get(op)

    def by_step(self, op: int) -> tuple[Broken, ...]:
        """Return which properties of steps an operation breaks, as far as known."""
        return self._steps.get(op, ())

    def is_skipped(self, op: int) -> bool:
        """Return whether the state after an operation is too large to be checked."""
        return op in self._skipped

    @property
    def breaks(self) -> dict[int, tuple[Broken, ...]]:
        """Which operations break an invariant that held before, as far as known."""
        return self._breaks

    @property
    def checked(self) -> int:
        """How many operations from the start on were looked at without a hole."""
        return self._prefix

    @property
    def first(self) -> int | None:
        """The earliest operation known to break an invariant."""
        return min(self._breaks, default=None)

    @property
    def first_is_sure(self) -> bool:
        """Whether no operation before `first` breaks one."""
        first = self.first
        return first is not None and first <= self._prefix

    def since(self, number: int, op: int) -> int | None:
        """Return the last operation up to `op` that broke an invariant; None if it is not known."""
        states = {at: [b.number for b in found if not b.of_step] for at, found in self._breaks.items() if at <= op}
        known = (at for at, numbers in states.items() if number in numbers)
        return max(known, default=None)

    # -- work ------------------------------------------------------------------------------------

    def work(self, near: Iterable[int], *, far: bool = True) -> bool:
        """Check one invariant of one state.

        Parameters
        ----------
        near
            Operations to look at first.
        far
            Whether to look at the rest of the run, too, once these are done.

        Returns
        -------
        bool
            Whether there is anything left to do.
        """
        if self._open is None:
            op = self._next(near, far=far)
            if op is None:
                return False
            self._begin(op)
            return True
        now = self._open
        self._open = now._replace(found=now.found + self._check(now), next=now.next + 1)
        if self._open.next == len(INVARIANTS) + (len(STEP_INVARIANTS) if now.step is not None else 0):
            found = tuple(broken for broken in self._open.found if not broken.of_step)
            by_step = tuple(broken for broken in self._open.found if broken.of_step)
            self._open = None
            self._looked = (now.kvm, found)
            self._note(now.op, found, by_step)
        return True

    def _check(self, now: _Open) -> tuple[Broken, ...]:
        """Check the next invariant of an operation."""
        assert self._run is not None, "a run is followed first"
        of_step = now.next >= len(INVARIANTS)
        if of_step:
            assert now.step is not None, "only an operation has a step"
            step_invariant = STEP_INVARIANTS[now.next - len(INVARIANTS)]
            if not step_invariant.concerns(now.before.profile):
                return ()
            number = step_invariant.number
            violations = step_invariant.check(now.before, self._run.commands[now.op], now.step)
        else:
            number = INVARIANTS[now.next].number
            violations = INVARIANTS[now.next].check(now.kvm)
        return (Broken(number, violations[0], len(violations), of_step),) if violations else ()

    def _next(self, near: Iterable[int], *, far: bool) -> int | None:
        assert self._run is not None, "a run is followed first"
        last = len(self._run) - 1
        for op in near:
            if -1 <= op <= last and self._is_open(op):
                return op
        if not far:
            return None
        for op in (-1, last):
            if self._is_open(op):
                return op
        middle = self._bisect(last)
        if middle is not None:
            return middle
        while self._scan <= last and not self._is_open(self._scan):
            self._scan += 1
        return self._scan if self._scan <= last else None

    def _bisect(self, last: int) -> int | None:
        """Return the next operation to look at on the way to where something broken at the end broke."""
        for broken in self._found.get(last, ()):
            low, high = -1, last
            while high - low > 1:
                middle = (low + high) // 2
                if middle in self._skipped:
                    break
                found = self._found.get(middle)
                if found is None:
                    return middle
                low, high = (low, middle) if any(b.number == broken.number for b in found) else (middle, high)
        return None

    def _is_open(self, op: int) -> bool:
        return op not in self._found and op not in self._skipped

    def _begin(self, op: int) -> None:
        before, step = self._step_of(op)
        kvm = before if step is None else step.kvm
        if _is_too_large(kvm):
            self._skipped.add(op)
        elif self._looked is not None and self._looked[0] is kvm:
            if step is None:
                self._note(op, self._looked[1], ())
            else:
                self._open = _Open(op, before, step, kvm, self._looked[1], len(INVARIANTS))
        else:
            self._open = _Open(op, before, step, kvm, (), 0)

    def _step_of(self, op: int) -> tuple[Kvm, Step | None]:
        """Return the VM before an operation and its step; after the last that was asked for, that is fast."""
        run = self._run
        assert run is not None, "a run is followed first"
        if op < 0:
            self._near = (op, run.start)
            return run.start, None
        before = self._near[1] if self._near is not None and self._near[0] == op - 1 else run.kvm_before(op)
        step = apply(before, run.commands[op], record=False)
        self._near = (op, step.kvm)
        return before, step

    def _note(self, op: int, found: tuple[Broken, ...], by_step: tuple[Broken, ...]) -> None:
        self._found[op] = found
        if by_step:
            self._steps[op] = by_step
        for at in (op, op + 1):
            before, after = self._found.get(at - 1), self._found.get(at)
            new = self.by_step(at)
            if before is not None and after is not None:
                held = {b.number for b in before}
                new = (*(b for b in after if b.number not in held), *new)
            if new:
                self._breaks[at] = new
        while self._prefix in self._found:
            self._prefix += 1


def _is_too_large(kvm: Kvm) -> bool:
    size = sum(len(space.active.id_hash) for space in kvm.memslots)
    size += len(kvm.active_mmu_pages) + len(kvm.sptes.entries)
    if size <= MOST_CHECKED:  # so few slots have few arrays
        size += sum(len(array.counts) for array in kvm.heap.values() if isinstance(array, WriteTrack))
    return size > MOST_CHECKED


def _shared(old: Run, new: Run) -> int:
    """Return how many operations two runs begin with in common; -1 if they start differently."""
    if old.start is not new.start and old.start != new.start:
        return -1
    n = min(len(old), len(new))
    if old.commands[:n] == new.commands[:n]:
        return n
    return next(at for at in range(n) if old.commands[at] != new.commands[at])
