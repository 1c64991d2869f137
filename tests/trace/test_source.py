"""Files as they come: packed, cut off, damaged, binary, too large."""

import gzip
import io
import lzma
import random
import tracemalloc

import pytest
from logs import create_vm, event, region, replay, run

from explorer.trace.records import TraceError
from explorer.trace.replay import Replay
from explorer.trace.source import Source, bytes_source, file_source, stream_source

LINES = [create_vm(pid="1 "), *(region(slot, slot << 20, pid="1 ") for slot in range(2000))]
RAW = "\n".join(LINES).encode() + b"\n"


def source_of(raw, name="test.log"):
    return Source(name, io.BytesIO(raw))


def test_gzip_is_known_by_its_content(tmp_path):
    path = tmp_path / "no-suffix"
    path.write_bytes(gzip.compress(RAW, mtime=0))

    log = run(file_source(path))

    assert log.summary.operations == 2000


def test_several_gzip_parts_are_one_log():
    log = run(source_of(gzip.compress(RAW[:1000], mtime=0) + gzip.compress(RAW[1000:]) + b"\0\0\0"))

    assert log.summary.operations == 2000
    assert log.summary.stopped is None


@pytest.mark.parametrize("part", [0.1, 0.5, 0.9, 0.999])
def test_of_a_gzip_file_that_is_cut_off_all_is_read_up_to_there(part):
    packed = gzip.compress(RAW, mtime=0)

    log = run(source_of(packed[: int(len(packed) * part)]))

    assert log.summary.operations > 2000 * part / 2
    assert "the gzip data ends early" in log.summary.stopped
    assert log.summary.assumptions[-1].startswith("Reading ended after line")


def test_of_a_damaged_gzip_file_all_is_read_up_to_there():
    packed = bytearray(gzip.compress(RAW, mtime=0))
    packed[len(packed) // 2] ^= 0xFF

    log = run(source_of(bytes(packed)))

    assert "damaged" in log.summary.stopped
    assert log.summary.operations > 500


def test_a_wrong_checksum_costs_no_line():
    packed = bytearray(gzip.compress(RAW, mtime=0))
    packed[-6] ^= 0xFF

    log = run(source_of(bytes(packed)))

    assert log.summary.operations == 2000
    assert "damaged" in log.summary.stopped


def test_bytes_that_are_no_text_are_kept_as_escapes():
    log = replay(create_vm(), b"\xff\xfe<b>\xe2\x82</b>", region())

    assert log.gaps[0].text == "\\xff\\xfe<b>\\xe2\\x82</b>"
    assert log.kinds == ["CREATE"]


def test_a_mark_of_byte_order_is_no_part_of_the_first_line():
    log = replay(b"\xef\xbb\xbf" + event().encode())

    assert log.kinds == ["CREATE"]


def test_only_a_newline_ends_a_line():
    log = replay(event(), "a\u2028b\x0bc\x85d", event(1, 0x8000000))

    assert [gap.line for gap in log.gaps] == [2]
    assert [row.line for row in log.rows] == [1, 3]


def test_lines_are_the_same_whatever_the_blocks(monkeypatch):
    raw = RAW + b"y" * 500_000 + b"\n\n  \n" + RAW
    whole = run(source_of(raw))

    for size in (1, 7, 4096):
        monkeypatch.setattr("explorer.trace.source._BLOCK", size if size > 1 else 3)
        parts = run(source_of(raw))
        assert parts.rows == whole.rows
        assert parts.reasons == whole.reasons


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"", "there is no line in it"),
        (b"\n\n \n", "there is no line in it"),
        (b"\x7fELF\x02\x01\x01\0\0\0", "binary data and no log"),
        (bytes(4096), "binary data and no log"),
        (event().encode("utf-16"), "text in UTF-16; save it as UTF-8"),
        (lzma.compress(RAW), "packed with xz"),
        (b"PK\x03\x04" + bytes(20), "packed with zip"),
        (gzip.compress(b"", mtime=0)[:12], "no line can be read: the gzip data ends early"),
        (gzip.compress(b"hello\n", mtime=0), "not a log that is known"),
        (b"<!DOCTYPE html><html>\n", "it looks like a web page"),
        (b"FlatView #0\n", "QEMU's memory tree, which names slots and makes none; give it with a log"),
        (b"address-space: memory\n", "it looks like QEMU's `info mtree` without -f"),
        (b"# tracer: nop\n", "it looks like the head of ftrace's log without any event"),
        (b'{"n":1,"vmfd":5}\n', "it looks like JSON, but not as this program writes it"),
        (b'{"name":"x","ops":[]}\n', "it looks like a recording of a kernel; try `explorer conform FILE`"),
        (b"int main(void) { return ioctl(fd, 1); }\n", "not a log that is known"),
    ],
)
def test_what_is_no_log_gets_a_message_that_says_what_would_be(raw, message):
    with pytest.raises(TraceError) as error:
        Replay(source_of(raw, "my.log"))

    assert str(error.value).startswith("my.log: ")
    assert message in str(error.value)


