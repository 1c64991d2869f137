"""A run: a VM at its start, the commands that followed, and every moment between them.

A run is immutable. It keeps a snapshot every `KEYFRAME` operations and one small record per operation;
anything else, the phases of a region call above all, is computed again when somebody looks, so a run of
a hundred thousand operations stays small and stepping back is exact.
"""

from __future__ import annotations

from copy import copy
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

from explorer.engine.apply import Step, apply, walk
from explorer.engine.commands import SetMemoryRegion
from explorer.engine.events import CallRefused
from explorer.engine.state import Kvm, new_vm
from explorer.history.lives import Lives, lives_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from explorer.engine.commands import Command
    from explorer.engine.config import VmConfig
    from explorer.engine.events import Event
    from explorer.engine.profile import KernelProfile
    from explorer.engine.types import Errno
    from explorer.engine.uapi import KvmMrChange

__all__ = ["KEYFRAME", "Cell", "OpDetail", "Outcome", "Run", "RunDraft", "Stop"]

KEYFRAME = 16
"""Operations between two kept snapshots."""
_DETAILS_KEPT = 64


class Outcome(NamedTuple):
    """What one operation came to, small enough to keep for every operation."""

    errno: Errno | None
    change: KvmMrChange | None
    """For a region call, what it was found to be."""
    refused_by: str | None
    """Name of the check that refused."""


class Stop(NamedTuple):
    """A moment of a run: inside or at the end of an operation.

    ``Stop(-1, 0)`` is the start of the run. Stops order as time does.
    """

    op: int
    """Which operation, from 0."""
    cell: int
    """Which step inside it, from 0; the last is its end."""


START = Stop(-1, 0)


class Cell(NamedTuple):
    """One step of an operation as a reader sees it: neighbouring phases with one word."""

    word: str
    function: str
    """Kernel function the step ends in; empty for what is not a kernel call."""
    kvm: Kvm
    """The VM at the end of the step."""
    events: tuple[Event, ...]
    refused: bool
    """Whether a check refused in this step."""
    swaps: int
    """Swaps of the active memslot set in this step."""


class OpDetail(NamedTuple):
    """One operation with every moment inside it."""

    number: int
    """Position in the run, from 0."""
    command: Command
    before: Kvm
    step: Step
    cells: tuple[Cell, ...]


