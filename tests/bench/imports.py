"""How fast a VMM's log is read and replayed: as a loop in Python, and as the command a person types."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING

from measure import Report, Row, at_least, note
from yardstick import real_move, slower_by

from explorer.trace.replay import Replay, seldom_collecting
from explorer.trace.source import file_source

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["measure_import"]

ROOT = Path(__file__).parents[2]
LOGS = {
    "QEMU's trace": ROOT / "assets/traces/big-q100/qemu-trace.log.gz",
    "strace of QEMU": ROOT / "assets/traces/big-q100/strace.log.gz",
    "strace of a small VMM": ROOT / "assets/traces/big-own-walk/strace.log.gz",
}
OPERATIONS_PER_SECOND = 20_000


def measure_import(rounds: int) -> Iterator[Report]:
    """Iterate over the tables of log import."""
    values: dict[tuple[str, str], list[float]] = {}
    real: list[float] = []
    counts: dict[str, int] = {}
    for number in range(rounds):
        note(f"round {number + 1} of {rounds}")
        real += real_move()
        for name, path in LOGS.items():
            start = perf_counter()
            counts[name] = _loop(path)
            looped = perf_counter()
            told = _command(path)
            ended = perf_counter()
            assert told == counts[name], f"the command saw {told} operations, the loop {counts[name]}"
            values.setdefault((name, "in Python"), []).append(counts[name] / (looped - start))
            values.setdefault((name, "explorer replay --json"), []).append(told / (ended - looped))
    rows = tuple(
        Row(f"{name}, {counts[name]:,} operations, {how}", "op/s", tuple(taken), at_least(OPERATIONS_PER_SECOND))
        for (name, how), taken in values.items()
    )
    scaled: tuple[Row, ...] = ()
    if real:
        usual = Row("the real MOVE, 2 MiB, on this machine’s /dev/kvm", "us", tuple(real))
        scaled = (usual, *(slower_by(row, usual) for row in rows))
    yield Report("Log import", (*rows, *scaled))


def _loop(path: Path) -> int:
    source = file_source(path)
    try:
        with seldom_collecting():  # as the command does
            return sum(1 for _ in Replay(source).rows())
    finally:
        source.close()


def _command(path: Path) -> int:
    """Run the command with its output in a file, as a person would; return the operations it counted."""
    done = subprocess.run(
        [sys.executable, "-m", "explorer", "replay", str(path), "--json"],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        check=True,
    )
    summary = json.loads(done.stdout.rstrip().rpartition(b"\n")[2])
    return int(summary["summary"]["operations"])
