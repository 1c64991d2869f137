"""What would work instead of a refused call: the smallest changes first, and none that the engine does not accept."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from runs import KVMGT, LOGGER, MOVE, PROFILE, REFUSES_A_MOVE, REGION, SLOT, WATCHED, run_of
from story import H, story

from explorer.engine.apply import apply
from explorer.engine.commands import parse_command
from explorer.engine.config import VmConfig
from explorer.engine.state import new_vm
from explorer.explain.changes import changes_that_work
from explorer.explain.costs import cost_of
from explorer.explain.xray import xray_of


def changes(vm, line):
    return [change.words for change in changes_that_work(vm.kvm, parse_command(line))]


def two_slots(**options):
    """Slot 1 has gfns 0x100 to 0x1ff, slot 2 has 0x400 to 0x4ff; between them is a hole of 0x200 pages."""
    return story(**options).slot(1, gfn=0x100, npages=0x100).slot(2, gfn=0x400, npages=0x100)


def test_a_slot_that_overlaps_goes_to_the_nearest_free_place_or_is_cut():
    assert changes(two_slots(), "set_region slot=3 gpa=0x380000 size=0x100000 hva=0x7f0000380000") == [
        "base 0x300000, down by 512 KiB: the nearest place below that is free",
        "size 0x80000, 512 KiB: up to slot 2",
        "delete slot 2 first",
    ]


def test_a_slot_that_begins_inside_another_can_have_what_is_free_behind_it():
    assert changes(two_slots(), "set_region slot=3 gpa=0x180000 size=0x100000 hva=0x7f0000180000") == [
        "base 0x200000, up by 512 KiB: the nearest place above that is free",
        "base 0x200000 and size 0x80000: what is free behind slot 1",
        "delete slot 1 first",
    ]


def test_a_move_is_not_offered_another_size():
    assert changes(two_slots(), f"set_region slot=1 gpa=0x380000 size=0x100000 hva={H + 0x100000:#x}") == [
        "base 0x300000, down by 512 KiB: the nearest place below that is free",
        "delete slot 2 first",
        "base 0x500000, up by 1536 KiB: the nearest place above that is free",
    ]


def test_a_place_that_does_not_hold_the_slot_is_passed_over():
    vm = two_slots().slot(3, gfn=0x280, npages=0x10)

    assert changes(vm, "set_region slot=4 gpa=0x280000 size=0x180000 hva=0x7f0010000000")[0] == (
        "base 0x500000, up by 2560 KiB: the nearest place above that is free"
    )


def test_what_is_no_page_is_rounded_both_ways_the_nearer_first():
    assert changes(two_slots(), "set_region slot=3 gpa=0x800001 size=0x1000 hva=0x7f0000000000") == [
        "base 0x800000, rounded down to a page",
        "base 0x801000, rounded up to a page",
    ]


def test_a_call_that_is_wrong_in_five_ways_is_put_right_in_all_of_them():
    vm = two_slots(profile="v6_12")

    found = changes_that_work(vm.kvm, parse_command("set_region slot=40000 flags=0x101 gpa=0x801 size=0x801 hva=0x801"))

    assert [word.split(",")[0] for word in found[0].words.split("; ")] == [
        "flags 0x1",
        "slot 32763",
        "size 0x1000",
        "base 0x1000",
        "host address 0x1000",
    ]


def test_another_size_is_deleted_and_made_anew_before_the_call_is_made_to_say_nothing():
    first, second, *_ = changes_that_work(
        two_slots().kvm, parse_command(f"set_region slot=1 gpa=0x100000 size=0x200000 hva={H + 0x100000:#x}")
    )

    assert (first.words, first.does.value) == ("DELETE and CREATE", "CREATE")
    assert (second.words, second.does.value) == ("size 0x100000, as the slot has", "NOOP")


@pytest.mark.parametrize(("kind", "who"), [("kvmgt", "KVMGT"), ("log", "the tracker")])
def test_a_move_under_a_tracker_works_without_it_or_as_two_calls(kind, who):
    vm = two_slots(profile="v6_6").do(f"attach kind={kind}")

    assert changes(vm, f"set_region slot=1 gpa=0x200000 size=0x100000 hva={H + 0x100000:#x}") == [
        f"detach {who} first",
        "DELETE and CREATE at 0x200000",
    ]


def test_a_delete_of_a_slot_that_is_not_there_is_offered_its_neighbours():
    assert changes(two_slots(), "set_region slot=3 gpa=0 size=0")[0] == "slot 2, which exists"


def test_a_dead_vm_has_no_way_out_and_says_so():
    # As recorded on 6.12: track_without_attach_bugs_the_vm.
    vm = story(profile="v6_12", tdp=True).slot(1, gfn=0x100, npages=0x100).do("track gfn=0x100")
    assert vm.kvm.vm_bugged

    seen = xray_of(vm.kvm, parse_command("set_region slot=3 gpa=0x300000 size=0x1000"))

    assert (seen.changes, seen.errno.name) == ((), "EIO")
    assert "only a new VM helps" in seen.nothing_works


def test_a_call_that_is_accepted_has_nothing_to_see():
    assert xray_of(two_slots().kvm, parse_command("set_region slot=3 gpa=0x300000 size=0x1000")) is None


def test_the_slots_in_the_way_are_told_with_what_is_asked_of_each():
    vm = two_slots().slot(3, gfn=0x200, npages=0x10)

    seen = xray_of(vm.kvm, parse_command("set_region slot=4 gpa=0x1f0000 size=0x18000 hva=0x7f0010000000"))

    assert [found.words for found in seen.in_the_way] == [
        "slot 1 has 0x100000 to 0x1fffff; 64 KiB of it are asked for, 0x1f0000 to 0x1fffff",
        "slot 3 has 0x200000 to 0x20ffff; 32 KiB of it are asked for, 0x200000 to 0x207fff",
    ]


def test_checks_of_the_same_errno_are_told_apart_by_whether_they_were_reached():
    seen = xray_of(two_slots().kvm, parse_command(f"set_region slot=1 gpa=0x100000 size=0x80000 hva={H + 0x100000:#x}"))
    of = {outcome: [c.name for c in seen.same_errno if c.outcome == outcome] for outcome in ("passed", "not reached")}

    assert seen.guard.name == "same_size"
    assert of["passed"][-1] == "same_hva"
    assert of["not reached"] == ["same_readonly", "same_guest_memfd"]


def test_a_refused_move_tells_what_it_had_done_before():
    vm = two_slots(profile="v6_6").do("attach kind=kvmgt")

    seen = xray_of(vm.kvm, parse_command(f"set_region slot=1 gpa=0x200000 size=0x100000 hva={H + 0x100000:#x}"))

    # kernel-reference 3.3: two swaps of two address spaces.
    assert seen.cost == "the slot was hidden and its mappings zapped first; the generation went up by 4"


@settings(deadline=None)
@given(PROFILE, st.lists(REGION, max_size=8), st.booleans())
def test_no_change_is_offered_that_the_engine_refuses(profile, commands, tracked):
    kvm = new_vm(profile, VmConfig())
    kvm = apply(kvm, parse_command("attach kind=kvmgt")).kvm if tracked else kvm
    for command in commands:
        for change in changes_that_work(kvm, command) if apply(kvm, command).errno is not None else ():
            after = kvm
            for part in change.commands:
                step = apply(after, part)
                assert step.errno is None
                after = step.kvm
        kvm = apply(kvm, command).kvm


# -- what a change costs ---------------------------------------------------------------------------


@pytest.mark.parametrize("profile", REFUSES_A_MOVE)
@pytest.mark.parametrize("lines", [KVMGT, LOGGER])
def test_a_change_with_which_watches_are_lost_says_so(profile, lines):
    # kernel-reference 6.5.4 and 5.6: a DELETE takes the counts with the array, and nobody asks again.
    costs = {c.words: c.cost for c in changes_that_work(run_of(profile, *lines).end, parse_command(MOVE))}

    assert costs["DELETE and CREATE at 0xd0200000"] == "2 watches are lost"


def test_a_change_after_which_kvmgt_has_given_its_watches_back_itself_costs_nothing():
    costs = {c.words: c.cost for c in changes_that_work(run_of("v6_12", *KVMGT).end, parse_command(MOVE))}

    assert costs["detach KVMGT first"] == ""


@pytest.mark.parametrize(
    ("profile", "lines", "words"),
    [
        # kernel-reference 6.6, 5.6 and 2.1
        ("v6_1", KVMGT, "KVMGT drops 2 watches"),
        ("v6_1", LOGGER, "2 watches are lost"),
        ("v6_6_nocheck", KVMGT, "2 watches are lost"),
        ("pre_edd4", LOGGER, "2 watches will stand for other pages"),
        ("v6_1", WATCHED, ""),
        ("v6_1", (SLOT,), ""),
    ],
)
def test_a_move_costs_what_its_ledger_says(profile, lines, words):
    assert cost_of(run_of(profile, *lines).end, (parse_command(MOVE),)).words == words
