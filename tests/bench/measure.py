"""Rounds and rows: how every number of the benchmark is taken and printed.

Rule 1: cases take turns. A machine that is busy for a second then slows one round of each case, not one case.
Rule 2: a row is one value for each round; it shows their median and spread, and is judged by the median.
"""

# ruff: noqa: T201 - a person reads it

from __future__ import annotations

from dataclasses import dataclass
from math import ceil
from statistics import median
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = ["Report", "Row", "Target", "at_least", "at_most", "note", "percentile", "ratio"]


@dataclass(frozen=True)
class Target:
    """What a median should come to."""

    kind: Literal["<=", ">="]
    limit: float

    def met_by(self, value: float) -> bool:
        """Return whether a value is good enough."""
        return value <= self.limit if self.kind == "<=" else value >= self.limit

    def __str__(self) -> str:
        """Return the target as the table shows it."""
        return f"{self.kind} {self.limit:,g}"


def at_most(limit: float) -> Target:
    """Return a target for what should be small."""
    return Target("<=", limit)


def at_least(limit: float) -> Target:
    """Return a target for what should be large."""
    return Target(">=", limit)


@dataclass(frozen=True)
class Row:
    """One measured quantity."""

    what: str
    unit: str
    rounds: tuple[float, ...]
    """One value for each round."""
    target: Target | None = None

    @property
    def median(self) -> float:
        """The value that counts."""
        return median(self.rounds)

    @property
    def verdict(self) -> str:
        """``meets``, ``misses``, or nothing for what is only told."""
        return "" if self.target is None else "meets" if self.target.met_by(self.median) else "misses"

    def as_json(self) -> dict[str, object]:
        """Return the row as plain values."""
        return {
            "what": self.what,
            "unit": self.unit,
            "median": self.median,
            "lowest": min(self.rounds),
            "highest": max(self.rounds),
            "rounds": list(self.rounds),
            "target": str(self.target) if self.target else None,
            "verdict": self.verdict or None,
        }


@dataclass(frozen=True)
class Report:
    """The rows of one part."""

    title: str
    rows: tuple[Row, ...]

    def lines(self) -> Iterator[str]:
        """Iterate over the table, aligned."""
        yield ""
        yield self.title
        cells = [("", "median", "lowest", "highest", "unit", "target", "verdict")]
        for row in self.rows:
            values = (_number(value) for value in (row.median, min(row.rounds), max(row.rounds)))
            cells.append((row.what, *values, row.unit, str(row.target or ""), row.verdict))
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        for line in cells:
            what, *numbers = (cell.rjust(width) for cell, width in zip(line[:4], widths[:4], strict=True))
            words = (cell.ljust(width) for cell, width in zip(line[4:], widths[4:], strict=True))
            yield "  ".join(("  " + what.strip().ljust(widths[0]), *numbers, *words)).rstrip()

    def as_json(self) -> dict[str, object]:
        """Return the part as plain values."""
        return {"title": self.title, "rows": [row.as_json() for row in self.rows]}


def ratio(what: str, over: Row, under: Row, target: Target | None = None) -> Row:
    """Return how many times as much one row is as another, round by round: both had the same weather."""
    values = tuple(a / b for a, b in zip(over.rounds, under.rounds, strict=True))
    return Row(what, "times", values, target)


def percentile(values: Sequence[float], share: float) -> float:
    """Return the least value that at least `share` of the values do not exceed."""
    return sorted(values)[max(ceil(len(values) * share) - 1, 0)]


def note(text: str) -> None:
    """Say on the terminal what is being done; the tables come last."""
    print(f"  {text}", flush=True)


def _number(value: float) -> str:
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"
