"""The ways in which strace writes one call, and the calls around it. Each form was seen in a log."""

import pytest
from logs import H, create_vm, region, replay, struct

CALL = f"ioctl(5, KVM_SET_USER_MEMORY_REGION, {struct(3, 0x100000, 4096)}) = 0"
FRONTS = [
    "",
    "30256 ",
    "4538  ",
    "[pid 30232] ",
    "[pid  1234] ",
    "30142<memslot-play> ",
    "30142<CPU 0/KVM> ",
    "[pid  1234<CPU 0/KVM>] ",
    "10:16:28 ",
    "10:16:28.142353 ",
    "1795342588.830547 ",
    "1795342588 ",
    "     0.000397 ",
    "30169      0.000397 ",
    "[pid 30232] 10:16:35.588299 ",
    "19605 22:17:06 (+     0.000672) ",
    "5498  [  16] [00007fb4b0d1865b] ",
    "5498  [  16] [????????????????] ",
    "1234 [unconfined_u:unconfined_r:unconfined_t:s0] 10:16:28.142353 ",
    "\x1b[2m30256 \x1b[0m",
]
COMMANDS = [
    "KVM_SET_USER_MEMORY_REGION",
    "0x4020ae46",
    "0x4020ae46 /* KVM_SET_USER_MEMORY_REGION */",
    "_IOC(_IOC_WRITE, 0xae, 0x46, 0x20)",
    "KVM_SET_USER_MEMORY_REGION or OTHER_NAME",
    "1075883590",
]
ENDS = [" = 0", "      = 0", " = 0 <0.000041>", " = 0x0", " = 0 (DELAYED)", " = 0\r"]
FLAGS = {
    "0": 0,
    "KVM_MEM_LOG_DIRTY_PAGES": 1,
    "KVM_MEM_LOG_DIRTY_PAGES|KVM_MEM_READONLY": 3,
    "0x3": 3,
    "0x2 /* KVM_MEM_READONLY */": 2,
    "0x3 /* KVM_MEM_LOG_DIRTY_PAGES|KVM_MEM_READONLY */": 3,
}


@pytest.mark.parametrize("front", FRONTS)
def test_whatever_stands_in_front_of_a_call_it_is_read(front):
    log = replay(front + create_vm(), front + CALL, front + "+++ exited with 0 +++")

    (row,) = log.rows
    assert (row.slot, row.gpa, row.size, row.hva) == (3, 0x100000, 4096, H)
    assert log.summary.skipped.by_reason(1) == []


@pytest.mark.parametrize("command", COMMANDS)
def test_the_command_is_known_by_name_number_or_parts(command):
    log = replay(create_vm(), CALL.replace("KVM_SET_USER_MEMORY_REGION", command))

    assert log.kinds == ["CREATE"]


@pytest.mark.parametrize("end", ENDS)
def test_whatever_stands_behind_the_result_it_is_read(end):
    log = replay(create_vm(), CALL.removesuffix(" = 0") + end)

    assert log.agrees == [True]


@pytest.mark.parametrize(("words", "flags"), FLAGS.items())
def test_flags_are_read_by_name_and_number(words, flags):
    log = replay(create_vm(), region(flags=words))

    assert log.rows[0].flags == flags
    assert log.agrees == [True]


@pytest.mark.parametrize("words", ["0x80 /* KVM_MEM_??? */", "0x4 /* KVM_MEM_??? */", "KVM_MEM_READONLY|0x8"])
def test_flags_that_strace_does_not_know_reach_the_engine(words):
    log = replay(create_vm(), region(flags=words, errno="EINVAL"))

    assert log.rows[0].guard == "region_flags"
    assert log.agrees == [True]


def test_flags_of_a_future_strace_are_a_gap_and_no_guess():
    log = replay(create_vm(), region(flags="KVM_MEM_FROM_2030"))

    assert log.reasons == ["flags that are not understood: KVM_MEM_FROM_2030"]


def test_raw_numbers_decimal_numbers_and_names_of_arguments_are_read():
    numbers = f"slot=0x2, flags=0x1, guest_phys_addr=4096, memory_size=0x1000, userspace_addr={H}"
    raw = f"ioctl(0x5, 0x4020ae46, {{{numbers}}})"
    named = f"ioctl(fd=5, op=KVM_SET_USER_MEMORY_REGION, argp={struct(4, 0x10000)}) = 0"

    log = replay(create_vm(), raw + " = 0", named)

    assert [(row.slot, row.gpa, row.size, row.hva) for row in log.rows] == [
        (2, 4096, 4096, H),
        (4, 0x10000, 0x100000, H),
    ]


