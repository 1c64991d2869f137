"""Where the command line finds a run: a scenario by name or file, or a log."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import NamedTuple

from explorer.engine.profile import get_profile
from explorer.engine.types import ExplorerError
from explorer.history import Run
from explorer.scenarios.loader import load_scenario, parse_scenario, scenario_names
from explorer.scenarios.runner import run_of
from explorer.trace import TraceError, import_log

__all__ = ["RUN_HELP", "NamedRun", "find_run"]

RUN_HELP = (
    "a story of the library, a scenario file (.toml), a log that `replay` reads, or - for a log on standard input"
)
_LOG_LIMIT = 256 << 20


class NamedRun(NamedTuple):
    """A run with what is known of it."""

    run: Run
    title: str
    notes: tuple[str, ...]
    """A sentence for each operation, or none at all."""
    about: tuple[str, ...]
    """Sentences on the whole run: what a log did not say and was taken for granted."""


def find_run(name: str, profile: str | None = None) -> NamedRun:
    """Return the run that `name` stands for, on `profile` if one is asked for.

    Raises
    ------
    ExplorerError
        If it is neither a scenario nor a log.
    """
    wanted = get_profile(profile) if profile else None
    path = Path(name)
    if name in scenario_names() or path.suffix == ".toml":
        if name in scenario_names():
            scenario = load_scenario(name)
        else:
            scenario = parse_scenario(_read(path).decode("utf-8", "replace"), where=name)
        run = run_of(scenario)
        if wanted is not None:
            run = run.on(wanted, scenario.config)
        return NamedRun(run, scenario.title, tuple(step.say for step in scenario.steps), (scenario.teaches,))
    content = sys.stdin.buffer.read(_LOG_LIMIT + 1) if name == "-" else _read(path)
    log = import_log(content, name="standard input" if name == "-" else name, limit_bytes=_LOG_LIMIT, profile=wanted)
    if log.vm is None:
        raise TraceError(f"{log.name}: there is no memory slot call in this log that could be performed")
    run = Run.new(log.profile, log.config, log.commands)
    return NamedRun(run, f"{log.name}, VM {log.vm}", (), log.assumptions)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        stories = ", ".join(scenario_names())
        raise ExplorerError(
            f"{path}: {error.strerror or error}; give a scenario file, a log, or a story of the library: {stories}"
        ) from error
