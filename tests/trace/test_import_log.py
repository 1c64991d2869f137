"""A log for a page: the commands of its busiest VM, counted, and everything that was left out."""

import gzip

import pytest
from logs import RECORDED, create_vm, event, name_of, region

from explorer.engine.apply import apply
from explorer.engine.commands import SetMemoryRegion
from explorer.engine.profile import get_profile
from explorer.engine.state import new_vm
from explorer.trace import TraceError, import_log

SMALL = [path for path in RECORDED if path.stat().st_size < 6000]


def imported(*lines, **options):
    return import_log("\n".join(lines).encode(), name="pasted", limit_bytes=1_000_000, **options)


def test_the_counts_are_of_what_happened():
    log = imported(
        create_vm(),
        region(),
        region(1, 0x100000, flags=1),
        region(1, 0x100000),
        region(1, 0x100000),
        region(1, 0x8000000),
        region(0, 0, 0),
        region(2, 0x8000001, errno="EINVAL"),
    )

    assert (log.created, log.deleted, log.moved, log.flags_only, log.no_op, log.refused) == (2, 1, 1, 1, 1, 1)
    assert log.lines == (2, 3, 4, 5, 6, 7, 8)
    assert log.disagreements == 0
    assert log.summary_sentence() == (
        "pasted: strace log with 7 memory slot calls on 1 VM; VM 0: 2 created, 1 deleted, 1 moved, 1 flags only,"
        " 1 without effect, 1 refused. 0 lines not used. Every recorded result agrees."
    )


def test_of_several_vms_the_busiest_is_taken():
    log = imported(create_vm(5), create_vm(6), region(fd=5), region(fd=6), region(1, 0x100000, fd=6))

    assert (log.vm, log.vms, log.operations) == (1, 2, 3)
    assert [command.slot for command in log.commands] == [0, 1]


@pytest.mark.parametrize("path", SMALL, ids=name_of)
def test_the_commands_lead_to_the_same_state_without_the_log(path):
    try:
        log = import_log(path.read_bytes(), name=path.name, limit_bytes=10_000_000)
    except TraceError:
        pytest.fail("a recorded log was refused")

    kvm = new_vm(log.profile, log.config)
    errnos = []
    for command in log.commands:
        step = apply(kvm, command)
        kvm = step.kvm
        errnos.append(step.errno)

    assert sum(errno is not None for errno in errnos) == log.refused
    assert len(kvm.slots()) == log.created - log.deleted + (len(log.commands) - _own(log))


def _own(log):
    return log.created + log.deleted + log.moved + log.flags_only + log.no_op + log.refused


def test_a_supplied_command_stands_before_the_call_that_proves_it():
    log = imported(event(3, 0x100000, 0), event(0))

    assert [(command.slot, bool(command.memory_size)) for command in log.commands] == [(3, True), (3, False), (0, True)]
    assert log.lines == (1, 1, 2)


def test_text_of_the_log_is_handed_on_as_it_is():
    evil = "<script>alert('1')</script> &amp; \u202e"

    log = imported(event(), evil)

    assert [(gap.line, gap.reason, gap.text) for gap in log.gaps] == [
        (2, "no line of QEMU's trace (the last line has no end and may be cut off)", evil)
    ]


def test_a_single_line_is_enough():
    log = imported(region(3, 0xC4000000, 0x1000000, flags="KVM_MEM_READONLY", errno="EEXIST"))

    assert log.commands == (
        SetMemoryRegion(
            slot=3, flags=2, guest_phys_addr=0xC4000000, memory_size=0x1000000, userspace_addr=0x7F0000000000
        ),
    )


def test_the_first_difference_is_named():
    log = imported(create_vm(), region(), region(1, errno=None), region(2, 0x8000000, errno="EINVAL"))

    assert log.disagreements == 2
    assert log.first_disagreement.line == 3
    assert log.first_disagreement.guard == "overlap"


def test_another_kernel_can_be_asked():
    lines = [create_vm(), region(600)]

    assert imported(*lines).disagreements == 0
    assert imported(*lines, profile=get_profile("v5_10")).first_disagreement.guard == "user_slot_id"


@pytest.mark.parametrize("parts", [1, 7, 1000])
def test_a_log_may_come_in_parts_and_packed(parts):
    packed = gzip.compress(f"{create_vm()}\n{region()}".encode())

    log = import_log(
        (packed[at : at + parts] for at in range(0, len(packed), parts)), name="upload.gz", limit_bytes=10_000
    )

    assert log.created == 1


def test_a_log_that_is_cut_off_says_so():
    packed = gzip.compress("\n".join([create_vm(), region(), region(1, 0x100000)] * 50).encode())

    log = import_log(packed[:-20], name="upload.gz", limit_bytes=100_000)

    assert "the gzip data ends early" in log.stopped


def test_a_log_without_calls_has_no_commands():
    log = imported("1 +++ exited with 0 +++")

    assert (log.vm, log.vms, log.commands) == (None, 0, ())
    assert log.summary_sentence() == "pasted: no memory slot call in this strace log; 0 lines not used."


@pytest.mark.parametrize("raw", [b"", b"hello", b"\0" * 100, b"x" * 2000])
def test_what_is_no_log_or_too_large_is_refused_with_a_message(raw):
    with pytest.raises(TraceError, match=r"^pasted: "):
        import_log(raw, name="pasted", limit_bytes=1000)


def test_a_slot_on_guest_memfd_comes_with_a_file_for_it():
    line = event(2, 0x4000000, flags=4, space=0).replace("guest_memfd=-1", "guest_memfd=12")

    log = imported(line)

    made, call = log.commands
    assert (made.fd, call.guest_memfd, call.flags) == (12, 12, 4)
    assert [apply(new_vm(log.profile, log.config), made).errno, log.created, log.refused] == [None, 1, 0]