def test_the_descriptor_may_say_what_it_is():
    log = replay(
        "ioctl(3</dev/kvm<char 10:232>>, KVM_CREATE_VM, 0) = 5<anon_inode:kvm-vm>",
        region(fd="5<anon_inode:kvm-vm>"),
        region(1, 0x200000, fd="6</dev/null>", errno="EINVAL"),
        region(1, 0x200000, fd="3</dev/kvm>", errno="EINVAL"),
    )

    assert log.kinds == ["CREATE"]
    assert log.reasons == ["descriptor 6 is /dev/null, not a VM", "descriptor 3 is /dev/kvm, not a VM"]


def test_the_descriptor_on_which_vms_are_made_is_no_vm():
    log = replay(create_vm(5, device=3), region(fd=3, errno="EINVAL"))

    assert log.reasons == ["descriptor 3 is no VM"]
    assert log.summary.vms == 1


@pytest.mark.parametrize(
    ("errno", "why"),
    [
        ("ENOTTY", "the descriptor is no VM"),
        ("EBADF", "there is no such descriptor"),
        ("EFAULT", "the arguments cannot be read"),
        ("EIO", "the VM belongs to another process, or it is dead"),
        ("EPERM", "a filter of system calls"),
    ],
)
def test_a_call_that_kvm_never_looked_at_is_no_operation(errno, why):
    log = replay(create_vm(), region(errno=errno))

    assert log.reasons == [f"refused before KVM looked at it: {errno}, {why}"]


def test_a_result_that_strace_made_up_is_no_operation():
    log = replay(create_vm(), region(errno="EINVAL") + " (INJECTED)", region())

    assert log.reasons == ["strace made the result up (INJECTED); the kernel never saw the call"]
    assert log.kinds == ["CREATE"]


def test_a_call_that_shows_only_a_pointer_is_a_gap_and_leaves_a_doubt():
    log = replay(create_vm(), "ioctl(5, KVM_SET_USER_MEMORY_REGION, 0x7ffd1000) = 0", region(4, 0, 0))

    assert log.reasons == ["arguments not shown, only where they are in memory"]
    (note,) = log.notes
    assert note.startswith("slot 4 was made by a call that is missing: line 2 changes its slots and was not used")
    assert log.agrees == [True]


def test_region2_without_guest_memfd_is_the_plain_call():
    text = struct().replace("}", ", guest_memfd_offset=0, guest_memfd=-1}")

    log = replay(create_vm(), f"ioctl(5, KVM_SET_USER_MEMORY_REGION2, {text}) = 0")

    assert log.kinds == ["CREATE"]


def on_file(slot=0, gpa=0, *, fd="6", offset=0, errno=None):
    text = struct(slot, gpa, flags="KVM_MEM_GUEST_MEMFD")[:-1] + f", guest_memfd_offset={offset:#x}, guest_memfd={fd}}}"
    return f"ioctl(5, KVM_SET_USER_MEMORY_REGION2, {text}) = {'0' if errno is None else f'-1 {errno} (Some text)'}"


NOT_SHOWN = "the log does not show how the guest_memfd behind descriptor 6 was made"


@pytest.mark.parametrize("fd", ["6", "6<anon_inode:[guest_memfd]>"])
def test_region2_with_guest_memfd_is_replayed_and_says_what_the_log_does_not_show(fd):
    log = replay(create_vm(), on_file(fd=fd), on_file(1, 0x1000000, fd=fd, offset=0x100000), region(0, 0, 0))

    assert log.kinds == ["CREATE", "CREATE", "DELETE"]
    assert log.agrees == [True, True, True]
    assert log.notes == [NOT_SHOWN, None, None]
    assert log.summary.final_layout == (((0, 1, 0x1000000, 0x100000, H, 4),),)


def test_two_slots_never_share_a_page_of_a_file():
    log = replay(create_vm(), on_file(), on_file(1, 0x1000000, offset=0x80000, errno="EINVAL"))

    assert log.agrees == [True, True]
    assert log.rows[1].guard == "gmem_overlap"


