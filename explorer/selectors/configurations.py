"""One call in one configuration: which operations lead there, and what the engine answers.

A configuration is a kernel, whether it was built for external trackers, and whether one is attached. Where it wants
a tracker and the run has none, KVMGT attaches before the call; where it wants none and the run has one, what trackers
do is left out of the run. Nothing is looked up: the operations before the call run on the configuration's machine,
then the call.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from explorer.engine.apply import apply
from explorer.engine.commands import AttachTracker, SetMemoryRegion
from explorer.engine.events import KernelWarned, MappingsZapped
from explorer.engine.profile import PROFILES
from explorer.engine.types import ExplorerError
from explorer.engine.uapi import KvmMrChange
from explorer.explain.ledger import ledger_of
from explorer.explain.words import errno_text
from explorer.history.machine import Machine, machine_of
from explorer.history.moment import Moment
from explorer.history.rerun import Reruns, Setting, is_of_a_tracker
from explorer.history.run import Run, Stop, look_inside

if TYPE_CHECKING:
    from explorer.engine.commands import Command
    from explorer.engine.state import Kvm
    from explorer.engine.types import Errno
    from explorer.history import OpDetail

__all__ = [
    "COLUMNS",
    "MERGED",
    "POSTED",
    "ROWS",
    "Answer",
    "Call",
    "answer_in",
    "built",
    "call_at",
    "commands_before",
    "has_trackers",
    "is_attached",
    "is_quiet",
    "settings_needed",
    "variants_of",
]

MERGED, POSTED = "v6_6", "v6_6_posted"
ROWS = (MERGED, POSTED, "v6_6_nocheck", "v6_12", "v6_18", "v7_3", "v6_1", "v5_10", "pre_edd4")
"""The series in its three forms, the kernels after it, and those before it, newest first.

Without the profile that differs from another only in what a disabled quirk zaps: its column is that of ``v6_12``.
"""
COLUMNS = ((False, False), (False, True), (True, False), (True, True))
_VARIANTS_UP_TO = 2000
"""Operations before the call up to which other paging and the other zap are tried too."""
_ATTACH = AttachTracker(user=0, kind="kvmgt")


class Call(NamedTuple):
    """The region call the matrix is about."""

    op: int
    """Its place in the run; the run's length for the composed one."""
    command: SetMemoryRegion
    where: str
    """Which operation it is, in words."""


class Answer(NamedTuple):
    """What the engine answered in one configuration."""

    errno: Errno | None
    change: KvmMrChange | None
    lost: int
    dropped: int
    astray: int
    """Watches that stand for other pages after a MOVE which kept its arrays."""
    warned: bool
    generation: int
    """How far the generation moved."""
    zap: str
    impossible: str = ""

    @property
    def verdict(self) -> tuple[object, ...]:
        """What a different configuration can change: everything but the cost."""
        return self[:6]


def call_at(run: Run, op: int, ghost: OpDetail | None) -> Call | None:
    """Return the call at an operation; else the composed one at the end of the run; else the last before."""
    commands = run.commands
    if 0 <= op < len(commands) and isinstance(command := commands[op], SetMemoryRegion):
        return Call(op, command, f"operation {op + 1} of {len(commands)}")
    if ghost is not None and op == len(commands) - 1 and isinstance(ghost.command, SetMemoryRegion):
        return Call(len(commands), ghost.command, "composed, not applied yet")
    for index in range(min(op, len(commands)) - 1, -1, -1):
        if isinstance(command := commands[index], SetMemoryRegion):
            return Call(index, command, f"operation {index + 1}, the last region call before operation {op + 1}")
    return None


def settings_needed(run: Run, call: Call, reruns: Reruns) -> tuple[Setting, ...]:
    """Return the settings whose reruns the matrix reads."""
    own = machine_of(run.start)
    machines = [built(own.on(name), built_in=built_in) for built_in in (True, False) for name in ROWS]
    machines += [variant for machine in machines for _, variant in variants_of(machine, call)]
    quiet = (False, True) if has_trackers(reruns, call) else (False,)
    return tuple(dict.fromkeys(Setting(machine, silent) for machine in machines for silent in quiet))


