"""Watches as tokens: where each came from, who took it, what is lost with the old arrays, and when.

A watch is one count of one page. The sum always balances: before = returned + kept + lost.
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

Fate = Literal["held", "returned", "lost"]


class Watch(NamedTuple):
    """One count of one page."""

    gfn: int
    by: Literal["shadow paging", "tracker"]
    fate: Fate
    """``held``: in the array; ``returned``: taken back by who asked for it; ``lost``: gone with the array."""


class Ledger(NamedTuple):
    """The watches of one slot through one operation."""

    watches: tuple[Watch, ...]
    """Every watch there was before, by gfn, with its fate now."""
    lost_at: int | None
    """Number, from 1, of the step in which watches are or will be lost; None if none will."""
    will_be_lost: int
    """How many of the held ones will be lost in that step."""

    @property
    def before(self) -> int:
        """How many there were."""
        return len(self.watches)

    def count(self, fate: Fate, by: str | None = None) -> int:
        """Return how many watches have a fate, of one kind or of both."""
        return sum(1 for watch in self.watches if watch.fate == fate and (by is None or watch.by == by))

    @property
    def returned(self) -> int:
        """How many were taken back."""
        return self.count("returned")

    @property
    def lost(self) -> int:
        """How many are lost by now."""
        return self.count("lost")

    @property
    def kept(self) -> int:
        """How many are in the array and will stay there."""
        return self.count("held") - self.will_be_lost


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
    will = sum(1 for a, b in zip(now, end, strict=True) if a.fate == "held" and b.fate == "lost")
    return Ledger(now, lost_at, will)


def _fates(before: tuple[Watch, ...], events: tuple[Event, ...], old: KvmMemorySlot | None) -> tuple[Watch, ...]:
    """Play events against the watches: a removal takes one of its kind, a freed array the rest."""
    watches = list(before)
    for event in events:
        if isinstance(event, WriteUntracked):
            by = "shadow paging" if event.by == SHADOW_PAGING else "tracker"
            for at, watch in enumerate(watches):
                if (watch.gfn, watch.by, watch.fate) == (event.gfn, by, "held"):
                    watches[at] = watch._replace(fate="returned")
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
