"""The two memslot sets of an address space: one is edited where no reader sees it, published, then made equal again.

Rule: every function here is a phase of `memslots`, or what two of them share. Only the inactive set is edited, and
publishing it is one pointer; after each a reader on another CPU sees the old slots or the new, never half of both.

Models virt/kvm/kvm_main.c: kvm_invalidate_memslot(), kvm_replace_memslot(), kvm_swap_active_memslots(),
kvm_activate_memslot().
Not modelled: MMU-notifier waits before a swap, kicks of vCPUs; up to ``v5_10`` the copied slot array (its two copies
stand in the two sets) and another width of an MMIO SPTE's generation (18 bits, 20 in ``pre_edd4``).
Read next: `memslots`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from explorer.engine.draft import built
from explorer.engine.events import (
    GenerationAdvanced,
    GuestMemoryReclaimed,
    InvalidCopyMade,
    MemslotsPublished,
    ReadersDrained,
    RolledBack,
    SlotObjectFreed,
    SlotReplaced,
)
from explorer.engine.lookup import hva_key
from explorer.engine.mmu import kvm_arch_flush_shadow_memslot, kvm_mmu_zap_all_fast
from explorer.engine.state import AddressSpace, KvmMemorySlot, KvmMemslots
from explorer.engine.uapi import KVM_MEMSLOT_INVALID

if TYPE_CHECKING:
    from explorer.engine.draft import KvmDraft
    from explorer.engine.profile import KernelProfile
    from explorer.engine.region_call import RegionUpdate

__all__ = [
    "activate",
    "copy",
    "drain",
    "drain_and_mirror",
    "drain_and_restore",
    "publish",
    "stage_invalid",
    "stage_new",
    "zap",
]

_MMIO_GENERATION_MASK = (1 << 19) - 1


def copy(kvm: KvmDraft, update: RegionUpdate) -> None:
    """Make the INVALID copy of the old slot; from here both share arrays and bitmap.

    References
    ----------
    virt/kvm/kvm_main.c: kvm_set_memslot(), kvm_invalidate_memslot(), kvm_copy_memslot() [v6_1 to v7_3],
    kvm_set_memslot(), kvm_dup_memslots() [v5_10], __kvm_set_memory_region() [pre_edd4]
    """
    kvm.enter("kvm_set_memslot")
    old = update.old
    assert old is not None, "only a live slot is invalidated"
    kvm.enter("kvm_invalidate_memslot")
    kvm.enter("kvm_copy_memslot")
    update.invalid = old.with_flags(old.flags | KVM_MEMSLOT_INVALID)
    kvm.emit(InvalidCopyMade, as_id=old.as_id, slot=old.id)


def stage_invalid(kvm: KvmDraft, update: RegionUpdate) -> None:
    """Put the INVALID copy in the place of the old object in the set no reader sees.

    References
    ----------
    virt/kvm/kvm_main.c: kvm_invalidate_memslot(), the first kvm_replace_memslot() [v6_1 to v7_3],
    kvm_set_memslot() [v5_10], __kvm_set_memory_region() [pre_edd4]
    """
    _kvm_replace_memslot(kvm, update.old, update.invalid)


def publish(kvm: KvmDraft, update: RegionUpdate) -> None:
    """Let readers see the edited set, marked as being updated.

    References
    ----------
    virt/kvm/kvm_main.c: kvm_swap_active_memslots() [v6_1 to v7_3], install_new_memslots() [up to v5_10], both
    up to rcu_assign_pointer() [all profiles]
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


def activate(kvm: KvmDraft, update: RegionUpdate) -> None:
    """Publish the set that is to stay; the set it replaces is made equal to it as soon as its readers are gone.

    References
    ----------
    virt/kvm/kvm_main.c: kvm_activate_memslot(), up to the swap [v6_1 to v7_3], install_new_memslots() [up to
    v5_10]
    """
    kvm.enter("kvm_activate_memslot")
    publish(kvm, update)


