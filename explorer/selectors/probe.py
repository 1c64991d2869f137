"""What the guest would meet at this very moment: a read and a write of the pages the picture is about.

Each access is run in the engine on a copy of the moment, so the run itself does not change.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from explorer.engine.apply import apply
from explorer.engine.commands import GuestRead, GuestWrite
from explorer.engine.events import GuestReadServed, GuestWriteServed
from explorer.engine.locks import BusyError
from explorer.engine.types import PAGE_SHIFT
from explorer.engine.uapi import KvmMrChange
from explorer.explain.ledger import watches_of

if TYPE_CHECKING:
    from explorer.engine.state import Kvm
    from explorer.history.moment import Moment

__all__ = ["Probe", "select_probes"]

WORDS = {
    "ram": "memory",
    "emulated": "emulated",
    "apic": "local APIC",
    "mmio": "MMIO exit",
    "read-only": "exit: read-only",
    "retry": "tries again",
    "fault": "−EFAULT",
    "hangs": "faults for ever",
    "shutdown": "shuts down",
    "undelivered": "internal error",
    "no code": "internal error",
    "waits": "waits to start",
}
"""Each outcome of `explorer.engine.guest.OUTCOMES` in the words of a table."""
_MOST = 3


class Probe(NamedTuple):
    """One page, and what would become of an access to it now."""

    gfn: int
    read: str
    """A key of `WORDS`."""
    write: str


def select_probes(moment: Moment, page: int | None = None) -> tuple[Probe, ...]:
    """Return the probes of a moment: of the page that was asked for, or of those the operation is about.

    A guest with paging addresses memory through its own tables, so its accesses are not those of a gfn: no probes.
    """
    kvm = moment.kvm
    as_id = moment.focus.as_id if moment.focus is not None else 0
    if kvm.vcpu.mode == "long" or as_id >= len(kvm.memslots):
        return ()
    gfns = (page,) if page is not None else _gfns(moment)
    return tuple(Probe(gfn, _read(kvm, gfn, as_id), _write(kvm, gfn, as_id)) for gfn in gfns[:_MOST])


def _gfns(moment: Moment) -> tuple[int, ...]:
    """Return a watched page of the slot, or its first; of a MOVE also where that page goes."""
    call, old, op = moment.call, moment.old, moment.op
    if call is None or op is None or not moment.on_call:
        return ()
    if old is None:
        return (call.guest_phys_addr >> PAGE_SHIFT,) if call.memory_size else ()
    watched = watches_of(op.before, old)
    here = watched[0].gfn if watched else old.base_gfn
    if moment.change is not KvmMrChange.MOVE:
        return (here,)
    return (here, here - old.base_gfn + (call.guest_phys_addr >> PAGE_SHIFT))


def _read(kvm: Kvm, gfn: int, as_id: int) -> str:
    try:
        events = apply(kvm, GuestRead(gpa=gfn << PAGE_SHIFT, as_id=as_id)).events
    except BusyError:  # the access needs a lock that the call holds: the vCPU waits
        return "retry"
    return next((event.outcome for event in events if isinstance(event, GuestReadServed)), "retry")


def _write(kvm: Kvm, gfn: int, as_id: int) -> str:
    try:
        events = apply(kvm, GuestWrite(gpa=gfn << PAGE_SHIFT, as_id=as_id)).events
    except BusyError:
        return "retry"
    return next((event.outcome for event in events if isinstance(event, GuestWriteServed)), "retry")
