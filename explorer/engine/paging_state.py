"""What maps guest pages and what is mapped: shadow pages, leaf entries, how the vCPU runs, the VMM's memory.

Models struct kvm_mmu_page (arch/x86/include/asm/kvm_host.h) and the entries of the tables KVM makes.
Not modelled: direct shadow pages (only the entries in them), per-vCPU caches, more than one vCPU.
Read next: `state`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple

from explorer.engine.sortedmap import SortedMap

if TYPE_CHECKING:
    from explorer.engine.types import AsId, Gfn

__all__ = ["HostMemory", "ShadowPage", "Spte", "SpteKey", "Sptes", "VcpuState"]


class ShadowPage(NamedTuple):
    """``struct kvm_mmu_page`` that shadows a guest page table (an indirect shadow page)."""

    gfn: Gfn
    """Guest page that holds the table."""
    level: int
    """1 maps pages; above that the page's gfn is write-tracked."""
    as_id: AsId
    """Address space it belongs to (``role.smm``)."""
    mmu_valid_gen: int
    """0 or 1 (a counter in ``pre_edd4``); a page with another value than the VM's is obsolete."""


class VcpuState(NamedTuple):
    """How the vCPU runs, as far as its memory accesses hang on it."""

    mode: Literal["real", "prot", "long"] = "prot"
    """Only ``long`` has paging: else an address of the guest is a guest physical one."""
    cr3: int = 0
    """Guest physical address of the top-level page table."""
    code: int | None = None
    """Where the instructions are that the vCPU runs; None if their fetch is not told."""
    apic: SortedMap[int, int] = SortedMap()
    """Registers of its local APIC by offset; those that are 0 may be left out."""
    mem_read: int = 0
    """``mem_read`` of the emulator's context: what KVM read last for an instruction, little-endian."""
    injected: bool = False
    """Whether a page fault was on its way to the guest when the vCPU stopped, and is delivered first."""

    def with_read(self, value: int, nbytes: int) -> VcpuState:
        """Return the state after the emulator read some bytes; those behind them stay in its buffer."""
        mask = (1 << 8 * nbytes) - 1
        return self._replace(mem_read=self.mem_read & ~mask | value & mask)


# -- what maps and what is mapped ------------------------------------------------------------------


class Spte(NamedTuple):
    """A present leaf entry of a table KVM made, or a run of equal ones in a direct table."""

    gfn: Gfn
    """First gfn it maps."""
    span: int
    """Entries: pages in a direct table, where a huge one counts all its pages; 1 in an indirect one."""
    level: int
    writable: bool
    """Whether the processor lets the guest write."""
    mmu_writable: bool
    """Whether KVM may make it writable again without asking slot and trackers."""
    dirty: bool
    """The D bit, which PML watches."""


SpteKey = tuple[int, int]
"""Owner and position: see `explorer.engine.spte`."""


class Sptes(NamedTuple):
    """Every leaf entry of the VM."""

    entries: SortedMap[SpteKey, Spte] = SortedMap()
    rmap: SortedMap[tuple[int, int, int, int], None] = SortedMap()
    """Reverse map of indirect entries: (as_id, gfn, owner, index)."""
    mmio: SortedMap[tuple[AsId, Gfn], None] = SortedMap()
    """Of the pages that direct tables remember as MMIO those that a walk of the guest's tables met."""


class HostMemory(NamedTuple):
    """The VMM's memory: what its own page tables map writable, and what was stored there."""

    present: SortedMap[int, None] = SortedMap()
    """Host pages that were written to: the address shifted by the size of a host page."""
    words: SortedMap[int, int] = SortedMap()
    """Eight bytes each by address divided by 8; memory starts zeroed."""
