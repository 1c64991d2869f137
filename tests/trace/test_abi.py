"""Who would break: each operation of a log on two kernels, without and with an external tracker."""

import io

import pytest
from logs import TRACES, create_vm, event, region, sidecar

from explorer.engine.profile import get_profile
from explorer.trace.abi import look_through
from explorer.trace.source import Source, file_source


def look(old, new, *lines):
    return look_through(
        Source("test.log", io.BytesIO("\n".join([*lines, ""]).encode())), get_profile(old), get_profile(new)
    )


@pytest.mark.parametrize("folder", ["own-moves", "own-walk-3", "own-fails", "q72-pc-pam"])
def test_whether_a_vmm_moves_is_the_number_that_was_counted_while_it_was_recorded(folder):
    path = TRACES / folder / "strace.log.gz"
    source = file_source(path)
    counts = sidecar(path)["counts"]

    lens = look_through(source, get_profile("v6_1"), get_profile("v6_6"))
    source.close()

    assert lens.moves.accepted == counts["moved"] + counts["moved_and_flags"]
    # Linux commit c70934e0ab2d ("KVM: x86: Reject memslot MOVE operations if KVMGT is attached") is in 6.6, not in 6.1.
    without, both, old, new = lens.comparisons
    moves = [change for change in new.changes if change.kind == "MOVE"]
    assert (old.changed, new.changed, len(moves)) == (0, lens.moves.accepted, lens.moves.accepted)
    assert {(change.old, change.new, change.check) for change in moves} <= {(None, "EINVAL", "external_user")}
    assert both.changed == without.changed + new.changed


def test_every_line_of_a_move_is_named():
    lens = look("v6_1", "v6_6", create_vm(), region(), region(0, 0x800000), region(0, 0x1000001, errno="EINVAL"))

    assert lens.moves == (1, 1, (3, 4))
    assert [change.line for change in lens.comparisons[3].changes] == [3]


def test_a_refused_move_does_not_drag_later_operations_behind_it():
    lens = look(
        "v6_1",
        "v6_6",
        create_vm(),
        region(),
        region(0, 0x800000),
        region(1, 0),
        region(0, 0x800000, 0),
        region(1, 0, 0),
    )

    assert [(change.line, change.follows) for change in lens.comparisons[1].changes] == [(3, False)]


def test_a_slot_that_one_kernel_cannot_have_is_told_once_and_its_consequences_apart():
    lens = look("v5_10", "v6_12", create_vm(), region(600), region(600, 0, flags=1), region(600, 0, 0))

    changes = lens.comparisons[0].changes
    assert [(change.line, change.old, change.new, change.follows) for change in changes] == [
        (2, "EINVAL", None, False),
        (3, "EINVAL", None, True),
        (4, "EINVAL", None, True),
    ]
    assert (lens.comparisons[0].changed, lens.comparisons[0].consequences) == (1, 2)


def test_what_the_log_refuses_changes_nothing_for_later_operations():
    lens = look("v5_10", "v6_12", create_vm(), region(600, errno="EINVAL"), region(1))

    assert [change.line for change in lens.comparisons[0].changes] == [2]


def test_a_log_that_begins_late_is_completed_on_every_kernel():
    lens = look("v6_1", "v6_6", event(3, 0x100000, 0), event(3, 0x100000))

    assert [comparison.changed for comparison in lens.comparisons] == [0, 0, 0, 0]