def _marked(generation: int, profile: KernelProfile) -> int:
    bit = profile.generation_in_progress_bit
    return generation | (1 << bit) if bit else generation + 1


def drain(kvm: KvmDraft, update: RegionUpdate) -> None:
    """Wait until no reader uses the other set, then move the generation on.

    The set that has just become inactive keeps its old generation, so the two differ even at rest.

    References
    ----------
    virt/kvm/kvm_main.c: kvm_swap_active_memslots() [v6_1 to v7_3], install_new_memslots() [up to v5_10], both
    from synchronize_srcu_expedited() [all profiles]
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
    if generation & _MMIO_GENERATION_MASK & ~(len(kvm.memslots) - 1) == 0:
        # The 19 bits an MMIO SPTE keeps of the generation have come round.
        kvm_mmu_zap_all_fast(kvm)
    node_idx, _, id_hash, gfn_tree, hva_tree = active
    kvm.put_set(as_id, built(KvmMemslots, (node_idx, generation, id_hash, gfn_tree, hva_tree)))
    if kvm.events is not None:
        kvm.events.append(GenerationAdvanced(as_id=as_id, generation=generation))


def zap(kvm: KvmDraft, update: RegionUpdate) -> None:
    """Remove every mapping of the old slot, then pick up arrays that were allocated meanwhile.

    References
    ----------
    virt/kvm/kvm_main.c: kvm_invalidate_memslot(), after the swap [v6_1 to v7_3], kvm_set_memslot() [v5_10],
    __kvm_set_memory_region() [pre_edd4]
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


def stage_new(kvm: KvmDraft, update: RegionUpdate) -> None:
    """Put the new object in the place of the old one in the set no reader sees.

    References
    ----------
    virt/kvm/kvm_main.c: kvm_create_memslot(), kvm_delete_memslot(), kvm_move_memslot(),
    kvm_update_flags_memslot() [v6_1 to v7_3], update_memslots() [up to v5_10]
    """
    _kvm_replace_memslot(kvm, update.old, update.new)


def drain_and_mirror(kvm: KvmDraft, update: RegionUpdate) -> None:
    """Wait for readers, then make the other set equal again.

    References
    ----------
    virt/kvm/kvm_main.c: kvm_activate_memslot() [v6_1 to v7_3], install_new_memslots() [up to v5_10]
    """
    drain(kvm, update)
    left_behind = update.invalid if update.invalid is not None else update.old
    _mirror(kvm, left_behind, update.new)
    if update.invalid is not None:
        kvm.emit(SlotObjectFreed, slot=update.invalid.id, as_id=update.invalid.as_id, which="INVALID")


def drain_and_restore(kvm: KvmDraft, update: RegionUpdate) -> None:
    """Wait for readers of the INVALID copy, then put the old object back in that set, too.

    References
    ----------
    virt/kvm/kvm_main.c: kvm_set_memslot(), the error path [v5_10 to v7_3; before it there is none, and nothing is
    refused once the old slot is INVALID]
    """
    drain(kvm, update)
    invalid = update.invalid
    assert invalid is not None, "only an invalidated slot is restored"
    _mirror(kvm, invalid, update.old)
    kvm.emit(SlotObjectFreed, slot=invalid.id, as_id=invalid.as_id, which="INVALID")
    kvm.emit(RolledBack, as_id=invalid.as_id, slot=invalid.id)


def _kvm_replace_memslot(kvm: KvmDraft, old: KvmMemorySlot | None, new: KvmMemorySlot | None) -> None:
    """Exchange one slot object for another in the inactive set of their address space.

    References
    ----------
    virt/kvm/kvm_main.c: kvm_replace_memslot() [v6_1 to v7_3], kvm_set_memslot() [v5_10],
    __kvm_set_memory_region() [pre_edd4]
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
    virt/kvm/kvm_main.c: kvm_activate_memslot(), the second kvm_replace_memslot() [v6_1 to v7_3],
    kvm_set_memslot(), which frees the array that was replaced [v5_10], __kvm_set_memory_region() [pre_edd4]
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
