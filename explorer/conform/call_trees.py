"""Function graphs that the kernel's own tracer recorded of single operations, and how the engine's calls lie in them.

A recording is a tree of the kernel functions one operation entered. A function that the compiler inlined shows in none
of them, and the operations that came before were the recorder's, not those of a page's run: so calls are aligned in
order, and what has no partner is named for what it is. Files are read when they are first asked for.
"""

from __future__ import annotations

import gzip
import json
import re
from functools import cache
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from explorer.engine.commands import AttachTracker, DetachTracker, GetDirtyLog, SetMemoryRegion, TrackGfn, UntrackGfn
from explorer.engine.uapi import KvmMrChange

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from explorer.engine.commands import Command

__all__ = [
    "INLINED",
    "INLINED_IN",
    "KINDS",
    "Graph",
    "Kind",
    "Machine",
    "RecordedCall",
    "align",
    "entered_functions",
    "graphs_of",
    "machine_of",
    "nearest",
    "newest_name",
    "recorded_files",
    "shown_by",
]

_NEWEST_NAME = {
    "__kvm_set_memory_region": "kvm_set_memory_region",
    "kvm_slot_page_track_add_page": "__kvm_write_track_add_gfn",
    "kvm_slot_page_track_remove_page": "__kvm_write_track_remove_gfn",
    "install_new_memslots": "kvm_swap_active_memslots",
    # 5.10 has one function for all pages and one for huge ones alone, where PML sees to the small ones.
    "kvm_mmu_slot_largepage_remove_write_access": "kvm_mmu_slot_remove_write_access",
}
"""Functions that only their name tells from a newer one."""

_INLINED_EVERYWHERE = frozenset(
    {
        "kvm_alloc_dirty_bitmap",
        "kvm_alloc_memslot_metadata",
        "kvm_copy_memslot",
        "kvm_free_memslot",
        "update_gfn_write_track",
    }
)
_INLINED_FROM_6_1 = _INLINED_EVERYWHERE | {
    "kvm_check_memslot_overlap",
    "kvm_commit_memory_region",
    "kvm_invalidate_memslot",
    "kvm_prepare_memory_region",
}
INLINED: dict[str, frozenset[str]] = {
    "5.10": _INLINED_EVERYWHERE | {"unaccount_shadowed"},
    "6.1": _INLINED_FROM_6_1 | {"unaccount_shadowed"},
    "6.12": _INLINED_FROM_6_1 | {"kvm_enable_external_write_tracking", "kvm_mmu_zap_memslot", "unaccount_shadowed"},
    "7.3": _INLINED_FROM_6_1 | {"kvm_enable_external_write_tracking", "kvm_mmu_zap_all_fast", "kvm_mmu_zap_memslot"},
}
"""By kernel: functions it has, which the engine enters in a recorded operation and no graph of that kernel shows."""

INLINED_IN: dict[str, frozenset[KvmMrChange]] = {
    "kvm_activate_memslot": frozenset({KvmMrChange.CREATE, KvmMrChange.DELETE}),
}
"""Functions that graphs show, but not in these changes: there the compiler put them into their caller."""


class RecordedCall(NamedTuple):
    """One function that a kernel entered."""

    function: str
    """Its name in that kernel."""
    depth: int
    """Callers above it in the graph."""
    us: float
    """Microseconds until it returned, on an emulated processor."""

    @property
    def newest(self) -> str:
        """The name the engine knows it by."""
        return newest_name(self.function)


class Kind(NamedTuple):
    """What a recorded operation is; its label says it in one word."""

    title: str
    command: type[Command]
    change: KvmMrChange | None = None
    checks: tuple[str, ...] = ()
    """Checks of the engine that refuse it, where it is refused; one of them on each kernel."""
    tracker: bool = False
    """Whether an external tracker is attached."""
    mapped: bool = False
    """Whether a guest has run, so that there is something to zap."""
    quirk_off: bool = False
    """Whether userspace has asked that a MOVE or DELETE zaps the slot alone."""
    flags: int = 0
    """Flags the region call asks for."""
    starts_log: bool = False
    """Whether it switches the dirty log of a slot on."""


_MOVE, _DELETE, _CREATE = KvmMrChange.MOVE, KvmMrChange.DELETE, KvmMrChange.CREATE
_FLAGS, _NOOP = KvmMrChange.FLAGS_ONLY, KvmMrChange.NOOP
_REGION = SetMemoryRegion

