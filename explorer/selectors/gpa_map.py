"""The guest physical address space: all of it on one line, and the slot in focus page by page.

Positions are in pixels of a nominal plot width, left to right, so that the figure only draws. The line of
all memory has one of three scales; the detail is always linear in pages, in one window or, when a MOVE
goes far, in two of the same scale with a break between them.
"""

from __future__ import annotations

import itertools
from math import log2, sqrt
from operator import attrgetter
from typing import TYPE_CHECKING, Literal, NamedTuple

from explorer.engine.commands import SetMemoryRegion
from explorer.engine.lookup import slots_in_gfn_range
from explorer.engine.types import PAGE_SHIFT
from explorer.engine.uapi import KvmMrChange
from explorer.explain.words import addr_text, hex_text, pages_text, plural, size_text, span_text
from explorer.explain.xray import in_the_way_of, in_the_way_of_next
from explorer.history.moment import SlotKey
from explorer.selectors.lanes import lanes_of
from explorer.selectors.style import slot_hover, style_of

if TYPE_CHECKING:
    from explorer.engine.state import Kvm, KvmMemorySlot
    from explorer.history.moment import Moment
    from explorer.selectors.lane_parts import Lane

__all__ = ["GpaMapView", "Segment", "Window", "select_gpa_map"]

Scale = Literal["collapsed", "equal", "linear"]
SegmentKind = Literal["slot", "cluster", "gap"]

GAP = 64
TINY_PAGES = 32
FOCUS = 62
"""Least length of the slot in focus, which keeps its name."""
FUNNEL = 6
"""Between the funnel's edge and the address beside it."""
BREAK = 64
BRUSH = 3
"""Least width of a stretch that was chosen, in pixels."""
CLUSTERS = 18
"""Groups of slots on the line of all memory; more would not be read."""


class Segment(NamedTuple):
    """A piece of the line of all memory: a slot, several that touch or lie close, or a hole."""

    kind: SegmentKind
    style: str
    """Role of the fill: ``slot``, ``read_only``, ``dirty``, ``invalid`` or ``gap``."""
    x0: float
    x1: float
    name: str
    """Written inside; empty if there is no room."""
    size: str
    """Written above; empty if there is no room."""
    address: str
    """Written below at its start; empty if there is no room."""
    hover: str
    slot: SlotKey | None
    first_gfn: int = 0
    end_gfn: int = 0
    dividers: tuple[float, ...] = ()
    """Where one slot of a cluster ends and the next begins."""
    focused: bool = False
    in_the_way: bool = False
    """Whether a refused call asks for pages that it has."""


class Window(NamedTuple):
    """A stretch of pages of the detail, drawn linearly."""

    x0: float
    x1: float
    first_gfn: int
    end_gfn: int

    def at(self, gfn: float) -> float:
        """Return the position of a gfn's left edge."""
        return self.x0 + (gfn - self.first_gfn) * (self.x1 - self.x0) / (self.end_gfn - self.first_gfn)


class GpaMapView(NamedTuple):
    """Everything the map shows."""

    width: float
    """Nominal width of the plot, in pixels."""
    title: str
    subtitle: str
    """The visible range as addresses and frame numbers."""
    scale: Scale
    scale_note: str
    """What lengths on the line of all memory mean."""
    segments: tuple[Segment, ...]
    end_text: str
    """Where the address space ends."""
    funnel: tuple[float, float] | None
    """The stretch of the line that the detail enlarges."""
    brush: tuple[float, float] | None
    """The stretch of the line that a person chose to see; None while the detail follows the slot in focus."""
    windows: tuple[Window, ...]
    break_text: str
    """Size of what is left out between two windows; empty with one."""
    ticks: tuple[tuple[float, str], ...]
    """Positions and labels of the gfn axis."""
    lanes: tuple[Lane, ...]
    notice: str
    """What to say when there is nothing to draw; empty otherwise."""


