"""What backs a guest address, and where a slot lies, as a sentence: what the go-to box answers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from explorer.engine.types import PAGE_SHIFT
from explorer.engine.uapi import KVM_MEM_READONLY
from explorer.explain.words import hex_text, size_text

if TYPE_CHECKING:
    from explorer.engine.state import KvmMemorySlot

__all__ = ["backing_words", "slot_words"]


def backing_words(slot: KvmMemorySlot, gpa: int) -> str:
    """Return which host address backs a guest address that lies in `slot`."""
    hva = slot.userspace_addr + gpa - (slot.base_gfn << PAGE_SHIFT)
    return f"{hex_text(gpa)} lies in {_name(slot)}, at host address {hex_text(hva)}{_state(slot)}."


def slot_words(slot: KvmMemorySlot) -> str:
    """Return which guest addresses a slot has, and which host memory backs them."""
    first, end = slot.base_gfn << PAGE_SHIFT, slot.end_gfn << PAGE_SHIFT
    return (
        f"{_name(slot).capitalize()} has {hex_text(first)} to {hex_text(end - 1)}, {size_text(end - first)},"
        f" at host address {hex_text(slot.userspace_addr)}{_state(slot)}."
    )


def _name(slot: KvmMemorySlot) -> str:
    return f"slot {slot.id}" + (f" of address space {slot.as_id}" if slot.as_id else "")


def _state(slot: KvmMemorySlot) -> str:
    if slot.invalid:
        return "; readers find it INVALID now"
    return "; the guest may only read it" if slot.flags & KVM_MEM_READONLY else ""
