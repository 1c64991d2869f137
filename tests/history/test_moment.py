"""A moment: what a selector finds around a stop of a run."""

import itertools

from runs import DELETE, KVMGT, MOVE, SLOT, TABLES, WATCHED, moments, run_of

from explorer.engine.commands import parse_command
from explorer.engine.uapi import KvmMrChange
from explorer.history import Stop
from explorer.history.moment import SlotKey, attempted_change, moment_at
from explorer.history.run import look_inside


def test_before_the_first_operation_there_is_nothing_to_tell():
    moment = moment_at(run_of("v6_12", SLOT), Stop(-1, 0))

    assert (moment.op, moment.call, moment.old, moment.change, moment.target, moment.focus) == (None,) * 6
    assert moment.events == ()
    assert moment.at_end
    assert moment.kvm is moment.previous


def test_the_events_of_a_moment_are_those_of_its_operation_so_far():
    run = run_of("v6_12", *WATCHED, MOVE)
    inside = [moment for moment in moments(run) if moment.stop.op == 2]

    for earlier, later in itertools.pairwise(inside):
        assert later.events[: len(earlier.events)] == earlier.events
        assert later.previous == earlier.kvm
    assert inside[0].previous == run.kvm_before(2)
    assert inside[-1].events == run.detail(2).step.events


def test_the_old_slot_is_the_one_before_the_call_however_far_it_has_come():
    run = run_of("v6_12", *WATCHED, MOVE)
    old = run.kvm_before(2).slot(10)

    assert {moment.old for moment in moments(run) if moment.stop.op == 2} == {old}


def test_a_call_is_told_by_what_it_tries_even_if_it_is_refused_early():
    kvm = run_of("v6_12", SLOT).end

    def tried(line):
        return attempted_change(kvm, parse_command(line))

    assert tried("set_region slot=10 gpa=0xd0000000 size=0x20000 hva=0x100000000000") is KvmMrChange.NOOP
    assert tried("set_region slot=10 gpa=0xd0000000 size=0x20000 hva=0x100000000000 flags=1") is KvmMrChange.FLAGS_ONLY
    assert tried("set_region slot=10 gpa=0xd0000000 size=0x10000 hva=0x100000000000") is None
    assert tried("set_region slot=10 gpa=0xd0000000 size=0x20000 hva=0x200000000000") is None
    assert tried(MOVE) is KvmMrChange.MOVE
    assert tried(DELETE) is KvmMrChange.DELETE
    assert tried("set_region slot=4 gpa=0xd0000000 size=0x1000") is KvmMrChange.CREATE
    assert tried("set_region slot=4 as=7 gpa=0xd0000000 size=0x1000") is None


def test_the_picture_is_about_the_slot_that_the_operation_names_or_whose_page_it_touches():
    lines = (*KVMGT, "guest_write gpa=0xd0003000", MOVE)
    run = run_of("v6_12", "set_region slot=3 gpa=0 size=0x1000 hva=0x7f0000000000", *lines)

    focused = [moment_at(run, run.end_of(at)).focus for at in range(len(run))]

    assert focused == [SlotKey(0, 3)] + [SlotKey(0, 10)] * len(lines)


def test_a_chosen_slot_stays_in_the_picture():
    run = run_of("v6_12", SLOT, "set_region slot=3 gpa=0 size=0x1000 hva=0x7f0000000000")

    assert moment_at(run, Stop(1, 0), focus=SlotKey(0, 10)).focus == SlotKey(0, 10)


def test_a_composed_operation_does_not_touch_the_run():
    run = run_of("v6_12", SLOT, TABLES)
    end = run.end

    ghost = look_inside(end, parse_command(MOVE), 2)

    assert ghost.step.errno is None
    assert ghost.cells[-1].kvm.slot(10).base_gfn == 0xD0200
    assert (run.end, run.end.slot(10).base_gfn) == (end, 0xD0000)
