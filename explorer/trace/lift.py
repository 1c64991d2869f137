"""From records to the engine: each region call becomes a command, each result a comparison.

Rule 1: one snapshot per VM is kept, the current one.
Rule 2: the log is right. Where kernel and engine disagree the row says so, and the replay goes on from what
the kernel did, as far as that can be told: a call that the kernel refused leaves the model as it was.

Models nothing of the kernel itself. Read next: `unseen`, `replay`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from explorer.engine.apply import apply
from explorer.engine.commands import Command, CreateGuestMemfd, SetMemoryRegion, format_command
from explorer.engine.draft import built
from explorer.engine.state import new_vm
from explorer.engine.types import PAGE_SHIFT
from explorer.engine.uapi import KvmMrChange
from explorer.trace.records import UNNAMED
from explorer.trace.unseen import explain, on_file

if TYPE_CHECKING:
    from explorer.engine.apply import Step
    from explorer.engine.config import VmConfig
    from explorer.engine.profile import KernelProfile
    from explorer.engine.state import Kvm
    from explorer.trace.records import OtherCall, RegionCall, Vm

__all__ = ["Lift", "Machine", "Row"]


class Row(NamedTuple):
    """One operation: what was asked, what the engine says, what the log says."""

    number: int
    """From 0, in the order in which the calls returned."""
    line: int
    """Line of the log that shows the arguments."""
    op: str
    """Verb of the command: ``set_region``, or of another call ``get_dirty_log`` and the like."""
    vm: int
    """VM, from 0 in the order of appearance."""
    as_id: int
    slot: int
    flags: int
    gpa: int
    size: int
    hva: int
    kind: str | None
    """CREATE, DELETE, MOVE, FLAGS_ONLY or NOOP; of a refused call what it tried, if that can be told."""
    guard: str | None
    """The check that fired in the engine, or None."""
    ret: int
    errno: str | None
    recorded_ret: int | None
    recorded_errno: str | None
    agrees: bool | None
    """None if there is no result to compare with, or only slots that the log does not show explain it."""
    generation: int | None
    """Of the call's address space after the call; None if there is no such space."""
    live_slots: int
    """Of the VM after the call, all address spaces."""
    note: str | None
    """What had to be taken for granted for this call, or None."""


class Machine:
    """The model of one VM of the log, and what was counted on it."""

    __slots__ = ("before", "command", "kvm", "live", "max_live", "operations", "step", "supplied", "touched", "vm")

    def __init__(self, vm: Vm, kvm: Kvm) -> None:
        """Start from a new VM."""
        self.vm = vm
        self.kvm = kvm
        self.operations = 0
        self.live = 0
        """Slots it has; 0 once it is closed."""
        self.max_live = 0
        self.touched: set[tuple[int, int]] = set()
        """Slots, as (address space, id), that an accepted call in the log named."""
        self.command: Command | None = None
        """The call of the last row as the engine got it."""
        self.before = kvm
        self.step: Step | None = None
        """What the engine made of that call, and from what, before anything was taken for granted."""
        self.supplied: list[SetMemoryRegion | CreateGuestMemfd] = []
        """Commands that stand for calls the log does not show, made for the last row."""


