"""How a slot is shown: the role of its fill and what a pointer over it reads."""

from __future__ import annotations

from typing import TYPE_CHECKING

from explorer.engine.types import PAGE_SHIFT
from explorer.engine.uapi import KVM_MEM_LOG_DIRTY_PAGES, KVM_MEM_READONLY
from explorer.explain.words import hex_text, pages_text, size_text

if TYPE_CHECKING:
    from explorer.engine.state import KvmMemorySlot

__all__ = ["flags_words", "slot_hover", "style_of"]


def style_of(slot: KvmMemorySlot) -> str:
    """Return the role of a slot's fill."""
    if slot.invalid:
        return "invalid"
    if slot.flags & KVM_MEM_READONLY:
        return "read_only"
    return "dirty" if slot.flags & KVM_MEM_LOG_DIRTY_PAGES else "slot"


def flags_words(flags: int) -> str:
    """Return a slot's flags in words: ``none``, ``read-only``, ``dirty-logged`` or both."""
    words = [
        word
        for word, bit in (("read-only", KVM_MEM_READONLY), ("dirty-logged", KVM_MEM_LOG_DIRTY_PAGES))
        if flags & bit
    ]
    return ", ".join(words) or "none"


def slot_hover(slot: KvmMemorySlot, owners: dict[int, str]) -> str:
    """Return what a pointer over a slot reads, one fact a line in plotly's own markup; an owner's name is text."""
    owner = owners.get(slot.id, "").replace("<", "<\N{WORD JOINER}")
    return "<br>".join(
        [
            f"<b>slot {slot.id}</b>" + (f" {owner}" if owner else ""),
            f"gpa {hex_text(slot.base_gfn << PAGE_SHIFT)} to {hex_text((slot.end_gfn << PAGE_SHIFT) - 1)}",
            f"gfn {hex_text(slot.base_gfn)} to {hex_text(slot.end_gfn - 1)}",
            f"{size_text(slot.npages << PAGE_SHIFT)}, {pages_text(slot.npages)}",
            f"hva {hex_text(slot.userspace_addr)}",
            f"flags {flags_words(slot.flags)}" + (", INVALID" if slot.invalid else ""),
        ]
    )
