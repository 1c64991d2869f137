"""A region call from its arguments to its return, as a table of phases.

Rule 1: every change of a memslot set lives here, in the kernel's order.
Rule 2: a phase ends where another CPU may look. The tables at the end of the file are the whole
control flow: which phases a CREATE, DELETE, MOVE or flags change runs, and what replaces the rest of
them when a check refuses.

Models virt/kvm/kvm_main.c from kvm_vm_ioctl_set_memory_region() down, and kvm_arch_prepare_memory_region(),
kvm_arch_commit_memory_region() of arch/x86/kvm/x86.c.
Not modelled: MMU-notifier waits before a swap, kicks of vCPUs, the SP quota, memory
reclaim for SEV; in ``pre_edd4`` the copied slot array (its two copies stand in the two sets).
Read next: `dirty_log`, `apply`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from explorer.engine.commands import SetMemoryRegion2
from explorer.engine.dirty_log import account_dirty_logging, kvm_mmu_slot_apply_flags
from explorer.engine.draft import built
from explorer.engine.events import (
    ArraysInherited,
    CallRefused,
    CallReturned,
    ChangeClassified,
    DirtyBitmapHandedOver,
    GenerationAdvanced,
    GuestMemoryReclaimed,
    InvalidCopyMade,
    MemslotsPublished,
    PagesAccounted,
    ReadersDrained,
    RolledBack,
    SlotObjectFreed,
    SlotReplaced,
)
from explorer.engine.guards import Guard, GuardResult, first_refusal, ladder_for
from explorer.engine.guest_memfd import (
    kvm_gmem_commit_memory_region,
    kvm_gmem_prepare_memory_region,
    kvm_gmem_unbind,
)
from explorer.engine.lookup import hva_key, id_to_memslot
from explorer.engine.metadata import (
    kvm_alloc_dirty_bitmap,
    kvm_alloc_memslot_metadata,
    kvm_arch_free_memslot,
    kvm_free_memslot,
)
from explorer.engine.mmu import kvm_arch_flush_shadow_memslot, kvm_mmu_zap_all_fast
from explorer.engine.state import AddressSpace, DirtyBitmap, KvmArchMemorySlot, KvmMemorySlot, KvmMemslots
from explorer.engine.trackers import kvm_page_track_delete_slot
from explorer.engine.types import PAGE_SHIFT, Errno
from explorer.engine.uapi import (
    KVM_MEM_GUEST_MEMFD,
    KVM_MEM_LOG_DIRTY_PAGES,
    KVM_MEMSLOT_INVALID,
    KvmMrChange,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from explorer.engine.commands import SetMemoryRegion
    from explorer.engine.draft import KvmDraft
    from explorer.engine.profile import KernelProfile

__all__ = ["TABLES", "PendingUpdate", "Phase", "RegionUpdate", "begin", "run_phase"]

MMIO_GENERATION_MASK = (1 << 19) - 1
_NO_ARRAYS = KvmArchMemorySlot()


class Phase(NamedTuple):
    """One row of a table: what runs until another CPU may look."""

    name: str
    """Identifier within its table."""
    cell: str
    """Word under which a reader sees it; neighbours with one word are shown as one step."""
    function: str
    """Kernel function in which the phase ends."""
    run: Callable[[KvmDraft, RegionUpdate], None]
    arch_lock: bool = False
    """Whether slots_arch_lock is held when the phase has ended: from the first copy to each swap."""


class PendingUpdate(NamedTuple):
    """A region call in progress, frozen: part of `Kvm` between two phases."""

    call: SetMemoryRegion
    internal: bool
    change: KvmMrChange | None
    """Set once the call is classified."""
    old: KvmMemorySlot | None
    invalid: KvmMemorySlot | None
    new: KvmMemorySlot | None
    phases: tuple[Phase, ...]
    """The table as it stands: a refusal replaces the rows that are left."""
    at: int
    """How many phases ran."""
    errno: Errno | None
    refused_by: Guard | None
    results: tuple[GuardResult, ...]
    """The checks asked so far; empty if the step is not recorded."""

    @property
    def holds_slots_arch_lock(self) -> bool:
        """Whether the call holds slots_arch_lock, so that no other CPU may give slots arrays now."""
        if not self.at or self.phases[self.at] is RETURN:
            return False
        return self.phases[self.at - 1].arch_lock

    def thaw(self) -> RegionUpdate:
        """Return the mutable form."""
        update = RegionUpdate(self.call, internal=self.internal)
        for name, value in zip(self._fields, self, strict=True):
            setattr(update, name, value)
        update.results = list(self.results)
        return update


class RegionUpdate:
    """The local variables of a region call while it runs."""

    __slots__ = PendingUpdate._fields

    call: SetMemoryRegion
    internal: bool
    change: KvmMrChange | None
    old: KvmMemorySlot | None
    invalid: KvmMemorySlot | None
    new: KvmMemorySlot | None
    phases: tuple[Phase, ...]
    at: int
    errno: Errno | None
    refused_by: Guard | None
    results: list[GuardResult]

    def __init__(self, call: SetMemoryRegion, *, internal: bool) -> None:
        """Stand before the first phase."""
        self.call = call
        self.internal = internal
        self.change = self.old = self.invalid = self.new = self.errno = self.refused_by = None
        self.phases = _START
        self.at = 0
        self.results = []

    def freeze(self) -> PendingUpdate:
        """Return the immutable form."""
        return PendingUpdate(
            self.call,
            self.internal,
            self.change,
            self.old,
            self.invalid,
            self.new,
            self.phases,
            self.at,
            self.errno,
            self.refused_by,
            tuple(self.results),
        )

    @property
    def npages(self) -> int:
        """Pages the call asks for."""
        return self.call.memory_size >> PAGE_SHIFT

    def checks_hva(self, profile: KernelProfile) -> bool:
        """Return whether the host address of this call is checked."""
        return profile.hva_checked_for_internal_slots or not self.internal


def begin(call: SetMemoryRegion, *, internal: bool = False) -> RegionUpdate:
    """Return a region call that has not run a phase."""
    return RegionUpdate(call, internal=internal)


def run_to_end(kvm: KvmDraft, update: RegionUpdate) -> None:
    """Run the phases of a call one after another; a phase may replace those that are left."""
    while update.at < len(update.phases):
        phase = update.phases[update.at]
        update.at += 1
        phase.run(kvm, update)
    kvm.update = None


def run_phase(kvm: KvmDraft) -> None:
    """Run the next phase of the call in progress; after the last one there is none."""
    update = kvm.update
    assert update is not None, "only a call in progress has phases"
    phase = update.phases[update.at]
    update.at += 1
    phase.run(kvm, update)
    if update.at == len(update.phases):
        kvm.update = None


# -- phase: check ----------------------------------------------------------------------------------


def _check(kvm: KvmDraft, update: RegionUpdate) -> None:
    """Ask every check that costs nothing, classify the call and make the new slot object.

    References
    ----------
    virt/kvm/kvm_main.c: kvm_vm_ioctl_set_memory_region(), kvm_set_memory_region() [all profiles; the
    second is __kvm_set_memory_region() up to v6_12]
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
        update.new = _prepare_dirty_bitmap(kvm, old, update.new)
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


