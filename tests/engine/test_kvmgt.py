"""KVMGT's two tables: what a MOVE, a DELETE and a race leave in them. Kernel-reference 6.3, 6.5 and 6.6."""

import pytest
from story import Story, story

from explorer.engine.events import ArrayFreed, KernelWarned, TrackerForgot
from explorer.engine.invariants import get_invariant, violations
from explorer.engine.types import PG_LEVEL_2M

TABLE = 0x1010
"""Guest page that holds a page table of the GPU, and that KVMGT shadows and tracks."""


def vgpu_with_a_table(profile, **options) -> Story:
    vm = story(profile=profile, **options).slot(1, gfn=0x1000, npages=0x1000).attach(kind="kvmgt").track(TABLE)
    assert tables(vm) == ([TABLE], {TABLE: True})
    assert vm.guest_writes(TABLE) == "emulated"
    return vm


def tables(vm: Story) -> tuple[list[int], dict[int, bool]]:
    """Return the protect table and the page-track tree with its ``tracked`` flags."""
    return list(vm.vgpu().protect_table), dict(vm.vgpu().page_track_tree.items())


# -- 6.6: the damage of a MOVE that is not rejected ------------------------------------------------


@pytest.mark.parametrize(
    ("profile", "counts_freed", "protected"),
    [("v6_1", 0, []), ("v6_6_nocheck", 1, [TABLE]), ("v6_6_posted", 1, [TABLE])],
)
def test_a_move_that_is_not_rejected_loses_the_count(profile, counts_freed, protected):
    vm = vgpu_with_a_table(profile)

    vm.move(1, to_gfn=0x5000)

    assert vm.errno is None
    assert [e.held for e in vm.events(ArrayFreed) if e.kind == "gfn_write_track"] == [counts_freed]
    assert vm.counts(1) == {}
    assert tables(vm) == (protected, {TABLE: True})


@pytest.mark.parametrize("profile", ["v6_1", "v6_6_nocheck"])
def test_after_such_a_move_the_guest_changes_its_table_unnoticed(profile):
    vm = vgpu_with_a_table(profile).move(1, to_gfn=0x5000)

    assert vm.guest_writes(0x5010) == "ram"
    assert vm.guest_writes(TABLE) == "mmio"


@pytest.mark.parametrize("profile", ["v6_1", "v6_6_nocheck"])
def test_after_such_a_move_tracking_again_does_nothing(profile):
    vm = vgpu_with_a_table(profile).slot(2, gfn=0x9000, npages=1).move(1, to_gfn=0x5000)
    before = vm.kvm

    vm.track(TABLE)

    assert (vm.errno, vm.kvm) == (None, before)


def test_on_6_1_freeing_the_shadow_after_such_a_move_leaves_nothing():
    vm = vgpu_with_a_table("v6_1").move(1, to_gfn=0x5000)

    vm.untrack(TABLE)

    assert (tables(vm), vm.events(KernelWarned)) == (([], {}), [])


def test_without_the_check_freeing_the_shadow_after_such_a_move_leaks_the_entry():
    vm = vgpu_with_a_table("v6_6_nocheck").move(1, to_gfn=0x5000)

    vm.untrack(TABLE)

    assert tables(vm) == ([TABLE], {})


def test_without_the_check_freeing_the_shadow_damages_the_slot_that_took_the_place():
    vm = vgpu_with_a_table("v6_6_nocheck").move(1, to_gfn=0x5000).slot(2, gfn=0x1000, npages=0x1000)
    assert vm.lpage(2, PG_LEVEL_2M) == [0] * 8

    vm.untrack(TABLE)

    assert len(vm.events(KernelWarned)) == 2
    assert vm.lpage(2, PG_LEVEL_2M) == [-1, 0, 0, 0, 0, 0, 0, 0]
    assert tables(vm) == ([], {})


