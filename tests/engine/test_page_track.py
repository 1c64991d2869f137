"""Write-track counts and huge-page counters, and what a MOVE does to them. Kernel-reference 5 and 11.3."""

import pytest
from story import H, Story, story

from explorer.engine import mmu
from explorer.engine.draft import KvmDraft
from explorer.engine.events import (
    KernelWarned,
    TrackerNotified,
    VmBugged,
    WriteTracked,
    WriteUntracked,
)
from explorer.engine.invariants import get_invariant, violations
from explorer.engine.profile import PROFILES
from explorer.engine.state import WriteTrack
from explorer.engine.types import PG_LEVEL_1G, PG_LEVEL_2M, AsId, Gfn

REFUSES = ("v6_6", "v6_12_quirk_posted", "v6_12", "v6_18", "v7_3")


def shadow_one(vm: Story, gfn: int, level: int) -> None:
    """Shadow a single table, where a whole walk would shadow a level-1 table as well."""
    draft = KvmDraft(vm.kvm, record=False)
    mmu.mmu_first_shadow_root_alloc(draft)
    assert mmu.shadow_guest_table(draft, Gfn(gfn), level, AsId(0))
    vm.kvm = draft.freeze()


def told_up_to_t3(profile) -> Story:
    """Setup T of the worked example: slot 1 is E14 and a vGPU is attached; then T0 to T3."""
    vm = story(profile=profile).slot(1, gfn=0x100000, npages=1024, hva=H).attach(kind="kvmgt")
    assert vm.ledger(1) == ({}, [0, 0], [1]), "T0"
    vm.track(0x100205)
    assert vm.ledger(1) == ({0x100205: 1}, [0, 1], [2]), "T1"
    shadow_one(vm, 0x100205, level=2)
    assert vm.ledger(1) == ({0x100205: 2}, [0, 2], [3]), "T2"
    shadow_one(vm, 0x100003, level=1)
    assert vm.ledger(1) == ({0x100205: 2}, [1, 2], [4]), "T3"
    return vm


@pytest.mark.parametrize("profile", REFUSES)
def test_t4a_a_refused_move_keeps_the_external_count_and_drops_those_of_shadow_pages(profile):
    vm = told_up_to_t3(profile)

    vm.move(1, to_gfn=0x140001)

    assert (vm.errno_name, vm.generation()) == ("EINVAL", 2 + 4)
    assert vm.ledger(1) == ({0x100205: 1}, [0, 1], [2])
    assert (vm[1].base_gfn, vm.kvm.indirect_shadow_pages) == (0x100000, 0)


def test_t4b_on_6_1_a_move_starts_from_empty_arrays():
    vm = told_up_to_t3("v6_1")

    vm.move(1, to_gfn=0x140001)

    assert (vm.errno, vm.generation()) == (None, 2 + 4)
    assert vm.ledger(1) == ({}, [1, 1, 1], [1])


def test_t4c_on_6_1_a_move_that_fails_has_already_made_kvmgt_let_go():
    vm = told_up_to_t3("v6_1")

    vm.move(1, to_gfn=(1 << 40) - 1)

    assert (vm.errno_name, vm.refused_by, vm.generation()) == ("EINVAL", "max_gfn", 2 + 4)
    assert vm.ledger(1) == ({}, [0, 0], [1])
    assert list(vm.vgpu().protect_table) == []


def test_on_6_1_kvmgt_removes_its_count_before_kvm_removes_those_of_its_shadow_pages():
    vm = told_up_to_t3("v6_1")

    vm.move(1, to_gfn=0x140001)

    assert [(e.by, e.gfn, e.count) for e in vm.events(WriteUntracked)] == [
        ("tracker 0", 0x100205, 1),
        ("shadow paging", 0x100205, 0),
    ]


@pytest.mark.parametrize("profile", REFUSES)
def test_t5_detaching_brings_every_counter_back_to_its_start(profile):
    vm = told_up_to_t3(profile).move(1, to_gfn=0x140001)

    vm.detach()

    assert vm.ledger(1) == ({}, [0, 0], [1])
    assert violations(vm.kvm) == ()


@pytest.mark.parametrize("profile", REFUSES)
def test_one_remove_too_many_warns_and_eats_an_alignment_mark(profile):
    vm = told_up_to_t3(profile).move(1, to_gfn=0x140001).detach()

    vm.untrack(0x100205, user=9)

    assert vm.ledger(1) == ({}, [0, -1], [0])
    assert [e.function for e in vm.events(KernelWarned)] == [
        "update_gfn_write_track",
        "update_gfn_disallow_lpage_count",
    ], "the 1 GiB counter loses its mark in silence"


def test_a_remove_too_many_is_not_reported_as_a_remove():
    """`WriteUntracked` says that a count went down; kernel-reference 5.4: it stays."""
    vm = story().slot(1, gfn=0x100, npages=1).attach()

    vm.untrack(0x100)

    assert len(vm.events(KernelWarned)) == 1
    assert vm.events(WriteUntracked) == []


