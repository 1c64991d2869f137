"""``explorer why 'LINE'``: which check refused one call of a log, and what would work instead.

With ``--json`` one object is written, with these keys:

- ``line``, ``recorded`` (errno of the line, or null), ``explained``, ``answer``, ``assumptions``, ``call``;
- ``reasons``, the most likely first, each with ``assumptions``, ``assumed_commands``, ``errno``, ``check`` (``name``,
  ``title``, ``function``, ``file``, ``kernel``, ``number``, ``of``), ``compared``, ``cost``, ``arguments`` (``name``,
  ``value``, ``hex``, ``words``), ``same_errno`` (``name``, ``title``, ``function``, ``outcome``), ``in_the_way``
  (``slot``, ``as_id``, ``guest_phys_addr``, ``memory_size``, ``overlap_start``, ``overlap_size``), ``changes``
  (``words``, ``commands``, ``does``) and ``no_change_because`` (null if there are changes).

Commands are written in the grammar of `explorer.engine.commands`. Keys are only ever added.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING

from explorer.engine.commands import format_command
from explorer.engine.profile import PROFILES, get_profile
from explorer.engine.types import PAGE_SHIFT
from explorer.engine.uapi import KvmMrChange
from explorer.explain.sources import source_of
from explorer.explain.why import why
from explorer.explain.words import errno_text, plural
from explorer.trace.one_line import read_log_before, read_one_line
from explorer.trace.records import shorten
from explorer.trace.replay import DEFAULT_PROFILE
from explorer.trace.source import file_source

if TYPE_CHECKING:
    from collections.abc import Iterator

    from explorer.explain.changes import Change
    from explorer.explain.why import Reason, Why
    from explorer.explain.xray import XRay

__all__ = ["add_parser", "run"]

_SHOWN = 200
_MOST_SLOTS = 8
_EXAMPLES = """\
examples:
  explorer why 'ioctl(9, KVM_SET_USER_MEMORY_REGION, {slot=4, flags=0, guest_phys_addr=0xc0000,
      memory_size=131072, userspace_addr=0x7f0000000000}) = -1 EEXIST (File exists)'
  explorer why --after boot.strace.gz "$(grep EEXIST boot.strace | tail -1)"
  tail -1 qemu.log | explorer why --after boot.log --profile v6_12 --json -

Without --after nothing is known of the VM: what has to be assumed for the model to refuse the call as the kernel did
is told. The keys of --json are listed in explorer/cli/why.py.

