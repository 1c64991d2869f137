"""Why a value is what it is: the steps that made it, newest first. Copies that carry it along are skipped.

A count, the flags of a slot and a generation are followed back through the snapshots of a run; a step is an
origin if the value differs before and after it. An errno is followed to the check that fired, and from there to
the operation without which it would not have: the same call is tried on the VM as it was before each.

Not followed: operations further back than `LOOK_BACK`; the chain says so.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Literal, NamedTuple

from explorer.engine.apply import apply
from explorer.engine.events import ArrayFreed, WriteTracked, WriteUntracked
from explorer.engine.page_track import SHADOW_PAGING
from explorer.engine.state import WriteTrack
from explorer.engine.uapi import KVM_MEMSLOT_INVALID
from explorer.explain.sentences import op_words
from explorer.explain.sources import name_in
from explorer.explain.words import errno_text, hex_text
from explorer.history import Stop

if TYPE_CHECKING:
    from collections.abc import Iterator

    from explorer.engine.state import Kvm, KvmMemorySlot
    from explorer.history import Cell, Run
    from explorer.history.moment import Moment, SlotKey

__all__ = ["LOOK_BACK", "Chain", "Origin", "Value", "chain_of", "value_named", "values_at", "watch_origins"]

LOOK_BACK = 400
"""Operations that are looked at, at the most."""
_PAGES = 6
"""Pages whose counts are offered."""

Kind = Literal["errno", "count", "flags", "generation"]


class Value(NamedTuple):
    """A value of the slot in focus, or of the operation."""

    kind: Kind
    page: int = 0
    """For a count: which page of the slot, from 0."""

    @property
    def key(self) -> str:
        """How a document tree names it, such as ``count:16``."""
        return f"count:{self.page}" if self.kind == "count" else self.kind


class Origin(NamedTuple):
    """One step that made the value."""

    stop: Stop
    place: str
    """As the timeline numbers it, such as ``13.5``."""
    what: str
    before: str
    after: str
    function: str
    """Under the name it has in the run's kernel; empty if none is known."""


class Chain(NamedTuple):
    """A value with what made it."""

    value: Value
    name: str
    """Such as ``count of gfn 0xd0010``."""
    now: str
    origins: tuple[Origin, ...]
    """Newest first."""
    copies: int
    """Steps between them that gave the slot another object and left the value alone."""
    first_op: int
    """Number, from 1, of the first operation that was looked at."""


def values_at(moment: Moment) -> tuple[Value, ...]:
    """Return the values a moment can be asked about, those it is about first."""
    found = [Value("errno")] if moment.op is not None and moment.op.step.errno is not None else []
    if moment.focus is None or moment.focus.as_id >= len(moment.kvm.memslots):
        return tuple(found)
    pages = sorted(
        {*_counted(moment.kvm, moment.focus), *(_counted(moment.op.before, moment.focus) if moment.op else ())}
    )
    found += [Value("count", page) for page in pages[:_PAGES]]
    if moment.kvm.slot(moment.focus.slot_id, moment.focus.as_id) is not None:
        found.append(Value("flags"))
    return (*found, Value("generation"))


def value_named(moment: Moment, key: str) -> Value | None:
    """Return the value a key names, or the first one a moment can be asked about; None if there is none."""
    kind, _, page = key.partition(":")
    if kind == "count" and page.isdecimal() and moment.focus is not None:
        return Value("count", int(page))
    offered = values_at(moment)
    return next((value for value in offered if value.key == key), offered[0] if offered else None)


def chain_of(run: Run, moment: Moment, value: Value) -> Chain:
    """Return the chain of a value at a moment of a run."""
    if value.kind == "errno":
        return _chain_of_errno(run, moment)
    focus = moment.focus
    assert focus is not None, "a value of a slot is asked for with a slot in focus"
    first = max(0, moment.stop.op + 1 - LOOK_BACK)
    origins: list[Origin] = []
    copies = 0
    for stop, cell, before in _back(run, moment.stop, first):
        found = list(_made_by(value, focus, cell, before, _origin_at(run, stop)))
        origins += reversed(found)
        copies += not found and before.slot(*_slot_args(focus)) is not cell.kvm.slot(*_slot_args(focus))
    now = _text(value, _read(moment.kvm, focus, value))
    return Chain(value, name_of(value, moment), now, tuple(origins), copies, first + 1)