def at_the_limit() -> Story:
    vm = story().slot(1, gfn=0x100, npages=4, hva=H + 0x100000).attach().track(0x102)
    array = vm[1].arch.gfn_write_track
    counts = vm.kvm.heap[array].counts
    vm.kvm = vm.kvm._replace(heap=vm.kvm.heap.set(array, WriteTrack(4, counts.set(2, 0xFFFF))))
    return vm


def test_a_count_never_leaves_its_range_but_the_huge_page_counters_move_on():
    """Section 5.4: saturation does not stop the update of disallow_lpage."""
    vm = at_the_limit()
    forbidden = vm.lpage(1, PG_LEVEL_2M)

    vm.track(0x102)

    assert vm.counts(1) == {0x102: 0xFFFF}
    assert [e.function for e in vm.events(KernelWarned)] == ["update_gfn_write_track"]
    assert vm.lpage(1, PG_LEVEL_2M) == [forbidden[0] + 1]


def test_an_add_at_the_limit_is_not_reported_as_an_add():
    assert at_the_limit().track(0x102).events(WriteTracked) == []


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("built_in", [True, False])
@pytest.mark.parametrize("attached", [True, False])
def test_a_move_is_refused_exactly_where_its_era_refuses_it(profile, built_in, attached):
    """Sections 4.6 and 10.2: has_external_user is a constant false where the option is not built in."""
    vm = story(profile=profile, external_write_tracking=built_in).slot(1, gfn=0x100, npages=4)
    if attached:
        vm.attach()

    vm.move(1, to_gfn=0x200)

    listed = attached and built_in
    refused = {"v6_6_posted": built_in and not attached} | dict.fromkeys(REFUSES, listed)
    assert vm.refused_by == ("external_user" if refused.get(profile, False) else None)


@pytest.mark.parametrize("profile", PROFILES)
def test_a_tracker_registers_only_where_the_api_is_built(profile):
    vm = story(profile=profile, external_write_tracking=False).attach()

    before_the_series = profile in ("pre_edd4", "v5_10", "v6_1")
    assert vm.errno_name == (None if before_the_series else "ENODEV")


@pytest.mark.parametrize(
    ("profile", "told"),
    [
        ("v6_1", [("track_flush_slot", 0x100, 4)]),
        ("v6_6_nocheck", []),
        ("v6_12", []),
        ("v7_3", []),
    ],
)
def test_a_tracker_hears_of_a_move_only_before_6_6(profile, told):
    vm = story(profile=profile).slot(1, gfn=0x100, npages=4).attach()

    vm.move(1, to_gfn=0x200)

    assert [(e.callback, e.gfn, e.npages) for e in vm.events(TrackerNotified)] == told


@pytest.mark.parametrize(
    ("profile", "callback", "phase"),
    [
        ("pre_edd4", "track_flush_slot", "zap"),
        ("v6_1", "track_flush_slot", "zap"),
        ("v6_6", "track_remove_region", "commit"),
        ("v7_3", "track_remove_region", "commit"),
    ],
)
def test_a_tracker_hears_of_a_delete_at_the_zap_and_from_6_6_on_at_commit(profile, callback, phase):
    vm = story(profile=profile).slot(1, gfn=0x100, npages=4).attach().begin_delete(1)

    vm.run_through(phase)

    assert [e.callback for e in vm.all_events(TrackerNotified)] == [callback]
    assert [e.callback for e in vm.finish().all_events(TrackerNotified)] == [callback]


@pytest.mark.parametrize("profile", PROFILES)
def test_the_last_tracker_to_register_is_called_first(profile):
    """Section 2.2: hlist_add_head_rcu(); recording tracker/two_users."""
    vm = story(profile=profile).slot(1, gfn=0x100, npages=4).attach(3).attach(5).delete(1)

    assert [e.user for e in vm.events(TrackerNotified)] == [5, 3]


def test_the_guest_s_write_to_a_tracked_page_is_emulated_and_reported():
    vm = story().slot(1, gfn=0x100, npages=4).attach().track(0x101)

    assert [vm.guest_writes(gfn) for gfn in (0x100, 0x101, 0x102, 0x104)] == ["ram", "emulated", "ram", "mmio"]
    assert [(e.callback, e.gfn) for e in vm.all_events(TrackerNotified)] == [("track_write", 0x101)]


@pytest.mark.parametrize("profile", PROFILES)
def test_a_write_in_smm_is_intercepted_where_both_address_spaces_are_asked(profile):
    """Sections 2.5 and 5.7: an external add counts in address space 0 only."""
    vm = story(profile=profile).slot(1, gfn=0x100, npages=4).slot(1, gfn=0x100, npages=4, as_id=1).attach().track(0x101)

    assert vm.guest_writes(0x101) == "emulated"
    assert vm.guest_writes(0x101, as_id=1) == ("emulated" if profile in ("v6_1", "v7_3") else "ram")


