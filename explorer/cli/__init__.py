"""The command line: one module a sub-command, each with `add_parser` and a `run` that returns the exit status.

Exit status, for all of them: 0 as expected, 1 a difference was found, 2 the command or its input is wrong.
"""

from __future__ import annotations

import argparse
import sys
from importlib import import_module
from typing import TYPE_CHECKING

from explorer import __version__
from explorer.compiled import is_compiled
from explorer.engine.types import ExplorerError

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["main"]

WRONG_INPUT = 2
_COMMANDS = ("serve", "replay", "why", "conform", "live", "export")


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``explorer`` with `argv` (default: the process arguments) and return its exit status."""
    parser = argparse.ArgumentParser(
        prog="explorer",
        description="See what a KVM memory slot change does.",
        epilog="exit status: 0 as expected, 1 a difference was found, 2 the command or its input is wrong",
    )
    engine = "compiled" if is_compiled() else "as Python"
    parser.add_argument(
        "--version", action="version", version=f"memslot-explorer {__version__}, the engine runs {engine}"
    )
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    words = sys.argv[1:] if argv is None else argv
    for name in words[:1] if words and words[0] in _COMMANDS else _COMMANDS:  # one starts in half the time of all
        import_module(f"explorer.cli.{name}").add_parser(commands)
    args = parser.parse_args(words)
    try:
        status: int = args.run(args)
    except ExplorerError as error:
        print(f"explorer: {error}", file=sys.stderr)
        return WRONG_INPUT
    except BrokenPipeError:  # the reader, such as head, has seen enough
        sys.stderr.close()
        return 0
    return status