def test_a_message_shows_the_first_line_short_and_without_control_characters():
    with pytest.raises(TraceError) as error:
        Replay(source_of(b"\x1b]0;evil\x07" + b"z" * 1000 + b"\n"))

    assert "The first line is: \\x1b]0;evil\\x07zzz" in str(error.value)
    assert len(str(error.value)) < 600
    assert str(error.value).isprintable()


def test_no_file_and_a_folder_get_a_message(tmp_path):
    for path in (tmp_path, tmp_path / "none"):
        with pytest.raises(TraceError, match="expected a log"):
            file_source(path)


def test_a_stream_is_read_like_a_file():
    log = run(stream_source("standard input", io.BytesIO(gzip.compress(RAW, mtime=0))))

    assert log.summary.operations == 2000


def test_no_more_is_taken_than_the_limit_allows():
    taken = []

    def parts():
        for _ in range(100):
            taken.append(1)
            yield RAW

    with pytest.raises(TraceError, match="more than 500,000 bytes"):
        bytes_source("pasted", parts(), limit_bytes=500_000)

    assert len(taken) < 10


def test_a_small_file_that_unpacks_to_a_large_one_is_refused():
    bomb = gzip.compress(RAW + bytes(50_000_000))

    with pytest.raises(TraceError, match="more than 1,000,000 bytes of log"):
        for _ in Replay(bytes_source("bomb", bomb, limit_bytes=1_000_000)).rows():
            pass


def test_a_log_of_a_hundred_megabytes_needs_little_memory(tmp_path):
    path = tmp_path / "large.log"
    noise = random.Random(7)  # noqa: S311 - the same lines each time
    names = ["read", "write", "futex", "ppoll"]
    with path.open("w") as file:
        file.write(create_vm(pid="1 ") + "\n")
        for at in range(20_000):
            file.write(f"1 {noise.choice(names)}({at}, 0x7f0000000000, {'x' * 4900}) = {at}\n")
            if at % 100 == 0:
                file.write(region(at % 500, (at % 500) << 24, flags=at // 500 % 2, pid="1 ") + "\n")
    assert path.stat().st_size > 95_000_000

    tracemalloc.start()
    log = Replay(file_source(path))
    operations = sum(1 for _ in log.rows())
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert operations == 200
    assert len(log.summary().skipped) == 20_000
    assert peak < 20_000_000


def test_many_skipped_lines_need_little_memory():
    lines = 100_000
    raw = create_vm().encode() + b"\n" + b"futex(1) = 0\n" * lines

    tracemalloc.start()
    source = source_of(raw)
    log = Replay(source)
    for _ in log.rows():
        pass
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert len(log.summary().skipped) == lines
    assert peak < 10_000_000


def test_many_kinds_of_lines_need_little_memory():
    log = Replay(source_of("".join(f"call_{at:x}(1) = 0\n" for at in range(3000)).encode()))

    assert list(log.rows()) == []
    assert len(log.summary().skipped) == 3000
    assert len({reason for _, reason in log.summary().skipped}) == 1001
