"""What the guest stored, seen through the VMM's own mapping: a store reaches the host address its slot stands for.

A recorded store is one byte. It is put where the slot of its page has its host memory at that moment, so a later
look at host memory tells whether guest addresses led where the kernel's did, also after slots moved.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from explorer.engine.lookup import KVM_HVA_ERR_BAD, gfn_to_hva, gfn_to_memslot
from explorer.engine.types import PAGE_SHIFT, PAGE_SIZE
from explorer.engine.uapi import KVM_MEMSLOT_GMEM_ONLY

if TYPE_CHECKING:
    from explorer.engine.state import Kvm

__all__ = ["HostMemory"]


class HostMemory:
    """Bytes that are known because the guest stored them."""

    def __init__(self) -> None:
        """Begin with nothing known."""
        self._bytes: dict[int, int] = {}

    def store(self, kvm: Kvm, gpa: int, value: int) -> None:
        """Note a store by the guest that took effect, outside of SMM; without a writable slot it reaches no memory."""
        gfn = gpa >> PAGE_SHIFT
        slot = gfn_to_memslot(kvm.active(), gfn)
        hva = gfn_to_hva(kvm.active(), gfn, write=True)
        if hva < KVM_HVA_ERR_BAD and slot is not None and not slot.flags & KVM_MEMSLOT_GMEM_ONLY:
            self._bytes[hva + gpa % PAGE_SIZE] = value

    def load(self, hva: int) -> int | None:
        """Return the byte at a host address, or None if nobody knows."""
        return self._bytes.get(hva)