def test_a_slot_that_exists_is_not_put_on_a_file_elsewhere():
    """Calls 10 and 11 of own-gmem-613, as a strace that shows the arguments would tell them."""
    log = replay(create_vm(), on_file(), on_file(0, 0x1000000, errno="EINVAL"), region(0, 0x1000000, errno="EINVAL"))

    assert log.agrees == [True, True, True]
    assert [row.guard for row in log.rows] == [None, "gmem_immutable", "same_guest_memfd"]


def test_a_file_may_be_too_short_and_the_log_would_not_tell():
    log = replay(create_vm(), on_file(errno="EINVAL"), region())

    assert log.agrees == [None, True]
    assert log.notes == ["what the log does not show of descriptor 6 may explain EINVAL", None]


def test_a_descriptor_may_stand_for_another_file_by_now():
    log = replay(create_vm(), on_file(), on_file(1, 0x1000000))

    assert log.agrees == [True, True]
    assert log.notes == [NOT_SHOWN, "descriptor 6 is another guest_memfd by now"]


def test_a_kernel_without_guest_memfd_cannot_have_said_yes():
    log = replay(create_vm(), on_file(), profile="v6_1")

    assert log.agrees == [False]
    assert log.rows[0].guard == "region2_exists"


def test_region2_with_guest_memfd_but_no_descriptor_is_a_gap_and_leaves_a_doubt():
    text = struct(flags="KVM_MEM_GUEST_MEMFD")

    log = replay(create_vm(), f"ioctl(5, KVM_SET_USER_MEMORY_REGION2, {text}) = 0")

    assert log.reasons == ["a slot on guest_memfd whose descriptor is not shown"]


@pytest.mark.parametrize(
    "line",
    ["ioctl(5, _IOC(_IOC_WRITE, 0xae, 0x49, 0xa0), 0x7fff772a15d0) = 0", "ioctl(5, 0x40a0ae49, 0x7fff772a15d0) = 0"],
)
def test_region2_by_number_is_known_although_its_arguments_do_not_show(line):
    log = replay(create_vm(), line)

    assert log.reasons == ["arguments not shown, only where they are in memory"]


@pytest.mark.parametrize(
    "line",
    [
        "ioctl(5, 0x4020ae46, 0x7ffd5e5a10) = 0",
        "ioctl(5, 1075883590, 0x7ffd5e5a10) = 0",
        "ioctl(5, _IOC(_IOC_WRITE, 0xae, 0x46, 0x20), 0x7ffd5e5a10) = 0",
        "ioctl(5, 0x4020ae46 /* KVM_SET_USER_MEMORY_REGION */, 0x7ffd5e5a10) = 0",
        "ioctl(0x5, 0x4020ae46, 0x7ffd5e5a10) = 0",
    ],
)
def test_an_old_strace_shows_where_the_arguments_are_and_not_what_they_are(line):
    log = replay(create_vm(), line, region(1))

    assert log.reasons == ["arguments not shown, only where they are in memory"]
    assert "Calls on VM 0 may be missing: line 2 changes its slots and was not used" in " ".join(
        log.summary.assumptions
    )


def test_other_lines_are_named():
    log = replay(
        "1 ioctl(5, KVM_GET_DIRTY_LOG, 0x7ffea4a918a0) = 0",
        "1 ioctl(5, 0x4010ae42, 0x7ffea4a918a0) = 0",
        "1 ioctl(7, KVM_RUN, 0) = -1 EINTR (Interrupted system call)",
        "1 ioctl(0, TCGETS, {c_iflag=ICRNL|IXON, ...}) = 0",
        "1 ioctl(7, 0xae80, 0) = 0",
        '1 write(1, "ioctl(5, KVM_SET_USER_MEMORY_REGION, {slot=0, ...}) = 0", 52) = 52',
        "1 --- SIGCHLD {si_signo=SIGCHLD, si_code=CLD_EXITED} ---",
        "strace: Process 30232 attached",
        " > /usr/lib/x86_64-linux-gnu/libc.so.6(ioctl+0x3b) [0x10e9ab]",
        "% time     seconds  usecs/call     calls    errors syscall",
        "<b onclick='alert(1)'>no log</b>",
        "1 \0\0\0",
    )

    assert log.reasons == [
        "dirty-log call, no change of slots; its arguments are not shown, only where they are in memory",
        "dirty-log call, no change of slots; its arguments are not shown, only where they are in memory",
        "another KVM call: KVM_RUN",
        "another ioctl: TCGETS",
        "another KVM call: KVM_RUN",
        "another system call: write",
        "a signal",
        "a message of strace itself",
        "a line of a stack trace",
        "no line of strace",
        "no line of strace",
        "binary data",
    ]


