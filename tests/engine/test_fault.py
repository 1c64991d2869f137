"""What a store or a load of the guest meets, and what it leaves mapped, with TDP and without paging in the guest.

Judges: the recorded scenarios that the tests name, on real kernels of each profile with both kinds of MMU; and
kernel-reference 3.5, 4.8, 5.4, 5.5, 7.2, 7.3.
"""

from __future__ import annotations

import pytest
from story import H, story

from explorer.engine.apply import apply
from explorer.engine.commands import GuestWrite
from explorer.engine.events import Called, GuestReadServed, MappingsProtected, PageMapped, PageMarkedDirty
from explorer.engine.invariants import violations
from explorer.engine.lookup import KVM_HVA_ERR_BAD
from explorer.engine.spte import spte_at
from explorer.engine.uapi import KVM_MEM_LOG_DIRTY_PAGES, KVM_MEM_READONLY, KVM_X86_SW_PROTECTED_VM

LOG, RO = KVM_MEM_LOG_DIRTY_PAGES, KVM_MEM_READONLY
TDP_MMU = {"tdp": True, "tdp_mmu": True}
OLDER_MMU = {"tdp": True, "tdp_mmu": False}
NO_TDP = {"tdp": False}
INTEL = {"processor": "intel", "tdp": True}
HUGE = 0x200000


def vm_with_memory(npages=16, *, profile="v6_12", flags=0, **config):
    """A VM with slot 0 at gfn 0, every page of which the host has."""
    vm = story(profile=profile, **config).slot(0, gfn=0, npages=npages, flags=flags)
    return vm.do(f"host_touch hva={H:#x} size={npages << 12:#x} value=1")


# -- what is mapped --------------------------------------------------------------------------------


def test_the_first_access_maps_and_the_second_needs_nothing():
    vm = vm_with_memory(**TDP_MMU)

    assert vm.guest_writes(3) == "ram"
    assert vm.events(PageMapped) == [PageMapped(gfn=3, level=1, as_id=0, writable=True, prefetched=False)]

    assert (vm.guest_writes(3), vm.guest_reads(3)) == ("ram", "ram")
    assert vm.events(PageMapped) == []


@pytest.mark.parametrize(
    ("profile", "machine", "mapped"),
    # recorded: shadow_root_allocates_track_late, rmap_4k_nonzero
    [
        ("v5_10", NO_TDP, 4),
        ("v5_10", OLDER_MMU, 4),
        ("v6_1", NO_TDP, 8),
        ("v6_1", OLDER_MMU, 8),
        ("v6_1", TDP_MMU, 0),
        ("v6_12", NO_TDP, 8),
        ("v6_12", OLDER_MMU, 8),
        ("v7_3", OLDER_MMU, 8),
        ("v7_3", TDP_MMU, 0),
    ],
)
def test_the_older_mmu_maps_neighbours_and_the_tdp_mmu_has_no_rmaps(profile, machine, mapped):
    vm = vm_with_memory(32, profile=profile, **machine)

    vm.guest_writes(3)

    assert vm.mapped(0) == mapped
    assert violations(vm.kvm) == ()


def test_neighbours_are_mapped_only_where_the_host_has_them_and_a_slot_is():
    vm = story(**NO_TDP, host_huge_pages=False).slot(0, gfn=0, npages=16).slot(1, gfn=0x1BD, npages=3)

    vm.guest_writes(3)
    assert vm.mapped(0) == 1

    # recorded: tracker_guest_writes_tss_page: the window begins before the slot, and the prefetch gives up
    vm.do(f"host_touch hva={H + 0x1BD000:#x} size=0x3000").guest_writes(0x1BD)
    assert vm.mapped(1) == 1


@pytest.mark.parametrize(("hva", "level"), [(H + HUGE, 2), (H + HUGE + 0x1000, 1)])
def test_a_huge_page_is_mapped_where_slot_and_host_are_aligned_alike(hva, level):
    vm = story(**TDP_MMU).slot(0, gfn=0x200, npages=0x400, hva=hva)

    vm.guest_writes(0x203)

    (made,) = vm.events(PageMapped)
    assert (made.gfn, made.level) == (0x200 if level == 2 else 0x203, level)


