"""Properties of sets, slots and their arrays: what one state must show. Found by `invariants`.

Rule: a function here reads one snapshot and yields every place where its property does not hold; its docstring
is the property. What is shared with `tracking_properties` comes first.

Not modelled: which allocator an array comes from. Read next: `tracking_properties`.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from explorer.engine.draft import KIND_NAMES
from explorer.engine.lookup import hva_key
from explorer.engine.metadata import initial_lpage_level
from explorer.engine.state import DirtyBitmap, LpageInfo, RmapArrays, WriteTrack
from explorer.engine.types import LEVELS, PG_LEVEL_4K, Gfn, gfn_to_index, hpages
from explorer.engine.uapi import KVM_MEM_LOG_DIRTY_PAGES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from explorer.engine.state import Kvm, KvmMemorySlot, LpageLevel, MetadataArray
    from explorer.engine.types import ArrayId, Level

    Found = Iterator[tuple[int | None, int | None, int | None, int | str, int | str]]
    """(as_id, slot, gfn, expected, found) of each violation; None where the place has no such part."""

__all__ = [
    "bitmaps",
    "counts_of",
    "first_gfn_of",
    "generations",
    "internal_slots",
    "invalid_at_rest",
    "levels_of",
    "logging_total",
    "overlaps",
    "ownership",
    "page_total",
    "past_the_end",
    "published",
    "right_marks",
    "trees",
    "unequal_sets",
    "wrong_lengths",
    "wrong_marks",
]


# -- sets and slots --------------------------------------------------------------------------------


def published(kvm: Kvm) -> Iterator[KvmMemorySlot]:
    """Iterate over the slots that readers see, in all address spaces."""
    for space in kvm.memslots:
        yield from space.active.slots()


def overlaps(kvm: Kvm) -> Found:
    """No two slots of one set share a gfn."""
    for as_id, space in enumerate(kvm.memslots):
        for memslots in space.sets:
            end = 0
            for slot in memslots.slots():
                if slot.base_gfn < end:
                    yield as_id, slot.id, slot.base_gfn, f"{end:#x} or above", f"{slot.base_gfn:#x}"
                end = slot.end_gfn


def unequal_sets(kvm: Kvm) -> Found:
    """At rest the two sets of an address space hold the same slot objects."""
    for as_id, space in enumerate(kvm.memslots):
        one, other = space.active.id_hash, space.inactive.id_hash
        for slot_id in sorted({*one, *other}) if one != other else ():
            seen, hidden = one.get(slot_id), other.get(slot_id)
            if seen != hidden:
                yield as_id, slot_id, None, f"as active: {seen}", f"inactive: {hidden}"


def generations(kvm: Kvm) -> Found:
    """At rest no update is marked, the residue is the address space's, and the active set's is the higher."""
    factor = kvm.profile.generation_step_factor
    step = len(kvm.memslots) * factor
    for as_id, space in enumerate(kvm.memslots):
        active, inactive = space.active.generation, space.inactive.generation
        residue = (kvm.profile.generation_start + as_id * factor) % step
        if active >> kvm.profile.generation_in_progress_bit & 1:
            yield as_id, None, None, "no update in progress", active
        elif active % step != residue:
            yield as_id, None, None, f"{residue} modulo {step}", active
        if active < inactive:
            yield as_id, None, None, f"{inactive} or above", active


def invalid_at_rest(kvm: Kvm) -> Found:
    """INVALID copies are gone from both sets when the call has returned."""
    for as_id, space in enumerate(kvm.memslots):
        for memslots in space.sets:
            for slot in memslots.slots():
                if slot.invalid:
                    yield as_id, slot.id, slot.base_gfn, "valid", "INVALID"


def page_total(kvm: Kvm) -> Found:
    """nr_memslot_pages is the sum over all slots of all address spaces."""
    total = sum(slot.npages for slot in published(kvm))
    if total != kvm.nr_memslot_pages:
        yield None, None, None, total, kvm.nr_memslot_pages


def logging_total(kvm: Kvm) -> Found:
    """nr_memslots_dirty_logging is the number of logged slots; v6_1 counts them for PML only, before it none does."""
    total = sum(1 for slot in published(kvm) if slot.flags & KVM_MEM_LOG_DIRTY_PAGES)
    if total != kvm.nr_memslots_dirty_logging:
        yield None, None, None, total, kvm.nr_memslots_dirty_logging


def trees(kvm: Kvm) -> Found:
    """Gfn tree and hva tree of a set hold one entry for each slot, where it is, and no other."""
    for as_id, space in enumerate(kvm.memslots):
        for memslots in space.sets:
            slots = tuple(memslots.id_hash.values())
            for base_gfn, slot_id in {*memslots.gfn_tree.items()} ^ {(slot.base_gfn, slot.id) for slot in slots}:
                yield as_id, slot_id, base_gfn, "one entry of the gfn tree for each slot", "another"
            for _, hva, slot_id in {*memslots.hva_tree} ^ {hva_key(slot) for slot in slots}:
                yield as_id, slot_id, None, "one entry of the hva tree for each slot", f"another at {hva:#x}"


def internal_slots(kvm: Kvm) -> Found:
    """KVM's own slots have the same place in every address space."""
    for slot_id in range(kvm.profile.user_mem_slots, kvm.profile.user_mem_slots + 3):
        first = kvm.slot(slot_id)
        for as_id in range(1, len(kvm.memslots)):
            slot = kvm.slot(slot_id, as_id)
            if (first and first[2:5]) != (slot and slot[2:5]):
                yield as_id, slot_id, None, first.brief() if first else "none", slot.brief() if slot else "none"


# -- arrays ----------------------------------------------------------------------------------------


