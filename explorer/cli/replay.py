"""``explorer replay FILE``: replay a VMM's log in the engine."""

from __future__ import annotations

import json
import sys
from argparse import RawDescriptionHelpFormatter
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from explorer.cli.lenses import print_abi, print_preview, print_profiles, print_tree
from explorer.engine.profile import PROFILES, get_profile
from explorer.engine.uapi import KVM_MEM_LOG_DIRTY_PAGES, KVM_MEM_READONLY, flags_text
from explorer.trace.replay import DEFAULT_PROFILE, Replay, seldom_collecting
from explorer.trace.source import file_source, stream_source

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

    from explorer.engine.profile import KernelProfile
    from explorer.trace.lift import Row
    from explorer.trace.source import Source
    from explorer.trace.summary import Summary

__all__ = ["add_parser", "run"]

_KNOWN_FLAGS = KVM_MEM_LOG_DIRTY_PAGES | KVM_MEM_READONLY
_RUNS_SHOWN = 6
_ROWS_AT_ONCE = 256
LIMIT = 20_000
_EPILOG = """examples:
  explorer replay vmm.log                      every operation, then the counts
  explorer replay --preview vmm.log.gz         what each line became
  explorer replay --tree mtree.txt vmm.log     names on the slots, from `info mtree -f`
  explorer replay --profiles vmm.log           the kernel that explains most results
  explorer replay --abi v6_1 v6_6 vmm.log      who would break, and does this VMM ever MOVE?

exit status: 0 every result agrees (--tree: every range is a slot; --profiles: a kernel explains all; --abi: no result
changes), 1 not so, 2 not a log"""


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the sub-command."""
    parser = commands.add_parser(
        "replay",
        help="replay a VMM's log in the engine",
        description=(
            "Read a log of memory slot calls, plain or gzipped: QEMU's own trace (-trace kvm_set_user_memory), strace,"
            " ftrace, trace-cmd report, perf, or the JSON lines of this program. Replay it in the engine and compare"
            " every recorded result."
        ),
        epilog=_EPILOG,
        formatter_class=RawDescriptionHelpFormatter,
    )
    parser.add_argument("file", metavar="FILE", help="log, or - for standard input")
    parser.add_argument(
        "--profile", metavar="P", help=f"kernel profile (default {DEFAULT_PROFILE}): {', '.join(PROFILES)}"
    )
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--preview", action="store_true", help="what each line became: operation, help, or why nothing")
    what.add_argument("--tree", metavar="FILE", help="text of `info mtree -f`: who owns the slots at the log's end")
    what.add_argument("--profiles", action="store_true", help="which kernel fits: recorded results against each")
    what.add_argument("--abi", nargs=2, metavar=("OLD", "NEW"), help="operations whose result changes between kernels")
    parser.add_argument(
        "--limit",
        metavar="N",
        type=_count,
        default=LIMIT,
        help=f"with --profiles: most operations to replay on each, 0 for all (default {LIMIT})",
    )
    parser.add_argument("--json", action="store_true", help="JSON: one object for each row, the summary last")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Replay and print; return 0 if every result agrees, else 1."""
    profile = get_profile(args.profile) if args.profile else None
    source = stream_source("standard input", sys.stdin.buffer) if args.file == "-" else file_source(Path(args.file))
    try:
        with seldom_collecting():
            return _print(args, source, profile)
    finally:
        source.close()


def _print(args: argparse.Namespace, source: Source, profile: KernelProfile | None) -> int:
    if args.preview:
        return print_preview(Replay(source, profile), as_json=args.json)
    if args.tree:
        return print_tree(Replay(source, profile), Path(args.tree), as_json=args.json)
    if args.profiles:
        return print_profiles(source, args.limit or None, as_json=args.json)
    if args.abi:
        return print_abi(source, *(get_profile(name) for name in args.abi), as_json=args.json)
    return _print_operations(Replay(source, profile), as_json=args.json)


def _count(text: str) -> int:
    number = int(text)
    if number < 0:
        raise ValueError(text)
    return number


def _print_operations(replay: Replay, *, as_json: bool) -> int:
    write = sys.stdout.write
    if as_json:
        for block in _blocks(map(_row_as_json, replay.rows())):
            write(block)
        summary = replay.summary()
        _write_json(summary)
    else:
        write(_HEADER)
        for block in _blocks(map(_row_as_text, replay.rows())):
            write(block)
        summary = replay.summary()
        write("\n".join(_summary_as_text(summary)) + "\n")
    return 1 if summary.disagreements else 0


def _blocks(rows: Iterator[str]) -> Iterator[str]:
    """Join rows: a pipe takes a few large writes in a fifth of the time that many small ones need."""
    while block := "".join(islice(rows, _ROWS_AT_ONCE)):
        yield block


# -- JSON ------------------------------------------------------------------------------------------

_ROW = (
    '{"index": %d, "line": %d, "op": "%s", "vm": %d, "as_id": %d, "slot": %d, "flags": %d, "gpa": %d, "size": %d,'
    ' "hva": %d, %s, "generation": %s, "live_slots": %d, "note": %s}\n'
)
_OUTCOME = '"kind": %s, "guard": %s, "ret": %s, "errno": %s, "recorded_ret": %s, "recorded_errno": %s, "agrees": %s'
_word = lru_cache(maxsize=1024)(json.dumps)


