"""The table twin of the map: the same slots as rows, for reading, copying and screen readers."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from explorer.engine.types import PAGE_SHIFT
from explorer.explain.ledger import watches_of
from explorer.explain.words import hex_text, plural, size_text
from explorer.history.moment import SlotKey
from explorer.selectors.style import flags_words, style_of

if TYPE_CHECKING:
    from explorer.engine.state import Kvm, KvmMemorySlot
    from explorer.history.moment import Moment

__all__ = ["Hole", "SlotRow", "SlotTableView", "holes", "select_slot_table"]

ROWS = 200


class Hole(NamedTuple):
    """Guest pages ``[start, end)`` that no slot backs, and the slots beside them."""

    start: int
    end: int
    below: KvmMemorySlot | None
    above: KvmMemorySlot | None


class SlotRow(NamedTuple):
    """A slot, or the hole before the next one."""

    kind: str
    """``slot`` or ``hole``."""
    key: SlotKey | None
    name: str
    first: str
    last: str
    size: str
    hva: str
    flags: str
    watches: str
    style: str
    selected: bool


class SlotTableView(NamedTuple):
    """All slots of one address space, by address."""

    caption: str
    rows: tuple[SlotRow, ...]
    notice: str


def holes(kvm: Kvm, as_id: int) -> tuple[Hole, ...]:
    """Return the holes of an address space, by address; the last one ends where the guest's addresses do."""
    found = []
    below: KvmMemorySlot | None = None
    for slot in (*kvm.slots(as_id), None):
        start = below.end_gfn if below is not None else 0
        end = slot.base_gfn if slot is not None else kvm.config.max_gfn() + 1
        if start < end:
            found.append(Hole(start, end, below, slot))
        below = slot
    return tuple(found)


def select_slot_table(moment: Moment, owners: dict[int, str] | None = None) -> SlotTableView:
    """Return the table at a moment; very long ones are shown around the slot in focus."""
    owners = owners or {}
    as_id = moment.focus.as_id if moment.focus is not None and moment.focus.as_id < len(moment.kvm.memslots) else 0
    slots = moment.kvm.slots(as_id)
    at = next((i for i, slot in enumerate(slots) if moment.focus is not None and slot.id == moment.focus.slot_id), 0)
    start = max(0, min(at - ROWS // 2, len(slots) - ROWS))
    shown = slots[start : start + ROWS]
    rows: list[SlotRow] = []
    for index, slot in enumerate(shown):
        before = shown[index - 1] if index else (slots[start - 1] if start else None)
        hole_start = before.end_gfn if before is not None else 0
        if slot.base_gfn > hole_start:
            pages = slot.base_gfn - hole_start
            rows.append(
                SlotRow(
                    "hole",
                    None,
                    "hole",
                    hex_text(hole_start << PAGE_SHIFT),
                    hex_text((slot.base_gfn << PAGE_SHIFT) - 1),
                    size_text(pages << PAGE_SHIFT),
                    "",
                    "",
                    "",
                    "gap",
                    False,
                )
            )
        key = SlotKey(slot.as_id, slot.id)
        watches = len(watches_of(moment.kvm, slot))
        owner = owners.get(slot.id)
        rows.append(
            SlotRow(
                "slot",
                key,
                f"slot {slot.id}" + (f" {owner}" if owner else ""),
                hex_text(slot.base_gfn << PAGE_SHIFT),
                hex_text((slot.end_gfn << PAGE_SHIFT) - 1),
                size_text(slot.npages << PAGE_SHIFT),
                hex_text(slot.userspace_addr),
                flags_words(slot.flags) + (", INVALID" if slot.invalid else ""),
                str(watches) if watches else "",
                style_of(slot),
                key == moment.focus,
            )
        )
    caption = f"{plural(len(slots), 'slot')} of address space {as_id}, generation {moment.kvm.active(as_id).generation}"
    notice = f"shown are {len(shown)} of {len(slots)}, around the slot in focus" if len(shown) < len(slots) else ""
    return SlotTableView(caption, tuple(rows), notice if slots else "No slots. Create one, or paste a trace.")
