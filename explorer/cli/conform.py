"""``explorer conform PATH...``: replay recordings of real kernels and compare."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from explorer.conform import Report, conform
from explorer.engine.profile import PROFILES, get_profile

if TYPE_CHECKING:
    import argparse

    from explorer.conform.report import Mismatch

__all__ = ["add_parser", "run"]

_SHOWN = 20


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the sub-command."""
    parser = commands.add_parser(
        "conform",
        help="compare recordings of real kernels with the engine",
        description="Replay recordings of real kernels in the engine and compare what was recorded with what they do.",
        epilog="exit status: 0 no mismatch, 1 a mismatch, 2 not a recording",
    )
    parser.add_argument("paths", metavar="PATH", nargs="+", type=Path, help="recording, or folder of recordings")
    parser.add_argument(
        "--profile",
        metavar="P",
        help=f"kernel profile, instead of the one of each recording's kernel: {', '.join(PROFILES)}",
    )
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Compare and print; return 0 without mismatch, else 1."""
    report = conform(args.paths, get_profile(args.profile) if args.profile else None)
    print(json.dumps(_as_json(report)) if args.json else _as_text(report))
    return 0 if report.agrees else 1


def _as_json(report: Report) -> dict[str, object]:
    return {
        "scenarios": report.scenarios,
        "operations": report.operations,
        "matched": report.matched,
        "mismatched": report.mismatched,
        "unmodelled": report.unmodelled,
        "mismatches": [asdict(mismatch) for mismatch in report.mismatches],
        "unmodelled_by": [
            {"kernel": kernel, "what": what, "count": count}
            for (kernel, what), count in sorted(report.unmodelled_by.items())
        ],
    }


def _as_text(report: Report) -> str:
    lines = [
        f"scenarios   {report.scenarios:>8}",
        f"operations  {report.operations:>8}",
        f"matched     {report.matched:>8}",
        f"mismatched  {report.mismatched:>8}",
        f"unmodelled  {report.unmodelled:>8}",
    ]
    lines += [_line(mismatch) for mismatch in report.mismatches[:_SHOWN]]
    if len(report.mismatches) > _SHOWN:
        lines.append(f"... and {len(report.mismatches) - _SHOWN} more; --json lists all")
    by_kernel: dict[str, list[str]] = {}
    for (kernel, what), count in sorted(report.unmodelled_by.items(), key=lambda item: (item[0][0], -item[1])):
        by_kernel.setdefault(kernel, []).append(f"{what} {count}")
    for kernel, parts in by_kernel.items():
        lines.append(f"not modelled on {kernel}: " + ", ".join(parts))
    return "\n".join(lines)


def _line(mismatch: Mismatch) -> str:
    return (
        f"{mismatch.file}: {mismatch.scenario}[{mismatch.index}] {mismatch.op}.{mismatch.field}:"
        f" recorded {mismatch.expected!r}, got {mismatch.got!r}"
        f"{f', check {mismatch.guard}' if mismatch.guard else ''}"
    )
