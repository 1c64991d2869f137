"""The only door: what goes in is never changed, and what holds a lock makes others wait."""

import pytest
from story import Story, story

from explorer.engine.apply import apply, walk
from explorer.engine.commands import Advance, Begin, SetMemoryRegion, parse_command
from explorer.engine.config import VmConfig
from explorer.engine.events import Called
from explorer.engine.locks import BusyError
from explorer.engine.profile import PROFILES, SOURCES, KernelProfile, differences, get_profile
from explorer.engine.types import ExplorerError

NEEDS_SLOTS_LOCK = [
    "set_region slot=2 gpa=0x400000 size=0x1000 hva=0x7f0000000000",
    "begin set_region slot=2 gpa=0x400000 size=0x1000 hva=0x7f0000000000",
    "get_dirty_log slot=1",
    "clear_dirty_log slot=1 first=0 num=64",
    "set_tss_addr addr=0xfffbd000",
]
NEEDS_NONE = [
    "guest_write gpa=0x100000",
    "track gfn=0x100",
    "untrack gfn=0x100",
    "shadow_tables gfn=0x200",
    "tracker_log user=0",
    "detach user=0",
]


def half_moved() -> Story:
    return story().slot(1, gfn=0x100, npages=16).attach().begin_move(1, to_gfn=0x200).run_through("drain")


@pytest.mark.parametrize("line", NEEDS_SLOTS_LOCK)
def test_a_call_that_needs_slots_lock_waits_for_the_one_that_holds_it(line):
    vm = half_moved()

    with pytest.raises(BusyError, match="slots_lock"):
        vm.do(line)


@pytest.mark.parametrize("line", NEEDS_NONE)
def test_what_needs_no_slots_lock_runs_inside_a_region_call(line):
    vm = half_moved()

    vm.do(line)

    assert vm.kvm.pending is not None
    assert vm.finish().kvm.pending is None


REFUSED_FOR_FREE = [
    "set_region slot=1 gpa=0x100001 size=0x10000 hva=0x7f0000100000",
    "set_region slot=1 gpa=0x100000 size=0x11000 hva=0x7f0000100000",
    "set_region slot=2 gpa=0x10f000 size=0x1000 hva=0x7f0000000000",
    "set_region slot=2 gpa=0 size=0",
    "get_dirty_log slot=1",
]


@pytest.mark.parametrize("line", REFUSED_FOR_FREE)
def test_a_call_that_is_refused_for_free_leaves_the_very_snapshot(line):
    vm = story().slot(1, gfn=0x100, npages=16)
    before = vm.kvm

    vm.do(line)

    assert vm.errno is not None
    assert vm.kvm is before


def test_a_call_that_changes_nothing_leaves_the_very_snapshot_and_one_that_does_another():
    vm = story().slot(1, gfn=0x100, npages=16)
    before = vm.kvm

    assert vm.set_flags(1, 0).kvm is before
    assert vm.set_flags(1, 1).kvm != before


def test_there_is_nothing_to_advance_at_rest():
    with pytest.raises(BusyError, match="begin one first"):
        apply(story().kvm, Advance())


@pytest.mark.parametrize("profile", ["v6_12", "v7_3"])
def test_the_first_tracker_waits_while_a_region_call_holds_the_lock_of_the_arrays(profile):
    """page_track.c: kvm_enable_external_write_tracking() takes slots_arch_lock.

    kvm_set_memslot() holds that lock from its start to the swap, so arrays cannot come between prepare and
    publish (kernel-reference 3.6 and 4.9: "lazy allocation cannot be lost").
    """
    vm = story(profile=profile, tdp=True).slot(1, gfn=0x100, npages=16)
    vm.begin(vm.region(2, gfn=0x200, npages=16)).run_through("prepare")

    try:
        vm.attach()
    except BusyError:
        vm.finish().attach()
    vm.finish()

    assert [vm[slot].arch.gfn_write_track is not None for slot in (1, 2)] == [True, True]
    assert vm.track(0x200).counts(2) == {0x200: 1}


@pytest.mark.parametrize("phase", ["publish", "drain"])
def test_arrays_that_come_while_a_slot_is_invalid_survive_the_roll_back(phase):
    """Kernel-reference 4.5, step I7: old.arch is picked up from the INVALID copy, with slots_arch_lock free between."""
    vm = story(tdp=True).slot(1, gfn=0x100, npages=16).begin_move(1, to_gfn=0x200).run_through(phase)

    vm.attach().track(0x105).finish()

    assert vm.refused_by == "external_user"
    assert vm.counts(1) == {0x105: 1}


