"""The operations of a run on other machines, applied piece by piece and kept.

A run of tens of thousands of operations on nine kernels takes a while, so a rerun does a bounded number of
operations at a time and says how far it is. When the run grows by one operation, one is applied; when its past
changes, what came before the change is kept.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from explorer.engine.apply import apply
from explorer.engine.commands import (
    AttachTracker,
    ClearDirtyLog,
    DetachTracker,
    GetDirtyLog,
    GuestRead,
    GuestWrite,
    ReadTrackerLog,
    SetMemoryRegion,
    SubmitWorkload,
    TrackGfn,
    UntrackGfn,
)
from explorer.engine.events import (
    DirtyLogCleared,
    DirtyLogRead,
    GuestReadServed,
    GuestWriteServed,
    KernelWarned,
    TrackerNotified,
    VmBugged,
    WriteTracked,
    WriteUntracked,
)
from explorer.engine.state import Kvmgt
from explorer.engine.types import PAGE_SHIFT, Errno, ExplorerError, Gfn

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from explorer.engine.apply import Step
    from explorer.engine.commands import Command
    from explorer.engine.state import Kvm
    from explorer.engine.uapi import KvmMrChange
    from explorer.history.machine import Machine

__all__ = ["Rerun", "Reruns", "Result", "Setting", "is_of_a_tracker", "result_of"]

_KEYFRAME = 128
"""Operations between two kept snapshots of a rerun."""


class Result(NamedTuple):
    """What one operation came to on one machine; equal results are what "no difference" means."""

    errno: Errno | None
    change: KvmMrChange | None = None
    """For a region call, what it was found to be."""
    outcome: str = ""
    """For a guest access, who answered it, such as ``ram`` or ``mmio``."""
    number: int = 0
    """Trackers told of a write, watches added or taken back, pages in a dirty log."""
    missed: bool = False
    """Whether the write reached memory, KVMGT has the page in a table of its own, and was not told."""
    trouble: str = ""
    """``warned``, ``dead`` for a VM that KVM gave up, or why the operation cannot be asked here."""


class Setting(NamedTuple):
    """Where a rerun happens."""

    machine: Machine
    quiet: bool = False
    """Whether what external trackers do is left out."""


class Rerun:
    """The operations of a run in one setting, as far as they were applied."""

    def __init__(self, setting: Setting) -> None:
        """Start a VM; nothing is applied yet."""
        self._quiet = setting.quiet
        self.results: list[Result] = []
        self._end = setting.machine.start()
        self._keyframes = [self._end]
        self._near = (0, self._end)

    def __len__(self) -> int:
        """Return how many operations were applied."""
        return len(self.results)

    @property
    def end(self) -> Kvm:
        """The VM after what was applied."""
        return self._end

    def advance(self, commands: tuple[Command, ...], most: int, known: dict[Result, Result]) -> int:
        """Apply up to `most` more of `commands` and return how many; equal results are one object in `known`."""
        start = len(self.results)
        for index in range(start, min(start + most, len(commands))):
            if index and index % _KEYFRAME == 0:
                self._keyframes.append(self._end)
            self._end, result = self._apply(self._end, commands[index])
            self.results.append(known.setdefault(result, result))
        return len(self.results) - start

    def keep(self, n: int, commands: tuple[Command, ...]) -> None:
        """Forget what came after the first `n` operations, which are those of `commands`."""
        if n >= len(self.results):
            return
        end = self.kvm_before(n, commands)
        del self.results[n:]
        del self._keyframes[max((n - 1) // _KEYFRAME, 0) + 1 :]
        self._end = end
        self._near = (n, end)

    def kvm_before(self, index: int, commands: tuple[Command, ...]) -> Kvm:
        """Return the VM before an operation that was reached; the one after it is found fast."""
        if index == len(self.results):
            return self._end
        at, kvm = self._near
        if not index - _KEYFRAME < at <= index:
            at = min(index // _KEYFRAME, len(self._keyframes) - 1) * _KEYFRAME
            kvm = self._keyframes[at // _KEYFRAME]
        for command in commands[at:index]:
            kvm, _ = self._apply(kvm, command)
        self._near = (index, kvm)
        return kvm

    def _apply(self, kvm: Kvm, command: Command) -> tuple[Kvm, Result]:
        return (kvm, _LEFT_OUT) if self._quiet and is_of_a_tracker(command) else result_of(kvm, command)


class Reruns:
    """Reruns of one run, by setting, and what was found out about them."""

    def __init__(self) -> None:
        """Start with nothing computed."""
        self.commands: tuple[Command, ...] = ()
        self.first_of_a_tracker: int | None = None
        """The first operation of an external tracker, if there is one."""
        self.found: dict[object, Any] = {}
        """Answers that selectors keep for operations of this run; emptied when its past changes."""
        self._by_setting: dict[Setting, Rerun] = {}
        self._known: dict[Result, Result] = {}

    def follow(self, commands: tuple[Command, ...]) -> None:
        """Take the operations of another run; of those that are the same nothing is lost."""
        if commands is self.commands:
            return
        same = _shared(self.commands, commands)
        if same < len(self.commands):
            self.found.clear()
            for rerun in self._by_setting.values():
                rerun.keep(same, self.commands)
        if self.first_of_a_tracker is None or self.first_of_a_tracker >= same:
            new = range(same, len(commands))
            self.first_of_a_tracker = next((at for at in new if is_of_a_tracker(commands[at])), None)
        self.commands = commands

    def result(self, setting: Setting, index: int) -> Result | None:
        """Return what an operation came to; None if the rerun is not there yet."""
        results = self.of(setting).results
        return results[index] if index < len(results) else None

    def result_beyond(self, setting: Setting, command: Command) -> Result | None:
        """Return what one operation more at the end would come to; None if the rerun is not there yet."""
        rerun = self.of(setting)
        if len(rerun) < len(self.commands):
            return None
        key = ("beyond", setting, command, len(rerun))
        if key not in self.found:
            result = result_of(rerun.end, command)[1]
            self.found[key] = self._known.setdefault(result, result)
        found: Result = self.found[key]
        return found

    def differing(self, one: Setting, other: Setting) -> tuple[list[int], int]:
        """Return which operations come to something else in two settings, and up to where both were compared."""
        key = ("differing", one, other)
        kept: list[int]
        kept, done = self.found.get(key, ([], 0))
        a, b = self.of(one).results, self.of(other).results
        n = min(len(a), len(b))
        kept += [at for at in range(done, n) if a[at] is not b[at]]
        self.found[key] = (kept, n)
        return kept, n

    def of(self, setting: Setting) -> Rerun:
        """Return the rerun in a setting, as far as it is."""
        rerun = self._by_setting.get(setting)
        if rerun is None:
            rerun = self._by_setting[setting] = Rerun(setting)
        return rerun

    def kvm_before(self, setting: Setting, index: int) -> Kvm | None:
        """Return the VM before an operation; None if the rerun is not there yet."""
        rerun = self.of(setting)
        return rerun.kvm_before(index, self.commands) if len(rerun) >= index else None

    def reached(self, settings: Iterable[Setting]) -> int:
        """Return how many operations were applied in every one of the settings."""
        return min((len(self.of(setting)) for setting in settings), default=len(self.commands))

    def work(self, settings: Sequence[Setting], until: int, most: int | None = None) -> None:
        """Bring the reruns towards `until`, side by side.

        Parameters
        ----------
        settings
            Where to replay.
        until
            Operations to apply in each setting.
        most
            Operations to apply in this call, all settings together; None for all that are missing.
        """
        goal = min(until, len(self.commands))
        if most is not None:
            goal = min(goal, self.reached(settings) + max(most // max(len(settings), 1), 1))
        for setting in settings:
            rerun = self.of(setting)
            if len(rerun) < goal:
                rerun.advance(self.commands, goal - len(rerun), self._known)


_LEFT_OUT = Result(None, trouble="left out")


def is_of_a_tracker(command: Command) -> bool:
    """Return whether an operation is one of an external tracker."""
    return isinstance(command, AttachTracker | DetachTracker | TrackGfn | UntrackGfn | ReadTrackerLog | SubmitWorkload)


def result_of(kvm: Kvm, command: Command) -> tuple[Kvm, Result]:
    """Apply a command and return the next VM and what it came to; one that cannot be asked changes nothing."""
    region = isinstance(command, SetMemoryRegion)
    try:
        step = apply(kvm, command, record=not region)
    except ExplorerError as error:
        return kvm, Result(None, trouble=str(error))
    if region:
        return step.kvm, Result(step.errno, step.change)
    return step.kvm, _result(kvm, command, step)


def _result(kvm: Kvm, command: Command, step: Step) -> Result:
    outcome, number, trouble = "", 0, ""
    for event in step.events:
        match event:
            case GuestWriteServed() | GuestReadServed():
                outcome = event.outcome
            case WriteTracked() | WriteUntracked() if not isinstance(command, GuestRead | GuestWrite):
                number += 1
            case TrackerNotified() if isinstance(command, GuestWrite):
                number += 1
            case DirtyLogRead() | DirtyLogCleared() if isinstance(command, GetDirtyLog | ClearDirtyLog):
                number = event.count
            case VmBugged():
                trouble = "dead"
            case KernelWarned():
                trouble = trouble or "warned"
    missed = (
        isinstance(command, GuestWrite) and outcome in ("ram", "emulated") and not number and _believes(kvm, command)
    )
    return Result(step.errno, None, outcome, number, missed, trouble)


def _believes(kvm: Kvm, write: GuestWrite) -> bool:
    """Return whether a table of KVMGT has the page that is written."""
    gfn = Gfn(write.gpa >> PAGE_SHIFT)
    return any(
        gfn in tracker.protect_table or tracker.page_track_tree.get(gfn)
        for tracker in kvm.trackers.values()
        if isinstance(tracker, Kvmgt) and tracker.attached
    )


def _shared(old: tuple[Command, ...], new: tuple[Command, ...]) -> int:
    """Return how many operations two runs begin with in common."""
    n = min(len(old), len(new))
    if old[:n] == new[:n]:
        return n
    return next(at for at in range(n) if old[at] != new[at])
