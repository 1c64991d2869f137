"""Two ways to one state: a refused MOVE and a bare zap; DELETE with CREATE and MOVE. Kernel-reference section 9."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from story import H, Story, story

from explorer.engine import mmu
from explorer.engine.draft import KvmDraft
from explorer.engine.profile import PROFILES

if TYPE_CHECKING:
    from explorer.engine.state import Kvm, KvmMemorySlot

REFUSES = ["v6_6", "v6_12", "v6_18", "v7_3"]
ACTS = st.lists(
    st.sampled_from(
        [
            "shadow_tables gfn=0x100",
            "shadow_tables gfn=0x404 levels=3",
            "shadow_tables gfn=0x102 levels=2 as=1",
            "guest_write gpa=0x101000",
            "guest_write gpa=0x103000 as=1",
            "guest_write gpa=0x407000",
            "guest_read gpa=0x406000",
            "guest_write gpa=0x600000",
            "get_dirty_log slot=2",
            "enable_cap cap=DISABLE_QUIRKS2 arg=128",
        ]
    ),
    max_size=12,
)
MACHINES = st.sampled_from([{"tdp": False}, {"tdp": True}, {"tdp": True, "tdp_mmu": False}])


def lived_in(profile: str, machine: dict[str, bool], acts: list[str]) -> Story:
    """A VM with four slots in two address spaces, after some life; slot 1 is the one that is asked to move."""
    vm = story(profile=profile, **machine).slot(1, gfn=0x100, npages=8, hva=H).slot(2, gfn=0x400, npages=8, flags=1)
    vm.slot(1, gfn=0x100, npages=8, hva=H, as_id=1).slot(3, gfn=0x600, npages=0x200)
    vm.do(f"host_touch hva={vm.hva_of(3):#x} size=0x200000 value=1")
    for act in acts:
        vm.do(act)
    return vm


def apart_from_time(kvm: Kvm) -> tuple[object, ...]:
    """Return all of a VM but generations, which set is active, and the identities of arrays and shadow pages."""
    slots = tuple(tuple(_contents(kvm, slot) for slot in space.active.slots()) for space in kvm.memslots)
    pages = sorted((page.gfn, page.level, page.as_id) for page in kvm.active_mmu_pages.values())
    identities = {"next_array": 0, "active_mmu_pages": None, "mmu_page_hash": None, "next_mmu_page": 0}
    rest = kvm._replace(memslots=(), heap=None, mmu_valid_gen=0, **identities)
    return slots, pages, rest


def _contents(kvm: Kvm, slot: KvmMemorySlot) -> tuple[object, ...]:
    arrays = (None if array is None else kvm.heap[array] for array in (*slot.arch, slot.dirty_bitmap))
    return slot._replace(arch=None, dirty_bitmap=None), *arrays


@pytest.mark.parametrize("profile", REFUSES)
@given(acts=ACTS, machine=MACHINES)
@settings(max_examples=40)
def test_a_refused_move_is_a_zap_and_nothing_else(profile, acts, machine):
    vm = lived_in(profile, machine, acts).attach()
    draft = KvmDraft(vm.kvm, record=False)
    mmu.kvm_arch_flush_shadow_memslot(draft, vm[1])
    zapped = draft.freeze()

    vm.move(1, to_gfn=0x1000)

    assert vm.refused_by == "external_user"
    assert apart_from_time(vm.kvm) == apart_from_time(zapped)
    assert vm.kvm.mmu_valid_gen == zapped.mmu_valid_gen


@pytest.mark.parametrize("profile", REFUSES)
@given(acts=ACTS, machine=MACHINES)
@settings(max_examples=20)
def test_a_refused_move_zaps_the_whole_vm_unless_the_quirk_is_off(profile, acts, machine):
    vm = lived_in(profile, machine, acts).attach().move(1, to_gfn=0x1000)

    quirk_off = vm.kvm.disabled_quirks != 0

    left = (len(vm.kvm.sptes.entries), vm.kvm.indirect_shadow_pages)
    assert quirk_off or left == (0, 0)


def moved(vm: Story) -> Story:
    return vm.move(1, to_gfn=0x1001)


def deleted_and_created(vm: Story) -> Story:
    old = vm[1]
    return vm.delete(1).slot(1, gfn=0x1001, npages=old.npages, hva=old.userspace_addr, flags=old.flags)


@pytest.mark.parametrize("profile", [name for name in PROFILES if name not in ("pre_edd4", "v6_6_posted")])
@given(acts=ACTS, machine=MACHINES)
@settings(max_examples=40)
def test_delete_and_create_is_a_move_but_for_the_generation(profile, acts, machine):
    vm = lived_in(profile, machine, acts)
    other = Story(vm.kvm)
    before = vm.generation()

    moved(vm)
    deleted_and_created(other)

    assert (vm.errno, other.errno) == (None, None)
    assert apart_from_time(vm.kvm) == apart_from_time(other.kvm)
    assert (vm.generation() - before, other.generation() - before) == (2 * 2, 3 * 2)


@pytest.mark.parametrize("profile", [name for name in PROFILES if name not in ("pre_edd4", "v6_6_posted")])
def test_a_move_keeps_the_dirty_bits_that_delete_and_create_lose(profile):
    vm = story(profile=profile).slot(1, gfn=0x100, npages=8, hva=H, flags=1)
    vm.guest_writes(0x105)
    other = Story(vm.kvm)

    moved(vm)
    deleted_and_created(other)

    assert (vm.dirty(1), other.dirty(1)) == ([5], [])


def test_before_edd4_the_two_differ_by_what_a_move_carries_over():
    """Kernel-reference 2.1: rmap and huge-page arrays hang on the old alignment."""
    vm = story(profile="pre_edd4").slot(1, gfn=0x200, npages=0x200, hva=H)
    other = Story(vm.kvm)

    moved(vm)
    deleted_and_created(other)

    assert (vm.lpage(1, 2), other.lpage(1, 2)) == ([0], [1, 1])


def test_what_is_left_out_of_a_comparison_is_only_time_and_identity():
    vm = story().slot(1, gfn=0x100, npages=8, flags=1).attach().track(0x101)
    bitmap = vm[1].dirty_bitmap
    changed = [
        vm.kvm._replace(nr_memslot_pages=9),
        vm.kvm._replace(config=replace(vm.kvm.config, tdp=True)),
        vm.kvm._replace(heap=vm.kvm.heap.set(bitmap, vm.kvm.heap[bitmap]._replace(npages=9))),
    ]

    assert all(apart_from_time(kvm) != apart_from_time(vm.kvm) for kvm in changed)
