"""What came of a whole log: counts, the lines that were not used, the first disagreements.

Read next: `replay`.
"""

from __future__ import annotations

from array import array
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from explorer.trace.lift import Row
    from explorer.trace.records import MmuEvent

__all__ = ["Layout", "MmuEvents", "Skipped", "Summary"]

Layout = tuple[tuple[int, int, int, int, int, int], ...]
"""Slots of one VM: (address space, slot, guest address, size, host address, flags), addresses and size in bytes."""

_MOST_REASONS = 1000
_MOST_OPERATIONS = 1000


class Skipped:
    """The lines that were not used and why, in little memory."""

    def __init__(self) -> None:
        """Start with none."""
        self._lines = array("Q")
        self._reasons = array("H")
        self._numbers: dict[str, int] = {}

    def add(self, line: int, reason: str) -> None:
        """Add a line."""
        number = self._numbers.get(reason)
        if number is None:
            if len(self._numbers) >= _MOST_REASONS:
                reason = "more kinds of lines than are told apart"
            number = self._numbers.setdefault(reason, len(self._numbers))
        self._lines.append(line)
        self._reasons.append(number)

    def __len__(self) -> int:
        return len(self._lines)

    def __iter__(self) -> Iterator[tuple[int, str]]:
        reasons = list(self._numbers)
        return ((line, reasons[number]) for line, number in zip(self._lines, self._reasons, strict=True))

    def by_reason(self, most: int) -> list[tuple[str, int, list[tuple[int, int]]]]:
        """Return (reason, lines, up to `most` runs of line numbers, first and last), most frequent first."""
        counts = Counter(self._reasons)
        runs: dict[int, list[tuple[int, int]]] = {number: [] for number in counts}
        for line, number in zip(self._lines, self._reasons, strict=True):
            known = runs[number]
            if known and known[-1][1] == line - 1:
                known[-1] = (known[-1][0], line)
            elif len(known) <= most:
                known.append((line, line))
        reasons = list(self._numbers)
        return [(reasons[number], count, runs[number][:most]) for number, count in counts.most_common()]


class MmuEvents:
    """Trace events of KVM's MMU, counted by name, and put beside the operations by order."""

    def __init__(self) -> None:
        """Start with none."""
        self.by_name: Counter[str] = Counter()
        self.by_operation: dict[int, Counter[str]] = {}
        """Per operation, ``zap`` and ``SPTE`` events during it or after it; -1 is before the first one."""
        self.elsewhere = 0
        """Events of operations past the first ones that are told apart."""

    def add(self, event: MmuEvent, operation: int) -> None:
        """Count an event of an operation."""
        self.by_name[event.name] += 1
        known = self.by_operation.get(operation)
        if known is None and len(self.by_operation) < _MOST_OPERATIONS:
            known = self.by_operation[operation] = Counter()
        if known is None:
            self.elsewhere += 1
        else:
            known[f"{event.kind} {'during' if event.during else 'after'}"] += 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """What came of a whole log."""

    format: str
    profile: str
    operations: int
    used: int
    """Lines that were used: those of operations, and those that say which VM an operation is for."""
    skipped: Skipped
    moves: int
    """Accepted calls that moved a slot, with or without a change of flags."""
    max_live_slots_of_one_vm: int
    """Most slots that one VM had at once."""
    max_live_slots: int
    """Most slots that there were at once, all VMs that were open then together."""
    vms: int
    disagreements: int
    kinds: dict[str, int]
    """Accepted calls by kind, and how many were refused."""
    assumptions: tuple[str, ...]
    """Sentences on what the log does not say and was taken for granted."""
    stopped: str | None
    """Why and where reading ended before the end of the log, or None."""
    first_disagreements: tuple[Row, ...]
    mmu_events: MmuEvents
    final_layout: tuple[Layout, ...]
    """Per VM, as it was when the log or the VM ended."""
