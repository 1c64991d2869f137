"""Further views of a log for ``explorer replay``: preview, owners, the kernel that fits, who would break."""

from __future__ import annotations

import json
import sys
from collections import Counter
from typing import TYPE_CHECKING

from explorer.engine.profile import get_profile
from explorer.trace.abi import look_through
from explorer.trace.divergence import compare_profiles
from explorer.trace.preview import BECAME, preview_rows
from explorer.trace.records import TraceError
from explorer.trace.source import file_source
from explorer.trace.tree import name_slots, read_tree

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from explorer.engine.profile import KernelProfile
    from explorer.trace.abi import AbiLens, Change
    from explorer.trace.divergence import Divergence
    from explorer.trace.lift import Row
    from explorer.trace.replay import Replay
    from explorer.trace.source import Source
    from explorer.trace.tree import MemoryTree, Naming

__all__ = ["print_abi", "print_preview", "print_profiles", "print_tree"]

_SHOWN = 20


# -- preview ---------------------------------------------------------------------------------------


def print_preview(replay: Replay, *, as_json: bool) -> int:
    """Print a row for each line; return 1 if a recorded result differs."""
    lines: Counter[str] = Counter()
    write = sys.stdout.write
    if not as_json:
        write(f"{'line':>7} {'lines':>5}  {'became':<14} what, or why\n")
    for row in preview_rows(replay):
        lines[row.became] += row.lines
        if as_json:
            write(json.dumps(row._asdict()) + "\n")
        else:
            became = row.became if row.operation is None else f"operation {row.operation}"
            mark = "?" if row.became == "doubtful" else " "
            write(f"{row.line:>7} {row.lines:>5} {mark}{became:<14} {row.why}\n")
    summary = replay.summary()
    counts = {became: lines[became] for became in BECAME}
    if as_json:
        write(json.dumps({"lines": counts, "format": summary.format, "assumptions": summary.assumptions}) + "\n")
    else:
        told = ", ".join(f"{count} {became}" for became, count in counts.items())
        write(f"\n{summary.format}: lines by what they became: {told}\n")
        write("".join(f"- {sentence}\n" for sentence in summary.assumptions))
    return 1 if summary.disagreements else 0


# -- owners ----------------------------------------------------------------------------------------


def print_tree(replay: Replay, path: Path, *, as_json: bool) -> int:
    """Print who owns the slots of the busiest VM at the end of a log; return 1 if tree and slots differ."""
    other = file_source(path)
    try:
        tree = read_tree(other)
    finally:
        other.close()
    for _ in replay.rows():
        pass
    machines = replay.lift.machines
    if not machines:
        raise TraceError("no memory slot call in this log, so there is no slot to name")
    vm = max(machines, key=lambda index: machines[index].operations)
    naming = name_slots(machines[vm].kvm, tree)
    if as_json:
        print(json.dumps(_tree_as_json(vm, tree, naming)))
    else:
        print("\n".join(_tree_as_text(vm, len(machines), tree, naming)))
    return 1 if naming.mismatches else 0


def _tree_as_json(vm: int, tree: MemoryTree, naming: Naming) -> dict[str, object]:
    return {
        "vm": vm,
        "owners": [{"as_id": key[0], "slot": key[1], **found._asdict()} for key, found in naming.owners],
        "mismatches": naming.mismatches,
        "backings": [backing._asdict() for backing in naming.backings],
        "ranges": [found._asdict() for found in tree.ranges],
        "marked": tree.marked,
        "used": tree.used,
        "unused": tree.unused,
        "skipped": [{"line": gap.line, "reason": gap.reason} for gap in tree.gaps],
    }


def _tree_as_text(vm: int, vms: int, tree: MemoryTree, naming: Naming) -> Iterator[str]:
    of_many = f" of VM {vm}, the busiest of {vms}," if vms > 1 else ""
    yield f"slots{of_many} at the end of the log, and who owns them"
    for (as_id, slot), found in naming.owners:
        place = f"{found.gpa:#x}..{found.gpa + found.size:#x}"
        offset = f" @{found.offset:#x}" if found.offset else ""
        yield f"  slot {as_id}:{slot:<6} {place:<26} {found.owner}{offset} ({found.kind}, prio {found.prio})"
    yield f"{len(naming.owners)} named, {len(naming.mismatches)} mismatches"
    for sentence in naming.mismatches[:_SHOWN]:
        yield f"  {sentence}"
    if len(naming.mismatches) > _SHOWN:
        yield f"  and {len(naming.mismatches) - _SHOWN} more; --json lists all"
    if not tree.marked:
        yield "- QEMU marked no range with KVM: ram, rom and romd are taken for slots."
    if tree.gaps:
        first = tree.gaps[0]
        yield f"- {tree.unused} lines of the tree were not used, the first is line {first.line}: {first.reason}."


