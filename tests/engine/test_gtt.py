"""KVMGT's shadow of the GPU's page tables, and what a MOVE does to it. Kernel-reference 6.3 to 6.6.

Section 6.6 row by row: what is of counts and tables is in test_kvmgt, what is of the shadow is here.
"""

from __future__ import annotations

import pytest
from story import H, Story, story

from explorer.engine.draft import KvmDraft
from explorer.engine.events import GpuEntryShadowed, KernelWarned, MappingsZapped, WriteUntracked
from explorer.engine.kvmgt import intel_vgpu_page_track_handler, kvmgt_page_track_flush_slot, ppgtt_free_spt
from explorer.engine.profile import PROFILES
from explorer.engine.spte import sptes_of_gfn
from explorer.engine.state import GvtDma
from explorer.engine.types import PAGE_SHIFT, Errno

TABLE, PAGE, OTHER = 0x1010, 0x1800, 0x1900
"""The guest page table of the GPU, and two pages that its entries name."""
INDEX = 3
LETS_MOVE = ["pre_edd4", "v5_10", "v6_1", "v6_6_posted", "v6_6_nocheck"]
DAMAGED = ["v6_1", "v6_6_nocheck", "v6_6_posted"]
"""The two columns of 6.6; the posted test lets a MOVE beside KVMGT through, so it is the second one, too."""
OLD = ["pre_edd4", "v5_10", "v6_1"]


def entry(gfn: int) -> int:
    return gfn << PAGE_SHIFT | 1


def writes_entry(vm: Story, gfn: int, pte: int, *, nbytes: int = 8, half: int = 0) -> str:
    """Let the guest write entry `INDEX` of the table at `gfn`, whole or a half of it."""
    vm.do(f"guest_write gpa={(gfn << PAGE_SHIFT) + INDEX * 8 + half * 4:#x} bytes={nbytes} value={pte:#x}")
    return "told" if vm.events(GpuEntryShadowed) else "not told"


def host(vm: Story, gfn: int) -> int:
    return vm.hva_of(1) + (gfn - vm[1].base_gfn << PAGE_SHIFT)


def vgpu(profile: str, **config: object) -> Story:
    """The setup of 6.6, with an entry of the table that leads the GPU to a page."""
    vm = story(profile=profile, **config).slot(1, gfn=0x1000, npages=0x1000).attach(kind="kvmgt").track(TABLE)
    assert writes_entry(vm, TABLE, entry(PAGE)) == "told"
    assert vm.gpu_uses(TABLE, INDEX) == host(vm, PAGE)
    assert dict(vm.vgpu().gfn_cache.items()) == {PAGE: GvtDma(host(vm, PAGE), 1)}
    return vm


# -- 6.3, 6.4: shadowing and following -------------------------------------------------------------


@pytest.mark.parametrize("profile", PROFILES)
def test_what_the_guest_wrote_before_is_shadowed_when_its_table_is_first_tracked(profile):
    vm = story(profile=profile).slot(1, gfn=0x1000, npages=0x1000).attach(kind="kvmgt")
    assert writes_entry(vm, TABLE, entry(PAGE)) == "not told"

    vm.track(TABLE)

    assert [(e.table, e.index, e.page) for e in vm.events(GpuEntryShadowed)] == [(TABLE, INDEX, PAGE)]
    assert vm.gpu_uses(TABLE, INDEX) == host(vm, PAGE)


@pytest.mark.parametrize("profile", PROFILES)
def test_a_table_is_its_512_entries_and_nothing_before_or_behind_it(profile):
    vm = story(profile=profile).slot(1, gfn=0x1000, npages=0x1000).attach(kind="kvmgt")
    for index in (-1, 0, 511, 512):
        vm.do(f"guest_write gpa={(TABLE << PAGE_SHIFT) + index * 8:#x} bytes=8 value={entry(PAGE + index):#x}")

    vm.track(TABLE)

    assert {index: vm.gpu_uses(TABLE, index) for index in (0, 511)} == {0: host(vm, PAGE), 511: host(vm, PAGE + 511)}
    assert list(vm.vgpu().spts[TABLE].entries) == [0, 511]