KINDS: dict[str, Kind] = {
    "create": Kind("a CREATE", _REGION, _CREATE),
    "create_2m_aligned": Kind("a CREATE of 4 MiB", _REGION, _CREATE),
    "create_dirty": Kind("a CREATE with the dirty log on", _REGION, _CREATE, flags=1),
    "create_readonly": Kind("a CREATE of a read-only slot", _REGION, _CREATE, flags=2),
    "move_accepted": Kind("a MOVE", _REGION, _MOVE),
    "move_with_external_tracker": Kind("a MOVE", _REGION, _MOVE, ("external_user",), tracker=True),
    "move_after_detach": Kind("a MOVE after a tracker was detached", _REGION, _MOVE),
    "delete": Kind("a DELETE", _REGION, _DELETE),
    "delete_with_external_tracker": Kind("a DELETE", _REGION, _DELETE, tracker=True),
    "flags_only_dirty_on": Kind("a change of flags: dirty log on", _REGION, _FLAGS, flags=1, starts_log=True),
    "flags_only_dirty_off": Kind("a change of flags: dirty log off", _REGION, _FLAGS),
    "noop": Kind("a call that changes nothing", _REGION, _NOOP),
    "err_gpa_misaligned": Kind("a CREATE", _REGION, None, ("gpa_aligned",)),
    "err_flags": Kind("a CREATE", _REGION, None, ("flags", "region_flags")),
    "err_overlap": Kind("a CREATE", _REGION, _CREATE, ("overlap",)),
    "err_resize": Kind("a call that would resize a slot", _REGION, None, ("same_size",)),
    "err_delete_nonexistent": Kind("a DELETE", _REGION, _DELETE, ("slot_exists",)),
    "err_slot_id": Kind("a CREATE", _REGION, None, ("user_slot_id",)),
    "err_as_id": Kind("a CREATE", _REGION, None, ("as_id",)),
    "err_create_beyond_max_gfn": Kind("a CREATE beyond the guest's address width", _REGION, _CREATE, ("max_gfn",)),
    "err_move_beyond_max_gfn": Kind("a MOVE beyond the guest's address width", _REGION, _MOVE, ("max_gfn", "overlap")),
    "get_dirty_log": Kind("a report of the dirty log", GetDirtyLog, mapped=True),
    "flags_only_dirty_on_mapped": Kind(
        "a change of flags: dirty log on", _REGION, _FLAGS, mapped=True, flags=1, starts_log=True
    ),
    "move_mapped": Kind("a MOVE", _REGION, _MOVE, mapped=True, flags=1),
    "delete_mapped": Kind("a DELETE", _REGION, _DELETE, mapped=True),
    "move_mapped_with_external_tracker": Kind("a MOVE", _REGION, _MOVE, ("external_user",), tracker=True, mapped=True),
    "move_quirk_off_mapped": Kind("a MOVE", _REGION, _MOVE, mapped=True, quirk_off=True),
    "delete_quirk_off_mapped": Kind("a DELETE", _REGION, _DELETE, mapped=True, quirk_off=True),
    "tracker_register": Kind("a tracker that registers", AttachTracker),
    "tracker_track_gfn": Kind("a tracker that asks for a page", TrackGfn, tracker=True),
    "tracker_untrack_gfn": Kind("a tracker that lets a page go", UntrackGfn, tracker=True),
    "tracker_unregister": Kind("a tracker that unregisters", DetachTracker, tracker=True),
}
"""What the recorded operations are, by their labels."""


class Machine(NamedTuple):
    """What a recording ran on, as far as it decides which functions are entered."""

    tdp: bool
    tdp_mmu: bool
    intel: bool
    pml: bool


class Graph(NamedTuple):
    """One operation as the kernel's tracer saw it."""

    path: Path
    label: str
    errno: str | None
    calls: tuple[RecordedCall, ...]
    """What was entered, in order."""

    @property
    def kernel(self) -> str:
        """The release it was recorded on, such as ``6.12``."""
        return self.path.parts[-4]

    @property
    def variant(self) -> str:
        """The configuration, such as ``npt1``."""
        return self.path.parts[-3]

    @property
    def functions(self) -> tuple[str, ...]:
        """What was entered, by the names the engine knows."""
        return tuple(call.newest for call in self.calls)


# -- reading ---------------------------------------------------------------------------------------


@cache
def recorded_files() -> tuple[Path, ...]:
    """Return the files of function graphs: the checkout's, or those the package carries; none is no error."""
    here = Path(str(resources.files("explorer")))
    for folder in (here.parent / "assets/recordings", here / "_assets/recordings"):
        found = sorted(folder.glob("*/*/trace/call_trees.json.gz"))
        if found:
            return tuple(found)
    return ()


@cache
def graphs_of(path: Path) -> tuple[Graph, ...]:
    """Return the operations of a file."""
    trees = json.loads(gzip.decompress(path.read_bytes()))
    return tuple(Graph(path, tree["label"], tree["errno"], tuple(_calls(tree["tree"], 0))) for tree in trees)


def _calls(tree: list[dict[str, Any]], depth: int) -> Iterator[RecordedCall]:
    for node in tree:
        # `.part.0` and `.isra.0` mark what the compiler left of a function when it inlined the rest.
        yield RecordedCall(node["fn"].partition(".")[0], depth, float(node["us"]))
        yield from _calls(node["children"], depth + 1)


def newest_name(function: str) -> str:
    """Return the name the engine knows a recorded function by."""
    return _NEWEST_NAME.get(function, function)