exit status: 0 explained, 1 not explained or not refused, 2 wrong input"""


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the sub-command."""
    parser = commands.add_parser(
        "why",
        help="say which check refused one call of a log, and what would work",
        description=(
            "Take one line of strace or of QEMU's trace with a memory slot call that was refused. Name the check of the"
            " kernel that fired, what it compared, the slot in the way, and up to three changes that work."
        ),
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("line", metavar="LINE", help="the line, or - for standard input")
    parser.add_argument("--after", metavar="LOG", type=Path, help="log of the same VM, up to the line or with it")
    parser.add_argument(
        "--profile", metavar="P", help=f"kernel profile (default {DEFAULT_PROFILE}): {', '.join(PROFILES)}"
    )
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Explain and print; return 0 if a check of the model gives the recorded errno, else 1."""
    profile = get_profile(args.profile) if args.profile else None
    text = sys.stdin.buffer.read(1 << 20).decode("utf-8", "backslashreplace") if args.line == "-" else args.line
    line = read_one_line(text)
    before = None
    if args.after is not None:
        source = file_source(args.after)
        try:
            before = read_log_before(source, line, profile)
        finally:
            source.close()
    found = why(line, profile or get_profile(DEFAULT_PROFILE), before, other_kernels=profile is None)
    print(json.dumps(_as_json(found)) if args.json else "\n".join(_as_text(found)))
    return 0 if found.explained else 1


# -- JSON ------------------------------------------------------------------------------------------


def _as_json(found: Why) -> dict[str, object]:
    call = found.line.call
    return {
        "line": found.line.text,
        "recorded": found.line.errno,
        "explained": found.explained,
        "answer": found.answer,
        "assumptions": found.assumptions,
        "call": {field.name: getattr(call, field.name) for field in fields(call)},
        "reasons": [_reason_as_json(reason) for reason in found.reasons],
    }


def _reason_as_json(reason: Reason) -> dict[str, object]:
    seen = reason.xray
    source = source_of(seen.guard.function, reason.start.profile)
    return {
        "assumptions": reason.assumptions,
        "assumed_commands": [format_command(command) for command in reason.commands],
        "errno": seen.errno.name,
        "check": {
            "name": seen.guard.name,
            "title": seen.guard.title,
            "function": seen.function,
            "file": source.file if source is not None else None,
            "kernel": seen.profile,
            "number": seen.number,
            "of": seen.checks,
        },
        "compared": seen.operands,
        "cost": seen.cost,
        "arguments": [
            {"name": operand.name, "value": operand.value, "hex": operand.hex, "words": operand.words}
            for operand in seen.arguments
        ],
        "same_errno": [check._asdict() for check in seen.same_errno],
        "in_the_way": [
            {
                "slot": found.slot.id,
                "as_id": found.slot.as_id,
                "guest_phys_addr": found.slot.base_gfn << PAGE_SHIFT,
                "memory_size": found.slot.npages << PAGE_SHIFT,
                "overlap_start": found.first_gfn << PAGE_SHIFT,
                "overlap_size": (found.end_gfn - found.first_gfn) << PAGE_SHIFT,
            }
            for found in seen.in_the_way
        ],
        "changes": [
            {
                "words": change.words,
                "commands": [format_command(command) for command in change.commands],
                "does": change.does.value,
            }
            for change in seen.changes
        ],
        "no_change_because": seen.nothing_works or None,
    }


# -- text ------------------------------------------------------------------------------------------


def _as_text(found: Why) -> Iterator[str]:
    yield shorten(found.line.text, _SHOWN)
    yield ""
    yield found.answer
    yield ""
    yield "Assumed"
    told = (*found.assumptions, *(found.reasons[0].assumptions if found.reasons else ()))
    yield from (f"  - {sentence}" for sentence in told)
    if found.reasons:
        yield ""
        yield from _xray_as_text(found.reasons[0].xray, found.reasons[0])
    if len(found.reasons) > 1:
        yield ""
        yield f"The line alone cannot decide; {plural(len(found.reasons) - 1, 'other reason')} would look the same"
        for reason in found.reasons[1:]:
            yield f"  - {' '.join(reason.assumptions) or 'The arguments alone are refused.'}"
            yield f"    {reason.xray.function}(): “{reason.xray.guard.title}”, {reason.xray.operands}"
            yield from (f"    works: {change.words}{_does(change)}" for change in reason.xray.changes[:1])


def _xray_as_text(seen: XRay, reason: Reason) -> Iterator[str]:
    source = source_of(seen.guard.function, reason.start.profile)
    where = f", {source.file}" if source is not None else ""
    others = [check for check in seen.same_errno if check.outcome != "fired"]
    yield f"check       {seen.number} of {seen.checks} that {seen.profile} has for such a call: {seen.guard.title}"
    yield f"where       {seen.function}(){where}"
    yield f"compared    {seen.operands}"
    yield f"cost        {seen.cost}"
    for found in seen.in_the_way[:_MOST_SLOTS]:
        yield f"in the way  {found.words}"
    if len(seen.in_the_way) > _MOST_SLOTS:
        yield f"            and {plural(len(seen.in_the_way) - _MOST_SLOTS, 'slot')} more"
    yield f"same errno  {_same_errno(seen, len(others))}"
    for state in ("passed", "not reached"):
        names = [check.title for check in others if check.outcome == state]
        if names:
            yield f"            {state}: {'; '.join(names)}"
    yield ""
    yield "Arguments"
    yield from (f"  {operand.name:<18} {operand.hex:<18} {operand.words}" for operand in seen.arguments)
    yield ""
    yield "What would work: each was run in the model" if seen.changes else f"What would work: {seen.nothing_works}"
    for number, change in enumerate(seen.changes, 1):
        yield f"  {number}  {change.words}{_does(change)}"
        yield from (f"       {format_command(command)}" for command in change.commands)


def _same_errno(seen: XRay, others: int) -> str:
    errno = errno_text(seen.errno)
    if not others:
        return f"no other check of such a call answers {errno}"
    return f"{plural(others, 'other check')} of such a call answer{'s' if others == 1 else ''} {errno}"


def _does(change: Change) -> str:
    if change.does is KvmMrChange.NOOP:
        return " (returns 0, and nothing changes)"
    return f" (a {change.does.value}{change.but})"
