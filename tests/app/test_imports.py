"""A log in the page: what its lines became, where it differs, and names from QEMU's memory tree."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from explorer.app import logs
from explorer.app.imports import read_log
from explorer.app.naming import holds_tree, name_layout
from explorer.app.state import AppState, initial_state
from explorer.history import Run
from explorer.history.moment import moment_at
from explorer.selectors.slot_table import select_slot_table
from explorer.trace import TraceError

LOGS = Path(__file__).parents[2] / "assets" / "traces"
LIMIT = 1 << 24
H = 0x7F00_0000_0000


def region(slot: int, gpa: int = 0, errno: str = "") -> str:
    fields = f"slot={slot}, flags=0, guest_phys_addr={gpa:#x}, memory_size=4096, userspace_addr={H:#x}"
    result = f"-1 {errno} (Some text)" if errno else "0"
    return f"ioctl(5, KVM_SET_USER_MEMORY_REGION, {{{fields}}}) = {result}"


def shown(*lines: str | Path) -> AppState:
    """Return the page after the import of a log."""
    text = lines[0].read_bytes() if isinstance(lines[0], Path) else "\n".join(map(str, lines)).encode() + b"\n"
    return logs.show_log(initial_state(), *read_log(text, name="vmm.log", limit_bytes=LIMIT))


@pytest.mark.parametrize("log", ["own-walk-4/strace.log.gz", "own-moves/strace.log.gz", "big-own-walk/strace.log.gz"])
def test_the_run_of_a_log_is_the_run_of_its_commands(log: str) -> None:
    lines = gzip.decompress((LOGS / log).read_bytes()).splitlines(keepends=True)
    read, run = read_log(b"".join(lines[:20_000]), name=log, limit_bytes=1 << 26)

    alone = Run.new(read.profile, read.config, read.commands)

    assert run == alone
    assert run.outcomes == alone.outcomes
    assert run.end == alone.end
    assert all(run.kvm_before(at) == alone.kvm_before(at) for at in range(0, len(run), 401))


@pytest.mark.parametrize("errno", ["EINVAL", ""])
def test_where_the_log_differs_the_run_goes_on_as_the_engine_does(errno: str) -> None:
    """The replay follows the log (slot 600 was refused, slot 1 was there before); a run follows its commands."""
    lines = (region(600, 1 << 30, errno), region(1, 1 << 31), region(600, 1 << 30), region(7, 1 << 32, "EEXIST"))

    read, run = read_log("\n".join(lines).encode(), name="vmm.log", limit_bytes=LIMIT)

    alone = Run.new(read.profile, read.config, read.commands)
    assert (run, run.outcomes, run.end) == (alone, alone.outcomes, alone.end)
    assert [run.detail(at).before for at in range(len(run))] == [alone.kvm_before(at) for at in range(len(run))]


def test_the_lines_are_told_in_a_table_with_counts() -> None:
    notice = shown("ioctl(3, KVM_CREATE_VM, 0) = 5", region(0), "<b>x</b>").notice

    assert notice is not None
    assert notice.table == (
        ("1", "used", "tells VMs apart: KVM_CREATE_VM"),
        ("2", "1", "CREATE slot 0"),
        ("3", "skipped", "no line of strace"),
    )
    assert notice.table_note == "Lines: 1 operations, 1 used to tell VMs apart, 1 not used."


def test_the_table_of_a_long_log_is_bounded() -> None:
    notice = shown(LOGS / "own-walk-4/strace.log.gz").notice

    assert notice is not None
    assert len(notice.table) <= 200
    assert "rows are left out here" in notice.table_note


def test_a_difference_is_told_with_its_line_a_way_there_and_the_kernel_that_fits() -> None:
    state = shown("ioctl(3, KVM_CREATE_VM, 0) = 5", region(0), region(600, 1 << 30, "EINVAL"), region(1, 1 << 31))

    notice = state.notice
    assert notice is not None
    assert notice.kind == "error"
    assert "Line 3 is the first that differs: CREATE of slot 600, recorded EINVAL, modelled success." in notice.text
    assert "5.10 fits best: it explains 3 of 3 operations, 6.18 2." in notice.text
    assert notice.go == ("Go to line 3", 1)
    assert state.run.commands[1].slot == 600  # type: ignore[union-attr]


def test_where_no_kernel_fits_better_that_is_said() -> None:
    notice = shown("ioctl(3, KVM_CREATE_VM, 0) = 5", region(0), region(1, 0)).notice

    assert notice is not None
    assert "No kernel explains more than 6.18 does, 1 of 2 operations." in notice.text


def test_a_log_without_a_difference_needs_no_way_anywhere() -> None:
    notice = shown("ioctl(3, KVM_CREATE_VM, 0) = 5", region(0)).notice

    assert notice is not None
    assert (notice.kind, notice.go) == ("info", None)


# -- names -----------------------------------------------------------------------------------------


def names(state: AppState) -> dict[int, str]:
    return state.owner_names(state.kvm)


def test_a_memory_tree_after_a_log_names_the_slots() -> None:
    state = shown(LOGS / "q72-pc-firmware/qemu-trace.log.gz")

    named = name_layout(state, (LOGS / "q72-pc-firmware/mtree-end.txt.gz").read_bytes(), "tree", LIMIT)

    assert set(names(named).values()) == {"pc.ram", "pc.bios", "vga.vram"}
    assert len(names(named)) == len(state.kvm.slots())
    assert named.notice is not None
    assert named.notice.text == "9 slots named: pc.bios, pc.ram, vga.vram."
    table = select_slot_table(moment_at(named.run, named.stop), names(named))
    assert {row.name for row in table.rows if row.kind == "slot"} >= {"slot 1 pc.bios", "slot 3 vga.vram"}


def test_the_names_hold_at_other_steps_for_the_same_host_memory_and_for_no_other() -> None:
    state = shown(LOGS / "q72-pc-firmware/qemu-trace.log.gz")
    named = name_layout(state, (LOGS / "q72-pc-firmware/mtree-end.txt.gz").read_bytes(), "tree", LIMIT)

    first = named.run.kvm_at(named.run.end_of(1))

    # The first two calls of QEMU 7.2: all RAM in one slot, then the firmware below 4 GiB.
    assert named.owner_names(first) == {0: "pc.ram", 1: "pc.bios"}
    option_rom = named.run.kvm_at(named.run.end_of(5))
    assert named.owner_names(option_rom).get(2) is None  # pc.rom was gone when the tree was printed


def test_a_tree_that_fits_nowhere_changes_nothing() -> None:
    state = shown("ioctl(3, KVM_CREATE_VM, 0) = 5", region(0))

    with pytest.raises(TraceError, match="none of the 9 ranges of this memory tree is a slot at this step"):
        name_layout(state, (LOGS / "q72-pc-firmware/mtree-end.txt.gz").read_bytes(), "tree", LIMIT)


@pytest.mark.parametrize("content", [b"", b"\xfd7zXZ\0", b"ioctl(3, KVM_CREATE_VM, 0) = 5\n"])
def test_what_is_no_tree_is_left_to_the_importer(content: bytes) -> None:
    assert not holds_tree(content, limit_bytes=LIMIT)