# -- phases: copy, stage, swap, zap (kvm_invalidate_memslot) ---------------------------------------


def _copy(kvm: KvmDraft, update: RegionUpdate) -> None:
    """Make the INVALID copy of the old slot; from here both share arrays and bitmap.

    References
    ----------
    virt/kvm/kvm_main.c: kvm_set_memslot(), kvm_copy_memslot() [v6_1 to v7_3]
    """
    kvm.enter("kvm_set_memslot")
    old = update.old
    assert old is not None, "only a live slot is invalidated"
    kvm.enter("kvm_invalidate_memslot")
    kvm.enter("kvm_copy_memslot")
    update.invalid = old.with_flags(old.flags | KVM_MEMSLOT_INVALID)
    kvm.emit(InvalidCopyMade, as_id=old.as_id, slot=old.id)


def _stage_invalid(kvm: KvmDraft, update: RegionUpdate) -> None:
    _kvm_replace_memslot(kvm, update.old, update.invalid)


def _publish(kvm: KvmDraft, update: RegionUpdate) -> None:
    """Let readers see the edited set, marked as being updated.

    References
    ----------
    virt/kvm/kvm_main.c: kvm_swap_active_memslots(), up to rcu_assign_pointer() [v6_1 to v7_3]
    """
    kvm.enter("kvm_swap_active_memslots")
    as_id = update.call.as_id
    sets, active_idx = kvm.memslots[as_id]
    next_idx = 1 - active_idx
    # The old set's generation plus the bit: until every reader has drained, nobody may cache MMIO.
    generation = _marked(sets[active_idx].generation, kvm.profile)
    node_idx, _, id_hash, gfn_tree, hva_tree = sets[next_idx]
    edited = built(KvmMemslots, (node_idx, generation, id_hash, gfn_tree, hva_tree))
    kvm.memslots[as_id] = built(AddressSpace, ((edited, sets[1]) if next_idx == 0 else (sets[0], edited), next_idx))
    if kvm.events is not None:
        kvm.events.append(MemslotsPublished(as_id=as_id, node_idx=next_idx, generation=generation))


