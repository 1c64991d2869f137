"""One MOVE by two routes: as a MOVE, and as DELETE and CREATE, both run by the engine from the same VM.

Every line is counted in what each route did: its results, its events and the VM at its end.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from explorer.engine.commands import SetMemoryRegion
from explorer.engine.events import (
    ArrayAllocated,
    ArrayFreed,
    DirtyBitmapHandedOver,
    KernelWarned,
    MappingsZapped,
    MemslotsPublished,
    ReadersDrained,
    TrackerNotified,
)
from explorer.engine.locks import BusyError
from explorer.engine.state import DirtyBitmap, Kvmgt
from explorer.engine.types import PAGE_SHIFT
from explorer.engine.uapi import KvmMrChange
from explorer.explain.ledger import ledger_of
from explorer.explain.words import count_text, errno_text, hex_text, pages_text, plural, size_text
from explorer.history.moment import Moment, attempted_change
from explorer.history.run import Stop, look_inside
from explorer.selectors.gpu_tables import count_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from explorer.engine.events import Event
    from explorer.engine.state import Kvm
    from explorer.explain.ledger import Ledger
    from explorer.history import OpDetail, Run

__all__ = ["CompareRow", "CompareView", "select_compare"]

_LOOKED_BACK = 16
"""Refused calls before a stop that are asked whether they were a MOVE."""


class CompareRow(NamedTuple):
    """One fact of both routes."""

    group: str
    fact: str
    move: str
    pair: str
    differs: bool


class CompareView(NamedTuple):
    """Both routes side by side; `notice` alone where there is no MOVE."""

    notice: str = ""
    where: str = ""
    finding: str = ""
    why: str = ""
    refused: bool = False
    """Whether the MOVE is refused."""
    op: int = 0
    rows: tuple[CompareRow, ...] = ()


class _Route(NamedTuple):
    """The calls of one route, run from the same VM."""

    before: Kvm
    calls: tuple[OpDetail, ...]
    ledger: Ledger

    @property
    def end(self) -> Kvm:
        return self.calls[-1].step.kvm

    @property
    def events(self) -> tuple[Event, ...]:
        return tuple(event for call in self.calls for cell in call.cells for event in cell.events)

    @property
    def command(self) -> SetMemoryRegion:
        command = self.calls[0].command
        assert isinstance(command, SetMemoryRegion), "a route is made of region calls"
        return command

    @property
    def succeeds(self) -> bool:
        return all(call.step.errno is None for call in self.calls)

    def number(self, kind: type[Event]) -> int:
        return sum(isinstance(event, kind) for event in self.events)


def select_compare(run: Run, op: int, ghost: OpDetail | None = None) -> CompareView:
    """Return both routes for the MOVE at an operation; else for the composed one; else for the last one before."""
    found = _move_at(run, op, ghost)
    if found is None:
        return CompareView(
            "A MOVE appears here beside DELETE and CREATE to the same place. Compose Move, or go to one."
        )
    at, before, command, where = found
    try:
        move = _route(before, command)
        pair = _route(before, replace(command, memory_size=0), command)
    except BusyError:
        return CompareView("Another region call is in progress at this point: neither route could start.")
    rows = tuple(
        CompareRow(group, fact, one, other, one != other)
        for group, fact, ask in _FACTS
        if (one := ask(move)) is not None and (other := ask(pair)) is not None
    )
    finding, why = _finding(move, pair, rows)
    return CompareView(
        where=f"slot {command.slot} to {hex_text(command.guest_phys_addr)}, {where}",
        finding=finding,
        why=why,
        refused=not move.succeeds,
        op=at,
        rows=rows,
    )


def _move_at(run: Run, op: int, ghost: OpDetail | None) -> tuple[int, Kvm, SetMemoryRegion, str] | None:
    n = len(run)

    def move(index: int) -> tuple[int, Kvm, SetMemoryRegion, str] | None:
        command = run.commands[index]
        if not isinstance(command, SetMemoryRegion):
            return None
        change = run.outcomes[index].change
        if change not in (None, KvmMrChange.MOVE):
            return None
        before = run.kvm_before(index)
        if attempted_change(before, command) is not KvmMrChange.MOVE:
            return None
        return index, before, command, f"operation {index + 1} of {n}"

    here = move(op) if 0 <= op < n else None
    if here is not None:
        return here
    composed = ghost.command if ghost is not None and op == n - 1 else None
    if isinstance(composed, SetMemoryRegion) and attempted_change(run.end, composed) is KvmMrChange.MOVE:
        return n, run.end, composed, "composed, not applied yet"
    left = _LOOKED_BACK
    for index in range(min(op, n) - 1, -1, -1):
        if not left:
            break
        left -= isinstance(run.commands[index], SetMemoryRegion) and run.outcomes[index].change is None
        found = move(index)
        if found is not None:
            return found
    return None


def _route(before: Kvm, *commands: SetMemoryRegion) -> _Route:
    """Run calls one after another; one that fails ends the route."""
    calls: list[OpDetail] = []
    kvm = before
    for command in commands:
        call = look_inside(kvm, command, len(calls))
        calls.append(call)
        kvm = call.step.kvm
        if call.step.errno is not None:
            break
    first = calls[0]
    ledger = ledger_of(Moment(Stop(0, len(first.cells) - 1), first.step.kvm, before, first, None))
    assert ledger is not None, "a region call has a ledger"
    return _Route(before, tuple(calls), ledger)


# -- facts -----------------------------------------------------------------------------------------


def _result(route: _Route) -> str:
    return ", then ".join(errno_text(call.step.errno) for call in route.calls)


def _place(route: _Route) -> str:
    command = route.command
    slot = route.end.slot(command.slot, command.as_id)
    return "none" if slot is None else f"gfn {hex_text(slot.base_gfn)}, {pages_text(slot.npages)}"


def _generation(route: _Route) -> str:
    as_id = route.command.as_id
    old, new = route.before.active(as_id).generation, route.end.active(as_id).generation
    return f"{old} to {new}: +{new - old}"


def _swaps(route: _Route) -> str:
    return str(route.number(MemslotsPublished))


def _waits(route: _Route) -> str:
    return str(route.number(ReadersDrained))


def _seen_by_readers(route: _Route) -> Counter[str]:
    """Return in how many steps readers find the slot INVALID, and in how many there is none."""
    command = route.command
    seen: Counter[str] = Counter()
    for call in route.calls:
        for cell in call.cells:
            slot = cell.kvm.slot(command.slot, command.as_id)
            seen["nothing" if slot is None else "INVALID" if slot.invalid else "slot"] += 1
    return seen


def _invalid(route: _Route) -> str:
    return plural(_seen_by_readers(route)["INVALID"], "step")


def _nothing(route: _Route) -> str:
    steps = _seen_by_readers(route)["nothing"]
    if not steps:
        return "0 steps"
    return plural(steps, "step") + (", and the time between the calls" if len(route.calls) > 1 else "")


def _zaps(route: _Route) -> str:
    zaps = [event for event in route.events if isinstance(event, MappingsZapped)]
    pages = plural(sum(zap.shadow_pages for zap in zaps), "shadow page")
    return f"{len(zaps)}, {' and '.join(dict.fromkeys(zap.scope for zap in zaps))}: {pages}" if zaps else "0"


def _released(route: _Route) -> str:
    return f"{route.ledger.released} of {route.ledger.before}"


def _dropped(route: _Route) -> str | None:
    """Return how many watches KVMGT's own callback took back; None without KVMGT."""
    if not any(isinstance(t, Kvmgt) and t.attached for t in route.before.trackers.values()):
        return None
    return f"{route.ledger.dropped} of {route.ledger.before}"


