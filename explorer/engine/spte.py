"""What maps guest pages now: shadow page table entries, kept as runs of equal entries.

A direct table (TDP, or a guest without paging) maps a gfn at one place, so its entries are keyed by gfn and a
run of 4 KiB entries with equal bits is one. An indirect table shadows a guest page table: its entries are keyed
by their index in it, and `Sptes.rmap` leads from a gfn to them.

Models arch/x86/kvm/mmu/spte.h and the rmap walks of arch/x86/kvm/mmu/mmu.c: what to write-protect, to zap, to
split, of one slot or of one gfn.
Not modelled: accessed bits, access tracking, TLBs, 1 GiB mappings split in two steps, entries above the leaf.
Read next: `page_track`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from explorer.engine.events import MappingsProtected
from explorer.engine.types import PG_LEVEL_2M, PG_LEVEL_4K, Gfn, Level, pages_per_hpage

if TYPE_CHECKING:
    from collections.abc import Iterator

    from explorer.engine.draft import KvmDraft
    from explorer.engine.state import Kvm, KvmMemorySlot, Spte, SpteKey

__all__ = [
    "INDIRECT",
    "as_id_of_owner",
    "direct_owners",
    "drop_frame",
    "drop_page_sptes",
    "install_spte",
    "kvm_mmu_slot_gfn_write_protect",
    "mapped_4k",
    "put_spte",
    "rearm_dirty_pages",
    "set_spte_bits",
    "split_huge_sptes",
    "spte_at",
    "sptes_in",
    "sptes_of_gfn",
    "zap_sptes",
]

_SPACES = 2
INDIRECT = 16
"""Added to a shadow page's key to make the owner of its entries; owners below are direct tables."""


def direct_owners(as_id: int) -> tuple[int, int]:
    """Return the owners of direct entries: the direct root, and the tables below huge pages of the guest."""
    return as_id, as_id + _SPACES


def spte_at(kvm: KvmDraft | Kvm, owner: int, at: int) -> tuple[SpteKey, Spte] | None:
    """Return the entry that a table has for `at`, with its key; None if it is not present."""
    found = kvm.sptes.entries.floor((owner, at))
    if found is None or found[0][0] != owner or at >= found[0][1] + found[1].span:
        return None
    return found


def _pages(key: SpteKey, spte: Spte) -> int:
    return spte.span if key[0] < INDIRECT else pages_per_hpage(Level(spte.level))


# -- making and dropping entries -------------------------------------------------------------------


def put_spte(kvm: KvmDraft, as_id: int, key: SpteKey, spte: Spte) -> None:
    """Store one entry."""
    entries, rmap, _ = kvm.sptes
    if key[0] >= INDIRECT:
        rmap = rmap.set((as_id, spte.gfn, *key), None)
    kvm.sptes = kvm.sptes._replace(entries=entries.set(key, spte), rmap=rmap)


def _drop(kvm: KvmDraft, as_id: int, key: SpteKey, spte: Spte) -> None:
    entries, rmap, _ = kvm.sptes
    if key[0] >= INDIRECT:
        rmap = rmap.discard((as_id, spte.gfn, *key))
    kvm.sptes = kvm.sptes._replace(entries=entries.discard(key), rmap=rmap)


def install_spte(kvm: KvmDraft, as_id: int, owner: int, spte: Spte) -> None:
    """Map a page or a huge frame in a direct table, in the place of whatever was there.

    A smaller mapping below a huge one: the TDP MMU splits the huge one, so the frame's other pages stay
    mapped; the older MMU drops it.

    References
    ----------
    arch/x86/kvm/mmu/mmu.c: direct_map() [v6_6 to v7_3], __direct_map() [up to v6_1], drop_large_spte() [all
    profiles]; arch/x86/kvm/mmu/tdp_mmu.c: kvm_tdp_mmu_map(), tdp_mmu_split_huge_page() [v6_1 to v7_3]
    """
    covering = spte_at(kvm, owner, spte.gfn)
    if covering is not None and covering[1].level > spte.level and kvm.config.tdp_mmu_enabled:
        key, huge = covering
        put_spte(kvm, as_id, key, huge._replace(level=PG_LEVEL_4K))
    for key, old in _direct_in(kvm, owner, spte.gfn, spte.gfn + spte.span):
        _drop(kvm, as_id, key, old)
    put_spte(kvm, as_id, (owner, spte.gfn), spte)


