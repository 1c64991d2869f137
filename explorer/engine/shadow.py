"""Paging in the guest: KVM's walk of its page tables, and the shadow pages that KVM makes of them without TDP.

Models arch/x86/kvm/mmu/paging_tmpl.h for tables of 64-bit entries: walk_addr_generic(), update_accessed_dirty_bits(),
fetch(), prefetch_gpte().
Not modelled: other formats of page tables, permissions but the write bit, 1 GiB pages, entries that stay in use
while a table is out of sync (each access reads the tables anew), faults that the guest itself would handle.
Read next: `tdp_walk`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from explorer.engine import mmu
from explorer.engine.dirty_log import mark_page_dirty_in_slot
from explorer.engine.events import PageMapped
from explorer.engine.fault import FIXED, access_entry, kvm_faultin_pfn, make_spte, prefetch_page
from explorer.engine.hostmem import hva_of_gpa, kvm_mmu_max_mapping_level, read_gpa, write_host
from explorer.engine.lookup import gfn_to_memslot, kvm_is_visible_gfn
from explorer.engine.page_track import kvm_gfn_is_write_tracked
from explorer.engine.spte import INDIRECT, direct_owners, install_spte, put_spte, spte_at
from explorer.engine.types import (
    PAGE_SHIFT,
    PG_LEVEL_2M,
    PG_LEVEL_4K,
    AsId,
    Gfn,
    Level,
    gpa_to_gfn,
)

if TYPE_CHECKING:
    from explorer.engine.draft import KvmDraft
    from explorer.engine.state import Spte, SpteKey
    from explorer.engine.types import Gpa

__all__ = [
    "ADDRESS",
    "LEVELS",
    "PRESENT",
    "Entry",
    "Walk",
    "ends_walk",
    "shadow_access",
    "table_index",
    "update_accessed_dirty_bits",
    "walk_guest_tables",
]

LEVELS = 4
PRESENT, _WRITABLE, _ACCESSED, _DIRTY, _LARGE = 1, 2, 1 << 5, 1 << 6, 1 << 7
ADDRESS = 0x000F_FFFF_FFFF_F000
_PTE_PREFETCH_NUM = 8
_TRIES = 4


class Entry(NamedTuple):
    """One guest page table entry on the way."""

    level: int
    gpa: Gpa | int
    """Where the entry lies."""
    pte: int


class Walk(NamedTuple):
    """A walk of the guest's page tables from the root to the page."""

    entries: tuple[Entry, ...]
    gfn: Gfn

    @classmethod
    def ending(cls, entries: tuple[Entry, ...], address: int) -> Walk:
        """Return the walk of an address whose last entry maps the page."""
        inside = (address >> PAGE_SHIFT) & ((1 << 9 * (entries[-1].level - 1)) - 1)
        return cls(entries, Gfn(((entries[-1].pte & ADDRESS) >> PAGE_SHIFT) + inside))

    @property
    def leaf(self) -> Entry:
        """The last entry."""
        return self.entries[-1]


def table_index(address: int, level: int) -> int:
    """Return which of a table's 512 entries an address goes through."""
    return address >> (PAGE_SHIFT + 9 * (level - 1)) & 0x1FF


def ends_walk(level: int, pte: int) -> bool:
    """Return whether a present entry maps a page and names no further table."""
    return level == PG_LEVEL_4K or (level == PG_LEVEL_2M and bool(pte & _LARGE))


def walk_guest_tables(kvm: KvmDraft, as_id: AsId, address: int) -> Walk | None:
    """Read the guest's tables for an address; None if a table cannot be read or an entry is not present.

    References
    ----------
    arch/x86/kvm/mmu/paging_tmpl.h: walk_addr_generic() [all profiles]
    """
    table, entries = kvm.vcpu.cr3 & ADDRESS, []
    for level in range(LEVELS, 0, -1):
        gpa = table + table_index(address, level) * 8
        pte = read_gpa(kvm, as_id, gpa, 8) if kvm_is_visible_gfn(kvm, as_id, gpa >> PAGE_SHIFT) else None
        if pte is None or not pte & PRESENT:
            return None
        entries.append(Entry(level, gpa, pte))
        table = pte & ADDRESS
        if ends_walk(level, pte):
            return Walk.ending(tuple(entries), address)
    raise AssertionError("the last level ends a walk")


def update_accessed_dirty_bits(kvm: KvmDraft, as_id: AsId, walk: Walk, *, write: bool, log: bool) -> None:
    """Set what the processor would: accessed in every entry, dirty in the last one of a write.

    `log` is whether KVM does it, and marks the tables it changed dirty; the processor's own writes are found
    through the entries that map the tables.

    References
    ----------
    arch/x86/kvm/mmu/paging_tmpl.h: update_accessed_dirty_bits() [all profiles]
    """
    for entry in walk.entries:
        pte = entry.pte | _ACCESSED | (_DIRTY if write and entry is walk.leaf else 0)
        if pte == entry.pte:
            continue
        hva = hva_of_gpa(kvm, as_id, entry.gpa, write=True)
        if hva is None:
            continue
        write_host(kvm, hva, pte, 8)
        slot = gfn_to_memslot(kvm.active(as_id), entry.gpa >> PAGE_SHIFT)
        if log and slot is not None:
            mark_page_dirty_in_slot(kvm, slot, entry.gpa >> PAGE_SHIFT)


# -- shadow pages ---------------------------------------------------------------------------------------


