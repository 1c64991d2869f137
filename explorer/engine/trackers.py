"""The actors outside KVM that ask for write tracking, each with tables of its own.

Two kinds: one that only logs its callbacks (the recordings' stand-in), and one that behaves like KVMGT,
which keeps two tables that can disagree: the gfns it asked KVM to protect, and the guest table pages it
shadows, each with a ``tracked`` flag that region callbacks do not touch.

Models arch/x86/kvm/mmu/page_track.c: registration and fan-out; drivers/gpu/drm/i915/gvt/kvmgt.c and
page_track.c: attach, detach, enable, disable and the region callbacks.
Not modelled: shadow page tables of the GPU, pinned host pages, failsafe mode. Read next: `mmu`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from explorer.engine.events import TrackerAttached, TrackerDetached, TrackerForgot, TrackerNotified
from explorer.engine.lookup import gfn_to_memslot
from explorer.engine.page_track import (
    kvm_enable_external_write_tracking,
    kvm_write_track_add_gfn,
    kvm_write_track_remove_gfn,
    write_track_remove,
)
from explorer.engine.state import Kvmgt, LogTracker, TrackerNote
from explorer.engine.types import Errno, Gfn

if TYPE_CHECKING:
    from collections.abc import Iterator

    from explorer.engine.draft import KvmDraft
    from explorer.engine.state import KvmMemorySlot

__all__ = [
    "attach_tracker",
    "detach_tracker",
    "kvm_page_track_delete_slot",
    "kvm_page_track_write",
    "notify_flush_slot",
    "track_gfn",
    "untrack_gfn",
]


def _by(user: int) -> str:
    return f"tracker {user}"


# -- registration ----------------------------------------------------------------------------------


def attach_tracker(kvm: KvmDraft, user: int, kind: str) -> Errno | None:
    """Register a tracker: EBUSY for a logging one that is attached, EEXIST for a second vGPU.

    References
    ----------
    drivers/gpu/drm/i915/gvt/kvmgt.c: intel_vgpu_open_device() [all profiles]
    """
    known = kvm.trackers.get(user)
    if known is not None and known.attached:
        return Errno.EEXIST if isinstance(known, Kvmgt) else Errno.EBUSY
    if kind == "kvmgt" and any(isinstance(t, Kvmgt) and t.attached for t in kvm.trackers.values()):
        return Errno.EEXIST
    errno = _kvm_page_track_register_notifier(kvm, user)
    if errno is not None:
        return errno
    if kind == "kvmgt":
        kvm.trackers = kvm.trackers.set(user, Kvmgt(attached=True))
    else:
        kept = known if isinstance(known, LogTracker) else LogTracker()
        kvm.trackers = kvm.trackers.set(user, kept._replace(attached=True))
    kvm.emit(TrackerAttached, user=user, kind=kind)
    return None


def _kvm_page_track_register_notifier(kvm: KvmDraft, user: int) -> Errno | None:
    """Put a tracker at the head of the list: the last to register is called first.

    References
    ----------
    arch/x86/kvm/mmu/page_track.c: kvm_page_track_register_notifier() [all profiles; from v6_6 only with
    CONFIG_KVM_EXTERNAL_WRITE_TRACKING, from v6_12 it allocates the counts]
    """
    if kvm.profile.external_api_needs_config and not kvm.config.external_write_tracking:
        return Errno.ENODEV
    kvm.enter("kvm_page_track_register_notifier")
    if kvm.profile.track_arrays == "on demand":
        kvm_enable_external_write_tracking(kvm)
    kvm.track_notifiers = (user, *kvm.track_notifiers)
    return None


def detach_tracker(kvm: KvmDraft, user: int) -> Errno | None:
    """Unregister a tracker; KVMGT gives its watches back first, a logging one leaves them.

    References
    ----------
    drivers/gpu/drm/i915/gvt/kvmgt.c: intel_vgpu_close_device() [all profiles]
    """
    known = kvm.trackers.get(user)
    if known is None or not known.attached:
        return None
    if isinstance(known, Kvmgt):
        for gfn in known.page_track_tree:
            _intel_vgpu_unregister_page_track(kvm, user, gfn)
        kvm.trackers = kvm.trackers.set(user, Kvmgt())
    else:
        kvm.trackers = kvm.trackers.set(user, known._replace(attached=False))
    kvm.enter("kvm_page_track_unregister_notifier")
    kvm.track_notifiers = tuple(u for u in kvm.track_notifiers if u != user)
    kvm.emit(TrackerDetached, user=user)
    return None


# -- tracking --------------------------------------------------------------------------------------


def track_gfn(kvm: KvmDraft, user: int, gfn: int) -> Errno | None:
    """Ask for a page: a logging tracker passes every call on, KVMGT filters through its tables."""
    known = kvm.trackers.get(user)
    if isinstance(known, Kvmgt):
        if gfn not in known.page_track_tree:
            kvm.enter("intel_vgpu_register_page_track")
            _store(kvm, user, known._replace(page_track_tree=known.page_track_tree.set(Gfn(gfn), False)))
        return _intel_vgpu_enable_page_track(kvm, user, gfn)
    return kvm_write_track_add_gfn(kvm, gfn, _by(user))


def untrack_gfn(kvm: KvmDraft, user: int, gfn: int) -> Errno | None:
    """Let a page go: KVMGT frees its shadow of the table and ignores what KVM answers."""
    known = kvm.trackers.get(user)
    if isinstance(known, Kvmgt):
        _intel_vgpu_unregister_page_track(kvm, user, gfn)
        return None
    return kvm_write_track_remove_gfn(kvm, gfn, _by(user))


def _store(kvm: KvmDraft, user: int, tracker: Kvmgt) -> None:
    kvm.trackers = kvm.trackers.set(user, tracker)


def _kvmgt(kvm: KvmDraft, user: int) -> Kvmgt:
    tracker = kvm.trackers[user]
    assert isinstance(tracker, Kvmgt), "only KVMGT has a protect table"
    return tracker


def _intel_vgpu_enable_page_track(kvm: KvmDraft, user: int, gfn: int) -> Errno | None:
    """Track a registered page, unless the ``tracked`` flag says that it is.

    References
    ----------
    drivers/gpu/drm/i915/gvt/page_track.c: intel_vgpu_enable_page_track() [all profiles]
    """
    kvm.enter("intel_vgpu_enable_page_track")
    vgpu = _kvmgt(kvm, user)
    if vgpu.page_track_tree.get(Gfn(gfn)):
        return None
    errno = _intel_gvt_page_track_add(kvm, user, gfn)
    if errno is None:
        vgpu = _kvmgt(kvm, user)
        _store(kvm, user, vgpu._replace(page_track_tree=vgpu.page_track_tree.set(Gfn(gfn), True)))
    return errno


def _intel_vgpu_unregister_page_track(kvm: KvmDraft, user: int, gfn: int) -> None:
    """Forget a page, and untrack it if the flag says that it is tracked.

    References
    ----------
    drivers/gpu/drm/i915/gvt/page_track.c: intel_vgpu_unregister_page_track() [all profiles]
    """
    kvm.enter("intel_vgpu_unregister_page_track")
    vgpu = _kvmgt(kvm, user)
    tracked = vgpu.page_track_tree.get(Gfn(gfn))
    _store(kvm, user, vgpu._replace(page_track_tree=vgpu.page_track_tree.discard(Gfn(gfn))))
    if tracked:
        _intel_gvt_page_track_remove(kvm, user, gfn)


def _intel_gvt_page_track_add(kvm: KvmDraft, user: int, gfn: int) -> Errno | None:
    """Ask KVM for a page once; the table of protected gfns filters repeats.

    References
    ----------
    drivers/gpu/drm/i915/gvt/kvmgt.c: intel_gvt_page_track_add() [v6_6 to v7_3; in v6_1 the slot is
    looked up before the table is asked]
    """
    kvm.enter("intel_gvt_page_track_add")
    vgpu = _kvmgt(kvm, user)
    if not vgpu.attached:
        return Errno.ESRCH
    if kvm.profile.external_lookup_precedes_table and gfn_to_memslot(kvm.active(0), gfn) is None:
        return Errno.EINVAL
    if gfn in vgpu.protect_table:
        return None
    errno = kvm_write_track_add_gfn(kvm, gfn, _by(user))
    if errno is None:
        _store(kvm, user, vgpu._replace(protect_table=vgpu.protect_table.set(Gfn(gfn), None)))
    return errno


def _intel_gvt_page_track_remove(kvm: KvmDraft, user: int, gfn: int) -> Errno | None:
    """Give a page back to KVM if the table of protected gfns has it.

    References
    ----------
    drivers/gpu/drm/i915/gvt/kvmgt.c: intel_gvt_page_track_remove() [v6_6 to v7_3; in v6_1 the slot is
    looked up before the table is asked]
    """
    kvm.enter("intel_gvt_page_track_remove")
    vgpu = _kvmgt(kvm, user)
    if not vgpu.attached:
        return None if kvm.profile.detached_vgpu_untracks_silently else Errno.ESRCH
    if kvm.profile.external_lookup_precedes_table and gfn_to_memslot(kvm.active(0), gfn) is None:
        return Errno.EINVAL
    if gfn not in vgpu.protect_table:
        return None
    errno = kvm_write_track_remove_gfn(kvm, gfn, _by(user))
    if errno is None:
        _store(kvm, user, vgpu._replace(protect_table=vgpu.protect_table.discard(Gfn(gfn))))
    return errno


# -- callbacks -------------------------------------------------------------------------------------


def kvm_page_track_write(kvm: KvmDraft, gpa: int, nbytes: int, value: int) -> None:
    """Report an emulated guest write to every external tracker; each filters for itself.

    References
    ----------
    arch/x86/kvm/mmu/page_track.c: kvm_page_track_write() [all profiles]
    """
    kvm.enter("kvm_page_track_write")
    for user in kvm.track_notifiers:
        _note(kvm, user, TrackerNote("track_write", gpa >> 12, 1, gpa=gpa, nbytes=nbytes, value=value))


def notify_flush_slot(kvm: KvmDraft, user: int, slot: KvmMemorySlot) -> None:
    """Tell one tracker that a slot is flushed; KVMGT takes its counts and its table entries away.

    References
    ----------
    drivers/gpu/drm/i915/gvt/kvmgt.c: kvmgt_page_track_flush_slot() [pre_edd4, v6_1]
    """
    _note(kvm, user, TrackerNote("track_flush_slot", slot.base_gfn, slot.npages, slot.id, slot.as_id))
    tracker = kvm.trackers.get(user)
    if not isinstance(tracker, Kvmgt):
        return
    kvm.enter("kvmgt_page_track_flush_slot")
    gfns = tuple(_protected_in(tracker, slot.base_gfn, slot.npages))
    for gfn in gfns:
        # On the slot that was passed, not on one found by lookup: old and its INVALID copy share counts.
        write_track_remove(kvm, slot, gfn, _by(user))
    _forget(kvm, user, gfns)


def kvm_page_track_delete_slot(kvm: KvmDraft, slot: KvmMemorySlot) -> None:
    """Tell every tracker that a slot is gone for good; KVMGT only forgets, the counts died with the slot.

    References
    ----------
    arch/x86/kvm/mmu/page_track.c: kvm_page_track_delete_slot() [v6_6 to v7_3]
    """
    kvm.enter("kvm_page_track_delete_slot")
    for user in kvm.track_notifiers:
        _note(kvm, user, TrackerNote("track_remove_region", slot.base_gfn, slot.npages))
        tracker = kvm.trackers.get(user)
        if isinstance(tracker, Kvmgt):
            kvm.enter("kvmgt_page_track_remove_region")
            _forget(kvm, user, tuple(_protected_in(tracker, slot.base_gfn, slot.npages)))


def _protected_in(vgpu: Kvmgt, start: int, npages: int) -> Iterator[Gfn]:
    for gfn, _ in vgpu.protect_table.items_from(Gfn(start)):
        if gfn >= start + npages:
            return
        yield gfn


def _forget(kvm: KvmDraft, user: int, gfns: tuple[Gfn, ...]) -> None:
    vgpu = _kvmgt(kvm, user)
    table = vgpu.protect_table
    for gfn in gfns:
        table = table.discard(gfn)
    _store(kvm, user, vgpu._replace(protect_table=table))
    if gfns:
        kvm.emit(TrackerForgot, user=user, gfns=gfns)


def _note(kvm: KvmDraft, user: int, note: TrackerNote) -> None:
    tracker = kvm.trackers.get(user)
    if isinstance(tracker, LogTracker):
        kvm.trackers = kvm.trackers.set(user, tracker.with_note(note))
    kvm.emit(TrackerNotified, user=user, callback=note.callback, gfn=note.gfn, npages=note.npages)
