"""A whole log: read, replayed, counted, and nothing lost.

Every line that is not empty is either used or skipped with a reason, so ``used + len(skipped)`` is their
number. A log of any length needs the memory of its VMs and ten bytes for each skipped line.

Read next: `imported`.
"""

from __future__ import annotations

import gc
import re
from collections import Counter
from contextlib import contextmanager
from typing import TYPE_CHECKING

from explorer.engine.config import VmConfig
from explorer.engine.profile import PROFILES, get_profile
from explorer.engine.types import PAGE_SHIFT
from explorer.trace.clues import find_clues
from explorer.trace.descriptors import Descriptors
from explorer.trace.detect import detect_format
from explorer.trace.ftrace import read_ftrace, shows_returns
from explorer.trace.jsonl import Head, read_head, read_json
from explorer.trace.lift import Lift
from explorer.trace.qemu import read_qemu
from explorer.trace.records import Gap, MmuEvent, OtherCall, RegionCall
from explorer.trace.strace import read_strace
from explorer.trace.summary import MmuEvents, Skipped, Summary

if TYPE_CHECKING:
    from collections.abc import Iterator

    from explorer.engine.profile import KernelProfile
    from explorer.trace.lift import Machine, Row
    from explorer.trace.records import Context, Record
    from explorer.trace.source import Source
    from explorer.trace.summary import Layout

__all__ = ["DEFAULT_PROFILE", "Replay", "seldom_collecting"]

DEFAULT_PROFILE = "v6_18"
"""The kernel of the machine on which most of our logs were made."""

_FILE_OF_ONE_THREAD = re.compile(r"\.\d+(?:\.gz)?$")
"""How ``strace -ff -o NAME`` calls its files: NAME.PID. A rotated log looks alike but names its threads."""
_UNTERMINATED = "the last line has no end and may be cut off"
_HOST = "The host is taken for one with shadow paging, no external page trackers and no memory slots of its own."
_KEPT_ROWS = 20
_BETWEEN_COLLECTIONS = 50_000
"""Objects that Python makes before it looks for cycles, 700 otherwise."""
_NAMED_VMS = 5


@contextmanager
def seldom_collecting() -> Iterator[None]:
    """Have Python look for garbage in cycles less often: a replay makes none, and looking is a sixth of its time.

    For a whole program, or a part of it in which nothing else runs: the setting belongs to the process.
    """
    usual = gc.get_threshold()
    gc.set_threshold(_BETWEEN_COLLECTIONS, *usual[1:])
    try:
        yield
    finally:
        gc.set_threshold(*usual)


