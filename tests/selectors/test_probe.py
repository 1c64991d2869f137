"""The probe: what a guest access would meet, at every step of an operation."""

import pytest
from runs import ALL_PROFILES, KVMGT, MOVE, REFUSES_A_MOVE, SLOT, WATCHED, moments, run_of

from explorer.engine.guest import OUTCOMES
from explorer.history import Stop
from explorer.history.moment import moment_at
from explorer.selectors.probe import WORDS, select_probes

OLD, NEW = 0xD0010, 0xD0210
"""A watched page of the slot, and where a MOVE puts it."""

ALLOWS_A_MOVE = [name for name in ALL_PROFILES if name != "v6_6_posted"]
"""Without an external tracker: the posted check was inverted, and refused just then."""


def probes_of(run, cell):
    return {probe.gfn: (probe.read, probe.write) for probe in select_probes(moment_at(run, Stop(len(run) - 1, cell)))}


def step_called(run, word):
    return next(at for at, cell in enumerate(run.detail(len(run) - 1).cells) if cell.word == word)


def test_every_outcome_of_the_engine_has_a_word():
    assert set(WORDS) == set(OUTCOMES)


@pytest.mark.parametrize("profile", ALLOWS_A_MOVE)
def test_a_move_takes_the_page_away_hides_it_and_gives_it_back_elsewhere(profile):
    """kernel-reference 4.6: faults in an INVALID slot are retried; outside all slots userspace answers."""
    run = run_of(profile, *WATCHED, MOVE, tdp=False)
    before, hidden, after = probes_of(run, 0), probes_of(run, step_called(run, "zap")), probes_of(run, 10**6)

    assert before == {OLD: ("ram", "emulated"), NEW: ("mmio", "mmio")}
    assert hidden[OLD] == ("retry", "retry")
    assert hidden[NEW] == ("mmio", "mmio")
    assert after == {OLD: ("mmio", "mmio"), NEW: ("ram", "ram")}


@pytest.mark.parametrize("profile", REFUSES_A_MOVE)
def test_a_refused_move_hides_the_page_for_a_while(profile):
    run = run_of(profile, *KVMGT, MOVE, tdp=False)

    at_the_refusal, at_the_end = probes_of(run, step_called(run, "allocate")), probes_of(run, 10**6)

    assert at_the_refusal[0xD0003] == ("retry", "retry")
    assert at_the_end[0xD0003] == ("ram", "emulated")
    assert at_the_end[0xD0203] == ("mmio", "mmio")


def test_a_page_that_was_asked_for_is_probed_alone():
    run = run_of("v6_12", *WATCHED, MOVE, tdp=False)
    here = moment_at(run, Stop(0, 10**6))

    assert [probe.gfn for probe in select_probes(here, 0xD0001)] == [0xD0001]
    assert select_probes(here, 0xD0001)[0].write == "ram"


def test_looking_changes_nothing():
    run = run_of("v6_12", *KVMGT, MOVE, tdp=False)
    for moment in moments(run):
        before = moment.kvm
        select_probes(moment)
        assert moment.kvm == before


def test_a_guest_with_paging_is_not_probed_by_page_number():
    run = run_of("v6_12", SLOT, "vcpu_mode mode=long cr3=0xd0010000", MOVE, tdp=False)

    assert select_probes(moment_at(run, run.last_stop)) == ()