def test_a_tracked_page_forbids_the_huge_page_around_it():
    vm = story(**TDP_MMU).slot(0, gfn=0x200, npages=0x400, hva=H + HUGE).attach().track(0x210)

    vm.guest_writes(0x203)
    vm.guest_writes(0x403)

    assert [made.level for made in vm.all_events(PageMapped)] == [1, 2]


# -- what is not ------------------------------------------------------------------------------------


def test_a_hole_and_a_read_only_slot_exit_to_userspace_and_nothing_is_mapped():
    vm = story(**TDP_MMU).slot(0, gfn=0, npages=4, flags=RO)

    assert [vm.guest_writes(0), vm.guest_writes(4), vm.guest_reads(4)] == ["read-only", "mmio", "mmio"]
    assert vm.guest_reads(0) == "ram"
    assert spte_at(vm.kvm, 0, 0)[1].writable is False


@pytest.mark.parametrize(("processor", "outcome", "errno"), [("amd", "fault", "EFAULT"), ("pvm", "mmio", None)])
def test_a_slot_with_nothing_behind_it_fails_the_run(processor, outcome, errno):
    # recorded: guest_hole_and_bad_hva; PVM emulates what is not 64-bit code, and an emulated access exits instead
    vm = story(tdp=False, processor=processor, vmm_memory_start=H).slot(0, gfn=0, npages=4, hva=0x10000)

    assert (vm.guest_writes(1), vm.errno_name) == (outcome, errno)
    assert (vm.guest_reads(1), vm.errno_name) == (outcome, errno)


def test_an_invalid_slot_makes_the_vcpu_try_again_and_maps_nothing():
    vm = vm_with_memory(**TDP_MMU)

    vm.begin_move(0, to_gfn=0x100).run_through("publish")
    assert (vm.guest_writes(3), vm.guest_reads(3)) == ("retry", "retry")
    assert len(vm.kvm.sptes.entries) == 0

    vm.finish()
    assert (vm.guest_writes(0x103), vm.guest_writes(3)) == ("ram", "mmio")


def test_an_entry_serves_the_guest_until_the_zap_although_its_slot_is_invalid():
    """Kernel-reference 4.5: from the swap on KVM's own lookups fail; the processor asks none."""
    vm = vm_with_memory(**TDP_MMU)
    assert vm.guest_writes(3) == "ram"
    vm.begin_move(0, to_gfn=0x100)
    vm.run_through("publish")

    vm.do("guest_write gpa=0x3000 value=0x55").do("guest_read gpa=0x3000")

    assert vm.lookup(3) == KVM_HVA_ERR_BAD
    assert [(e.outcome, e.value) for e in vm.events(GuestReadServed)] == [("ram", 0x55)]
    assert vm.run_through("zap").guest_writes(3) == "retry"


# -- write tracking ---------------------------------------------------------------------------------


@pytest.mark.parametrize("machine", [TDP_MMU, OLDER_MMU, NO_TDP])
def test_tracking_takes_write_access_from_what_is_mapped_and_from_no_other_page(machine):
    # recorded: guest_writes_tracked_page
    vm = vm_with_memory(**machine).attach()
    vm.guest_writes(3)

    vm.track(3)
    assert [(e.gfn, e.why) for e in vm.events(MappingsProtected)] == [(3, "write tracking")]
    assert [vm.guest_writes(gfn) for gfn in (2, 3, 4)] == ["ram", "emulated", "ram"]
    assert vm.guest_reads(3) == "ram"
    assert violations(vm.kvm) == ()

    vm.untrack(3)
    assert vm.guest_writes(3) == "ram"


def test_a_callback_says_where_how_much_and_what_and_memory_holds_it():
    vm = vm_with_memory(**TDP_MMU).attach().track(3)

    vm.do(GuestWrite(gpa=0x3008, nbytes=1, value=17))

    (note,) = vm.kvm.trackers[0].notes()
    assert (note.callback, note.gpa, note.nbytes, note.value) == ("track_write", 0x3008, 1, 17)
    assert vm.do("guest_read gpa=0x3008 bytes=1").last.events[-1].value == 17


def test_a_huge_mapping_is_protected_whole_and_split_by_the_next_write():
    vm = story(**TDP_MMU).slot(0, gfn=0x200, npages=0x400, hva=H + HUGE).attach()
    vm.guest_writes(0x203)

    vm.track(0x210)
    assert spte_at(vm.kvm, 0, 0x203)[1][1:5] == (0x200, 2, False, False)

    assert (vm.guest_writes(0x204), vm.guest_writes(0x210)) == ("ram", "emulated")
    assert spte_at(vm.kvm, 0, 0x204)[1].level == 1