def select_gpa_map(
    moment: Moment,
    *,
    width: float = 982,
    scale: Scale = "collapsed",
    owners: dict[int, str] | None = None,
    window: tuple[int, int] | None = None,
    host_lane: bool = True,
    newcomer: bool = False,
) -> GpaMapView:
    """Return the map at a moment.

    Parameters
    ----------
    moment
        Where the run is, with the slot in focus.
    width
        Nominal plot width in pixels.
    scale
        What lengths on the line of all memory mean.
    owners
        What backs each slot, by slot id; a slot without is called by its number.
    window
        Gfns ``[start, end)`` to show in the detail instead of the slot in focus.
    host_lane
        Whether there is room for the lane of host addresses.
    newcomer
        Show only the slot, its watches and where it would go.
    """
    kvm = moment.kvm
    as_id = moment.focus.as_id if moment.focus is not None and moment.focus.as_id < len(kvm.memslots) else 0
    segments, end_text = _segments(kvm, as_id, moment.focus, width, scale, owners or {})
    segments = _without_collisions(tuple(_marked(segment, moment, as_id) for segment in segments))
    windows = _windows(moment, kvm, as_id, width, window)
    focused = next((s for s in segments if s.focused), None)
    first, end = (windows[0].first_gfn, windows[-1].end_gfn) if windows else (0, 1)
    brushed = _brushed(segments, window) if window is not None and segments else None
    return GpaMapView(
        width=width,
        title="Guest memory" if as_id == 0 else "Guest memory in SMM",
        subtitle=span_text(first, end - 1) if windows else "no slot",
        scale=scale,
        scale_note={"collapsed": "log widths", "equal": "equal widths", "linear": "true lengths"}[scale],
        segments=segments,
        end_text=end_text,
        funnel=brushed or ((focused.x0, focused.x1) if focused and windows else None),
        brush=brushed,
        windows=windows,
        break_text=_break_text(windows),
        ticks=_ticks(moment, windows),
        lanes=lanes_of(moment, windows, host_lane=host_lane, newcomer=newcomer),
        notice="" if windows else "No slots. Create one, or paste a trace.",
    )


# -- the line of all memory ------------------------------------------------------------------------


class _Group(NamedTuple):
    """Slots that are drawn as one segment."""

    slots: tuple[KvmMemorySlot, ...]
    start: int
    end: int
    touching: bool


def _segments(
    kvm: Kvm, as_id: int, focus: SlotKey | None, width: float, scale: Scale, owners: dict[int, str]
) -> tuple[tuple[Segment, ...], str]:
    # As `KvmMemslots.slots` gives them, without a look-up for each of what may be 32,764.
    slots = sorted(kvm.active(as_id).id_hash.values(), key=attrgetter("base_gfn"))
    end_gfn = kvm.config.max_gfn() + 1
    end_text = f"to {size_text(end_gfn << PAGE_SHIFT)}"
    if not slots:
        return (), end_text
    groups = _groups(slots, focus)
    lengths = [_length(group, scale, focus) for group in groups]
    holes = [max(b.start - a.end, 0) for a, b in itertools.pairwise(groups)]
    total = sum(lengths) + sum(_hole_length(hole, scale) for hole in holes) + GAP
    stretch = width / total
    found: list[Segment] = []
    x = 0.0
    for at, (group, length) in enumerate(zip(groups, lengths, strict=True)):
        found.append(_slot_segment(group, x, x + length * stretch, focus, owners))
        x += length * stretch
        if at < len(holes) and holes[at]:
            wide = _hole_length(holes[at], scale) * stretch
            found.append(_hole_segment(x, x + wide, group.end, groups[at + 1].start))
            x += wide
    return tuple(found), end_text


def _groups(slots: list[KvmMemorySlot], focus: SlotKey | None) -> list[_Group]:
    """Group slots: small ones that touch, and, with very many slots, everything between the largest holes.

    The slot in focus stays alone. A VM may have 32,764 slots, and this is done at every stop.
    """
    holes = [b.base_gfn - a.base_gfn - a.npages for a, b in itertools.pairwise(slots)]
    tiny = [slot.npages < TINY_PAGES for slot in slots]
    ids: list[int] = [slot.id for slot in slots]
    beside_focus: set[int] = set()
    if focus is not None and focus.slot_id in ids:
        at = ids.index(focus.slot_id)
        beside_focus = {at, at + 1}
    starts = [
        at
        for at, hole in enumerate(holes, 1)
        if hole or not (tiny[at] and tiny[at - 1]) or at in beside_focus  # else two small ones that touch
    ]
    if len(starts) >= CLUSTERS:
        largest = sorted(starts, key=[0, *holes].__getitem__)[3 - CLUSTERS :]
        starts = sorted({*largest, *beside_focus.intersection(starts)})
    return [
        _Group(tuple(slots[a:b]), slots[a].base_gfn, slots[b - 1].end_gfn, touching=not any(holes[a : b - 1]))
        for a, b in itertools.pairwise([0, *starts, len(slots)])
    ]


def _length(group: _Group, scale: Scale, focus: SlotKey | None) -> float:
    npages = group.end - group.start
    if scale == "linear":
        return npages
    if scale == "equal":
        return 60.0 * sqrt(len(group.slots))
    if len(group.slots) == 1:
        slot = group.slots[0]
        if focus is not None and slot.id == focus.slot_id:
            return max(26 + 5.2 * log2(slot.npages), FOCUS)
        return 7 + 1.6 * log2(slot.npages) if slot.npages < TINY_PAGES else 26 + 5.2 * log2(slot.npages)
    return max(sum(7 + 1.6 * log2(slot.npages) for slot in group.slots[:8]), 26 + 5.2 * log2(npages))


