"""Which VM a call is for: descriptors are closed, used again, copied and inherited."""

from logs import create_vm, region, replay


def test_two_vms_have_slots_of_their_own():
    log = replay(create_vm(5), create_vm(6), region(fd=5), region(fd=6), region(fd=6, gpa=0x4000))

    assert log.vms == [0, 1, 1]
    assert log.kinds == ["CREATE", "CREATE", "MOVE"]


def test_a_descriptor_that_is_used_again_is_a_new_vm():
    log = replay(create_vm(5), region(fd=5), "close(5) = 0", create_vm(5), region(fd=5))

    assert log.vms == [0, 1]
    assert log.kinds == ["CREATE", "CREATE"]


def test_a_descriptor_that_comes_back_was_closed_unseen():
    log = replay(create_vm(5), region(fd=5), create_vm(5), region(fd=5))

    assert log.vms == [0, 1]


def test_a_descriptor_is_free_as_soon_as_close_is_called():
    log = replay(
        create_vm(5, pid="1 "),
        "1 close(5 <unfinished ...>",
        create_vm(5, pid="2 "),
        "1 <... close resumed>) = 0",
        region(fd=5, pid="2 "),
    )

    assert log.vms == [1]
    assert log.summary.used == 5


def test_copies_of_a_descriptor_are_the_same_vm():
    log = replay(
        create_vm(5),
        "dup(5) = 7",
        "dup2(5, 50) = 50",
        "dup3(5, 51, O_CLOEXEC) = 51",
        "fcntl(5<anon_inode:kvm-vm>, F_DUPFD_CLOEXEC, 60) = 60",
        "fcntl(0x5, 0x406 /* F_DUPFD_CLOEXEC */, 0x3d) = 0x3d",
        "fcntl(5, F_DUPFD, 0) = 8",
        *(region(slot, slot << 20, fd=fd) for slot, fd in enumerate((7, 50, 51, 60, 61, 8))),
    )

    assert set(log.vms) == {0}
    assert log.summary.used == 13


def test_a_vm_lives_as_long_as_a_copy_of_its_descriptor():
    log = replay(create_vm(5), "dup(5) = 7", "close(5) = 0", region(fd=7), "close(7) = 0", create_vm(7), region(fd=7))

    assert log.vms == [0, 1]
    assert log.summary.max_live_slots == 1


def test_dup2_closes_what_was_there():
    log = replay(create_vm(5), create_vm(6), "dup2(5, 6) = 6", region(fd=6))

    assert log.vms == [0]


def test_a_range_of_descriptors_is_closed():
    log = replay(create_vm(5), region(fd=5), "close_range(3, 4294967295, 0) = 0", create_vm(5), region(fd=5))

    assert log.vms == [0, 1]


def test_close_of_another_descriptor_is_a_gap():
    log = replay(create_vm(5), "close(9) = 0", "close(8) = -1 EBADF (Bad file descriptor)")

    assert log.reasons == ["close, but not of a VM's descriptor", "close that failed"]


def test_a_forked_child_has_a_table_of_its_own():
    log = replay(
        create_vm(5, pid="1 "),
        "1 clone(child_stack=NULL, flags=CLONE_CHILD_CLEARTID|CLONE_CHILD_SETTID|SIGCHLD, child_tidptr=0x22) = 2",
        "2 close(5) = 0",
        create_vm(5, pid="2 "),
        region(fd=5, pid="2 "),
        region(fd=5, pid="1 "),
    )

    assert log.vms == [1, 0]


def test_a_child_may_be_seen_before_fork_has_returned():
    log = replay(
        create_vm(5, pid="1 "),
        "1 vfork( <unfinished ...>",
        "2 close(5) = 0",
        create_vm(5, pid="2 "),
        region(fd=5, pid="2 "),
        "1 <... vfork resumed>) = 2",
        region(fd=5, pid="1 "),
    )

    assert log.vms == [1, 0]


def test_a_thread_shares_the_table():
    flags = "CLONE_VM|CLONE_FS|CLONE_FILES|CLONE_SIGHAND|CLONE_THREAD"
    log = replay(
        create_vm(5, pid="1 "),
        f"1 clone3({{flags={flags}, child_tid=0x7f, exit_signal=0}} => {{parent_tid=[2]}}, 88) = 2",
        "1 clone(child_stack=0x7f, flags=0x3d0f00) = 3",
        "2 close(5) = 0",
        create_vm(5, pid="3 "),
        region(fd=5, pid="1 "),
    )

    assert log.vms == [1]


def test_another_thread_that_gets_a_descriptor_in_use_is_another_process():
    log = replay(create_vm(5, pid="1 "), create_vm(5, pid="2 "), region(fd=5, pid="1 "), region(fd=5, pid="2 "))

    assert log.vms == [0, 1]


def test_a_program_that_is_started_has_no_vm_yet():
    log = replay(
        create_vm(5, pid="1 "),
        '1 execve("/usr/bin/qemu", ["qemu"], 0x7f /* 20 vars */) = 0',
        create_vm(5, pid="1 "),
        region(fd=5, pid="1 "),
    )

    assert log.vms == [1]


def test_without_the_birth_of_a_vm_each_descriptor_of_each_process_is_one():
    log = replay(region(fd=5, pid="1 "), region(fd=6, pid="1 "), region(1, 0x100000, fd=5, pid="1 "))

    assert log.vms == [0, 1, 0]
    assert "The log does not show the making of VM 0, VM 1" in " ".join(log.summary.assumptions)


def test_an_unknown_descriptor_is_another_name_of_the_only_vm():
    log = replay(create_vm(5), region(fd=5), region(fd=7, gpa=0x8000000))

    assert log.kinds == ["CREATE", "MOVE"]
    assert "Descriptor 7 is taken for another name of VM 0" in " ".join(log.summary.assumptions)


def test_an_unknown_descriptor_beside_several_vms_leaves_a_doubt():
    log = replay(create_vm(5), create_vm(6), region(fd=7), region(0, 0, 0, fd=5))

    assert log.vms == [2, 0]
    assert log.agrees == [True, True]
    assert log.notes[1].startswith("slot 0 was made by a call that is missing")


def test_the_main_process_gets_its_number_when_there_are_two():
    log = replay(
        create_vm(5),
        "clone(child_stack=NULL, flags=SIGCHLDstrace: Process 2 attached",
        " <unfinished ...>",
        "[pid 2] close(5) = 0",
        create_vm(5, pid="[pid 2] "),
        "[pid 1] <... clone resumed>) = 2",
        region(fd=5, pid="[pid 1] "),
        region(fd=5, pid="[pid 2] "),
    )

    assert log.vms == [0, 1]


def test_several_runs_in_one_file_are_several_vms():
    run = [create_vm(5), region(fd=5), "+++ exited with 0 +++"]

    log = replay(*run, *run)

    assert log.kinds == ["CREATE", "CREATE"]
    assert log.summary.vms == 2