def test_tracking_does_not_touch_what_the_other_address_space_maps():
    """Kernel-reference 3.5: I14 has this exception in every version."""
    vm = vm_with_memory(profile="v7_3", **TDP_MMU).slot(0, gfn=0, npages=16, as_id=1).attach()
    vm.guest_writes(3)
    vm.guest_writes(3, as_id=1)

    vm.track(3)

    assert vm.guest_writes(3) == "emulated"
    assert vm.guest_writes(3, as_id=1) == "ram"


# -- the dirty log ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("profile", "machine", "reported"),
    # recorded: guest_dirty_log, the first report that is not empty
    [
        ("v5_10", OLDER_MMU, [3, 5]),
        ("v5_10", NO_TDP, [3, 5]),
        ("v6_1", TDP_MMU, [3, 5]),
        ("v6_1", OLDER_MMU, [3]),
        ("v6_1", INTEL, [3, 5]),
        ("v6_12", NO_TDP, [3]),
        ("v7_3", TDP_MMU, [3, 5]),
        ("v7_3", INTEL | OLDER_MMU, [3]),
        ("v6_18", {"tdp": False, "processor": "pvm"}, [3]),
    ],
)
def test_a_read_counts_as_a_write_if_it_makes_a_writable_mapping(profile, machine, reported):
    vm = vm_with_memory(profile=profile, **machine)
    vm.guest_writes(1)
    assert vm.set_flags(0, LOG).dirty(0) == []

    vm.guest_writes(3)
    vm.guest_reads(5)

    assert vm.dirty(0) == reported


@pytest.mark.parametrize("machine", [TDP_MMU, OLDER_MMU, NO_TDP, INTEL, INTEL | {"pml": False}])
def test_every_report_makes_the_next_write_to_a_page_show_again(machine):
    # recorded: dirty_4k
    vm = vm_with_memory(64, flags=LOG, **machine)

    for _ in range(3):
        vm.guest_writes(3)
        vm.guest_writes(3)
        assert vm.dirty(0) == [3]
        vm.guest_reads(3)
        assert vm.dirty(0) == []


def test_with_pml_a_page_stays_writable_and_its_d_bit_tells():
    vm = vm_with_memory(flags=LOG, **INTEL)
    vm.guest_writes(3)
    vm.dirty(0)
    assert spte_at(vm.kvm, 0, 3)[1][3:] == (True, True, False)

    vm.guest_writes(3)

    assert vm.events(PageMarkedDirty) == [PageMarkedDirty(slot=0, as_id=0, index=3)]
    assert vm.events(PageMapped) == []


def test_a_manual_log_is_armed_again_by_what_is_cleared_not_by_what_is_read():
    # recorded: dirty_manual_protect
    vm = vm_with_memory(64, **TDP_MMU).do("enable_cap cap=MANUAL_DIRTY_LOG_PROTECT2 arg=1").set_flags(0, LOG)
    vm.guest_writes(3)
    assert (vm.dirty(0), vm.dirty(0)) == ([3], [3])
    vm.guest_writes(3)
    assert vm.events(PageMarkedDirty) == []

    vm.do("clear_dirty_log slot=0 first=0 num=64").guest_writes(3)

    assert vm.dirty(0) == [3]


@pytest.mark.parametrize(
    ("profile", "machine", "reported", "small"),
    # recorded: dirty_2m: the page read, index 6, was mapped only if the huge mapping was split and not dropped
    [
        ("v5_10", OLDER_MMU, [4, 6, 517], 3),
        ("v6_1", NO_TDP, [4, 6, 517], 3),
        ("v6_12", INTEL | OLDER_MMU, [4, 6, 517], 3),
        ("v6_1", TDP_MMU, [4, 517], 0),
        ("v7_3", INTEL, [4, 517], 0),
    ],
)
def test_logging_splits_or_drops_huge_mappings(profile, machine, reported, small):
    vm = story(profile=profile, **machine).slot(0, gfn=0x200, npages=0x400, hva=H + HUGE)
    vm.do(f"host_touch hva={H + HUGE:#x} size=0x400000 value=1").guest_writes(0x203)
    assert vm.set_flags(0, LOG).dirty(0) == []

    vm.guest_writes(0x204)
    vm.guest_writes(0x405)
    vm.guest_reads(0x206)

    assert (vm.dirty(0), vm.mapped(0)) == (reported, small)
    assert vm.guest_reads(0x204) == "ram"
    assert vm.dirty(0) == []


