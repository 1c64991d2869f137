"""A guest with paging: its tables are walked by the processor with TDP, and shadowed by KVM without.

Judges: the recorded scenarios that the tests name, on real kernels of each profile with and without TDP; and
kernel-reference 3.6, 5.1 to 5.5.
"""

from __future__ import annotations

import pytest
from story import H, story

from explorer.engine.commands import GuestWrite
from explorer.engine.events import GuestWriteServed, ShadowTableShadowed
from explorer.engine.invariants import violations
from explorer.engine.types import PG_LEVEL_1G, PG_LEVEL_2M
from explorer.engine.uapi import KVM_MEM_LOG_DIRTY_PAGES

LOG = KVM_MEM_LOG_DIRTY_PAGES
TABLES = 0x10000
"""Where the recorder puts the guest's tables: PML4, PDPT, PD and PT in gfns 0x10 to 0x13."""
PROFILES = ("v5_10", "v6_1", "v6_12", "v7_3")


def paging_guest(*, profile="v6_12", npages=32, flags=0, **config):
    """The recorder's guest: slot 0 with its memory and tables, slot 9 with its code."""
    vm = story(profile=profile, **config).slot(9, gfn=0x80, npages=1).slot(0, gfn=0, npages=npages, flags=flags)
    vm.do(f"build_pt gpa={TABLES:#x} hva={H + TABLES:#x}").do(f"host_touch hva={H + 0x80000:#x}")
    return vm.do(f"vcpu_mode mode=long cr3={TABLES:#x} code=0x80000")


@pytest.mark.parametrize("profile", PROFILES)
def test_a_walk_shadows_four_tables_and_tracks_the_upper_three(profile):
    # recorded: shadow_pages_then_move
    vm = paging_guest(profile=profile, tdp=False)

    assert vm.guest_writes(3) == "ram"

    assert [(e.gfn, e.level) for e in vm.events(ShadowTableShadowed)] == [(0x10, 4), (0x11, 3), (0x12, 2), (0x13, 1)]
    assert vm.counts(0) == {0x10: 1, 0x11: 1, 0x12: 1}
    assert (vm.lpage(0, PG_LEVEL_2M), vm.lpage(0, PG_LEVEL_1G)) == ([5], [5])
    assert (vm.kvm.indirect_shadow_pages, vm.mapped(0)) == (4, 1)
    assert violations(vm.kvm) == ()


def test_a_last_level_table_goes_out_of_sync_and_an_upper_one_is_emulated():
    # recorded: shadow_pages_then_move: the write to the last table leaves the counters as they are
    vm = paging_guest(tdp=False)
    vm.guest_writes(3)

    vm.do(GuestWrite(gpa=0x13FF8))
    assert vm.events(GuestWriteServed)[0].outcome == "ram"
    assert (vm.mapped(0), vm.lpage(0, PG_LEVEL_2M)) == (2, [5])

    for table in (0x10, 0x11, 0x12):
        vm.do(GuestWrite(gpa=(table << 12) + 0xFF8))
        assert vm.events(GuestWriteServed)[0].outcome == "emulated"


def test_a_move_of_another_slot_takes_all_shadow_pages_and_the_next_access_makes_them_anew():
    # recorded: rejected_move_zaps_all_mappings
    vm = paging_guest(tdp=False).slot(1, gfn=0x400, npages=16).attach()
    vm.guest_writes(3)

    vm.move(1, to_gfn=0x800)
    assert (vm.kvm.indirect_shadow_pages, vm.mapped(0), vm.counts(0), vm.lpage(0, PG_LEVEL_2M)) == (0, 0, {}, [1])

    vm.guest_writes(3)
    assert (vm.kvm.indirect_shadow_pages, vm.mapped(0), vm.lpage(0, PG_LEVEL_2M)) == (4, 1, [5])


def test_with_the_quirk_off_a_move_of_another_slot_leaves_them():
    # recorded: quirk_off_move_keeps_other_slots; the table above maps gfn 0x400 by a huge page
    vm = paging_guest(tdp=False).do("enable_cap cap=DISABLE_QUIRKS2 arg=128").slot(1, gfn=0x400, npages=0x400)
    vm.guest_writes(3)
    vm.guest_writes(0x400)
    assert (vm.kvm.indirect_shadow_pages, vm.mapped(0)) == (4, 1)

    vm.move(1, to_gfn=0x800)

    assert (vm.kvm.indirect_shadow_pages, vm.mapped(0), vm.counts(0)) == (4, 1, {0x10: 1, 0x11: 1, 0x12: 1})
    assert violations(vm.kvm) == ()


