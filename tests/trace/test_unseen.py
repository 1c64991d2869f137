"""What a log does not show is supplied where that is certain, and never where the log shows everything."""

from logs import create_vm, event, region, replay


def test_a_slot_from_before_the_log_may_be_deleted():
    log = replay(event(3, 0x100000, 0), event(3, 0x100000))

    assert log.agrees == [True, True]
    assert log.kinds == ["DELETE", "CREATE"]
    assert log.notes == ["slot 3 was there before the log begins", None]


def test_a_slot_that_the_log_has_deleted_was_not_there_before():
    log = replay(event(3), event(3, 0, 0), event(3, 0, 0))

    assert log.agrees == [True, True, False]


def test_where_the_log_shows_the_birth_nothing_is_supplied():
    log = replay(create_vm(pid="1 "), region(3, 0, 0, pid="1 "))

    assert log.agrees == [False]
    assert log.rows[0].guard == "slot_exists"
    assert log.rows[0].kind == "DELETE"


def test_a_file_of_one_thread_may_miss_a_deletion():
    log = replay(create_vm(), region(0), region(1, 0x1000), region(1, 0, 0x2000), name="strace.4711")

    assert log.agrees == [True, True, True]
    assert [note and note.partition(":")[0] for note in log.notes] == [
        None,
        "slot 0 was deleted by a call that is missing",
        "slot 1 was deleted by a call that is missing",
    ]


def test_a_file_of_one_thread_may_miss_what_is_in_the_way():
    log = replay(create_vm(), region(0, errno="EEXIST"), region(0), name="strace.4711.gz")

    assert log.agrees == [None, True]
    assert log.notes[0].startswith("a call that is missing may explain EEXIST")
    assert log.rows[0].live_slots == 0


def test_a_wrong_argument_is_a_difference_whatever_is_missing():
    log = replay(create_vm(), region(0, 0x1001), name="strace.4711")

    assert log.agrees == [False]
    assert log.rows[0].guard == "gpa_aligned"


def test_a_rotated_log_with_its_threads_named_misses_nothing():
    log = replay(create_vm(pid="1 "), region(0, 0, 0, pid="1 "), name="strace.log.1")

    assert log.agrees == [False]


def test_a_log_of_failed_calls_only_is_not_judged():
    log = replay(region(0, errno="EEXIST", pid="1 "), region(1, errno="EINVAL", pid="1 "))

    assert log.agrees == [None, None]
    assert log.summary.disagreements == 0


def test_after_a_difference_the_log_is_right():
    log = replay(create_vm(), region(0), region(1, 0x8000000, errno="ENOMEM"), region(2, 0x8000000))

    assert log.agrees == [True, False, True]
    assert log.rows[1].live_slots == 1
    assert [row.number for row in log.summary.first_disagreements] == [1]


def test_a_refusal_that_the_engine_does_not_know_is_a_difference_in_qemus_trace():
    log = replay(event(0), event(0, 0, 0, ret=-22))

    assert log.agrees == [True, False]