@pytest.mark.parametrize(
    ("profile", "left"),
    # recorded: shadow_pages_then_flags_only: no huge page fits into the slot, only 5.10 does not ask
    [("v5_10", 0), ("v6_1", 8), ("v6_12", 8), ("v7_3", 8)],
)
def test_small_mappings_go_when_logging_ends_if_a_huge_one_may_be(profile, left):
    vm = vm_with_memory(32, profile=profile, **OLDER_MMU)
    vm.guest_writes(3)

    vm.set_flags(0, LOG).set_flags(0, 0)

    assert vm.mapped(0) == left


@pytest.mark.parametrize(
    ("profile", "machine", "writable"),
    [("v5_10", OLDER_MMU, False), ("v6_1", OLDER_MMU, True), ("v6_12", TDP_MMU, True), ("v7_3", TDP_MMU, True)],
)
def test_a_log_that_begins_with_every_page_set_leaves_huge_mappings_writable_but_in_5_10(profile, machine, writable):
    """kvm_mmu_slot_apply_flags() of 5.10 protects what is 2 MiB and larger then; later ones protect nothing."""
    vm = story(profile=profile, **machine).do("enable_cap cap=MANUAL_DIRTY_LOG_PROTECT2 arg=3")
    vm.slot(0, gfn=0x200, npages=0x200, hva=H + HUGE).do(f"host_touch hva={H + HUGE:#x} size={HUGE:#x} value=1")
    vm.guest_writes(0x203)

    vm.set_flags(0, LOG)

    huge = spte_at(vm.kvm, 0, 0x203)[1]
    assert (huge.level, huge.writable) == (2, writable)
    assert vm.guest_writes(0x204) == "ram"


@pytest.mark.parametrize(("profile", "level"), [("v6_12", None), ("v6_18", 2), ("v7_3", 2)])
def test_a_huge_mapping_comes_back_when_logging_ends(profile, level):
    """Kernel-reference 7.2: zapped in 6.12, promoted in 7.3; kvm_mmu_recover_huge_pages() came with v6.13."""
    vm = story(profile=profile, **TDP_MMU).slot(0, gfn=0x200, npages=0x200, hva=H + HUGE)
    vm.guest_writes(0x203)

    vm.set_flags(0, LOG).set_flags(0, 0)

    found = spte_at(vm.kvm, 0, 0x203)
    assert (found and found[1].level) == level


# -- zaps ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("quirk_off", "left"), [(False, 0), (True, 8)])
def test_a_refused_move_zaps_every_mapping_of_the_vm_unless_the_quirk_is_off(quirk_off, left):
    # recorded: rejected_move_zaps_all_mappings, quirk_off_move_keeps_other_slots
    vm = vm_with_memory(32, **OLDER_MMU).slot(1, gfn=0x400, npages=16).attach()
    if quirk_off:
        vm.do("enable_cap cap=DISABLE_QUIRKS2 arg=128")
    vm.guest_writes(3)
    vm.guest_writes(0x403)
    assert (vm.mapped(0), vm.mapped(1)) == (8, 8)

    assert vm.move(1, to_gfn=0x800).errno_name == "EINVAL"

    assert (vm.mapped(0), vm.mapped(1)) == (left, 0)
    assert violations(vm.kvm) == ()


@pytest.mark.parametrize("profile", ["v6_12", "v6_18", "v7_3"])
def test_in_a_vm_with_private_memory_a_delete_zaps_only_its_slot(profile):
    """Kernel-reference 4.8: kvm_memslot_flush_zap_all() asks for the plain type of VM before it asks for the quirk."""
    protected = {"vm_type": KVM_X86_SW_PROTECTED_VM, "sw_protected_vm": True}
    vm = story(profile=profile, **TDP_MMU | protected).slot(0, gfn=0, npages=16).slot(1, gfn=0x400, npages=16)
    vm.do(f"host_touch hva={H:#x} size=0x4000000 value=1")
    vm.guest_writes(3)
    vm.guest_writes(0x403)
    assert {spte_at(vm.kvm, 0, gfn) is not None for gfn in (3, 0x403)} == {True}

    vm.delete(1)

    assert spte_at(vm.kvm, 0, 3) is not None
    assert spte_at(vm.kvm, 0, 0x403) is None


