"""Shadow pages: what accounting them adds and what each kind of zap takes back. Kernel-reference 4.8, 5.2, 5.6."""

from dataclasses import replace

import pytest
from story import Story, story

from explorer.engine.commands import EnableCap, SetTssAddr
from explorer.engine.draft import KvmDraft
from explorer.engine.events import KernelWarned, MappingsZapped, ShadowPageZapped
from explorer.engine.invariants import get_invariant, violations
from explorer.engine.locks import BusyError
from explorer.engine.mmu import mmu_first_shadow_root_alloc, shadow_guest_table
from explorer.engine.profile import PROFILES, get_profile
from explorer.engine.spte import sptes_of_gfn
from explorer.engine.types import AsId, Gfn
from explorer.engine.uapi import KVM_CAP_DISABLE_QUIRKS2, KVM_X86_QUIRK_SLOT_ZAP_ALL

QUIRK_OFF = EnableCap(cap=KVM_CAP_DISABLE_QUIRKS2, arg=KVM_X86_QUIRK_SLOT_ZAP_ALL)
WITH_QUIRK = ["v6_12", "v6_18", "v7_3"]
ACCOUNTED = ({16: 1, 17: 1, 18: 1}, [5], [5])
"""Recording npt0 tracker/shadow_pages_then_move: a four-level walk whose tables lie at gfns 16 to 19."""


def guest_on_page_tables(profile="v6_12", *, quirk_off=False) -> Story:
    vm = story(profile=profile).slot(0, gfn=0, npages=32).slot(1, gfn=0x400, npages=0x400)
    if quirk_off:
        vm.do(QUIRK_OFF)
        assert vm.errno is None
    vm.shadow(16)
    assert (vm.ledger(0), vm.kvm.indirect_shadow_pages) == (ACCOUNTED, 4)
    return vm


@pytest.mark.parametrize("profile", PROFILES)
def test_shadowed_tables_are_tracked_at_upper_levels_and_forbid_huge_pages_at_all(profile):
    vm = guest_on_page_tables(profile)

    assert [vm.guest_writes(gfn) for gfn in (15, 16, 17, 18, 19)] == ["ram", "emulated", "emulated", "emulated", "ram"]
    assert violations(vm.kvm) == ()
    assert vm.shadow(16).ledger(0) == ACCOUNTED, "a table that is shadowed is not shadowed again"


@pytest.mark.parametrize("profile", ["v5_10", "v6_1", "v6_6", "v6_12", "v7_3"])
def test_moving_any_slot_zaps_the_shadow_pages_of_the_whole_vm(profile):
    """Recording tracker/shadow_pages_then_move: afterwards every entry is its mark again."""
    vm = guest_on_page_tables(profile)

    vm.move(1, to_gfn=0x800)

    assert [(e.scope, e.shadow_pages) for e in vm.events(MappingsZapped)] == [("all", 4)]
    assert [e.gfn for e in vm.events(ShadowPageZapped)] == [16, 17, 18, 19], "oldest first"
    assert (vm.ledger(0), vm.kvm.indirect_shadow_pages) == (({}, [1], [1]), 0)


@pytest.mark.parametrize("profile", WITH_QUIRK)
def test_with_the_quirk_off_a_move_keeps_the_shadow_pages_of_other_slots(profile):
    """Recording tracker/quirk_off_move_keeps_other_slots: the ledger of slot 0 is as before, generation 6 later 10."""
    vm = guest_on_page_tables(profile, quirk_off=True)

    vm.move(1, to_gfn=0x800)

    assert [(e.scope, e.shadow_pages) for e in vm.events(MappingsZapped)] == [("slot", 0)]
    assert (vm.ledger(0), vm.kvm.indirect_shadow_pages) == (ACCOUNTED, 4)


@pytest.mark.parametrize("profile", WITH_QUIRK)
def test_with_the_quirk_off_the_slot_s_own_shadow_pages_go(profile):
    vm = guest_on_page_tables(profile, quirk_off=True).shadow(0x400)
    assert vm.kvm.indirect_shadow_pages == 8

    vm.move(0, to_gfn=0x100)

    assert (vm.ledger(0), vm.kvm.indirect_shadow_pages) == (({}, [1], [1]), 4)
    assert violations(vm.kvm) == ()


