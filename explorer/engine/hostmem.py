"""The VMM's memory below the slots: which host pages there are, how large, and the bytes in them.

A page that somebody wrote to, the VMM or KVM for the guest, is mapped writable by the host from then on; with
transparent huge pages its whole 2 MiB are. KVM maps guest memory as large as the host does and the slot's
`lpage_info` allows.

Models the answers of hva_to_pfn() in virt/kvm/kvm_main.c, host_pfn_mapping_level() and
kvm_mmu_max_mapping_level() in arch/x86/kvm/mmu/mmu.c.
Not modelled: host physical frames, 1 GiB host pages, reclaim and every other MMU-notifier event, what the VMM
has mapped but for its lowest address. Read next: `dirty_log`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from explorer.engine.lookup import KVM_HVA_ERR_BAD, KVM_HVA_ERR_RO_BAD, gfn_to_hva, gfn_to_memslot
from explorer.engine.state import LpageInfo
from explorer.engine.types import (
    PAGE_SHIFT,
    PAGE_SIZE,
    PG_LEVEL_2M,
    PG_LEVEL_4K,
    U64_MAX,
    Errno,
    Hva,
    Level,
    gfn_to_index,
)
from explorer.engine.uapi import KVM_MEM_LOG_DIRTY_PAGES, KVM_MEM_READONLY

if TYPE_CHECKING:
    from collections.abc import Iterator

    from explorer.engine.draft import KvmDraft
    from explorer.engine.state import KvmMemorySlot
    from explorer.engine.types import Gfn

__all__ = [
    "build_page_tables",
    "host_page_is_there",
    "host_touch",
    "hva_of_gpa",
    "kvm_mmu_max_mapping_level",
    "maps_writable",
    "read_gpa",
    "read_host",
    "touch",
    "words_in_host_page",
    "write_host",
]

_HUGE_SHIFT = 21
_WORD = 8
_MOST = 1 << 30
_ENTRIES = 512
_TABLE_BITS = 0x3
"""Present, writable; accessed and dirty are clear."""
_LARGE = 0x80


# -- pages -----------------------------------------------------------------------------------------


def _host_shift(kvm: KvmDraft) -> int:
    return _HUGE_SHIFT if kvm.config.host_huge_pages else PAGE_SHIFT


def touch(kvm: KvmDraft, hva: int) -> None:
    """Let the host have a writable page at `hva`."""
    page = hva >> _host_shift(kvm)
    if page not in kvm.host.present:
        kvm.host = kvm.host._replace(present=kvm.host.present.set(page, None))


def host_page_is_there(kvm: KvmDraft, hva: int) -> bool:
    """Return whether the host maps a writable page at `hva` already."""
    return hva >> _host_shift(kvm) in kvm.host.present


def kvm_mmu_max_mapping_level(kvm: KvmDraft, slot: KvmMemorySlot, gfn: Gfn) -> Level:
    """Return the largest level at which a page may be mapped: by the slot's counters, then by the host's pages.

    References
    ----------
    arch/x86/kvm/mmu/mmu.c: kvm_mmu_max_mapping_level(), kvm_mmu_hugepage_adjust() for the dirty log,
    host_pfn_mapping_level() [v6_1 to v7_3]
    """
    if slot.flags & KVM_MEM_LOG_DIRTY_PAGES or not kvm.config.host_huge_pages:
        return PG_LEVEL_4K
    info = kvm.heap.get(slot.arch.lpage_info) if slot.arch.lpage_info is not None else None
    if not isinstance(info, LpageInfo):
        return PG_LEVEL_4K
    entry = info.levels[0]
    index = gfn_to_index(gfn, slot.base_gfn, PG_LEVEL_2M)
    return PG_LEVEL_4K if index >= entry.n or entry.value(index) else PG_LEVEL_2M


# -- bytes -----------------------------------------------------------------------------------------


def write_host(kvm: KvmDraft, hva: int, value: int, nbytes: int) -> None:
    """Store a little-endian number at a host address."""
    touch(kvm, hva)
    words, word, shift = kvm.host.words, hva // _WORD, hva % _WORD * 8
    mask = (1 << 8 * nbytes) - 1
    value, mask = (value & mask) << shift, mask << shift
    while mask:
        old = words.get(word, 0)
        new = (old & ~mask | value) & U64_MAX
        if new != old:
            words = words.set(word, new) if new else words.discard(word)
        value, mask, word = value >> 64, mask >> 64, word + 1
    if words is not kvm.host.words:
        kvm.host = kvm.host._replace(words=words)


def read_host(kvm: KvmDraft, hva: int, nbytes: int) -> int:
    """Return the little-endian number at a host address; memory nobody wrote to is zero."""
    words, first, shift = kvm.host.words, hva // _WORD, hva % _WORD * 8
    value = words.get(first, 0) >> shift
    for word in range(first + 1, (hva + nbytes - 1) // _WORD + 1):
        value |= words.get(word, 0) << ((word - first) * _WORD * 8 - shift)
    return value & ((1 << 8 * nbytes) - 1)


def words_in_host_page(kvm: KvmDraft, hva: Hva) -> Iterator[tuple[int, int]]:
    """Iterate over the words of a page that are not zero: which of the page it is, and the number in it."""
    first = hva // _WORD
    for word, value in kvm.host.words.items_from(first):
        if word >= first + PAGE_SIZE // _WORD:
            return
        yield word - first, value


def read_gpa(kvm: KvmDraft, as_id: int, gpa: int, nbytes: int) -> int | None:
    """Return what a slot holds at a guest address, or None if no slot a reader may use does.

    References
    ----------
    virt/kvm/kvm_main.c: __kvm_read_guest_page() [all profiles]
    """
    hva = hva_of_gpa(kvm, as_id, gpa, write=False)
    return None if hva is None else read_host(kvm, hva, nbytes)


def hva_of_gpa(kvm: KvmDraft, as_id: int, gpa: int, *, write: bool) -> Hva | None:
    """Return the host address behind a guest address; None if there is no usable slot or nothing behind it.

    References
    ----------
    virt/kvm/kvm_main.c: gfn_to_hva_many() and the copy through it [all profiles]
    """
    slots = kvm.active(as_id)
    hva = gfn_to_hva(slots, gpa >> PAGE_SHIFT, write=write)
    if hva in (KVM_HVA_ERR_BAD, KVM_HVA_ERR_RO_BAD):
        return None
    slot = gfn_to_memslot(slots, gpa >> PAGE_SHIFT)
    assert slot is not None, "an address comes from a slot"
    if hva < kvm.config.vmm_memory_start and slot.id < kvm.profile.user_mem_slots:
        return None
    return Hva(hva + gpa % PAGE_SIZE)


def maps_writable(kvm: KvmDraft, slot: KvmMemorySlot, hva: int, *, write: bool) -> bool:
    """Return whether a fault gets a page it may map writable: a write always does, a read if it is there.

    References
    ----------
    virt/kvm/kvm_main.c: hva_to_pfn_fast(), hva_to_pfn_slow() [all profiles]
    """
    if write:
        touch(kvm, hva)
        return True
    return not slot.flags & KVM_MEM_READONLY and host_page_is_there(kvm, hva)


# -- what the VMM does -----------------------------------------------------------------------------


def host_touch(kvm: KvmDraft, hva: int, size: int, value: int) -> Errno | None:
    """Store one byte at the start of each page of a range; beyond 1 GiB the VMM has no memory to spare."""
    if size > _MOST:
        return Errno.ENOMEM
    for page in range(hva, hva + size, PAGE_SIZE if value else 1 << _host_shift(kvm)):
        write_host(kvm, page, value, 1)
    touch(kvm, hva + max(size - 1, 0))
    return None


def build_page_tables(kvm: KvmDraft, gpa: int, hva: int) -> None:
    """Write four pages of page tables that map the first GiB to itself, the first 2 MiB by small pages."""
    tables = [gpa + level * PAGE_SIZE for level in range(4)]
    for at in (0, 1):
        write_host(kvm, hva + at * PAGE_SIZE, tables[at + 1] | _TABLE_BITS, _WORD)
    for index in range(_ENTRIES):
        large = tables[3] | _TABLE_BITS if index == 0 else index << _HUGE_SHIFT | _TABLE_BITS | _LARGE
        write_host(kvm, hva + 2 * PAGE_SIZE + index * _WORD, large, _WORD)
        write_host(kvm, hva + 3 * PAGE_SIZE + index * _WORD, index << PAGE_SHIFT | _TABLE_BITS, _WORD)
