"""What a call costs in the engine, from 10 slots to as many as KVM allows, and a step back in a long run.

A case is a VM that lives on: its slots, in an order that a generator with a fixed seed chose, are deleted, made
again and moved to another free place, so that each call works on the state the one before it left.
"""

from __future__ import annotations

import tracemalloc
from random import Random
from time import perf_counter_ns
from typing import TYPE_CHECKING

from measure import Report, Row, at_least, at_most, note, ratio
from yardstick import real_move, slower_by

from explorer.engine.apply import apply
from explorer.engine.commands import AttachTracker, SetMemoryRegion, TrackGfn, UntrackGfn
from explorer.engine.config import VmConfig
from explorer.engine.state import new_vm
from explorer.engine.types import PAGE_SIZE
from explorer.engine.uapi import KVM_MEM_MAX_NR_PAGES
from explorer.history import Run
from explorer.scenarios import random_walk
from explorer.scenarios.walk import MOST_OPERATIONS

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from measure import Target

    from explorer.engine.commands import Command
    from explorer.engine.state import Kvm

__all__ = ["measure_engine"]

FEW, MANY, MOST = 10, 1_000, 32_764
"""Slots; the last is what a VM can have on Linux 6.12."""
SMALL = 2 << 20
LARGE = KVM_MEM_MAX_NR_PAGES * PAGE_SIZE
"""Bytes of a slot; the larger is KVM's limit, one page less than 8 TiB."""
MOST_LARGE = 64
"""Slots of 8 TiB in a VM that has many; 512 would fill all guest addresses."""

MOVE_MICROSECONDS = 150
MOVE_GROWTH = 3
NO_INFLUENCE = 1.25
"""What the noise of a shared machine may look like."""

WALK_PER_SECOND = 10_000
WALK_KIB = 2

_WALKS = (("v6_1", False), ("v6_12", True), ("v7_3", True))
"""Kernels, and whether they use TDP, that a long random walk is taken on."""
_WALK_LENGTH = 10_000
_CALLS = 150
"""Calls of each kind in a round."""
_TRACKED_FEW, _TRACKED_MANY = 10, 1_000_000
_TRACKED_SLOT_PAGES = 1 << 21
_RUN_LENGTH = 50_000
_LOOKS = 200
_KEPT = 1_000
_HVA = 0x1000_0000_0000
_LARGE_FROM = 1 << 50


class Machine:
    """A VM whose slots move about.

    A slot of 2 MiB has a free place of its size behind it; those of 8 TiB lie far above, with free places too.
    """

    def __init__(self, nr_slots: int, size: int, *, record: bool) -> None:
        """Make a VM of `nr_slots` slots, of which those that will change have `size` bytes."""
        self.record = record
        self.size = size
        self._random = Random(nr_slots)  # noqa: S311 - the same order each time, not a secret
        stride, start = (size, 0) if size == SMALL else (size + PAGE_SIZE, _LARGE_FROM)
        changing = nr_slots if size == SMALL else min(nr_slots, MOST_LARGE)
        self._place = {slot: start + 2 * slot * stride for slot in range(changing)}
        self._free = [start + (2 * slot + 1) * stride for slot in range(changing)]
        self.kvm = new_vm()
        for slot, gpa in self._place.items():
            self._call(_region(slot, gpa, size))
        for slot in range(changing, nr_slots):
            self._call(_region(slot, 2 * slot * SMALL, SMALL))

    def move(self) -> SetMemoryRegion:
        """Return the call that moves a slot to a free place."""
        slot = self._random.randrange(len(self._place))
        at = self._random.randrange(len(self._free))
        self._place[slot], self._free[at] = self._free[at], self._place[slot]
        return _region(slot, self._place[slot], self.size)

    def round(self) -> dict[str, float]:
        """Return the microseconds of one CREATE, MOVE and DELETE, each the mean of some calls."""
        spent = dict.fromkeys(("CREATE", "MOVE", "DELETE"), 0)
        for _ in range(_CALLS):
            move = self.move()
            spent["MOVE"] += self._call(move)
            spent["DELETE"] += self._call(_region(move.slot, move.guest_phys_addr, 0))
            spent["CREATE"] += self._call(move)
        return {kind: nanoseconds / _CALLS / 1000 for kind, nanoseconds in spent.items()}

    def _call(self, call: SetMemoryRegion) -> int:
        start = perf_counter_ns()
        step = apply(self.kvm, call, record=self.record)
        spent = perf_counter_ns() - start
        assert step.errno is None, f"{call} was refused by {step.refused_by}"
        self.kvm = step.kvm
        return spent


