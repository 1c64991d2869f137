"""Whatever a log holds, it is read to its end or refused with a message, and no line is lost."""

import gzip
import io
import re

from hypothesis import example, given
from hypothesis import strategies as st
from logs import create_vm, event, region, run, struct

from explorer.trace.imported import import_log
from explorer.trace.records import TraceError
from explorer.trace.source import Source

PIDS = st.sampled_from(["", "1 ", "2 ", "[pid 3] ", "4<CPU 0/KVM> 10:11:12.000001 "])
NUMBERS = st.one_of(
    st.integers(0, 4).map(lambda n: n * 0x1000),
    st.integers(0, 1 << 65),
    st.sampled_from([1, 0xFFF, 0x7FFF_FFFF_F000, (1 << 64) - 1, (1 << 31) - 1]),
)
SLOTS = st.one_of(st.integers(0, 5), st.sampled_from([508, 509, 32763, 32764, 65535, 65536, 1 << 31, 1 << 33]))
ERRNOS = st.sampled_from([None, None, None, "EINVAL", "EEXIST", "EIO", "EBADF", "ENOMEM", "EWHAT"])
FLAGS = st.sampled_from([0, 1, "KVM_MEM_READONLY", "0x8 /* KVM_MEM_??? */", "KVM_MEM_GUEST_MEMFD", "|", "-1"])
REGIONS = st.builds(region, SLOTS, NUMBERS, NUMBERS, hva=NUMBERS, flags=FLAGS, errno=ERRNOS, pid=PIDS)
HALVES = st.builds(
    lambda pid, slot: f"{pid}ioctl(5, KVM_SET_USER_MEMORY_REGION, {struct(slot)} <unfinished ...>", PIDS, SLOTS
)
EVENTS = st.builds(
    event,
    SLOTS,
    NUMBERS,
    NUMBERS,
    ua=NUMBERS,
    flags=st.integers(0, 9),
    ret=st.sampled_from([0, 0, 0, -22, -17, -1, 1, -999999]),
    space=st.sampled_from([None, 0, 1, 70000]),
)
NEIGHBOURS = st.builds(
    lambda pid, text: pid + text,
    PIDS,
    st.sampled_from(
        [
            "<... ioctl resumed>) = 0",
            "<... clone resumed>) = 2",
            "ioctl(3, KVM_CREATE_VM, 0) = 5",
            "ioctl(3, KVM_CREATE_VM, 0 <unfinished ...>",
            "ioctl(5, KVM_SET_USER_MEMORY_REGION2, 0x7f) = 0",
            "ioctl(5, KVM_CHECK_EXTENSION, KVM_CAP_MULTI_ADDRESS_SPACE) = 2",
            "clone(child_stack=NULL, flags=SIGCHLD) = 2",
            "clone3({flags=CLONE_FILES} <unfinished ...>",
            "vfork( <unfinished ...>",
            "fork() = -1 EAGAIN (Resource temporarily unavailable)",
            "close(5) = 0",
            "close(5 <unfinished ...>",
            "<... close resumed>) = 0",
            "dup2(5, 6) = 6",
            "dup2(6, 5) = 5",
            "fcntl(5, F_DUPFD, 0) = 7",
            "close_range(0, 4294967295, 0) = 0",
            'execve("/bin/true", [], 0x7f) = 0',
            "+++ exited with 0 +++",
            "vfork( <unfinished ...>",
            "+++ superseded by execve in pid 1 +++",
            "strace: Process 9 attached",
            ") = 0",
            " <unfinished ...>",
            "ioctl(5, KVM_SET_USER_MEMORY_REGION, {slot=1, flags=0, strace: Process 9 attached",
        ]
    ),
)
LINES = st.lists(st.one_of(REGIONS, REGIONS, HALVES, NEIGHBOURS, EVENTS, st.text(max_size=40)), max_size=40)


def read(raw):
    try:
        return run(Source("fuzz.log", io.BytesIO(raw)))
    except TraceError:
        return None


@given(LINES, st.sampled_from(["\n", "\r\n"]))
@example([create_vm(), region(1, 1 << 52, 4096)], "\n")
def test_no_order_of_lines_breaks_the_reading(lines, newline):
    read(newline.join([create_vm(pid="1 "), *lines]).encode("utf-8", "surrogatepass"))


@given(st.lists(st.one_of(EVENTS, st.text(max_size=60)), max_size=30))
def test_no_event_breaks_the_reading(lines):
    read("\n".join([event(), *lines]).encode("utf-8", "surrogatepass"))


@given(st.binary(max_size=400))
@example(b"\x1f\x8b")
@example(b"\x1f\x8b\x08\0\0\0\0\0")
def test_no_bytes_break_the_reading(raw):
    for head in (b"", create_vm().encode() + b"\n", event().encode() + b"\n"):
        read(head + raw)
        read(gzip.compress(head, mtime=0) + raw)


@given(st.data())
def test_no_change_of_a_few_characters_breaks_the_reading(data):
    lines = [
        create_vm(pid="1 "),
        region(pid="1 "),
        region(1, 0x8000000, pid="[pid 2] 10:11:12 "),
        event(),
        event(space=1),
    ]
    text = list("\n".join(lines))
    for _ in range(data.draw(st.integers(1, 6))):
        at = data.draw(st.integers(0, len(text) - 1))
        text[at] = data.draw(
            st.sampled_from(["", "\n", "\0", ")", "(", "{", "}", "<", ">", "=", " ", "0", "x", '"', "é", "٣"])
        )

    read("".join(text).encode())


@given(st.lists(REGIONS, min_size=1, max_size=30))
def test_the_engine_never_breaks_on_recorded_numbers(lines):
    log = read("\n".join([create_vm(), *lines]).encode())

    for row in log.rows:
        assert row.ret in (0, -1)
        assert (row.guard is None) == (row.errno is None)
        assert row.live_slots >= 0


@given(LINES)
def test_an_import_gives_the_commands_of_one_vm(lines):
    raw = "\n".join([create_vm(pid="1 "), region(pid="1 "), *lines]).encode("utf-8", "surrogatepass")
    try:
        log = import_log(raw, name="fuzz.log", limit_bytes=1_000_000)
    except TraceError:
        return

    assert len(log.commands) == len(log.lines)
    counted = log.created + log.deleted + log.moved + log.flags_only + log.no_op + log.refused
    assert counted <= len(log.commands)
    assert re.match(r"fuzz\.log: (strace log|QEMU trace)|fuzz\.log: no memory slot call", log.summary_sentence())