@pytest.mark.parametrize("profile", ["v6_12", "v7_3"])
def test_tracking_that_was_never_enabled_kills_the_vm(profile):
    """Recording tracker/track_without_attach_bugs_the_vm."""
    vm = story(profile=profile, tdp=True).slot(1, gfn=0x100, npages=4)

    vm.track(0x101)

    assert (vm.errno, len(vm.events(VmBugged)), vm.kvm.vm_bugged) == (None, 1, True)
    assert vm.delete(1).errno_name == "EIO"


def test_on_6_1_tracking_that_is_not_enabled_only_warns():
    """Section 5.4: 6.1 WARNs and returns."""
    vm = story(profile="v6_1", tdp=True, external_write_tracking=False).slot(1, gfn=0x100, npages=4)

    vm.track(0x101)

    assert (len(vm.events(KernelWarned)), vm.counts(1), vm.kvm.vm_bugged) == (1, {}, False)
    assert vm.delete(1).errno is None


@pytest.mark.parametrize("profile", PROFILES)
def test_a_gfn_in_no_slot_cannot_be_tracked(profile):
    """Recording tracker/track_gfn_in_no_slot."""
    vm = story(profile=profile).slot(1, gfn=0x100, npages=4).attach()

    assert [vm.track(gfn).errno_name for gfn in (0xFF, 0x100, 0x103, 0x104)] == ["EINVAL", None, None, "EINVAL"]
    assert vm.untrack(0x104).errno_name == "EINVAL"


def test_counts_of_a_tracker_that_left_stay():
    """A logging tracker takes nothing back; recording tracker/reattach."""
    vm = story().slot(1, gfn=0x100, npages=4).attach().track(0x101).detach()

    assert vm.counts(1) == {0x101: 1}
    assert vm.move(1, to_gfn=0x200).errno is None
    assert vm.counts(1) == {}


@pytest.mark.parametrize("profile", [n for n, p in PROFILES.items() if not p.move_refused_for_external_user])
def test_a_move_with_a_tracker_loses_its_counts_but_before_edd4_carries_them_by_index(profile):
    """Section 2.1, point 4: a count at index i becomes a count of the i-th page at the new place."""
    vm = story(profile=profile).slot(1, gfn=0x100, npages=4).attach().track(0x102)

    vm.move(1, to_gfn=0x201)

    assert vm.errno is None
    assert vm.counts(1) == ({0x203: 1} if profile == "pre_edd4" else {})


@pytest.mark.parametrize("profile", PROFILES)
def test_a_flags_change_keeps_arrays_and_counts(profile):
    """Recording tracker/metadata_kept_by_flags_only."""
    vm = story(profile=profile).slot(1, gfn=0x100, npages=4).attach().track(0x102)
    arch = vm[1].arch

    vm.set_flags(1, 1)

    assert (vm[1].arch, vm.counts(1)) == (arch, {0x102: 1})


def test_after_a_count_that_could_not_change_the_counters_no_longer_add_up():
    vm = story().slot(1, gfn=0x100, npages=1).attach().untrack(0x100)

    found = get_invariant(9).check(vm.kvm)

    assert [(v.slot, v.gfn, v.expected, v.found) for v in found] == [(1, 0x100, 1, 0)] * 2
    assert [vm.lpage(1, level) for level in (PG_LEVEL_2M, PG_LEVEL_1G)] == [[0], [0]]


def test_a_count_in_an_array_that_is_gone_is_a_use_after_free():
    """What 58a20a9435aa and section 5.6 guard against; no call leads there, so the array is taken away by hand."""
    vm = story().slot(1, gfn=0x100, npages=4).attach()
    slot = vm[1]
    vm.kvm = vm.kvm._replace(heap=vm.kvm.heap.discard(slot.arch.gfn_write_track).discard(slot.arch.lpage_info))

    vm.track(0x100)

    assert [e.function for e in vm.events(KernelWarned)] == [
        "update_gfn_write_track",
        "update_gfn_disallow_lpage_count",
    ]


def test_before_edd4_a_count_beyond_the_huge_page_array_is_noticed():
    """Kernel-reference 2.1, consequence 2, for lpage_info: the last gfn indexes one past the end."""
    vm = story(profile="pre_edd4").slot(1, gfn=0xC0000, npages=512, hva=H).attach().move(1, to_gfn=0xBFFFF)

    vm.track(0xC01FE)

    assert {e.function for e in vm.events(KernelWarned)} == {"update_gfn_disallow_lpage_count"}
    assert len(vm.events(KernelWarned)) == 2, "at 2 MiB and at 1 GiB"
