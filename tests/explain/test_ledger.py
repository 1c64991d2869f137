"""Watches as tokens: the sum balances in every step, and each token's fate is the kernel's. Product row 40."""

from collections import Counter

import pytest
from hypothesis import given, settings
from runs import (
    ALL_PROFILES,
    DELETE,
    KVMGT,
    LOG_ON,
    LOGGER,
    MOVE,
    QUIRK_OFF,
    REFUSES_A_MOVE,
    SLOT,
    TABLES,
    WATCHED,
    at_word,
    end_of,
    moments,
    random_runs,
    run_of,
)

from explorer.engine.apply import apply
from explorer.engine.events import ArrayFreed, KernelWarned, WriteTracked, WriteUntracked
from explorer.engine.state import WriteTrack
from explorer.explain.ledger import ledger_of, watches_of
from explorer.history import Stop
from explorer.history.moment import moment_at

BEYOND = "set_region slot=10 gpa=0x40000000000000 size=0x20000 hva=0x100000000000"
"""A MOVE past the last gfn of any machine."""


def all_counts(kvm):
    """Return the sum of every count of every array there is."""
    return sum(sum(a.counts.values()) for a in kvm.heap.values() if isinstance(a, WriteTrack))


def array_of(kvm, slot):
    return None if slot is None or slot.arch.gfn_write_track is None else kvm.heap.get(slot.arch.gfn_write_track)


def fates(moment):
    return Counter((w.by, w.fate) for w in ledger_of(moment).watches)


@settings(max_examples=40)
@given(random_runs(18))
def test_no_watch_appears_or_vanishes_unaccounted(run):
    for at, command in enumerate(run.commands):
        step = apply(run.kvm_before(at), command)

        gained = sum(isinstance(e, WriteTracked) for e in step.events)
        released = sum(isinstance(e, WriteUntracked) for e in step.events)
        lost = sum(e.held for e in step.events if isinstance(e, ArrayFreed) and e.kind == "gfn_write_track")

        assert all_counts(run.kvm_before(at)) + gained - released - lost == all_counts(step.kvm)


@settings(max_examples=40)
@given(random_runs(18))
def test_the_equation_balances_at_every_step_and_its_terms_are_what_the_array_holds(run):
    for moment in moments(run):
        ledger = ledger_of(moment)
        if ledger is None:
            continue
        dropped, lost = ledger.dropped + ledger.will_be_dropped, ledger.lost + ledger.will_be_lost
        assert ledger.before == ledger.released + ledger.kept + dropped + lost
        assert min(ledger.kept, ledger.will_be_lost, ledger.will_be_dropped) >= 0
        old = moment.old
        array = array_of(moment.kvm, old)
        if isinstance(array, WriteTrack):
            held = Counter(w.gfn - old.base_gfn for w in ledger.watches if w.fate == "held")
            assert held == dict(array.counts.items())
        else:
            assert ledger.count("held") == 0


@settings(max_examples=40)
@given(random_runs(18))
def test_what_is_foretold_comes_true(run):
    for at in range(len(run)):
        cells = range(len(run.detail(at).cells))
        told = [ledger_of(moment_at(run, Stop(at, cell))) for cell in cells]
        if told[-1] is None:
            continue
        assert (told[-1].will_be_lost, told[-1].will_be_dropped) == (0, 0)
        for ledger in told:
            assert ledger.lost + ledger.will_be_lost == told[-1].lost
            assert ledger.dropped + ledger.will_be_dropped == told[-1].dropped
        if told[-1].lost:
            first = next(number for number, ledger in enumerate(told, 1) if ledger.lost)
            assert {ledger.lost_at for ledger in told} == {first}


@settings(max_examples=30)
@given(random_runs(20))
def test_watches_are_listed_by_page_and_as_many_as_the_counts_say(run):
    for slot in run.end.slots():
        watches = watches_of(run.end, slot)
        array = array_of(run.end, slot)
        counts = dict(array.counts.items()) if isinstance(array, WriteTrack) else {}
        assert [w.gfn for w in watches] == sorted(w.gfn for w in watches)
        assert Counter(w.gfn - slot.base_gfn for w in watches) == counts


@pytest.mark.parametrize("profile", ALL_PROFILES)
def test_the_zap_of_a_move_returns_all_of_shadow_pagings_watches(profile):
    # kernel-reference 5.6: for the internal user there is nothing left to lose.
    run = run_of(profile, *WATCHED, MOVE, external_write_tracking=False)

    assert fates(at_word(run, "swap")) == {("shadow paging", "held"): 3}
    assert fates(at_word(run, "zap")) == {("shadow paging", "released"): 3}
    assert (ledger_of(end_of(run)).lost, ledger_of(end_of(run)).lost_at) == (0, None)