# -- halves ----------------------------------------------------------------------------------------


def test_the_halves_of_a_call_are_put_together_and_calls_are_in_the_order_of_their_returns():
    log = replay(
        create_vm(pid="1 "),
        f"1 ioctl(5, KVM_SET_USER_MEMORY_REGION, {struct(0)} <unfinished ...>",
        f"2 ioctl(5, KVM_SET_USER_MEMORY_REGION, {struct(1, 0x100000)} <unfinished ...>",
        "2 <... ioctl resumed>)              = 0",
        "1 <... ioctl resumed> )             = 0",
    )

    assert [(row.line, row.slot) for row in log.rows] == [(3, 1), (2, 0)]
    assert log.summary.used == 5
    assert "2 calls overlapped others" in " ".join(log.summary.assumptions)


def test_each_half_is_given_to_its_own_thread():
    log = replay(
        create_vm(pid="1 "),
        f"1 ioctl(5, KVM_SET_USER_MEMORY_REGION, {struct(0)} <unfinished ...>",
        "2 ioctl(14, KVM_RUN, 0 <unfinished ...>",
        "1 <... ioctl resumed>) = -1 EINVAL (Invalid argument)",
        "2 <... ioctl resumed>) = 0",
    )

    assert [(row.recorded_errno, row.agrees) for row in log.rows] == [("EINVAL", False)]
    assert log.reasons == ["another KVM call: KVM_RUN"] * 2


def test_a_call_that_never_returns_is_replayed_and_not_compared():
    log = replay(
        create_vm(pid="1 "),
        f"1 ioctl(5, KVM_SET_USER_MEMORY_REGION, {struct()} <unfinished ...>",
        "2 ioctl(14, KVM_RUN, 0 <detached ...>",
    )

    assert log.agrees == [None]
    assert log.rows[0].recorded_ret is None


def test_a_thread_that_dies_in_a_call_leaves_a_question_mark():
    log = replay(create_vm(), f"ioctl(5, KVM_SET_USER_MEMORY_REGION, {struct()} <unfinished ...>) = ?")

    assert log.agrees == [None]


def test_a_second_half_without_a_first_is_a_gap():
    log = replay(create_vm(pid="1 "), "2 <... ioctl resumed>) = 0")

    assert log.reasons == ["the end of a call whose beginning is not in the log: ioctl"]


def test_a_message_of_strace_may_stand_within_a_line():
    log = replay(
        create_vm(),
        f"[pid 2] ioctl(5, KVM_SET_USER_MEMORY_REGION, {struct()}strace: Process 30233 attached",
        ") = 0",
        f"[pid 2] ioctl(5, KVM_SET_USER_MEMORY_REGION, {struct(1, 0x100000)}strace: Process 30234 attached",
        "strace: Process 30235 attached",
        " <unfinished ...>",
        "[pid 3] ioctl(14, KVM_RUN, 0) = 0",
        "[pid 2] <... ioctl resumed>) = 0",
    )

    assert [(row.line, row.slot) for row in log.rows] == [(2, 0), (4, 1)]
    assert log.summary.used == 6
    assert log.reasons == ["a message of strace itself", "another KVM call: KVM_RUN"]


def test_output_of_the_program_may_stand_within_a_line():
    log = replay(create_vm(), f"ioctl(5, KVM_SET_USER_MEMORY_REGION, {struct()}qemu: warning: <b>", ") = 0")

    assert log.agrees == [True]


def test_with_z_the_second_half_follows_at_once_and_bare():
    log = replay(
        create_vm(pid="1 "),
        f"1 ioctl(5, KVM_SET_USER_MEMORY_REGION, {struct()} <unfinished ...>",
        ")                                       = 0",
    )

    assert log.agrees == [True]
    assert log.summary.used == 3


