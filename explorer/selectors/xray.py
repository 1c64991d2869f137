"""Why a region call was refused, to scale: what was in memory, what was asked for, and what would work.

For checks that are about where something lies: an overlap, another size, an end or a beginning that is on no page,
a range beyond the last page. Nothing is told that the engine did not compute; what would work are the changes of
`explorer.explain.changes`, each carried out once more to see where everything lies then.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Literal, NamedTuple

from explorer.engine.apply import apply
from explorer.engine.commands import SetMemoryRegion
from explorer.engine.types import PAGE_SHIFT, PAGE_SIZE, U64_MAX
from explorer.engine.uapi import KVM_MEM_LOG_DIRTY_PAGES, KVM_MEM_READONLY, KvmMrChange
from explorer.explain.words import errno_text, hex_text, plural, size_text
from explorer.explain.xray import slots_in_the_way
from explorer.history.moment import invalidates

if TYPE_CHECKING:
    from explorer.engine.state import Kvm, KvmMemorySlot
    from explorer.explain.changes import Change
    from explorer.history.moment import Moment

__all__ = ["XrayBox", "XrayRow", "XrayView", "select_xray"]

Style = Literal["slot", "read_only", "dirty", "invalid", "asked", "gone", "new", "away", "beyond", "page", "clash"]
_PAGE_CHECKS = {"gpa_aligned": "guest_phys_addr", "hva_aligned": "userspace_addr", "size_aligned": "guest_phys_addr"}
_LIMIT_CHECKS = ("max_gfn", "gpa_no_wrap")
_CHECKS = ("overlap", "same_size", *_PAGE_CHECKS, *_LIMIT_CHECKS)
_CLEAR = 0.05
"""Share of the picture from which an overlap is seen well; a smaller one is enlarged."""
_ENLARGED = 4
"""How many times an overlap fits into a picture that enlarges it."""
_GROWS = 3
"""How much wider a picture may get so that a place that would work is in it."""
_MARGIN = 0.04
_TRACK = 430.0
"""Pixels that a picture has at least."""
_CHAR = 7.2
_LEAST = 0.006
_MOST_BOXES = 24
_MOST_TICKS = 7
_BASE_ONLY = re.compile(r"base 0x[0-9a-f]+, ")


class XrayBox(NamedTuple):
    """A range of addresses; positions are shares of the width."""

    style: Style
    x0: float
    x1: float
    title: str
    torn: str = ""
    """Sides at which it goes on beyond the picture: ``left``, ``right`` or both."""
    label: str = ""
    """Empty where there is no room that nothing else covers."""
    label_at: float = 0.0
    """Middle of the label."""


class XrayRow(NamedTuple):
    """A line of the picture."""

    name: str
    sub: str
    boxes: tuple[XrayBox, ...]
    result: str = ""
    """What the call returns with this change."""
    costs: str = ""
    """What that costs; empty if nothing."""


class XrayView(NamedTuple):
    """The picture."""

    title: str
    sub: str
    rows: tuple[XrayRow, ...]
    """In memory, asked for, then what would work."""
    clash: tuple[XrayBox, ...]
    """What both of the first two rows claim, or where what is asked for ends on no page."""
    clash_label: str
    clash_at: float | None
    """Middle of the label, over both rows or in the lower one; None if there is room nowhere."""
    clash_on: bool
    """Whether it is on what is marked."""
    ticks: tuple[tuple[float, str], ...]
    free: str
    """What the refusal cost."""
    nothing: str
    """Why nothing would work, or empty."""
    told: tuple[str, ...]
    """The same in sentences."""


class _Part(NamedTuple):
    """A box and what could be written on it, the longest first."""

    box: XrayBox
    names: tuple[str, ...]


class _Scale(NamedTuple):
    low: int
    high: int

    def share(self, address: int) -> float:
        return min(max((address - self.low) / (self.high - self.low), 0.0), 1.0)

    def part(self, style: Style, first: int, end: int, title: str, *names: str) -> _Part | None:
        """Return a range as a box; None if it lies outside."""
        if end <= self.low or first >= self.high:
            return None
        x0, x1 = self.share(first), self.share(end)
        torn = " ".join(side for side, is_torn in (("left", first < self.low), ("right", end > self.high)) if is_torn)
        return _Part(XrayBox(style, x0, max(x1, x0 + _LEAST), title, torn), names)


def _labelled(parts: list[_Part | None], covers: tuple[XrayBox, ...] = ()) -> tuple[XrayBox, ...]:
    """Return boxes with their names where these fit: on the widest stretch that no later box covers."""
    there = [part for part in parts if part is not None]
    boxes = []
    for at, (box, names) in enumerate(there):
        over = [*covers, *(other.box for other in there[at + 1 :])]
        room, middle = _widest(box, over)
        label = next((name for name in names if room * _TRACK >= len(name) * _CHAR + 8), "")
        boxes.append(box._replace(label=label, label_at=middle))
    return tuple(boxes)


def _widest(box: XrayBox, over: list[XrayBox]) -> tuple[float, float]:
    """Return width and middle of the widest stretch of a box that nothing lies over."""
    best, at = (0.0, box.x0), box.x0
    for other in [*sorted(over, key=lambda other: other.x0), box._replace(x0=box.x1, x1=box.x1)]:
        stop = min(max(other.x0, box.x0), box.x1)
        best = max(best, (stop - at, (stop + at) / 2))
        at = max(at, min(other.x1, box.x1))
    return best


def select_xray(moment: Moment, changes: tuple[Change, ...]) -> XrayView | None:
    """Return the picture of a refusal that cost nothing and is about a place; None for all others.

    Parameters
    ----------
    moment
        The stop; its operation was refused.
    changes
        What would work, as `explorer.explain.xray.changes_at` gives it.
    """
    op, call = moment.op, moment.call
    if op is None or call is None or op.step.refused_by is None or op.step.errno is None:
        return None
    name = op.step.refused_by.name
    if name not in _CHECKS or call.as_id >= len(op.before.memslots):
        return None
    if invalidates(moment.change) and any(cell.swaps for cell in op.cells):
        return None  # refused late: what was spent by then is what matters
    picture = _Picture(op.before, call, name, changes)
    return picture.view(errno_text(op.step.errno))


class _Picture:
    def __init__(self, kvm: Kvm, call: SetMemoryRegion, check: str, changes: tuple[Change, ...]) -> None:
        self.kvm, self.call, self.check, self.changes = kvm, call, check, changes
        self.host = check == "hva_aligned"
        self.ways = slots_in_the_way(kvm, call, check)
        self.scale = self._scale()

    def view(self, errno: str) -> XrayView:
        label, clash = self._clash()
        at, on, asked = self._asked(clash, label)
        rows = (self._before(clash), asked, *(self._would_work(change) for change in self.changes))
        title, sub = self._title()
        return XrayView(
            title=f"Why {errno}?",
            sub=sub,
            rows=rows,
            clash=clash,
            clash_label=label,
            clash_at=at,
            clash_on=on,
            ticks=self._ticks(),
            free="Refused for free: nothing was touched",
            nothing="" if self.changes else "No change was found with which the model accepts the call.",
            told=(title, *self._sentences(label)),
        )

    # -- what is shown ---------------------------------------------------------------------------

    def _range(self, call: SetMemoryRegion) -> tuple[int, int]:
        first = call.userspace_addr if self.host else call.guest_phys_addr
        return first, first + call.memory_size

    def _scale(self) -> _Scale:
        first, end = self._range(self.call)
        if self.check in _PAGE_CHECKS:
            edge = end if self.check == "size_aligned" else first
            page = edge // PAGE_SIZE * PAGE_SIZE
            return _Scale(page - 2 * PAGE_SIZE, page + 3 * PAGE_SIZE)
        low, high = first, end
        old = self._old()
        slots = [way.slot for way in self.ways] + ([old] if self.check == "same_size" and old is not None else [])
        for slot in slots:
            low, high = min(low, slot.base_gfn << PAGE_SHIFT), max(high, slot.end_gfn << PAGE_SHIFT)
        if self.check in _LIMIT_CHECKS:
            low, high = 0, max(end, self._limit())
        if len(self.ways) == 1:
            way = self.ways[0]
            shared = (way.end_gfn - way.first_gfn) << PAGE_SHIFT
            if shared < _CLEAR * (high - low):
                middle = (way.first_gfn + way.end_gfn) << PAGE_SHIFT >> 1
                low, high = middle - shared * _ENLARGED // 2, middle + shared * _ENLARGED // 2
        most = _GROWS * (high - low)
        for change in self.changes:
            start, stop = self._range(_changed_call(change))
            if max(high, stop) - min(low, start) <= most:
                low, high = min(low, start), max(high, stop)
        margin = int((high - low) * _MARGIN)
        return _Scale(max(low - margin, 0), high + margin)

    def _limit(self) -> int:
        return (self.kvm.config.max_gfn() + 1) << PAGE_SHIFT

    def _old(self) -> KvmMemorySlot | None:
        return self.kvm.slot(self.call.slot, self.call.as_id)

    def _near(self, kvm: Kvm) -> list[KvmMemorySlot]:
        """Return the slots in the picture, those in the way first."""
        if self.host:
            return []
        low, high = self.scale.low >> PAGE_SHIFT, self.scale.high >> PAGE_SHIFT
        wanted = {way.slot.id for way in self.ways} | {self.call.slot}
        found = [s for s in kvm.slots(self.call.as_id) if s.base_gfn <= high and s.end_gfn > low]
        return sorted(sorted(found, key=lambda s: s.id not in wanted)[:_MOST_BOXES], key=lambda s: s.base_gfn)

    # -- rows ------------------------------------------------------------------------------------

    def _slot(self, slot: KvmMemorySlot, style: Style, *names: str) -> _Part | None:
        first, end = slot.base_gfn << PAGE_SHIFT, slot.end_gfn << PAGE_SHIFT
        return self.scale.part(style, first, end, f"slot {slot.id}: {_place(first, end)}", *names)

    def _before(self, clash: tuple[XrayBox, ...]) -> XrayRow:
        if self.check in _PAGE_CHECKS:
            firsts = range(self.scale.low, self.scale.high, PAGE_SIZE)
            pages = [self.scale.part("page", at, at + PAGE_SIZE, hex_text(at)) for at in firsts]
            return XrayRow("host pages" if self.host else "pages", "of 4 KiB", _labelled(pages))
        parts = [self._slot(slot, _style(slot), f"slot {slot.id}") for slot in self._near(self.kvm)]
        if self.check in _LIMIT_CHECKS:
            limit = self._limit()
            parts.append(self.scale.part("beyond", limit, self.scale.high, "beyond the last page", "no guest memory"))
            clash = ()
        return XrayRow("in memory", "before the call", _labelled(parts, clash))

    def _asked(self, clash: tuple[XrayBox, ...], label: str) -> tuple[float | None, bool, XrayRow]:
        """Return where the words on the clash stand and whether they stand on it, and the row."""
        first, end = self._range(self.call)
        title = f"asked for: {_place(first, end)}"
        part = self.scale.part("asked", first, end, title, f"slot {self.call.slot}")
        row = XrayRow("asked for", size_text(self.call.memory_size), _labelled([part], clash))
        wide = (len(label) * _CHAR + 18) / _TRACK
        for box in clash:
            if box.x1 - box.x0 >= wide + 26 / _TRACK:
                return (box.x0 + box.x1) / 2, True, row
        sides = [side for box in row.boxes for side in (box.x1 + wide / 2, box.x0 - wide / 2)]
        return next((at for at in sides if wide / 2 <= at <= 1 - wide / 2), None), False, row

    def _would_work(self, change: Change) -> XrayRow:
        kvm = self.kvm
        for command in change.commands:
            kvm = apply(kvm, command, record=False).kvm
        call = _changed_call(change)
        parts: list[_Part | None] = []
        if self.check not in _PAGE_CHECKS:
            for slot in self._near(self.kvm):
                kept = kvm.slot(slot.id, slot.as_id)
                if kept is None and slot.id != call.slot:
                    parts.append(self._slot(slot, "gone", f"slot {slot.id} gone", "gone"))
                elif kept is not None and slot.id != call.slot:
                    parts.append(self._slot(kept, _style(kept), f"slot {slot.id}"))
        if call.memory_size:
            parts.append(self._new(call))
        result = "0, no effect" if change.does is KvmMrChange.NOOP else "0"
        return XrayRow("would work", _short(change.words), _labelled(parts), result, change.cost)

    def _new(self, call: SetMemoryRegion) -> _Part:
        """Return the slot where it would be, or words at the edge for a place too far away to be drawn to scale."""
        first, end = self._range(call)
        name = f"slot {call.slot}"
        part = self.scale.part("new", first, end, f"{name}: {_place(first, end)}", f"{name} at {hex_text(first)}", name)
        if part is not None:
            return part
        up = first >= self.scale.high
        label = f"{name} at {hex_text(first)}"
        label = f"{label} \N{RIGHTWARDS ARROW}" if up else f"\N{LEFTWARDS ARROW} {label}"
        wide = min((len(label) * _CHAR + 12) / _TRACK, 1.0)
        x0, x1 = (1 - wide, 1.0) if up else (0.0, wide)
        return _Part(XrayBox("away", x0, x1, f"{_place(first, end)}, beyond the picture"), (label,))

    # -- the clash -------------------------------------------------------------------------------

    def _clash(self) -> tuple[str, tuple[XrayBox, ...]]:
        """Return the words on what is refused, and the stretches that are marked."""
        first, end = self._range(self.call)
        if self.check in _PAGE_CHECKS:
            at, word = (end, "ends") if self.check == "size_aligned" else (first, "begins")
            label = f"{word} {plural(at % PAGE_SIZE, 'byte')} behind a page border"
            return label, self._marked(at - at % PAGE_SIZE, at, label)
        if self.check in _LIMIT_CHECKS:
            over = max(first, self._limit())
            label = "wraps past 2^64" if end > U64_MAX else f"{size_text(end - over)} beyond the last page"
            return label, self._marked(over, end, label)
        if not self.ways:
            old = self._old()
            assert old is not None, "what is resized is there"
            sizes = sorted((self.call.memory_size, old.npages << PAGE_SHIFT))
            word = "more" if sizes[1] == self.call.memory_size else "less"
            label = f"{size_text(sizes[1] - sizes[0])} {word} than the slot has"
            return label, self._marked(first + sizes[0], first + sizes[1], label)
        boxes: tuple[XrayBox, ...] = ()
        for way in self.ways[:_MOST_BOXES]:
            place = way.first_gfn << PAGE_SHIFT, way.end_gfn << PAGE_SHIFT
            boxes += self._marked(*place, f"overlap with slot {way.slot.id}: {_place(*place)}")
        shared = sum(way.end_gfn - way.first_gfn for way in self.ways) << PAGE_SHIFT
        more = f" with {plural(len(self.ways), 'slot')}" if len(self.ways) > 1 else ""
        return f"{size_text(shared)} overlap{more}", boxes

    def _marked(self, first: int, end: int, title: str) -> tuple[XrayBox, ...]:
        part = self.scale.part("clash", first, end, title)
        return () if part is None else (part.box,)

    # -- words -----------------------------------------------------------------------------------

    def _title(self) -> tuple[str, str]:
        first, end = self._range(self.call)
        what = "Host memory" if self.host else "Guest memory"
        sub = f"{what.lower()}, to scale"
        return f"{what}, to scale. Asked for: slot {self.call.slot} at {_place(first, end)}.", sub

    def _sentences(self, label: str) -> list[str]:
        named = [f"slot {way.slot.id} at {_slot_place(way.slot)}" for way in self.ways[:_MOST_BOXES]]
        more = len(self.ways) - len(named)
        in_the_way = f" In the way: {', '.join(named)}{f' and {more} more' if more > 0 else ''}." if named else ""
        works = [f"Would work: {change.words}; the call returns 0{change.but}." for change in self.changes]
        return [f"{label[0].upper()}{label[1:]}.{in_the_way}", *works]

    def _ticks(self) -> tuple[tuple[float, str], ...]:
        """Return round addresses, as far apart as their words are long."""
        low, high = self.scale
        step = 1
        while True:
            count = high // step - -(-low // step) + 1
            if count <= _MOST_TICKS:
                numbers = range(-(-low // step) * step, high + 1, step)
                words = [_address(at, step) for at in numbers]
                if count < 2 or step / (high - low) * _TRACK >= max(map(len, words)) * 7 + 14:
                    return tuple((self.scale.share(at), word) for at, word in zip(numbers, words, strict=True))
            step *= 2


def _changed_call(change: Change) -> SetMemoryRegion:
    call = change.commands[-1]
    assert isinstance(call, SetMemoryRegion), "a change ends with the region call"
    return call


def _style(slot: KvmMemorySlot) -> Style:
    if slot.invalid:
        return "invalid"
    if slot.flags & KVM_MEM_READONLY:
        return "read_only"
    return "dirty" if slot.flags & KVM_MEM_LOG_DIRTY_PAGES else "slot"


def _short(words: str) -> str:
    """Return the words of a change without what its box says: the new address, and why it is that one."""
    what, _, why = words.partition(": ")
    return why if what.startswith("base ") and " and size " in what else _BASE_ONLY.sub("", what)


def _place(first: int, end: int) -> str:
    return f"{hex_text(first)} to {hex_text(end - 1)}, {size_text(end - first)}"


def _slot_place(slot: KvmMemorySlot) -> str:
    return _place(slot.base_gfn << PAGE_SHIFT, slot.end_gfn << PAGE_SHIFT)


def _address(at: int, step: int) -> str:
    """Return an address as a size where that is short and exact, else in hex."""
    return size_text(at) if at and at % (1 << 20) == 0 and at < 1 << 30 and step >= 1 << 20 else hex_text(at)