def _row_as_json(row: Row) -> str:
    # A million rows: filling a template takes a fifth of the time of json.dumps.
    generation = "null" if row.generation is None else row.generation
    return _ROW % (*row[:10], _outcome(row[10:17]), generation, row.live_slots, _word(row.note))


@lru_cache(maxsize=1024)
def _outcome(fields: tuple[str | int | None, ...]) -> str:
    """Return the fields of a row from `Row.kind` to `Row.agrees`; few of them differ in a whole log."""
    return _OUTCOME % tuple(map(json.dumps, fields))


def _write_json(summary: Summary) -> None:
    """Write the summary piece by piece: the list of skipped lines may be too long to be one string."""
    head = {
        "operations": summary.operations,
        "used": summary.used,
        "moves": summary.moves,
        "max_live_slots_of_one_vm": summary.max_live_slots_of_one_vm,
        "max_live_slots": summary.max_live_slots,
        "vms": summary.vms,
        "disagreements": summary.disagreements,
        "format": summary.format,
        "profile": summary.profile,
        "kinds": summary.kinds,
        "assumptions": summary.assumptions,
        "stopped": summary.stopped,
        "final_layout": summary.final_layout,
    }
    if summary.mmu_events.by_name:
        head["mmu_events"] = summary.mmu_events.by_name
        head["mmu_events_by_operation"] = summary.mmu_events.by_operation
    write = sys.stdout.write
    write('{"summary": ' + json.dumps(head)[:-1] + ', "skipped": [')
    skipped = (f', {{"line": {line}, "reason": {_word(reason)}}}' for line, reason in summary.skipped)
    write(next(skipped, "")[2:])  # the first of a list has no comma before it
    for block in _blocks(skipped):
        write(block)
    write("]}}\n")


# -- text ------------------------------------------------------------------------------------------

_HEADER = (
    f"{'index':>7} {'line':>7} {'vm':>3} {'as':>2} {'slot':>5} {'flags':<6} {'kind':<10}"
    f" {'guest address':>18} {'size':>14} {'host address':>18} {'gen':>6} {'live':>5}  result\n"
)


def _row_as_text(row: Row) -> str:
    generation = "-" if row.generation is None else row.generation
    return (
        f"{row.number:>7} {row.line:>7} {row.vm:>3} {row.as_id:>2} {row.slot:>5} {_flags(row.flags):<6}"
        f" {row.kind or '-':<10} {row.gpa:>#18x} {row.size:>#14x} {row.hva:>#18x} {generation:>6} {row.live_slots:>5}"
        f"  {_result(row)}\n"
    )


def _flags(flags: int) -> str:
    return flags_text(flags) if not flags & ~_KNOWN_FLAGS else hex(flags)


def _result(row: Row) -> str:
    """Say how the call ended, in the engine and, if that differs, in the log."""
    engine = "ok" if row.errno is None else f"{row.errno} ({row.guard})"
    note = f"; {row.note}" if row.note else ""
    if row.recorded_ret is None:
        return f"{engine}, not recorded{note}"
    if row.agrees is True:
        return engine + note
    recorded = "ok" if row.recorded_ret == 0 else str(row.recorded_errno)
    return f"{engine}, but recorded is {recorded}{note}" + ("  <== differs" if row.agrees is False else "")


def _summary_as_text(summary: Summary) -> Iterator[str]:
    if summary.disagreements:
        yield f"\n{summary.disagreements} of {summary.operations} results differ, the first of them:"
        yield _HEADER.rstrip("\n")
        for row in summary.first_disagreements:
            yield _row_as_text(row).rstrip("\n")
    yield ""
    yield f"format         {summary.format}, profile {summary.profile}"
    kinds = ", ".join(f"{count} {kind}" for kind, count in summary.kinds.items())
    yield f"operations     {summary.operations:>8}" + (f"  ({kinds})" if kinds else "")
    yield f"moves          {summary.moves:>8}"
    yield f"max live slots {summary.max_live_slots_of_one_vm:>8}"
    yield f"VMs            {summary.vms:>8}"
    yield f"lines used     {summary.used:>8}"
    yield f"lines skipped  {len(summary.skipped):>8}"
    for reason, count, runs in summary.skipped.by_reason(_RUNS_SHOWN):
        yield f"  {count:>7}  {reason}: {_lines(runs, count)}"
    events = summary.mmu_events
    if events.by_name:
        yield f"MMU events     {sum(events.by_name.values()):>8}"
        for name, count in events.by_name.most_common():
            yield f"  {count:>7}  {name}"
        for operation, counts in list(events.by_operation.items())[:_RUNS_SHOWN]:
            when = f"operation {operation}" if operation >= 0 else "before the first operation"
            yield f"           {when}: {', '.join(f'{n} {what}' for what, n in counts.items())}"
        more = len(events.by_operation) - _RUNS_SHOWN
        if more > 0:
            yield f"           and at {more} operations more (--json lists them)"
    yield f"disagreements  {summary.disagreements:>8}"
    for sentence in summary.assumptions:
        yield f"- {sentence}"


def _lines(runs: list[tuple[int, int]], count: int) -> str:
    shown = ", ".join(str(first) if first == last else f"{first}-{last}" for first, last in runs)
    more = count - sum(last - first + 1 for first, last in runs)
    return f"{'line' if count == 1 else 'lines'} {shown}" + (f" and {more} more (--json lists all)" if more else "")