def name_of(value: Value, moment: Moment) -> str:
    """Return what a value is called at a moment."""
    match value.kind:
        case "errno":
            return "errno"
        case "count":
            slot = moment.kvm.slot(*_slot_args(moment.focus)) if moment.focus is not None else None
            slot = slot or moment.old
            return f"count of gfn {hex_text((slot.base_gfn if slot is not None else 0) + value.page)}"
        case "flags":
            return f"flags of slot {moment.focus.slot_id if moment.focus is not None else ''}".strip()
        case _:
            return f"generation of address space {moment.focus.as_id if moment.focus is not None else 0}"


# -- what changed in a step ------------------------------------------------------------------------


class _Where(NamedTuple):
    run: Run
    stop: Stop
    place: str

    def origin(self, what: str, before: str, after: str, function: str) -> Origin:
        name = name_in(function, self.run.start.profile) if function else None
        return Origin(self.stop, self.place, what, before, after, name or function)


def _origin_at(run: Run, stop: Stop) -> _Where:
    inside = len(run.detail(stop.op).cells) > 1
    return _Where(run, stop, f"{stop.op + 1}.{stop.cell + 1}" if inside else str(stop.op + 1))


def _back(run: Run, stop: Stop, first: int) -> Iterator[tuple[Stop, Cell, Kvm]]:
    """Yield the steps up to a stop, newest first, each with the VM before it."""
    for op in range(stop.op, first - 1, -1):
        detail = run.detail(op)
        last = stop.cell if op == stop.op else len(detail.cells) - 1
        for at in range(last, -1, -1):
            yield Stop(op, at), detail.cells[at], detail.cells[at - 1].kvm if at else detail.before


def _made_by(value: Value, focus: SlotKey, cell: Cell, before: Kvm, where: _Where) -> Iterator[Origin]:
    """Yield what changed a value in one step, oldest first."""
    old, new = _read(before, focus, value), _read(cell.kvm, focus, value)
    if value.kind == "count":
        slot = cell.kvm.slot(*_slot_args(focus))
        for event in cell.events:
            if isinstance(event, WriteTracked | WriteUntracked) and slot is not None:
                added = isinstance(event, WriteTracked)
                here = (event.gfn, event.slot, event.as_id) == (slot.base_gfn + value.page, slot.id, slot.as_id)
                if here:
                    was = event.count - 1 if added else event.count + 1
                    function = "__kvm_write_track_add_gfn" if added else "__kvm_write_track_remove_gfn"
                    yield where.origin(watch_words(event.by, added=added), str(was), str(event.count), function)
                    old = event.count
    if old != new:
        yield where.origin(_step_words(value, old, new, cell), _text(value, old), _text(value, new), cell.function)


def _step_words(value: Value, old: int | None, new: int | None, cell: Cell) -> str:
    if value.kind == "generation":
        return "readers got the other set" + (", with the old slot" if cell.word == "roll back" else "")
    if new is None:
        return "the slot is gone"
    if old is None:
        return "the slot was made" if value.kind == "flags" else "the slot got its array of counts"
    if value.kind == "count":
        return "readers find the slot with new arrays, all zero"
    if new & KVM_MEMSLOT_INVALID:
        return "readers find the INVALID copy"
    return "readers find the old slot again" if cell.word == "roll back" else "readers find the new slot"


def _read(kvm: Kvm, focus: SlotKey, value: Value) -> int | None:
    if focus.as_id >= len(kvm.memslots):
        return None
    if value.kind == "generation":
        return kvm.active(focus.as_id).generation
    slot = kvm.slot(*_slot_args(focus))
    if slot is None:
        return None
    if value.kind == "flags":
        return slot.flags
    array = kvm.heap.get(slot.arch.gfn_write_track) if slot.arch.gfn_write_track is not None else None
    return array.counts.get(value.page, 0) if isinstance(array, WriteTrack) else None