def _marked(generation: int, profile: KernelProfile) -> int:
    bit = profile.generation_in_progress_bit
    return generation | (1 << bit) if bit else generation + 1


def _drain(kvm: KvmDraft, update: RegionUpdate) -> None:
    """Wait until no reader uses the other set, then move the generation on.

    The set that has just become inactive keeps its old generation, so the two differ even at rest.

    References
    ----------
    virt/kvm/kvm_main.c: kvm_swap_active_memslots(), from synchronize_srcu_expedited() [v6_1 to v7_3]
    """
    as_id, profile = update.call.as_id, kvm.profile
    if kvm.events is not None:
        kvm.events.append(ReadersDrained(as_id=as_id))
    active = kvm.active(as_id)
    bit = profile.generation_in_progress_bit
    plain = active.generation & ~(1 << bit) if bit else active.generation - 1
    generation = plain + len(kvm.memslots) * profile.generation_step_factor
    kvm.enter("kvm_arch_memslots_updated")
    kvm.enter("kvm_mmu_invalidate_mmio_sptes")
    if generation & MMIO_GENERATION_MASK & ~(len(kvm.memslots) - 1) == 0:
        # The 19 bits an MMIO SPTE keeps of the generation have come round.
        kvm_mmu_zap_all_fast(kvm)
    node_idx, _, id_hash, gfn_tree, hva_tree = active
    kvm.put_set(as_id, built(KvmMemslots, (node_idx, generation, id_hash, gfn_tree, hva_tree)))
    if kvm.events is not None:
        kvm.events.append(GenerationAdvanced(as_id=as_id, generation=generation))


def _zap(kvm: KvmDraft, update: RegionUpdate) -> None:
    """Remove every mapping of the old slot, then pick up arrays that were allocated meanwhile.

    References
    ----------
    virt/kvm/kvm_main.c: kvm_invalidate_memslot(), after the swap [v6_1 to v7_3]
    """
    old, invalid = update.old, update.invalid
    assert old is not None, "a zap follows an invalidation"
    assert invalid is not None, "a zap follows an invalidation"
    kvm_arch_flush_shadow_memslot(kvm, old)
    kvm.enter("kvm_arch_guest_memory_reclaimed")
    kvm.emit(GuestMemoryReclaimed)
    # A first shadow root or tracker in the window gave its arrays to the INVALID copy only.
    if old.arch != invalid.arch:
        update.old = old._replace(arch=invalid.arch)
        inactive = kvm.inactive(old.as_id)
        kvm.put_set(old.as_id, inactive._replace(id_hash=inactive.id_hash.set(old.id, update.old)))


# -- phase: allocate (kvm_prepare_memory_region) ---------------------------------------------------


def _prepare(kvm: KvmDraft, update: RegionUpdate) -> None:
    """Give the new slot object a bitmap and arrays, or refuse.

    For a MOVE this runs after the old slot was hidden and zapped: a refusal here is not free.

    References
    ----------
    virt/kvm/kvm_main.c: kvm_prepare_memory_region() [v6_1 to v7_3]
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
        update.new = new = _prepare_dirty_bitmap(kvm, old, new)
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


def _prepare_dirty_bitmap(kvm: KvmDraft, old: KvmMemorySlot | None, new: KvmMemorySlot) -> KvmMemorySlot:
    if not new.flags & KVM_MEM_LOG_DIRTY_PAGES:
        return new
    if old is not None and old.dirty_bitmap is not None:
        bitmap = kvm.heap.get(old.dirty_bitmap)
        kvm.emit(
            DirtyBitmapHandedOver,
            slot=new.id,
            as_id=new.as_id,
            dirty_pages=len(bitmap.dirty) if isinstance(bitmap, DirtyBitmap) else 0,
        )
        return new._replace(dirty_bitmap=old.dirty_bitmap)
    return kvm_alloc_dirty_bitmap(kvm, new)


def _kvm_arch_prepare_memory_region(kvm: KvmDraft, update: RegionUpdate) -> bool:
    """Ask the architecture's checks and prepare the arrays; return whether the update may go on.

    References
    ----------
    arch/x86/kvm/x86.c: kvm_arch_prepare_memory_region() [all profiles; the first check of a MOVE is the
    external page tracker from v6_6 on]
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