def _cut(kvm: KvmDraft, owner: int, gfn: int) -> None:
    """Let a run of small entries end before `gfn` and another begin there; nothing that maps changes."""
    found = spte_at(kvm, owner, gfn)
    if found is None or found[1].level > PG_LEVEL_4K or found[0][1] == gfn:
        return
    (_, start), run = found
    entries = kvm.sptes.entries.set((owner, start), run._replace(span=gfn - start))
    rest = run._replace(gfn=Gfn(gfn), span=start + run.span - gfn)
    kvm.sptes = kvm.sptes._replace(entries=entries.set((owner, gfn), rest))


def _direct_in(kvm: KvmDraft, owner: int, start: int, end: int) -> list[tuple[SpteKey, Spte]]:
    """Return the entries of a direct table that touch ``[start, end)``, small ones cut to it."""
    _cut(kvm, owner, start)
    _cut(kvm, owner, end)
    first = spte_at(kvm, owner, start)
    found = [first] if first is not None and first[0][1] < start else []
    for key, spte in kvm.sptes.entries.items_from((owner, start)):
        if key[0] != owner or key[1] >= end:
            break
        found.append((key, spte))
    return found


def _indirect_in(kvm: KvmDraft | Kvm, as_id: int, start: int, end: int) -> Iterator[tuple[SpteKey, Spte]]:
    """Iterate over the entries of shadowed tables that map gfns of ``[start, end)``: a walk of the rmaps."""
    first = start & -pages_per_hpage(PG_LEVEL_2M)
    for space, gfn, owner, index in _rmap_from(kvm, as_id, first):
        if space != as_id or gfn >= end:
            return
        spte = kvm.sptes.entries[owner, index]
        if gfn + pages_per_hpage(Level(spte.level)) > start:
            yield (owner, index), spte


def _rmap_from(kvm: KvmDraft | Kvm, as_id: int, gfn: int) -> Iterator[tuple[int, int, int, int]]:
    for key, _ in kvm.sptes.rmap.items_from((as_id, gfn, 0, 0)):
        yield key


def sptes_of_gfn(kvm: Kvm, as_id: int, gfn: int) -> Iterator[tuple[SpteKey, Spte]]:
    """Iterate over the entries of an address space that map a gfn, as they are stored."""
    for owner in direct_owners(as_id):
        found = spte_at(kvm, owner, gfn)
        if found is not None:
            yield found
    yield from _indirect_in(kvm, as_id, gfn, gfn + 1)


def as_id_of_owner(kvm: Kvm, owner: int) -> int | None:
    """Return the address space of the table that owns entries, or None if there is no such table."""
    if owner < INDIRECT:
        return owner % _SPACES
    page = kvm.active_mmu_pages.get(owner - INDIRECT)
    return None if page is None else page.as_id


def sptes_in(kvm: KvmDraft, as_id: int, start: int, end: int) -> list[tuple[SpteKey, Spte]]:
    """Return every entry of an address space that maps gfns of ``[start, end)``."""
    found = [item for owner in direct_owners(as_id) for item in _direct_in(kvm, owner, start, end)]
    return [*found, *_indirect_in(kvm, as_id, start, end)]


def drop_frame(kvm: KvmDraft, as_id: int, owner: int, start: int, end: int) -> None:
    """Drop the entries that one direct table has for gfns of ``[start, end)``."""
    for key, spte in _direct_in(kvm, owner, start, end):
        _drop(kvm, as_id, key, spte)


def set_spte_bits(kvm: KvmDraft, as_id: int, owner: int, at: int) -> None:
    """Make the entry for one position writable and dirty: a huge entry whole, a run only there."""
    if owner < INDIRECT:
        _cut(kvm, owner, at)
        _cut(kvm, owner, at + 1)
    found = spte_at(kvm, owner, at)
    assert found is not None, "only a present entry gets other bits"
    put_spte(kvm, as_id, found[0], found[1]._replace(writable=True, dirty=True))


def drop_page_sptes(kvm: KvmDraft, as_id: int, owner: int) -> None:
    """Drop every entry of one shadow page, as the zap of the page does.

    References
    ----------
    arch/x86/kvm/mmu/mmu.c: kvm_mmu_page_unlink_children() [all profiles]
    """
    for key, spte in tuple(kvm.sptes.entries.items_from((owner, 0))):
        if key[0] != owner:
            return
        _drop(kvm, as_id, key, spte)


def zap_sptes(kvm: KvmDraft, as_id: int, start: int, end: int) -> None:
    """Drop every entry that maps gfns of ``[start, end)`` in one address space.

    References
    ----------
    arch/x86/kvm/mmu/mmu.c: kvm_unmap_gfn_range() [v6_1 to v7_3]
    """
    kvm.enter("kvm_unmap_gfn_range")
    for key, spte in sptes_in(kvm, as_id, start, end):
        _drop(kvm, as_id, key, spte)


