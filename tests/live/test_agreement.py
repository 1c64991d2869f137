"""The model against the machine's own KVM: random runs, and the libraries' stories."""

from __future__ import annotations

from collections import Counter

import pytest
from random_calls import random_run

from explorer.engine.apply import apply
from explorer.engine.commands import parse_command
from explorer.engine.profile import PROFILES
from explorer.engine.state import new_vm
from explorer.history import Run
from explorer.live import perform_all
from explorer.live.host import look_at_host
from explorer.scenarios import load_scenario, scenario_names

pytestmark = pytest.mark.kvm

RUNS, LENGTH = 200, 30


def test_random_runs_come_out_as_the_model_says(device, host):
    seen: Counter[str] = Counter()

    for seed in range(RUNS):
        report = perform_all(random_run(seed, host.profile.name, host.config, LENGTH), device)
        assert [(seed, row) for row in report.disagreements] == []
        assert report.compared == LENGTH
        for row in report.rows:
            seen[row.errno or row.op.change or ("dirty" if row.dirty else "done")] += 1

    # What the runs met: without these the agreement would say little.
    wanted = {"CREATE", "MOVE", "DELETE", "FLAGS_ONLY", "NOOP", "dirty", "done", "EEXIST", "EINVAL", "ENOENT"}
    assert {what: seen[what] for what in wanted if seen[what] < 20} == {}
    assert sum(seen.values()) == RUNS * LENGTH


@pytest.mark.parametrize("name", scenario_names())
def test_what_a_bare_vm_can_be_asked_of_a_story_comes_out_so(name, device, host):
    commands = [step.do for step in load_scenario(name).steps]

    report = perform_all(Run.new(host.profile, host.config, commands), device)

    assert report.disagreements == ()
    assert report.compared + sum(report.left_out.values()) == len(commands)


def test_a_wrong_profile_is_found_out(device, host):
    """509 slots was the limit before 5.12; a kernel that has more says so."""
    if host.profile.user_mem_slots == 509:
        pytest.skip("this kernel has 509 slots")
    run = Run.new("v5_10", host.config, [parse_command("set_region slot=509 gpa=0 size=0x1000 hva=0x7f0000000000")])

    report = perform_all(run, device)

    assert [(row.errno, row.op.errno.name) for row in report.disagreements] == [(None, "EINVAL")]


def test_the_suggested_profile_explains_what_was_observed(device):
    host = look_at_host(device)

    assert host.unexplained == ()
    assert host.answers.vm["NR_MEMSLOTS"] == host.profile.user_mem_slots
    assert all(set(row.fits) <= set(PROFILES) for row in host.evidence)
    assert any(len(row.fits) < len(PROFILES) for row in host.evidence)
    assert any("page trackers" in sentence for sentence in host.unknown)


def test_what_was_asked_before_the_run_is_asked_here_too(device, host):
    if not host.profile.slot_zap_quirk:
        pytest.skip("this kernel does not know the quirk")
    start = apply(new_vm("v6_12", host.config), parse_command("enable_cap cap=DISABLE_QUIRKS2 arg=0x80")).kvm
    run = Run(start, [parse_command("set_region slot=1 gpa=0 size=0x1000")])

    report = perform_all(host.here(run), device)

    assert [(row.op.at, row.op.call.name, row.agrees) for row in report.rows if row.op.call] == [
        (-1, "KVM_ENABLE_CAP", True),
        (0, "KVM_SET_USER_MEMORY_REGION", True),
    ]