def _hole_length(pages: int, scale: Scale) -> float:
    if not pages:
        return 0.0
    if scale == "linear":
        return pages
    return GAP


def _slot_segment(group: _Group, x0: float, x1: float, focus: SlotKey | None, owners: dict[int, str]) -> Segment:
    first = group.slots[0]
    key = _key(first)
    size = size_text((group.end - group.start) << PAGE_SHIFT)
    if len(group.slots) > 1:
        count = plural(len(group.slots), "slot")
        pages = group.end - group.start
        dividers = tuple(
            x0 + (x1 - x0) * (slot.base_gfn - group.start) / pages
            for slot in group.slots[1:13]
            if len(group.slots) <= 12
        )
        hover = f"<b>{count}</b><br>{span_text(group.start, group.end - 1).replace(' · ', '<br>')}"
        return Segment(
            "cluster",
            "slot",
            x0,
            x1,
            "",
            count,
            addr_text(group.start << PAGE_SHIFT),
            hover,
            key,
            group.start,
            group.end,
            dividers,
        )
    name = owners.get(first.id, f"slot {first.id}")
    focused = focus is not None and key == focus
    return Segment(
        "slot",
        style_of(first),
        x0,
        x1,
        name,
        size,
        addr_text(group.start << PAGE_SHIFT),
        slot_hover(first, owners),
        key,
        group.start,
        group.end,
        focused=focused,
    )


def _hole_segment(x0: float, x1: float, start: int, end: int) -> Segment:
    size = size_text((end - start) << PAGE_SHIFT)
    place = span_text(start, end - 1).replace(" · ", "<br>")
    hover = f"<b>hole of {size}</b><br>{place}<br>fits a slot of {pages_text(end - start)}"
    return Segment("gap", "gap", x0, x1, "", size, "", hover, None, start, end)


def _brushed(segments: tuple[Segment, ...], span: tuple[int, int]) -> tuple[float, float]:
    """Return where gfns lie on the line; inside a segment lengths are true, and a stretch is never nothing."""

    def place(gfn: int) -> float:
        for part in segments:
            if gfn <= part.end_gfn:
                inside = max(gfn - part.first_gfn, 0) / (part.end_gfn - part.first_gfn)
                return part.x0 + (part.x1 - part.x0) * inside
        return segments[-1].x1

    left, right = place(span[0]), place(span[1])
    return (left, max(right, left + BRUSH))


def _marked(segment: Segment, moment: Moment, as_id: int) -> Segment:
    """Mark the segment if a slot in it is in the way of the call that was refused, or of the composed one."""
    found = in_the_way_of(moment) if moment.on_call else ()
    ways = [way for way in found or in_the_way_of_next(moment) if way.slot.as_id == as_id]
    mine = [way for way in ways if segment.first_gfn <= way.slot.base_gfn < segment.end_gfn]
    if segment.kind == "gap" or not mine:
        return segment
    return segment._replace(
        in_the_way=True, size="in the way", hover="<br>".join([segment.hover, *(way.words for way in mine[:4])])
    )


def _without_collisions(segments: tuple[Segment, ...]) -> tuple[Segment, ...]:
    """Drop labels that would run into a neighbour's; names before sizes before addresses stay."""
    kept: list[Segment] = []
    size_end = address_end = -1e9
    told = [_above(segment) for segment in segments if segment.in_the_way]
    for segment in segments:
        middle, wide = (segment.x0 + segment.x1) / 2, segment.x1 - segment.x0
        name = segment.name if _text_width(segment.name) + 4 < wide else ""
        size = segment.size
        half = _text_width(size) / 2 + 5
        if segment.kind == "gap":
            size = size if _text_width(size) * 0.86 + 8 < wide else ""
        elif not segment.in_the_way and any(a < middle + half and middle - half < b for a, b in told):
            size = ""
        elif segment.in_the_way and middle - half >= size_end:
            size_end = middle + half
        elif middle - half < size_end or (segment.kind == "slot" and wide < 20):
            size = ""
        else:
            size_end = middle + half
        address = segment.address
        # The first one does not reach over the edge; the one in focus stands beside the funnel, which begins there.
        beside = segment.focused and segment.x0 >= _text_width(address) + FUNNEL
        start = max(segment.x0 - _text_width(address) / 2, 0.0)
        if beside:
            start = segment.x0 - _text_width(address) - FUNNEL
        if segment.kind == "gap" or start < address_end:
            address = ""
        else:
            address_end = start + _text_width(address) + (FUNNEL if beside else 10)
        kept.append(segment._replace(name=name, size=size, address=address))
    return tuple(kept)


