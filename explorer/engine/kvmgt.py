"""KVMGT's two tables: what it asked KVM to protect, and what it believes is tracked.

A guest page table of the GPU is registered, tracked and shadowed in one go. From then on ``page_track_tree`` says
*tracked* until KVMGT itself lets go; the protect table is emptied by region callbacks, too.

Models drivers/gpu/drm/i915/gvt/kvmgt.c, page_track.c and the life of a shadowed table in gtt.c.
Not modelled: failsafe mode, more than one reference to a shadowed table, that up to v6_1 the protect table is
read without a lock, so that a page may be let go between the test and the handler of one write.
Read next: `trackers`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from explorer.engine.events import TrackerForgot
from explorer.engine.gtt import (
    invalidate_shadow_entries,
    kvmgt_of,
    ppgtt_populate_spt,
    ppgtt_write_protection_handler,
    store_kvmgt,
)
from explorer.engine.lookup import gfn_to_memslot
from explorer.engine.page_track import kvm_write_track_add_gfn, kvm_write_track_remove_gfn, write_track_remove
from explorer.engine.types import PAGE_SHIFT, Errno, Gfn

if TYPE_CHECKING:
    from collections.abc import Iterator

    from explorer.engine.draft import KvmDraft
    from explorer.engine.state import Kvmgt, KvmMemorySlot

__all__ = [
    "by_tracker",
    "intel_vgpu_enable_page_track",
    "intel_vgpu_page_track_handler",
    "kvmgt_page_track_flush_slot",
    "kvmgt_page_track_remove_region",
    "kvmgt_page_track_write",
    "ppgtt_free_spt",
    "ppgtt_populate_spt_by_guest_entry",
]


def by_tracker(user: int) -> str:
    """Return the word under which a tracker's counts are reported."""
    return f"tracker {user}"


# -- tracking --------------------------------------------------------------------------------------


def ppgtt_populate_spt_by_guest_entry(kvm: KvmDraft, user: int, gfn: int) -> Errno | None:
    """Track a guest page table of the GPU, then shadow what is in it; what fails is undone.

    References
    ----------
    drivers/gpu/drm/i915/gvt/gtt.c: ppgtt_populate_spt_by_guest_entry() [all profiles]
    """
    vgpu = kvmgt_of(kvm, user)
    kvm.enter("intel_vgpu_register_page_track")
    store_kvmgt(kvm, user, vgpu._replace(page_track_tree=vgpu.page_track_tree.set(Gfn(gfn), False)))
    errno = intel_vgpu_enable_page_track(kvm, user, gfn)
    if errno is None:
        errno = ppgtt_populate_spt(kvm, user, Gfn(gfn))
    if errno is not None:
        ppgtt_free_spt(kvm, user, gfn)
    return errno


def ppgtt_free_spt(kvm: KvmDraft, user: int, gfn: int) -> None:
    """Drop the shadow of a table with its pins, then its tracking.

    References
    ----------
    drivers/gpu/drm/i915/gvt/gtt.c: ppgtt_free_spt() [all profiles]
    """
    if gfn in kvmgt_of(kvm, user).spts:
        invalidate_shadow_entries(kvm, user, Gfn(gfn))
    _intel_vgpu_unregister_page_track(kvm, user, gfn)


def intel_vgpu_enable_page_track(kvm: KvmDraft, user: int, gfn: int) -> Errno | None:
    """Track a registered page, unless the ``tracked`` flag says that it is.

    References
    ----------
    drivers/gpu/drm/i915/gvt/page_track.c: intel_vgpu_enable_page_track() [all profiles]
    """
    kvm.enter("intel_vgpu_enable_page_track")
    vgpu = kvmgt_of(kvm, user)
    if vgpu.page_track_tree.get(Gfn(gfn)):
        return None
    errno = _intel_gvt_page_track_add(kvm, user, gfn)
    if errno is None:
        vgpu = kvmgt_of(kvm, user)
        store_kvmgt(kvm, user, vgpu._replace(page_track_tree=vgpu.page_track_tree.set(Gfn(gfn), True)))
    return errno


def _intel_vgpu_unregister_page_track(kvm: KvmDraft, user: int, gfn: int) -> None:
    """Forget a page, and untrack it if the flag says that it is tracked.

    References
    ----------
    drivers/gpu/drm/i915/gvt/page_track.c: intel_vgpu_unregister_page_track() [all profiles]
    """
    kvm.enter("intel_vgpu_unregister_page_track")
    vgpu = kvmgt_of(kvm, user)
    tracked = vgpu.page_track_tree.get(Gfn(gfn))
    store_kvmgt(kvm, user, vgpu._replace(page_track_tree=vgpu.page_track_tree.discard(Gfn(gfn))))
    if tracked:
        _intel_gvt_page_track_remove(kvm, user, gfn)


