"""QEMU's own trace: the forms of its line in several versions, and what stands around it."""

import pytest
from logs import H, event, replay

from explorer.engine.uapi import KVM_MEM_READONLY

FRONTS = [
    "",
    "24989@1795342155.867615:",
    "2026-11-22T10:09:24.016360Z ",
    "Nov 22 10:09:24 host qemu-system-x86_64[812]: ",
    "     qemu-system-x86-1234    [001] .....   123.456789: tracing_mark_write: ",
]


@pytest.mark.parametrize("front", FRONTS)
@pytest.mark.parametrize("space", [None, 0])
def test_whatever_stands_in_front_of_an_event_it_is_read(front, space):
    log = replay(front + event(3, 0x100000, space=space), front + event(3, 0x100000, 0, space=space) + "\r")

    assert log.kinds == ["CREATE", "DELETE"]
    assert log.rows[0][4:10] == (0, 3, 0, 0x100000, 0x100000, H)
    assert log.agrees == [True, True]


def test_the_older_form_has_the_address_space_in_the_slot_number():
    log = replay(event(0), event(65536 + 7, ret=0))

    assert (log.rows[1].as_id, log.rows[1].slot) == (1, 7)
    assert "VMs have two address spaces: a call in it succeeded." in log.summary.assumptions


def test_the_newer_form_names_the_address_space():
    log = replay(event(0, space=0), event(0, space=1))

    assert [(row.as_id, row.generation, row.live_slots) for row in log.rows] == [(0, 2, 1), (1, 3, 2)]


def test_a_second_address_space_is_known_from_the_first_line_on():
    only_later = replay(*[event(slot, slot << 20) for slot in range(50)], event(65536))

    assert only_later.rows[0].generation == 2


def test_a_call_in_another_address_space_that_failed_does_not_make_one():
    log = replay(event(0), event(65536, ret=-22))

    assert log.rows[1].guard == "as_id"
    assert log.rows[1].generation is None
    assert log.agrees == [True, True]


def test_the_result_is_a_negative_errno():
    log = replay(event(0), event(1, 0x1000, ret=-17), event(1, 0x1001, ret=-22))

    assert [row.recorded_errno for row in log.rows] == [None, "EEXIST", "EINVAL"]
    assert log.agrees == [True, True, True]


def test_other_events_are_named():
    log = replay(
        event(),
        "flatview_new 0x561cc4869670 (root (nil))",
        "1@2.000003:kvm_vm_ioctl type 0x4020ae46, arg 0x7ffee786a7d0",
        "2026-11-22T10:09:24.016360Z kvm_irqchip_commit_routes ",
        "kvm_clear_dirty_log slot#8 start 0x0 size 0x40",
        "<img src=x onerror=alert(1)>",
    )

    assert log.reasons == [
        "another trace event: flatview_new",
        "another trace event: kvm_vm_ioctl",
        "another trace event: kvm_irqchip_commit_routes",
        "another trace event: kvm_clear_dirty_log",
        "no line of QEMU's trace",
    ]
    assert log.gaps[-1].text == "<img src=x onerror=alert(1)>"


def test_a_name_that_ends_like_the_event_is_another_event():
    log = replay(event(), "my_" + event(1))

    assert log.kinds == ["CREATE"]
    assert len(log.gaps) == 1


def test_fields_may_come_in_another_order_and_with_further_ones():
    log = replay("kvm_set_user_memory Slot#1 new_field=7 size=0x1000 gpa=0x2000 ua=0x7f0000000000 flags=0x1 ret=0")

    assert log.rows[0][4:10] == (0, 1, 1, 0x2000, 0x1000, H)


def test_the_text_of_simpletrace_is_read():
    log = replay(
        "kvm_set_user_memory 0.000 pid=812 slot=0x0 flags=0x0 guest_phys_addr=0x0 memory_size=0x100000"
        " userspace_addr=0x7f0000000000 ret=0x0",
        "kvm_set_user_memory 3.141 pid=812 slot=0x1 flags=0x0 guest_phys_addr=0x0 memory_size=0x1000"
        " userspace_addr=0x7f0000000000 ret=0xffffffef",
    )

    assert [row.recorded_errno for row in log.rows] == [None, "EEXIST"]
    assert log.agrees == [True, True]


def test_syslog_of_two_qemus_is_two_vms():
    log = replay("host qemu[1]: " + event(), "host qemu[2]: " + event(), "host qemu[1]: " + event(gpa=0x200000))

    assert log.vms == [0, 1, 0]
    assert log.kinds == ["CREATE", "CREATE", "MOVE"]


def test_the_number_in_front_of_an_event_is_a_thread_and_not_a_vm():
    log = replay("1@2.000003:" + event(), "7@2.000004:" + event(0, 0, 0))

    assert log.vms == [0, 0]


def test_a_change_of_readonly_hides_a_deletion_that_qemu_does_not_log():
    log = replay(event(), event(flags=KVM_MEM_READONLY), event(1, 0x8000000))

    assert log.kinds == ["CREATE", "CREATE", "CREATE"]
    assert log.notes[1] == "QEMU deletes the slot before it changes READONLY and does not log that call"
    assert [row.generation for row in log.rows] == [1, 4, 5]


def test_a_slot_on_guest_memfd_is_replayed():
    on_memfd = event(2, 0x4000000, flags=4, space=0).replace("guest_memfd=-1", "guest_memfd=12")

    log = replay(event(space=0), on_memfd, event(2, 0x4000000, 0, space=0))

    assert log.reasons == []
    assert log.kinds == ["CREATE", "CREATE", "DELETE"]
    assert log.agrees == [True, True, True]
    assert log.notes[1] == "the log does not show how the guest_memfd behind descriptor 12 was made"


def test_the_offset_into_a_guest_memfd_counts():
    def on_memfd(slot, gpa, offset, ret):
        line = event(slot, gpa, flags=4, space=0, ret=ret).replace("guest_memfd=-1", "guest_memfd=12")
        return line.replace("guest_memfd_offset=0x0", f"guest_memfd_offset={offset:#x}")

    log = replay(on_memfd(1, 0, 0, 0), on_memfd(2, 0x4000000, 0x100000, 0), on_memfd(3, 0x8000000, 0x80000, -22))

    assert log.agrees == [True, True, True]
    assert log.rows[2].guard == "gmem_overlap"


WHOLE = event(3, 0x100000, ret=-17)


@pytest.mark.parametrize("cut", range(1, len(WHOLE)))
def test_a_line_that_is_cut_off_anywhere_is_never_half_believed(cut):
    log = replay(event(), WHOLE[:cut], end="")

    assert [row.slot for row in log.rows] == [0]
    assert log.gaps[0].line == 2
    assert "may be cut off" in log.reasons[0]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (event().replace("size=0x100000", "size=many"), "kvm_set_user_memory without size"),
        (event().replace(" ret=0", ""), "kvm_set_user_memory without ret"),
        (event(ret=7), "ret=7 is no answer of KVM"),
        (event(ret=-9), "refused before KVM looked at it: EBADF"),
        (event(1 << 33), "a slot number that KVM has no room for"),
        (event(1 << 16, space=0), "a slot number that KVM has no room for"),
        (event().replace("gpa=0x0", "gpa=0x1ffffffffffffffff"), "kvm_set_user_memory without gpa"),
        ("kvm_set_user_memory", "kvm_set_user_memory without slot"),
        ("x" * 70_000, "longer than 65,536 characters"),
    ],
)
def test_a_line_that_cannot_be_used_says_why(line, reason):
    log = replay(event(), line)

    assert log.reasons[0].startswith(reason)
    assert len(log.rows) == 1
