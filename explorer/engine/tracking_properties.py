"""Properties of counts, shadow pages, mappings and trackers: what one state must show. Found by `invariants`.

Rule: as in `slot_properties`.

Not modelled: 14 and 15 speak of entries that are made while a count is there; of one state only the counters
can be judged, the rest is in `step_properties`. Read next: `step_properties`.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from explorer.engine.lookup import gfn_to_memslot, slots_in_gfn_range
from explorer.engine.slot_properties import counts_of, first_gfn_of, levels_of, published, right_marks
from explorer.engine.spte import as_id_of_owner, sptes_of_gfn
from explorer.engine.state import Kvmgt
from explorer.engine.types import PG_LEVEL_4K, Gfn, gfn_to_index

if TYPE_CHECKING:
    from collections.abc import Iterator

    from explorer.engine.slot_properties import Found
    from explorer.engine.state import Kvm

__all__ = [
    "believed",
    "homeless_sptes",
    "huge_mappings",
    "huge_page_counters",
    "ledger",
    "protected",
    "shadow_page_count",
    "shadow_pages_at",
    "writable_though_tracked",
]

_U16_MAX = 0xFFFF


# -- counts and shadow pages -----------------------------------------------------------------------


def shadow_pages_at(kvm: Kvm, *, upper: bool) -> dict[int, Counter[int]]:
    """Return how many shadow pages of a kind lie at each gfn, by address space."""
    found = {as_id: Counter[int]() for as_id in range(len(kvm.memslots))}
    for page in kvm.active_mmu_pages.values():
        if (page.level > PG_LEVEL_4K) is upper:
            found[page.as_id][page.gfn] += 1
    return found


def huge_page_counters(kvm: Kvm) -> Found:
    """disallow_lpage is its mark plus the counts and the level-1 shadow pages in the frame."""
    leaves = shadow_pages_at(kvm, upper=False)
    for slot in published(kvm):
        forbidding = counts_of(kvm, slot)
        forbidding.update({g: n for g, n in leaves[slot.as_id].items() if slot.base_gfn <= g < slot.end_gfn})
        for level, entry in levels_of(kvm, slot):
            added: Counter[int] = Counter()
            for gfn, count in forbidding.items():
                added[gfn_to_index(Gfn(gfn), slot.base_gfn, level)] += count
            for index in sorted({*added, *entry.added}):
                right = entry.mark(index) + added[index]
                if right != entry.value(index):
                    yield slot.as_id, slot.id, first_gfn_of(slot, index, level), right, entry.value(index)


def ledger(kvm: Kvm) -> Found:
    """Every count covers the shadowed upper-level tables at its gfn, and is just that without any external tracker.

    What trackers add nobody writes down, except KVMGT in its protect table: that is 11.
    """
    tables = shadow_pages_at(kvm, upper=True)
    for slot in published(kvm):
        counts, shadowed = counts_of(kvm, slot), tables[slot.as_id]
        for gfn in sorted({*counts, *(g for g in shadowed if slot.base_gfn <= g < slot.end_gfn)}):
            most = _U16_MAX if kvm.trackers else shadowed[gfn]
            if not shadowed[gfn] <= counts[gfn] <= most:
                yield slot.as_id, slot.id, gfn, shadowed[gfn], counts[gfn]


def _vgpus(kvm: Kvm) -> Iterator[Kvmgt]:
    return (tracker for tracker in kvm.trackers.values() if isinstance(tracker, Kvmgt))


def protected(kvm: Kvm) -> Found:
    """Pages in KVMGT's protect table lie in a slot and have a count above that of shadow paging."""
    shadowed = shadow_pages_at(kvm, upper=True)[0]
    counts = {gfn: count for slot in kvm.slots() for gfn, count in counts_of(kvm, slot).items()}
    for vgpu in _vgpus(kvm):
        for gfn in vgpu.protect_table:
            slot = gfn_to_memslot(kvm.active(), gfn)
            if slot is None:
                yield 0, None, gfn, "a slot", "none"
            elif counts.get(gfn, 0) <= shadowed[gfn]:
                yield 0, slot.id, gfn, f"{shadowed[gfn] + 1} or more", counts.get(gfn, 0)


def believed(kvm: Kvm) -> Found:
    """Every page that KVMGT's tree calls tracked is in its protect table."""
    for vgpu in _vgpus(kvm):
        for gfn, tracked in vgpu.page_track_tree.items():
            if tracked and gfn not in vgpu.protect_table:
                yield 0, None, gfn, "in the protect table", "missing"


def huge_mappings(kvm: Kvm) -> Found:
    """disallow_lpage is not 0 where a frame holds a tracked page or cannot be mapped as a whole."""
    for slot in published(kvm):
        tracked = counts_of(kvm, slot)
        for level, entry in levels_of(kvm, slot):
            right = right_marks(slot, level)
            held = {gfn_to_index(Gfn(gfn), slot.base_gfn, level) for gfn in tracked}
            ends = {index for index in (0, 1, right.n - 1) if index < right.n and right.mark(index)}
            touched = {index for index in entry.added if right.mark(index)}
            for index in sorted(held | ends | touched):
                if index < entry.n and entry.value(index) == 0:
                    yield slot.as_id, slot.id, first_gfn_of(slot, index, level), "forbidden", "allowed"


def _homeless_shadow_pages(kvm: Kvm) -> Found:
    """Every shadow page lies in a slot, and none in an INVALID one that was flushed."""
    pending = kvm.pending
    flushed = pending is not None and any(phase.name == "zap" for phase in pending.phases[: pending.at])
    for page in kvm.active_mmu_pages.values():
        slot = gfn_to_memslot(kvm.active(page.as_id), page.gfn)
        if slot is None or (slot.invalid and flushed):
            yield (
                page.as_id,
                None if slot is None else slot.id,
                page.gfn,
                "no shadow page",
                f"one of level {page.level}",
            )


def homeless_sptes(kvm: Kvm) -> Found:
    """Every entry maps pages of a slot; a shadow page lies in one; and neither in one that was flushed."""
    yield from _homeless_shadow_pages(kvm)
    for key, spte in kvm.sptes.entries.items():
        as_id = as_id_of_owner(kvm, key[0])
        if as_id is None:
            yield None, None, spte.gfn, "a shadow page that owns it", "none"
        elif next(slots_in_gfn_range(kvm.active(as_id), spte.gfn, spte.gfn + spte.span), None) is None:
            yield as_id, None, spte.gfn, "no entry", f"one of level {spte.level}"


def writable_though_tracked(kvm: Kvm) -> Found:
    """No entry that maps a tracked gfn, in the address space of the count, lets the guest write."""
    for slot in published(kvm):
        for gfn in counts_of(kvm, slot):
            for _, spte in sptes_of_gfn(kvm, slot.as_id, gfn):
                if spte.writable or spte.mmu_writable:
                    yield slot.as_id, slot.id, gfn, "read-only", "writable" if spte.writable else "MMU-writable"


def shadow_page_count(kvm: Kvm) -> Found:
    """indirect_shadow_pages is the number of valid indirect shadow pages, and the hash finds each."""
    valid = sum(1 for page in kvm.active_mmu_pages.values() if page.mmu_valid_gen == kvm.mmu_valid_gen)
    if not valid == kvm.indirect_shadow_pages == len(kvm.mmu_page_hash):
        yield None, None, None, valid, kvm.indirect_shadow_pages
    for key, page in kvm.active_mmu_pages.items():
        if kvm.mmu_page_hash.get((page.gfn, page.level, page.as_id)) != key:
            yield page.as_id, None, page.gfn, "in the hash", "missing"