@pytest.mark.parametrize("profile", ["v6_6", "v6_12", "v7_3"])
def test_a_move_that_is_rejected_leaves_kvmgt_as_it_was(profile):
    vm = vgpu_with_a_table(profile)

    vm.move(1, to_gfn=0x5000)

    assert vm.refused_by == "external_user"
    assert (vm.counts(1), tables(vm)) == ({TABLE: 1}, ([TABLE], {TABLE: True}))
    assert vm.guest_writes(TABLE) == "emulated"
    assert all(get_invariant(number).check(vm.kvm) == () for number in (11, 12))


# -- 6.5: sharp edges ------------------------------------------------------------------------------


def test_edge_1_on_6_1_a_move_that_fails_leaves_the_shadow_stale_for_good():
    vm = vgpu_with_a_table("v6_1")

    vm.move(1, to_gfn=(1 << 40) - 1)

    assert (vm.errno_name, vm[1].base_gfn) == ("EINVAL", 0x1000)
    assert (vm.counts(1), tables(vm)) == ({}, ([], {TABLE: True}))
    assert vm.track(TABLE).guest_writes(TABLE) == "ram", "enable returns early, for the flag says tracked"
    assert [v.gfn for v in get_invariant(12).check(vm.kvm)] == [TABLE]


def test_edge_1_on_6_1_an_allocation_that_fails_does_the_same():
    vm = vgpu_with_a_table("v6_1")
    vm.kvm = vm.kvm._replace(config=vm.kvm.config.__class__(host_memory=vm.kvm.heap_bytes))

    vm.move(1, to_gfn=0x5000)

    assert (vm.errno_name, vm.counts(1), tables(vm)) == ("ENOMEM", {}, ([], {TABLE: True}))


def test_edge_2_on_6_1_a_page_tracked_in_the_window_of_a_move_is_lost():
    vm = vgpu_with_a_table("v6_1").begin_move(1, to_gfn=0x5000).run_through("zap")

    assert vm.track(0x1020).errno is None
    assert vm.counts(1) == {0x1020: 1}, "added to the arrays that old and INVALID share"
    vm.finish()

    assert (vm.errno, vm.counts(1)) == (None, {})
    assert list(vm.vgpu().protect_table) == [0x1020]
    assert [(v.gfn, v.found) for v in get_invariant(11).check(vm.kvm)] == [(0x1020, "none")]
    assert list(vm.untrack(0x1020).vgpu().protect_table) == [0x1020], "no slot: EINVAL, and the entry stays for ever"


def test_edge_2_on_6_1_the_lost_entry_later_underflows_the_count_of_another_slot():
    vm = vgpu_with_a_table("v6_1").begin_delete(1).run_through("zap").track(0x1020).finish()
    vm.slot(2, gfn=0x1020, npages=1)

    vm.untrack(0x1020)

    assert [e.function for e in vm.events(KernelWarned)] == ["update_gfn_write_track"]
    assert vm.lpage(2, PG_LEVEL_2M) == [0], "its mark is gone: a huge page would now reach beyond the slot"
    assert [v.slot for v in get_invariant(15).check(vm.kvm)] == [2, 2]


@pytest.mark.parametrize("profile", ["v6_6", "v6_12", "v7_3"])
def test_from_6_6_on_a_page_tracked_in_the_window_of_a_delete_is_forgotten_at_commit(profile):
    vm = vgpu_with_a_table(profile).begin_delete(1).run_through("zap").track(0x1020)
    assert list(vm.vgpu().protect_table) == [TABLE, 0x1020]

    vm.finish()

    assert list(vm.vgpu().protect_table) == []
    assert violations(vm.kvm) == ()


@pytest.mark.parametrize("profile", ["v6_1", "v6_6", "v6_12", "v7_3"])
def test_edge_4_after_delete_and_create_a_page_is_believed_tracked_and_is_not(profile):
    vm = vgpu_with_a_table(profile)

    vm.delete(1).slot(1, gfn=0x1000, npages=0x1000)

    assert tables(vm) == ([], {TABLE: True})
    assert vm.track(TABLE).guest_writes(TABLE) == "ram"
    assert [v.gfn for v in get_invariant(12).check(vm.kvm)] == [TABLE]


