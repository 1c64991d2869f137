"""One scenario in the engine: each recorded operation becomes a command, each recorded value a comparison.

Rule: what the engine has no object for is *unmodelled*: it gets a name, is counted, and is never called
equal.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple

from explorer.conform.host_memory import HostMemory
from explorer.conform.readback import dump_of, exits_of, notes_of, query_of, slot_of
from explorer.engine.apply import Step, apply
from explorer.engine.capabilities import CAPABILITIES, kvm_dev_ioctl_create_vm, kvm_vm_ioctl_check_extension
from explorer.engine.commands import (
    AttachTracker,
    BuildPageTables,
    ClearDirtyLog,
    Command,
    CreateGuestMemfd,
    CreateIrqchip,
    CreateVcpu,
    DetachTracker,
    EnableCap,
    GetDirtyLog,
    GuestRead,
    GuestWrite,
    HostTouch,
    ReadTrackerLog,
    SetIdentityMapAddr,
    SetMemoryRegion,
    SetMemoryRegion2,
    SetTssAddr,
    SetVcpuMode,
    TrackGfn,
    UntrackGfn,
)
from explorer.engine.events import DirtyLogRead, GuestReadServed, GuestWriteServed
from explorer.engine.state import LogTracker, new_vm
from explorer.engine.types import Errno
from explorer.engine.uapi import KVM_CAP_DISABLE_QUIRKS2, KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2, KVM_CAP_SPLIT_IRQCHIP

if TYPE_CHECKING:
    from collections.abc import Iterator

    from explorer.conform.recording import Scenario
    from explorer.engine.state import Kvm

__all__ = ["Difference", "Outcome", "Player"]

_CAP_NUMBERS = {"MANUAL_DIRTY_LOG_PROTECT2": KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2}
_NO_VM = "ENOTCONN"
"""What the recorder notes for an operation on a VM that was not made."""
_FIRST_FD = 3
"""Descriptor of the guest_memfd with id 0; those before are taken by any program."""
_WRITES_MEMORY = {"host_write", "build_pt", "vcpu_mode"}
"""Operations after which host memory is unknown to `HostMemory`."""
_ANSWER = 171
"""What the recorder's VMM answers to a read that exits to it."""
_CAPS = {KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2, KVM_CAP_SPLIT_IRQCHIP, KVM_CAP_DISABLE_QUIRKS2}


class Difference(NamedTuple):
    """One recorded value that the engine does not reproduce."""

    field: str
    expected: Any
    """As recorded."""
    got: Any


@dataclass(slots=True)
class Outcome:
    """What became of one recorded operation."""

    op: str
    differences: list[Difference] = field(default_factory=list)
    unmodelled: list[str] = field(default_factory=list)
    guard: str | None = None
    """The check that fired in the engine."""


