"""KVMGT's shadow of the GPU's page tables: what the GPU really uses, and how it follows the guest's own entries.

A guest page table of the GPU (PPGTT, last level) is read once when it is first tracked, and an entry again whenever
the guest's write to it is reported. Each entry that is present pins a page through VFIO and leads the GPU to the
host page that was behind the gfn then. Nothing here hears of a MOVE: what is pinned stays, and what is not reported
is not read.

Models drivers/gpu/drm/i915/gvt/gtt.c and gvt_cache_*() of kvmgt.c.
Not modelled: upper levels of the GPU's tables, entries of 64 KiB and larger, its global table, out-of-sync mode
(compiled off), failsafe mode, the VMM's DMA mappings, which are taken to lie as the slots do, and their end, which
would drop pins. Read next: `kvmgt`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from explorer.engine.events import GpuEntryShadowed
from explorer.engine.hostmem import read_host, touch, words_in_host_page
from explorer.engine.lookup import gfn_to_memslot, kvm_is_visible_gfn
from explorer.engine.state import GvtDma, Kvmgt, ShadowEntry, Spt
from explorer.engine.types import PAGE_SHIFT, AsId, Errno, Gfn, Hva

if TYPE_CHECKING:
    from collections.abc import Iterator

    from explorer.engine.draft import KvmDraft

__all__ = [
    "intel_vgpu_flush_post_shadow",
    "invalidate_shadow_entries",
    "kvmgt_of",
    "page_named_by",
    "ppgtt_populate_spt",
    "ppgtt_write_protection_handler",
    "store_kvmgt",
]

_PRESENT = 1
_ADDRESS = 0x3FFF_FFFF_F000
"""GTT_HAW is 46 bits."""
_ENTRY_SHIFT, _ENTRY_BYTES = 3, 8


def page_named_by(pte: int) -> Gfn | None:
    """Return the guest page that an entry of the guest's table names; None if the entry is not present."""
    return Gfn((pte & _ADDRESS) >> PAGE_SHIFT) if pte & _PRESENT else None


def kvmgt_of(kvm: KvmDraft, user: int) -> Kvmgt:
    """Return the tables of a vGPU."""
    tracker = kvm.trackers[user]
    assert isinstance(tracker, Kvmgt), "only KVMGT has tables"
    return tracker


def store_kvmgt(kvm: KvmDraft, user: int, vgpu: Kvmgt) -> None:
    """Keep the tables of a vGPU."""
    kvm.trackers = kvm.trackers.set(user, vgpu)


# -- guest memory, through VFIO --------------------------------------------------------------------


def _hva_of_iova(kvm: KvmDraft, gfn: int) -> Hva | None:
    """Return the VMM's memory that VFIO has at a DMA address; a slot that KVM made INVALID is still mapped there."""
    slot = gfn_to_memslot(kvm.active(0), gfn)
    if slot is None:
        return None
    hva = Hva(slot.userspace_addr + ((gfn - slot.base_gfn) << PAGE_SHIFT))
    return None if hva < kvm.config.vmm_memory_start else hva


def _hva_of_table(kvm: KvmDraft, table: Gfn) -> Hva | None:
    hva = _hva_of_iova(kvm, table)
    if hva is None:
        kvm.warn("gtt_get_entry64", f"the guest's table at gfn {table:#x} cannot be read: no slot holds it")
    return hva


def _ppgtt_get_guest_entry(kvm: KvmDraft, table: Gfn, index: int) -> int | None:
    """Read one entry of the guest's table at the address it had when it was shadowed; None if that fails.

    References
    ----------
    drivers/gpu/drm/i915/gvt/gtt.c: ppgtt_get_guest_entry(), gtt_get_entry64(), which WARNs [all profiles]
    """
    hva = _hva_of_table(kvm, table)
    return None if hva is None else read_host(kvm, hva + index * _ENTRY_BYTES, _ENTRY_BYTES)


def _ppgtt_get_guest_entries(kvm: KvmDraft, table: Gfn) -> Iterator[tuple[int, int]]:
    """Read the entries of the guest's table that are not zero; if it cannot be read, WARN for all of them once.

    References
    ----------
    drivers/gpu/drm/i915/gvt/gtt.c: for_each_present_guest_entry() [all profiles]
    """
    hva = _hva_of_table(kvm, table)
    return iter(()) if hva is None else words_in_host_page(kvm, hva)


