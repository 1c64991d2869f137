"""Which tool wrote a log, from its lines; and what to say when it was none of the known ones.

Rule: a decision rests on what only that tool writes, never on the name of the file. Read next: `qemu`, `strace`.
"""

from __future__ import annotations

import re
from itertools import islice
from typing import TYPE_CHECKING, Literal

from explorer.trace import qemu, strace
from explorer.trace.records import TraceError, shorten

if TYPE_CHECKING:
    from explorer.trace.source import Source

__all__ = ["Format", "detect_format"]

Format = Literal["qemu", "strace"]

_LOOKED_AT = 50_000
"""Lines; the first of them that only one tool writes decides."""
_KNOWN = (
    "Two kinds of log are known: QEMU's own trace (qemu-system-x86_64 -trace kvm_set_user_memory -D FILE) and strace"
    " (strace -f -e trace=ioctl,close,dup,clone,clone3 -o FILE VMM ...), each plain or gzipped"
)
_NOT_YET = (
    (re.compile(r"# tracer: |\s*\S+-\d+\s+\[\d{3}\] .{4,6} +\d+\.\d+: "), "ftrace or trace-cmd"),
    (re.compile(r"\s*\d+\.\d+ \(\s*(?:\d+\.\d+ ms)?\s*\): |\s*\S+\s+\d+ \[\d{3}\] +\d+\.\d+: "), "perf"),
    (re.compile(r'\{"n":\d|\{"op":|\{"name":'), "a recording of calls (JSON)"),
    (re.compile(r"FlatView #\d|address-space: "), "QEMU's `info mtree`"),
    (re.compile(r"\s*<(?:!doctype|html|\?xml)", re.IGNORECASE), "a web page"),
)


def detect_format(source: Source) -> Format:
    """Return which tool wrote the log.

    Raises
    ------
    TraceError
        If none of the known ones did; the message shows the first line and says what would be read.
    """
    first: str | None = None
    weak: Format | None = None
    for line in islice(source.lines(), _LOOKED_AT):
        if not line.strip():
            continue
        first = line if first is None else first
        if qemu.is_region_line(line):
            return "qemu"
        if strace.is_strace_line(line):
            return "strace"
        if weak is None and qemu.is_event_line(line):
            weak = "qemu"
    if weak is not None:
        return weak
    if first is None:
        raise TraceError(f"{source.name}: {_nothing(source)}. {_KNOWN}.")
    raise TraceError(f"{source.name}: {_what_it_is(source, first)}. {_KNOWN}. The first line is: {shorten(first)}")


def _nothing(source: Source) -> str:
    return f"no line can be read: {source.stopped}" if source.stopped else "there is no line in it"


def _what_it_is(source: Source, first: str) -> str:
    head = b"".join(islice(source.blocks(), 1))[:4096]
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        return "text in UTF-16; save it as UTF-8"
    if b"\0" in head:
        return "binary data and no log"
    for shape, what in _NOT_YET:
        if shape.match(first):
            return f"not a log that is read here; it looks like {what}"
    return "not a log that is known"
