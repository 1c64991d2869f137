"""The strace-like log: what the importer reads back is the run."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from random_calls import random_run
from runs import MOVE, SLOT, random_runs, run_of

from explorer.engine.commands import Advance, SetMemoryRegion, SetMemoryRegion2
from explorer.engine.config import VmConfig
from explorer.engine.profile import PROFILES
from explorer.engine.uapi import KVM_MEM_GUEST_MEMFD
from explorer.share import Told, export
from explorer.trace.records import NOT_FROM_KVM
from explorer.trace.replay import Replay
from explorer.trace.source import bytes_source

if TYPE_CHECKING:
    from explorer.history import Run

MACHINES = (VmConfig(), VmConfig(tdp=True, smm=False), VmConfig(processor="pvm", tdp_mmu=False, smm=False))


class Call(NamedTuple):
    """A region call and how it ended."""

    numbers: tuple[int, ...]
    file: tuple[int, int] | None
    errno: str | None


def told_in(run: Run) -> list[Call]:
    """Return the region calls of a run that reach KVM's own code, as the importer tells them apart."""
    found = []
    for command, outcome in zip(run.commands, run.outcomes, strict=True):
        errno = None if outcome.errno is None else outcome.errno.name
        if isinstance(command, SetMemoryRegion) and errno not in NOT_FROM_KVM:
            found.append(as_call(command, errno))
    return found


def as_call(command: SetMemoryRegion, errno: str | None) -> Call:
    numbers = (
        *(command.slot, command.as_id, command.flags),
        *(command.guest_phys_addr, command.memory_size, command.userspace_addr),
    )
    # A log does not show which of the two ioctls it was where no file is asked for: REGION2 is read as REGION then.
    on_file = isinstance(command, SetMemoryRegion2) and command.flags & KVM_MEM_GUEST_MEMFD
    return Call(numbers, (command.guest_memfd, command.guest_memfd_offset) if on_file else None, errno)


def read_back(text: str, run: Run) -> list[Call]:
    replay = Replay(bytes_source("log", text.encode(), limit_bytes=1 << 26), run.start.profile)
    calls = []
    for row in replay.rows():
        command = replay.lift.machines[row.vm].command
        assert command is not None
        calls.append(as_call(command, row.recorded_errno))
    assert replay.config.nr_memslot_as_ids(run.start.profile) == len(run.start.memslots)
    return calls


@settings(max_examples=60, deadline=None)
@given(random_runs())
def test_what_is_imported_again_has_the_calls_and_the_results_of_the_run(run):
    assert read_back(export(Told(run, "a title"), "strace"), run) == told_in(run)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 1 << 32), st.sampled_from(list(PROFILES)), st.sampled_from(MACHINES))
def test_so_have_runs_at_the_edges_of_the_rules(seed, profile, machine):
    run = random_run(seed, profile, machine)

    assert read_back(export(Told(run), "strace"), run) == told_in(run)


@pytest.mark.parametrize("name", ["6.18", "6.1"])
def test_the_replay_of_a_log_agrees_where_no_tracker_is_in_the_run(name):
    profile = "v" + name.replace(".", "_")
    run = random_run(5, profile, VmConfig(processor="pvm", external_write_tracking=False))

    replay = Replay(bytes_source("log", export(Told(run), "strace").encode(), limit_bytes=1 << 26), PROFILES[profile])
    agrees = [row.agrees for row in replay.rows()]

    assert False not in agrees
    assert agrees.count(True) > len(agrees) / 2


def test_a_call_that_stops_between_two_phases_is_two_halves_of_a_line():
    run = run_of("v6_18", SLOT, "begin " + MOVE, "advance", "create_guest_memfd fd=5 size=0x1000")
    while run.end.pending is not None:
        run = run.then(Advance())

    text = export(Told(run), "strace")

    assert text.count("<unfinished ...>") == text.count("<... ioctl resumed>) = 0") == 1
    assert [call.numbers[3] for call in read_back(text, run)] == [0xD0000000, 0xD0200000]


def test_what_no_ioctl_does_is_in_the_log_and_counted_as_not_used():
    run = run_of("v6_18", SLOT, "attach user=0", "guest_write gpa=0xd0003000", external_write_tracking=False)

    text = export(Told(run), "strace")

    assert "\n# attach user=0 = ENODEV  (page trackers are inside the kernel; no ioctl reaches them)\n" in text
    assert "\n# guest_write gpa=0xd0003000  (needs a guest that runs)\n" in text
    replay = Replay(bytes_source("log", text.encode(), limit_bytes=1 << 20))
    assert len(list(replay.rows())) == 1
    comments = [number for number, line in enumerate(text.splitlines(), 1) if line.startswith("#")]
    assert set(comments) <= {line for line, _ in replay.summary().skipped}


def test_a_dirty_log_that_was_read_shows_the_pages():
    run = run_of("v6_18", "enable_cap cap=168 arg=3", SLOT + " flags=log", "get_dirty_log slot=10")

    assert "ioctl(4, KVM_GET_DIRTY_LOG, {slot=10, dirty_bitmap=[0-31]}) = 0\n" in export(Told(run), "strace")