# -- write protection ------------------------------------------------------------------------------


def kvm_mmu_slot_gfn_write_protect(kvm: KvmDraft, slot: KvmMemorySlot, gfn: int) -> bool:
    """Take write access to one gfn from every entry of the slot's address space; return whether one had it.

    A protected entry may not be made writable without asking again (its MMU-writable bit goes too). Entries
    of the other address space are not touched, and a huge entry that covers the gfn is not split.

    References
    ----------
    arch/x86/kvm/mmu/mmu.c: kvm_mmu_slot_gfn_write_protect() [all profiles]
    """
    kvm.enter("kvm_mmu_slot_gfn_write_protect")
    found = sptes_in(kvm, slot.as_id, gfn, gfn + 1)
    taken = [(key, spte) for key, spte in found if spte.writable or spte.mmu_writable]
    for key, spte in taken:
        put_spte(kvm, slot.as_id, key, spte._replace(writable=False, mmu_writable=False))
    if taken:
        kvm.emit(MappingsProtected, gfn=gfn, npages=1, as_id=slot.as_id, why="write tracking")
    return bool(taken)


def rearm_dirty_pages(kvm: KvmDraft, slot: KvmMemorySlot, start: int, end: int, *, least: Level = PG_LEVEL_4K) -> None:
    """See to it that the next write to gfns of ``[start, end)`` is noticed, for the dirty log.

    With PML it is enough to clear the D bit of small entries; else they lose write access. Huge ones lose it
    either way. All stay MMU-writable: the fault that follows gives the access back without asking. Entries below
    the level `least` stay as they are.

    References
    ----------
    arch/x86/kvm/mmu/mmu.c: kvm_mmu_slot_remove_write_access(), kvm_mmu_slot_leaf_clear_dirty(),
    kvm_arch_mmu_enable_log_dirty_pt_masked() [all profiles]
    """
    changed = 0
    for key, spte in sptes_in(kvm, slot.as_id, start, end):
        if spte.level < least:
            continue
        small = spte.level == PG_LEVEL_4K
        armed = spte._replace(dirty=False) if small and kvm.config.pml_enabled else spte._replace(writable=False)
        if armed != spte:
            put_spte(kvm, slot.as_id, key, armed)
            changed += min(key[1] + spte.span, end) - max(key[1], start) if key[0] < INDIRECT else 1
    if changed:
        kvm.emit(MappingsProtected, gfn=start, npages=changed, as_id=slot.as_id, why="dirty log")


def split_huge_sptes(kvm: KvmDraft, slot: KvmMemorySlot, start: int, end: int) -> None:
    """Turn huge entries of the TDP MMU into small ones with the same bits, before anybody writes.

    References
    ----------
    arch/x86/kvm/mmu/mmu.c: kvm_mmu_slot_try_split_huge_pages() [v6_1 to v7_3]
    """
    for key, spte in sptes_in(kvm, slot.as_id, start, end):
        if spte.level > PG_LEVEL_4K:
            put_spte(kvm, slot.as_id, key, spte._replace(level=PG_LEVEL_4K))


# -- counting --------------------------------------------------------------------------------------


def mapped_4k(kvm: Kvm, slot: KvmMemorySlot) -> int:
    """Return how many pages of a slot have a 4 KiB entry that an rmap leads to; the TDP MMU keeps no rmaps."""
    if slot.arch.rmap is None or kvm.config.tdp_mmu_enabled:
        return 0
    spans: list[tuple[int, int]] = []
    for owner in direct_owners(slot.as_id):
        first = spte_at(kvm, owner, slot.base_gfn)
        if first is not None and first[1].level == PG_LEVEL_4K:
            spans.append((slot.base_gfn, min(slot.end_gfn, first[0][1] + first[1].span)))
        for (table, gfn), spte in kvm.sptes.entries.items_from((owner, slot.base_gfn)):
            if table != owner or gfn >= slot.end_gfn:
                break
            if spte.level == PG_LEVEL_4K:
                spans.append((gfn, min(slot.end_gfn, gfn + spte.span)))
    spans += [
        (spte.gfn, spte.gfn + 1)
        for _, spte in _indirect_in(kvm, slot.as_id, slot.base_gfn, slot.end_gfn)
        if spte.level == PG_LEVEL_4K
    ]
    total, reached = 0, 0
    for start, end in sorted(spans):
        total += max(0, end - max(start, reached))
        reached = max(reached, end)
    return total
