"""Finding things: id to slot, gfn to slot, gfn to host address, host range to slots.

Models the lookups of include/linux/kvm_host.h and virt/kvm/kvm_main.c.
Not modelled: ``last_used_slot`` and the per-vCPU cache in front of the tree; they change no answer.
Read next: `guest_memfd`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from explorer.engine.types import PAGE_SHIFT, AsId, Gfn, Hva, SlotId
from explorer.engine.uapi import KVM_MEM_READONLY, KVM_MEMSLOT_INVALID

if TYPE_CHECKING:
    from collections.abc import Iterator

    from explorer.engine.draft import KvmDraft
    from explorer.engine.state import Kvm, KvmMemorySlot, KvmMemslots

__all__ = [
    "KVM_HVA_ERR_BAD",
    "KVM_HVA_ERR_RO_BAD",
    "as_id_of",
    "gfn_to_hva",
    "gfn_to_memslot",
    "hva_key",
    "id_to_memslot",
    "kvm_is_visible_gfn",
    "overlapping_slot",
    "slots_in_gfn_range",
    "slots_in_hva_range",
]

KVM_HVA_ERR_BAD = Hva(0xFFFF_8880_0000_0000)
"""What a gfn without a usable slot translates to: PAGE_OFFSET, here without address randomisation."""
KVM_HVA_ERR_RO_BAD = Hva(KVM_HVA_ERR_BAD + 4096)
"""What a write to a read-only slot translates to."""


def id_to_memslot(slots: KvmMemslots, slot_id: int) -> KvmMemorySlot | None:
    """Return the slot with this id, INVALID ones too, or None.

    References
    ----------
    include/linux/kvm_host.h: id_to_memslot() [all profiles]
    """
    return slots.id_hash.get(SlotId(slot_id))


def gfn_to_memslot(slots: KvmMemslots, gfn: int) -> KvmMemorySlot | None:
    """Return the slot that contains `gfn`, or None. INVALID and internal slots are found too.

    References
    ----------
    include/linux/kvm_host.h: ____gfn_to_memslot() [v6_1 to v7_3], __gfn_to_memslot() [up to v5_10]
    """
    found = slots.gfn_tree.floor(Gfn(gfn))
    if found is None:
        return None
    slot = slots.id_hash[found[1]]
    return slot if gfn < slot.base_gfn + slot.npages else None


def kvm_is_visible_gfn(kvm: Kvm | KvmDraft, as_id: AsId, gfn: int) -> bool:
    """Return whether `gfn` lies in a slot that the guest may use: neither INVALID nor KVM's own.

    References
    ----------
    virt/kvm/kvm_main.c: kvm_is_visible_gfn() [all profiles]; include/linux/kvm_host.h: kvm_is_visible_memslot()
    [v5_10 to v7_3]
    """
    slot = gfn_to_memslot(kvm.active(as_id), gfn)
    return slot is not None and not slot.invalid and slot.id < kvm.profile.user_mem_slots


def gfn_to_hva(slots: KvmMemslots, gfn: int, *, write: bool = False) -> Hva:
    """Return the host address behind `gfn`, or one of the two error values.

    References
    ----------
    virt/kvm/kvm_main.c: __gfn_to_hva_many() [all profiles]
    """
    slot = gfn_to_memslot(slots, gfn)
    if slot is None or slot.flags & KVM_MEMSLOT_INVALID:
        return KVM_HVA_ERR_BAD
    if write and slot.flags & KVM_MEM_READONLY:
        return KVM_HVA_ERR_RO_BAD
    return Hva(slot.userspace_addr + ((gfn - slot.base_gfn) << PAGE_SHIFT))


def slots_in_gfn_range(slots: KvmMemslots, start: int, end: int) -> Iterator[KvmMemorySlot]:
    """Iterate over the slots that touch ``[start, end)``, by base_gfn.

    References
    ----------
    include/linux/kvm_host.h: kvm_for_each_memslot_in_gfn_range() [v6_1 to v7_3]
    """
    first = slots.gfn_tree.floor(Gfn(start))
    if first is not None:
        slot = slots.id_hash[first[1]]
        if first[0] < end and slot.base_gfn + slot.npages > start:
            yield slot
    for base_gfn, slot_id in slots.gfn_tree.items_from(Gfn(start + 1)):
        if base_gfn >= end:
            return
        yield slots.id_hash[slot_id]


def overlapping_slot(slots: KvmMemslots, slot_id: int, start: int, end: int) -> KvmMemorySlot | None:
    """Return the first slot with another id that touches ``[start, end)``, or None.

    A slot may overlap its own old place: a MOVE by one page is legal.

    References
    ----------
    virt/kvm/kvm_main.c: kvm_check_memslot_overlap() [v6_1 to v7_3], __kvm_set_memory_region() [up to v5_10]
    """
    for slot in slots_in_gfn_range(slots, start, end):
        if slot.id != slot_id:
            return slot
    return None


def hva_key(slot: KvmMemorySlot) -> tuple[int, Hva, SlotId]:
    """Return the key of a slot in `KvmMemslots.hva_tree`.

    Host ranges may overlap, so an order by address alone would not find a long slot that starts far
    before. Slots are therefore kept by size class: within one, a slot that reaches into a range starts
    at most one class size before it.
    """
    return (slot.npages.bit_length(), slot.userspace_addr, slot.id)


def slots_in_hva_range(slots: KvmMemslots, start: int, end: int) -> Iterator[KvmMemorySlot]:
    """Iterate over the slots backed by host addresses in ``[start, end)``.

    Answers as the kernel's interval tree does; slots that alias one address are all found.

    References
    ----------
    virt/kvm/kvm_main.c: kvm_for_each_memslot_in_hva_range() [v6_1 to v7_3]
    """
    size_class = 0
    while (found := slots.hva_tree.ceiling((size_class, Hva(0), SlotId(0)))) is not None:
        size_class = found[0][0]
        reach = 1 << (size_class + PAGE_SHIFT)
        for (cls, hva, slot_id), _ in slots.hva_tree.items_from((size_class, Hva(max(start - reach, 0)), SlotId(0))):
            if cls != size_class or hva >= end:
                break
            slot = slots.id_hash[slot_id]
            if hva + (slot.npages << PAGE_SHIFT) > start:
                yield slot
        size_class += 1


def as_id_of(slot_argument: int) -> tuple[AsId, SlotId]:
    """Split the ioctl's ``slot`` into address space (high 16 bits) and id (low 16)."""
    return AsId((slot_argument >> 16) & 0xFFFF), SlotId(slot_argument & 0xFFFF)