@pytest.mark.parametrize("profile", WITH_QUIRK)
def test_with_the_quirk_off_shadow_pages_at_the_slot_s_gfns_go_in_both_address_spaces(profile):
    """mmu.c: kvm_mmu_zap_memslot_pages_and_flush() walks for_each_gfn_valid_sp_with_gptes(): the gfn decides alone.

    Kernel-reference 3.6 and 4.8: the hash of shadow pages is not separated by address space, and every valid
    indirect shadow page whose gfn is in the slot is zapped.
    """
    vm = story(profile=profile).do(QUIRK_OFF)
    vm.slot(1, gfn=0x100, npages=16).slot(1, gfn=0x100, npages=16, as_id=1).shadow(0x100, as_id=1)

    vm.move(1, to_gfn=0x200)

    assert vm.kvm.indirect_shadow_pages == 0
    assert vm.counts(1, as_id=1) == {}


@pytest.mark.parametrize("profile", [n for n in PROFILES if n not in (*WITH_QUIRK, "v6_12_quirk_posted")])
def test_older_kernels_do_not_know_the_quirk(profile):
    vm = story(profile=profile).do(QUIRK_OFF)

    assert (vm.errno_name, vm.kvm.disabled_quirks) == ("EINVAL", 0)


@pytest.mark.parametrize("profile", ["v6_6", "v6_12", "v7_3"])
def test_a_refused_move_zaps_all_the_same(profile):
    """Section 4.6: a rejected MOVE is not free."""
    vm = guest_on_page_tables(profile).attach().move(1, to_gfn=0x800)

    assert vm.refused_by == "external_user"
    assert (vm.ledger(0), vm.kvm.indirect_shadow_pages) == (({}, [1], [1]), 0)


def test_creating_a_slot_or_changing_flags_zaps_nothing():
    vm = guest_on_page_tables().slot(2, gfn=0x1000, npages=1).set_flags(1, 1)

    assert (vm.all_events(MappingsZapped), vm.ledger(0)) == ([], ACCOUNTED)


def test_a_root_in_no_slot_shadows_nothing():
    """Kernel-reference 2.3: it gives a triple fault or a dummy root, so no walk ever starts."""
    vm = story().slot(1, gfn=0x100, npages=16)

    vm.shadow(0xFF)

    assert (vm.kvm.indirect_shadow_pages, vm.counts(1)) == (0, {})


def test_a_walk_that_cannot_read_a_table_leaves_only_the_root():
    """paging_tmpl.h: walk_addr_generic() fails, and page_fault() returns before it fetches any table."""
    vm = story().slot(1, gfn=0x100, npages=2)

    vm.shadow(0x100)

    assert (vm.kvm.indirect_shadow_pages, vm.counts(1)) == (1, {0x100: 1})


def test_a_table_in_a_slot_of_kvm_s_own_is_not_shadowed():
    """Kernel-reference 4.10: internal slots are not visible, so walks of guest page tables ignore them."""
    vm = story(processor="intel").do(SetTssAddr(addr=0xFFFBD000))
    assert vm.lookup(0xFFFBD) == vm.hva_of(32764)

    vm.shadow(0xFFFBD, levels=1)

    assert vm.kvm.indirect_shadow_pages == 0


def test_with_tdp_the_guest_s_tables_are_not_shadowed():
    vm = story(tdp=True).slot(1, gfn=0x100, npages=16).shadow(0x100)

    assert (vm.kvm.indirect_shadow_pages, vm.kvm.shadow_root_allocated) == (0, False)


# -- 5.6: what would go wrong if shadow pages survived the move ------------------------------------

LEAF_ZAP = replace(get_profile("v6_12"), name="leaf_zap", quirk_off_zaps_shadow_pages=False)


