"""Who would break: operations of a log whose result changes on another kernel, or when an external tracker attaches.

Four models go through the log side by side: two kernels, each without and with an external page tracker. Each operation
is judged from the layout that the log leads to, so that one change does not drag others behind it: where a model
refuses what the log accepted, its layout is brought to the log's by a DELETE and a CREATE; where it accepts what the
log refused, it is left as it was. A slot that a model cannot have at all is told as a consequence.

Not modelled: what a VMM would do next after another answer. Read next: `imported`.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from explorer.engine.apply import apply
from explorer.engine.commands import AttachTracker, SetMemoryRegion
from explorer.engine.state import new_vm
from explorer.engine.types import ExplorerError
from explorer.trace.replay import Replay

if TYPE_CHECKING:
    from explorer.engine.apply import Step
    from explorer.engine.commands import Command
    from explorer.engine.config import VmConfig
    from explorer.engine.profile import KernelProfile
    from explorer.engine.state import Kvm
    from explorer.trace.lift import Row
    from explorer.trace.source import Source

__all__ = ["AbiLens", "Change", "Comparison", "Moves", "look_through"]

_KEPT_CHANGES = 1000
_KEPT_LINES = 1000


class Change(NamedTuple):
    """One operation whose result changes."""

    line: int
    operation: int
    vm: int
    kind: str
    slot: int
    old: str | None
    """Errno, or None for success."""
    new: str | None
    check: str | None
    """The check that refuses on one side only."""
    follows: bool
    """Whether it only follows from an earlier change: a model cannot have this slot at all."""


class Comparison(NamedTuple):
    """Two models of one log."""

    title: str
    changes: tuple[Change, ...]
    """The first of them."""
    changed: int
    """How many results change, without those that only follow from others."""
    consequences: int


class Moves(NamedTuple):
    """Whether a VMM ever moves a slot."""

    accepted: int
    refused: int
    lines: tuple[int, ...]
    """Where, the first of them, refused ones included."""


class AbiLens(NamedTuple):
    """What changes for the VMM that wrote a log."""

    operations: int
    moves: Moves
    comparisons: tuple[Comparison, ...]
    """Old and new kernel without a tracker, both with one, and each when a tracker attaches."""


class _Side:
    """One model: a kernel, with or without a tracker."""

    def __init__(self, profile: KernelProfile, config: VmConfig, *, tracker: bool) -> None:
        config = replace(config, external_write_tracking=True) if tracker else config
        self.tracker = tracker
        self._new = new_vm(profile, config)
        if tracker:
            step = apply(self._new, AttachTracker(user=0, kind="log"), record=False)
            if step.errno is not None:
                raise ExplorerError(f"no external tracker can attach on {profile.name}: {step.errno.name}")
            self._new = step.kvm
        self._kvms: dict[int, Kvm] = {}
        self._impossible: set[tuple[int, int, int]] = set()

    def run(self, vm: int, command: Command, *, accepted: bool) -> tuple[Step, bool]:
        """Run a command; return its step, and whether it is about a slot this model cannot have."""
        kvm = self._kvms.get(vm, self._new)
        step = apply(kvm, command, record=False)
        follows = False
        if isinstance(command, SetMemoryRegion):
            key = (vm, command.as_id, command.slot)
            follows = key in self._impossible
            if accepted and step.errno is not None:
                self._kvms[vm], possible = _forced(step.kvm, command)
                (self._impossible.discard if possible else self._impossible.add)(key)
                return step, follows
            if not accepted and step.errno is None:
                self._kvms[vm] = kvm
                return step, follows
        self._kvms[vm] = step.kvm
        return step, follows


def _forced(kvm: Kvm, command: SetMemoryRegion) -> tuple[Kvm, bool]:
    """Bring a slot to where the log has it; return whether that is possible."""
    gone = replace(command, memory_size=0, flags=0)
    kvm = apply(kvm, gone, record=False).kvm
    if not command.memory_size:
        return kvm, True
    step = apply(kvm, command, record=False)
    return step.kvm, step.errno is None


class _Pair:
    """Two sides, compared."""

    def __init__(self, title: str, old: int, new: int) -> None:
        self.title = title
        self.old, self.new = old, new
        self.changes: list[Change] = []
        self.count = self.consequences = 0

    def compare(self, row: Row, steps: list[tuple[Step, bool]]) -> None:
        (one, follows), (other, follows_too) = steps[self.old], steps[self.new]
        if one.errno == other.errno:
            return
        if follows or follows_too:
            self.consequences += 1
        else:
            self.count += 1
        if len(self.changes) < _KEPT_CHANGES:
            fired = other.refused_by or one.refused_by
            before, after = (None if step.errno is None else step.errno.name for step in (one, other))
            kind = row.kind or row.op
            check = None if fired is None else fired.name
            self.changes.append(
                Change(row.line, row.number, row.vm, kind, row.slot, before, after, check, follows or follows_too)
            )

    def comparison(self) -> Comparison:
        return Comparison(self.title, tuple(self.changes), self.count, self.consequences)


def look_through(source: Source, old: KernelProfile, new: KernelProfile) -> AbiLens:
    """Compare what two kernels answer to the operations of a log.

    Raises
    ------
    TraceError
        If it is no log that can be read.
    """
    replay = Replay(source)  # what the log itself leads to, on the kernel it is from
    sides = [_Side(profile, replay.config, tracker=tracker) for tracker in (False, True) for profile in (old, new)]
    pairs = [
        _Pair(f"{old.name} to {new.name}", 0, 1),
        _Pair(f"{old.name} to {new.name}, an external tracker attached to both", 2, 3),
        _Pair(f"{old.name} when an external tracker attaches", 0, 2),
        _Pair(f"{new.name} when an external tracker attaches", 1, 3),
    ]
    operations = accepted_moves = refused_moves = 0
    lines: list[int] = []
    machines = replay.lift.machines
    for row in replay.rows():
        operations += 1
        accepted = row.recorded_ret == 0 if row.recorded_ret is not None else row.errno is None
        if row.kind == "MOVE":
            accepted_moves += accepted
            refused_moves += not accepted
            if len(lines) < _KEPT_LINES:
                lines.append(row.line)
        machine = machines[row.vm]
        for supplied in machine.supplied:
            for side in sides:
                side.run(row.vm, supplied, accepted=True)
        command = machine.command
        assert command is not None, "a row is of a call that was run"
        steps = [side.run(row.vm, command, accepted=accepted) for side in sides]
        if any(step.errno != steps[0][0].errno for step, _ in steps):
            for pair in pairs:
                pair.compare(row, steps)
    moves = Moves(accepted_moves, refused_moves, tuple(lines))
    return AbiLens(operations, moves, tuple(pair.comparison() for pair in pairs))
