"""Where the time of a call went that hid its slot: shares of a recorded call of the same kind."""

from __future__ import annotations

from itertools import takewhile
from typing import TYPE_CHECKING, Literal, NamedTuple

from explorer.conform.call_trees import KINDS, graphs_of, machine_of
from explorer.engine.types import Errno
from explorer.engine.uapi import KvmMrChange
from explorer.explain.words import errno_text
from explorer.history.moment import invalidates
from explorer.selectors.calls import recording_like

if TYPE_CHECKING:
    from explorer.conform.call_trees import Graph, RecordedCall
    from explorer.history import OpDetail
    from explorer.history.moment import Moment

__all__ = ["TimeBar", "TimePart", "select_time_bar"]

PartRole = Literal["swap", "zap", "check", "build", "rest"]
_EARLY = "err_overlap"
"""Label of the recorded call that a check refused before anything was touched."""
_WORDED = 0.08
"""Share of the bar from which on a part has room for its word."""


class TimePart(NamedTuple):
    """One part of the bar, in the order of time."""

    word: str
    """Empty where there is no room for it."""
    told: str
    """Word and share, such as ``zap, 84 %``."""
    width: str
    """Share of the bar, as a CSS length."""
    role: PartRole


class TimeBar(NamedTuple):
    """The bar and what is said beside it."""

    total: str
    parts: tuple[TimePart, ...]
    check: str
    """How long the check that refused took; empty if none did."""
    early: str
    """How long a call took that was refused before anything was touched; empty if none was recorded there."""
    chip: str


def select_time_bar(moment: Moment) -> TimeBar | None:
    """Return the bar of the call a moment is in.

    None is returned if the call hid no slot, or if no such call was recorded with the same paging and as much to zap.
    The times are of an emulated processor, so only their shares are worth reading.
    """
    op = moment.op
    if op is None or not invalidates(moment.change) or not any(cell.word == "zap" for cell in op.cells):
        return None
    graph, _ = recording_like(op)
    if graph is None or not _is_as_large(graph, op):
        return None
    inside = _inside(graph)
    if not inside:
        return None
    whole = graph.calls[0].us
    refused = graph.errno is not None
    named = _named(inside, built="prepare" if op.step.change is KvmMrChange.DELETE else "allocate", refused=refused)
    parts = [(role, word, call.us) for call, role, word in named]
    check = next((us for role, _, us in parts if role == "check"), None)
    rest = whole - sum(us for _, _, us in parts)
    return TimeBar(
        total=f"{graph.kernel} on a simulated processor: {whole:,.0f} µs",
        parts=tuple(_part(role, word, us / whole) for role, word, us in (*parts, ("rest", "the rest", rest))),
        check=f"the check itself: {check:.1f} µs" if check is not None else "",
        early=_early(graph) if refused else "",
        chip=f"recorded on {graph.kernel}, {graph.variant}",
    )


def _is_as_large(graph: Graph, op: OpDetail) -> bool:
    """Return whether a recorded call had as much to zap: the same paging, and something or nothing mapped."""
    before = op.before
    mapped = bool(before.sptes.entries or before.active_mmu_pages)
    return machine_of(graph.path).tdp == before.config.tdp and KINDS[graph.label].mapped == mapped


def _inside(graph: Graph) -> tuple[RecordedCall, ...]:
    """Return what kvm_set_memslot() calls itself, in order; nothing where the graph does not show it."""
    at = next((n for n, call in enumerate(graph.calls) if call.function == "kvm_set_memslot"), None)
    if at is None:
        return ()
    depth = graph.calls[at].depth
    below = takewhile(lambda call: call.depth > depth, graph.calls[at + 1 :])
    return tuple(call for call in below if call.depth == depth + 1)


def _named(calls: tuple[RecordedCall, ...], *, built: str, refused: bool) -> list[tuple[RecordedCall, PartRole, str]]:
    """Return the calls that are steps of the strip, with their words."""
    found: list[tuple[RecordedCall, PartRole, str]] = []
    for call in calls:
        match call.newest:
            case "kvm_swap_active_memslots" | "kvm_activate_memslot":
                first = not any(role == "swap" for _, role, _ in found)
                found.append((call, "swap", "back" if refused and not first else "swap"))
            case "kvm_arch_flush_shadow_memslot":
                found.append((call, "zap", "zap"))
            case "kvm_arch_prepare_memory_region":
                found.append((call, "check", "the check") if refused else (call, "build", built))
            case "kvm_arch_commit_memory_region":
                found.append((call, "build", "free old"))
            case _:
                pass
    return found


def _part(role: PartRole, word: str, share: float) -> TimePart:
    percent = f"{share:.0%}".replace("%", "\N{NO-BREAK SPACE}%") if share >= 0.005 else "under 1\N{NO-BREAK SPACE}%"
    told = f"{word}, {percent}"
    room = share >= _WORDED
    return TimePart((told if role == "zap" else word) if room else "", told, f"{share * 100:.3f}%", role)


def _early(graph: Graph) -> str:
    found = next((other for other in graphs_of(graph.path) if other.label == _EARLY), None)
    if found is None or found.errno is None:
        return ""
    return f"{errno_text(Errno[found.errno])}, found early: {found.calls[0].us:.0f} µs in all"