def _lost(route: _Route) -> str:
    return f"{route.ledger.lost} of {route.ledger.before}"


def _kept(route: _Route) -> str:
    return f"{route.ledger.kept} of {route.ledger.before}"


def _callbacks(route: _Route) -> str:
    called = Counter(event.callback for event in route.events if isinstance(event, TrackerNotified))
    return ", ".join(name if n == 1 else f"{name}, {n} times" for name, n in called.items()) or "none called"


def _protect_table(route: _Route) -> str | None:
    """Return how many pages KVMGT lists, and how many of them KVM watches; None without KVMGT."""
    vgpus = [t for t in route.before.trackers.values() if isinstance(t, Kvmgt) and t.attached]
    if not vgpus:
        return None
    listed = [gfn for t in route.end.trackers.values() if isinstance(t, Kvmgt) for gfn in t.protect_table]
    watched = sum(bool(count_of(route.end, gfn)) for gfn in listed)
    return f"{plural(len(listed), 'page')} listed, {watched} watched" if listed else "empty"


def _flags(route: _Route) -> str | None:
    vgpus = [t for t in route.end.trackers.values() if isinstance(t, Kvmgt) and t.attached]
    if not vgpus:
        return None
    return f"{sum(sum(t.page_track_tree.values()) for t in vgpus)} say tracked"