# -- phases: stage, swap, commit -------------------------------------------------------------------


def _stage_new(kvm: KvmDraft, update: RegionUpdate) -> None:
    """Put the new object in the place of the old one in the set no reader sees.

    References
    ----------
    virt/kvm/kvm_main.c: kvm_create_memslot(), kvm_delete_memslot(), kvm_move_memslot(),
    kvm_update_flags_memslot() [v6_1 to v7_3]
    """
    _kvm_replace_memslot(kvm, update.old, update.new)


def _drain_and_mirror(kvm: KvmDraft, update: RegionUpdate) -> None:
    """Wait for readers, then make the other set equal again.

    References
    ----------
    virt/kvm/kvm_main.c: kvm_activate_memslot() [v6_1 to v7_3]
    """
    _drain(kvm, update)
    left_behind = update.invalid if update.invalid is not None else update.old
    _mirror(kvm, left_behind, update.new)
    if update.invalid is not None:
        kvm.emit(SlotObjectFreed, slot=update.invalid.id, as_id=update.invalid.as_id, which="INVALID")


def _drain_and_restore(kvm: KvmDraft, update: RegionUpdate) -> None:
    """Wait for readers of the INVALID copy, then put the old object back in that set, too.

    References
    ----------
    virt/kvm/kvm_main.c: kvm_set_memslot(), the error path [v6_1 to v7_3]
    """
    _drain(kvm, update)
    invalid = update.invalid
    assert invalid is not None, "only an invalidated slot is restored"
    _mirror(kvm, invalid, update.old)
    kvm.emit(SlotObjectFreed, slot=invalid.id, as_id=invalid.as_id, which="INVALID")
    kvm.emit(RolledBack, as_id=invalid.as_id, slot=invalid.id)


