"""Finding slots by gfn and by host address; a naive scan is the judge. Kernel-reference 3.2."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from story import H, story

from explorer.engine.lookup import (
    KVM_HVA_ERR_BAD,
    KVM_HVA_ERR_RO_BAD,
    as_id_of,
    gfn_to_memslot,
    hva_key,
    id_to_memslot,
    overlapping_slot,
    slots_in_gfn_range,
    slots_in_hva_range,
)
from explorer.engine.sortedmap import SortedMap
from explorer.engine.state import KvmArchMemorySlot, KvmMemorySlot, KvmMemslots

TOP = (1 << 40) - 1
"""Last gfn without TDP."""


@pytest.mark.parametrize(
    ("gfn", "found"), [(0, 1), (3, 1), (4, None), (0xFF, None), (0x100, 2), (0x10F, 2), (0x110, None), (TOP, 3)]
)
def test_a_gfn_finds_its_slot_at_every_edge(gfn, found):
    vm = story().slot(1, gfn=0, npages=4).slot(2, gfn=0x100, npages=16).slot(3, gfn=TOP, npages=1, hva=H)

    slot = gfn_to_memslot(vm.kvm.active(), gfn)

    assert (slot and slot.id) == found
    assert vm.lookup(gfn) == (KVM_HVA_ERR_BAD if slot is None else slot.userspace_addr + ((gfn - slot.base_gfn) << 12))


def test_error_addresses_are_none_that_a_vmm_can_have():
    assert KVM_HVA_ERR_BAD > 0x7FFF_FFFF_F000
    assert KVM_HVA_ERR_RO_BAD == KVM_HVA_ERR_BAD + 4096


def test_an_absent_id_is_not_found_and_an_invalid_one_is():
    vm = story().slot(1, gfn=0, npages=4).begin_delete(1).run_through("publish")

    assert id_to_memslot(vm.kvm.active(), 2) is None
    assert id_to_memslot(vm.kvm.active(), 1).invalid


@pytest.mark.parametrize(
    ("argument", "parts"), [(0, (0, 0)), (0x10005, (1, 5)), (0xFFFF, (0, 0xFFFF)), (0x1_0002_0003, (2, 3))]
)
def test_the_ioctl_s_slot_holds_address_space_and_id(argument, parts):
    """Kernel-reference 4.1: bits 0 to 15 id, bits 16 to 31 address space."""
    assert as_id_of(argument) == parts


# -- against a scan of a plain list ----------------------------------------------------------------


def a_set_of(slots: list[KvmMemorySlot]) -> KvmMemslots:
    return KvmMemslots(
        0,
        0,
        SortedMap([(slot.id, slot) for slot in slots]),
        SortedMap([(slot.base_gfn, slot.id) for slot in slots]),
        SortedMap([(hva_key(slot), None) for slot in slots]),
    )


@st.composite
def disjoint_slots(draw) -> list[KvmMemorySlot]:
    """Slots that do not overlap in gfns and do, as aliases, in host addresses."""
    slots, gfn = [], 0
    for slot_id in range(draw(st.sampled_from(range(13)))):
        gfn += draw(st.sampled_from([0, 0, 1, 5]))
        npages = draw(st.sampled_from([1, 1, 2, 3, 4, 7, 8, 9, 31, 64]))
        hva = draw(st.sampled_from(range(80))) << 12
        slots.append(KvmMemorySlot(slot_id, 0, gfn, npages, hva, 0, None, KvmArchMemorySlot()))
        gfn += npages
    return slots


@given(disjoint_slots(), st.sampled_from(range(160)), st.sampled_from([0, 1, 2, 9, 40]))
def test_a_gfn_range_touches_the_slots_a_scan_finds(slots, start, length):
    kvm_set, end = a_set_of(slots), start + length

    touched = [slot for slot in slots if slot.base_gfn < end and slot.end_gfn > start]

    assert list(slots_in_gfn_range(kvm_set, start, end)) == touched
    assert gfn_to_memslot(kvm_set, start) == next((s for s in slots if s.base_gfn <= start < s.end_gfn), None)
    for mine in range(3):
        assert overlapping_slot(kvm_set, mine, start, end) == next((s for s in touched if s.id != mine), None)


@given(
    disjoint_slots(),
    st.sampled_from(range(150)),
    st.sampled_from([0, 1, 4095]),
    st.sampled_from([1, 4096, 4097, 40 << 12]),
)
def test_a_host_range_finds_every_slot_behind_it_aliases_too(slots, page, offset, length):
    start = (page << 12) + offset
    found = list(slots_in_hva_range(a_set_of(slots), start, start + length))

    behind = [s for s in slots if s.userspace_addr < start + length and s.userspace_addr + (s.npages << 12) > start]
    assert sorted(found) == sorted(behind)
    assert len(found) == len({slot.id for slot in found})


def test_a_long_slot_that_starts_far_below_is_found_behind_a_host_address():
    vm = story().slot(1, gfn=0x100000, npages=0x40000, hva=H).slot(2, gfn=0, npages=1, hva=H + 0x3FFFF000)

    found = slots_in_hva_range(vm.kvm.active(), H + 0x3FFFF000, H + 0x40000000)

    assert {slot.id for slot in found} == {1, 2}