def test_the_last_process_loses_its_number_on_a_terminal():
    log = replay(
        create_vm(),
        f"[pid 1] ioctl(5, KVM_SET_USER_MEMORY_REGION, {struct()} <unfinished ...>",
        "[pid 2] +++ exited with 0 +++",
        "<... ioctl resumed>) = 0",
    )

    assert log.agrees == [True]


# -- damage ----------------------------------------------------------------------------------------

WHOLE = region(3, 0x100000, 0x200000)


@pytest.mark.parametrize("cut", range(1, len(WHOLE)))
def test_a_line_that_is_cut_off_anywhere_is_never_half_believed(cut):
    log = replay(create_vm(), region(), WHOLE[:cut], end="")

    assert [row.slot for row in log.rows] == [0]
    assert log.gaps[0].line == 3
    assert "may be cut off" in log.reasons[0]


@pytest.mark.parametrize("result", ["-1", "-1 E", "-1 EINV", "-", "x", "-1 EEXIS"])
def test_a_result_that_is_cut_off_is_a_gap(result):
    log = replay(create_vm(), WHOLE.removesuffix("0") + result)

    assert log.reasons == ["the line is cut off"]


@pytest.mark.parametrize(
    "text",
    [
        "{slot=zero, flags=0, guest_phys_addr=0, memory_size=4096, userspace_addr=0}",
        "{slot=0, flags=0, guest_phys_addr=0xghij, memory_size=4096, userspace_addr=0}",
        "{slot=0, flags=0, memory_size=4096, userspace_addr=0}",
        "{slot=0, flags=0, guest_phys_addr=0x1ffffffffffffffff, memory_size=4096, userspace_addr=0}",
        "{slot=٣, flags=0, guest_phys_addr=0, memory_size=4096, userspace_addr=0}",
        "{}",
    ],
)
def test_arguments_that_are_no_numbers_are_a_gap(text):
    log = replay(create_vm(), f"ioctl(5, KVM_SET_USER_MEMORY_REGION, {text}) = 0")

    assert log.rows == []
    assert len(log.gaps) == 1


def test_a_line_that_is_too_long_is_a_gap():
    log = replay(create_vm(), "1 write(1, " + "x" * 200_000, region())

    assert log.reasons == ["longer than 65,536 characters"]
    assert log.kinds == ["CREATE"]


# -- what the log says of its machine --------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "spaces"),
    [
        ("ioctl(3, KVM_CHECK_EXTENSION, KVM_CAP_MULTI_ADDRESS_SPACE) = 2", 2),
        ("ioctl(3, 0xae03 /* KVM_CHECK_EXTENSION */, 0x76 /* KVM_CAP_MULTI_ADDRESS_SPACE */) = 2", 2),
        ("ioctl(0x3, 0xae03, 0x76) = 0x2", 2),
        ("ioctl(3, KVM_CHECK_EXTENSION, KVM_CAP_MULTI_ADDRESS_SPACE) = 1", 1),
        ("ioctl(3, KVM_CHECK_EXTENSION, KVM_CAP_MULTI_ADDRESS_SPACE) = 0", 1),
    ],
)
def test_kvm_says_how_many_address_spaces_there_are(answer, spaces):
    log = replay(create_vm(), answer, region())

    assert log.rows[0].generation == spaces
    assert log.summary.used == 3


def test_a_call_in_another_address_space_that_worked_shows_that_it_exists():
    log = replay(create_vm(), region(), region(65536 + 3, 0))

    assert [(row.as_id, row.slot, row.generation, row.live_slots) for row in log.rows] == [(0, 0, 2, 1), (1, 3, 3, 2)]


def test_a_call_in_another_address_space_that_failed_shows_nothing():
    log = replay(create_vm(), region(65536 + 3, 0, errno="EINVAL"))

    assert log.rows[0].guard == "as_id"
    assert log.agrees == [True]


def test_another_number_of_slots_than_the_profile_has_is_pointed_out():
    log = replay(create_vm(), "ioctl(5, KVM_CHECK_EXTENSION, KVM_CAP_NR_MEMSLOTS) = 509", region())

    assert "The log's KVM has 509 slots, the profile has 32764; try --profile v5_10." in log.summary.assumptions


def test_halves_left_over_are_not_blamed_on_the_last_line():
    log = replay(create_vm(pid="1 "), "1 dup(5 <unfinished ...>", "2 +++ exited with 0 +++", end="")

    assert log.reasons == ["the call does not return in this log"]
