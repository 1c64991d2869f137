"""The lane of host memory: which host addresses back the pages above, and where slots share them."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from explorer.engine.lookup import slots_in_gfn_range, slots_in_hva_range
from explorer.engine.types import PAGE_SHIFT
from explorer.engine.uapi import KvmMrChange
from explorer.explain.words import hex_text, size_text
from explorer.selectors.lane_parts import Bar, Label, Lane, Ribbon, focus_slot

if TYPE_CHECKING:
    from explorer.engine.state import Kvm, KvmMemorySlot
    from explorer.history.moment import Moment
    from explorer.selectors.gpa_map import Window

__all__ = ["host_lane_of"]

SLOTS = 8
"""Most slots of a window whose host memory is drawn."""
WIDEST = 280.0
"""Most pixels of a stretch of host memory; it says what is behind the pages, not how much."""
APART = 8.0
"""Between two stretches, in pixels."""
LETTER = 7.6


class _Piece(NamedTuple):
    """Guest pages that are shown, and the slot that backs them."""

    x0: float
    x1: float
    slot: KvmMemorySlot
    dotted: bool = False
    """Whether a MOVE is to put the slot there."""

    @property
    def hva(self) -> tuple[int, int]:
        return self.slot.userspace_addr, self.slot.userspace_addr + (self.slot.npages << PAGE_SHIFT)


def host_lane_of(moment: Moment, windows: tuple[Window, ...]) -> Lane:
    """Draw host memory once, and to it a ribbon from each place that uses it.

    A MOVE leaves it where it is; slots that alias one host address meet in one stretch.
    """
    groups = _groups(_pieces(moment, windows))
    if not groups:
        return Lane("Host memory", "hva", labels=(Label(windows[0].x1 / 2, 0.4, "no slot here", "ink_3"),))
    bars: list[Bar] = []
    ribbons: list[Ribbon] = []
    end = 0.0
    for group in groups:
        wide = min(max(piece.x1 - piece.x0 for piece in group), WIDEST)
        middle = (min(piece.x0 for piece in group) + max(piece.x1 for piece in group)) / 2
        x0 = max(middle - wide / 2, end)
        end = x0 + wide + APART
        bars.append(_bar(group, x0, x0 + wide, moment.kvm))
        ribbons += [Ribbon(piece.x0, piece.x1, x0, x0 + wide, piece.dotted) for piece in group]
    return Lane("Host memory", _sub(groups), tuple(bars), ribbons=tuple(ribbons))


def _pieces(moment: Moment, windows: tuple[Window, ...]) -> list[_Piece]:
    """Return what is shown of the slot an operation is about, where it was and where it goes, and of its neighbours."""
    kvm, about = moment.kvm, (moment.old if moment.on_call else None) or focus_slot(moment)
    as_id = moment.focus.as_id if moment.focus is not None else 0
    places: list[tuple[int, int, KvmMemorySlot, bool]] = []
    if about is not None:
        places.append((about.base_gfn, about.end_gfn, about, False))
        if moment.change is KvmMrChange.MOVE and moment.target is not None and moment.on_call:
            places.append((*moment.target, about, not moment.at_end))
    seen = {
        slot.id: slot
        for window in windows
        for slot in tuple(slots_in_gfn_range(kvm.active(as_id), window.first_gfn, window.end_gfn))[:SLOTS]
        if about is None or slot.id != about.id
    }
    places += [(slot.base_gfn, slot.end_gfn, slot, False) for slot in seen.values()]
    return [
        _Piece(window.at(max(start, window.first_gfn)), window.at(min(end, window.end_gfn)), slot, dotted)
        for start, end, slot, dotted in places
        for window in windows
        if start < window.end_gfn and window.first_gfn < end
    ]


def _groups(pieces: list[_Piece]) -> list[list[_Piece]]:
    """Group what overlaps in host memory, in the order of the map."""
    groups: list[list[_Piece]] = []
    reach = -1
    for piece in sorted(pieces, key=lambda piece: piece.hva):
        if piece.hva[0] < reach:
            groups[-1].append(piece)
        else:
            groups.append([piece])
        reach = max(reach, piece.hva[1])
    return sorted(groups, key=lambda group: min(piece.x0 for piece in group))


def _bar(group: list[_Piece], x0: float, x1: float, kvm: Kvm) -> Bar:
    first, end = min(piece.hva[0] for piece in group), max(piece.hva[1] for piece in group)
    shown = {int(piece.slot.id): piece.slot for piece in group}
    also = _elsewhere(kvm, first, end, shown)
    sharing = ", ".join([*(f"slot {slot_id}" for slot_id in shown), *also]) if len(shown) > 1 or also else ""
    place = hex_text(first)
    label = next(
        (text for text in (f"{place}: {sharing}", place) if len(text.rstrip(": ")) * LETTER + 12 < x1 - x0), ""
    ).rstrip(": ")
    hover = [
        f"<b>host memory of {'slots' if len(shown) > 1 else 'slot'} {', '.join(map(str, shown))}</b>",
        f"hva {hex_text(first)} to {hex_text(end - 1)}",
        size_text(end - first),
        *([f"shared: {sharing}"] if sharing else []),
    ]
    return Bar(x0, x1, "new_plain", label, "<br>".join(hover), 0.1, 0.5)


def _elsewhere(kvm: Kvm, first: int, end: int, shown: dict[int, KvmMemorySlot]) -> list[str]:
    """Name slots that share host memory and are not shown: of this address space, and of the other one."""
    own = {(slot.as_id, slot.id) for slot in shown.values()}
    found = [
        (as_id, slot.id)
        for as_id in range(len(kvm.memslots))
        for slot in slots_in_hva_range(kvm.active(as_id), first, end)
        if (as_id, slot.id) not in own
    ]
    own_space = next(iter(own))[0]
    names = [f"slot {slot_id}" if as_id == own_space else f"slot {slot_id} of as{as_id}" for as_id, slot_id in found]
    return [*names[:3], *([f"{len(names) - 3} more"] if len(names) > 3 else [])]


def _sub(groups: list[list[_Piece]]) -> str:
    if any(len({piece.slot.id for piece in group}) > 1 for group in groups):
        return "shared by slots"
    return "same hva" if any(len(group) > 1 for group in groups) else "hva"