@pytest.mark.parametrize("profile", ["v6_6", "v6_12", "v7_3"])
def test_a_vgpu_that_attaches_inside_a_move_loses_what_it_tracks_there(profile):
    """The test for an external user runs once, in prepare; registering takes mmu_lock and not slots_lock.

    Where registering allocates the counts it takes slots_arch_lock, too; here they are there already.
    """
    vm = story(profile=profile).slot(1, gfn=0x1000, npages=0x1000).attach().detach()
    vm.begin_move(1, to_gfn=0x5000).run_through("prepare")

    vm.attach(1, kind="kvmgt").track(TABLE, user=1).finish()

    assert (vm.errno, vm.counts(1)) == (None, {})
    assert [v.gfn for v in get_invariant(11).check(vm.kvm)] == [TABLE]


# -- what the second address space does to tables that have none ----------------------------------


@pytest.mark.parametrize("profile", ["v6_6", "v6_12", "v7_3"])
def test_deleting_an_smm_slot_makes_kvmgt_forget_a_page_that_is_still_tracked(profile):
    """track_remove_region(gfn, nr_pages) says nothing of the address space. [D from gvt/kvmgt.c]"""
    vm = vgpu_with_a_table(profile).slot(1, gfn=0x1000, npages=0x20, as_id=1)

    vm.delete(1, as_id=1)

    assert [e.gfns for e in vm.events(TrackerForgot)] == [(TABLE,)]
    assert (vm.counts(1), list(vm.vgpu().protect_table)) == ({TABLE: 1}, [])
    assert vm.detach().counts(1) == {TABLE: 1}, "nobody gives it back any more"


def test_on_6_1_deleting_an_smm_slot_removes_a_count_that_is_not_in_it():
    """kvmgt_page_track_flush_slot() removes from the slot that was passed, whatever its address space."""
    vm = vgpu_with_a_table("v6_1").slot(1, gfn=0x1000, npages=0x20, as_id=1)

    vm.delete(1, as_id=1)

    assert [e.function for e in vm.events(KernelWarned)] == ["update_gfn_write_track"]
    assert (vm.counts(1), list(vm.vgpu().protect_table)) == ({TABLE: 1}, [])


# -- 6.2 and 6.3: attach, detach, filter ------------------------------------------------------------


def test_a_vm_has_one_vgpu_at_most():
    vm = story().attach(1, kind="kvmgt")

    assert vm.attach(2, kind="kvmgt").errno_name == "EEXIST"
    assert vm.attach(1, kind="kvmgt").errno_name == "EEXIST"
    assert vm.detach(1).attach(2, kind="kvmgt").errno is None


def test_the_protect_table_filters_repeats():
    vm = vgpu_with_a_table("v6_12")

    assert vm.track(TABLE).track(TABLE).counts(1) == {TABLE: 1}
    assert vm.untrack(TABLE).untrack(TABLE).counts(1) == {}
    assert vm.all_events(KernelWarned) == []


@pytest.mark.parametrize("profile", ["v6_1", "v6_12"])
def test_detaching_gives_every_watch_back_and_empties_both_tables(profile):
    vm = vgpu_with_a_table(profile).track(0x1FFF)

    vm.detach()

    assert (vm.counts(1), tables(vm), vm.kvm.track_notifiers) == ({}, ([], {}), ())
    assert violations(vm.kvm) == ()


@pytest.mark.parametrize("profile", ["v6_1", "v6_12"])
def test_a_detached_vgpu_cannot_track(profile):
    vm = vgpu_with_a_table(profile).detach()

    assert vm.track(TABLE).errno_name == "ESRCH"
    assert vm.counts(1) == {}