def shadow_access(kvm: KvmDraft, as_id: AsId, address: int, *, write: bool) -> tuple[str, Gfn | None]:
    """Access an address through shadow pages of the guest's tables; return the outcome and the page.

    A vCPU whose root cannot be used shuts down; a walk that fails is a page fault of the guest.

    References
    ----------
    arch/x86/kvm/mmu/mmu.c: mmu_alloc_shadow_roots() [all profiles]; arch/x86/kvm/mmu/paging_tmpl.h: page_fault()
    [all profiles]
    """
    root = gpa_to_gfn(kvm.vcpu.cr3 & ADDRESS)  # type: ignore[arg-type]
    if not kvm_is_visible_gfn(kvm, as_id, root):
        return "shutdown", None
    mmu.mmu_first_shadow_root_alloc(kvm)
    mmu.shadow_guest_table(kvm, root, LEVELS, as_id)
    for _ in range(_TRIES):
        walk = walk_guest_tables(kvm, as_id, address)
        if walk is None:
            return "page fault", None
        found = _shadow_entry(kvm, as_id, walk, address)
        if found is not None and access_entry(kvm, as_id, found, walk.gfn, write=write):
            return "ram", walk.gfn
        outcome = _page_fault(kvm, as_id, walk, address, found, write=write)
        if outcome != FIXED:
            return outcome, walk.gfn
    raise AssertionError(f"a fault on {address:#x} is repaired again and again")


def _shadow_entry(kvm: KvmDraft, as_id: AsId, walk: Walk, address: int) -> tuple[SpteKey, Spte] | None:
    """Return the shadow entry for an address, in the shadow of its last table or in a direct table below."""
    leaf = walk.leaf
    key = kvm.mmu_page_hash.get((gpa_to_gfn(leaf.gpa), leaf.level, as_id))  # type: ignore[arg-type]
    if key is None:
        return None
    found = spte_at(kvm, INDIRECT + key, table_index(address, leaf.level))
    if found is None and leaf.level > PG_LEVEL_4K:
        found = spte_at(kvm, direct_owners(as_id)[1], walk.gfn)
    return found


def _page_fault(
    kvm: KvmDraft, as_id: AsId, walk: Walk, address: int, found: tuple[SpteKey, Spte] | None, *, write: bool
) -> str:
    """Serve a fault of a guest with shadowed page tables.

    References
    ----------
    arch/x86/kvm/mmu/paging_tmpl.h: page_fault(), fetch() [all profiles]
    """
    kvm.enter("kvm_mmu_page_fault")
    update_accessed_dirty_bits(kvm, as_id, walk, write=write, log=True)
    gfn, leaf = walk.gfn, walk.leaf
    slot = gfn_to_memslot(kvm.active(as_id), gfn)
    if found is not None and write and kvm_gfn_is_write_tracked(kvm, slot, gfn):
        return "emulated"
    outcome, host_writable = kvm_faultin_pfn(kvm, as_id, gfn, write=write)
    if outcome != FIXED or slot is None:
        return outcome
    for entry in walk.entries[1:]:
        mmu.shadow_guest_table(kvm, gpa_to_gfn(entry.gpa), entry.level, as_id)  # type: ignore[arg-type]
    key = kvm.mmu_page_hash.get((gpa_to_gfn(leaf.gpa), leaf.level, as_id))  # type: ignore[arg-type]
    if key is None:
        return "retry"
    level = Level(min(leaf.level, kvm_mmu_max_mapping_level(kvm, slot, gfn)))
    # A page the guest has not written to yet is mapped read-only, so that the first write sets its D bit.
    clean = not write and not leaf.pte & _DIRTY
    spte, protected = make_spte(
        kvm,
        slot,
        gfn,
        level,
        host_writable=host_writable,
        access_writable=bool(leaf.pte & _WRITABLE) and not clean,
    )
    if level == leaf.level:
        put_spte(kvm, as_id, (INDIRECT + key, table_index(address, level)), spte._replace(span=1))
    else:
        install_spte(kvm, as_id, direct_owners(as_id)[1], spte)
    kvm.emit(PageMapped, gfn=spte.gfn, level=level, as_id=as_id, writable=spte.writable, prefetched=False)
    if leaf.level == PG_LEVEL_4K:
        _pte_prefetch(kvm, as_id, leaf, INDIRECT + key)
    return "emulated" if protected and write else FIXED


def _pte_prefetch(kvm: KvmDraft, as_id: AsId, leaf: Entry, owner: int) -> None:
    """Map neighbours whose guest entries are accessed already, up to the first that cannot be.

    References
    ----------
    arch/x86/kvm/mmu/paging_tmpl.h: pte_prefetch(), prefetch_gpte() [all profiles]
    """
    table, index = leaf.gpa & ADDRESS, (leaf.gpa & 0xFFF) // 8
    first = index & -_PTE_PREFETCH_NUM
    for at in range(first, first + _PTE_PREFETCH_NUM):
        if at == index or spte_at(kvm, owner, at) is not None:
            continue
        pte = read_gpa(kvm, as_id, table + at * 8, 8)
        if pte is None or not pte & PRESENT or not pte & _ACCESSED:
            return
        allowed = bool(pte & _WRITABLE) and bool(pte & _DIRTY)
        spte = prefetch_page(kvm, as_id, Gfn((pte & ADDRESS) >> PAGE_SHIFT), access_writable=allowed)
        if spte is None:
            return
        put_spte(kvm, as_id, (owner, at), spte)