class Run:
    """A start and the operations that followed.

    Parameters
    ----------
    start
        The VM before the first operation.
    commands
        The operations; they are applied at once.
    """

    def __init__(self, start: Kvm, commands: Iterable[Command] = ()) -> None:
        """Apply every command and keep outcomes and keyframes."""
        self._start = start
        self._end = start
        self._commands: tuple[Command, ...] = ()
        self._keyframes: tuple[Kvm, ...] = (start,)
        self._outcomes: tuple[Outcome, ...] = ()
        self._details: dict[int, OpDetail] = {}
        self._lives: Lives | None = None
        self._extend(tuple(commands))

    def _extend(self, commands: tuple[Command, ...]) -> None:
        draft = RunDraft(self)
        for command in commands:
            draft.add(command)
        self._take(draft)

    def _take(self, draft: RunDraft) -> None:
        self._end = draft.end
        self._commands += tuple(draft.commands)
        self._outcomes += tuple(draft.outcomes)
        self._keyframes += tuple(draft.keyframes)

    @classmethod
    def new(cls, profile: KernelProfile | str, config: VmConfig | None, commands: Iterable[Command] = ()) -> Run:
        """Return a run from a new VM."""
        return cls(new_vm(profile, config), commands)

    def __len__(self) -> int:
        """Return the number of operations."""
        return len(self._commands)

    def __eq__(self, other: object) -> bool:
        """Compare what decides a run, its start and its operations: the engine is deterministic."""
        return isinstance(other, Run) and (self._start, self._commands) == (other._start, other._commands)

    def __hash__(self) -> int:
        """Hash by what decides the run."""
        return hash(self._commands)

    @property
    def start(self) -> Kvm:
        """The VM before the first operation."""
        return self._start

    @property
    def end(self) -> Kvm:
        """The VM after the last operation."""
        return self._end

    @property
    def commands(self) -> tuple[Command, ...]:
        """The operations in order."""
        return self._commands

    @property
    def outcomes(self) -> tuple[Outcome, ...]:
        """What each operation came to."""
        return self._outcomes

    @property
    def lives(self) -> Lives:
        """What became of every slot; a run that goes on from this one goes on from there."""
        if self._lives is None or self._lives.ops < len(self):
            self._lives = lives_of(self, self._lives)
        return self._lives

    def then(self, *commands: Command) -> Run:
        """Return the run with more operations at its end; what was there is not applied again."""
        draft = RunDraft(self)
        for command in commands:
            draft.add(command)
        return draft.run()

    def up_to(self, n: int) -> Run:
        """Return the run of the first `n` operations."""
        return self if n >= len(self) else Run(self._start, self._commands[:n])

    def on(self, profile: KernelProfile | str, config: VmConfig) -> Run:
        """Return the same operations on another kernel or machine, from a new VM."""
        return Run(new_vm(profile, config), self._commands)

    def kvm_before(self, index: int) -> Kvm:
        """Return the VM before operation `index`; ``len(run)`` is the end."""
        if index == len(self._commands):
            return self._end
        first = index // KEYFRAME * KEYFRAME
        kvm = self._keyframes[index // KEYFRAME]
        for at in range(index - 1, first - 1, -1):  # who steps on looked at the operation before
            if (seen := self._details.get(at)) is not None:
                first, kvm = at + 1, seen.step.kvm
                break
        for command in self._commands[first:index]:
            kvm = apply(kvm, command, record=False).kvm
        return kvm

    def detail(self, index: int) -> OpDetail:
        """Return operation `index` with every step inside it."""
        found = self._details.get(index)
        if found is None:
            found = look_inside(self.kvm_before(index), self._commands[index], index)
            if len(self._details) >= _DETAILS_KEPT:
                self._details.pop(next(iter(self._details)))
            self._details[index] = found
        return found

    def kvm_at(self, stop: Stop) -> Kvm:
        """Return the VM at a stop."""
        if stop.op < 0:
            return self._start
        return self.detail(stop.op).cells[stop.cell].kvm

    def end_of(self, index: int) -> Stop:
        """Return the stop at the end of operation `index`; -1 is the start."""
        return START if index < 0 else Stop(index, len(self.detail(index).cells) - 1)

    @cached_property
    def last_stop(self) -> Stop:
        """The stop at the end of the run."""
        return self.end_of(len(self) - 1)

    def clamp(self, stop: Stop) -> Stop:
        """Return the nearest stop that exists."""
        if stop.op < 0:
            return START
        if stop.op >= len(self):
            return self.last_stop
        return Stop(stop.op, min(max(stop.cell, 0), len(self.detail(stop.op).cells) - 1))


class RunDraft:
    """A run that grows by one operation at a time, from the end of another run."""

    def __init__(self, run: Run) -> None:
        """Go on where `run` ends."""
        self._run = run
        self.end = run.end
        """The VM after the last operation."""
        self.commands: list[Command] = []
        self.outcomes: list[Outcome] = []
        self.keyframes: list[Kvm] = []
        """What the run has more than the one it goes on from."""

    def add(self, command: Command, before: Kvm | None = None, step: Step | None = None) -> None:
        """Add an operation; if `step` was made from `before`, and that is where the run is, it is not made again."""
        index = len(self._run) + len(self.commands)
        if index and index % KEYFRAME == 0:
            self.keyframes.append(self.end)
        if step is None or before is not self.end:
            step = apply(self.end, command, record=False)
        self.end = step.kvm
        self.commands.append(command)
        refused_by = step.refused_by.name if step.refused_by is not None else None
        self.outcomes.append(Outcome(step.errno, step.change, refused_by))

    def run(self) -> Run:
        """Return the run as it is now; the one it goes on from stays as it was."""
        longer = copy(self._run)
        longer._details = dict(self._run._details)
        longer.__dict__.pop("last_stop", None)
        longer._take(self)
        return longer


def look_inside(before: Kvm, command: Command, index: int = 0) -> OpDetail:
    """Run one command on a snapshot and return every step inside it; the snapshot stays as it is."""
    if not isinstance(command, SetMemoryRegion):
        step = apply(before, command)
        return OpDetail(
            index, command, before, step, (Cell("done", "", step.kvm, step.events, step.errno is not None, 0),)
        )
    step, phases = walk(before, command)
    cells: list[Cell] = []
    for phase, kvm, events in phases:
        refused = any(isinstance(event, CallRefused) for event in events)
        swaps = phase.name.startswith("publish")
        if cells and cells[-1].word == phase.cell:
            last = cells.pop()
            cells.append(
                Cell(last.word, phase.function, kvm, last.events + events, last.refused or refused, last.swaps + swaps)
            )
        else:
            cells.append(Cell(phase.cell, phase.function, kvm, events, refused, int(swaps)))
    return OpDetail(index, command, before, step, tuple(cells))