def _dirty(kvm: Kvm, command: SetMemoryRegion) -> int | None:
    slot = kvm.slot(command.slot, command.as_id)
    bitmap = kvm.heap.get(slot.dirty_bitmap) if slot is not None and slot.dirty_bitmap is not None else None
    return len(bitmap.dirty) if isinstance(bitmap, DirtyBitmap) else None


def _dirty_bits(route: _Route) -> str | None:
    """Return what became of the dirty bits; None if the slot had no bitmap."""
    before, after = _dirty(route.before, route.command), _dirty(route.end, route.command)
    if before is None:
        return None
    if route.number(DirtyBitmapHandedOver) or not route.succeeds:
        return f"{count_text(after or 0)} of {count_text(before)} kept"
    new = "no bitmap" if after is None else f"a new bitmap, {count_text(after)} set"
    return f"{count_text(before)} lost; {new}"


def _made(route: _Route) -> str:
    made = [event for event in route.events if isinstance(event, ArrayAllocated)]
    return f"{len(made)} of {size_text(sum(event.size_bytes for event in made))}" if made else "0"


def _freed(route: _Route) -> str:
    return str(route.number(ArrayFreed))


def _warnings(route: _Route) -> str:
    return str(route.number(KernelWarned))


_FACTS: tuple[tuple[str, str, Callable[[_Route], str | None]], ...] = (
    ("The caller", "result", _result),
    ("The caller", "slot in the end", _place),
    ("The sets", "generation", _generation),
    ("The sets", "swaps of the active set", _swaps),
    ("The sets", "waits for readers (SRCU)", _waits),
    ("Readers", "find the slot INVALID in", _invalid),
    ("Readers", "find no slot in", _nothing),
    ("Readers", "zaps of what they had mapped", _zaps),
    ("Watches", "released by the zap", _released),
    ("Watches", "dropped by KVMGT", _dropped),
    ("Watches", "lost with their array", _lost),
    ("Watches", "kept", _kept),
    ("Trackers", "region callbacks", _callbacks),
    ("Trackers", "KVMGT: protect table", _protect_table),
    ("Trackers", "KVMGT: page_track_tree", _flags),
    ("Memory", "dirty bits", _dirty_bits),
    ("Memory", "arrays made", _made),
    ("Memory", "arrays freed", _freed),
    ("Memory", "kernel warnings", _warnings),
)
"""Facts in the order of the table; a fact that is None for both routes is left out."""


def _finding(move: _Route, pair: _Route, rows: tuple[CompareRow, ...]) -> tuple[str, str]:
    """Return what the comparison comes to, and what it rests on."""
    differ = sum(row.differs for row in rows)
    title = move.before.profile.title
    counted = f"{differ} of {len(rows)} facts differ"
    if move.succeeds and pair.succeeds:
        same = _layout(move.end) == _layout(pair.end)
        return f"{'The same layout' if same else 'Two layouts'} in the end; {counted}", f"both run on {title}"
    if pair.succeeds:
        return f"Only DELETE and CREATE get there; {counted}", f"the MOVE is refused on {title}"
    if move.succeeds:
        return f"Only the MOVE gets there; {counted}", f"on {title}"
    return f"Neither route gets there; {counted}", f"both are refused on {title}"


def _layout(kvm: Kvm) -> list[tuple[int, ...]]:
    return [
        (slot.as_id, slot.id, slot.base_gfn << PAGE_SHIFT, slot.npages, slot.userspace_addr, slot.flags)
        for as_id in range(len(kvm.memslots))
        for slot in kvm.slots(as_id)
    ]