# -- which kernel ----------------------------------------------------------------------------------


def print_profiles(source: Source, limit: int | None, *, as_json: bool) -> int:
    """Print how each kernel explains a log; return 1 if none explains all."""
    found = compare_profiles(source, limit=limit)
    print(json.dumps(_profiles_as_json(found)) if as_json else "\n".join(_profiles_as_text(found)))
    return 1 if found.best.disagreements else 0


def _profiles_as_json(found: Divergence) -> dict[str, object]:
    return {
        "whole": found.whole,
        "best": found.best.profile,
        "profiles": [fit._asdict() | {"first": [row._asdict() for row in fit.first]} for fit in found.fits],
    }


def _profiles_as_text(found: Divergence) -> Iterator[str]:
    best = found.best
    ties = [fit.profile for fit in found.fits if fit[1:4] == best[1:4]]
    what = "all" if found.whole else "the first"
    yield f"{what} {best.operations} operations, compared with {len(found.fits)} kernels"
    yield f"{'profile':<14} {'explains':>8} {'differ':>7} {'open':>7}  first line that differs"
    for fit in found.fits:
        first = fit.first[0] if fit.first else None
        told = f"line {first.line}: {_difference(first)}" if first is not None else "none"
        yield f"{fit.profile:<14} {fit.explained:>8} {fit.disagreements:>7} {fit.not_compared:>7}  {told}"
    runs = sum(fit.same_as is None for fit in found.fits)
    yield f"best fit: {', '.join(ties)}" + (" explain the log equally well" if len(ties) > 1 else "")
    yield f"({runs} replays: a kernel that answers every question of another's replay alike needs none of its own)"
    if best.first:
        yield f"\n{best.disagreements} results differ on {best.profile}, the first of them:"
        for row in best.first:
            yield f"  line {row.line}, operation {row.number}: {_difference(row)}"


def _difference(row: Row) -> str:
    recorded = "success" if row.recorded_ret == 0 else row.recorded_errno
    model = "success" if row.errno is None else f"{row.errno} ({row.guard})"
    return f"{row.kind or row.op} of slot {row.slot}: recorded {recorded}, modelled {model}"


# -- who would break -------------------------------------------------------------------------------


def print_abi(source: Source, old: KernelProfile, new: KernelProfile, *, as_json: bool) -> int:
    """Print which operations change their result; return 1 if any does."""
    lens = look_through(source, old, new)
    print(json.dumps(_abi_as_json(lens)) if as_json else "\n".join(_abi_as_text(lens, old, new)))
    return 1 if any(comparison.changed for comparison in lens.comparisons) else 0


def _abi_as_json(lens: AbiLens) -> dict[str, object]:
    return {
        "operations": lens.operations,
        "moves": lens.moves._asdict(),
        "comparisons": [
            comparison._asdict() | {"changes": [change._asdict() for change in comparison.changes]}
            for comparison in lens.comparisons
        ],
    }


def _abi_as_text(lens: AbiLens, old: KernelProfile, new: KernelProfile) -> Iterator[str]:
    moves = lens.moves
    total = moves.accepted + moves.refused
    if not total:
        yield f"Does this VMM ever MOVE? 0 times in {lens.operations} operations."
    else:
        yield f"Does this VMM ever MOVE? {moves.accepted} times in {lens.operations} operations" + (
            f", and {moves.refused} more were refused." if moves.refused else "."
        )
        yield f"  lines {_listed([str(line) for line in moves.lines], total)}"
    yield f"{old.name} is {get_profile(old.name).title}, {new.name} is {get_profile(new.name).title}"
    for comparison in lens.comparisons:
        yield f"{comparison.changed:>7}  results change: {comparison.title}"
        if comparison.consequences:
            yield f"         and {comparison.consequences} more only because a slot is missing by then"
        direct = [change for change in comparison.changes if not change.follows]
        for change in direct[:_SHOWN]:
            yield f"         line {change.line}: {_change(change)}"
        if comparison.changed > _SHOWN:
            yield f"         and {comparison.changed - _SHOWN} more (--json lists up to 1000)"


def _change(change: Change) -> str:
    old, new = (errno or "success" for errno in (change.old, change.new))
    return f"{change.kind} of slot {change.slot}: {old}, then {new}" + (f" ({change.check})" if change.check else "")


def _listed(words: list[str], total: int) -> str:
    return ", ".join(words[:_SHOWN]) + (f" and {total - _SHOWN} more" if total > _SHOWN else "")
