"""``explorer replay``: what it prints and how it exits."""

import gc
import gzip
import io
import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from explorer.cli import main

TRACES = Path(__file__).parents[2] / "assets" / "traces"
H = 0x7F00_0000_0000
CREATE_VM = "ioctl(3, KVM_CREATE_VM, 0) = 5"

ROW_KEYS = [
    "index",
    "line",
    "op",
    "vm",
    "as_id",
    "slot",
    "flags",
    "gpa",
    "size",
    "hva",
    "kind",
    "guard",
    "ret",
    "errno",
    "recorded_ret",
    "recorded_errno",
    "agrees",
    "generation",
    "live_slots",
    "note",
]


def event(slot=0, gpa=0, size=0x100000, *, flags=0, ret=0):
    return f"kvm_set_user_memory Slot#{slot} flags={flags:#x} gpa={gpa:#x} size={size:#x} ua={H:#x} ret={ret}"


def region(slot=0, gpa=0, *, flags=0, errno=None):
    result = "0" if errno is None else f"-1 {errno} (Some text)"
    fields = f"slot={slot}, flags={flags}, guest_phys_addr={gpa}, memory_size=1048576, userspace_addr={H:#x}"
    return f"ioctl(5, KVM_SET_USER_MEMORY_REGION, {{{fields}}}) = {result}"


@pytest.fixture
def log(tmp_path):
    def write(*lines, name="vmm.log"):
        path = tmp_path / name
        path.write_bytes("\n".join(lines).encode() + b"\n")
        return str(path)

    return write


def as_json(capsys, *arguments):
    status = main(["replay", "--json", *arguments])
    *rows, last = (json.loads(line) for line in capsys.readouterr().out.splitlines())
    return status, rows, last["summary"]


def test_each_operation_is_one_object_and_the_summary_is_the_last(log, capsys):
    path = log(CREATE_VM, region(), region(1, 0x1000, errno="EEXIST"), region(0, 0x8000000), "no line")

    status, rows, summary = as_json(capsys, path)

    assert status == 0
    assert [list(row) for row in rows] == [ROW_KEYS] * 3
    assert rows[1] == {
        "index": 1,
        "line": 3,
        "op": "set_region",
        "vm": 0,
        "as_id": 0,
        "slot": 1,
        "flags": 0,
        "gpa": 4096,
        "size": 1 << 20,
        "hva": 0x7F0000000000,
        "kind": "CREATE",
        "guard": "overlap",
        "ret": -1,
        "errno": "EEXIST",
        "recorded_ret": -1,
        "recorded_errno": "EEXIST",
        "agrees": True,
        "generation": 1,
        "live_slots": 1,
        "note": None,
    }
    assert (summary["operations"], summary["used"], summary["moves"], summary["vms"]) == (3, 4, 1, 1)
    assert summary["skipped"] == [{"line": 5, "reason": "no line of strace"}]
    assert summary["final_layout"] == [[[0, 0, 0x8000000, 1 << 20, 0x7F0000000000, 0]]]
    assert summary["max_live_slots"] == 1
    assert summary["disagreements"] == 0
    assert summary["format"] == "strace"
    assert summary["assumptions"]


def test_a_difference_gives_status_1(log, capsys):
    path = log(event(), event(1, 0x8000000, ret=-17), event(2, 0x8000000))

    status, rows, summary = as_json(capsys, path)

    assert status == 1
    assert [row["agrees"] for row in rows] == [True, False, True]
    assert summary["disagreements"] == 1


def test_text_shows_a_line_for_each_operation_then_differences_then_the_summary(log, capsys):
    path = log(event(), event(1, 0x8000000, ret=-17), "kvm_irqchip_commit_routes ", event(1, 0x8000000, ret=-22))

    status = main(["replay", path])
    out = capsys.readouterr().out

    lines = out.splitlines()
    assert status == 1
    assert lines[1].split()[:4] == ["0", "1", "0", "0"]
    assert "0x7f0000000000" in lines[1]
    assert lines[2].endswith("ok, but recorded is EEXIST  <== differs")
    assert lines[5] == "2 of 3 results differ, the first of them:"
    assert "another trace event: kvm_irqchip_commit_routes: line 3" in out
    assert "disagreements         2" in out


def test_columns_stand_under_their_names(log, capsys):
    main(["replay", log(event(), event(1, 0xFFFC0000, 0x40000, flags=2))])

    header, *rows = capsys.readouterr().out.splitlines()[:3]

    for name in ("line", "guest address", "size", "host address", "live"):
        end = header.index(name) + len(name)
        assert all(row[end - 1] != " " and row[end] == " " for row in rows)


def test_standard_input_is_read(monkeypatch, capsys):
    raw = gzip.compress(event().encode() + b"\n")
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(raw)))

    status, rows, _ = as_json(capsys, "-")

    assert (status, len(rows)) == (0, 1)


def test_another_profile_can_be_asked(log, capsys):
    path = log(CREATE_VM, region(600))

    status, rows, summary = as_json(capsys, path, "--profile", "v5_10")

    assert (status, rows[0]["guard"], summary["profile"]) == (1, "user_slot_id", "v5_10")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "there is no line in it"),
        (b"# a text\n", "not a log that is known"),
        (bytes(100), "binary data"),
        (b"\x1f\x8b\x08", "no line can be read"),
    ],
)
def test_what_is_no_log_gives_status_2_and_one_message(tmp_path, capsys, content, message):
    path = tmp_path / "x.log"
    path.write_bytes(content)

    status = main(["replay", str(path)])
    captured = capsys.readouterr()

    assert status == 2
    assert captured.out == ""
    assert captured.err.startswith(f"explorer: {path}: ")
    assert message in captured.err


def test_a_missing_file_and_an_unknown_profile_give_status_2(tmp_path, log, capsys):
    assert main(["replay", str(tmp_path / "none")]) == 2
    assert main(["replay", log(event()), "--profile", "v0"]) == 2
    assert "there are pre_edd4" in capsys.readouterr().err


def test_control_characters_of_a_log_do_not_reach_the_terminal(log, capsys):
    main(["replay", log(event(), "\x1b]0;title\x07", region(flags="\x1b[31m"), "1 \x1b[2Jcall(1) = 0")])

    assert "\x1b" not in capsys.readouterr().out


def test_a_reader_that_has_seen_enough_is_no_error():
    path = TRACES / "own-many" / "strace.log.gz"
    command = f"{sys.executable} -m explorer replay {path} | head -n 1"

    done = subprocess.run(command, shell=True, capture_output=True, text=True, check=False, cwd=TRACES.parents[1])  # noqa: S602 - a pipe

    assert done.stdout.startswith("  index")
    assert done.stderr == ""


@pytest.mark.parametrize("name", ["own-fails/strace.log.gz", "q111-pc-migration/dst-qemu-trace.log.gz"])
def test_json_and_the_replay_say_the_same(name, capsys):
    status, rows, summary = as_json(capsys, str(TRACES / name))

    assert status == 0
    assert len(rows) == summary["operations"]
    assert max(row["live_slots"] for row in rows) == summary["max_live_slots"]
    assert all(row["agrees"] is True for row in rows)


@pytest.mark.parametrize(("text", "status"), [(CREATE_VM, 0), ("no log at all", 2)])
def test_a_replay_leaves_the_collector_as_it_was(text, status, tmp_path):
    log = tmp_path / "vmm.log"
    log.write_text(f"{text}\n")
    usual = gc.get_threshold()

    assert main(["replay", str(log)]) == status
    assert gc.get_threshold() == usual