@pytest.mark.parametrize("profile", PROFILES)
def test_a_vcpu_whose_tables_are_gone_shuts_down(profile):
    # recorded: delete_with_shadow_pages
    vm = paging_guest(profile=profile, tdp=False)
    vm.guest_writes(3)

    vm.delete(0)

    assert (vm.kvm.indirect_shadow_pages, vm.guest_writes(3)) == (0, "shutdown")


def test_only_a_write_makes_a_shadowed_mapping_writable():
    # recorded: dirty_long_mode without TDP: KVM sets the guest's accessed and dirty bits, so the tables are dirty
    vm = paging_guest(tdp=False, npages=64, flags=LOG)
    vm.do(f"host_touch hva={H + 0x20000:#x} size=0x10000 value=1")

    vm.guest_reads(0x20)
    assert vm.dirty(0) == [16, 17, 18, 19]

    vm.guest_reads(0x20)
    vm.guest_writes(0x21)
    assert vm.dirty(0) == [19, 33]

    vm.guest_reads(0x22)
    assert vm.dirty(0) == [19]


@pytest.mark.parametrize("machine", [{}, {"tdp_mmu": False}, {"processor": "intel"}, {"processor": "intel", "pml": 0}])
def test_with_tdp_a_walk_writes_to_every_table(machine):
    # recorded: dirty_long_mode with TDP
    vm = paging_guest(tdp=True, npages=64, flags=LOG, **machine)
    vm.do(f"host_touch hva={H + 0x20000:#x} size=0x10000 value=1")
    tables = [16, 17, 18, 19]

    vm.guest_reads(0x20)
    assert vm.dirty(0) == [*tables, 32]

    vm.guest_reads(0x20)
    vm.guest_writes(0x21)
    assert vm.dirty(0) == [*tables, 33]
    assert (vm.kvm.indirect_shadow_pages, vm.kvm.shadow_root_allocated) == (0, False)


@pytest.mark.parametrize(("profile", "mapped"), [("v5_10", 8), ("v6_1", 16), ("v6_12", 16)])
def test_with_the_older_mmu_tables_and_neighbours_are_mapped_too(profile, mapped):
    # recorded: shadow_pages_then_move with TDP and without the TDP MMU
    vm = paging_guest(profile=profile, tdp=True, tdp_mmu=False)

    vm.guest_writes(3)

    assert vm.mapped(0) == mapped


@pytest.mark.parametrize(
    ("profile", "outcome", "errno", "told"),
    # recorded: shadow_pages_and_external_tracker with TDP
    [
        ("v5_10", "hangs", "EINTR", []),
        ("v6_1", "hangs", "EINTR", []),
        ("v6_12", "emulated", None, [0x3001, 0x13FF0]),
        ("v7_3", "emulated", None, [0x3001, 0x13FF0]),
    ],
)
def test_a_tracked_root_table_hangs_a_guest_with_tdp_before_6_12(profile, outcome, errno, told):
    vm = paging_guest(profile=profile, tdp=True)
    vm.guest_writes(3)
    vm.attach().track(0x10).track(3)

    for gpa in (0x3001, 0x13FF0):
        vm.do(GuestWrite(gpa=gpa, nbytes=1, value=17))
        assert (vm.events(GuestWriteServed)[0].outcome, vm.errno_name) == (outcome, errno)

    assert [note.gpa for note in vm.kvm.trackers[0].notes()] == told


def test_without_tdp_a_tracked_root_table_is_kvms_own_business():
    # recorded: shadow_pages_and_external_tracker without TDP: only the write to the tracked page is told
    vm = paging_guest(tdp=False)
    vm.guest_writes(3)
    vm.attach().track(0x10).track(3)
    assert vm.counts(0) == {3: 1, 0x10: 2, 0x11: 1, 0x12: 1}

    outcomes = [vm.guest_writes(gfn) for gfn in (3, 0x13)]

    assert outcomes == ["emulated", "ram"]
    assert [note.gfn for note in vm.kvm.trackers[0].notes()] == [3]