def _commit(kvm: KvmDraft, update: RegionUpdate) -> None:
    """Account, tell trackers of a deletion, free what nobody can reach any more. Cannot fail.

    References
    ----------
    virt/kvm/kvm_main.c: kvm_commit_memory_region(); arch/x86/kvm/x86.c: kvm_arch_commit_memory_region()
    [v6_1 to v7_3]
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


def _kvm_replace_memslot(kvm: KvmDraft, old: KvmMemorySlot | None, new: KvmMemorySlot | None) -> None:
    """Exchange one slot object for another in the inactive set of their address space.

    References
    ----------
    virt/kvm/kvm_main.c: kvm_replace_memslot() [v6_1 to v7_3]
    """
    kvm.enter("kvm_replace_memslot")
    some = old if old is not None else new
    assert some is not None, "a replacement has an old or a new object"
    edited = kvm.inactive(some.as_id)
    node_idx, generation, id_hash, gfn_tree, hva_tree = edited
    if new is None:
        assert old is not None, "nothing is replaced by nothing"
        id_hash = id_hash.discard(old.id)
        gfn_tree = gfn_tree.discard(old.base_gfn)
        hva_tree = hva_tree.discard(hva_key(old))
    else:
        id_hash = id_hash.set(new.id, new)
        if old is None:
            gfn_tree = gfn_tree.set(new.base_gfn, new.id)
            hva_tree = hva_tree.set(hva_key(new), None)
        elif old.base_gfn != new.base_gfn:
            # Erase before insert: a slot may move over its own old place.
            gfn_tree = gfn_tree.discard(old.base_gfn).set(new.base_gfn, new.id)
    kvm.put_set(some.as_id, built(KvmMemslots, (node_idx, generation, id_hash, gfn_tree, hva_tree)))
    _note_replaced(kvm, node_idx, old, new)


def _mirror(kvm: KvmDraft, old: KvmMemorySlot | None, new: KvmMemorySlot | None) -> None:
    """Make in the inactive set the replacement that the active one has already got.

    The two sets differ by just this one object, so the result is the active set's content; the trees are
    shared instead of edited a second time, which halves what a snapshot costs.

    References
    ----------
    virt/kvm/kvm_main.c: kvm_activate_memslot(), the second kvm_replace_memslot() [v6_1 to v7_3]
    """
    kvm.enter("kvm_replace_memslot")
    as_id = kvm.update.call.as_id if kvm.update is not None else 0
    sets, active_idx = kvm.memslots[as_id]
    _, _, id_hash, gfn_tree, hva_tree = sets[active_idx]
    node_idx, generation, _, _, _ = sets[1 - active_idx]
    kvm.put_set(as_id, built(KvmMemslots, (node_idx, generation, id_hash, gfn_tree, hva_tree)))
    _note_replaced(kvm, node_idx, old, new)


def _note_replaced(kvm: KvmDraft, node_idx: int, old: KvmMemorySlot | None, new: KvmMemorySlot | None) -> None:
    some = old if old is not None else new
    if kvm.events is not None and some is not None:
        kvm.events.append(
            SlotReplaced(
                as_id=some.as_id,
                node_idx=node_idx,
                slot=some.id,
                removed=None if old is None else old.brief(),
                inserted=None if new is None else new.brief(),
            )
        )


# -- the tables ------------------------------------------------------------------------------------

CHECK = Phase("check", "check", "kvm_set_memory_region", _check)
RETURN = Phase("return", "return", "kvm_vm_ioctl", _return)
_INVALIDATE = (
    Phase("copy", "copy", "kvm_invalidate_memslot", _copy, arch_lock=True),
    Phase("stage_invalid", "stage", "kvm_replace_memslot", _stage_invalid, arch_lock=True),
    Phase("publish_invalid", "swap", "kvm_swap_active_memslots", _publish),
    Phase("drain_invalid", "swap", "kvm_swap_active_memslots", _drain),
    Phase("zap", "zap", "kvm_arch_flush_shadow_memslot", _zap, arch_lock=True),
)
_ALLOCATE = Phase("prepare", "allocate", "kvm_prepare_memory_region", _prepare, arch_lock=True)
_PREPARE = _ALLOCATE._replace(cell="prepare")
_PUBLISH = (
    Phase("publish", "swap", "kvm_swap_active_memslots", _publish),
    Phase("drain", "swap", "kvm_activate_memslot", _drain_and_mirror),
)
ROLL_BACK = (
    Phase("publish_old", "roll back", "kvm_swap_active_memslots", _publish),
    Phase("restore_old", "roll back", "kvm_activate_memslot", _drain_and_restore),
    RETURN,
)

_START = (CHECK,)
TABLES: dict[KvmMrChange, tuple[Phase, ...]] = {
    KvmMrChange.CREATE: (
        CHECK,
        _ALLOCATE,
        Phase("stage_new", "stage", "kvm_create_memslot", _stage_new, arch_lock=True),
        *_PUBLISH,
        Phase("commit", "count", "kvm_commit_memory_region", _commit),
        RETURN,
    ),
    KvmMrChange.DELETE: (
        CHECK,
        *_INVALIDATE,
        _PREPARE,
        Phase("stage_gone", "stage", "kvm_delete_memslot", _stage_new, arch_lock=True),
        *_PUBLISH,
        Phase("commit", "free old", "kvm_commit_memory_region", _commit),
        RETURN,
    ),
    KvmMrChange.MOVE: (
        CHECK,
        *_INVALIDATE,
        _ALLOCATE,
        Phase("stage_new", "stage", "kvm_move_memslot", _stage_new, arch_lock=True),
        *_PUBLISH,
        Phase("commit", "free old", "kvm_commit_memory_region", _commit),
        RETURN,
    ),
    KvmMrChange.FLAGS_ONLY: (
        CHECK,
        _PREPARE,
        Phase("stage_new", "stage", "kvm_update_flags_memslot", _stage_new, arch_lock=True),
        *_PUBLISH,
        Phase("commit", "commit", "kvm_commit_memory_region", _commit),
        RETURN,
    ),
    KvmMrChange.NOOP: (CHECK, RETURN),
}
"""The phases of each change when nothing refuses, first to last."""
