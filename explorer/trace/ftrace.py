"""ftrace, trace-cmd and perf: the same system calls and probes, one line for each entry and each return.

What is read of the text of tracefs (``trace``), of ``trace-cmd report`` and of ``perf script``::

    memslot-play-19297 [001] DBZff 4297.705736: ioctl_enter: (0x43fe50) fd=5 cmd=0x4020ae46 slot=0 flags=0x0 ...
    memslot-play-19297 [001] DBZff 4297.706724: ioctl_ret: (0x4017c7 <- 0x43fe50) ret=0
    memslot-play-19204 [001] ..... 4297.387615: sys_ioctl(fd: 3, cmd: 0xae01, arg: 0)
    memslot-play-19204 [001] ..... 4297.387892: sys_ioctl -> 0x5
    qemu-kvm-812       [003] ..... 4297.388001: kvm_mmu_zap_all_fast: kvm-mmu-valid-gen 1 used_pages 2f

and of ``perf trace``, whose calls are on one line. A probe at the entry of ioctl() shows the arguments if it fetches
them: ``slot=+0(%dx):u32 flags=+4(%dx):x32 gpa=+8(%dx):x64 size=+16(%dx):x64 hva=+24(%dx):x64``; events of system
calls show only where they are. Every call is rewritten as strace would have written it, so that descriptors,
threads and VMs are followed by the same code.

Models the text of the events in arch/x86/kvm/mmu/mmutrace.h. Not modelled: what their fields say of single SPTEs.
Read next: `tree`.
"""

from __future__ import annotations

import re
from errno import errorcode
from typing import TYPE_CHECKING

from explorer.trace.records import Context, Gap, MmuEvent, shorten
from explorer.trace.source import LONGEST_LINE
from explorer.trace.syscalls import Call, number_of, split_call
from explorer.trace.threads import Threads

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from explorer.trace.descriptors import Descriptors, Pid
    from explorer.trace.records import Record

__all__ = ["is_event", "is_perf_line", "is_used_event", "read_ftrace", "shows_returns"]

_LINE = re.compile(
    r"\s*\S[^\[\]]{0,40}?[-\s](?:\d{1,9}/)?(\d{1,9})\s+(?:\([\d -]{1,9}\)\s+)?\[\d{3,4}\]\s+"
    r"(?:[^\s:]{4,8}\s+)?\d+\.\d+:\s+(?:\w+:)?(?=\w)",
    re.ASCII,
)
_ENTER = re.compile(r"\w+: \((?:0x)?[0-9a-f]+\)\s(.*)", re.ASCII)
_RETURN = re.compile(r"\w+: \((?:[^()]* )?<- [^()]*\)(?:\s+\w+=(-?(?:0x[0-9a-f]{1,16}|\d{1,20})))?\s*$", re.ASCII)
_SYS_ENTER = re.compile(r"(?:sys_enter_(\w+):\s+(.*)|sys_(\w+)\((.*)\)\s*)$", re.ASCII)
_SYS_EXIT = re.compile(r"(?:sys_exit_(\w+):|sys_(\w+) ->)\s+(-?(?:0x[0-9a-f]{1,16}|\d{1,20}))\s*$", re.ASCII)
_EVENT = re.compile(r"([a-z]\w*):(?:\s|$)", re.ASCII)
_FIELD = re.compile(r"(\w+)=([^\s,]+)", re.ASCII)
_COLON = re.compile(r"\b([a-z_]\w*): ?(?=[\w-])", re.ASCII)
_LOST = re.compile(r"\s*CPU:?\s*\d+\s+\[?(?:LOST|\d+ EVENTS DROPPED)", re.ASCII)
_PERF = re.compile(r"\s*\d+\.\d{3} \(\s*(?:\d+\.\d{3} ms)?\s*\): (?:\S.{0,40}?/(\d{1,9}) )?", re.ASCII)
_PERF_GOES_ON = re.compile(r"\s*\.\.\. \[continued\]: (\w+)\(", re.ASCII)
_REGION = ("slot", "flags", "gpa", "size", "hva")
_OF_THE_MMU = {
    "kvm_mmu_zap_all_fast": "zap",
    "kvm_mmu_prepare_zap_page": "zap",
    "kvm_mmu_set_spte": "SPTE",
    "kvm_tdp_mmu_spte_changed": "SPTE",
    "kvm_mmu_split_huge_page": "SPTE",
    "kvm_mmu_spte_requested": "SPTE",
    "mark_mmio_spte": "SPTE",
    "check_mmio_spte": "SPTE",
}
"""Events of the kvmmmu system that are of a zap or of an SPTE."""
_MOST_ERRNO = 4095
_U64 = 1 << 64