def measure_engine(rounds: int) -> Iterator[Report]:
    """Iterate over the tables of the engine."""
    yield _calls(rounds)
    yield _tracks(rounds)
    yield _walks(rounds)
    yield _history(rounds)


# -- calls -----------------------------------------------------------------------------------------


def _calls(rounds: int) -> Report:
    note(f"making VMs with up to {MOST:,} slots")
    machines = {
        (record, size, n): Machine(n, size, record=record)
        for record in (True, False)
        for size in (SMALL, LARGE)
        for n in (FEW, MANY, MOST)
    }
    note("calling")
    values: dict[tuple[bool, int, int, str], list[float]] = {}
    real: list[float] = []
    for _ in range(rounds):
        real += real_move()
        for case, machine in machines.items():
            for kind, microseconds in machine.round().items():
                values.setdefault((*case, kind), []).append(microseconds)
    rows = {case: Row(_name(*case), "us", tuple(taken), _target(*case)) for case, taken in values.items()}
    grown = [
        ratio(
            f"{kind}, {_slots(MOST)} to {_slots(FEW)}",
            rows[True, SMALL, MOST, kind],
            rows[True, SMALL, FEW, kind],
            at_most(MOVE_GROWTH) if kind == "MOVE" else None,
        )
        for kind in ("CREATE", "MOVE", "DELETE")
    ]
    sized = [
        ratio(
            f"{kind}, 8 TiB to 2 MiB, {_slots(n)}",
            rows[True, LARGE, n, kind],
            rows[True, SMALL, n, kind],
            at_most(NO_INFLUENCE),
        )
        for kind in ("CREATE", "MOVE", "DELETE")
        for n in (FEW, MANY, MOST)
    ]
    scaled: tuple[Row, ...] = ()
    if real:
        usual = Row("the real MOVE, 2 MiB, on this machine’s /dev/kvm", "us", tuple(real))
        scaled = (usual, slower_by(rows[True, SMALL, FEW, "MOVE"], usual))
    return Report("Engine: one region call", (*rows.values(), *scaled, *grown, *sized))


def _target(record: bool, size: int, nr_slots: int, kind: str) -> Target | None:
    judged = record and kind == "MOVE" and size == SMALL and nr_slots == FEW
    return at_most(MOVE_MICROSECONDS) if judged else None


def _name(record: bool, size: int, nr_slots: int, kind: str) -> str:
    events = "all events" if record else "no events"
    return f"{kind}, {'2 MiB' if size == SMALL else '8 TiB'}, {_slots(nr_slots)}, {events}"


def _slots(n: int) -> str:
    return f"{n:,} slots"


def _region(slot: int, gpa: int, size: int) -> SetMemoryRegion:
    return SetMemoryRegion(slot=slot, guest_phys_addr=gpa, memory_size=size, userspace_addr=_HVA + slot * SMALL)


# -- tracked pages ---------------------------------------------------------------------------------


def _tracks(rounds: int) -> Report:
    note(f"tracking {_TRACKED_MANY:,} pages")
    kvm = apply(new_vm(), _region(0, 0, _TRACKED_SLOT_PAGES * PAGE_SIZE)).kvm
    kvm = apply(kvm, AttachTracker()).kvm
    order = list(range(_TRACKED_SLOT_PAGES))
    Random(1).shuffle(order)  # noqa: S311 - as above
    tracked: dict[int, Kvm] = {}
    for n, gfn in enumerate(order[:_TRACKED_MANY], 1):
        kvm = apply(kvm, TrackGfn(gfn=gfn), record=False).kvm
        if n in (_TRACKED_FEW, _TRACKED_MANY):
            tracked[n] = kvm
    values: dict[tuple[str, int], list[float]] = {}
    for _ in range(rounds):
        for n, kvm in tracked.items():
            for verb, microseconds in _track_round(kvm, order[_TRACKED_MANY:]).items():
                values.setdefault((verb, n), []).append(microseconds)
    rows = {case: Row(f"{case[0]}, {case[1]:,} tracked pages", "us", tuple(taken)) for case, taken in values.items()}
    grown = [
        ratio(f"{verb}, {_TRACKED_MANY:,} to {_TRACKED_FEW}", rows[verb, _TRACKED_MANY], rows[verb, _TRACKED_FEW])
        for verb in ("track", "untrack")
    ]
    return Report("Engine: one page tracked, all events", (*rows.values(), *grown))


