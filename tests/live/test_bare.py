"""What of a run a bare VM can be asked: the rest is left out on both sides, and limits hold."""

from __future__ import annotations

import pytest
from runs import DELETE, MOVE, SLOT, run_of

from explorer.engine.apply import apply
from explorer.engine.commands import parse_command
from explorer.engine.config import VmConfig
from explorer.engine.state import new_vm
from explorer.engine.types import Errno, ExplorerError
from explorer.history import Run
from explorer.live import Limits, bare

GIB = 1 << 30


def slot(number: int, gpa: int, size: int) -> str:
    return f"set_region slot={number} gpa={gpa:#x} size={size:#x} hva=0x7f0000000000"


def test_a_move_that_a_tracker_prevents_is_done_where_no_tracker_can_be():
    run = run_of("v6_6", SLOT, "attach user=0", MOVE)

    ops = bare(run)

    assert [op.call is None for op in ops] == [False, True, False]
    assert ops[2].in_run is Errno.EINVAL
    assert (ops[2].errno, ops[2].change) == (None, "MOVE")


def test_a_region_call_told_in_phases_is_one_call():
    run = run_of("v6_12", SLOT, "begin " + MOVE, "advance", "advance")

    ops = bare(run)

    assert [op.call.name if op.call else op.left_out for op in ops[1:]] == [
        "KVM_SET_USER_MEMORY_REGION",
        *["part of a region call, which the kernel does in one go"] * 2,
    ]
    assert ops[1].change == "MOVE"


def test_what_was_asked_before_the_run_is_asked_first():
    start = apply(new_vm("v6_12", VmConfig()), parse_command("enable_cap cap=DISABLE_QUIRKS2 arg=0x80")).kvm

    ops = bare(Run(start, [parse_command(SLOT)]))

    assert [(op.at, op.call.name) for op in ops if op.call] == [
        (-1, "KVM_ENABLE_CAP"),
        (0, "KVM_SET_USER_MEMORY_REGION"),
    ]


def test_a_run_that_begins_with_slots_is_refused_in_one_sentence():
    start = apply(new_vm("v6_12", VmConfig()), parse_command(SLOT)).kvm

    with pytest.raises(ExplorerError, match=r"begins with a VM that is not new .*\[0xd0000\+0x20\]#10"):
        bare(Run(start, [parse_command(MOVE)]))


@pytest.mark.parametrize(
    ("limits", "reason"),
    [
        (Limits(slots=1), "beyond the limit of 1 slots"),
        (Limits(reserved_bytes=3 * GIB), "beyond the limit of 3 GiB of reserved memory"),
        (Limits(kernel_bytes=8 << 20), "beyond the limit of 8 MiB of kernel memory for arrays"),
        (Limits(operations=1), "beyond the limit of 1 operations"),
    ],
)
def test_what_goes_beyond_a_limit_is_left_out_and_named(limits, reason):
    run = run_of("v6_18", slot(1, 0, 2 * GIB), slot(2, 8 * GIB, 2 * GIB))

    first, second = bare(run, limits)

    assert first.call is not None
    assert (second.call, second.left_out) == (None, reason)


def test_a_slot_that_was_deleted_counts_no_longer():
    run = run_of("v6_18", SLOT, DELETE, slot(2, 0, 0x1000))

    assert all(op.call is not None for op in bare(run, Limits(slots=1)))


def test_a_size_that_no_kernel_takes_is_asked_in_spite_of_the_limits():
    run = run_of("v6_18", slot(1, 0, 1 << 43), slot(1, 0, 0x1800))

    assert [op.errno for op in bare(run, Limits(reserved_bytes=GIB))] == [Errno.EINVAL, Errno.EINVAL]