def is_event(line: str) -> bool:
    """Return whether `line` has the shape of an event of ftrace, trace-cmd or perf script."""
    return _LINE.match(line, 0, LONGEST_LINE) is not None


def is_used_event(line: str) -> bool:
    """Return whether `line` is an event that is read here."""
    found = _LINE.match(line, 0, LONGEST_LINE)
    if found is None:
        return False
    name = _EVENT.match(line, found.end())
    if name is not None and name[1] in _OF_THE_MMU:
        return True
    return any(form.match(line, found.end(), LONGEST_LINE) for form in (_ENTER, _RETURN, _SYS_ENTER, _SYS_EXIT))


def is_perf_line(line: str) -> bool:
    """Return whether `line` is a call as perf trace writes it."""
    found = _PERF.match(line, 0, LONGEST_LINE)
    return found is not None and split_call(line[found.end() : LONGEST_LINE]) is not None


def shows_returns(blocks: Iterable[bytes]) -> bool:
    """Return whether a log shows when calls return; if not, they are taken in the order of their beginnings."""
    before = b""
    for block in blocks:
        text = before + block
        if b" <- " in text or b"sys_exit_ioctl" in text or b"sys_ioctl ->" in text or b" ms): " in text:
            return True
        before = block[-16:]
    return False


def read_ftrace(lines: Iterable[str], descriptors: Descriptors, *, returns: bool) -> Iterator[Record]:
    """Iterate over the records of a log; no text makes it raise.

    Parameters
    ----------
    lines
        Lines without their ends.
    descriptors
        Descriptor tables to start from; they are kept up to date.
    returns
        Whether the log shows when calls return.
    """
    reader = _Reader(Threads(descriptors), returns=returns)
    for number, line in enumerate(lines, 1):
        if line and not line.isspace():
            yield from reader.read(number, line)
    yield from reader.threads.finish()


