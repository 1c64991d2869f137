"""MOVE beside DELETE and CREATE. Judge: kernel-reference 3.3 and 9.

"DELETE+CREATE of the same range must equal MOVE to the same place except generation (+3 vs +2 swaps: 2+1 vs 2) and
dirty bits (lost vs kept)."
"""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from runs import DELETE, KVMGT, LOG_ON, LOGGER, MOVE, REFUSES_A_MOVE, SLOT, WATCHED, random_runs, run_of

from explorer.engine.commands import SetMemoryRegion, parse_command
from explorer.engine.events import MemslotsPublished
from explorer.engine.uapi import KvmMrChange
from explorer.history.run import look_inside
from explorer.selectors.compare import select_compare

NEW = ("v6_1", *REFUSES_A_MOVE)
REFUSED = "\N{MINUS SIGN}EINVAL"


def compared(profile, *lines, **config):
    run = run_of(profile, *lines, **config)
    return select_compare(run, len(run) - 1)


def facts(view):
    return {row.fact: (row.move, row.pair) for row in view.rows}


def differing(view):
    return {row.fact for row in view.rows if row.differs}


@pytest.mark.parametrize("tdp", [False, True])
@pytest.mark.parametrize("profile", NEW)
def test_without_a_tracker_the_routes_differ_in_swaps_and_in_what_readers_find(profile, tdp):
    view = compared(profile, *WATCHED, MOVE, tdp=tdp)

    assert view.finding.startswith("The same layout in the end")
    assert differing(view) == {
        "result",
        "generation",
        "swaps of the active set",
        "waits for readers (SRCU)",
        "find no slot in",
    }
    assert facts(view)["swaps of the active set"] == ("2", "3")
    assert facts(view)["waits for readers (SRCU)"] == ("2", "3")
    assert facts(view)["result"] == ("0", "0, then 0")


@pytest.mark.parametrize("profile", NEW)
def test_dirty_bits_are_kept_by_the_move_and_lost_by_the_other_route(profile):
    writes = ["guest_write gpa=0xd0003000", "guest_write gpa=0xd0004000"]

    view = compared(profile, LOG_ON, *writes, MOVE + " flags=log")

    assert facts(view)["dirty bits"] == ("2 of 2 kept", "2 lost; a new bitmap, 0 set")


def test_with_manual_protection_the_new_bitmap_says_that_every_page_is_dirty():
    # kernel-reference 7.1: INITIALLY_SET begins with all ones, also on a CREATE.
    view = compared("v6_12", "enable_cap cap=MANUAL_DIRTY_LOG_PROTECT2 arg=3", LOG_ON, MOVE + " flags=log")

    assert facts(view)["dirty bits"] == ("32 of 32 kept", "32 lost; a new bitmap, 32 set")


@pytest.mark.parametrize("profile", REFUSES_A_MOVE)
def test_where_the_move_is_refused_only_the_other_route_gets_there(profile):
    view = compared(profile, *KVMGT, MOVE)
    both = facts(view)

    assert view.refused
    assert view.finding.startswith("Only DELETE and CREATE get there")
    assert both["result"] == (REFUSED, "0, then 0")
    assert both["slot in the end"] == ("gfn 0xd0000, 32 pages", "gfn 0xd0200, 32 pages")
    assert both["lost with their array"] == ("0 of 5", "2 of 5")
    assert both["kept"] == ("2 of 5", "0 of 5")
    assert both["region callbacks"] == ("none called", "track_remove_region")
    assert both["KVMGT: protect table"] == ("2 pages listed, 2 watched", "empty")


def test_before_6_6_both_routes_call_the_tracker_s_hook():
    both = facts(compared("v6_1", *KVMGT, MOVE))

    assert both["region callbacks"] == ("track_flush_slot", "track_flush_slot")
    assert both["released by the zap"] == ("3 of 5", "3 of 5")
    assert both["dropped by KVMGT"] == ("2 of 5", "2 of 5")
    assert both["lost with their array"] == ("0 of 5", "0 of 5")
    assert both["KVMGT: page_track_tree"] == ("2 say tracked", "2 say tracked")


def test_without_the_test_of_6_6_the_move_leaves_a_protect_table_that_is_not_true():
    both = facts(compared("v6_6_nocheck", *KVMGT, MOVE))

    assert both["KVMGT: protect table"] == ("2 pages listed, 0 watched", "empty")


def test_without_kvmgt_its_tables_are_not_asked():
    assert "KVMGT: protect table" not in facts(compared("v6_1", *LOGGER, MOVE))


def test_before_5_7_the_move_keeps_arrays_that_the_other_route_makes_anew():
    both = facts(compared("pre_edd4", SLOT, MOVE))

    assert both["arrays made"][0] == "0"
    assert both["arrays made"][1] != "0"


# -- which MOVE ------------------------------------------------------------------------------------


def test_the_move_at_the_stop_comes_before_the_composed_one_and_that_before_an_earlier_one():
    run = run_of("v6_12", SLOT, MOVE, "guest_write gpa=0xd0203000")
    back = look_inside(run.end, parse_command(SLOT), 3)

    assert select_compare(run, 1, back).where == "slot 10 to 0xd0200000, operation 2 of 3"
    assert select_compare(run, 2, back).where == "slot 10 to 0xd0000000, composed, not applied yet"
    assert select_compare(run, 2).where == "slot 10 to 0xd0200000, operation 2 of 3"


def test_a_move_that_was_refused_is_found_too():
    run = run_of("v6_12", *KVMGT, MOVE, "guest_write gpa=0xd0003000")

    assert select_compare(run, len(run) - 1).op == 5


@pytest.mark.parametrize("lines", [(), (SLOT,), (SLOT, DELETE), (SLOT, SLOT), (SLOT, "guest_write gpa=0xd0003000")])
def test_where_there_is_no_move_the_tab_says_what_it_would_show(lines):
    view = compared("v6_12", *lines)

    assert "A MOVE appears here beside DELETE and CREATE" in view.notice
    assert view.rows == ()


def test_inside_another_call_neither_route_starts():
    run = run_of("v6_12", SLOT, "begin " + MOVE)
    ghost = look_inside(run_of("v6_12", SLOT).end, parse_command(MOVE), 2)

    assert "in progress" in select_compare(run, 1, ghost).notice


@settings(max_examples=30)
@given(random_runs(8))
def test_the_table_says_what_running_both_routes_says(run):
    for op in range(len(run)):
        view = select_compare(run, op)
        if view.notice or view.op != op:
            continue
        command = run.commands[op]
        assert isinstance(command, SetMemoryRegion)
        before = run.kvm_before(op)
        move = look_inside(before, command)
        delete = look_inside(before, replace(command, memory_size=0))
        create = look_inside(delete.step.kvm, command)
        assert move.step.change in (KvmMrChange.MOVE, None)
        assert delete.step.errno is None, "a slot that is there can be deleted"

        def swaps(*calls):
            return sum(isinstance(e, MemslotsPublished) for call in calls for cell in call.cells for e in cell.events)

        assert facts(view)["swaps of the active set"] == (str(swaps(move)), str(swaps(delete, create)))
        assert view.refused == (move.step.errno is not None)
        for row in view.rows:
            assert row.differs == (row.move != row.pair)