def test_an_access_leaves_the_old_snapshot_as_it_was():
    vm = vm_with_memory(**TDP_MMU)
    before = vm.kvm

    vm.guest_writes(3)

    assert len(before.sptes.entries) == 0
    assert apply(before, GuestWrite(gpa=0x3000)).kvm == vm.kvm


def test_a_dead_vm_runs_no_guest():
    # recorded: track_without_attach_bugs_the_vm, every later ioctl
    vm = vm_with_memory(**TDP_MMU).do("track gfn=3")
    assert vm.kvm.vm_bugged

    assert vm.do("guest_write gpa=0x3000").errno_name == "EIO"
    assert vm.do("guest_read gpa=0x3000").errno_name == "EIO"
    assert len(vm.kvm.sptes.entries) == 0


@pytest.mark.parametrize(("machine", "left"), [(TDP_MMU, "ram"), (OLDER_MMU, None)])
def test_a_small_mapping_under_a_huge_one_splits_it_or_drops_it(machine, left):
    """tdp_mmu_split_huge_page() keeps the other pages mapped; drop_large_spte() does not."""
    vm = vm_with_memory(512, **machine)
    assert vm.guest_writes(3) == "ram"
    assert spte_at(vm.kvm, 0, 100)[1].level == 2

    vm.attach().track(3).guest_writes(4)

    assert spte_at(vm.kvm, 0, 4)[1].level == 1
    assert (spte_at(vm.kvm, 0, 400) is not None) is (left is not None)


def test_with_initially_set_a_clear_splits_what_switching_on_left_huge():
    """Kernel-reference 7.3, step 7: huge mappings were spared when the log began with every page set."""
    vm = vm_with_memory(512, **TDP_MMU).do("enable_cap cap=MANUAL_DIRTY_LOG_PROTECT2 arg=3")
    assert vm.guest_writes(3) == "ram"
    vm.set_flags(0, LOG)
    assert spte_at(vm.kvm, 0, 3)[1].level == 2

    vm.do("clear_dirty_log slot=0 first=64 num=64")

    assert {spte_at(vm.kvm, 0, gfn)[1].level for gfn in (63, 64, 127, 128)} == {1}
    assert [spte_at(vm.kvm, 0, gfn)[1].writable for gfn in (63, 64, 127, 128)] == [True, False, False, True]


def test_in_a_huge_mapping_that_was_split_each_page_is_written_for_itself():
    vm = vm_with_memory(512, **TDP_MMU)
    assert vm.guest_writes(3) == "ram"
    vm.set_flags(0, LOG)

    assert vm.guest_writes(100) == "ram"

    assert [spte_at(vm.kvm, 0, gfn)[1].writable for gfn in (99, 100, 101)] == [False, True, False]
    assert vm.dirty(0) == [100]


@pytest.mark.parametrize("there", [(0, 1, 5, 6, 7), (1, 5, 6, 7)], ids=["from the first on", "but the first"])
def test_neighbours_behind_the_page_are_mapped_if_any_before_it_was(there):
    """direct_pte_prefetch_many() gives up only if it got no page at all; __direct_pte_prefetch() then stops."""
    vm = story(host_huge_pages=False, **OLDER_MMU).slot(0, gfn=0, npages=16, hva=H)
    for page in there:
        vm.do(f"host_touch hva={H + (page << 12):#x} size=0x1000 value=1")

    assert vm.guest_writes(4) == "ram"

    mapped = [gfn for gfn in range(8) if spte_at(vm.kvm, 0, gfn) is not None]
    assert mapped == ([0, 1, 4, 5, 6, 7] if 0 in there else [4])


def test_access_that_only_the_dirty_log_took_is_given_back_without_asking():
    """fast_page_fault(): no slot is looked up for a host page, and no entry is made."""
    vm = vm_with_memory(flags=LOG, **TDP_MMU)
    assert vm.guest_writes(3) == "ram"
    assert vm.dirty(0) == [3]

    assert vm.guest_writes(3) == "ram"

    assert "fast_page_fault" in [e.function for e in vm.events(Called)]
    assert "kvm_faultin_pfn" not in [e.function for e in vm.events(Called)]
    assert vm.events(PageMapped) == []