class Lift:
    """The models of all VMs of one log."""

    def __init__(self, profile: KernelProfile, config: VmConfig, *, qemu: bool) -> None:
        """Give every VM the same kernel and machine; `qemu` says that QEMU wrote the log itself."""
        self._new = new_vm(profile, config)
        self._qemu = qemu
        self._rows = 0
        self._live = 0
        self.max_live_of_all = 0
        """Most slots that all open VMs had together."""
        self.machines: dict[int, Machine] = {}

    def run(self, call: RegionCall) -> Row:
        """Replay one call and return its row."""
        line, _, vm, as_id, slot, flags, gpa, size, hva, recorded_ret, recorded_errno, guest_memfd, offset = call
        machine = self.machines.get(vm.index)
        if machine is None:
            machine = self.machines[vm.index] = Machine(vm, self._new)
        elif machine.supplied:
            machine.supplied = []
        command = SetMemoryRegion(
            slot=slot, as_id=as_id, flags=flags, guest_phys_addr=gpa, memory_size=size, userspace_addr=hva
        )
        note = None
        if guest_memfd is not None:
            command, note = on_file(machine, command, guest_memfd, offset)
        machine.command = command
        before = machine.before = machine.kvm
        step = machine.step = apply(before, command, record=False)
        errno = None if step.errno is None else step.errno.name
        agrees: bool | None = None
        if recorded_ret is not None:
            agrees = errno == recorded_errno
            if not agrees and recorded_errno == UNNAMED and errno is not None:
                agrees = True
            elif not agrees:
                step, found = explain(machine, command, step, recorded_errno, qemu=self._qemu)
                errno = None if step.errno is None else step.errno.name
                agrees = errno == recorded_errno or (None if found else False)
                note = found or note
            if recorded_ret == 0:
                machine.touched.add((as_id, slot))
        # A call that the kernel refused did nothing, whatever the engine says.
        kvm = machine.kvm = step.kvm if recorded_errno is None or errno is not None else machine.kvm
        live = 0
        for space in kvm.memslots:
            live += len(space.active.id_hash)
        machine.operations += 1
        if live != machine.live:
            self._count(machine, live)
        index = self._rows
        self._rows += 1
        fields = (
            index,
            line,
            "set_region",
            vm.index,
            as_id,
            slot,
            flags,
            gpa,
            size,
            hva,
            step.change.value if step.change is not None else _attempted(before, command),
            None if step.refused_by is None else step.refused_by.name,
            0 if errno is None else -1,
            errno,
            recorded_ret,
            recorded_errno,
            agrees,
            kvm.memslots[as_id].active.generation if as_id < len(kvm.memslots) else None,
            live,
            note,
        )
        return built(Row, fields)

    def run_other(self, call: OtherCall) -> Row:
        """Replay a call that is no region call and return its row."""
        machine = self.machines.get(call.vm.index)
        if machine is None:
            machine = self.machines[call.vm.index] = Machine(call.vm, self._new)
        command = machine.command = call.command
        machine.supplied = []
        machine.before = machine.kvm
        step = machine.step = apply(machine.before, command, record=False)
        errno = None if step.errno is None else step.errno.name
        if call.errno is None or errno is not None:
            machine.kvm = step.kvm
        as_id = getattr(command, "as_id", 0)
        spaces = machine.kvm.memslots
        machine.operations += 1
        self._rows += 1
        return Row(
            self._rows - 1,
            call.line,
            format_command(command).partition(" ")[0],
            call.vm.index,
            as_id,
            getattr(command, "slot", 0),
            getattr(command, "flags", 0),
            getattr(command, "gpa", 0),
            getattr(command, "size", 0),
            getattr(command, "hva", 0),
            None,
            None,
            0 if errno is None else -1,
            errno,
            call.ret,
            call.errno,
            None if call.ret is None else errno == call.errno,
            spaces[as_id].active.generation if as_id < len(spaces) else None,
            machine.live,
            None,
        )

    def forget(self, vm: Vm) -> None:
        """Count the slots of a VM that was closed no longer; its last layout stays."""
        machine = self.machines.get(vm.index)
        if machine is not None:
            self._count(machine, 0)

    def _count(self, machine: Machine, live: int) -> None:
        self._live += live - machine.live
        machine.live = live
        machine.max_live = max(machine.max_live, live)
        self.max_live_of_all = max(self.max_live_of_all, self._live)


def _attempted(kvm: Kvm, command: SetMemoryRegion) -> str | None:
    """Return what a call tried that was refused before the engine said what it is, or None."""
    if not command.memory_size:
        return KvmMrChange.DELETE.value
    old = kvm.slot(command.slot, command.as_id) if command.as_id < len(kvm.memslots) else None
    if old is None:
        return KvmMrChange.CREATE.value
    if command.guest_phys_addr >> PAGE_SHIFT != old.base_gfn:
        return KvmMrChange.MOVE.value
    return KvmMrChange.FLAGS_ONLY.value if command.flags != old.flags else None