def _text(value: Value, read: int | None) -> str:
    if read is None:
        return "none"
    return hex_text(read) if value.kind == "flags" else str(read)


def _slot_args(focus: SlotKey | None) -> tuple[int, int]:
    assert focus is not None, "a slot is in focus"
    return focus.slot_id, focus.as_id


def _counted(kvm: Kvm, focus: SlotKey) -> tuple[int, ...]:
    if focus.as_id >= len(kvm.memslots):
        return ()
    slot = kvm.slot(*_slot_args(focus))
    array = kvm.heap.get(slot.arch.gfn_write_track) if slot is not None and slot.arch.gfn_write_track else None
    return tuple(array.counts) if isinstance(array, WriteTrack) else ()


# -- errno -----------------------------------------------------------------------------------------


def _chain_of_errno(run: Run, moment: Moment) -> Chain:
    op = moment.op
    assert op is not None, "an errno is that of an operation"
    text, guard, at = errno_text(op.step.errno), op.step.refused_by, moment.stop.op
    cell = next((n for n, each in enumerate(op.cells) if each.refused), len(op.cells) - 1)
    operands = next((r.operands for r in op.step.results if r.guard is guard), "") if guard is not None else ""
    what = f"{guard.title}: {operands}" if guard is not None else "KVM refused the call"
    fired = _origin_at(run, Stop(at, cell)).origin(what, "", text, guard.function if guard is not None else "")
    first = max(0, at - LOOK_BACK)
    cause = _made_it_fire(run, moment, first) if guard is not None else None
    return Chain(Value("errno"), "errno", text, (fired,) if cause is None else (fired, cause), 0, first + 1)


def _made_it_fire(run: Run, moment: Moment, first: int) -> Origin | None:
    """Return the latest operation before which the same call passes the check that refused it."""
    op = moment.op
    assert op is not None, "a check fires in an operation"
    guard = op.step.refused_by
    for earlier in range(moment.stop.op - 1, first - 1, -1):
        tried = apply(run.kvm_before(earlier), op.command, record=False)
        if tried.refused_by is not guard:
            title, detail = op_words(run.commands[earlier])
            where = _Where(run, run.end_of(earlier), str(earlier + 1))
            return where.origin(
                f"{title} {detail}: before it, the check passes".replace(" :", ":"), "passes", "fires", ""
            )
    return None


# -- all watches of a slot -------------------------------------------------------------------------


def watch_words(by: str, *, added: bool) -> str:
    """Return what put a watch into an array or took it out."""
    if by == SHADOW_PAGING:
        return "page tables shadowed" if added else "zapped shadow pages released"
    return f"{by} asked" if added else f"{by} let go"


class WatchOrigin(NamedTuple):
    """A step that made or took watches of a slot."""

    stop: Stop
    place: str
    what: str
    change: int
    by: str
    """``shadow paging``, ``tracker N``, or empty where they went with an array."""


def watch_origins(run: Run, stop: Stop, slot: KvmMemorySlot) -> tuple[WatchOrigin, ...]:
    """Return the steps that made and took the watches of a slot, newest first."""
    found: list[WatchOrigin] = []
    for at, cell, _ in _back(run, stop, max(0, stop.op + 1 - LOOK_BACK)):
        place = _origin_at(run, at).place
        lost = sum(
            e.held
            for e in cell.events
            if isinstance(e, ArrayFreed) and (e.kind, e.slot, e.as_id) == ("gfn_write_track", slot.id, slot.as_id)
        )
        changes = Counter(
            (e.by, isinstance(e, WriteTracked))
            for e in cell.events
            if isinstance(e, WriteTracked | WriteUntracked) and (e.slot, e.as_id) == (slot.id, slot.as_id)
        )
        here = [WatchOrigin(at, place, "freed with the old array", -lost, "")] if lost else []
        here += [
            WatchOrigin(at, place, watch_words(by, added=added), count if added else -count, by)
            for (by, added), count in changes.items()
        ]
        found += reversed(here)
    return tuple(found)