def _intel_gvt_page_track_add(kvm: KvmDraft, user: int, gfn: int) -> Errno | None:
    """Ask KVM for a page once; the table of protected gfns filters repeats.

    References
    ----------
    drivers/gpu/drm/i915/gvt/kvmgt.c: intel_gvt_page_track_add() [v6_1 to v7_3; up to v6_1 the slot is
    looked up before the table is asked], kvmgt_page_track_add() [up to v5_10]
    """
    kvm.enter("intel_gvt_page_track_add")
    vgpu = kvmgt_of(kvm, user)
    if not vgpu.attached:
        return Errno.ESRCH
    if kvm.profile.external_lookup_precedes_table and gfn_to_memslot(kvm.active(0), gfn) is None:
        return Errno.EINVAL
    if gfn in vgpu.protect_table:
        return None
    errno = kvm_write_track_add_gfn(kvm, gfn, by_tracker(user))
    if errno is None:
        store_kvmgt(kvm, user, vgpu._replace(protect_table=vgpu.protect_table.set(Gfn(gfn), None)))
    return errno


def _intel_gvt_page_track_remove(kvm: KvmDraft, user: int, gfn: int) -> Errno | None:
    """Give a page back to KVM if the table of protected gfns has it.

    References
    ----------
    drivers/gpu/drm/i915/gvt/kvmgt.c: intel_gvt_page_track_remove() [v6_1 to v7_3; up to v6_1 the slot is
    looked up before the table is asked], kvmgt_page_track_remove() [up to v5_10]
    """
    kvm.enter("intel_gvt_page_track_remove")
    vgpu = kvmgt_of(kvm, user)
    if not vgpu.attached:
        return None if kvm.profile.detached_vgpu_untracks_silently else Errno.ESRCH
    if kvm.profile.external_lookup_precedes_table and gfn_to_memslot(kvm.active(0), gfn) is None:
        return Errno.EINVAL
    if gfn not in vgpu.protect_table:
        return None
    errno = kvm_write_track_remove_gfn(kvm, gfn, by_tracker(user))
    if errno is None:
        store_kvmgt(kvm, user, vgpu._replace(protect_table=vgpu.protect_table.discard(Gfn(gfn))))
    return errno


# -- callbacks -------------------------------------------------------------------------------------


def kvmgt_page_track_write(kvm: KvmDraft, user: int, gpa: int, nbytes: int) -> None:
    """Let the shadow follow a write to a page in the protect table; other writes are none of KVMGT's business.

    References
    ----------
    drivers/gpu/drm/i915/gvt/kvmgt.c: kvmgt_page_track_write() [all profiles]
    """
    kvm.enter("kvmgt_page_track_write")
    if gpa >> PAGE_SHIFT in kvmgt_of(kvm, user).protect_table:
        intel_vgpu_page_track_handler(kvm, user, gpa, nbytes)


def intel_vgpu_page_track_handler(kvm: KvmDraft, user: int, gpa: int, nbytes: int) -> Errno | None:
    """Hand a write to the shadow of its page, if the page still has one.

    References
    ----------
    drivers/gpu/drm/i915/gvt/page_track.c: intel_vgpu_page_track_handler() [all profiles]
    """
    if Gfn(gpa >> PAGE_SHIFT) not in kvmgt_of(kvm, user).spts:
        return Errno.ENXIO
    return ppgtt_write_protection_handler(kvm, user, gpa, nbytes)


def kvmgt_page_track_flush_slot(kvm: KvmDraft, user: int, slot: KvmMemorySlot) -> None:
    """Give up the counts and the protect table of a slot that is flushed; shadow and ``tracked`` flags stay.

    References
    ----------
    drivers/gpu/drm/i915/gvt/kvmgt.c: kvmgt_page_track_flush_slot() [up to v6_1]
    """
    kvm.enter("kvmgt_page_track_flush_slot")
    gfns = tuple(_protected_in(kvmgt_of(kvm, user), slot.base_gfn, slot.npages))
    for gfn in gfns:
        # On the slot that was passed, not on one found by lookup: old and its INVALID copy share counts.
        write_track_remove(kvm, slot, gfn, by_tracker(user))
    _forget(kvm, user, gfns)


def kvmgt_page_track_remove_region(kvm: KvmDraft, user: int, slot: KvmMemorySlot) -> None:
    """Forget the protect table of a slot that is gone; the counts died with it, shadow and flags stay.

    References
    ----------
    drivers/gpu/drm/i915/gvt/kvmgt.c: kvmgt_page_track_remove_region() [v6_6 to v7_3]
    """
    kvm.enter("kvmgt_page_track_remove_region")
    _forget(kvm, user, tuple(_protected_in(kvmgt_of(kvm, user), slot.base_gfn, slot.npages)))


def _protected_in(vgpu: Kvmgt, start: int, npages: int) -> Iterator[Gfn]:
    for gfn, _ in vgpu.protect_table.items_from(Gfn(start)):
        if gfn >= start + npages:
            return
        yield gfn


def _forget(kvm: KvmDraft, user: int, gfns: tuple[Gfn, ...]) -> None:
    vgpu = kvmgt_of(kvm, user)
    table = vgpu.protect_table
    for gfn in gfns:
        table = table.discard(gfn)
    store_kvmgt(kvm, user, vgpu._replace(protect_table=table))
    if gfns:
        kvm.emit(TrackerForgot, user=user, gfns=gfns)
