"""What backs a slot, by the name QEMU's memory tree gives the host memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from explorer.engine.state import Kvm
    from explorer.trace.tree import Backing

__all__ = ["owners_of"]

_MOST_NAMED = 1000
"""Slots; the layouts that have a memory tree have some dozens."""


def owners_of(kvm: Kvm, backings: tuple[Backing, ...]) -> dict[int, str]:
    """Return the names of the slots of address space 0 whose host memory has one."""
    found: dict[int, str] = {}
    for slot in kvm.slots(0)[:_MOST_NAMED]:
        for backing in backings:
            if backing.start <= slot.userspace_addr < backing.end:
                found[slot.id] = backing.owner
                break
    return found
