"""Watches as tokens: where each came from, who took it, what is lost with the old arrays, and when.

A watch is one count of one page. The sum always balances: before = released + kept + dropped + lost. A watch that
the zap returns is made again when the guest needs it; one that a tracker's own callback takes back in the course of
a call, as KVMGT's does before 6.6, is *dropped*: nobody asks for it again.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Literal, NamedTuple

from explorer.engine.events import ArrayFreed, Event, WriteUntracked
from explorer.engine.page_track import SHADOW_PAGING
from explorer.engine.state import WriteTrack

if TYPE_CHECKING:
    from explorer.engine.state import Kvm, KvmMemorySlot
    from explorer.history import OpDetail
    from explorer.history.moment import Moment

__all__ = ["Ledger", "Watch", "ledger_of", "watches_of"]

Fate = Literal["held", "released", "dropped", "lost"]


class Watch(NamedTuple):
    """One count of one page."""

    gfn: int
    by: Literal["shadow paging", "tracker"]
    fate: Fate
    """``held``: in the array; ``released``: let go of by shadow paging in the zap; ``dropped``: taken back by its
    tracker's own callback; ``lost``: gone with the array."""


class Ledger(NamedTuple):
    """The watches of one slot through one operation."""

    watches: tuple[Watch, ...]
    """Every watch there was before, by gfn, with its fate now."""
    lost_at: int | None
    """Number, from 1, of the step in which watches are or will be lost; None if none will."""
    will_be_lost: int
    """How many of the held ones will be lost in that step."""
    will_be_dropped: int = 0
    """How many of the held ones a callback of their tracker will take back."""
    will_be_lost_own: int = 0
    """How many of those that will be lost are shadow paging's."""
    dropped_at: int | None = None
    """Number, from 1, of the step in which watches are or will be dropped; None if none will."""

    @property
    def before(self) -> int:
        """How many there were."""
        return len(self.watches)

    def count(self, fate: Fate, by: str | None = None) -> int:
        """Return how many watches have a fate, of one kind or of both."""
        return sum(1 for watch in self.watches if watch.fate == fate and (by is None or watch.by == by))

    @property
    def released(self) -> int:
        """How many shadow paging let go of in the zap."""
        return self.count("released")

    @property
    def lost(self) -> int:
        """How many are lost by now."""
        return self.count("lost")

    @property
    def losers(self) -> str:
        """Whose watches are or will be lost, in words."""
        lost = self.lost + self.will_be_lost
        own = self.count("lost", "shadow paging") + self.will_be_lost_own
        return (
            "the external tracker" if not own else "shadow paging" if own == lost else "shadow paging and the tracker"
        )

    @property
    def dropped(self) -> int:
        """How many a callback of their tracker took back."""
        return self.count("dropped")

    @property
    def kept(self) -> int:
        """How many are in the array and neither about to be lost with it nor to be dropped."""
        return self.count("held") - self.will_be_lost - self.will_be_dropped


def watches_of(kvm: Kvm, slot: KvmMemorySlot | None) -> tuple[Watch, ...]:
    """Return the watches in a slot's array, by gfn; those of shadow paging are told by its shadow pages."""
    if slot is None or slot.arch.gfn_write_track is None:
        return ()
    array = kvm.heap.get(slot.arch.gfn_write_track)
    if not isinstance(array, WriteTrack):
        return ()
    shadowed: Counter[int] = Counter(
        page.gfn for page in kvm.active_mmu_pages.values() if page.level > 1 and page.as_id == slot.as_id
    )
    found = []
    for index, count in array.counts.items():
        gfn = slot.base_gfn + index
        own = min(shadowed[gfn], count)
        found += [Watch(gfn, "shadow paging", "held")] * own + [Watch(gfn, "tracker", "held")] * (count - own)
    return tuple(found)


def ledger_of(moment: Moment) -> Ledger | None:
    """Return the ledger of the slot a region call is about; None if the stop is in no such call."""
    op, old = moment.op, moment.old
    if op is None or moment.call is None:
        return None
    before = watches_of(op.before, old)
    now = _fates(before, moment.events, old)
    end = _fates(before, tuple(event for cell in op.cells for event in cell.events), old)
    lost_at = _step_of_loss(op, old) if any(watch.fate == "lost" for watch in end) else None
    dropped_at = _step_of_drop(op, old) if any(watch.fate == "dropped" for watch in end) else None
    changes = Counter((b.by, b.fate) for a, b in zip(now, end, strict=True) if a.fate == "held" != b.fate)
    will = sum(count for (_, fate), count in changes.items() if fate == "lost")
    return Ledger(now, lost_at, will, changes["tracker", "dropped"], changes["shadow paging", "lost"], dropped_at)


def _fates(before: tuple[Watch, ...], events: tuple[Event, ...], old: KvmMemorySlot | None) -> tuple[Watch, ...]:
    """Play events against the watches: a removal takes one of its kind, a freed array the rest."""
    watches = list(before)
    for event in events:
        if isinstance(event, WriteUntracked):
            if not _is_of(event, old):
                continue  # of another slot, such as the one at the same gfn in the other address space
            by = "shadow paging" if event.by == SHADOW_PAGING else "tracker"
            for at, watch in enumerate(watches):
                if (watch.gfn, watch.by, watch.fate) == (event.gfn, by, "held"):
                    watches[at] = watch._replace(fate="released" if by == "shadow paging" else "dropped")
                    break
        elif isinstance(event, ArrayFreed) and old is not None and event.array == old.arch.gfn_write_track:
            watches = [w._replace(fate="lost") if w.fate == "held" else w for w in watches]
    return tuple(watches)


def _step_of_loss(op: OpDetail, old: KvmMemorySlot | None) -> int | None:
    for number, cell in enumerate(op.cells, 1):
        for event in cell.events:
            if isinstance(event, ArrayFreed) and old is not None and event.array == old.arch.gfn_write_track:
                return number
    return None


def _step_of_drop(op: OpDetail, old: KvmMemorySlot | None) -> int | None:
    for number, cell in enumerate(op.cells, 1):
        for event in cell.events:
            if isinstance(event, WriteUntracked) and _is_of(event, old) and event.by != SHADOW_PAGING:
                return number
    return None


def _is_of(event: WriteUntracked, slot: KvmMemorySlot | None) -> bool:
    return slot is not None and (event.slot, event.as_id) == (slot.id, slot.as_id)
