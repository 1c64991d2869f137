"""strace: one line for each system call, sometimes two halves of it, sometimes torn.

What stands in front of a call depends on options and on where the log went: nothing, ``1234 ``, ``[pid  1234] ``,
``1234<comm> ``, then a time of day, a time since the last call, the number of the call, an address::

    1234  10:16:35.588299 ioctl(5<anon_inode:kvm-vm>, KVM_SET_USER_MEMORY_REGION, {slot=0, ...}) = 0 <0.000041>
    [pid 30232] ioctl(5, KVM_SET_USER_MEMORY_REGION, {slot=2, flags=0, ...} <unfinished ...>
    [pid 30232] <... ioctl resumed>) = -1 EEXIST (File exists)

Calls of several threads are taken in the order of their returns. On a terminal, strace writes messages of its
own into the middle of a line; the rest of that line is on the next one.

Not modelled: dirty-log calls and KVM_CREATE_GUEST_MEMFD, which no strace shows in full.
Read next: `lift`.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from explorer.engine.lookup import as_id_of
from explorer.trace.records import NOT_FROM_KVM, Context, Gap, RegionCall
from explorer.trace.source import LONGEST_LINE
from explorer.trace.syscalls import ERRNOS, flags_of, split_call
from explorer.trace.threads import Threads, reason_unused

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from explorer.trace.descriptors import Descriptors, Pid
    from explorer.trace.records import Record

__all__ = ["CUT_OFF", "is_strace_line", "read_strace"]

CUT_OFF = "the line is cut off"
"""Reason of a line that begins a call and does not end it."""

# The usual forms of the one call that matters, and of its neighbours that do not, each in one go. Every other
# line takes the long way, which reads these too.
_FRONT = r" *(?:(?:\[pid +)?([1-9]\d{0,6})(?:<[^>]*>)?\]? +)?(?:(?:\d\d:\d\d:\d\d|\d+)(?:\.\d+)? )?"
_USUAL = re.compile(
    _FRONT + r"ioctl\((\d{1,9})(?:<anon_inode:kvm-vm>)?, "
    r"(?:KVM_SET_USER_MEMORY_REGION|0x4020ae46(?: /\* KVM_SET_USER_MEMORY_REGION \*/)?), "
    r"\{slot=(\d{1,9}), flags=([^,}]*), guest_phys_addr=(0x[0-9a-f]{1,16}|0), memory_size=(\d{1,19}),"
    r" userspace_addr=(0x[0-9a-f]{1,16}|0)\}\) += (?:0|-1 (E[A-Z]+) \([^)]*\))(?: <\d+\.\d+>)?\s*$",
    re.ASCII,
)
_UNUSED = re.compile(
    _FRONT + r"ioctl\(\d{1,9}(?:<[^,]*>)?, (KVM_\w+), .*\)\s+= (?:\d|-1 E)",
    re.ASCII,
)
_LEADER = re.compile(
    r"\s*(?:\[pid\s+(\d{1,9})(?:<[^>]*>)?\]\s+|([1-9]\d{0,6})(?:<[^>]*>)?\s+(?=[^\s=]))?"
    r"(?:\[[^\]]*\]\s+)?(?:(?:\d{1,2}:\d\d:\d\d|\d+)(?:\.\d+)?\s+)?(?:\(\+\s*\d+(?:\.\d+)?\)\s+)?(?:\[[^\]]*\]\s+)*",
    re.ASCII,
)
_RESUMED = re.compile(r"<\.\.\. (\w+) resumed>\s?", re.ASCII)
_ENDED = re.compile(r"\+\+\+ (?:exited with|killed by) .*\+\+\+\s*$", re.ASCII)
_SUPERSEDED = re.compile(r"\+\+\+ superseded by execve in pid (\d{1,9}) \+\+\+", re.ASCII)
_SIGNAL = re.compile(r"--- .* ---\s*$", re.ASCII)
_MESSAGE = re.compile(r"strace: (?:Process \d+ (?:attached|detached)|\[ Process PID=).*$", re.ASCII)
_CONTINUES = re.compile(r"\s*(?:\)|,|=>|\}|\]|<unfinished|<detached)", re.ASCII)
_STACK = re.compile(r"\s*> ", re.ASCII)
_MOST_PARTS = 8
"""Pieces that a line may be torn into."""


def is_strace_line(line: str) -> bool:
    """Return whether only strace writes such a line."""
    if len(line) > LONGEST_LINE:
        return False
    _, rest = _without_leader(line)
    if _RESUMED.match(rest) or _ENDED.match(rest) or _MESSAGE.match(rest) or rest.startswith("--- SIG"):
        return True
    call = split_call(rest)
    if call is None:
        return False
    return call.unfinished or call.result is not None or (call.name == "ioctl" and "KVM_" in call.args)


def read_strace(lines: Iterable[str], descriptors: Descriptors) -> Iterator[Record]:
    """Iterate over the records of an strace log; no text makes it raise.

    Parameters
    ----------
    lines
        Lines without their ends.
    descriptors
        Descriptor tables to start from; they are kept up to date.
    """
    reader = _Reader(Threads(descriptors))
    halves = reader.threads.halves
    for number, line in enumerate(lines, 1):
        if reader.torn is None:
            found = _USUAL.match(line, 0, LONGEST_LINE)
            if found is not None:
                call = _usual_call(number, found, reader.threads)
                if call is not None:
                    yield call
                    continue
            elif (found := _UNUSED.match(line, 0, LONGEST_LINE)) is not None:
                reason = reason_unused(found[2])
                if reason is not None and (int(found[1]) if found[1] else None) not in halves:
                    yield Gap(number, reason, line)
                    continue
        if line and not line.isspace():
            yield from reader.read(number, line)
    yield from reader.finish()


def _usual_call(number: int, found: re.Match[str], threads: Threads) -> RegionCall | None:
    pid_text, fd, slot, words, gpa, size, hva, errno = found.groups()
    pid = None if pid_text is None else int(pid_text)
    flags = flags_of(words)
    if flags is None or pid in threads.halves or (errno is not None and (errno not in ERRNOS or errno in NOT_FROM_KVM)):
        return None
    vm = threads.descriptors.vm_of(pid, int(fd))
    if vm is None:
        return None
    as_id, slot_id = as_id_of(int(slot))
    ret = 0 if errno is None else -1
    return RegionCall(number, 1, vm, as_id, slot_id, flags, int(gpa, 16), int(size), int(hva, 16), ret, errno)


class _Reader:
    """The long way: any line, also one that was torn."""

    def __init__(self, threads: Threads) -> None:
        self.threads = threads
        self.torn: tuple[tuple[int, ...], str] | None = None
        """Beginning of a line whose rest is still to come: where it is and its text."""
        self._begun: tuple[int, Pid, str] | None = None
        """Last line that ended with ``<unfinished ...>``: where it is, thread and call."""

    def read(self, number: int, line: str) -> Iterator[Record]:
        """Read a line that is not empty."""
        at: tuple[int, ...] = (number,)
        if self.torn is not None:
            if _MESSAGE.match(line):
                yield Gap(number, "a message of strace itself", line)
                return
            if _CONTINUES.match(line) and len(self.torn[0]) < _MOST_PARTS:
                at, line = (*self.torn[0], number), self.torn[1] + line
            else:
                yield from _gaps(self.torn[0], CUT_OFF, self.torn[1])
            self.torn = None
        message = _MESSAGE.search(line, 1, LONGEST_LINE)
        text = line if message is None else line[: message.start()]
        pid, rest = _without_leader(text)
        call = split_call(rest) if len(text) <= LONGEST_LINE else None
        if call is None:
            yield from self._no_call(pid, at, rest, line)
        elif call.unfinished:
            self._begun = (at[-1], pid, call.name)
            yield from self.threads.begin(pid, at, call, line)
        elif call.result is None:
            self.torn = (at, text)
        else:
            yield from self.threads.complete(pid, at, call, line)

    def finish(self) -> Iterator[Record]:
        """Say what is left at the end of the log."""
        if self.torn is not None:
            yield from _gaps(self.torn[0], CUT_OFF, self.torn[1])
        yield from self.threads.finish()

    def _no_call(self, pid: Pid, at: tuple[int, ...], rest: str, line: str) -> Iterator[Record]:
        """Read what is not the beginning of a call."""
        if len(line) > LONGEST_LINE:
            yield from _gaps(at, f"longer than {LONGEST_LINE:,} characters", line)
        elif (resumed := _RESUMED.match(rest)) is not None:
            yield from self.threads.resume(pid, at, resumed[1], rest[resumed.end() :], line)
        elif _ENDED.match(rest):
            yield from self.threads.end(pid)
            yield Context(at[0], len(at), "the end of a thread")
        elif (superseded := _SUPERSEDED.match(rest)) is not None:
            yield from self.threads.supersede(pid, int(superseded[1]))
            yield Context(at[0], len(at), "execve")
        elif _CONTINUES.match(line):
            # With -z strace keeps both halves back until it knows the result, and then needs no <... resumed>.
            if self._begun is not None and self._begun[0] == at[0] - 1:
                yield from self.threads.resume(self._begun[1], at, self._begun[2], rest, line)
            else:
                yield from _gaps(at, "the rest of a line whose beginning is not there", line)
        else:
            yield from _gaps(at, _what_else(rest, line), line)


def _without_leader(line: str) -> tuple[Pid, str]:
    """Return the thread a line is of, and what stands behind pid, times and the like."""
    found = _LEADER.match(line, 0, LONGEST_LINE)
    if found is None:
        return None, line
    pid = found[1] or found[2]
    return (int(pid) if pid else None), line[found.end() :]


def _what_else(rest: str, line: str) -> str:
    """Return what a line is that says nothing of a call."""
    if _SIGNAL.match(rest):
        return "a signal"
    if _MESSAGE.match(line) or rest.startswith("strace: "):
        return "a message of strace itself"
    if _STACK.match(rest):
        return "a line of a stack trace"
    return "binary data" if "\0" in line else "no line of strace"


def _gaps(at: tuple[int, ...], reason: str, line: str) -> Iterator[Record]:
    return (Gap(number, reason, line) for number in at)
