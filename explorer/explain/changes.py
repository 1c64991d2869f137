"""The smallest changes with which a refused region call is accepted, each one tried in the engine.

A search in order of size: the call is run on a copy of the VM; where a check fires, every edit that answers this
check is tried in its turn. What is returned was accepted by the engine in exactly this form; what it costs is
read from the ledger of that run.

Not searched: other kernels, other kinds of VM. Read next: `xray`.
"""

from __future__ import annotations

from heapq import heappop, heappush
from itertools import count
from typing import TYPE_CHECKING, NamedTuple

from explorer.engine.apply import apply
from explorer.engine.uapi import KvmMrChange
from explorer.explain.costs import cost_of
from explorer.explain.edits import ARGUMENT_EDITS, Edit
from explorer.explain.gmem_edits import GMEM_EDITS
from explorer.explain.slot_edits import SLOT_EDITS

if TYPE_CHECKING:
    from explorer.engine.commands import Command, SetMemoryRegion
    from explorer.engine.state import Kvm

__all__ = ["MOST", "Change", "changes_that_work"]

MOST = 3
_TRIES = 60
_MOST_TRIES = 800
"""As long as nothing is found: a call may be wrong in six ways at once."""
_LARGEST = 12.0
_WITHOUT_EFFECT = 2.0
"""What a call that is accepted and does nothing is set back by."""
_SAME_KIND = 2.5
"""What the next change of a kind that is there already is set back by."""
_SECOND_WAY = 3.0
"""What it costs to get out of the way of slots in two ways at once."""
_EDITS = ARGUMENT_EDITS | SLOT_EDITS | GMEM_EDITS


class Change(NamedTuple):
    """What to do instead of a refused call."""

    words: str
    """Such as ``base 0xe0000, up by 128 KiB``; several edits with semicolons."""
    commands: tuple[Command, ...]
    """What was run and accepted: calls to make first, then the region call as it is to be."""
    does: KvmMrChange
    """What the region call then is."""
    size: float
    """How much is changed; only its order means something."""
    cost: str = ""
    """What it does to watches that somebody counts on, such as ``2 watches are lost``; empty if nothing."""

    @property
    def but(self) -> str:
        """The cost as the end of a sentence."""
        return f", but {self.cost}" if self.cost else ""


class _Attempt(NamedTuple):
    kvm: Kvm
    """After the calls that come first."""
    call: SetMemoryRegion
    before: tuple[Command, ...] = ()
    edits: tuple[Edit, ...] = ()
    cleared: str = ""
    """Kind of the edit with which the call got out of the way of another slot."""
    does: KvmMrChange | None = None
    """Set when the engine has accepted it already."""

    @property
    def kinds(self) -> frozenset[str]:
        """What was edited."""
        return frozenset(edit.kind for edit in self.edits)

    def change(self, does: KvmMrChange, size: float) -> Change:
        """Return the attempt as something to do, calls that come first in front."""
        edits = sorted(self.edits, key=lambda edit: not edit.before)
        return Change("; ".join(edit.words for edit in edits), (*self.before, self.call), does, size)


class _Found:
    """Changes that work, and whether smaller ones can still come."""

    def __init__(self, most: int) -> None:
        self.most = most
        self._of_kind: dict[frozenset[str], list[Change]] = {}

    def note(self, kinds: frozenset[str], change: Change) -> None:
        """Keep a change, unless less than it was enough."""
        if not any(smaller < kinds for smaller in self._of_kind):
            self._of_kind.setdefault(kinds, []).append(change)

    def chosen(self) -> list[tuple[float, Change]]:
        """Return the best, each with its size as the choice sees it."""
        ranked = [
            (change.size + _SAME_KIND * at, change)
            for changes in self._of_kind.values()
            for at, change in enumerate(changes)
        ]
        return sorted(ranked, key=lambda item: item[0])[: self.most]

    def is_complete(self, size: float) -> bool:
        """Return whether nothing of this size or more can change the choice."""
        chosen = self.chosen()
        return len(chosen) == self.most and chosen[-1][0] <= size


def changes_that_work(kvm: Kvm, call: SetMemoryRegion, *, most: int = MOST) -> tuple[Change, ...]:
    """Return the smallest changes that make the engine accept a call, smallest first.

    Parameters
    ----------
    kvm
        The VM before the call, at rest; never modified.
    call
        The call that is refused.
    most
        How many to return; different kinds of change are preferred.
    """
    order = count()
    waiting = [(0.0, next(order), _Attempt(kvm, call))]
    seen: set[tuple[SetMemoryRegion, tuple[Command, ...]]] = {(call, ())}
    found = _Found(most)
    tries = 0
    while waiting and not found.is_complete(waiting[0][0]) and tries < (_TRIES if found.chosen() else _MOST_TRIES):
        size, _, attempt = heappop(waiting)
        if attempt.does is not None:
            found.note(attempt.kinds, attempt.change(attempt.does, size))
            continue
        tries += 1
        step = apply(attempt.kvm, attempt.call, record=False)
        if step.refused_by is not None:
            for edit in _EDITS.get(step.refused_by.name, _none)(attempt.kvm, attempt.call):
                edited, total = _edited(attempt, edit, step.refused_by.name), size + edit.size
                if edited is None or (edited.call, edited.before) in seen:
                    continue
                total += _SECOND_WAY if attempt.cleared and edited.cleared != attempt.cleared else 0
                if total <= _LARGEST:
                    seen.add((edited.call, edited.before))
                    heappush(waiting, (total, next(order), edited))
        elif step.change is KvmMrChange.NOOP:
            heappush(waiting, (size + _WITHOUT_EFFECT, next(order), attempt._replace(does=step.change)))
        elif step.change is not None:
            found.note(attempt.kinds, attempt.change(step.change, size))
    return tuple(change._replace(cost=cost_of(kvm, change.commands).words) for _, change in found.chosen())


def _none(_kvm: Kvm, _call: SetMemoryRegion) -> tuple[Edit, ...]:
    """Stand for the checks that no edit answers."""
    return ()


def _edited(attempt: _Attempt, edit: Edit, guard: str) -> _Attempt | None:
    """Return the next attempt; None if a call that should come first is refused itself."""
    kvm = attempt.kvm
    for command in edit.before:
        step = apply(kvm, command, record=False)
        if step.errno is not None:
            return None
        kvm = step.kvm
    # Of two edits of one argument only the last is left to see.
    kept = tuple(earlier for earlier in attempt.edits if earlier.before or earlier.kind != edit.kind)
    cleared = edit.kind if guard == "overlap" else attempt.cleared
    return _Attempt(kvm, edit.call, attempt.before + edit.before, (*kept, edit), cleared)
