"""What accepted calls cost: watches that are gone while somebody counts on them, or that stand for other pages.

Each call is run on a copy; its ledger says what became of the watches. What shadow paging gives back costs nothing:
it asks again when the guest needs it. Read next: `ledger`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from explorer.engine.commands import SetMemoryRegion
from explorer.engine.uapi import KvmMrChange
from explorer.explain.ledger import ledger_of
from explorer.explain.words import plural
from explorer.history.moment import Moment
from explorer.history.run import Stop, look_inside

if TYPE_CHECKING:
    from collections.abc import Iterable

    from explorer.engine.commands import Command
    from explorer.engine.state import Kvm

__all__ = ["Cost", "cost_at", "cost_of"]


class Cost(NamedTuple):
    """Watches that a call harms, by what becomes of them."""

    lost: int = 0
    """Gone with their array."""
    dropped: int = 0
    """Taken back by KVMGT's own callback, which does not ask again."""
    carried: int = 0
    """Kept by index in the array of a slot that has moved: they stand for other pages."""

    @property
    def words(self) -> str:
        """The cost as a clause, such as ``2 watches are lost``; empty if no watch is harmed."""
        told = (
            (self.lost, f"{plural(self.lost, 'watch')} {'is' if self.lost == 1 else 'are'} lost"),
            (self.dropped, f"KVMGT drops {plural(self.dropped, 'watch')}"),
            (self.carried, f"{plural(self.carried, 'watch')} will stand for other pages"),
        )
        return " and ".join(words for number, words in told if number)


def cost_at(moment: Moment) -> Cost:
    """Return what the region call of a moment costs by its end; nothing outside a region call."""
    ledger = ledger_of(moment)
    if ledger is None:
        return Cost()
    moves = moment.change is KvmMrChange.MOVE and moment.kvm.profile.move_keeps_arch_metadata
    return Cost(
        ledger.lost + ledger.will_be_lost,
        ledger.dropped + ledger.will_be_dropped,
        ledger.count("held", "tracker") if moves else 0,  # shadow paging's go back with the zap
    )


def cost_of(kvm: Kvm, commands: Iterable[Command]) -> Cost:
    """Run commands on a copy of a VM at rest, and return what its region calls cost together."""
    lost = dropped = carried = 0
    for command in commands:
        call = look_inside(kvm, command)
        if isinstance(command, SetMemoryRegion):
            cost = cost_at(Moment(Stop(0, len(call.cells) - 1), call.step.kvm, kvm, call, None))
            lost, dropped, carried = lost + cost.lost, dropped + cost.dropped, carried + cost.carried
        kvm = call.step.kvm
    return Cost(lost, dropped, carried)