def _pointers(slot: KvmMemorySlot) -> Iterator[tuple[type, ArrayId]]:
    """Iterate over the arrays a slot points to, each with the kind that must be there."""
    ids = (slot.arch.rmap, slot.arch.lpage_info, slot.arch.gfn_write_track, slot.dirty_bitmap)
    return ((cls, array_id) for cls, array_id in zip(KIND_NAMES, ids, strict=True) if array_id is not None)


def _arrays(kvm: Kvm, slot: KvmMemorySlot) -> Iterator[MetadataArray]:
    for _, array_id in _pointers(slot):
        array = kvm.heap.get(array_id)
        if array is not None:
            yield array


def _lengths(kvm: Kvm, slot: KvmMemorySlot) -> Iterator[tuple[str, Level, int]]:
    """Iterate over the per-level arrays of a slot as (name, level, entries)."""
    for array in _arrays(kvm, slot):
        match array:
            case RmapArrays():
                yield from ((f"rmap[{level - 1}]", level, n) for level, n in zip(LEVELS, array.lengths, strict=True))
            case LpageInfo():
                yield from ((f"lpage_info[{level - 2}]", level, entry.n) for level, entry in levels_of(kvm, slot))
            case WriteTrack():
                yield "gfn_write_track", PG_LEVEL_4K, array.n


def levels_of(kvm: Kvm, slot: KvmMemorySlot) -> Iterator[tuple[Level, LpageLevel]]:
    """Iterate over the huge-page counters of a slot, with the level of each."""
    for array in _arrays(kvm, slot):
        if isinstance(array, LpageInfo):
            yield from zip(LEVELS[1:], array.levels, strict=True)


def counts_of(kvm: Kvm, slot: KvmMemorySlot) -> Counter[int]:
    """Return the write-track counts of a slot by gfn."""
    for array in _arrays(kvm, slot):
        if isinstance(array, WriteTrack):
            return Counter({slot.base_gfn + index: count for index, count in array.counts.items()})
    return Counter()


def first_gfn_of(slot: KvmMemorySlot, index: int, level: Level) -> Gfn:
    """Return the first gfn of a slot that has `index` at `level`."""
    shift = (level - 1) * 9
    return Gfn(max(slot.base_gfn, ((slot.base_gfn >> shift) + index) << shift))


def wrong_lengths(kvm: Kvm) -> Found:
    """Arrays are as long as base and size demand, and all slots have counts once anybody tracks."""
    with_counts = sum(1 for slot in published(kvm) if slot.arch.gfn_write_track is not None)
    tracking = with_counts or kvm.external_write_tracking_enabled or kvm.shadow_root_allocated
    for slot in published(kvm):
        for name, level, n in _lengths(kvm, slot):
            needed = hpages(slot.base_gfn, slot.npages, level)
            if n != needed:
                yield slot.as_id, slot.id, slot.base_gfn, f"{name} of {needed}", n
        if tracking and slot.arch.gfn_write_track is None:
            yield slot.as_id, slot.id, slot.base_gfn, f"gfn_write_track of {slot.npages}", "none"


def past_the_end(kvm: Kvm) -> Found:
    """No gfn of a slot has an index outside one of its arrays."""
    for slot in published(kvm):
        for name, level, n in _lengths(kvm, slot):
            last = gfn_to_index(Gfn(slot.end_gfn - 1), slot.base_gfn, level)
            if last >= n:
                yield slot.as_id, slot.id, first_gfn_of(slot, n, level), f"an index of {name} below {n}", last


def right_marks(slot: KvmMemorySlot, level: Level) -> LpageLevel:
    """Return the counters that a slot would get if it were made where it is now."""
    return initial_lpage_level(slot.base_gfn, slot.npages, slot.userspace_addr, level)


def wrong_marks(kvm: Kvm) -> Found:
    """Head, tail and hva marks are those of the slot's present place."""
    for slot in published(kvm):
        for level, entry in levels_of(kvm, slot):
            right = right_marks(slot, level)
            # The rules mark the ends or everything, so the ends and one entry between them decide.
            for index in sorted({0, 1, entry.n - 1, right.n - 1} & set(range(min(entry.n, right.n)))):
                if entry.mark(index) != right.mark(index):
                    yield slot.as_id, slot.id, first_gfn_of(slot, index, level), right.mark(index), entry.mark(index)


def bitmaps(kvm: Kvm) -> Found:
    """dirty_bitmap is there, with a bit for each page, exactly for LOG_DIRTY_PAGES."""
    for slot in published(kvm):
        wanted = slot.npages if slot.flags & KVM_MEM_LOG_DIRTY_PAGES else 0
        bits = sum(array.npages for array in _arrays(kvm, slot) if isinstance(array, DirtyBitmap))
        if bits != wanted:
            yield slot.as_id, slot.id, slot.base_gfn, wanted, bits


def ownership(kvm: Kvm) -> Found:
    """Every published slot points to live arrays that are its own; at rest nothing else is allocated."""
    owned: set[ArrayId] = set()
    for slot in published(kvm):
        for cls, array_id in _pointers(slot):
            if not isinstance(kvm.heap.get(array_id), cls):
                yield slot.as_id, slot.id, slot.base_gfn, f"a live {KIND_NAMES[cls]}", f"array {array_id} is gone"
            if array_id in owned:
                yield slot.as_id, slot.id, slot.base_gfn, f"{KIND_NAMES[cls]} of its own", f"array {array_id} shared"
            owned.add(array_id)
    if kvm.pending is None:
        for array_id, array in kvm.heap.items():
            if array_id not in owned:
                yield None, None, None, "a slot that owns it", f"{KIND_NAMES[type(array)]} {array_id} leaked"
        total = sum(array.size_bytes for array in kvm.heap.values())
        if total != kvm.heap_bytes:
            yield None, None, None, total, kvm.heap_bytes
