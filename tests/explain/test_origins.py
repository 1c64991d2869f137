"""Why a value is what it is: each step that made it, and nothing that only carried it along. Product row 52."""

import pytest
from hypothesis import given, settings
from runs import ALL_PROFILES, KVMGT, LOG_ON, LOGGER, MOVE, SLOT, WATCHED, end_of, moments, random_runs, run_of

from explorer.explain.origins import LOOK_BACK, Value, chain_of, value_named, values_at
from explorer.figures.dom import to_text
from explorer.figures.origins import FIRST, why_panel
from explorer.history.moment import moment_at

PAGE_3 = Value("count", 3)  # gfn 0xd0003, which only the tracker watches


def chain(run, value):
    return chain_of(run, end_of(run), value)


def told(run, value):
    return [(origin.place, origin.before, origin.after) for origin in chain(run, value).origins]


def test_a_lost_count_leads_to_the_new_arrays_and_to_who_asked_for_it():
    run = run_of("v6_1", *LOGGER, MOVE)

    assert chain(run, PAGE_3).now == "0"
    assert [(origin.place, origin.what) for origin in chain(run, PAGE_3).origins] == [
        ("6.8", "readers find the slot with new arrays, all zero"),
        ("5", "tracker 0 asked"),
        ("1.4", "the slot got its array of counts"),
    ]


def test_a_count_that_two_asked_for_is_followed_event_by_event():
    # kernel-reference 11.3: at T4b KVMGT's callback removes its count first, 2 to 1, then the zap, 1 to 0.
    run = run_of("v6_1", *KVMGT, MOVE)

    assert told(run, Value("count", 0x10)) == [
        ("6.5", "1", "0"),
        ("6.5", "2", "1"),
        ("4", "1", "2"),
        ("2", "0", "1"),
        ("1.4", "none", "0"),
    ]


def test_copies_are_skipped_and_counted():
    # The INVALID copy shares the arrays; before 5.7 so does the slot at its new place.
    run = run_of("pre_edd4", *LOGGER, MOVE)

    found = chain(run, PAGE_3)

    assert found.now == "1"
    assert [origin.what for origin in found.origins] == ["tracker 0 asked", "the slot got its array of counts"]
    assert found.copies >= 2


def test_flags_and_generation_are_followed_through_the_swaps():
    run = run_of("v6_12", SLOT, LOG_ON, MOVE + " flags=log")

    assert told(run, Value("flags")) == [
        ("3.8", "0x10001", "0x1"),
        ("3.4", "0x1", "0x10001"),
        ("2.4", "0", "0x1"),
        ("1.4", "none", "0"),
    ]
    # kernel-reference 3.3: CREATE and FLAGS_ONLY swap once, MOVE twice; address space 0 counts in twos.
    assert [(before, after) for _, before, after in told(run, Value("generation"))] == [
        ("6", "8"),
        ("4", "6"),
        ("2", "4"),
        ("0", "2"),
    ]


@pytest.mark.parametrize("profile", ["v6_6", "v6_12", "v7_3"])
def test_an_errno_leads_to_the_check_and_to_the_operation_that_made_it_fire(profile):
    run = run_of(profile, *KVMGT, MOVE)

    fired, cause = chain(run, Value("errno")).origins

    assert (fired.place, fired.after, fired.function) == ("6.6", "−EINVAL", "kvm_arch_prepare_memory_region")
    assert cause.place == "3"
    assert run.up_to(2).then(run.commands[-1]).outcomes[-1].errno is None  # before it, the check passes


def test_an_overlap_leads_to_the_slot_that_is_in_the_way():
    run = run_of("v6_12", "set_region slot=1 gpa=0 size=0x1000 hva=0x7f0000000000", SLOT, SLOT.replace("10", "11", 1))

    assert [origin.place for origin in chain(run, Value("errno")).origins] == ["3.1", "2"]


def test_where_the_arguments_alone_are_wrong_no_operation_is_blamed():
    run = run_of("v6_12", SLOT, "set_region slot=1 gpa=1 size=0x1000")

    assert len(chain(run, Value("errno")).origins) == 1


@settings(max_examples=60)
@given(random_runs(most=10))
def test_the_newest_origin_ends_in_the_value_and_each_begins_where_the_older_one_ends(run):
    for moment in moments(run):
        for value in values_at(moment):
            found = chain_of(run, moment, value)
            if value.kind == "errno":
                continue
            if found.origins:
                assert found.origins[0].after == found.now
            for newer, older in zip(found.origins, found.origins[1:], strict=False):
                assert newer.before == older.after
                assert older.stop <= newer.stop <= moment.stop


@pytest.mark.parametrize("profile", ALL_PROFILES)
def test_every_value_that_is_offered_can_be_asked_for_by_its_key(profile):
    moment = end_of(run_of(profile, *KVMGT, MOVE))

    assert [value_named(moment, value.key) for value in values_at(moment)] == list(values_at(moment))
    assert value_named(moment, "") == values_at(moment)[0]
    assert value_named(moment, "count:x") == values_at(moment)[0]


def test_nothing_is_offered_before_there_is_a_slot():
    run = run_of("v6_12", SLOT)

    assert values_at(moment_at(run.up_to(0), run.up_to(0).last_stop)) == ()


def test_five_origins_are_shown_and_the_rest_on_asking():
    run = run_of("v6_12", *[SLOT, LOG_ON] * 5)
    found = chain(run, Value("generation"))

    assert len(found.origins) == 10
    assert f"{10 - FIRST} more" in to_text(why_panel(found, ()))
    assert "more" not in to_text(why_panel(found, (), whole=True))


def test_a_long_run_is_looked_at_so_far_and_says_so():
    run = run_of("v6_12", *WATCHED, *["vcpu_mode mode=prot"] * LOOK_BACK)
    found = chain(run, Value("generation"))

    assert (found.origins, found.first_op) == ((), 3)
    assert "operations before 3 not looked at" in to_text(why_panel(found, ()))
