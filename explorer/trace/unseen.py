"""What a log does not show: slots from before it began, and calls of threads that it leaves out.

A log can begin in the middle, show one thread of several, or hide the arguments of some calls. Then the kernel
accepts what the model cannot: it deletes a slot the model never saw. That is no disagreement about KVM, so the
missing call is supplied and the row says so. What can be supplied is bounded by what is known of the log:

- The VM was made before the log begins: a slot that no line has named so far may exist.
- Some calls are known to be missing: any slot may have come, gone or changed meanwhile.
- The log shows the VM from its beginning: nothing is supplied, a difference is a difference.
- A slot is put on a guest_memfd: no log shows how the file was made, so one that is long enough is supplied, and
  whether the kernel found it too short, or no guest_memfd at all, cannot be told.

Read next: `replay`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from explorer.engine.apply import apply
from explorer.engine.commands import CreateGuestMemfd, SetMemoryRegion, SetMemoryRegion2
from explorer.engine.guest_memfd import has_file
from explorer.engine.lookup import overlapping_slot
from explorer.engine.types import PAGE_SHIFT, PAGE_SIZE, SlotId

if TYPE_CHECKING:
    from explorer.engine.apply import Step
    from explorer.trace.lift import Machine

__all__ = ["explain", "on_file"]

_OUT_OF_THE_WAY = 1 << 51
"""Guest address from which supplied slots take one page each; their true place is not known."""
_LONGEST_FILE = (1 << 63) - PAGE_SIZE
_CHANGED = {"same_hva", "same_size", "same_readonly"}
_PERHAPS = {"EEXIST", "EINVAL"}
_MOST_SUPPLIED = 64


def on_file(machine: Machine, call: SetMemoryRegion, fd: int, offset: int) -> tuple[SetMemoryRegion, str | None]:
    """Return a call that puts its slot on a guest_memfd, and what was taken for granted of the file."""
    fields = {name: getattr(call, name) for name in SetMemoryRegion.__dataclass_fields__}
    fd %= 1 << 32
    command = SetMemoryRegion2(**fields, guest_memfd=fd, guest_memfd_offset=offset)
    if not has_file(fd) or fd in machine.kvm.guest_memfds:
        return command, None
    return command, _supply_file(machine, fd)


def _supply_file(machine: Machine, fd: int) -> str | None:
    made = CreateGuestMemfd(fd=fd, size=_LONGEST_FILE)
    step = apply(machine.kvm, made, record=False)
    if step.errno is not None:
        return None
    machine.kvm = step.kvm
    machine.supplied = [*machine.supplied, made]
    return f"the log does not show how the guest_memfd behind descriptor {fd} was made"


def explain(
    machine: Machine, command: SetMemoryRegion, step: Step, recorded: str | None, *, qemu: bool
) -> tuple[Step, str | None]:
    """Return the step that agrees with the log and what was taken for granted, or `step` itself and None.

    Parameters
    ----------
    machine
        Its snapshot is moved on past every call that is supplied.
    recorded
        The errno that the kernel returned, or None for success.
    """
    if recorded is not None:
        return step, _unseen_slot(machine, command, step, recorded, qemu=qemu)
    note = None
    kvm = machine.kvm
    supplied: list[SetMemoryRegion | CreateGuestMemfd] = []
    while step.refused_by is not None and len(supplied) < _MOST_SUPPLIED:
        found = _missing_call(machine, command, step, qemu=qemu)
        if found is None:
            break
        missing, note = found
        supplied.append(missing)
        before = apply(machine.kvm, missing, record=False)
        if before.errno is not None:
            break
        machine.kvm = before.kvm
        step = apply(machine.kvm, command, record=False)
    if step.errno is not None:
        machine.kvm = kvm
        return step, None
    machine.supplied = [*machine.supplied, *supplied]
    return step, note


def _missing_call(
    machine: Machine, command: SetMemoryRegion, step: Step, *, qemu: bool
) -> tuple[SetMemoryRegion | CreateGuestMemfd, str] | None:
    """Return a call that must have come before `command` for the kernel to accept it, and how that is known."""
    guard = step.refused_by.name if step.refused_by is not None else ""
    doubt, as_id, slot = machine.vm.doubt, command.as_id, command.slot
    if guard == "gmem_overlap" and isinstance(command, SetMemoryRegion2):
        fd = command.guest_memfd
        return CreateGuestMemfd(fd=fd, size=_LONGEST_FILE), f"descriptor {fd} is another guest_memfd by now"
    if guard == "same_readonly" and qemu:
        return _deletion(as_id, slot), "QEMU deletes the slot before it changes READONLY and does not log that call"
    if guard == "slot_exists":
        if machine.vm.born is None and (as_id, slot) not in machine.touched:
            return _creation(as_id, slot), f"slot {slot} was there before the log begins"
        return (_creation(as_id, slot), f"slot {slot} was made by a call that is missing: {doubt}") if doubt else None
    if not doubt:
        return None
    if guard in _CHANGED:
        return _deletion(as_id, slot), f"slot {slot} was deleted by a call that is missing: {doubt}"
    if guard == "overlap":
        start = command.guest_phys_addr >> PAGE_SHIFT
        end = start + (command.memory_size >> PAGE_SHIFT)
        other = overlapping_slot(machine.kvm.active(as_id), SlotId(slot), start, end)
        if other is not None:
            return _deletion(as_id, other.id), f"slot {other.id} was deleted by a call that is missing: {doubt}"
    return None


def _unseen_slot(machine: Machine, command: SetMemoryRegion, step: Step, recorded: str, *, qemu: bool) -> str | None:
    """Return why the kernel may have refused what the engine accepts, or None if nothing explains it."""
    if step.errno is not None or recorded not in _PERHAPS:
        return None
    if isinstance(command, SetMemoryRegion2):
        return f"what the log does not show of descriptor {command.guest_memfd} may explain {recorded}"
    if machine.vm.doubt:
        return f"a call that is missing may explain {recorded}: {machine.vm.doubt}"
    if machine.vm.born is None and not machine.touched and not qemu:  # strace -Z shows only what failed
        return f"slots from before the log begins may explain {recorded}"
    return None


def _creation(as_id: int, slot: int) -> SetMemoryRegion:
    gpa = _OUT_OF_THE_WAY + ((as_id << 16 | slot) << PAGE_SHIFT)
    return SetMemoryRegion(slot=slot, as_id=as_id, guest_phys_addr=gpa, memory_size=PAGE_SIZE)


def _deletion(as_id: int, slot: int) -> SetMemoryRegion:
    return SetMemoryRegion(slot=slot, as_id=as_id, guest_phys_addr=0, memory_size=0)
