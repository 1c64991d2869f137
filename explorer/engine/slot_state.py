"""Slots, the two sets of them, and the arrays and files behind them.

Metadata arrays are objects with an identity: a slot holds an `ArrayId` (the kernel's pointer) and `Kvm.heap` holds the
contents. Two slots with the same id share an array, an id without contents has been freed; that is how ``old`` and its
INVALID copy can share what a MOVE later frees.

Models struct kvm_memslots, kvm_memory_slot (include/linux/kvm_host.h), kvm_arch_memory_slot and kvm_lpage_info
(arch/x86/include/asm/kvm_host.h), kvm_gmem (virt/kvm/guest_memfd.c; gmem_file in v7_3).
Not modelled: last_used_slot (a cache), what is in a guest_memfd. Read next: `tracker_state`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from explorer.engine.sortedmap import SortedMap
from explorer.engine.types import ArrayId, AsId, Gfn, Hva, SlotId
from explorer.engine.uapi import KVM_MEMSLOT_INVALID, flags_text

if TYPE_CHECKING:
    from collections.abc import Iterator

    from explorer.engine.runset import RunSet

__all__ = [
    "AddressSpace",
    "DirtyBitmap",
    "GmemBinding",
    "GmemPart",
    "GuestMemfd",
    "KvmArchMemorySlot",
    "KvmMemorySlot",
    "KvmMemslots",
    "LpageInfo",
    "LpageLevel",
    "MetadataArray",
    "RmapArrays",
    "WriteTrack",
]


# -- metadata arrays -------------------------------------------------------------------------------


class RmapArrays(NamedTuple):
    """The three reverse-map arrays of a slot (``arch.rmap``); lengths only."""

    lengths: tuple[int, int, int]
    """Entries at 4 KiB, 2 MiB and 1 GiB."""

    @property
    def size_bytes(self) -> int:
        """Bytes: one 8-byte head per entry."""
        one, two, three = self.lengths
        return 8 * (one + two + three)


class LpageLevel(NamedTuple):
    """``arch.lpage_info[level - 2]``: one ``disallow_lpage`` counter per huge frame, stored sparsely."""

    n: int
    """Entries."""
    head: int
    """1 if the first entry starts marked, because ``base_gfn`` is not aligned to the level."""
    tail: int
    """1 if the last entry starts marked, because the end is not aligned."""
    all: int
    """1 if every entry starts marked, because gfn and host address are aligned differently."""
    added: SortedMap[int, int]
    """What add and remove did to an entry since, by index; no zeros."""

    def mark(self, index: int) -> int:
        """Return what entry `index` started with: 1 if a huge page there could never fit, else 0."""
        return 1 if self.all or (index == 0 and self.head) or (index == self.n - 1 and self.tail) else 0

    def value(self, index: int) -> int:
        """Return ``disallow_lpage`` of entry `index`; non-zero forbids a huge page."""
        return self.mark(index) + self.added.get(index, 0)


class LpageInfo(NamedTuple):
    """``arch.lpage_info``: the counters for 2 MiB and for 1 GiB frames."""

    levels: tuple[LpageLevel, LpageLevel]

    @property
    def size_bytes(self) -> int:
        """Bytes: 4 per entry."""
        two, three = self.levels
        return 4 * (two.n + three.n)


class WriteTrack(NamedTuple):
    """``arch.gfn_write_track`` (``gfn_track[KVM_PAGE_TRACK_WRITE]`` before v6.6), stored sparsely."""

    n: int
    """Entries: one per page of the slot."""
    counts: SortedMap[int, int]
    """16-bit counts by index in the slot; no zeros."""

    @property
    def size_bytes(self) -> int:
        """Bytes: 2 per page."""
        return 2 * self.n


class DirtyBitmap(NamedTuple):
    """``dirty_bitmap``: page indices written since the last report, as runs."""

    npages: int
    dirty: RunSet

    @property
    def half_bytes(self) -> int:
        """Bytes of the live half: whole 64-bit words."""
        return (self.npages + 63) // 64 * 8

    @property
    def size_bytes(self) -> int:
        """Bytes allocated: the live half and the scratch half for GET and CLEAR."""
        return 2 * self.half_bytes


MetadataArray = RmapArrays | LpageInfo | WriteTrack | DirtyBitmap


# -- slots and sets --------------------------------------------------------------------------------


class KvmArchMemorySlot(NamedTuple):
    """``struct kvm_arch_memory_slot``: pointers to the three kinds of array, copied by value."""

    rmap: ArrayId | None = None
    lpage_info: ArrayId | None = None
    gfn_write_track: ArrayId | None = None


class GmemPart(NamedTuple):
    """``gmem.file`` and ``gmem.pgoff`` of a slot: which part of which guest_memfd backs it."""

    fd: int
    """Descriptor of the file."""
    pgoff: int
    """First page; as many follow as the slot has."""


class KvmMemorySlot(NamedTuple):
    """``struct kvm_memory_slot``: guest pages ``[base_gfn, base_gfn + npages)`` and what backs them."""

    id: SlotId
    as_id: AsId
    base_gfn: Gfn
    npages: int
    userspace_addr: Hva
    flags: int
    dirty_bitmap: ArrayId | None
    arch: KvmArchMemorySlot
    gmem: GmemPart | None = None
    """None also when the file was closed, or for the INVALID copy, which does not get it."""

    @property
    def end_gfn(self) -> Gfn:
        """First gfn behind the slot."""
        return Gfn(self.base_gfn + self.npages)

    @property
    def invalid(self) -> bool:
        """Whether this is the copy readers must not use."""
        return bool(self.flags & KVM_MEMSLOT_INVALID)

    def with_flags(self, flags: int) -> KvmMemorySlot:
        """Return a copy with other flags, as kvm_copy_memslot() copies: without `gmem`. Faster than `_replace`."""
        slot_id, as_id, base_gfn, npages, userspace_addr, _, dirty_bitmap, arch, _ = self
        return tuple.__new__(
            KvmMemorySlot, (slot_id, as_id, base_gfn, npages, userspace_addr, flags, dirty_bitmap, arch, None)
        )

    def with_arch(self, arch: KvmArchMemorySlot) -> KvmMemorySlot:
        """Return the slot with other arrays."""
        slot_id, as_id, base_gfn, npages, userspace_addr, flags, dirty_bitmap, _, gmem = self
        return tuple.__new__(
            KvmMemorySlot, (slot_id, as_id, base_gfn, npages, userspace_addr, flags, dirty_bitmap, arch, gmem)
        )

    def brief(self) -> str:
        """Return the slot in the words of `Kvm.brief`."""
        return f"[{self.base_gfn:#x}+{self.npages:#x}]#{self.id} {flags_text(self.flags)}"


class KvmMemslots(NamedTuple):
    """``struct kvm_memslots``: one of the two sets of an address space.

    Slots live in `id_hash`; the two trees hold ids, which are unique in a set.
    """

    node_idx: int
    generation: int
    id_hash: SortedMap[SlotId, KvmMemorySlot]
    """Slot by id."""
    gfn_tree: SortedMap[Gfn, SlotId]
    """Slot id by base_gfn."""
    hva_tree: SortedMap[tuple[int, Hva, SlotId], None]
    """Keys (size class, userspace_addr, id); see `explorer.engine.lookup.slots_in_hva_range`."""

    def slots(self) -> Iterator[KvmMemorySlot]:
        """Iterate over the slots in the order of base_gfn."""
        for slot_id in self.gfn_tree.values():
            yield self.id_hash[slot_id]


class AddressSpace(NamedTuple):
    """Both sets of one address space and which of them readers see."""

    sets: tuple[KvmMemslots, KvmMemslots]
    active_idx: int

    @property
    def active(self) -> KvmMemslots:
        """The published set."""
        return self.sets[self.active_idx]

    @property
    def inactive(self) -> KvmMemslots:
        """The set the updater may edit."""
        return self.sets[1 - self.active_idx]


# -- guest_memfd -----------------------------------------------------------------------------------


class GmemBinding(NamedTuple):
    """What a guest_memfd knows of a part that a slot has taken."""

    npages: int
    as_id: AsId
    slot: SlotId


class GuestMemfd(NamedTuple):
    """``struct kvm_gmem`` and its file: memory for the guest that the VMM need not be able to reach."""

    size: int
    """Bytes."""
    flags: int
    bindings: SortedMap[int, GmemBinding] = SortedMap()
    """By first page; parts do not overlap."""