def survivor() -> Story:
    """A VM whose zap leaves the shadow pages of the slot it zaps, as the quirk's first version did."""
    return story(profile=LEAF_ZAP).do(QUIRK_OFF).slot(1, gfn=0x100, npages=0x10).shadow(0x108, levels=2)


def test_experiment_i_a_survivor_of_a_delete_finds_no_slot_to_give_its_count_back():
    vm = survivor().delete(1)
    assert [v.gfn for v in get_invariant(16).check(vm.kvm)] == [0x108, 0x109]

    vm.kvm = vm.kvm._replace(disabled_quirks=0)
    vm.slot(2, gfn=0x1000, npages=1).delete(2)

    assert [e.function for e in vm.events(KernelWarned)] == ["unaccount_shadowed"] * 2


def test_experiment_ii_a_survivor_of_a_small_shift_underflows_the_new_arrays():
    vm = survivor().move(1, to_gfn=0x104)
    assert [(v.gfn, v.expected, v.found) for v in get_invariant(10).check(vm.kvm)] == [(0x108, 1, 0)]

    vm.kvm = vm.kvm._replace(disabled_quirks=0)
    vm.slot(2, gfn=0x1000, npages=1).delete(2)

    assert vm.events(KernelWarned)[0].function == "update_gfn_write_track"
    assert vm.lpage(1, 2) == [1 - 2], "the mark and one more, for two pages that were never added here"


def test_experiment_iii_a_survivor_takes_the_count_of_another_slot_in_silence():
    vm = survivor().move(1, to_gfn=0x400).slot(2, gfn=0x100, npages=0x10).attach().track(0x108)
    vm.kvm = vm.kvm._replace(disabled_quirks=0)

    vm.slot(3, gfn=0x1000, npages=1).delete(3)

    assert vm.counts(2) == {}, "the tracker's count is gone although it never let go"
    assert not [e for e in vm.events(KernelWarned) if e.function == "update_gfn_write_track"]


# -- 5.2: accounting a table that is mapped already ------------------------------------------------


@pytest.mark.parametrize("profile", PROFILES)
def test_a_last_level_table_is_write_protected_once_when_it_is_shadowed(profile):
    """Kernel-reference 5.2, step 3: it is not tracked, and the next write to it brings the access back."""
    vm = story(profile=profile).slot(0, gfn=0, npages=32)
    assert vm.guest_writes(19) == "ram"
    assert [spte.writable for _, spte in sptes_of_gfn(vm.kvm, 0, 19)] == [True]

    vm.shadow(16)

    assert [(spte.writable, spte.mmu_writable) for _, spte in sptes_of_gfn(vm.kvm, 0, 19)] == [(False, False)]
    assert (vm.counts(0), vm.guest_writes(19)) == ({16: 1, 17: 1, 18: 1}, "ram")


@pytest.mark.parametrize("profile", PROFILES)
def test_only_the_first_shadow_root_waits_for_the_lock_of_the_arrays(profile):
    """mmu_first_shadow_root_alloc() takes slots_arch_lock; later ones see shadow_root_allocated and do not."""
    vm = story(profile=profile).slot(0, gfn=0, npages=32).slot(1, gfn=0x400, npages=4)
    vm.begin_move(1, to_gfn=0x800).run_through("copy")
    with pytest.raises(BusyError, match="slots_arch_lock"):
        vm.shadow(16)

    vm.finish().shadow(16).begin_move(1, to_gfn=0x900).run_through("copy").shadow(20)

    assert vm.kvm.indirect_shadow_pages == 4 + 4


def test_making_a_shadow_page_says_whether_one_was_made():
    draft = KvmDraft(story().slot(0, gfn=0, npages=32).kvm, record=False)
    mmu_first_shadow_root_alloc(draft)

    assert shadow_guest_table(draft, Gfn(16), 4, AsId(0)) is True
    assert shadow_guest_table(draft, Gfn(16), 4, AsId(0)) is False, "it is there"
    assert shadow_guest_table(draft, Gfn(99), 4, AsId(0)) is False, "no slot holds it"
