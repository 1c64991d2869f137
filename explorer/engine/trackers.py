"""The actors outside KVM that ask for write tracking, each with tables of its own.

Two kinds: one that only logs its callbacks (the recordings' stand-in), and one that behaves like KVMGT,
which keeps two tables that can disagree: the gfns it asked KVM to protect, and the guest table pages it
shadows, each with a ``tracked`` flag that region callbacks do not touch. That one is in `kvmgt` and `gtt`.

Models arch/x86/kvm/mmu/page_track.c: registration and fan-out; drivers/gpu/drm/i915/gvt/kvmgt.c: attach, detach.
Not modelled: the reference to the VM that a tracker holds, a tracker of another process (-ESRCH), VMs of TDX.
Read next: `mmu`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from explorer.engine.events import TrackerAttached, TrackerDetached, TrackerNotified
from explorer.engine.gtt import intel_vgpu_flush_post_shadow
from explorer.engine.kvmgt import (
    by_tracker,
    intel_vgpu_enable_page_track,
    kvmgt_page_track_flush_slot,
    kvmgt_page_track_remove_region,
    kvmgt_page_track_write,
    ppgtt_free_spt,
    ppgtt_populate_spt_by_guest_entry,
)
from explorer.engine.page_track import (
    kvm_enable_external_write_tracking,
    kvm_write_track_add_gfn,
    kvm_write_track_remove_gfn,
)
from explorer.engine.state import Kvmgt, LogTracker, TrackerNote
from explorer.engine.types import Errno

if TYPE_CHECKING:
    from explorer.engine.draft import KvmDraft
    from explorer.engine.state import KvmMemorySlot

__all__ = [
    "attach_tracker",
    "detach_tracker",
    "kvm_page_track_delete_slot",
    "kvm_page_track_write",
    "notify_flush_slot",
    "read_tracker_log",
    "submit_workload",
    "track_gfn",
    "untrack_gfn",
]


# -- registration ----------------------------------------------------------------------------------


def attach_tracker(kvm: KvmDraft, user: int, kind: str) -> Errno | None:
    """Register a tracker: EBUSY for a logging one that is attached, EEXIST for a second vGPU.

    References
    ----------
    drivers/gpu/drm/i915/gvt/kvmgt.c: intel_vgpu_open_device() [v6_1 to v7_3], kvmgt_guest_init() [up to v5_10]
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
    drivers/gpu/drm/i915/gvt/kvmgt.c: intel_vgpu_close_device() [v6_1 to v7_3], kvmgt_guest_exit() [up to v5_10]
    """
    known = kvm.trackers.get(user)
    if known is None or not known.attached:
        return None
    if isinstance(known, Kvmgt):
        for gfn in known.page_track_tree:
            ppgtt_free_spt(kvm, user, gfn)
        kvm.trackers = kvm.trackers.set(user, Kvmgt())
    else:
        kvm.trackers = kvm.trackers.set(user, known._replace(attached=False))
    kvm.enter("kvm_page_track_unregister_notifier")
    kvm.track_notifiers = tuple(u for u in kvm.track_notifiers if u != user)
    kvm.emit(TrackerDetached, user=user)
    return None


# -- tracking --------------------------------------------------------------------------------------


def track_gfn(kvm: KvmDraft, user: int, gfn: int) -> Errno | None:
    """Ask for a page: a logging tracker passes every call on, KVMGT shadows it as a page table of the GPU.

    A table that has a shadow is only asked to be tracked again, as out-of-sync mode would.
    """
    known = kvm.trackers.get(user)
    if not isinstance(known, Kvmgt):
        return kvm_write_track_add_gfn(kvm, gfn, by_tracker(user))
    if gfn in known.page_track_tree:
        return intel_vgpu_enable_page_track(kvm, user, gfn)
    return ppgtt_populate_spt_by_guest_entry(kvm, user, gfn)


def untrack_gfn(kvm: KvmDraft, user: int, gfn: int) -> Errno | None:
    """Let a page go: KVMGT frees its shadow of the table and ignores what KVM answers."""
    known = kvm.trackers.get(user)
    if isinstance(known, Kvmgt):
        ppgtt_free_spt(kvm, user, gfn)
        return None
    return kvm_write_track_remove_gfn(kvm, gfn, by_tracker(user))


def read_tracker_log(kvm: KvmDraft, user: int) -> None:
    """Take the callbacks that a logging tracker was told; others keep no log."""
    known = kvm.trackers.get(user)
    if isinstance(known, LogTracker):
        kvm.trackers = kvm.trackers.set(user, LogTracker(known.attached))


def submit_workload(kvm: KvmDraft, user: int) -> Errno | None:
    """Let the guest hand work to its vGPU; a tracker that is none, or is not attached, gets nothing."""
    known = kvm.trackers.get(user)
    if not isinstance(known, Kvmgt) or not known.attached:
        return Errno.ESRCH
    return intel_vgpu_flush_post_shadow(kvm, user)


# -- callbacks -------------------------------------------------------------------------------------


def kvm_page_track_write(kvm: KvmDraft, gpa: int, nbytes: int, value: int) -> None:
    """Report an emulated guest write to every external tracker; each filters for itself.

    References
    ----------
    arch/x86/kvm/mmu/page_track.c: kvm_page_track_write() [up to v6_1], __kvm_page_track_write() [v6_6 to v7_3];
    arch/x86/kvm/mmu/page_track.h: kvm_page_track_write() [v6_6 to v7_3]
    """
    kvm.enter("kvm_page_track_write")
    for user in kvm.track_notifiers:
        _note(kvm, user, TrackerNote("track_write", gpa >> 12, 1, gpa=gpa, nbytes=nbytes, value=value))
        if isinstance(kvm.trackers.get(user), Kvmgt):
            kvmgt_page_track_write(kvm, user, gpa, nbytes)


def notify_flush_slot(kvm: KvmDraft, user: int, slot: KvmMemorySlot) -> None:
    """Tell one tracker that a slot is flushed."""
    _note(kvm, user, TrackerNote("track_flush_slot", slot.base_gfn, slot.npages, slot.id, slot.as_id))
    if isinstance(kvm.trackers.get(user), Kvmgt):
        kvmgt_page_track_flush_slot(kvm, user, slot)


def kvm_page_track_delete_slot(kvm: KvmDraft, slot: KvmMemorySlot) -> None:
    """Tell every tracker that a slot is gone for good.

    References
    ----------
    arch/x86/kvm/mmu/page_track.c: kvm_page_track_delete_slot() [v6_6 to v7_3]
    """
    kvm.enter("kvm_page_track_delete_slot")
    for user in kvm.track_notifiers:
        _note(kvm, user, TrackerNote("track_remove_region", slot.base_gfn, slot.npages))
        if isinstance(kvm.trackers.get(user), Kvmgt):
            kvmgt_page_track_remove_region(kvm, user, slot)


def _note(kvm: KvmDraft, user: int, note: TrackerNote) -> None:
    tracker = kvm.trackers.get(user)
    if isinstance(tracker, LogTracker):
        kvm.trackers = kvm.trackers.set(user, tracker.with_note(note))
    kvm.emit(TrackerNotified, user=user, callback=note.callback, gfn=note.gfn, npages=note.npages)