def _dma_map_guest_page(kvm: KvmDraft, user: int, gfn: Gfn) -> Hva | None:
    """Pin a page, or count one more user of one that is pinned: that is not looked up again.

    References
    ----------
    drivers/gpu/drm/i915/gvt/kvmgt.c: intel_gvt_dma_map_guest_page() [v6_1 to v7_3],
    kvmgt_dma_map_guest_page() [up to v5_10]
    """
    kvm.enter("intel_gvt_dma_map_guest_page")
    vgpu = kvmgt_of(kvm, user)
    pinned = vgpu.gfn_cache.get(gfn)
    hva = _hva_of_iova(kvm, gfn) if pinned is None else pinned.hva
    if hva is None:
        return None
    touch(kvm, hva)
    ref = 1 if pinned is None else pinned.ref + 1
    store_kvmgt(kvm, user, vgpu._replace(gfn_cache=vgpu.gfn_cache.set(gfn, GvtDma(hva, ref))))
    return hva


def _dma_unmap_guest_page(kvm: KvmDraft, user: int, gfn: Gfn) -> None:
    """Unpin a page when its last shadow entry goes.

    References
    ----------
    drivers/gpu/drm/i915/gvt/kvmgt.c: intel_gvt_dma_unmap_guest_page() [v6_1 to v7_3],
    kvmgt_dma_unmap_guest_page() [up to v5_10]
    """
    kvm.enter("intel_gvt_dma_unmap_guest_page")
    vgpu = kvmgt_of(kvm, user)
    pinned = vgpu.gfn_cache[gfn]
    left = pinned.ref - 1
    cache = vgpu.gfn_cache.set(gfn, GvtDma(pinned.hva, left)) if left else vgpu.gfn_cache.discard(gfn)
    store_kvmgt(kvm, user, vgpu._replace(gfn_cache=cache))


# -- shadow entries --------------------------------------------------------------------------------


def _set_shadow_entry(kvm: KvmDraft, user: int, table: Gfn, index: int, entry: ShadowEntry | None) -> None:
    vgpu = kvmgt_of(kvm, user)
    spt = vgpu.spts[table]
    entries = spt.entries.discard(index) if entry is None else spt.entries.set(index, entry)
    store_kvmgt(kvm, user, vgpu._replace(spts=vgpu.spts.set(table, spt._replace(entries=entries))))
    kvm.emit(GpuEntryShadowed, user=user, table=table, index=index, page=None if entry is None else entry.gfn)


def _ppgtt_populate_shadow_entry(kvm: KvmDraft, user: int, table: Gfn, index: int, pte: int) -> Errno | None:
    """Lead one entry to the host page that is behind the guest's page now.

    References
    ----------
    drivers/gpu/drm/i915/gvt/gtt.c: ppgtt_populate_shadow_entry() [all profiles]
    """
    gfn = page_named_by(pte)
    if gfn is None:
        return None
    hva = _dma_map_guest_page(kvm, user, gfn)
    if hva is None:
        return Errno.ENXIO
    _set_shadow_entry(kvm, user, table, index, ShadowEntry(gfn, hva))
    return None


def ppgtt_populate_spt(kvm: KvmDraft, user: int, table: Gfn) -> Errno | None:
    """Shadow every entry of a table that is present.

    References
    ----------
    drivers/gpu/drm/i915/gvt/gtt.c: ppgtt_populate_spt() [all profiles; up to v6_1 a page in no slot becomes
    scratch, from v6_6 on the pin fails]
    """
    kvm.enter("ppgtt_populate_spt")
    vgpu = kvmgt_of(kvm, user)
    store_kvmgt(kvm, user, vgpu._replace(spts=vgpu.spts.set(table, Spt())))
    for index, pte in _ppgtt_get_guest_entries(kvm, table):
        gfn = page_named_by(pte)
        if gfn is None:
            continue
        if kvm.profile.gpu_page_outside_slots_is_scratch and not kvm_is_visible_gfn(kvm, AsId(0), gfn):
            continue
        errno = _ppgtt_populate_shadow_entry(kvm, user, table, index, pte)
        if errno is not None:
            return errno
    return None


