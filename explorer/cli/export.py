"""``explorer export RUN``: a run as a text for other people."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from explorer.cli.runs import RUN_HELP, find_run
from explorer.engine.types import ExplorerError
from explorer.share import FORMATS, Told, export

__all__ = ["add_parser", "run"]

_EPILOG = """\
The scripts make the calls on /dev/kvm of wherever they run, on a VM of their own without a guest, and compare with the
model's answers. What no ioctl does (page trackers, guest accesses) stands in them as a comment.

exit status: 0 written, 2 not a run, or it cannot be written

examples:
  explorer export watches-lost --format markdown           for a reply on a mailing list
  explorer export vmm.log --format c -o repro.c            then: gcc -Wall -Wextra -Werror -o repro repro.c
  explorer export first-look --format strace | explorer replay -
"""


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the sub-command."""
    parser = commands.add_parser(
        "export",
        help="write a run as log, script, letter, test or C program",
        description="Write a run as a text: "
        + "; ".join(f"{row.name}, {row.title}" for row in FORMATS.values())
        + ". Results are those of the model.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("source", metavar="RUN", help=RUN_HELP)
    parser.add_argument("--format", choices=list(FORMATS), required=True, help="what to write")
    parser.add_argument("-o", "--output", metavar="FILE", type=Path, help="write here, instead of standard output")
    parser.add_argument("--first", metavar="N", type=_count, help="only the first N operations")
    parser.add_argument("--profile", metavar="P", help="kernel profile of the model, instead of the run's own")
    parser.add_argument("--json", action="store_true", help="one JSON object that holds the text")
    parser.set_defaults(run=run)


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} is no number of operations; write 1 or more")
    return int(text)


def run(args: argparse.Namespace) -> int:
    """Write the text and return 0."""
    named = find_run(args.source, args.profile)
    told = Told(named.run if args.first is None else named.run.up_to(args.first), named.title, named.notes)
    text = export(told, args.format)
    if args.json:
        row = {"format": args.format, "title": told.title, "operations": len(told.run), "text": text}
        text = json.dumps(row) + "\n"
    if args.output is None:
        sys.stdout.write(text)
        return 0
    try:
        args.output.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ExplorerError(f"{args.output}: {error.strerror or error}; choose a file that can be written") from error
    return 0
