"""A run on other machines, piece by piece: the results are those of a run there, however it was cut or changed."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from runs import ALL_PROFILES, KVMGT, LOGGER, MOVE, QUIRK_OFF, SLOT, random_runs, run_of

from explorer.engine.commands import parse_command
from explorer.engine.config import VmConfig
from explorer.engine.mmu import zaps_all
from explorer.engine.types import Errno
from explorer.engine.uapi import KvmMrChange
from explorer.history.machine import Machine, machine_of
from explorer.history.rerun import Reruns, Result, Setting, result_of

CONFIG = VmConfig(tdp=False)


def commands(*lines):
    return tuple(parse_command(line) for line in lines)


def setting(profile, **machine):
    return Setting(Machine(profile, VmConfig(**machine)))


def results(reruns, place):
    return list(reruns.of(place).results)


@settings(max_examples=40)
@given(random_runs(30), st.sampled_from(ALL_PROFILES), st.integers(1, 7))
def test_pieces_come_to_what_a_run_on_that_machine_comes_to(run, profile, most):
    place = Setting(machine_of(run.start).on(profile))
    reruns = Reruns()
    reruns.follow(run.commands)

    while reruns.reached([place]) < len(run):
        reruns.work([place], len(run), most)

    there = run.on(profile, run.start.config)
    assert [(r.errno, r.change) for r in results(reruns, place)] == [(o.errno, o.change) for o in there.outcomes]
    for at in range(len(run) + 1):
        assert reruns.kvm_before(place, at) == there.kvm_before(at)


@settings(max_examples=40)
@given(random_runs(30), random_runs(12), st.integers(0, 30))
def test_a_changed_past_keeps_what_came_before_it_and_forgets_the_rest(run, other, cut):
    place = Setting(machine_of(run.start))
    reruns = Reruns()
    reruns.follow(run.commands)
    reruns.work([place], len(run))

    changed = (*run.commands[:cut], *other.commands)
    reruns.follow(changed)
    reruns.work([place], len(changed))

    anew = Reruns()
    anew.follow(changed)
    anew.work([place], len(changed))
    assert results(reruns, place) == results(anew, place)
    assert reruns.kvm_before(place, len(changed)) == anew.kvm_before(place, len(changed))


def test_a_run_that_grows_by_one_operation_costs_one():
    place = setting("v6_1")
    reruns = Reruns()
    reruns.follow(commands(*KVMGT))
    reruns.work([place], 99)

    reruns.follow(commands(*KVMGT, MOVE))

    assert reruns.reached([place]) == len(KVMGT)
    reruns.work([place], 99, 1)
    assert results(reruns, place)[-1] == Result(None, KvmMrChange.MOVE)


def test_a_snapshot_far_back_in_a_long_rerun_is_exact():
    lines = commands(*(SLOT, MOVE) * 200)
    place = setting("v6_12")
    reruns = Reruns()
    reruns.follow(lines)
    reruns.work([place], len(lines))

    for at in (399, 130, 129, 128, 127, 0):
        assert reruns.kvm_before(place, at) == run_of("v6_12", *[SLOT, MOVE] * 200).kvm_before(at)


def test_settings_advance_side_by_side_and_no_further_than_asked():
    places = [setting(name) for name in ALL_PROFILES]
    reruns = Reruns()
    reruns.follow(commands(*(SLOT, MOVE) * 50))

    reruns.work(places, 100, 10 * len(places))

    assert {len(reruns.of(place)) for place in places} == {10}
    reruns.work(places, 12, 10_000)
    assert {len(reruns.of(place)) for place in places} == {12}
    assert reruns.kvm_before(places[0], 13) is None


def test_what_external_trackers_do_can_be_left_out():
    loud, quiet = setting("v6_6"), Setting(setting("v6_6").machine, quiet=True)
    reruns = Reruns()
    reruns.follow(commands(*LOGGER, MOVE))
    reruns.work([loud, quiet], 99)

    assert results(reruns, loud)[-1] == Result(Errno.EINVAL, KvmMrChange.MOVE)
    assert results(reruns, quiet)[-1] == Result(None, KvmMrChange.MOVE)
    assert reruns.first_of_a_tracker == 2


def test_where_two_settings_differ_is_counted_as_far_as_both_are():
    old, new = setting("v6_1"), setting("v6_6")
    reruns = Reruns()
    reruns.follow(commands(*KVMGT, MOVE, "guest_write gpa=0xd0003000", "guest_write gpa=0xd0203000"))
    reruns.work([old, new], 6)

    assert reruns.differing(old, new) == ([5], 6)
    reruns.work([old, new], 99)
    assert reruns.differing(old, new) == ([5, 6, 7], 8)


def test_a_write_that_kvmgt_expects_to_see_and_does_not_is_missed():
    """kernel-reference 6.6: on 6.1 the flush callback of a MOVE empties KVMGT's table; the flag of the page stays."""
    back = SLOT.replace("slot=10", "slot=11")
    run = run_of("v6_1", *KVMGT, "set_region slot=10 gpa=0 size=0", back)

    _, before = result_of(run.kvm_before(5), parse_command("guest_write gpa=0xd0003000"))
    _, after = result_of(run.end, parse_command("guest_write gpa=0xd0003000"))

    assert (before.outcome, before.number, before.missed) == ("emulated", 1, False)
    assert (after.outcome, after.number, after.missed) == ("ram", 0, True)


def test_what_cannot_be_asked_changes_nothing_and_says_why():
    kvm = run_of("v6_12", SLOT).end

    after, result = result_of(kvm, parse_command("advance"))

    assert after is kvm
    assert result.trouble.startswith("no region call is in progress")


def test_the_machine_of_a_start_is_the_one_it_was_made_on():
    for machine in (Machine("v6_12", CONFIG, zap_slot_only=True), Machine("v5_10", VmConfig(tdp=True))):
        assert machine_of(machine.start()) == machine
    assert machine_of(run_of("v6_12", QUIRK_OFF).start).zap_slot_only is False
    assert zaps_all(Machine("v6_12", CONFIG, zap_slot_only=True).on("v6_6").start())