class Player:
    """Plays the operations of one scenario in order."""

    def __init__(self, scenario: Scenario) -> None:
        """Start from a new VM on the scenario's kernel and machine."""
        self._scenario = scenario
        made = kvm_dev_ioctl_create_vm(scenario.profile, scenario.config)
        self._no_vm = made.name if isinstance(made, Errno) else None
        """Why the engine makes no VM for this scenario, or None."""
        self._kvm: Kvm = new_vm(scenario.profile, scenario.config) if isinstance(made, Errno) else made
        self._memory = HostMemory()

    def play(self) -> Iterator[Outcome]:
        """Iterate over the outcomes, one for each operation and a last one for the final dump."""
        for op in self._scenario.ops:
            yield self._play(op)
        final = self._scenario.final_slots
        if final is not None:
            outcome = Outcome("final_slots")
            self._compare_dump(outcome, final)
            yield outcome

    def _play(self, op: dict[str, Any]) -> Outcome:
        name = str(op["op"])
        outcome = Outcome(name)
        if self._no_vm is not None or self._scenario.vm_errno is not None:
            _compare(outcome, "vm_errno", self._scenario.vm_errno, self._no_vm)
            _compare(outcome, "errno", op["errno"], _NO_VM)
            _compare(outcome, "ret", op["ret"], -1)
            return outcome
        if name.startswith("t_") and not self._scenario.has_tracker_module:
            outcome.unmodelled.append(f"{name} without the tracker module")
            return outcome
        if name == "guest_write" and op["ret"] == 0:
            self._memory.store(self._kvm, op["gpa"], op["val"])
        elif name in _WRITES_MEMORY:
            self._memory = HostMemory()
        command = self._command(op)
        if isinstance(command, GuestRead | GuestWrite):
            self._access(outcome, op, command)
        elif command is not None:
            self._run(outcome, op, command)
        elif name == "check_extension":
            self._check_extension(outcome, op)
        elif name == "host_read" and (byte := self._memory.load(self._scenario.arena_base + op["hva"])) is not None:
            _compare(outcome, "value", op["value"], byte)
        elif name in ("t_query", "t_slot", "t_dump", "t_events"):
            self._read_back(outcome, op)
        else:
            outcome.unmodelled.append(name)
        return outcome

    def _command(self, op: dict[str, Any]) -> Command | None:
        as_id = int(op.get("as", 0))
        match op["op"]:
            case "set_region":
                return SetMemoryRegion(
                    slot=op["slot"],
                    as_id=as_id,
                    flags=op.get("flags", 0),
                    guest_phys_addr=op["gpa"],
                    memory_size=op["size"],
                    userspace_addr=op["uaddr"] if "uaddr" in op else self._scenario.arena_base + op["hva"],
                )
            case "set_region2":
                return SetMemoryRegion2(
                    slot=op["slot"],
                    as_id=as_id,
                    flags=op.get("flags", 0),
                    guest_phys_addr=op["gpa"],
                    memory_size=op["size"],
                    userspace_addr=op["uaddr"] if "uaddr" in op else self._scenario.arena_base + op["hva"],
                    # An operation without a file leaves the descriptor 0: an open file, but no guest_memfd.
                    guest_memfd=_FIRST_FD + op["gmem"] if "gmem" in op else 0,
                    guest_memfd_offset=op.get("gmem_off", 0),
                )
            case "create_gmem":
                return CreateGuestMemfd(fd=_FIRST_FD + op["id"], size=op["size"], flags=op["gflags"])
            case "dev_fault_in":
                return HostTouch(hva=self._scenario.arena_base + op["hva"], size=op["size"], value=1)
            case "get_dirty_log":
                return GetDirtyLog(slot=op["slot"], as_id=as_id)
            case "clear_dirty_log":
                return ClearDirtyLog(slot=op["slot"], as_id=as_id, first_page=op["first"], num_pages=op["num"])
            case "enable_cap" if (cap := _CAP_NUMBERS.get(op["cap"], op["cap"])) in _CAPS:
                return EnableCap(cap=cap, arg=op["arg"])
            case "t_attach":
                return AttachTracker(user=op["user"])
            case "t_detach":
                return DetachTracker(user=op["user"])
            case "t_track":
                return TrackGfn(user=op["user"], gfn=op["gfn"])
            case "t_untrack":
                return UntrackGfn(user=op["user"], gfn=op["gfn"])
            case "set_tss_addr":
                return SetTssAddr(addr=op["addr"])
            case "set_identity_map_addr":
                return SetIdentityMapAddr(addr=op["addr"])
            case "create_irqchip":
                return CreateIrqchip()
            case "create_vcpu":
                return CreateVcpu(id=op["id"])
            case "guest_write":
                return GuestWrite(gpa=op["gpa"], nbytes=1, value=op["val"])
            case "guest_read":
                return GuestRead(gpa=op["gpa"], nbytes=1, answer=_ANSWER)
            case "vcpu_mode":
                # The recorder copies the code to where the guest runs it.
                self._touch(op["hva"], 1, 0)
                return SetVcpuMode(mode=op["mode"], cr3=op.get("cr3", 0), code=op["code"])
            case "build_pt":
                return BuildPageTables(gpa=op["gpa"], hva=self._scenario.arena_base + op["hva"])
            case _:
                return None

    def _touch(self, hva: int, size: int, value: int) -> None:
        touch = HostTouch(hva=self._scenario.arena_base + hva, size=size, value=value)
        self._kvm = apply(self._kvm, touch, record=False).kvm

    def _access(self, outcome: Outcome, op: dict[str, Any], command: GuestRead | GuestWrite) -> None:
        missing = self._unfit_for_access()
        if missing is not None:
            outcome.unmodelled.append(f"{outcome.op} {missing}")
            return
        step = apply(self._kvm, command)
        self._kvm = step.kvm
        served = next((event for event in step.events if isinstance(event, GuestReadServed | GuestWriteServed)), None)
        value = served.value if isinstance(served, GuestReadServed) else op.get("val", 0)
        exits = [] if served is None else exits_of(served, value)
        _compare(outcome, "exits", op["exits"], exits)
        errno = step.errno.name if step.errno is not None else None
        _compare(outcome, "errno", op["errno"], errno)
        _compare(outcome, "ret", op["ret"], 0 if step.errno is None else -1)

    def _unfit_for_access(self) -> str | None:
        """Return what an access meets that the engine has no object for, or None."""
        kvm = self._kvm
        if not kvm.setup.vcpus or kvm.vcpu.code is None:
            return "of a vCPU that was not set up"
        if kvm.config.processor == "pvm" and kvm.vcpu.mode == "long":
            return "of a paging guest of PVM"
        return None

    def _run(self, outcome: Outcome, op: dict[str, Any], command: Command) -> None:
        step = apply(self._kvm, command, record=isinstance(command, GetDirtyLog))
        self._kvm = step.kvm
        if step.refused_by is not None:
            outcome.guard = step.refused_by.name
        errno = step.errno.name if step.errno is not None else None
        _compare(outcome, "errno", op["errno"], errno)
        _compare(outcome, "ret", op["ret"], 0 if step.errno is None else -1)
        if "dirty_count" in op and step.errno is None:
            self._compare_dirty(outcome, op, step)

    def _check_extension(self, outcome: Outcome, op: dict[str, Any]) -> None:
        asked = next((row for row in CAPABILITIES.values() if op["cap"] in (row.name, row.number)), None)
        if asked is None:
            outcome.unmodelled.append("check_extension of another capability")
            return
        answer = kvm_vm_ioctl_check_extension(self._kvm, asked, vm=op.get("on", "vm") == "vm")
        refused = isinstance(answer, Errno)
        _compare(outcome, "errno", op["errno"], answer.name if isinstance(answer, Errno) else None)
        _compare(outcome, "ret", op["ret"], -1 if refused else 0)
        if not refused:
            _compare(outcome, "value", op.get("value"), answer)

    def _compare_dirty(self, outcome: Outcome, op: dict[str, Any], step: Step) -> None:
        read = next(event for event in step.events if isinstance(event, DirtyLogRead))
        _compare(outcome, "dirty_count", op["dirty_count"], read.count)
        pages = (page for run in read.runs for page in range(*run))
        _compare(outcome, "dirty", op["dirty"], list(islice(pages, len(op["dirty"]))))

    def _read_back(self, outcome: Outcome, op: dict[str, Any]) -> None:
        match outcome.op:
            case "t_query":
                self._compare_dict(outcome, op["data"], query_of(self._kvm, op["gfn"]))
            case "t_slot":
                got = slot_of(self._kvm, op["slot"], int(op.get("as", 0)))
                if op["slot"] in self._scenario.internal_ids and "uaddr" in op["data"]:
                    got["uaddr"] = op["data"]["uaddr"]
                self._compare_dict(outcome, op["data"], got)
            case "t_dump":
                self._compare_dump(outcome, op["data"])
            case "t_events":
                tracker = self._kvm.trackers.get(op["user"])
                notes = tracker.notes() if isinstance(tracker, LogTracker) else ()
                _compare(outcome, "data", op["data"], [notes_of(note) for note in notes])
                self._kvm = apply(self._kvm, ReadTrackerLog(user=op["user"]), record=False).kvm

    def _compare_dump(self, outcome: Outcome, recorded: dict[str, Any]) -> None:
        internal = self._scenario.internal_ids
        got = dump_of(self._kvm)
        recorded, got = (dump | {"slots": _comparable(dump["slots"], internal)} for dump in (recorded, got))
        self._compare_dict(outcome, recorded, got)

    def _compare_dict(self, outcome: Outcome, recorded: dict[str, Any], got: dict[str, Any]) -> None:
        for key, expected in recorded.items():
            _compare(outcome, key, expected, got.get(key))


def _compare(outcome: Outcome, field_name: str, expected: Any, got: Any) -> None:
    if expected != got:
        outcome.differences.append(Difference(field_name, expected, got))


def _comparable(slots: list[list[int]], internal: range) -> list[list[int]]:
    """Sort a dump's slots; the host address of KVM's own slots is the kernel's free choice."""
    return sorted([*slot[:5], 0 if slot[1] in internal else slot[5]] for slot in slots)
