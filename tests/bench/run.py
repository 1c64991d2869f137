"""The benchmark: ``python tests/bench/run.py [engine|import|page|visitors|all] [--rounds N] [--json FILE]``.

Speed is never a test: the exit status is 0 whatever the numbers are, and not 0 only if something breaks.
"""

# ruff: noqa: T201 - a person reads it

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from pathlib import Path
from typing import TYPE_CHECKING

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "assets/setup")]  # this checkout, whatever is installed

from engine import measure_engine  # noqa: E402 - after the path is set
from imports import measure_import  # noqa: E402
from page import measure_page  # noqa: E402
from visitors import measure_visitors  # noqa: E402

from explorer.compiled import is_compiled  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from measure import Report

PARTS: dict[str, Callable[[int], Iterator[Report]]] = {
    "engine": measure_engine,
    "import": measure_import,
    "page": measure_page,
    "visitors": measure_visitors,
}


def main() -> int:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(
        description="Measure the engine, log import, the page, and twenty visitors at once."
    )
    parser.add_argument("part", nargs="?", default="all", choices=[*PARTS, "all"])
    parser.add_argument("--rounds", type=int, default=3, help="how often each case is repeated (default 3)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every value of every round")
    args = parser.parse_args()
    reports: list[Report] = []
    engine = "compiled engine" if is_compiled() else "engine not compiled"
    print(f"Python {platform.python_version()}, {engine}, {os.cpu_count()} processors, {args.rounds} rounds, in turns")
    for name, measure in PARTS.items():
        if args.part in (name, "all"):
            print(f"{name}:", flush=True)
            reports += measure(args.rounds)
    print("\n".join(line for report in reports for line in report.lines()))
    missed = [row for report in reports for row in report.rows if row.verdict == "misses"]
    judged = sum(bool(row.verdict) for report in reports for row in report.rows)
    print(f"\n{judged - len(missed)} of {judged} targets met")
    for row in missed:
        print(f"  misses: {row.what}: {row.median:,.4g} {row.unit}, target {row.target}")
    if args.json:
        args.json.write_text(json.dumps([report.as_json() for report in reports], indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