@pytest.mark.parametrize("profile", PROFILES)
def test_an_entry_follows_the_guest_s_and_pins_are_counted(profile):
    vm = vgpu(profile)

    writes_entry(vm, TABLE, entry(OTHER))
    assert vm.gpu_uses(TABLE, INDEX) == host(vm, OTHER)
    assert list(vm.vgpu().gfn_cache) == [OTHER]

    writes_entry(vm, TABLE, 0)
    assert (vm.gpu_uses(TABLE, INDEX), dict(vm.vgpu().gfn_cache.items())) == (None, {})


def test_a_page_that_is_pinned_is_there():
    vm = vgpu("v6_12")

    assert host(vm, PAGE) >> 21 in vm.kvm.host.present, "the host has it, in its 2 MiB"


def test_two_entries_for_one_page_pin_it_twice_and_unpin_it_once_each():
    vm = vgpu("v6_12").do(f"guest_write gpa={TABLE << PAGE_SHIFT:#x} value={entry(PAGE):#x}")
    assert vm.vgpu().gfn_cache[PAGE].ref == 2

    writes_entry(vm, TABLE, 0)

    assert vm.vgpu().gfn_cache[PAGE].ref == 1
    assert vm.gpu_uses(TABLE, 0) == host(vm, PAGE)


def test_an_entry_written_anew_with_the_same_page_stays_pinned():
    """The new entry is added before the old one is removed, so the page is never without a pin."""
    vm = vgpu("v6_12")

    writes_entry(vm, TABLE, entry(PAGE) | 2)

    assert dict(vm.vgpu().gfn_cache.items()) == {PAGE: GvtDma(host(vm, PAGE), 1)}


@pytest.mark.parametrize("profile", PROFILES)
def test_half_an_entry_is_scratch_until_the_guest_submits_work(profile):
    vm = vgpu(profile)

    writes_entry(vm, TABLE, entry(OTHER), nbytes=4)
    assert (vm.gpu_uses(TABLE, INDEX), list(vm.vgpu().spts[TABLE].post_shadow_bitmap)) == (None, [INDEX])
    assert dict(vm.vgpu().gfn_cache.items()) == {}
    writes_entry(vm, TABLE, 0, nbytes=4, half=1)
    vm.do("submit_workload")

    assert (vm.gpu_uses(TABLE, INDEX), list(vm.vgpu().spts[TABLE].post_shadow_bitmap)) == (host(vm, OTHER), [])


@pytest.mark.parametrize("nbytes", [1, 2, 16])
def test_a_write_of_another_size_is_not_followed(nbytes):
    vm = vgpu("v6_12")

    assert writes_entry(vm, TABLE, 0, nbytes=nbytes) == "not told"
    assert vm.gpu_uses(TABLE, INDEX) == host(vm, PAGE)


@pytest.mark.parametrize("profile", PROFILES)
def test_an_entry_for_a_page_in_no_slot_becomes_scratch_or_ends_the_table(profile):
    """1e557c1cd054: up to v6.5 such a page became a scratch entry in silence; then the pin decides."""
    vm = story(profile=profile).slot(1, gfn=0x1000, npages=0x1000).attach(kind="kvmgt")
    writes_entry(vm, TABLE, entry(0x9000))

    vm.track(TABLE)

    if profile in OLD:
        assert (vm.errno, vm.gpu_uses(TABLE, INDEX), vm.counts(1)) == (None, None, {TABLE: 1})
    else:
        assert (vm.errno_name, dict(vm.vgpu().spts.items()), vm.counts(1)) == ("ENXIO", {}, {})
        assert list(vm.vgpu().page_track_tree) == []


@pytest.mark.parametrize("profile", PROFILES)
def test_a_written_entry_for_a_page_in_no_slot_leaves_the_old_one(profile):
    vm = vgpu(profile)

    writes_entry(vm, TABLE, entry(0x9000))

    assert vm.gpu_uses(TABLE, INDEX) == host(vm, PAGE)


@pytest.mark.parametrize("profile", PROFILES)
def test_freeing_the_shadow_unpins_its_pages(profile):
    assert dict(vgpu(profile).untrack(TABLE).vgpu().gfn_cache.items()) == {}
    assert dict(vgpu(profile).detach().vgpu().spts.items()) == {}


