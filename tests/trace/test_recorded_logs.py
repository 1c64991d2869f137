"""Every log that was recorded of a real VMM: nothing lost, nothing differs, the layout is the VMM's own."""

import pytest
from logs import RECORDED, name_of, recorded, sidecar

LOGS = pytest.mark.parametrize("path", RECORDED, ids=name_of)
COUNTED = pytest.mark.parametrize(
    "path",
    # A sidecar counts the log of the source of a migration, and all files of `strace -ff` together.
    [p for p in RECORDED if not p.name.startswith("dst-") and not ("-ff" in p.parent.name and "strace" in p.name)],
    ids=name_of,
)
REFUSED_ELSEWHERE = {"own-fails": 3, "own-fails-510": 3}
"""Calls that the sidecar counts as refused and that did not reach a VM: ENOTTY, EBADF, and one on /dev/kvm."""


def test_there_are_logs():
    assert len(RECORDED) > 100


@LOGS
def test_no_line_is_lost(path):
    log = recorded(path)

    assert log.summary.used + len(log.summary.skipped) == log.nonempty
    assert log.summary.stopped is None


@LOGS
def test_the_engine_gives_every_recorded_result(path):
    log = recorded(path)

    assert log.summary.disagreements == 0
    assert log.agrees <= {True}


@LOGS
def test_the_layout_is_what_qemu_said_it_was(path):
    log = recorded(path)

    hidden = "arguments not shown, only where they are in memory" in {reason for _, reason in log.summary.skipped}
    assert log.layouts == log.expected or (hidden and path.parent.name == "q100-q35-numa")


@COUNTED
def test_the_calls_are_of_the_kinds_that_the_sidecar_counts(path):
    log, kinds = recorded(path), recorded(path).summary.kinds
    data = sidecar(path)
    counts = data.get("strace_counts", data["counts"]) if "strace" in path.name else data["counts"]

    assert kinds.get("CREATE", 0) == counts["created"]
    assert kinds.get("DELETE", 0) == counts["deleted"]
    assert kinds.get("MOVE", 0) == log.summary.moves == counts["moved"] + counts["moved_and_flags"]
    assert kinds.get("FLAGS_ONLY", 0) == counts["flags_only"]
    assert kinds.get("NOOP", 0) == counts["nothing_changed"]
    assert kinds.get("REFUSED", 0) == counts["refused"] - REFUSED_ELSEWHERE.get(path.parent.name, 0)
    assert log.summary.max_live_slots == counts["max_live"]
    assert log.summary.max_live_slots_of_one_vm == log.max_live
    if log.summary.vms == 1:
        assert len(log.summary.final_layout[0]) == counts["final_live"]


@pytest.mark.parametrize("folder", ["own-threads-ff", "q72-strace-ff"])
def test_the_files_of_all_threads_hold_all_calls(folder):
    files = [path for path in RECORDED if path.parent.name == folder and "strace" in path.name]

    assert sum(recorded(path).summary.operations for path in files) == sidecar(files[0])["strace_counts"]["calls"]


def test_a_file_of_one_thread_says_what_it_takes_for_granted():
    (path,) = (path for path in RECORDED if path.name == "strace.5750.gz")

    sentences = " ".join(recorded(path).summary.assumptions)

    assert "the log shows one thread only" in sentences
    assert "3 results are explained by what the log does not show" in sentences


def test_qemu_and_strace_show_the_same_layout():
    pairs = [
        (path, path.with_name(path.name.replace("qemu-trace", "strace")))
        for path in RECORDED
        if "qemu-trace" in path.name and path.with_name(path.name.replace("qemu-trace", "strace")).exists()
    ]

    for trace, strace in pairs:
        one, other = recorded(trace).summary, recorded(strace).summary
        if other.operations:
            assert one.final_layout == other.final_layout
    assert len(pairs) > 40