def _above(segment: Segment) -> tuple[float, float]:
    """Return from where to where the words above a segment reach."""
    middle, half = (segment.x0 + segment.x1) / 2, _text_width(segment.size) / 2 + 5
    return middle - half, middle + half


def _text_width(text: str) -> float:
    return 7.0 * len(text)


def _key(slot: KvmMemorySlot) -> SlotKey:
    return SlotKey(slot.as_id, slot.id)


# -- the detail ------------------------------------------------------------------------------------


def _windows(moment: Moment, kvm: Kvm, as_id: int, width: float, wanted: tuple[int, int] | None) -> tuple[Window, ...]:
    if wanted is not None:
        return (Window(0, width, *wanted),)
    spans = _spans(moment, kvm, as_id)
    if not spans:
        return ()
    # What is in the way is mostly larger than what was asked for: show more of it.
    share = 2 if moment.on_call and in_the_way_of(moment) else 8
    pad = max(1, max(end - start for start, end in spans) // share)
    padded = sorted((max(start - pad, 0), end + pad) for start, end in spans)
    if len(padded) == 1 or padded[1][0] - padded[0][1] <= max(end - start for start, end in padded):
        return (Window(0, width, padded[0][0], max(end for _, end in padded)),)
    room = width - BREAK
    lengths = [end - start for start, end in padded]
    first = room * lengths[0] / sum(lengths)
    return (Window(0, first, *padded[0]), Window(first + BREAK, width, *padded[1]))


def _spans(moment: Moment, kvm: Kvm, as_id: int) -> list[tuple[int, int]]:
    """Return the gfn ranges the detail is about: the slot in focus, and where it goes or was."""
    spans: list[tuple[int, int]] = []
    old = moment.old if moment.on_call else None
    if old is not None and not (moment.at_end and moment.change is KvmMrChange.CREATE):
        spans.append((old.base_gfn, old.end_gfn))
    target = moment.target if moment.on_call else None
    if target is not None and target not in spans and moment.change in (KvmMrChange.MOVE, KvmMrChange.CREATE):
        spans.append(target)
    if not spans and moment.focus is not None:
        slot = kvm.slot(moment.focus.slot_id, as_id)
        if slot is not None:
            spans.append((slot.base_gfn, slot.end_gfn))
    newest = kvm.active(as_id).id_hash.last() if not spans else None
    if newest is not None:  # the slot in question does not exist: show where one does
        spans.append((newest[1].base_gfn, newest[1].end_gfn))
    ghost = moment.ghost
    if ghost is not None and moment.at_end and len(spans) == 1:
        spans += _ghost_span(moment, spans[0])
    return spans


def _ghost_span(moment: Moment, shown: tuple[int, int]) -> list[tuple[int, int]]:
    ghost = moment.ghost
    if ghost is None or not isinstance(ghost.command, SetMemoryRegion) or not ghost.command.memory_size:
        return []
    start = ghost.command.guest_phys_addr >> PAGE_SHIFT
    span = (start, start + (ghost.command.memory_size >> PAGE_SHIFT))
    return [span] if span != shown and span[1] <= moment.kvm.config.max_gfn() + 1 else []


def _break_text(windows: tuple[Window, ...]) -> str:
    if len(windows) < 2:
        return ""
    return size_text((windows[1].first_gfn - windows[0].end_gfn) << PAGE_SHIFT)


def _ticks(moment: Moment, windows: tuple[Window, ...]) -> tuple[tuple[float, str], ...]:
    """Label the edges of what the detail is about, and a round gfn between them where there is room."""
    wanted: set[int] = set()
    for start, end in _spans(moment, moment.kvm, moment.focus.as_id if moment.focus else 0)[:2]:
        wanted |= {start, end}
        middle = (start + end) // 2
        step = 1 << max((end - start).bit_length() - 2, 0)
        wanted.add(middle // step * step)
    if not any(window.first_gfn <= gfn <= window.end_gfn for gfn in wanted for window in windows):
        # What the operation is about is elsewhere: where slots begin and end here, and the edges of what is shown.
        as_id = moment.focus.as_id if moment.focus is not None and moment.focus.as_id < len(moment.kvm.memslots) else 0
        for window in windows:
            wanted |= {window.first_gfn, window.end_gfn}
            for slot in tuple(slots_in_gfn_range(moment.kvm.active(as_id), window.first_gfn, window.end_gfn))[:4]:
                wanted |= {slot.base_gfn, slot.end_gfn}
    found: list[tuple[float, str]] = []
    for gfn in sorted(wanted):
        for window in windows:
            if window.first_gfn <= gfn <= window.end_gfn:
                x, text = window.at(gfn), hex_text(gfn)
                if not found or x - found[-1][0] > _text_width(text) * 1.2 + 14:
                    found.append((x, text))
                break
    return tuple(found)