@pytest.mark.parametrize("profile", PROFILES)
def test_a_table_that_cannot_be_tracked_leaves_nothing(profile):
    vm = story(profile=profile).slot(1, gfn=0x1000, npages=0x10).attach(kind="kvmgt")

    vm.track(0x9000)

    assert vm.errno_name == "EINVAL"
    assert (dict(vm.vgpu().page_track_tree.items()), dict(vm.vgpu().spts.items())) == ({}, {})


def test_only_a_vgpu_gets_work():
    assert story().attach().do("submit_workload").errno_name == "ESRCH"
    assert story().attach(kind="kvmgt").detach().do("submit_workload").errno_name == "ESRCH"


# -- 6.6: the damage of a MOVE that is not rejected ------------------------------------------------


@pytest.mark.parametrize("profile", DAMAGED)
def test_row_5_what_the_guest_writes_at_the_new_place_does_not_reach_the_gpu(profile):
    vm = vgpu(profile).move(1, to_gfn=0x5000)

    assert writes_entry(vm, 0x5010, entry(0x5900)) == "not told"

    assert vm.gpu_uses(TABLE, INDEX) == H + (PAGE << PAGE_SHIFT)


@pytest.mark.parametrize("profile", DAMAGED)
def test_row_5_not_even_if_somebody_else_has_the_new_place_intercepted(profile):
    vm = vgpu(profile).move(1, to_gfn=0x5000).attach(1).track(0x5010, user=1)
    assert vm.guest_writes(0x5010) == "emulated"

    assert writes_entry(vm, 0x5010, entry(0x5900)) == "not told"


@pytest.mark.parametrize("profile", DAMAGED)
def test_row_6_the_old_place_answers_with_mmio(profile):
    vm = vgpu(profile).move(1, to_gfn=0x5000)

    assert (vm.guest_writes(TABLE), vm.guest_reads(TABLE)) == ("mmio", "mmio")


@pytest.mark.parametrize("profile", DAMAGED)
def test_row_7_the_gpu_keeps_using_the_host_pages_of_the_old_place(profile):
    vm = vgpu(profile).move(1, to_gfn=0x5000).slot(2, gfn=0x1000, npages=0x1000, hva=H + (1 << 32))

    assert vm.lookup(PAGE) == H + (1 << 32) + 0x800000, "for the guest another page is there"
    assert vm.gpu_uses(TABLE, INDEX) == H + (PAGE << PAGE_SHIFT)
    assert vm.vgpu().gfn_cache[PAGE].ref == 1


def test_row_7_a_page_that_is_pinned_is_not_looked_up_again_for_another_table():
    vm = vgpu("v6_1").move(1, to_gfn=0x5000).slot(2, gfn=0x1000, npages=0x1000, hva=H + (1 << 32))
    vm.do(f"guest_write gpa={(0x1020 << PAGE_SHIFT):#x} value={entry(PAGE):#x}")

    vm.track(0x1020)

    assert vm.gpu_uses(0x1020, 0) == H + (PAGE << PAGE_SHIFT), "the host page of the old place once more"


@pytest.mark.parametrize("profile", DAMAGED)
def test_row_8_tracking_the_table_again_shadows_nothing_anew(profile):
    vm = vgpu(profile).move(1, to_gfn=0x5000)
    before = vm.vgpu()

    vm.track(TABLE)

    assert (vm.errno, vm.vgpu(), vm.counts(1)) == (None, before, {})


@pytest.mark.parametrize(("profile", "protected"), [("v6_1", []), ("v6_6_nocheck", [TABLE]), ("v6_6_posted", [TABLE])])
def test_row_9_freeing_the_shadow_unpins_but_leaks_the_entry_where_no_hook_emptied_it(profile, protected):
    vm = vgpu(profile).move(1, to_gfn=0x5000)

    vm.untrack(TABLE)

    assert (dict(vm.vgpu().gfn_cache.items()), dict(vm.vgpu().spts.items())) == ({}, {})
    assert list(vm.vgpu().protect_table) == protected


