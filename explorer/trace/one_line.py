"""One line of a log by itself, and the VM it was for, after a log that comes before it.

Rule: what the line or the log does not say is told as an assumption, never taken in silence.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from explorer.engine.commands import SetMemoryRegion, SetMemoryRegion2
from explorer.trace.descriptors import Descriptors
from explorer.trace.detect import detect_format
from explorer.trace.qemu import read_qemu
from explorer.trace.records import Gap, RegionCall, TraceError, shorten
from explorer.trace.replay import Replay
from explorer.trace.source import bytes_source
from explorer.trace.strace import CUT_OFF, read_strace

if TYPE_CHECKING:
    from collections.abc import Iterator

    from explorer.engine.profile import KernelProfile
    from explorer.engine.state import Kvm
    from explorer.trace.records import Record
    from explorer.trace.source import Source

__all__ = ["LogBefore", "OneLine", "read_log_before", "read_one_line"]

_LONGEST = 1 << 20
_EXPECTED = (
    "expected one line of strace or of QEMU's trace that shows a memory slot call, such as: ioctl(9,"
    " KVM_SET_USER_MEMORY_REGION, {slot=4, flags=0, guest_phys_addr=0xc0000, memory_size=131072,"
    " userspace_addr=0x7f0000000000}) = -1 EEXIST (File exists)"
)
_NO_RESULT = " <unfinished ...>"


class OneLine(NamedTuple):
    """A region call that one line shows."""

    text: str
    call: SetMemoryRegion
    ret: int | None
    """0, -1, or None if the line does not show how the call ended."""
    errno: str | None
    """Name, such as ``EEXIST``, if `ret` is -1."""
    format: str


class LogBefore(NamedTuple):
    """What a log says of the VM before the line."""

    kvm: Kvm
    assumptions: tuple[str, ...]


def read_one_line(text: str) -> OneLine:
    """Return the region call of a line.

    Raises
    ------
    TraceError
        If it is not exactly one line, shows no region call, or was refused before KVM looked at it.
    """
    lines = [line for line in text.splitlines() if line.strip()]
    if len(lines) != 1:
        have = f"{len(lines)} lines" if lines else "nothing"
        raise TraceError(f"this is {have}; {_EXPECTED}")
    line = lines[0].strip()
    if len(line) > _LONGEST:
        raise TraceError(f"a line of {len(line):,} characters; {_EXPECTED}")
    try:
        record, kind = _record_of(line)
    except TraceError:
        raise TraceError(f"no line of a log that is known: {shorten(line)}; {_EXPECTED}") from None
    if not isinstance(record, RegionCall):
        reason = record.reason if isinstance(record, Gap) else "no memory slot call"
        raise TraceError(f"{reason}: {shorten(line)}; {_EXPECTED}")
    return OneLine(line, _command_of(record), record.ret, record.errno, kind)


def _record_of(line: str) -> tuple[Record | None, str]:
    """Return what a line says: the call, or why it is none."""
    kind = detect_format(bytes_source("the line", line.encode(), limit_bytes=_LONGEST))
    if kind == "qemu":
        return next(read_qemu([line]), None), kind
    records = list(_of_strace(line))
    if len(records) == 1 and isinstance(records[0], Gap) and records[0].reason == CUT_OFF:
        records = list(_of_strace(line + _NO_RESULT))  # the call without its result
    call = next((record for record in records if isinstance(record, RegionCall)), None)
    return call or (records[0] if records else None), kind


def _of_strace(line: str) -> Iterator[Record]:
    return read_strace([line], Descriptors(one_thread=False))


def _command_of(record: RegionCall) -> SetMemoryRegion:
    fields = {
        "slot": record.slot,
        "as_id": record.as_id,
        "flags": record.flags,
        "guest_phys_addr": record.gpa,
        "memory_size": record.size,
        "userspace_addr": record.hva,
    }
    if record.guest_memfd is None:
        return SetMemoryRegion(**fields)
    return SetMemoryRegion2(
        **fields, guest_memfd=record.guest_memfd % (1 << 32), guest_memfd_offset=record.guest_memfd_offset
    )


class _GapsOf(list[Gap]):
    """Lines that were not used, of those that are asked for."""

    def __init__(self, lines: set[int]) -> None:
        super().__init__()
        self._lines = lines

    def append(self, gap: Gap) -> None:
        """Take the gap if it is on one of the lines."""
        if gap.line in self._lines:
            super().append(gap)


def read_log_before(source: Source, line: OneLine, profile: KernelProfile | None = None) -> LogBefore:
    """Replay a log and return the VM that a line was for, as it was then.

    If the log has the very line, that is the moment just before it; else its end.

    Raises
    ------
    TraceError
        If the source is no log that can be read, or shows no memory slot call, or says that the line was for no VM.
    """
    replay = Replay(source, profile)
    same = {number for number, text in enumerate(source.lines(), 1) if text.strip() == line.text}
    unused = replay.gaps = _GapsOf(same)
    found: tuple[Kvm, int] | None = None
    machines = replay.lift.machines
    for row in replay.rows():
        if row.line in same and row.errno is not None:
            # A call that was refused left the slots as they were.
            found = machines[row.vm].kvm, row.line
    said = [sentence for sentence in replay.summary().assumptions if sentence.startswith("The log does not name")]
    if found is not None:
        return LogBefore(found[0], (f"The line is line {found[1]} of {source.name}: the VM is as it was then.", *said))
    if unused:
        raise TraceError(f"{source.name}, line {unused[-1].line}: {unused[-1].reason}, so no slot is to blame")
    if not machines:
        raise TraceError(f"{source.name}: no memory slot call in this log, so it says nothing of the VM")
    vm, how = _vm_of(replay, line)
    return LogBefore(machines[vm].kvm, (*how, *said))


def _vm_of(replay: Replay, line: OneLine) -> tuple[int, tuple[str, ...]]:
    """Return which VM of a log a line is for: the one behind its descriptor, else the busiest."""
    machines = replay.lift.machines
    if line.format == "strace" and replay.format == "strace":
        known = replay.vm_of_line(line.text)
        if known in machines:
            return known, ()
    busiest = max(machines, key=lambda index: machines[index].operations)
    if len(machines) == 1:
        return busiest, ("The line is taken for a call on the only VM of the log, at the log’s end.",)
    which = f"VM {busiest}, the one with the most calls of {len(machines)}"
    return busiest, (f"The line does not say which VM it is for: taken for {which}, at the log’s end.",)