@cache
def shown_by(path: Path) -> frozenset[str]:
    """Return every function that a file shows, by the names the engine knows."""
    return frozenset(name for graph in graphs_of(path) for name in graph.functions)


def machine_of(path: Path) -> Machine:
    """Return what a file was recorded on, as its folders say."""
    kernel, variant = path.parts[-4], path.parts[-3]
    tdp = not variant.endswith(("npt0", "ept0"))
    # kvm.tdp_mmu was off on 5.10 in all recordings, as their configurations say.
    tdp_mmu = tdp and kernel != "5.10" and "mmu0" not in variant
    intel = variant.startswith("intel")
    return Machine(tdp, tdp_mmu, intel, intel and tdp)


@cache
def entered_functions() -> frozenset[str]:
    """Return every function whose entry is an event of the engine, read from its source."""
    engine = Path(str(resources.files("explorer"))) / "engine"
    texts = (path.read_text(encoding="utf-8") for path in sorted(engine.glob("*.py")))
    return frozenset(name for text in texts for name in re.findall(r'\.enter\("(\w+)"\)', text))


# -- choosing --------------------------------------------------------------------------------------


def nearest(kernel: str, kind: Kind, machine: Machine, errno: str | None) -> Graph | None:
    """Return the recorded operation of a kernel that is most like another one; None if none is.

    The same command, the same change and the same outcome are a must; a refusal counts as the same only by the same
    check. The machine decides next, then what the VM was like.

    Parameters
    ----------
    kernel
        A release, such as ``6.12``.
    kind
        What the operation is; the first of its checks is the one that refused it.
    machine
        What the VM runs on.
    errno
        Name of the errno it returned, or None.
    """
    found = [
        (_distance(kind, machine, graph), graph)
        for path in recorded_files()
        if path.parts[-4] == kernel
        for graph in graphs_of(path)
        if graph.errno == errno and _is_like(KINDS.get(graph.label), kind, errno)
    ]
    return min(found, key=lambda item: item[0])[1] if found else None


def _is_like(recorded: Kind | None, kind: Kind, errno: str | None) -> bool:
    if recorded is None or recorded.command is not kind.command:
        return False
    if errno is not None and not set(kind.checks[:1]) & set(recorded.checks):
        return False
    return recorded.change is kind.change and (recorded.change is not _FLAGS or recorded.starts_log == kind.starts_log)


def _distance(kind: Kind, machine: Machine, graph: Graph) -> tuple[int, str]:
    recorded, on = KINDS[graph.label], machine_of(graph.path)
    weights = (
        (8, recorded.quirk_off != kind.quirk_off),
        (16, on.tdp != machine.tdp),
        (4, recorded.tracker != kind.tracker),
        (4, on.pml != machine.pml and kind.change is _FLAGS),
        (2, recorded.mapped != kind.mapped),
        (2, on.tdp_mmu != machine.tdp_mmu),
        (1, recorded.flags != kind.flags),
        (1, on.intel != machine.intel),
    )
    # Among equals the plain one: its label is the shortest.
    return sum(weight for weight, differs in weights if differs) * 100 + len(graph.label), graph.variant


# -- aligning --------------------------------------------------------------------------------------


def align(ours: Sequence[str], recorded: Sequence[str]) -> tuple[tuple[int, int], ...]:
    """Return the longest list of pairs ``(ours, recorded)`` of the same function, in the order of both.

    Among lists of one length, the pairs lie as early as they can in what was recorded.
    """
    at, pairs = 0, []
    known, entered = set(recorded), set(ours)
    mine = [n for n, name in enumerate(ours) if name in known]
    theirs = [n for n, name in enumerate(recorded) if name in entered]
    for n in mine:
        while at < len(theirs) and recorded[theirs[at]] != ours[n]:
            at += 1
        if at == len(theirs):
            return _longest(ours, recorded, mine, theirs)
        pairs.append((n, theirs[at]))
        at += 1
    return tuple(pairs)


def _longest(
    ours: Sequence[str], recorded: Sequence[str], mine: list[int], theirs: list[int]
) -> tuple[tuple[int, int], ...]:
    """Return the longest common subsequence, by lengths of what is left of both."""
    width = len(theirs) + 1
    left = [[0] * width for _ in range(len(mine) + 1)]
    for i in range(len(mine) - 1, -1, -1):
        name, row, below = ours[mine[i]], left[i], left[i + 1]
        for j in range(width - 2, -1, -1):
            row[j] = below[j + 1] + 1 if name == recorded[theirs[j]] else max(below[j], row[j + 1])
    i = j = 0
    pairs = []
    while i < len(mine) and j < len(theirs):
        if ours[mine[i]] == recorded[theirs[j]]:
            pairs.append((mine[i], theirs[j]))
            i, j = i + 1, j + 1
        elif left[i + 1][j] >= left[i][j + 1]:
            i += 1
        else:
            j += 1
    return tuple(pairs)