def commands_before(run: Run, call: Call, machine: Machine, *, attached: bool) -> tuple[Command, ...]:
    """Return the operations that come before the call in a cell of the matrix."""
    before = run.commands[: call.op]
    without = tuple(command for command in before if not is_of_a_tracker(command))
    if len(without) == len(before):
        return (*before, _ATTACH) if attached else before
    as_it_is = Run(machine.start(), before).end
    if attached:
        return before if is_attached(as_it_is) else (*before, _ATTACH)
    return before if is_quiet(as_it_is, trackers=True) else without


def is_attached(kvm: Kvm) -> bool:
    """Return whether an external tracker is attached."""
    return any(tracker.attached for tracker in kvm.trackers.values())


def has_trackers(reruns: Reruns, call: Call) -> bool:
    """Return whether an external tracker does anything before the call."""
    return reruns.first_of_a_tracker is not None and reruns.first_of_a_tracker < call.op


def is_quiet(kvm: Kvm, *, trackers: bool) -> bool:
    """Return whether nobody is attached, and not because this build let nobody of the run's `trackers` in."""
    return not is_attached(kvm) and (bool(kvm.trackers) or not trackers)


def built(machine: Machine, *, built_in: bool) -> Machine:
    """Return the machine with external write tracking built in or not."""
    return machine._replace(config=replace(machine.config, external_write_tracking=built_in))


def variants_of(machine: Machine, call: Call) -> list[tuple[str, Machine]]:
    """Return the machines that differ in paging, or in what userspace asked of the zap; none for a long run."""
    if call.op > _VARIANTS_UP_TO:
        return []
    other = replace(machine.config, tdp=not machine.config.tdp)
    found = [(f"TDP {'on' if other.tdp else 'off'}", machine._replace(config=other))]
    if PROFILES[machine.profile].slot_zap_quirk:
        slot_only = not machine.zap_slot_only
        found.append((f"zap {'slot only' if slot_only else 'all'}", machine._replace(zap_slot_only=slot_only)))
    return found


def answer_in(reruns: Reruns, machine: Machine, call: Call, *, attached: bool) -> Answer | None:
    """Return what the call comes to; None if a rerun is not there yet."""
    key = ("answer", machine, call.op, call.command, attached)
    if key not in reruns.found:
        before = reruns.kvm_before(Setting(machine), call.op)
        if before is not None and not attached and not is_quiet(before, trackers=has_trackers(reruns, call)):
            before = reruns.kvm_before(Setting(machine, quiet=True), call.op)
        if before is None:
            return None
        reruns.found[key] = _ask(before, call, attached=attached)
    found: Answer = reruns.found[key]
    return found


def _ask(kvm: Kvm, call: Call, *, attached: bool) -> Answer:
    try:
        if attached and not is_attached(kvm):
            step = apply(kvm, _ATTACH)
            if step.errno is not None:
                return _impossible(f"{errno_text(step.errno)}: no tracker can register in this build")
            kvm = step.kvm
        op = look_inside(kvm, call.command, call.op)
    except ExplorerError as error:
        return _impossible(str(error))
    step, as_id = op.step, call.command.as_id
    moment = Moment(Stop(call.op, len(op.cells) - 1), step.kvm, kvm, op, None)
    ledger = ledger_of(moment)
    moved = step.errno is None and step.change is KvmMrChange.MOVE
    there = as_id < len(kvm.memslots)
    return Answer(
        step.errno,
        step.change or moment.change,
        ledger.lost if ledger is not None and step.errno is None else 0,
        ledger.dropped if ledger is not None else 0,
        ledger.count("held") if ledger is not None and moved and kvm.profile.move_keeps_arch_metadata else 0,
        any(isinstance(event, KernelWarned) for event in step.events),
        step.kvm.active(as_id).generation - kvm.active(as_id).generation if there else 0,
        next((event.scope for event in step.events if isinstance(event, MappingsZapped)), ""),
    )


def _impossible(reason: str) -> Answer:
    return Answer(None, None, 0, 0, 0, False, 0, "", reason)
