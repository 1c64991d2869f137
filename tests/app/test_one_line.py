"""One failing line in the page's state: after a log, without one, in the log already, or explained by nothing."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from explorer.app import logs
from explorer.app.imports import read_log
from explorer.app.one_line import failing_line, show_line
from explorer.app.state import AppState, initial_state
from explorer.engine.commands import SetMemoryRegion, format_command

LOGS = Path(__file__).parents[2] / "assets/traces"
LINE = (
    b"ioctl(9, KVM_SET_USER_MEMORY_REGION, {slot=4, flags=0, guest_phys_addr=0xc0000, memory_size=131072,"
    b" userspace_addr=0x7f0000000000}) = -1 EEXIST (File exists)\n"
)
MOVE = (
    b"ioctl(9, KVM_SET_USER_MEMORY_REGION, {slot=%d, flags=0, guest_phys_addr=0x40000000, memory_size=%d,"
    b" userspace_addr=%#x}) = -1 EINVAL (Invalid argument)\n"
)


@pytest.fixture
def opening() -> AppState:
    return initial_state()


def after_log(state: AppState, name: str) -> AppState:
    return logs.show_log(state, *read_log((LOGS / name).read_bytes(), name=name, limit_bytes=1 << 26))


def pasted(state: AppState, text: bytes) -> AppState:
    line = failing_line(text)
    assert line is not None
    return show_line(state, line)


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"\xff\xfe\x00",
        LINE + LINE,
        LINE.replace(b"-1 EEXIST (File exists)", b"0"),
        LINE.replace(b"EEXIST", b"EBADF"),
        LINE.partition(b" = ")[0],
        b"x" * (1 << 17),
    ],
)
def test_what_is_no_failing_line_is_left_to_the_importer(text: bytes) -> None:
    assert failing_line(text) is None


def test_after_a_log_the_line_is_its_last_operation(opening: AppState) -> None:
    log = after_log(opening, "q72-pc-pam/strace.log.gz")

    state = pasted(log, LINE)

    assert state.run.commands[:-1] == log.run.commands
    assert (state.stop, state.run.outcomes[-1].refused_by) == (state.run.last_stop, "overlap")
    assert state.earlier is log


def test_a_line_that_the_log_has_is_found_there(opening: AppState) -> None:
    log = after_log(opening, "own-fails/strace.log.gz")
    text = gzip.decompress((LOGS / "own-fails/strace.log.gz").read_bytes())
    line = next(line for line in text.splitlines() if b"EEXIST" in line)

    state = pasted(log, line)

    assert state.run is log.run
    assert state.run.outcomes[state.stop.op].refused_by == "overlap"
    assert state.stop.op < len(state.run) - 1


def test_without_a_log_the_line_stands_in_the_smallest_vm_that_refuses_it(opening: AppState) -> None:
    state = pasted(opening, LINE)

    assert [outcome.refused_by for outcome in state.run.outcomes] == [None, "overlap"]
    assert state.machine.profile == opening.machine.profile
    assert state.notice is not None
    assert "is not known: slot 0 over exactly this range stands for it" in state.notice.text
    assert state.earlier is opening


def test_the_fields_hold_the_call_so_that_it_can_be_changed(opening: AppState) -> None:
    state = pasted(opening, LINE)

    assert dict(state.compose.fields) == {
        "slot": "4",
        "base": "0xc0000",
        "size": "0x20000",
        "hva": "0x7f0000000000",
        "flags": "0",
    }
    assert (state.compose.kind, state.compose.shown) == ("create", False)


def test_a_move_that_only_a_tracker_explains_brings_the_tracker_and_the_build_for_it(opening: AppState) -> None:
    log = after_log(opening, "q72-pc-pam/strace.log.gz")
    slot = next(slot for slot in log.run.end.slots() if not slot.flags)

    state = pasted(log, MOVE % (slot.id, slot.npages << 12, slot.userspace_addr))

    assert state.machine.config.external_write_tracking
    assert format_command(state.run.commands[-2]) == "attach user=0 kind=kvmgt"
    assert state.run.outcomes[-1].refused_by == "external_user"
    assert isinstance(state.run.commands[-1], SetMemoryRegion)


@pytest.mark.parametrize("log", ["", "q72-pc-pam/strace.log.gz"])
def test_what_nothing_explains_changes_nothing_but_the_notice(opening: AppState, log: str) -> None:
    before = after_log(opening, log) if log else opening

    state = pasted(before, LINE.replace(b"EEXIST", b"EBUSY"))

    assert state.notice is not None
    assert state.notice.kind == "error"
    assert (state.run, state.stop, state.machine) == (before.run, before.stop, before.machine)


def test_html_in_a_line_is_never_shown(opening: AppState) -> None:
    state = pasted(opening, LINE.replace(b"File exists", b"<img src=x>"))

    assert state.notice is not None
    assert "<img" not in state.notice.text + state.title
