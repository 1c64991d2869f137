"""Guest writes to a page table of the GPU: what became of those in the run, and what would become of one now.

Nothing is concluded from counts: a write of the run is run again, and the one "now" is run on a copy of the moment.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple

from explorer.engine.apply import apply
from explorer.engine.commands import GuestWrite
from explorer.engine.events import GpuEntryShadowed, GuestWriteServed, TrackerNotified
from explorer.engine.locks import BusyError
from explorer.engine.state import Kvmgt
from explorer.engine.types import PAGE_SHIFT, PAGE_SIZE, Gfn
from explorer.explain.words import hex_text
from explorer.selectors.gpu_tables import ENTRY_BYTES, count_of, host_page_of
from explorer.selectors.probe import WORDS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from explorer.engine.events import Event
    from explorer.engine.state import Kvm
    from explorer.engine.types import Hva
    from explorer.history import Run, Stop

__all__ = ["Chain", "Link", "Written", "chain_of", "writes_to"]

LOOKED_AT = 64
"""Operations before a stop whose guest writes are looked at."""


class Written(NamedTuple):
    """A guest write of the run to the table."""

    op: int
    number: int
    """Of the entry it stores to."""
    seen: bool
    """Whether KVMGT was told and had the page in its protect table."""


class Link(NamedTuple):
    """One thing that happens, or not, when the guest stores to the table."""

    text: str
    state: Literal["done", "broken", "not"]


class Chain(NamedTuple):
    """A guest write to the table from the store to the shadow entry."""

    when: str
    links: tuple[Link, ...]

    @property
    def seen(self) -> bool:
        """Whether the write reaches the shadow."""
        return all(link.state == "done" for link in self.links)


def writes_to(run: Run, table: Hva, user: int, made: int, stop: Stop) -> tuple[Written, ...]:
    """Return the guest writes to a host page since its shadow was made, of the last `LOOKED_AT` operations."""
    first = max(made + 1, stop.op - LOOKED_AT + 1)
    if first > stop.op or not any(isinstance(c, GuestWrite) for c in run.commands[first : stop.op + 1]):
        return ()
    kvm, found = run.kvm_before(first), []
    for op, command in enumerate(run.commands[first : stop.op + 1], first):
        step = apply(kvm, command, record=isinstance(command, GuestWrite))
        if isinstance(command, GuestWrite) and not command.as_id:
            gfn = command.gpa >> PAGE_SHIFT
            if host_page_of(kvm, gfn) == table and _outcome(step.events) in ("ram", "emulated"):
                seen = _told(step.events, user) and _protects(kvm, user, gfn)
                found.append(Written(op, command.gpa % PAGE_SIZE // ENTRY_BYTES, seen))
        kvm = step.kvm
    return tuple(found)


def chain_of(kvm: Kvm, user: int, gpa: int, value: int, when: str) -> Chain:
    """Let the guest store an entry on a copy of a VM and return what happens, from the store to the shadow."""
    gfn = gpa >> PAGE_SHIFT
    store = Link(f"guest stores to {hex_text(gfn)}", "done")
    try:
        events = apply(kvm, GuestWrite(gpa=gpa, nbytes=ENTRY_BYTES, value=value)).events
    except BusyError:
        return Chain(when, (store, Link("waits: the call holds it up", "broken")))
    outcome = _outcome(events)
    if outcome not in ("ram", "emulated"):
        return Chain(when, (store, Link(WORDS.get(outcome, outcome), "broken"), *_silence()))
    count = count_of(kvm, gfn) or 0
    if outcome == "ram":
        return Chain(when, (store, Link(f"count {count}: write goes through", "broken"), *_silence()))
    caught = (store, Link(f"count {count}: fault", "done"), Link("emulated, memory written", "done"))
    if not _told(events, user):
        return Chain(when, (*caught, Link("KVMGT is not told", "broken"), *_silence()[-1:]))
    if not _protects(kvm, user, gfn):
        return Chain(when, (*caught, Link("told: not in its table", "broken"), *_silence()[-1:]))
    follows = any(isinstance(event, GpuEntryShadowed) for event in events)
    last = Link("shadow entry updated" if follows else "entry read again", "done")
    return Chain(when, (*caught, Link("kvmgt_page_track_write", "done"), last))


def _silence() -> tuple[Link, ...]:
    return Link("nobody is told", "not"), Link("not called", "not"), Link("shadow stays", "not")


def _outcome(events: Sequence[Event]) -> str:
    return next((event.outcome for event in events if isinstance(event, GuestWriteServed)), "retry")


def _told(events: Sequence[Event], user: int) -> bool:
    return any(isinstance(e, TrackerNotified) and (e.user, e.callback) == (user, "track_write") for e in events)


def _protects(kvm: Kvm, user: int, gfn: int) -> bool:
    tracker = kvm.trackers.get(user)
    return isinstance(tracker, Kvmgt) and Gfn(gfn) in tracker.protect_table
