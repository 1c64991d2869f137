"""What became of every slot along a run: what made it as it is, what took that away, where its memory was before.

Rule: the engine is not asked again. What a region call came to is in the run's outcomes; only after the few other
operations that may make slots, KVM's own among them, two snapshots are compared.

Not told: what is inside an operation. A slot that a refused MOVE hid for a while lives on.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple

from explorer.engine.commands import (
    Advance,
    Begin,
    CreateIrqchip,
    CreateVcpu,
    SetIdentityMapAddr,
    SetMemoryRegion,
    SetTssAddr,
)
from explorer.engine.types import PAGE_SHIFT
from explorer.engine.uapi import KvmMrChange

if TYPE_CHECKING:
    from explorer.engine.commands import Command
    from explorer.engine.state import Kvm
    from explorer.history.run import Outcome, Run

__all__ = ["NEVER", "NOTHING", "Life", "Lives", "lives_of"]

NEVER = 1 << 62
"""End of what still lives."""
NOTHING = -1
"""Number of no life."""
_MAY_MAKE_SLOTS = (SetTssAddr, SetIdentityMapAddr, CreateIrqchip, CreateVcpu, Begin, Advance)
_Place = tuple[int, int, int, int]
"""base_gfn, npages, userspace_addr, flags."""


class Life(NamedTuple):
    """One slot at one place with one set of flags."""

    as_id: int
    slot: int
    base_gfn: int
    npages: int
    userspace_addr: int
    flags: int
    first: int
    """Operation that made it so; -1 if the run began with it."""
    before: int
    """Number of the life it goes on from, else `NOTHING`: the slot before a MOVE or before other flags, or the slot
    that had the same host memory at another place until it was deleted."""

    @property
    def end_gfn(self) -> int:
        """First gfn behind it."""
        return self.base_gfn + self.npages


@dataclass(frozen=True, slots=True, kw_only=True)
class Lives:
    """Every life of a run's first `ops` operations."""

    ops: int = 0
    lives: tuple[Life, ...] = ()
    """By their first operation."""
    ends: tuple[int, ...] = ()
    """For each life the operation that ended it, or `NEVER`."""
    refused: tuple[int, ...] = ()
    """Operations that came back with an errno."""
    changes: dict[KvmMrChange, tuple[int, ...]] = field(default_factory=dict)
    """Accepted region calls by what they were."""
    live: dict[tuple[int, int], int] = field(default_factory=dict)
    """Number of the life of each slot there is, by address space and id."""
    gone: dict[tuple[int, int], int] = field(default_factory=dict)
    """Number of the life that a DELETE ended last, by address space and host address, until it is used again."""

    def of(self, change: KvmMrChange) -> tuple[int, ...]:
        """Return the accepted region calls of a kind."""
        return self.changes.get(change, ())


def lives_of(run: Run, known: Lives | None = None) -> Lives:
    """Return the lives of a run.

    Parameters
    ----------
    run
        The run.
    known
        Lives of its first operations, which are not gone through again.
    """
    draft = _Draft(known) if known is not None else _Draft.of_start(run.start)
    pairs = zip(run.commands, run.outcomes, strict=True)
    for at, (command, outcome) in enumerate(islice(pairs, draft.ops, None), draft.ops):
        draft.take(run, at, command, outcome)
    return draft.lives(len(run))


class _Draft:
    """Lives that grow by one operation at a time."""

    def __init__(self, known: Lives) -> None:
        self.ops = known.ops
        self._lives, self._ends, self._refused = list(known.lives), list(known.ends), list(known.refused)
        self._changes = {change: list(ops) for change, ops in known.changes.items()}
        self._live, self._gone = dict(known.live), dict(known.gone)

    @classmethod
    def of_start(cls, kvm: Kvm) -> _Draft:
        draft = cls(Lives())
        for key, place in _places(kvm).items():
            draft._begin(key, place, -1)
        return draft

    def lives(self, ops: int) -> Lives:
        return Lives(
            ops=ops,
            lives=tuple(self._lives),
            ends=tuple(self._ends),
            refused=tuple(self._refused),
            changes={change: tuple(found) for change, found in self._changes.items()},
            live=self._live,
            gone=self._gone,
        )

    def take(self, run: Run, at: int, command: Command, outcome: Outcome) -> None:
        """Go on by one operation."""
        if outcome.errno is not None:
            self._refused.append(at)
        elif isinstance(command, SetMemoryRegion) and outcome.change is not None:
            self._changes.setdefault(outcome.change, []).append(at)
            self._change(at, command, outcome.change)
            return
        if isinstance(command, _MAY_MAKE_SLOTS):
            self._compare(at, _places(run.kvm_before(at)), _places(run.kvm_before(at + 1)))

    def _change(self, at: int, call: SetMemoryRegion, change: KvmMrChange) -> None:
        key = (call.as_id, call.slot)
        if change is KvmMrChange.NOOP:
            return
        if change is KvmMrChange.DELETE:
            self._delete(at, key)
            return
        base, pages = call.guest_phys_addr >> PAGE_SHIFT, call.memory_size >> PAGE_SHIFT
        before = self._end(at, key) if change is not KvmMrChange.CREATE else NOTHING
        self._begin(key, (base, pages, call.userspace_addr, call.flags), at, before)

    def _compare(self, at: int, old: dict[tuple[int, int], _Place], new: dict[tuple[int, int], _Place]) -> None:
        for key in old.keys() - new.keys():
            self._delete(at, key)
        for key, place in new.items():
            if old.get(key) != place:
                self._begin(key, place, at, self._end(at, key) if key in old else NOTHING)

    def _begin(self, key: tuple[int, int], place: _Place, at: int, before: int = NOTHING) -> None:
        base, _, hva, _ = place
        if before == NOTHING:
            left = self._gone.pop((key[0], hva), NOTHING)
            before = left if left != NOTHING and self._lives[left].base_gfn != base else NOTHING
        self._live[key] = len(self._lives)
        self._lives.append(Life(*key, *place, at, before))
        self._ends.append(NEVER)

    def _end(self, at: int, key: tuple[int, int]) -> int:
        number = self._live.pop(key)
        self._ends[number] = at
        return number

    def _delete(self, at: int, key: tuple[int, int]) -> None:
        number = self._end(at, key)
        self._gone[key[0], self._lives[number].userspace_addr] = number


def _places(kvm: Kvm) -> dict[tuple[int, int], _Place]:
    return {
        (as_id, slot.id): (slot.base_gfn, slot.npages, slot.userspace_addr, slot.flags)
        for as_id in range(len(kvm.memslots))
        for slot in kvm.slots(as_id)
    }