def invalidate_shadow_entries(kvm: KvmDraft, user: int, table: Gfn) -> None:
    """Unpin what the entries of a table lead to, and forget the shadow.

    References
    ----------
    drivers/gpu/drm/i915/gvt/gtt.c: ppgtt_invalidate_spt(), ppgtt_free_spt() [all profiles]
    """
    kvm.enter("ppgtt_invalidate_spt")
    for entry in kvmgt_of(kvm, user).spts[table].entries.values():
        _dma_unmap_guest_page(kvm, user, entry.gfn)
    vgpu = kvmgt_of(kvm, user)
    store_kvmgt(kvm, user, vgpu._replace(spts=vgpu.spts.discard(table)))


# -- guest writes ----------------------------------------------------------------------------------


def _ppgtt_handle_guest_write_page_table(kvm: KvmDraft, user: int, table: Gfn, index: int, pte: int) -> Errno | None:
    """Let an entry follow the guest's: add the new one first, then remove the old one.

    References
    ----------
    drivers/gpu/drm/i915/gvt/gtt.c: ppgtt_handle_guest_write_page_table() [all profiles]
    """
    old = kvmgt_of(kvm, user).spts[table].entries.get(index)
    errno = _ppgtt_populate_shadow_entry(kvm, user, table, index, pte)
    if errno is not None:
        return errno
    if old is not None:
        _dma_unmap_guest_page(kvm, user, old.gfn)
        if not pte & _PRESENT:
            _set_shadow_entry(kvm, user, table, index, None)
    return None


def ppgtt_write_protection_handler(kvm: KvmDraft, user: int, gpa: int, nbytes: int) -> Errno | None:
    """Follow one reported write: a whole entry at once, half an entry when the guest submits work.

    References
    ----------
    drivers/gpu/drm/i915/gvt/gtt.c: ppgtt_write_protection_handler(), ppgtt_handle_guest_write_page_table_bytes()
    [all profiles]
    """
    if nbytes not in (_ENTRY_BYTES // 2, _ENTRY_BYTES):
        return Errno.EINVAL
    kvm.enter("ppgtt_write_protection_handler")
    table, index = Gfn(gpa >> PAGE_SHIFT), (gpa & 0xFFF) >> _ENTRY_SHIFT
    pte = _ppgtt_get_guest_entry(kvm, table, index)
    if pte is None:
        return None
    if nbytes == _ENTRY_BYTES:
        return _ppgtt_handle_guest_write_page_table(kvm, user, table, index, pte)
    spt = kvmgt_of(kvm, user).spts[table]
    old = spt.entries.get(index)
    if index not in spt.post_shadow_bitmap and old is not None:
        _dma_unmap_guest_page(kvm, user, old.gfn)
        _set_shadow_entry(kvm, user, table, index, None)
    _mark_post_shadow(kvm, user, table, index, set_bit=True)
    return None


def _mark_post_shadow(kvm: KvmDraft, user: int, table: Gfn, index: int, *, set_bit: bool) -> None:
    vgpu = kvmgt_of(kvm, user)
    spt = vgpu.spts[table]
    bitmap = spt.post_shadow_bitmap.set(index, None) if set_bit else spt.post_shadow_bitmap.discard(index)
    store_kvmgt(kvm, user, vgpu._replace(spts=vgpu.spts.set(table, spt._replace(post_shadow_bitmap=bitmap))))


def intel_vgpu_flush_post_shadow(kvm: KvmDraft, user: int) -> Errno | None:
    """Read the half written entries again, because the guest submits work.

    A table that cannot be read WARNs; what KVMGT then makes of the entry is left out here, so it stays scratch.

    References
    ----------
    drivers/gpu/drm/i915/gvt/gtt.c: intel_vgpu_flush_post_shadow() [all profiles]
    """
    kvm.enter("intel_vgpu_flush_post_shadow")
    for table, spt in kvmgt_of(kvm, user).spts.items():
        for index in spt.post_shadow_bitmap:
            pte = _ppgtt_get_guest_entry(kvm, table, index)
            if pte is not None:
                errno = _ppgtt_handle_guest_write_page_table(kvm, user, table, index, pte)
                if errno is not None:
                    return errno
            _mark_post_shadow(kvm, user, table, index, set_bit=False)
    return None
