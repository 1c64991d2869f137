"""Dirty logging: which pages of a slot were written since somebody asked.

Models virt/kvm/kvm_main.c: kvm_get_dirty_log_protect(), kvm_clear_dirty_log_protect(),
mark_page_dirty_in_slot(); the accounting of arch/x86/kvm/x86.c: kvm_mmu_slot_apply_flags().
Not modelled: the dirty ring, PML, write-protecting SPTEs again after a read. Read next: `apply`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from explorer.engine.events import DirtyLogCleared, DirtyLogRead, PageMarkedDirty
from explorer.engine.lookup import id_to_memslot
from explorer.engine.runset import RunSet
from explorer.engine.state import DirtyBitmap
from explorer.engine.types import ArrayId, Errno
from explorer.engine.uapi import (
    KVM_DIRTY_LOG_INITIALLY_SET,
    KVM_DIRTY_LOG_MANUAL_PROTECT_ENABLE,
    KVM_MEM_LOG_DIRTY_PAGES,
)

if TYPE_CHECKING:
    from explorer.engine.draft import KvmDraft
    from explorer.engine.state import KvmMemorySlot

__all__ = [
    "account_dirty_logging",
    "enable_manual_protect",
    "kvm_clear_dirty_log_protect",
    "kvm_get_dirty_log_protect",
    "mark_page_dirty_in_slot",
]

_WORD = 64


def mark_page_dirty_in_slot(kvm: KvmDraft, slot: KvmMemorySlot, gfn: int) -> None:
    """Set the bit of a page if its slot is logged.

    References
    ----------
    virt/kvm/kvm_main.c: mark_page_dirty_in_slot() [all profiles]
    """
    found = _bitmap(kvm, slot)
    if found is None:
        return
    array_id, bitmap = found
    index = gfn - slot.base_gfn
    kvm.heap = kvm.heap.set(array_id, DirtyBitmap(bitmap.npages, bitmap.dirty.add(index)))
    kvm.emit(PageMarkedDirty, slot=slot.id, as_id=slot.as_id, index=index)


def _bitmap(kvm: KvmDraft, slot: KvmMemorySlot | None) -> tuple[ArrayId, DirtyBitmap] | None:
    if slot is None or slot.dirty_bitmap is None:
        return None
    bitmap = kvm.heap.get(slot.dirty_bitmap)
    return (slot.dirty_bitmap, bitmap) if isinstance(bitmap, DirtyBitmap) else None


def kvm_get_dirty_log_protect(kvm: KvmDraft, slot_id: int, as_id: int) -> Errno | None:
    """Report the dirty pages of a slot; without manual protection, clear them too.

    References
    ----------
    virt/kvm/kvm_main.c: kvm_get_dirty_log_protect() [all profiles]
    """
    kvm.enter("kvm_get_dirty_log_protect")
    if as_id >= len(kvm.memslots) or slot_id >= kvm.profile.user_mem_slots:
        return Errno.EINVAL
    found = _bitmap(kvm, id_to_memslot(kvm.active(as_id), slot_id))
    if found is None:
        return Errno.ENOENT
    array_id, bitmap = found
    if kvm.events is not None:
        kvm.events.append(
            DirtyLogRead(slot=slot_id, as_id=as_id, runs=tuple(bitmap.dirty.runs()), count=len(bitmap.dirty))
        )
    if not kvm.manual_dirty_log_protect:
        kvm.heap = kvm.heap.set(array_id, DirtyBitmap(bitmap.npages, RunSet()))
    return None


def kvm_clear_dirty_log_protect(
    kvm: KvmDraft, slot_id: int, as_id: int, first_page: int, num_pages: int
) -> Errno | None:
    """Clear the dirty pages of a range; it must be in whole words or reach the end of the slot.

    References
    ----------
    virt/kvm/kvm_main.c: kvm_clear_dirty_log_protect() [all profiles]
    """
    kvm.enter("kvm_clear_dirty_log_protect")
    if as_id >= len(kvm.memslots) or slot_id >= kvm.profile.user_mem_slots:
        return Errno.EINVAL
    if first_page % _WORD:
        return Errno.EINVAL
    found = _bitmap(kvm, id_to_memslot(kvm.active(as_id), slot_id))
    if found is None:
        return Errno.ENOENT
    array_id, bitmap = found
    reaches_end = first_page + num_pages == bitmap.npages
    if first_page > bitmap.npages or num_pages > bitmap.npages - first_page or (num_pages % _WORD and not reaches_end):
        return Errno.EINVAL
    dirty = bitmap.dirty.remove_span(first_page, first_page + num_pages)
    kvm.emit(DirtyLogCleared, slot=slot_id, as_id=as_id, count=len(bitmap.dirty) - len(dirty))
    kvm.heap = kvm.heap.set(array_id, DirtyBitmap(bitmap.npages, dirty))
    return None


def enable_manual_protect(kvm: KvmDraft, arg: int) -> Errno | None:
    """Choose who clears the log: INITIALLY_SET needs MANUAL_PROTECT_ENABLE.

    References
    ----------
    virt/kvm/kvm_main.c: kvm_vm_ioctl_enable_cap_generic() [all profiles]
    """
    allowed = KVM_DIRTY_LOG_MANUAL_PROTECT_ENABLE
    if arg & KVM_DIRTY_LOG_MANUAL_PROTECT_ENABLE:
        allowed |= KVM_DIRTY_LOG_INITIALLY_SET
    if arg & ~allowed:
        return Errno.EINVAL
    kvm.manual_dirty_log_protect = arg
    return None


def account_dirty_logging(kvm: KvmDraft, old: KvmMemorySlot | None, new: KvmMemorySlot | None) -> None:
    """Count the slots that are logged; an absent slot is not.

    References
    ----------
    virt/kvm/kvm_main.c: kvm_commit_memory_region() [v6_6 to v7_3; a VM-wide count in x86.c in v6_1]
    """
    before = old is not None and bool(old.flags & KVM_MEM_LOG_DIRTY_PAGES)
    after = new is not None and bool(new.flags & KVM_MEM_LOG_DIRTY_PAGES)
    kvm.nr_memslots_dirty_logging += after - before