@pytest.mark.parametrize("profile", DAMAGED)
def test_row_9_a_leaked_entry_makes_the_next_table_at_its_gfn_go_untracked(profile):
    vm = vgpu(profile).move(1, to_gfn=0x5000).untrack(TABLE).slot(2, gfn=0x1000, npages=0x1000)

    vm.track(TABLE)

    leaked = profile != "v6_1"
    assert vm.counts(2) == ({} if leaked else {TABLE: 1})
    assert vm.vgpu().page_track_tree[TABLE]


@pytest.mark.parametrize("profile", DAMAGED)
def test_row_10_the_guest_s_table_is_read_where_it_was_and_that_fails(profile):
    vm = vgpu(profile)
    writes_entry(vm, TABLE, entry(OTHER), nbytes=4)
    vm.move(1, to_gfn=0x5000)

    vm.do("submit_workload")

    assert [e.function for e in vm.events(KernelWarned)] == ["gtt_get_entry64"]
    assert vm.gpu_uses(TABLE, INDEX) is None


@pytest.mark.parametrize("profile", [name for name in PROFILES if name not in LETS_MOVE])
def test_where_the_move_is_rejected_the_gpu_goes_on_following(profile):
    vm = vgpu(profile).move(1, to_gfn=0x5000)
    assert vm.refused_by == "external_user"

    assert writes_entry(vm, TABLE, entry(OTHER)) == "told"

    assert vm.gpu_uses(TABLE, INDEX) == host(vm, OTHER)


# -- 6.5: sharp edges ------------------------------------------------------------------------------


def test_edge_1_after_a_failed_move_the_gpu_no_longer_follows_the_guest():
    vm = vgpu("v6_1").move(1, to_gfn=(1 << 40) - 1)
    assert (vm.errno_name, vm.guest_writes(TABLE)) == ("EINVAL", "ram")

    assert writes_entry(vm.track(TABLE), TABLE, entry(OTHER)) == "not told"

    assert vm.gpu_uses(TABLE, INDEX) == host(vm, PAGE), "and for good, for enable returns early"


@pytest.mark.parametrize("profile", OLD)
def test_edge_3_a_page_may_be_let_go_between_the_lockless_test_and_the_handler(profile):
    """Up to v6.5 the protect table is read without vgpu_lock; another CPU acts between the two."""
    draft = KvmDraft(vgpu(profile).kvm, record=True)
    assert TABLE in draft.trackers[0].protect_table

    ppgtt_free_spt(draft, 0, TABLE)

    assert intel_vgpu_page_track_handler(draft, 0, (TABLE << PAGE_SHIFT) + INDEX * 8, 8) is Errno.ENXIO
    assert len(draft.freeze().trackers[0].spts) == 0


@pytest.mark.parametrize("profile", PROFILES)
def test_edge_4_a_table_that_came_back_is_not_followed(profile):
    vm = vgpu(profile).delete(1).slot(1, gfn=0x1000, npages=0x1000).track(TABLE)

    assert writes_entry(vm, TABLE, entry(OTHER)) == "not told"
    assert vm.gpu_uses(TABLE, INDEX) == host(vm, PAGE)


@pytest.mark.parametrize("profile", OLD)
@pytest.mark.parametrize("machine", [{"tdp": True}, {"tdp": True, "tdp_mmu": False}, {"tdp": False}], ids=str)
def test_edge_5_no_write_slips_through_between_kvmgt_s_flush_and_kvm_s_zap(profile, machine):
    vm = vgpu(profile, **machine)
    draft = KvmDraft(vm.kvm, record=True)

    kvmgt_page_track_flush_slot(draft, 0, vm[1])

    left = [spte for _, spte in sptes_of_gfn(draft, 0, TABLE)]
    assert left, "the emulated write mapped the table read-only"
    assert not any(spte.writable or spte.mmu_writable for spte in left)
    kinds = [type(e) for e in vm.move(1, to_gfn=0x5000).last.events if isinstance(e, WriteUntracked | MappingsZapped)]
    assert kinds[:2] == [WriteUntracked, MappingsZapped], "KVMGT runs first: the last to register is called first"
