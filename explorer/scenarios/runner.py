"""Runs a scenario and says where it did not do what its file expects."""

from __future__ import annotations

from typing import TYPE_CHECKING

from explorer.history import Run

if TYPE_CHECKING:
    from explorer.scenarios.loader import Scenario

__all__ = ["run_of", "unmet"]


def run_of(scenario: Scenario) -> Run:
    """Return the run of a scenario's steps."""
    return Run.new(scenario.profile, scenario.config, (step.do for step in scenario.steps))


def unmet(scenario: Scenario) -> tuple[str, ...]:
    """Return a sentence for every expectation that does not hold, in order."""
    run = run_of(scenario)
    found = []
    for index, step in enumerate(scenario.steps):
        errno = run.outcomes[index].errno
        got = errno.name if errno is not None else None
        if got != step.errno:
            found.append(f"{scenario.id} step {index + 1}: errno is {got or 0}, expected {step.errno or 0}")
        brief = run.kvm_before(index + 1).brief()
        if step.brief is not None and brief != step.brief:
            found.append(f"{scenario.id} step {index + 1}: brief is {brief!r}, expected {step.brief!r}")
    return tuple(found)
