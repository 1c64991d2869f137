"""The steps inside a region call: what both memslot sets hold at each, and what readers see meanwhile."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple

from explorer.explain.sources import name_in

if TYPE_CHECKING:
    from explorer.engine.commands import SetMemoryRegion
    from explorer.engine.state import Kvm, KvmMemslots
    from explorer.history import Cell, OpDetail
    from explorer.history.moment import Moment

__all__ = ["Band", "PhaseCell", "PhaseStripView", "SetBox", "select_phases", "step_word"]

Content = Literal["none", "old", "INVALID", "new"]
Tense = Literal["past", "now", "future"]


class SetBox(NamedTuple):
    """What one memslot set holds in the place of the slot at the end of a step."""

    content: Content
    active: bool


class PhaseCell(NamedTuple):
    """One step."""

    number: int
    word: str
    note: str
    """Such as ``+2``, what the step adds to the generation; empty otherwise."""
    function: str
    boxes: tuple[SetBox, SetBox]
    tense: Tense
    refused: bool


class Band(NamedTuple):
    """A stretch of steps in which readers see one thing."""

    first: int
    """Index of the first step."""
    last: int
    """Index of the last step, inclusive."""
    content: Content


class PhaseStripView(NamedTuple):
    """The strip of steps; two sets, one band."""

    cells: tuple[PhaseCell, ...]
    bands: tuple[Band, ...]
    generations: tuple[str, str]
    """Generation of each set now, such as ``gen 24``."""
    active_idx: int
    """Which set is active now."""
    as_id: int


def select_phases(moment: Moment) -> PhaseStripView | None:
    """Return the strip of the region call a moment is in; None if it is in no such call."""
    op, call = moment.op, moment.call
    if op is None or call is None or call.as_id >= len(moment.kvm.memslots):
        return None
    cells = tuple(_cell(op, call, at, moment.stop.cell) for at in range(len(op.cells)))
    space = moment.kvm.memslots[call.as_id]
    return PhaseStripView(
        cells=cells,
        bands=_bands(op, call),
        generations=(_generation(moment.kvm, space.sets[0]), _generation(moment.kvm, space.sets[1])),
        active_idx=space.active_idx,
        as_id=call.as_id,
    )


def _cell(op: OpDetail, call: SetMemoryRegion, at: int, now: int) -> PhaseCell:
    cell = op.cells[at]
    space = cell.kvm.memslots[call.as_id]
    boxes = tuple(
        SetBox(_content(op, call, memslots), space.active_idx == memslots.node_idx) for memslots in space.sets
    )
    return PhaseCell(
        at + 1,
        step_word(op, at),
        _note(op, at, call),
        name_in(cell.function, cell.kvm.profile) or "",
        (boxes[0], boxes[1]),
        "past" if at < now else "now" if at == now else "future",
        cell.refused,
    )


def step_word(op: OpDetail, at: int) -> str:
    """Return the word of one step of a region call."""
    if at == len(op.cells) - 1:
        return "return" if op.step.errno is not None else "return 0"
    return "refuse" if op.cells[at].refused else op.cells[at].word


def _note(op: OpDetail, at: int, call: SetMemoryRegion) -> str:
    before = op.cells[at - 1].kvm if at else op.before
    step = op.cells[at].kvm.active(call.as_id).generation - before.active(call.as_id).generation
    # While the in-progress bit is set the difference is not a count.
    return f"+{step}" if op.cells[at].swaps and 0 < step < 1 << 16 else ""


def _content(op: OpDetail, call: SetMemoryRegion, memslots: KvmMemslots) -> Content:
    """Say which of the three slot objects a set holds: told apart by flag and by what the call changes."""
    slot = memslots.id_hash.get(call.slot)  # type: ignore[call-overload]
    if slot is None:
        return "none"
    if slot.invalid:
        return "INVALID"
    old = op.before.slot(call.slot, call.as_id)
    if old is not None and (slot.base_gfn, slot.flags, slot.arch.lpage_info) == (
        old.base_gfn,
        old.flags,
        old.arch.lpage_info,
    ):
        return "old"
    return "new"


def _bands(op: OpDetail, call: SetMemoryRegion) -> tuple[Band, ...]:
    bands: list[Band] = []
    for at, cell in enumerate(op.cells):
        content = _content(op, call, cell.kvm.active(call.as_id))
        if bands and bands[-1].content == content:
            bands[-1] = bands[-1]._replace(last=at)
        else:
            bands.append(Band(at, at, content))
    return tuple(bands)


def _generation(kvm: Kvm, memslots: KvmMemslots) -> str:
    bit = kvm.profile.generation_in_progress_bit
    plain = memslots.generation & ~(1 << bit) if bit else memslots.generation
    return f"gen {plain}" + ("*" if plain != memslots.generation else "")


def invalid_window(cells: tuple[Cell, ...]) -> tuple[int, int] | None:
    """Return the indices of the first and last step in which readers see INVALID, or None."""
    swaps = [at for at, cell in enumerate(cells) if cell.swaps]
    return (swaps[0], swaps[1] - 1) if len(swaps) > 1 else None
