"""A region call from its arguments to its return, as a table of phases.

Rule: the tables at the end of the file are the whole control flow: which phases a CREATE, DELETE, MOVE or flags
change runs, and what replaces the rest of them when a check refuses.

Models virt/kvm/kvm_main.c: kvm_vm_ioctl_set_memory_region(), kvm_set_memory_region(), kvm_set_memslot(),
kvm_prepare_memory_region() and kvm_commit_memory_region(), and the two hooks in arch/x86/kvm/x86.c:
kvm_arch_prepare_memory_region(), kvm_arch_commit_memory_region().
Not modelled: the SP quota, memory reclaim for SEV. Read next: `metadata`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from explorer.engine import swap
from explorer.engine.commands import SetMemoryRegion2
from explorer.engine.dirty_log import account_dirty_logging, kvm_mmu_slot_apply_flags
from explorer.engine.draft import built
from explorer.engine.events import (
    ArraysInherited,
    CallRefused,
    CallReturned,
    ChangeClassified,
    PagesAccounted,
    SlotObjectFreed,
)
from explorer.engine.guard import Guard, first_refusal
from explorer.engine.guards import ladder_for
from explorer.engine.guest_memfd import (
    kvm_gmem_commit_memory_region,
    kvm_gmem_prepare_memory_region,
    kvm_gmem_unbind,
)
from explorer.engine.lookup import id_to_memslot
from explorer.engine.metadata import (
    kvm_alloc_memslot_metadata,
    kvm_arch_free_memslot,
    kvm_free_memslot,
    prepare_dirty_bitmap,
)
from explorer.engine.region_call import Phase, RegionUpdate
from explorer.engine.state import KvmArchMemorySlot, KvmMemorySlot
from explorer.engine.trackers import kvm_page_track_delete_slot
from explorer.engine.types import PAGE_SHIFT
from explorer.engine.uapi import (
    KVM_MEM_GUEST_MEMFD,
    KvmMrChange,
)

if TYPE_CHECKING:
    from explorer.engine.commands import SetMemoryRegion
    from explorer.engine.draft import KvmDraft

__all__ = ["ROLL_BACK", "TABLES", "begin"]

_NO_ARRAYS = KvmArchMemorySlot()


def begin(call: SetMemoryRegion, *, internal: bool = False) -> RegionUpdate:
    """Return a region call that has not run a phase."""
    return RegionUpdate(call, _START, internal=internal)


# -- phase: check ----------------------------------------------------------------------------------


def _check(kvm: KvmDraft, update: RegionUpdate) -> None:
    """Ask every check that costs nothing, classify the call and make the new slot object.

    References
    ----------
    virt/kvm/kvm_main.c: kvm_vm_ioctl_set_memory_region() [all profiles], kvm_set_memory_region()
    [v6_18, v7_3], __kvm_set_memory_region() [up to v6_12]
    """
    kvm.enter("kvm_vm_ioctl")
    call, ladder = update.call, ladder_for(kvm.profile, update.call)
    update.phases = (CHECK, RETURN)
    if _refused(kvm, update, ladder.ioctl):
        return
    kvm.enter("kvm_set_memory_region")
    if _refused(kvm, update, ladder.arguments):
        return
    update.old = old = id_to_memslot(kvm.active(call.as_id), call.slot)
    if not call.memory_size:
        _classify(kvm, update, KvmMrChange.DELETE)
        if not _refused(kvm, update, ladder.delete):
            update.phases = TABLES[KvmMrChange.DELETE]
        return
    if old is None:
        _classify(kvm, update, KvmMrChange.CREATE)
        if _refused(kvm, update, ladder.create):
            return
    else:
        if _refused(kvm, update, ladder.existing):
            return
        if call.guest_phys_addr >> PAGE_SHIFT != old.base_gfn:
            _classify(kvm, update, KvmMrChange.MOVE)
        elif call.flags != old.flags:
            _classify(kvm, update, KvmMrChange.FLAGS_ONLY)
        else:
            _classify(kvm, update, KvmMrChange.NOOP)
            update.phases = TABLES[KvmMrChange.NOOP]
            return
    change = update.change
    assert change is not None, "the call was just classified"
    if change in (KvmMrChange.CREATE, KvmMrChange.MOVE):
        kvm.enter("kvm_check_memslot_overlap")
        if _refused(kvm, update, ladder.place):
            return
    base_gfn, npages = call.guest_phys_addr >> PAGE_SHIFT, call.memory_size >> PAGE_SHIFT
    fields = (call.slot, call.as_id, base_gfn, npages, call.userspace_addr, call.flags, None, _NO_ARRAYS, None)
    update.new = built(KvmMemorySlot, fields)
    if isinstance(call, SetMemoryRegion2) and call.flags & KVM_MEM_GUEST_MEMFD:
        kvm.enter("kvm_gmem_prepare_memory_region")
        if _refused(kvm, update, ladder.gmem):
            _give_up(kvm, update)
            return
        update.new = kvm_gmem_prepare_memory_region(kvm, update.new, call.guest_memfd, call.guest_memfd_offset)
    if kvm.profile.dirty_bitmap_allocated_first:
        if _refused(kvm, update, ladder.bitmap):
            _give_up(kvm, update)
            return
        update.new = prepare_dirty_bitmap(kvm, old, update.new)
    update.phases = TABLES[change]


def _classify(kvm: KvmDraft, update: RegionUpdate, change: KvmMrChange) -> None:
    update.change = change
    if kvm.events is not None:
        kvm.events.append(ChangeClassified(change=change, reason=_reason(update, change)))


def _reason(update: RegionUpdate, change: KvmMrChange) -> str:
    call, old = update.call, update.old
    match change:
        case KvmMrChange.DELETE:
            return "memory_size is 0"
        case KvmMrChange.MOVE if old is not None:
            return f"base_gfn {call.guest_phys_addr >> PAGE_SHIFT:#x} differs from {old.base_gfn:#x}"
        case KvmMrChange.FLAGS_ONLY if old is not None:
            return f"flags {call.flags:#x} differ from {old.flags:#x}"
        case KvmMrChange.NOOP:
            return "size, host address, base_gfn and flags are as they were"
        case _:
            return f"slot {call.slot} does not exist and memory_size is not 0"


def _refused(kvm: KvmDraft, update: RegionUpdate, guards: tuple[Guard, ...]) -> bool:
    guard = first_refusal(kvm, update, guards) if guards else None
    if guard is None:
        return False
    update.errno, update.refused_by = guard.errno, guard
    if kvm.events is not None:
        kvm.events.append(
            CallRefused(
                check=guard.name, function=guard.function, errno=guard.errno, operands=guard.operands(kvm, update)
            )
        )
    return True


# -- phase: allocate (kvm_prepare_memory_region) ---------------------------------------------------


def _prepare(kvm: KvmDraft, update: RegionUpdate) -> None:
    """Give the new slot object a bitmap and arrays, or refuse.

    For a MOVE this runs after the old slot was hidden and zapped: a refusal here is not free.

    References
    ----------
    virt/kvm/kvm_main.c: kvm_prepare_memory_region() [v6_1 to v7_3], kvm_set_memslot() [v5_10],
    __kvm_set_memory_region() [pre_edd4]
    """
    change, old, new = update.change, update.old, update.new
    ladder = ladder_for(kvm.profile, update.call)
    if change in (KvmMrChange.CREATE, KvmMrChange.FLAGS_ONLY):
        kvm.enter("kvm_set_memslot")
    kvm.enter("kvm_prepare_memory_region")
    if new is not None and not kvm.profile.dirty_bitmap_allocated_first:
        if _refused(kvm, update, ladder.bitmap):
            _give_up(kvm, update)
            return
        update.new = new = prepare_dirty_bitmap(kvm, old, new)
    if not _kvm_arch_prepare_memory_region(kvm, update):
        if new is not None and new.dirty_bitmap is not None and (old is None or old.dirty_bitmap is None):
            kvm.free(new, new.dirty_bitmap)
        _give_up(kvm, update)
    elif update.new is not None and update.new.gmem is not None and kvm.profile.guest_memfd_binds_late:
        kvm.enter("kvm_gmem_commit_memory_region")
        if _refused(kvm, update, ladder.gmem_commit):
            kvm_arch_free_memslot(kvm, update.new)
            _give_up(kvm, update)
        else:
            kvm_gmem_commit_memory_region(kvm, update.new)


def _kvm_arch_prepare_memory_region(kvm: KvmDraft, update: RegionUpdate) -> bool:
    """Ask the architecture's checks and prepare the arrays; return whether the update may go on.

    References
    ----------
    arch/x86/kvm/x86.c: kvm_arch_prepare_memory_region() [v5_10 to v7_3; the first check of a MOVE is the
    external page tracker from v6_6 on], kvm_arch_create_memslot() [pre_edd4; before the dirty bitmap]
    """
    kvm.enter("kvm_arch_prepare_memory_region")
    change, old, new = update.change, update.old, update.new
    ladder = ladder_for(kvm.profile, update.call)
    if change is KvmMrChange.MOVE and _refused(kvm, update, ladder.prepare_move):
        return False
    if change is KvmMrChange.CREATE and _refused(kvm, update, ladder.prepare_create):
        return False
    if new is None:
        return True
    if change is KvmMrChange.FLAGS_ONLY or (change is KvmMrChange.MOVE and kvm.profile.move_keeps_arch_metadata):
        assert old is not None, "a slot that changes exists"
        update.new = new.with_arch(old.arch)
        kvm.emit(ArraysInherited, slot=new.id, as_id=new.as_id)
    else:
        update.new = new.with_arch(kvm_alloc_memslot_metadata(kvm, new))
    return True


def _give_up(kvm: KvmDraft, update: RegionUpdate) -> None:
    """Replace the phases that are left: put the old slot back if it was hidden, then return."""
    if update.new is not None:
        if not kvm.profile.guest_memfd_binds_late:
            kvm_gmem_unbind(kvm, update.new)
        kvm.emit(SlotObjectFreed, slot=update.new.id, as_id=update.new.as_id, which="new")
    update.new = None
    rest = ROLL_BACK if update.invalid is not None else (RETURN,)
    update.phases = update.phases[: update.at] + rest


def _commit(kvm: KvmDraft, update: RegionUpdate) -> None:
    """Account, tell trackers of a deletion, free what nobody can reach any more. Cannot fail.

    References
    ----------
    virt/kvm/kvm_main.c: kvm_commit_memory_region() [v6_1 to v7_3]; arch/x86/kvm/x86.c:
    kvm_arch_commit_memory_region() [all profiles]
    """
    change, old, new = update.change, update.old, update.new
    kvm.enter("kvm_commit_memory_region")
    if change is KvmMrChange.CREATE and new is not None:
        kvm.nr_memslot_pages += new.npages
        kvm.emit(PagesAccounted, npages=new.npages, total=kvm.nr_memslot_pages)
    elif change is KvmMrChange.DELETE and old is not None:
        kvm.nr_memslot_pages -= old.npages
        kvm.emit(PagesAccounted, npages=-old.npages, total=kvm.nr_memslot_pages)
    account_dirty_logging(kvm, old, new)
    kvm.enter("kvm_arch_commit_memory_region")
    if change is KvmMrChange.DELETE and old is not None and kvm.profile.region_hook == "track_remove_region":
        kvm_page_track_delete_slot(kvm, old)
    if old is None:
        return
    if change is KvmMrChange.FLAGS_ONLY and new is not None:
        kvm_mmu_slot_apply_flags(kvm, old, new)
    if change is KvmMrChange.MOVE and not kvm.profile.move_keeps_arch_metadata:
        # Only now can no reader hold the old arrays; whatever counts they still have go with them.
        kvm_arch_free_memslot(kvm, old)
    if change is KvmMrChange.DELETE:
        kvm_free_memslot(kvm, old)
    elif new is not None and new.dirty_bitmap is None:
        kvm.free(old, old.dirty_bitmap)
    kvm.emit(SlotObjectFreed, slot=old.id, as_id=old.as_id, which="old")


def _return(kvm: KvmDraft, update: RegionUpdate) -> None:
    if kvm.events is not None:
        kvm.events.append(CallReturned(errno=update.errno))


# -- the tables ------------------------------------------------------------------------------------

CHECK = Phase("check", "check", "kvm_set_memory_region", _check)
RETURN = Phase("return", "return", "kvm_vm_ioctl", _return)
_INVALIDATE = (
    Phase("copy", "copy", "kvm_invalidate_memslot", swap.copy, arch_lock=True),
    Phase("stage_invalid", "stage", "kvm_replace_memslot", swap.stage_invalid, arch_lock=True),
    Phase("publish_invalid", "swap", "kvm_swap_active_memslots", swap.publish),
    Phase("drain_invalid", "swap", "kvm_swap_active_memslots", swap.drain),
    Phase("zap", "zap", "kvm_arch_flush_shadow_memslot", swap.zap, arch_lock=True),
)
_ALLOCATE = Phase("prepare", "allocate", "kvm_prepare_memory_region", _prepare, arch_lock=True)
_PREPARE = _ALLOCATE._replace(cell="prepare")
_PUBLISH = (
    Phase("publish", "swap", "kvm_swap_active_memslots", swap.activate),
    Phase("drain", "swap", "kvm_activate_memslot", swap.drain_and_mirror),
)
ROLL_BACK = (
    Phase("publish_old", "roll back", "kvm_swap_active_memslots", swap.activate),
    Phase("restore_old", "roll back", "kvm_activate_memslot", swap.drain_and_restore),
    RETURN,
)
_START = (CHECK,)

TABLES: dict[KvmMrChange, tuple[Phase, ...]] = {
    KvmMrChange.CREATE: (
        CHECK,
        _ALLOCATE,
        Phase("stage_new", "stage", "kvm_create_memslot", swap.stage_new, arch_lock=True),
        *_PUBLISH,
        Phase("commit", "count", "kvm_commit_memory_region", _commit),
        RETURN,
    ),
    KvmMrChange.DELETE: (
        CHECK,
        *_INVALIDATE,
        _PREPARE,
        Phase("stage_gone", "stage", "kvm_delete_memslot", swap.stage_new, arch_lock=True),
        *_PUBLISH,
        Phase("commit", "free old", "kvm_commit_memory_region", _commit),
        RETURN,
    ),
    KvmMrChange.MOVE: (
        CHECK,
        *_INVALIDATE,
        _ALLOCATE,
        Phase("stage_new", "stage", "kvm_move_memslot", swap.stage_new, arch_lock=True),
        *_PUBLISH,
        Phase("commit", "free old", "kvm_commit_memory_region", _commit),
        RETURN,
    ),
    KvmMrChange.FLAGS_ONLY: (
        CHECK,
        _PREPARE,
        Phase("stage_new", "stage", "kvm_update_flags_memslot", swap.stage_new, arch_lock=True),
        *_PUBLISH,
        Phase("commit", "commit", "kvm_commit_memory_region", _commit),
        RETURN,
    ),
    KvmMrChange.NOOP: (CHECK, RETURN),
}
"""The phases of each change when nothing refuses, first to last."""
