"""Which tool wrote a log, from its lines; and what to say when it was none of the known ones.

Rule: a decision rests on what only that tool writes, never on the name of the file. Read next: `qemu`, `strace`,
`ftrace`, `jsonl`, `tree`.
"""

from __future__ import annotations

import re
from itertools import islice
from typing import TYPE_CHECKING, Literal

from explorer.trace import ftrace, jsonl, qemu, strace, tree
from explorer.trace.records import TraceError, shorten

if TYPE_CHECKING:
    from explorer.trace.source import Source

__all__ = ["Format", "detect_format"]

Format = Literal["qemu", "strace", "ftrace", "perf", "json"]

_LOOKED_AT = 50_000
"""Lines; the first of them that only one tool writes decides."""
_KNOWN = (
    "What is read: QEMU's own trace (qemu-system-x86_64 -trace kvm_set_user_memory -D FILE), strace"
    " (strace -f -e trace=ioctl,close,dup,clone,clone3 -o FILE VMM ...), ftrace, trace-cmd report, perf trace, perf"
    " script, and the JSON lines of this program, each plain or gzipped"
)
_OTHERS = (
    (re.compile(r'\{"name":'), "a recording of a kernel; try `explorer conform FILE`"),
    (re.compile(r"# tracer: "), "the head of ftrace's log without any event"),
    (re.compile(r"address-space: "), "QEMU's `info mtree` without -f, whose regions still hide each other; use -f"),
    (re.compile(r"\s*[\[{]"), "JSON, but not as this program writes it, one object a line"),
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
        sure, maybe = _of_line(line)
        if sure is not None:
            return sure
        if weak is None:
            weak = maybe
        if tree.is_flat_tree_line(line):
            raise TraceError(
                f"{source.name}: QEMU's memory tree, which names slots and makes none; give it with a log:"
                " explorer replay LOG --tree FILE, or in the page after a log"
            )
    if weak is not None:
        return weak
    if first is None:
        raise TraceError(f"{source.name}: {_nothing(source)}. {_KNOWN}.")
    raise TraceError(f"{source.name}: {_what_it_is(source, first)}. {_KNOWN}. The first line is: {shorten(first)}")


def _of_line(line: str) -> tuple[Format | None, Format | None]:
    """Return the format that a line proves, and the one that it suggests."""
    if jsonl.is_json_line(line):
        return "json", None
    if ftrace.is_perf_line(line):
        return "perf", None
    if ftrace.is_used_event(line):
        return "ftrace", None
    if qemu.is_event_line(line):
        return None, "qemu"
    return None, "ftrace" if ftrace.is_event(line) else None


def _nothing(source: Source) -> str:
    return f"no line can be read: {source.stopped}" if source.stopped else "there is no line in it"


def _what_it_is(source: Source, first: str) -> str:
    head = b"".join(islice(source.blocks(), 1))[:4096]
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        return "text in UTF-16; save it as UTF-8"
    if b"\0" in head:
        return "binary data and no log"
    for shape, what in _OTHERS:
        if shape.match(first):
            return f"not a log that is read here; it looks like {what}"
    return "not a log that is known"
