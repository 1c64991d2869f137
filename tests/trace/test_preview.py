"""What each line became: nothing is dropped in silence, and a long table is bounded while its counts are not."""

import io

import pytest
from logs import RECORDED, create_vm, event, name_of, region, struct

from explorer.trace.preview import preview_of, preview_rows
from explorer.trace.replay import Replay
from explorer.trace.source import Source, file_source

SMALL = [path for path in RECORDED if path.stat().st_size < 6000]


def player(*lines):
    return Replay(Source("test.log", io.BytesIO("\n".join([*lines, ""]).encode())))


def rows(*lines):
    return list(preview_rows(player(*lines)))


def test_each_line_says_what_it_became():
    found = rows(
        create_vm(),
        region(),
        "ioctl(7, KVM_RUN, 0) = 0",
        region(1, 0x1000, errno="EEXIST"),
        region(1, 0x200000, errno="EINVAL"),
        f"9 ioctl(5, KVM_SET_USER_MEMORY_REGION, {struct(2, 0x300000)} <unfinished ...>",
        "9 <... ioctl resumed>) = 0",
    )

    assert [(row.line, row.lines, row.became, row.operation, row.why) for row in found] == [
        (1, 1, "used", None, "tells VMs apart: KVM_CREATE_VM"),
        (2, 1, "operation", 0, "CREATE slot 0"),
        (3, 1, "skipped", None, "another KVM call: KVM_RUN"),
        (4, 1, "operation", 1, "CREATE slot 1, refused with EEXIST"),
        (5, 1, "doubtful", 2, "CREATE slot 1: the log says EINVAL, the model success"),
        (6, 2, "operation", 3, "CREATE slot 2"),
    ]


def test_a_call_without_a_result_and_one_that_needs_an_unseen_slot_are_doubtful():
    half = f"1 ioctl(5, KVM_SET_USER_MEMORY_REGION, {struct(2, 0x300000)} <unfinished ...>"

    assert [row.became for row in rows(create_vm(pid="1 "), half)] == ["used", "doubtful"]
    (deletion,) = rows(event(3, 0x100000, 0))
    assert (deletion.became, deletion.why) == ("doubtful", "DELETE slot 3: slot 3 was there before the log begins")


@pytest.mark.parametrize("path", SMALL, ids=name_of)
def test_the_rows_of_a_recorded_log_count_every_line_once(path):
    source = file_source(path)

    counted = sum(row.lines for row in preview_rows(Replay(source)))

    assert counted == sum(1 for line in source.lines() if line.strip())
    source.close()


def test_a_long_table_is_bounded_and_its_counts_are_whole():
    lines = [
        create_vm(),
        *(region(n % 400, n << 32, 4096) for n in range(400)),
        *["nothing"] * 300,
        region(500, errno="EIO"),
    ]

    found = preview_of(player(*lines, region(0, 0, 0), region(0, 0, 0, errno=None)))

    assert found.lines == {"operation": 401, "doubtful": 1, "used": 1, "skipped": 301}
    # 400 calls, one run of 300 lines that are nothing, one call that fails, two at the end, the making of the VM.
    assert len(found.rows) + found.hidden == 405
    assert len(found.rows) < 100
    assert (402, 300, "skipped") in [(row.line, row.lines, row.became) for row in found.rows]
    assert [row.line for row in found.rows] == sorted(row.line for row in found.rows)
    assert found.rows[-1].became == "doubtful"


def test_lines_that_are_skipped_for_one_reason_are_one_row_only_if_they_follow_each_other():
    found = preview_of(player(create_vm(), "a", "b", region(), "c", "ioctl(7, KVM_RUN, 0) = 0", "d", "e", "f"))

    skipped = [(row.line, row.lines) for row in found.rows if row.became == "skipped"]
    assert skipped == [(2, 2), (5, 1), (6, 1), (7, 3)]