class _Reader:
    """One log."""

    def __init__(self, threads: Threads, *, returns: bool) -> None:
        self.threads = threads
        self._returns = returns
        self._probed: dict[Pid, bool] = {}
        """Threads whose call a probe shows, and whether the event of the system call was seen within."""
        self._answered: set[Pid] = set()
        """Threads whose call has returned, so that the return of the probe says nothing new."""

    def read(self, number: int, line: str) -> Iterator[Record]:
        """Read a line that is not empty."""
        if len(line) > LONGEST_LINE:
            yield Gap(number, f"longer than {LONGEST_LINE:,} characters", line)
            return
        found = _LINE.match(line)
        if found is None:
            yield from self._no_event(number, line)
            return
        pid, body = int(found[1]), line[found.end() :]
        if (probe := _RETURN.match(body)) is not None:
            yield from self._probe_returns(pid, number, probe[1], line)
        elif (probe := _ENTER.match(body)) is not None:
            yield from self._probe_enters(pid, number, dict(_FIELD.findall(probe[1])), line)
        elif (left := _SYS_EXIT.match(body)) is not None:
            yield from self._leave(pid, number, left[1] or left[2], _answer(left[3]), line)
        elif (entered := _SYS_ENTER.match(body)) is not None:
            yield from self._enter(pid, number, entered[1] or entered[3], entered[2] or entered[4] or "", line)
        else:
            yield self._event(number, body, line)

    def _probe_enters(self, pid: int, number: int, fields: dict[str, str], line: str) -> Iterator[Record]:
        if "fd" not in fields or "cmd" not in fields:
            yield Gap(number, "a probe that does not fetch fd and cmd", line)
            return
        argument = "0"
        if all(name in fields for name in _REGION):
            slot, flags, gpa, size, hva = (fields[name] for name in _REGION)
            argument = (
                f"{{slot={slot}, flags={flags}, guest_phys_addr={gpa}, memory_size={size}, userspace_addr={hva}}}"
            )
        call = Call("ioctl", f"{fields['fd']}, {fields['cmd']}, {argument}", None, unfinished=True)
        if len(self._probed) < LONGEST_LINE:
            self._probed[pid] = False
        self._answered.discard(pid)
        yield from self.threads.begin(pid, (number,), call, line)
        if not self._returns:
            yield from self.threads.give_up(pid)

    def _probe_returns(self, pid: int, number: int, value: str | None, line: str) -> Iterator[Record]:
        self._probed.pop(pid, None)
        if pid in self._answered:
            self._answered.discard(pid)
            yield Context(number, 1, "the return of a call, told before")
        else:
            answer = "?" if value is None else _answer(value, of_a_library=True)
            yield from self.threads.resume(pid, (number,), "ioctl", f") = {answer}", line)

    def _enter(self, pid: int, number: int, name: str, text: str, line: str) -> Iterator[Record]:
        args = _COLON.sub(r"\1=", text.strip())
        if name == "ioctl" and pid in self._probed:
            self._probed[pid] = True
            yield Context(number, 1, "the system call of a call that a probe shows")
            return
        yield from self.threads.begin(pid, (number,), Call(name, args, None, unfinished=True), line)
        if not self._returns:
            yield from self.threads.give_up(pid)

    def _leave(self, pid: int, number: int, name: str, answer: str, line: str) -> Iterator[Record]:
        if name == "ioctl" and pid in self._probed:
            if not self._probed.pop(pid):
                yield Gap(number, "the end of a call whose beginning is not in the log: ioctl", line)
                return
            self._answered.add(pid)
        yield from self.threads.resume(pid, (number,), name, f") = {answer}", line)

    def _event(self, number: int, body: str, line: str) -> Record:
        event = _EVENT.match(body)
        if event is None:
            return Gap(number, "no event that is known", line)
        kind = _OF_THE_MMU.get(event[1])
        if kind is None:
            return Gap(number, f"another trace event: {shorten(event[1])}", line)
        return MmuEvent(number, event[1], kind, during=self.threads.in_region_call())

    def _no_event(self, number: int, line: str) -> Iterator[Record]:
        found = _PERF.match(line)
        if found is not None:
            yield from self._perf(number, int(found[1]) if found[1] else None, line[found.end() :], line)
        elif line.startswith("#"):
            yield Gap(number, "the head of the log", line)
        elif _LOST.match(line):
            for vm in self.threads.descriptors.vms:
                vm.doubt = vm.doubt or f"events were lost at line {number}"
            yield Gap(number, "the tracer says that events were lost here", line)
        else:
            yield Gap(number, "binary data" if "\0" in line else "no line of a trace", line)

    def _perf(self, number: int, pid: Pid, text: str, line: str) -> Iterator[Record]:
        goes_on = _PERF_GOES_ON.match(text)
        if goes_on is not None:
            _, _, result = text.rpartition(" = ")
            yield from self.threads.resume(pid, (number,), goes_on[1], f") = {result}", line)
            return
        call = split_call(text)
        if call is None:
            yield Gap(number, "no call of perf trace", line)
            return
        call = call._replace(args=_COLON.sub(r"\1=", call.args.strip()))
        if call.result is not None:
            yield from self.threads.complete(pid, (number,), call, line)
        elif call.args.endswith("..."):
            args = call.args.removesuffix("...").rstrip().removesuffix(")")
            yield from self.threads.begin(pid, (number,), call._replace(args=args, unfinished=True), line)
        else:
            yield Gap(number, "the line is cut off", line)


def _answer(text: str, *, of_a_library: bool = False) -> str:
    """Return a result as strace writes it; the library's -1 does not say which errno it set."""
    value = number_of(text.removeprefix("-"))
    if value is None:
        return "?"
    if text.startswith("-"):
        value = -value
    elif value > _U64 - 1 - _MOST_ERRNO:
        value -= _U64
    if value >= 0:
        return str(value)
    if value == -1 and of_a_library:
        return "-1 (errno 0)"
    return f"-1 {errorcode.get(-value, f'(errno {-value})')}"
