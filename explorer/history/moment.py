"""A stop of a run with what a selector needs around it: the operation, its steps so far, the slot in focus."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from explorer.engine.commands import (
    ClearDirtyLog,
    GetDirtyLog,
    GuestWrite,
    SetMemoryRegion,
    ShadowTables,
    TrackGfn,
    UntrackGfn,
)
from explorer.engine.lookup import gfn_to_memslot
from explorer.engine.types import PAGE_SHIFT
from explorer.engine.uapi import KvmMrChange
from explorer.history.run import START, OpDetail, Run, Stop

if TYPE_CHECKING:
    from explorer.engine.commands import Command
    from explorer.engine.events import Event
    from explorer.engine.state import Kvm, KvmMemorySlot

__all__ = ["Moment", "SlotKey", "invalidates", "moment_at"]


class SlotKey(NamedTuple):
    """A slot by its name: address space and id."""

    as_id: int
    slot_id: int


class Moment(NamedTuple):
    """One stop of a run."""

    stop: Stop
    kvm: Kvm
    """The VM now."""
    previous: Kvm
    """The VM one step earlier."""
    op: OpDetail | None
    """The operation this stop is in, or None at the start of the run."""
    focus: SlotKey | None
    """The slot the picture is about."""
    ghost: OpDetail | None = None
    """The composed operation, run on a copy of the VM as it is now; None if there is none."""

    @property
    def events(self) -> tuple[Event, ...]:
        """What the operation has done up to now."""
        if self.op is None:
            return ()
        return tuple(event for cell in self.op.cells[: self.stop.cell + 1] for event in cell.events)

    @property
    def at_end(self) -> bool:
        """Whether the operation is over."""
        return self.op is None or self.stop.cell == len(self.op.cells) - 1

    @property
    def call(self) -> SetMemoryRegion | None:
        """The region call this stop is in, or None."""
        return self.op.command if self.op is not None and isinstance(self.op.command, SetMemoryRegion) else None

    @property
    def on_call(self) -> bool:
        """Whether the slot in focus is the one the operation is about; true where no region call runs."""
        return self.call is None or self.focus == SlotKey(self.call.as_id, self.call.slot)

    @property
    def old(self) -> KvmMemorySlot | None:
        """The slot the region call found, as it was before."""
        call = self.call
        return (
            None
            if call is None or self.op is None or call.as_id >= len(self.op.before.memslots)
            else (self.op.before.slot(call.slot, call.as_id))
        )

    @property
    def change(self) -> KvmMrChange | None:
        """What the region call is, or what it tries to be."""
        if self.call is None or self.op is None:
            return None
        return self.op.step.change or attempted_change(self.op.before, self.call)

    @property
    def target(self) -> tuple[int, int] | None:
        """Gfns ``[start, end)`` the region call asks for, or None if it asks for none."""
        call = self.call
        if call is None or not call.memory_size:
            return None
        start = call.guest_phys_addr >> PAGE_SHIFT
        return (start, start + (call.memory_size >> PAGE_SHIFT))


def moment_at(run: Run, stop: Stop, *, focus: SlotKey | None = None, ghost: OpDetail | None = None) -> Moment:
    """Return the moment at a stop; without `focus` the operation says which slot the picture is about."""
    stop = run.clamp(stop)
    if stop.op < 0:
        kvm = run.start
        return Moment(START, kvm, kvm, None, focus or _focus_of(kvm, None, ghost), ghost)
    op = run.detail(stop.op)
    kvm = op.cells[stop.cell].kvm
    previous = op.cells[stop.cell - 1].kvm if stop.cell else op.before
    return Moment(stop, kvm, previous, op, focus or _focus_of(kvm, op.command, ghost), ghost)


def attempted_change(before: Kvm, call: SetMemoryRegion) -> KvmMrChange | None:
    """Return what a call would be if nothing refused it; None for a resize or another host address."""
    if not call.memory_size:
        return KvmMrChange.DELETE
    if call.as_id >= len(before.memslots):
        return None
    old = before.slot(call.slot, call.as_id)
    if old is None:
        return KvmMrChange.CREATE
    if call.guest_phys_addr >> PAGE_SHIFT != old.base_gfn:
        return KvmMrChange.MOVE
    if call.flags != old.flags:
        return KvmMrChange.FLAGS_ONLY
    same = (call.memory_size >> PAGE_SHIFT, call.userspace_addr) == (old.npages, old.userspace_addr)
    return KvmMrChange.NOOP if same else None


def invalidates(change: KvmMrChange | None) -> bool:
    """Return whether a change hides the old slot from readers for a while."""
    return change in (KvmMrChange.MOVE, KvmMrChange.DELETE)


def _focus_of(kvm: Kvm, command: Command | None, ghost: OpDetail | None) -> SlotKey | None:
    """Return the slot an operation is about, else the one the composed operation names, else the last made."""
    match command:
        case SetMemoryRegion() | GetDirtyLog() | ClearDirtyLog():
            return SlotKey(command.as_id, command.slot)
        case TrackGfn() | UntrackGfn() | ShadowTables():
            slot = gfn_to_memslot(kvm.active(), command.gfn)
        case GuestWrite() if command.as_id < len(kvm.memslots):
            slot = gfn_to_memslot(kvm.active(command.as_id), command.gpa >> PAGE_SHIFT)
        case _:
            slot = None
    if slot is not None:
        return SlotKey(slot.as_id, slot.id)
    if ghost is not None and isinstance(ghost.command, SetMemoryRegion):
        return SlotKey(ghost.command.as_id, ghost.command.slot)
    for as_id in range(len(kvm.memslots)):
        last = kvm.active(as_id).id_hash.last()
        if last is not None:
            return SlotKey(as_id, last[0])
    return None