def test_arrays_that_come_after_the_second_swap_belong_to_the_new_slot():
    vm = story(tdp=True).slot(1, gfn=0x100, npages=16).begin_move(1, to_gfn=0x200).run_through("stage_new")
    vm.run_through("publish")

    vm.attach().track(0x205).finish()

    assert (vm.errno, vm.counts(1)) == (None, {0x205: 1})


def test_a_command_leaves_the_snapshot_it_was_given_as_it_was():
    before = story().slot(1, gfn=0x100, npages=16).kvm
    text, mark = repr(before), hash(before)

    for line in ("attach", "track gfn=0x101", "guest_write gpa=0x100000", "shadow_tables gfn=0x104"):
        apply(before, parse_command(line))
    apply(before, SetMemoryRegion(slot=1, guest_phys_addr=0, memory_size=0))

    assert (repr(before), hash(before)) == (text, mark)


def test_without_a_record_there_are_no_events_and_the_same_state():
    vm = story().slot(1, gfn=0x100, npages=16)
    call = vm.region(1, gfn=0x200, npages=16, hva=vm.hva_of(1))

    quiet, told = apply(vm.kvm, call, record=False), apply(vm.kvm, call)

    assert (quiet.events, quiet.results) == ((), ())
    assert quiet.kvm == told.kvm
    assert (quiet.errno, quiet.change, quiet.refused_by) == (told.errno, told.change, told.refused_by)
    assert any(isinstance(event, Called) for event in told.events)


def test_states_with_many_unread_callbacks_can_still_be_compared():
    """A snapshot is hashable and comparable whatever happened before; state.py's first line."""

    def written_to_often() -> Story:
        vm = story().slot(1, gfn=0x100, npages=1).attach().track(0x100)
        for _ in range(3000):
            vm.kvm = apply(vm.kvm, parse_command("guest_write gpa=0x100000"), record=False).kvm
        return vm

    one, other = written_to_often(), written_to_often()

    assert one.kvm == other.kvm
    assert hash(one.kvm) == hash(other.kvm)


def test_a_begun_call_has_not_run_a_phase():
    vm = story().slot(1, gfn=0x100, npages=16)
    before = vm.kvm

    vm.begin_delete(1)

    assert vm.kvm._replace(pending=None) == before
    assert vm.kvm.pending.at == 0


def test_a_walk_needs_the_lock_as_well():
    vm = half_moved()

    with pytest.raises(BusyError):
        walk(vm.kvm, vm.deletion(1))
    with pytest.raises(BusyError):
        apply(vm.kvm, Begin(call=vm.deletion(1)))


# -- profiles and machines -------------------------------------------------------------------------


def test_every_behaviour_of_a_profile_has_a_source_and_every_source_a_behaviour():
    words = {"name", "title", "summary", "kind", "links"}

    assert set(KernelProfile.__dataclass_fields__) - words == set(SOURCES)
    assert all(source.meaning and source.source for source in SOURCES.values())


def test_the_posted_series_differs_from_the_merged_one_in_the_test_alone():
    """Kernel-reference 10.2."""
    assert differences(get_profile("v6_6"), get_profile("v6_6_posted")) == (
        ("has_external_user_inverted", False, True),
    )
    assert differences(get_profile("v6_6"), get_profile("v6_6_nocheck")) == (
        ("move_refused_for_external_user", True, False),
    )


def test_an_unknown_profile_names_the_known_ones():
    with pytest.raises(ExplorerError, match=f"'v6_2'.*{next(iter(PROFILES))}"):
        get_profile("v6_2")


@pytest.mark.parametrize("bits", [31, 53])
def test_a_processor_has_32_to_52_address_bits(bits):
    with pytest.raises(ExplorerError, match="expected 32 to 52"):
        VmConfig(host_phys_bits=bits)


@pytest.mark.parametrize("profile", ["v6_12", "v6_18", "v7_3"])
def test_arrays_that_come_before_the_copy_is_made_are_in_the_copy_and_are_freed_once(profile):
    """Between the checks and kvm_set_memslot() nobody holds slots_arch_lock; the call has a pointer to the object."""
    vm = story(profile=profile, tdp=True).slot(1, gfn=0x100, npages=4)

    vm.begin(vm.deletion(1)).run_through("check").attach().run_through("copy")
    assert vm.kvm.pending.invalid.arch.gfn_write_track is not None
    vm.finish()

    assert (vm.errno, len(vm.kvm.heap), vm.kvm.heap_bytes) == (None, 0, 0)