@pytest.mark.parametrize("profile", REFUSES_A_MOVE)
def test_a_refused_move_returns_the_internal_watches_and_keeps_the_trackers(profile):
    # As recorded on 6.12, scenario shadow_pages_and_external_tracker: counts 3 and 16 stay 1.
    run = run_of(profile, *KVMGT, MOVE)

    assert run.outcomes[-1].errno.name == "EINVAL"
    assert fates(end_of(run)) == {("shadow paging", "released"): 3, ("tracker", "held"): 2}


def test_on_6_1_a_logging_trackers_watches_are_lost_with_the_old_array():
    # As recorded on 6.1, scenario shadow_pages_and_external_tracker.
    run = run_of("v6_1", *LOGGER, MOVE)

    assert fates(end_of(run)) == {("shadow paging", "released"): 3, ("tracker", "lost"): 2}
    assert ledger_of(at_word(run, "check")).will_be_lost == 2
    assert run.detail(len(run) - 1).cells[ledger_of(end_of(run)).lost_at - 1].word == "free old"


@pytest.mark.parametrize("profile", ["v5_10", "v6_1"])
@pytest.mark.parametrize("move", [MOVE, BEYOND])
def test_before_6_6_kvmgts_callback_drops_its_watches_even_if_the_move_is_refused(profile, move):
    # kernel-reference 6.5 and 4.6; 5.10 has no check of the last gfn.
    run = run_of(profile, *KVMGT, move)
    ledger = ledger_of(end_of(run))

    assert (run.outcomes[-1].errno is not None) == (profile == "v6_1" and move == BEYOND)
    assert (ledger.released, ledger.dropped, ledger.lost, ledger.kept) == (3, 2, 0, 0)
    assert ledger_of(at_word(run, "check")).will_be_dropped == 2
    assert run.detail(len(run) - 1).cells[ledger.dropped_at - 1].word == "zap"


def test_without_the_check_kvmgts_watches_are_lost():
    ledger = ledger_of(end_of(run_of("v6_6_nocheck", *KVMGT, MOVE)))

    assert (ledger.dropped, ledger.lost) == (0, 2)


@pytest.mark.parametrize("profile", ["v6_12", "v7_3"])
def test_with_the_quirk_off_the_slots_own_shadow_pages_still_go(profile):
    # kernel-reference 4.8 and 5.6: all indirect shadow pages in the slot, or unaccounting would hit freed memory.
    run = run_of(profile, SLOT, QUIRK_OFF, TABLES, MOVE)

    assert fates(end_of(run)) == {("shadow paging", "released"): 3}


def test_before_5_7_a_trackers_watches_come_along_by_index():
    # kernel-reference 2.1: a count at index i becomes one of the page at the new base plus i.
    run = run_of("pre_edd4", *LOGGER, MOVE)

    assert fates(end_of(run)) == {("shadow paging", "released"): 3, ("tracker", "held"): 2}
    assert {w.gfn for w in watches_of(run.end, run.end.slot(10))} == {0xD0203, 0xD0210}


@pytest.mark.parametrize("profile", ALL_PROFILES)
def test_a_change_of_flags_keeps_every_watch(profile):
    ledger = ledger_of(end_of(run_of(profile, *LOGGER, LOG_ON)))

    assert (ledger.before, ledger.kept) == (5, 5)


@pytest.mark.parametrize("profile", ALL_PROFILES)
def test_what_a_deletion_does_not_return_is_lost(profile):
    ledger = ledger_of(end_of(run_of(profile, *LOGGER, DELETE)))

    assert (ledger.count("released", "shadow paging"), ledger.count("lost", "tracker")) == (3, 2)


def test_a_watch_of_the_other_address_space_is_another_watch():
    smm = "set_region slot=10 as=1 gpa=0xd0000000 size=0x20000 hva=0x100000000000"
    run = run_of("v6_12", SLOT, smm, TABLES, TABLES + " as=1", QUIRK_OFF, MOVE)

    assert ledger_of(end_of(run)).before == 3
    assert ledger_of(end_of(run)).released == 3
    assert not any(isinstance(e, KernelWarned) for e in run.detail(len(run) - 1).step.events)


def test_outside_a_region_call_there_is_no_ledger():
    assert [ledger_of(moment) for moment in moments(run_of("v6_12", SLOT)) if moment.stop.op < 0] == [None]
    assert ledger_of(end_of(run_of("v6_12", *WATCHED))) is None