class Replay:
    """One log, replayed row by row."""

    def __init__(self, source: Source, profile: KernelProfile | None = None) -> None:
        """Find out what kind of log it is and from what machine.

        Raises
        ------
        TraceError
            If the source is no log that can be read.
        """
        self.format = detect_format(source)
        self.profile = profile or get_profile(DEFAULT_PROFILE)
        self.gaps: list[Gap] | None = None
        """Set it to a list to get the lines that were not used, with their text."""
        self._asked_for = profile is not None
        self._clues = find_clues(source.blocks())
        self._head = read_head(source) if self.format == "json" else Head()
        if profile is None and self._head.profile is not None:
            self.profile = get_profile(self._head.profile)
        two_spaces = self._clues.second_space is not None
        self.config = self._head.config or VmConfig(
            tdp=False, smm=two_spaces, external_write_tracking=False, processor="pvm"
        )
        self.mmu_events = MmuEvents()
        self.lift = Lift(self.profile, self.config, qemu=self.format == "qemu")
        self._run = self.lift.run
        self._source = source
        self._descriptors = Descriptors(one_thread=bool(_FILE_OF_ONE_THREAD.search(source.name)))
        self._skipped = Skipped()
        self._kinds: Counter[str] = Counter()
        self._operations = self._used = self._last_line = 0
        self._disagreements = self._without_result = self._in_halves = self._explained = 0
        self._first: list[Row] = []

    def rows(self) -> Iterator[Row]:
        """Iterate over the operations; `summary` is complete after the last one."""
        take = self._take
        for record in self._records():
            row = take(record)
            if row is not None:
                yield row

    def entries(self) -> Iterator[tuple[Record, Row | None]]:
        """Iterate over all records, each with its operation if it is one; `summary` is complete after the last."""
        for record in self._records():
            yield record, self._take(record)

    def _take(self, record: Record) -> Row | None:
        """Count a record and replay it if it is an operation."""
        self._last_line = record.line
        if isinstance(record, RegionCall):
            row = self._run(record)
            self._used += record.lines
            self._kinds[row.kind or "NOOP" if row.errno is None else "REFUSED"] += 1
            if record.lines > 1 and self.format == "strace":  # a trace shows begin and return of every call
                self._in_halves += 1
        elif isinstance(record, OtherCall):
            row = self.lift.run_other(record)
            self._used += 1
            self._kinds[row.op if row.errno is None else "REFUSED"] += 1
        else:
            self._note(record)
            return None
        self._operations += 1
        if row.agrees is not True or row.note is not None:
            self._doubt(row)
        return row

    @property
    def compared(self) -> int:
        """How many operations so far have a result in the log."""
        return self._operations - self._without_result

    def summary(self) -> Summary:
        """Return the counts."""
        machines = self.lift.machines
        vms = max(len(self._descriptors.vms), len(machines))
        return Summary(
            format=self.format,
            profile=self.profile.name,
            operations=self._operations,
            used=self._used,
            skipped=self._skipped,
            moves=self._kinds["MOVE"],
            max_live_slots_of_one_vm=max((machine.max_live for machine in machines.values()), default=0),
            max_live_slots=self.lift.max_live_of_all,
            vms=vms,
            disagreements=self._disagreements,
            kinds=dict(sorted(self._kinds.items())),
            assumptions=tuple(self._assumptions()),
            stopped=f"after line {self._last_line}: {self._source.stopped}" if self._source.stopped else None,
            first_disagreements=tuple(self._first),
            mmu_events=self.mmu_events,
            final_layout=tuple(_layout(machines.get(index)) for index in range(vms)),
        )

    def vm_of_line(self, line: str) -> int | None:
        """Return which VM a line of strace that follows the log is for; None if the log does not say."""
        for record in read_strace([line], self._descriptors):
            if isinstance(record, RegionCall) and record.vm.born is not None:
                return record.vm.index
        return None

    def _records(self) -> Iterator[Record]:
        lines = self._source.lines()
        match self.format:
            case "qemu":
                return read_qemu(lines)
            case "json":
                return read_json(lines, self._head)
            case "ftrace" | "perf":
                returns = shows_returns(self._source.blocks())
                return read_ftrace(self._source.lines(), self._descriptors, returns=returns)
            case _:
                return read_strace(lines, self._descriptors)

    def _note(self, record: Context | MmuEvent | Gap) -> None:
        if isinstance(record, Gap):
            if record.line == self._source.open_line:
                record = record._replace(reason=f"{record.reason} ({self._source.stopped or _UNTERMINATED})")
            self._skipped.add(record.line, record.reason)
            if self.gaps is not None:
                self.gaps.append(record)
            return
        if isinstance(record, MmuEvent):
            self._used += 1
            self.mmu_events.add(record, self._operations if record.during else self._operations - 1)
            return
        self._used += record.lines
        while self._descriptors.ended:
            self.lift.forget(self._descriptors.ended.pop())

    def _doubt(self, row: Row) -> None:
        if row.agrees is False:
            self._disagreements += 1
            if len(self._first) < _KEPT_ROWS:
                self._first.append(row)
        elif row.recorded_ret is None:
            self._without_result += 1
        if row.note is not None:
            self._explained += 1

    def _assumptions(self) -> Iterator[str]:
        """Say in sentences what the log does not say."""
        if self._head.kernel is not None:
            yield f"The log is of kernel {self._head.kernel}."
        if not self._asked_for and self._head.profile is None:
            yield f"The log does not name its kernel: profile {self.profile.name} ({self.profile.title}) is assumed."
        if self._head.config is None:
            yield _HOST
        slots = self._clues.user_mem_slots
        if slots is not None and slots != self.profile.user_mem_slots:
            fitting = [name for name, profile in PROFILES.items() if profile.user_mem_slots == slots]
            hint = f"; try --profile {fitting[-1]}" if fitting else ""
            yield f"The log's KVM has {slots} slots, the profile has {self.profile.user_mem_slots}{hint}."
        if self._head.config is not None:
            pass
        elif self._clues.second_space:
            yield f"VMs have two address spaces: {self._clues.second_space}."
        elif self.profile.smm_is_optional:
            yield "VMs have one address space: no call in another one succeeded."
        if not self._operations:
            yield "There is no call in this log that could be replayed."
        vms = [machine.vm for machine in self.lift.machines.values()]
        late = [f"VM {vm.index}" for vm in vms if vm.born is None]
        if late:
            yield f"The log does not show the making of {_listed(late)}; slots from before it are unknown."
        for vm in vms[:_NAMED_VMS]:
            if vm.doubt:
                yield f"Calls on VM {vm.index} may be missing: {vm.doubt}."
        yield from self._descriptors.notes
        if self._explained:
            yield f"{self._explained} results are explained by what the log does not show; each row has a note."
        if self._in_halves:
            yield f"{self._in_halves} calls overlapped others and are taken in the order of their returns."
        if self._without_result:
            yield f"{self._without_result} calls show no result; they are replayed and not compared."
        if self._source.stopped:
            yield f"Reading ended after line {self._last_line}: {self._source.stopped}."


def _listed(names: list[str]) -> str:
    more = len(names) - _NAMED_VMS
    return ", ".join(names[:_NAMED_VMS]) + (f" and {more} more" if more > 0 else "")


def _layout(machine: Machine | None) -> Layout:
    if machine is None:
        return ()
    return tuple(
        (
            slot.as_id,
            slot.id,
            slot.base_gfn << PAGE_SHIFT,
            slot.npages << PAGE_SHIFT,
            slot.userspace_addr,
            slot.flags,
        )
        for space in machine.kvm.memslots
        for slot in space.active.slots()
    )
