"""QEMU's memory tree, flat: who owns which guest addresses, and which ranges are slots.

What ``info mtree -f`` says at one moment. A log names no owner, this text no slot; together they name the slots::

    FlatView #2
     AS "memory", root: system
     Root memory region: system
      00000000000c0000-00000000000c9fff (prio 0, rom): pc.ram @00000000000c0000 KVM

The priority is the one of the region that won where several lie over each other. The mark ``KVM`` stands on ranges
that are slots; a QEMU without it shows them as ram, rom or romd.

Models system/memory.c: mtree_print_flatview(). Not modelled: ``info mtree`` without -f, whose regions still hide each
other. Read next: `replay`.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple

from explorer.engine.types import PAGE_SHIFT
from explorer.trace.records import Gap, TraceError, shorten
from explorer.trace.source import LONGEST_LINE

if TYPE_CHECKING:
    from collections.abc import Iterable

    from explorer.engine.state import Kvm, KvmMemorySlot
    from explorer.trace.source import Source

__all__ = ["Backing", "MemoryTree", "Naming", "OwnedRange", "is_flat_tree_line", "is_tree", "name_slots", "read_tree"]

_LOOKED_AT = 400
_MOST_RANGES = 1 << 16
_MOST_VIEWS = 1 << 12
_MOST_GAPS = 1000
_VIEW = re.compile(r"FlatView #\d+\s*$", re.ASCII)
_SPACE = re.compile(r'\s*AS "([^"]*)", root: (.*)$', re.ASCII)
_ROOT = re.compile(r"\s*Root memory region: (.*)$", re.ASCII)
_RANGE = re.compile(
    r"\s+([0-9a-f]{1,16})-([0-9a-f]{1,16}) \(prio (-?\d{1,10}), ([\w/]+)\): (.*?)(?: @([0-9a-f]{1,16}))?( KVM)?\s*$",
    re.ASCII,
)
_NO_VIEW = re.compile(r"\s*No rendered FlatView\s*$")
_PROMPT = re.compile(r"\s*(?:\(qemu\)|QEMU \d|Flatview )")
_SPACES = {"memory": 0, "cpu-memory-0": 0, "KVM-SMRAM": 1, "cpu-smm-0": 1}
"""What QEMU calls the address spaces that KVM knows by number."""
_SLOT_KINDS = {"ram", "rom", "romd"}
_EXPECTED = (
    "expected what QEMU's monitor prints for `info mtree -f`: a line `FlatView #0`, then lines such as"
    " `00000000000c0000-00000000000dffff (prio 1, rom): pc.rom KVM`"
)


class OwnedRange(NamedTuple):
    """One range of a flat view."""

    line: int
    as_id: int
    gpa: int
    """Bytes."""
    size: int
    """Bytes."""
    owner: str
    """Name of the memory region."""
    offset: int
    """Bytes from the start of that region."""
    prio: int
    kind: str
    """``ram``, ``rom``, ``romd``, ``i/o`` ..."""
    is_slot: bool


class MemoryTree(NamedTuple):
    """What a text says of the address spaces that KVM knows."""

    ranges: tuple[OwnedRange, ...]
    """By address space, then by address."""
    used: int
    """Lines."""
    unused: int
    """Lines that say nothing of a range."""
    gaps: tuple[Gap, ...]
    """The first of them, with reasons."""
    marked: bool
    """Whether QEMU marked the ranges that are slots; else ram, rom and romd are taken for slots."""

    def slots(self) -> tuple[OwnedRange, ...]:
        """Return the ranges that are slots."""
        return tuple(found for found in self.ranges if found.is_slot)


class Backing(NamedTuple):
    """Host memory that a name stands for."""

    start: int
    end: int
    owner: str


class Naming(NamedTuple):
    """A memory tree and the slots of a VM, put side by side."""

    owners: tuple[tuple[tuple[int, int], OwnedRange], ...]
    """(address space, slot) and the range that it is."""
    mismatches: tuple[str, ...]
    """Sentences: ranges without a slot, slots without a range."""
    backings: tuple[Backing, ...]
    """The same names by host address: they hold for other moments of the same run, too."""


def is_flat_tree_line(line: str) -> bool:
    """Return whether only a flat view has such a line."""
    return bool(_VIEW.match(line, 0, LONGEST_LINE))


def is_tree(source: Source) -> bool:
    """Return whether a text is a memory tree, not a log."""
    return any(is_flat_tree_line(line) for line in islice(source.lines(), _LOOKED_AT))


def read_tree(source: Source) -> MemoryTree:
    """Return what a text says.

    Raises
    ------
    TraceError
        If there is no flat view of the guest's memory in it.
    """
    views, gaps, used, unused = _views(source.lines())
    ranges: list[OwnedRange] = []
    for as_id in (0, 1):
        names = [name for name, number in _SPACES.items() if number == as_id]
        found = next((view for name in names for view in views if name in view[0]), None)
        ranges += (one._replace(as_id=as_id) for one in found[1]) if found is not None else ()
    if not ranges:
        raise TraceError(f'{source.name}: no flat view of the address space "memory" in it; {_EXPECTED}')
    marked = any(one.is_slot for one in ranges)
    if not marked:
        ranges = [one._replace(is_slot=one.kind in _SLOT_KINDS) for one in ranges]
    return MemoryTree(tuple(ranges), used, unused, tuple(gaps), marked)


def _views(lines: Iterable[str]) -> tuple[list[tuple[set[str], list[OwnedRange]]], list[Gap], int, int]:
    """Return the views with the names of their address spaces, the first unused lines, and the counts of both."""
    views: list[tuple[set[str], list[OwnedRange]]] = []
    gaps: list[Gap] = []
    used = count = unused = 0
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        found = _RANGE.match(line, 0, LONGEST_LINE)
        if found is not None and views and count < _MOST_RANGES:
            used += 1
            count += 1
            first, last = int(found[1], 16), int(found[2], 16)
            owner = shorten(found[5] or "(no name)")
            offset = int(found[6] or "0", 16)
            size = max(last - first + 1, 0)
            one = OwnedRange(number, 0, first, size, owner, offset, int(found[3]), found[4], found[7] is not None)
            views[-1][1].append(one)
        elif _VIEW.match(line, 0, LONGEST_LINE) and len(views) < _MOST_VIEWS:
            used += 1
            views.append((set(), []))
        elif views and (space := _SPACE.match(line, 0, LONGEST_LINE)) is not None:
            used += 1
            if space[1] in _SPACES:
                views[-1][0].add(space[1])
        elif _ROOT.match(line, 0, LONGEST_LINE) or _NO_VIEW.match(line, 0, LONGEST_LINE):
            used += 1
        else:
            unused += 1
            if len(gaps) < _MOST_GAPS:
                gaps.append(Gap(number, _why_unused(line, found is not None), line))
    return views, gaps, used, unused


def _why_unused(line: str, is_range: bool) -> str:
    if is_range:
        return "a range before any `FlatView #`, or more ranges than are read"
    return "the monitor's own line" if _PROMPT.match(line) else "no line of a flat view"


def name_slots(kvm: Kvm, tree: MemoryTree) -> Naming:
    """Put the ranges beside the slots of a VM; only a range that is exactly a slot names it."""
    owners: list[tuple[tuple[int, int], OwnedRange]] = []
    mismatches: list[str] = []
    extents: dict[tuple[str, int], int] = {}
    for as_id in range(len(kvm.memslots)):
        slots = sorted(kvm.slots(as_id), key=lambda slot: slot.base_gfn)
        ranges = sorted((one for one in tree.slots() if one.as_id == as_id), key=lambda one: one.gpa)
        if not ranges and as_id:
            continue  # the text does not show this address space
        by_place = {(slot.base_gfn << PAGE_SHIFT, slot.npages << PAGE_SHIFT): slot for slot in slots}
        for one in ranges:
            slot = by_place.pop((one.gpa, one.size), None)
            if slot is None:
                mismatches.append(_no_slot(one, slots))
                continue
            owners.append(((as_id, slot.id), one))
            base = slot.userspace_addr - one.offset
            end = slot.userspace_addr + one.size
            extents[one.owner, base] = max(extents.get((one.owner, base), 0), end)
        mismatches += [f"slot {_place(slot)} is not among the tree's ranges" for slot in by_place.values()]
    backings = sorted(Backing(max(base, 0), end, owner) for (owner, base), end in extents.items())
    return Naming(tuple(owners), tuple(mismatches), tuple(backings))


def _no_slot(one: OwnedRange, slots: list[KvmMemorySlot]) -> str:
    start, end = one.gpa >> PAGE_SHIFT, one.gpa + one.size >> PAGE_SHIFT
    at = max(bisect_left(slots, start, key=lambda slot: slot.base_gfn) - 1, 0)
    over = [slot for slot in slots[at : at + 4] if slot.base_gfn < end and start < slot.end_gfn]
    what = f"line {one.line}: {one.owner} at {one.gpa:#x}..{one.gpa + one.size:#x}"
    return f"{what}: there lies slot {_place(over[0])}" if over else f"{what}: no slot lies there"


def _place(slot: KvmMemorySlot) -> str:
    name = f"{slot.as_id}:{slot.id}" if slot.as_id else str(slot.id)
    return f"{name} at {slot.base_gfn << PAGE_SHIFT:#x}..{slot.end_gfn << PAGE_SHIFT:#x}"
