"""A persistent set of page indices kept as runs: what a dirty bitmap means, at any size.

A bitmap that starts all dirty is one run however large the slot; a page written here and there is one
short run each. Not modelled: the words of the real bitmap. Used by `state.DirtyBitmap`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from explorer.engine.sortedmap import SortedMap

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["RunSet"]


class RunSet:
    """Immutable set of non-negative integers stored as half-open runs."""

    __slots__ = ("_runs", "_total")

    def __init__(self, runs: SortedMap[int, int] | None = None, total: int | None = None) -> None:
        """Wrap disjoint, non-touching runs ``start -> end``."""
        self._runs: SortedMap[int, int] = runs if runs is not None else SortedMap()
        self._total = total if total is not None else sum(end - start for start, end in self._runs.items())

    @classmethod
    def span(cls, start: int, end: int) -> RunSet:
        """Return the set ``[start, end)``."""
        return cls(SortedMap([(start, end)]) if end > start else SortedMap())

    def __len__(self) -> int:
        """Return how many numbers are in the set."""
        return self._total

    def __contains__(self, index: object) -> bool:
        """Return whether `index` is in the set."""
        if not isinstance(index, int):
            return False
        run = self._runs.floor(index)
        return run is not None and index < run[1]

    def __iter__(self) -> Iterator[int]:
        """Iterate over the numbers in order."""
        for start, end in self._runs.items():
            yield from range(start, end)

    def runs(self) -> Iterator[tuple[int, int]]:
        """Iterate over the runs ``(start, end)`` in order."""
        return self._runs.items()

    def add(self, index: int) -> RunSet:
        """Return the set with `index`."""
        left = self._runs.floor(index)
        if left is not None and index < left[1]:
            return self
        runs, start, end = self._runs, index, index + 1
        if left is not None and left[1] == index:
            start = left[0]
        right = runs.get(end)
        if right is not None:
            runs = runs.discard(end)
            end = right
        return RunSet(runs.set(start, end), self._total + 1)

    def remove_span(self, start: int, end: int) -> RunSet:
        """Return the set without ``[start, end)``."""
        if end <= start:
            return self
        runs, total = self._runs, self._total
        left = runs.floor(start)
        touched = [left] if left is not None and left[1] > start else []
        for run in runs.items_from(start + 1):
            if run[0] >= end:
                break
            touched.append(run)
        for run_start, run_end in touched:
            runs = runs.discard(run_start)
            if run_start < start:
                runs = runs.set(run_start, start)
            if run_end > end:
                runs = runs.set(end, run_end)
            total -= min(run_end, end) - max(run_start, start)
        return RunSet(runs, total)

    def __eq__(self, other: object) -> bool:
        """Compare by content: runs never touch, so equal sets have equal runs."""
        return isinstance(other, RunSet) and self._runs == other._runs

    def __hash__(self) -> int:
        """Hash by content."""
        return hash(self._runs)

    def __repr__(self) -> str:
        """Return the runs."""
        return f"RunSet({self._runs!r})"
