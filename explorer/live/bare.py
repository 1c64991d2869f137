"""What of a run a bare VM can be asked, and what the model says that it answers.

Rule: what a bare VM cannot be asked is left out on *both* sides. A tracker makes the engine refuse a MOVE; where no
tracker can be attached, the model that is compared with has none either. Nothing left out is called equal.

Read next: `device`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from explorer.engine.apply import apply
from explorer.engine.commands import Begin, EnableCap, GetDirtyLog
from explorer.engine.events import DirtyLogRead
from explorer.engine.state import new_vm
from explorer.engine.types import PAGE_SHIFT, PAGE_SIZE, ExplorerError
from explorer.engine.uapi import (
    KVM_CAP_DISABLE_QUIRKS2,
    KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2,
    KVM_MEM_MAX_NR_PAGES,
)
from explorer.live.ioctls import Ioctl, ioctl_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from explorer.engine.commands import Command
    from explorer.engine.state import Kvm
    from explorer.engine.types import Errno
    from explorer.history import Run

__all__ = ["BareOp", "Limits", "bare", "prologue"]

_ARRAY_BYTES_PER_PAGE = 11
"""At most: 8 for rmaps, 2 for write tracking, a quarter for the dirty bitmap, and what is kept per huge page."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a run may take of the machine it is performed on."""

    operations: int = 100_000
    slots: int = 4096
    """That there are at once."""
    reserved_bytes: int = 4 << 40
    """Of address space behind all slots."""
    kernel_bytes: int = 512 << 20
    """Of kernel memory for the arrays of all slots."""
    seconds: float = 30.0
    """For all operations together."""

    @property
    def most_pages(self) -> int:
        """Most pages that one slot can have within the limits."""
        return min(self.reserved_bytes >> PAGE_SHIFT, self.kernel_bytes // _ARRAY_BYTES_PER_PAGE)


NO_LIMITS = Limits(operations=1 << 62, slots=1 << 62, reserved_bytes=1 << 80, kernel_bytes=1 << 80)


class BareOp(NamedTuple):
    """One operation of a run, as a bare VM sees it."""

    at: int
    """Position in the run, from 0; -1 for what was asked before it began."""
    command: Command
    call: Ioctl | None
    """None if it is left out."""
    left_out: str
    """Why, or empty."""
    errno: Errno | None
    """What the model answers without what is left out."""
    dirty: tuple[tuple[int, int], ...] | None
    """For a dirty log that was read: runs of pages that the model reports, half-open."""
    change: str | None
    refused_by: str | None
    """Name of the check that refuses in the model."""
    in_run: Errno | None
    """What the run itself says, with everything in it."""


def prologue(run: Run) -> tuple[Command, ...]:
    """Return what has to be asked of a new VM to begin where the run begins.

    Raises
    ------
    ExplorerError
        If that cannot be asked: the run begins with slots or trackers.
    """
    start = run.start
    asked: list[Command] = []
    if start.manual_dirty_log_protect:
        asked.append(EnableCap(cap=KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2, arg=start.manual_dirty_log_protect))
    if start.disabled_quirks:
        asked.append(EnableCap(cap=KVM_CAP_DISABLE_QUIRKS2, arg=start.disabled_quirks))
    kvm = new_vm(start.profile, start.config)
    for command in asked:
        kvm = apply(kvm, command, record=False).kvm
    if kvm != start:
        raise ExplorerError(
            f"the run begins with a VM that is not new ({start.brief()}); take one without slots or trackers there"
        )
    return tuple(asked)


def bare(run: Run, limits: Limits = NO_LIMITS) -> tuple[BareOp, ...]:
    """Return every operation of a run, with what was asked before it, in order.

    Raises
    ------
    ExplorerError
        If the run does not begin with a new VM.
    """
    return tuple(_walk(run, limits))


def _walk(run: Run, limits: Limits) -> Iterator[BareOp]:
    kvm = new_vm(run.start.profile, run.start.config)
    before = prologue(run)
    asked = 0
    for index, command in enumerate((*before, *run.commands), -len(before)):
        in_run = run.outcomes[index].errno if index >= 0 else None
        call = ioctl_of(command)
        too_much = _beyond(kvm, call, asked, limits) if isinstance(call, Ioctl) else call
        if not isinstance(call, Ioctl) or too_much:
            yield BareOp(max(index, -1), command, None, too_much or "", None, None, None, None, in_run)
            continue
        asked += 1
        whole = command.call if isinstance(command, Begin) else command
        step = apply(kvm, whole, record=isinstance(whole, GetDirtyLog))
        read = next((event for event in step.events if isinstance(event, DirtyLogRead)), None)
        yield BareOp(
            max(index, -1),
            command,
            call,
            "",
            step.errno,
            None if read is None else read.runs,
            None if step.change is None else step.change.value,
            None if step.refused_by is None else step.refused_by.name,
            in_run,
        )
        kvm = step.kvm


def _beyond(kvm: Kvm, call: Ioctl, asked: int, limits: Limits) -> str:
    """Return which limit a call would go beyond if the kernel took it, or an empty text."""
    if asked >= limits.operations:
        return f"beyond the limit of {limits.operations:,} operations"
    size = call.memory[1]
    if not size or size % PAGE_SIZE or size >> PAGE_SHIFT > KVM_MEM_MAX_NR_PAGES:
        return ""  # no kernel makes a slot of it
    slots = sum(len(space.active.id_hash) for space in kvm.memslots)
    pages = kvm.nr_memslot_pages + (size >> PAGE_SHIFT)
    if slots >= limits.slots:
        return f"beyond the limit of {limits.slots:,} slots"
    if pages << PAGE_SHIFT > limits.reserved_bytes:
        return f"beyond the limit of {limits.reserved_bytes >> 30:,} GiB of reserved memory"
    if pages * _ARRAY_BYTES_PER_PAGE > limits.kernel_bytes:
        return f"beyond the limit of {limits.kernel_bytes >> 20:,} MiB of kernel memory for arrays"
    return ""
