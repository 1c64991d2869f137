"""All recordings, counted: matched, mismatched, unmodelled, and nothing else."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from explorer.conform.player import Player
from explorer.conform.recording import RecordingError, find_recordings, read_scenarios

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from explorer.conform.player import Outcome
    from explorer.conform.recording import Scenario
    from explorer.engine.profile import KernelProfile

__all__ = ["Mismatch", "Report", "conform"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Mismatch:
    """One recorded value that the engine does not reproduce, with where it is."""

    file: str
    scenario: str
    kernel: str
    index: int
    """Position of the operation in its scenario, from 0."""
    op: str
    field: str
    expected: Any
    got: Any
    guard: str | None
    """The check that fired in the engine for this operation, or None."""


@dataclass(slots=True)
class Report:
    """Counts over recordings. Every operation is in exactly one of the three."""

    scenarios: int = 0
    operations: int = 0
    matched: int = 0
    mismatched: int = 0
    unmodelled: int = 0
    mismatches: list[Mismatch] = field(default_factory=list)
    unmodelled_by: Counter[tuple[str, str]] = field(default_factory=Counter)
    """How often something was not modelled, by (kernel, what)."""

    @property
    def agrees(self) -> bool:
        """Whether nothing recorded contradicts the engine."""
        return not self.mismatched


def conform(paths: list[Path], profile: KernelProfile | None = None) -> Report:
    """Replay recordings of real kernels and compare every recorded value that is modelled.

    Parameters
    ----------
    paths
        Recording files, or folders that are searched for them.
    profile
        Replaces the profile that follows from each recording's kernel.

    Raises
    ------
    RecordingError
        If a file is no recording, or a kernel has no profile and none was named.
    """
    report = Report()
    for path in find_recordings(paths):
        for scenario in read_scenarios(path, profile):
            report.scenarios += 1
            for index, outcome in enumerate(_played(scenario)):
                report.operations += 1
                if outcome.differences:
                    report.mismatched += 1
                elif outcome.unmodelled:
                    report.unmodelled += 1
                else:
                    report.matched += 1
                for what in outcome.unmodelled:
                    report.unmodelled_by[scenario.kernel, what] += 1
                report.mismatches += [
                    Mismatch(
                        file=scenario.file,
                        scenario=scenario.name,
                        kernel=scenario.kernel,
                        index=index,
                        op=outcome.op,
                        field=difference.field,
                        expected=difference.expected,
                        got=difference.got,
                        guard=outcome.guard,
                    )
                    for difference in outcome.differences
                ]
    return report


def _played(scenario: Scenario) -> Iterator[Outcome]:
    """Play a scenario; an operation that lacks a value it needs is named with its place."""
    index = -1
    try:
        for index, outcome in enumerate(Player(scenario).play()):  # noqa: B007 - read after the loop ends early
            yield outcome
    except KeyError as error:
        raise RecordingError(
            f"{scenario.file}:{scenario.line}: operation {index + 1} of {scenario.name} lacks {error}"
        ) from error
