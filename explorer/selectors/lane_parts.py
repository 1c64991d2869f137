"""What lanes of the detail are made of: bars, marks, words, ribbons; and the bars that several lanes draw.

Vertical positions are fractions of a lane, 0 at its foot. A mark's meaning is its kind; colour comes later.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple

from explorer.engine.commands import SetMemoryRegion
from explorer.engine.types import PAGE_SHIFT
from explorer.engine.uapi import KvmMrChange
from explorer.explain.words import hex_text
from explorer.selectors.style import slot_hover, style_of

if TYPE_CHECKING:
    from explorer.engine.state import KvmMemorySlot
    from explorer.history.moment import Moment
    from explorer.selectors.gpa_map import Window

__all__ = [
    "MARKS",
    "Bar",
    "Label",
    "Lane",
    "Mark",
    "MarkKind",
    "Ribbon",
    "fitting",
    "focus_slot",
    "ghost_target",
    "holes",
    "new_slot",
    "outline",
    "slot_bar",
]

MarkKind = Literal["internal", "external", "released", "lost"]
PAGES_DIVIDED = 64
"""Most pages that are drawn with a line between each two."""
MARKS = 24
"""Most marks in a lane; more are drawn as one mark with their number."""


class Bar(NamedTuple):
    """A stretch of pages."""

    x0: float
    x1: float
    style: str
    """Role of the fill."""
    label: str
    hover: str
    y0: float = 0.25
    y1: float = 0.75
    dividers: tuple[float, ...] = ()
    refused: bool = False
    """Whether an octagon stands at its head."""


class Mark(NamedTuple):
    """A watch, or several of one kind on pages that lie too close to tell apart."""

    x: float
    kind: MarkKind
    true_x: float
    """Where its page is; a stem leads there if the mark had to step aside."""
    hover: str
    y: float = 0.5


class Label(NamedTuple):
    """Words in a lane."""

    x: float
    y: float
    text: str
    role: str
    anchor: Literal["left", "center", "right"] = "center"
    size: Literal["body", "title", "small"] = "body"
    bold: bool = False


class Ribbon(NamedTuple):
    """Which host addresses back which guest pages."""

    top0: float
    top1: float
    bottom0: float
    bottom1: float
    dotted: bool


class Lane(NamedTuple):
    """One row of the detail."""

    name: str
    sub: str
    bars: tuple[Bar, ...] = ()
    marks: tuple[Mark, ...] = ()
    labels: tuple[Label, ...] = ()
    ribbons: tuple[Ribbon, ...] = ()
    brackets: tuple[tuple[float, float, float], ...] = ()
    """Braces under a group of marks: from, to, height."""
    frames: tuple[tuple[float, float, str], ...] = ()
    """Edges around the parts of slots that are in the way: from, to, and what a pointer reads."""
    stem_from: float = 1.0
    """Height from which stems of marks come down."""
    rule_below: bool = False
    """Whether a dashed line divides this lane from the next."""


def focus_slot(moment: Moment) -> KvmMemorySlot | None:
    """Return the slot in focus as readers find it now."""
    focus = moment.focus
    if focus is None or focus.as_id >= len(moment.kvm.memslots):
        return None
    return moment.kvm.slot(focus.slot_id, focus.as_id)


def ghost_target(moment: Moment) -> tuple[int, int] | None:
    """Return the gfns ``[start, end)`` that the composed operation asks for; None if it asks for none."""
    ghost = moment.ghost
    if ghost is None or not isinstance(ghost.command, SetMemoryRegion) or not ghost.command.memory_size:
        return None
    start = ghost.command.guest_phys_addr >> PAGE_SHIFT
    return (start, start + (ghost.command.memory_size >> PAGE_SHIFT))


def new_slot(moment: Moment) -> KvmMemorySlot | None:
    """Return the new slot object of a MOVE or CREATE once it has arrays."""
    if moment.change not in (KvmMrChange.MOVE, KvmMrChange.CREATE) or moment.op is None or not moment.on_call:
        return None
    pending = moment.kvm.pending
    if pending is not None:
        return pending.new if pending.new is not None and pending.new.arch.lpage_info is not None else None
    return focus_slot(moment) if moment.op.step.errno is None else None


def slot_bar(
    slot: KvmMemorySlot,
    window: Window,
    *,
    label: str,
    style: str | None = None,
    y0: float = 0.25,
    y1: float = 0.75,
    divide: bool = False,
) -> Bar:
    """Return the part of a slot that a window shows."""
    start, end = max(slot.base_gfn, window.first_gfn), min(slot.end_gfn, window.end_gfn)
    dividers = tuple(window.at(gfn) for gfn in range(start + 1, end)) if divide and slot.npages <= PAGES_DIVIDED else ()
    return Bar(window.at(start), window.at(end), style or style_of(slot), label, slot_hover(slot, {}), y0, y1, dividers)


def outline(span: tuple[int, int], windows: tuple[Window, ...], style: str, label: str) -> list[Bar]:
    """Return an outline around gfns that a window shows as a whole; nothing if none does."""
    for window in windows:
        if window.first_gfn <= span[0] and span[1] <= window.end_gfn:
            hover = f"gfn {hex_text(span[0])} to {hex_text(span[1] - 1)}<br>{label}"
            return [fitting(Bar(window.at(span[0]), window.at(span[1]), style, label, hover, 0.2, 0.8))]
    return []


def fitting(bar: Bar) -> Bar:
    """Shorten a label to its bar: the words before the comma, then nothing."""
    for label in (bar.label, bar.label.partition(":")[0], bar.label.partition(",")[0]):
        if len(label) * 7.6 + 12 < bar.x1 - bar.x0:
            return bar._replace(label=label)
    return bar._replace(label="")


def holes(windows: tuple[Window, ...], bars: list[Bar]) -> list[Label]:
    """Say so in a window where nothing is: it is a hole."""
    empty = [w for w in windows if not any(bar.x0 < w.x1 and w.x0 < bar.x1 for bar in bars)]
    return [Label((w.x0 + w.x1) / 2, 0.5, "hole", "ink_3") for w in empty]