def _track_round(kvm: Kvm, free: list[int]) -> dict[str, float]:
    taken = {}
    for verb, command in (("track", TrackGfn), ("untrack", UntrackGfn)):
        start = perf_counter_ns()
        for gfn in free[:_CALLS]:
            kvm = apply(kvm, command(gfn=gfn)).kvm
        taken[verb] = (perf_counter_ns() - start) / _CALLS / 1000
    return taken


# -- random runs -----------------------------------------------------------------------------------


def _walks(rounds: int) -> Report:
    """Replay long random walks without events, then keep the VM after every operation of them."""
    rows = []
    for profile, tdp in _WALKS:
        note(f"walking {_WALK_LENGTH:,} operations on {profile}")
        start = new_vm(profile, VmConfig(tdp=tdp))
        rates, sizes, slots = [], [], 0
        for seed in range(rounds):
            walked = _walk(start, seed)
            begun = perf_counter_ns()
            kvm = start
            for command in walked:
                kvm = apply(kvm, command, record=False).kvm
            rates.append(_WALK_LENGTH * 1e9 / (perf_counter_ns() - begun))
            sizes.append(_kept_kib(start, walked))
            slots = max(slots, len(kvm.slots()))
        where = f"{profile}, {'TDP' if tdp else 'shadow paging'}, up to {slots} slots"
        rows += [
            Row(f"replayed, {where}", "op/s", tuple(rates), at_least(WALK_PER_SECOND)),
            Row(f"memory of a kept snapshot, {where}", "KiB", tuple(sizes), at_most(WALK_KIB)),
        ]
    return Report(f"Engine: random walks of {_WALK_LENGTH:,} operations, no events, a seed a round", tuple(rows))


def _walk(kvm: Kvm, seed: int) -> tuple[Command, ...]:
    """Return a walk longer than one may ask for: walks one after another, each from where the last one ended."""
    walked: tuple[Command, ...] = ()
    while len(walked) < _WALK_LENGTH:
        part = random_walk(kvm, seed=seed * _WALK_LENGTH + len(walked), operations=MOST_OPERATIONS)
        for command in part:
            kvm = apply(kvm, command, record=False).kvm
        walked += part
    return walked


# -- what is kept ----------------------------------------------------------------------------------


def _history(rounds: int) -> Report:
    machine = Machine(MOST, SMALL, record=False)
    moves = [machine.move() for _ in range(_RUN_LENGTH)]
    note(f"running {_RUN_LENGTH:,} operations, {rounds} times")
    made: list[float] = []
    back: list[float] = []
    jump: list[float] = []
    for number in range(rounds):
        start = perf_counter_ns()
        run = Run(machine.kvm, moves)
        made.append((perf_counter_ns() - start) / _RUN_LENGTH / 1000)
        last = len(run) - 1
        back.append(_look(run, range(last, last - _LOOKS, -1)))
        jump.append(_look(run, Random(number).sample(range(last), _LOOKS)))  # noqa: S311 - as above
    return Report(
        f"History: a run of {_RUN_LENGTH:,} MOVEs in a VM of {MOST:,} slots",
        (
            Row("an operation enters the run", "us", tuple(made)),
            Row("one operation back, with all its phases", "us", tuple(back)),
            Row("to any operation, with all its phases", "us", tuple(jump)),
            Row("memory of one more kept snapshot", "KiB", (_kept_kib(machine.kvm, moves[:_KEPT]),)),
        ),
    )


def _look(run: Run, places: Sequence[int]) -> float:
    start = perf_counter_ns()
    for index in places:
        run.detail(index)
    return (perf_counter_ns() - start) / len(places) / 1000


def _kept_kib(kvm: Kvm, calls: Iterable[Command]) -> float:
    """Return the memory of one more snapshot when the VM after each of `calls` is kept."""
    tracemalloc.start()
    kept = []
    for call in calls:
        kvm = apply(kvm, call, record=False).kvm
        kept.append(kvm)
    size, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return size / len(kept) / 1024
