"""What each thread of an strace log is in the middle of, and what its calls mean.

Rule: a call acts when it returns, but for close, whose descriptor is free for others as soon as it is called.

Read next: `strace`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from explorer.engine.lookup import as_id_of
from explorer.engine.uapi import KVM_MEM_GUEST_MEMFD
from explorer.trace.records import NOT_FROM_KVM, Context, Gap, Record, RegionCall, shorten
from explorer.trace.syscalls import (
    Call,
    Ioctl,
    Region,
    Result,
    parse_fds,
    parse_ioctl,
    parse_region,
    parse_result,
    shares_descriptors,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from explorer.trace.descriptors import Descriptors, Pid
    from explorer.trace.records import Vm

__all__ = ["Threads", "reason_unused"]

_REGION = {"KVM_SET_USER_MEMORY_REGION", "KVM_SET_USER_MEMORY_REGION2"}
_FORKS = {"fork", "vfork", "clone", "clone2", "clone3"}
_COPIES = {"dup": 1, "dup2": 2, "dup3": 2}
_FOLLOWED = {"ioctl", "close", "close_range", "fcntl", "fcntl64", "execve", "execveat", *_FORKS, *_COPIES}
_MULTI_ADDRESS_SPACE = ("KVM_CAP_MULTI_ADDRESS_SPACE", "0x76", "118")
_FURTHER_COPY = ("F_DUPFD", "0x406", "1030")
_MOST_HALVES = 1 << 14
_NEVER_RETURNED = "the call does not return in this log"


class _Half(NamedTuple):
    """The first half of a call."""

    at: tuple[int, ...]
    name: str
    args: str
    line: str
    ioctl: Ioctl | None = None
    vm: Vm | None = None
    """The VM of a region call, looked up when it began."""
    second: Record | None = None
    """What the second half is, if the first one has said all."""


class Threads:
    """The threads of one log."""

    def __init__(self, descriptors: Descriptors) -> None:
        """Start with no call in progress."""
        self.descriptors = descriptors
        self.halves: dict[Pid, _Half] = {}

    # -- halves ------------------------------------------------------------------------------------

    def begin(self, pid: Pid, at: tuple[int, ...], call: Call, line: str) -> Iterator[Record]:
        """Take the first half of a call: another thread's line came before its end."""
        yield from self.give_up(pid)
        if len(self.halves) >= _MOST_HALVES:
            yield from self.give_up(next(iter(self.halves)))
        half = _Half(at, call.name, call.args, line)
        ioctl = parse_ioctl(call.args) if call.name == "ioctl" else None
        if call.name == "close":
            first = self._close(pid, at, call.args, line)
            yield from first
            second = Context(0, 1, "close") if isinstance(first[0], Context) else Gap(0, first[0].reason)
            self.halves[pid] = half._replace(second=second)
        elif call.name not in _FOLLOWED or (ioctl is not None and not _is_followed(ioctl)):
            reason = (
                _other_ioctl(ioctl.command) if ioctl is not None else f"another system call: {shorten(call.name, 30)}"
            )
            yield from _gaps(at, reason, line)
            self.halves[pid] = half._replace(args="", line="", second=Gap(0, reason))
        else:
            if call.name in _FORKS:
                self.descriptors.forking(pid, shares=shares_descriptors(call.name, call.args))
            vm = None
            if ioctl is not None and ioctl.command in _REGION and _may_be_vm(ioctl):
                vm = self.descriptors.vm_of(pid, ioctl.fd)
            self.halves[pid] = half._replace(ioctl=ioctl, vm=vm)

    def resume(self, pid: Pid, at: tuple[int, ...], name: str, rest: str, line: str) -> Iterator[Record]:
        """Take the second half of a call."""
        pid = self._whose(pid, name)
        half = self.halves.get(pid)
        if half is None or half.name != name:
            yield from _gaps(at, f"the end of a call whose beginning is not in the log: {shorten(name, 30)}", line)
            return
        del self.halves[pid]
        if half.second is not None:
            yield from (half.second._replace(line=number) for number in at)
            return
        lines = (*half.at, *at)
        equals = rest.rfind(" = ")
        args, result = (rest[:equals].rstrip(), rest[equals + 3 :]) if equals >= 0 else (rest, None)
        if result is None:
            yield from _gaps(lines, "the line is cut off", line)
            return
        call = Call(half.name, half.args + args.removesuffix(")").rstrip(), result, unfinished=False)
        yield from self._finish_call(pid, lines, call, half)

    def _whose(self, pid: Pid, name: str) -> Pid:
        """Return the thread that goes on: a terminal shows its number only while there are several."""
        if pid in self.halves and self.halves[pid].name == name:
            return pid
        if pid is None:
            same = [other for other, half in self.halves.items() if half.name == name]
            return same[0] if len(same) == 1 else None
        if None not in self.halves or self.halves[None].name != name:
            return pid
        if not self.descriptors.knows(pid):
            self.halves[pid] = self.halves.pop(None)
            self.descriptors.rename(None, pid)
            return pid
        return None

    def complete(self, pid: Pid, at: tuple[int, ...], call: Call, line: str) -> Iterator[Record]:
        """Take a call whose line is whole."""
        if pid in self.halves:
            yield from self.give_up(pid)
        yield from self._finish_call(pid, at, call, _Half(at, call.name, call.args, line))

    def end(self, pid: Pid) -> Iterator[Record]:
        """Let a thread go that has ended."""
        yield from self.give_up(pid)
        self.descriptors.exited(pid)

    def supersede(self, pid: Pid, old: int) -> Iterator[Record]:
        """Note that thread `old` has started a program and is the main thread `pid` now."""
        if old != pid:
            yield from self.give_up(pid)
        half = self.halves.pop(old, None)
        if half is not None:
            self.halves[pid] = half

    def in_region_call(self) -> bool:
        """Return whether any thread is in the middle of a region call whose arguments are shown."""
        return any(
            half.ioctl is not None and half.ioctl.command in _REGION and half.ioctl.argument.startswith("{")
            for half in self.halves.values()
        )

    def finish(self) -> Iterator[Record]:
        """Say, at the end of the log, what became of the calls that are still in progress."""
        for pid in list(self.halves):
            yield from self.give_up(pid)

    def give_up(self, pid: Pid) -> Iterator[Record]:
        """Say what became of a call that the log does not show returning."""
        half = self.halves.pop(pid, None)
        if half is None or half.second is not None:
            return
        if half.ioctl is not None and half.ioctl.command in _REGION:
            unknown = Result(None, None, injected=False, restarts=False)
            yield from self._region(pid, half.at, half.ioctl, unknown, half)
        else:
            yield from _gaps(half.at, _NEVER_RETURNED, half.line)

    # -- what calls mean ---------------------------------------------------------------------------

    def _finish_call(self, pid: Pid, at: tuple[int, ...], call: Call, half: _Half) -> Iterator[Record]:
        name, line = call.name, half.line
        if name not in _FOLLOWED:
            yield from _gaps(at, f"another system call: {shorten(name, 30)}", line)
            return
        result = parse_result(call.result or "")
        if result is None:
            yield from _gaps(at, "the line is cut off", line)
            return
        if name == "ioctl":
            ioctl = half.ioctl or parse_ioctl(call.args)
            if ioctl is None:
                yield from _gaps(at, "an ioctl whose arguments are not understood", line)
            elif ioctl.command in _REGION:
                yield from self._region(pid, at, ioctl, result, half)
            else:
                yield from self._other_ioctl(pid, at, ioctl, result, line)
            return
        if name in _FORKS:
            child = result.value if result.value is not None and result.value > 0 else None
            self.descriptors.forked(pid, child, shares=shares_descriptors(name, call.args))
            yield Context(at[0], len(at), name)
            return
        if result.value is None or result.value < 0 or result.injected:
            yield from _gaps(at, f"{name} that failed", line)
        elif name == "close":
            yield from self._close(pid, at, call.args, line)
        elif self._changes_descriptors(pid, at[-1], call, result.value):
            yield Context(at[0], len(at), name)
        else:
            yield from _gaps(at, f"{name}, but not of a VM's descriptor", line)

    def _changes_descriptors(self, pid: Pid, line: int, call: Call, value: int) -> bool:
        name, args = call.name, call.args
        if name.startswith("execve"):
            return self.descriptors.replaced(pid, line)
        fds = parse_fds(args, 2)
        if name == "close_range":
            plain = args.rstrip().endswith((", 0", "=0"))
            return plain and len(fds) > 1 and self.descriptors.closed(pid, fds[0], fds[1] & 0xFFFF_FFFF, line)
        if not fds:
            return False
        if name.startswith("fcntl"):
            what = args.partition(", ")[2]
            what = what.removeprefix("cmd=").removeprefix("op=")
            if not (what.startswith(_FURTHER_COPY) or what.startswith(("0, ", "0 /* F_DUPFD */"))):
                return False
            closes = what.startswith(("F_DUPFD_CLOEXEC", *_FURTHER_COPY[1:]))
        else:
            closes = name == "dup3" and args.rstrip().endswith(("O_CLOEXEC", "0x80000", "O_CLOEXEC */"))
        return self.descriptors.copied(pid, fds[0], value, line, kept_by_exec=not closes)

    def _close(self, pid: Pid, at: tuple[int, ...], args: str, line: str) -> list[Context | Gap]:
        fds = parse_fds(args, 1)
        if fds and self.descriptors.closed(pid, fds[0], fds[0], at[-1]):
            return [Context(at[0], len(at), "close")]
        return [Gap(number, "close, but not of a VM's descriptor", line) for number in at]

    def _other_ioctl(self, pid: Pid, at: tuple[int, ...], ioctl: Ioctl, result: Result, line: str) -> Iterator[Record]:
        if ioctl.command == "KVM_CREATE_VM":
            if result.value is None or result.value < 0 or result.injected:
                yield from _gaps(at, "KVM_CREATE_VM that failed", line)
            elif self.descriptors.made(pid, ioctl.fd, result.value, at[0]) is None:
                yield from _gaps(at, "more VMs than are followed", line)
            else:
                yield Context(at[0], len(at), ioctl.command)
        elif _is_followed(ioctl):
            yield Context(at[0], len(at), ioctl.command)
        else:
            yield from _gaps(at, _other_ioctl(ioctl.command), line)

    def _region(self, pid: Pid, at: tuple[int, ...], ioctl: Ioctl, result: Result, half: _Half) -> Iterator[Record]:
        """Make a region call an operation, or say why it is none."""
        reason = _why_not_kvm(ioctl, result)
        vm = None
        if reason is None:
            vm = half.vm or self.descriptors.vm_of(pid, ioctl.fd)
            if vm is None:
                reason = f"descriptor {ioctl.fd} is no VM"
        region = parse_region(ioctl.argument)
        if reason is None and isinstance(region, str):
            reason = region
        on_file = isinstance(region, Region) and ioctl.command.endswith("2") and region.flags & KVM_MEM_GUEST_MEMFD
        if reason is None and on_file and isinstance(region, Region) and region.guest_memfd is None:
            reason = "a slot on guest_memfd whose descriptor is not shown"
        if reason is not None or vm is None or isinstance(region, str):
            if vm is not None and result.errno is None and vm.doubt is None:
                vm.doubt = f"line {at[0]} changes its slots and was not used ({reason})"
            yield from _gaps(at, reason or "", half.line)
            return
        as_id, slot = as_id_of(region.slot)
        ret = None if result.value is None else 0 if result.errno is None else -1
        call = RegionCall(
            at[0], len(at), vm, as_id, slot, region.flags, region.gpa, region.size, region.hva, ret, result.errno
        )
        if on_file:
            call = call._replace(guest_memfd=region.guest_memfd, guest_memfd_offset=region.guest_memfd_offset)
        yield call


def _is_followed(ioctl: Ioctl) -> bool:
    if ioctl.command == "KVM_CHECK_EXTENSION":
        return ioctl.argument.startswith(_MULTI_ADDRESS_SPACE)
    return ioctl.command in _REGION or ioctl.command == "KVM_CREATE_VM"


def _may_be_vm(ioctl: Ioctl) -> bool:
    return ioctl.path is None or ioctl.path.startswith("anon_inode:kvm-vm")


def _why_not_kvm(ioctl: Ioctl, result: Result) -> str | None:
    """Return why a region call never reached the VM's code, or None if it may have."""
    if result.injected:
        return "strace made the result up (INJECTED); the kernel never saw the call"
    if result.restarts:
        return "interrupted; the call comes again"
    if result.errno in NOT_FROM_KVM:
        return f"refused before KVM looked at it: {result.errno}, {NOT_FROM_KVM[result.errno]}"
    if not _may_be_vm(ioctl):
        return f"descriptor {ioctl.fd} is {shorten(ioctl.path or '', 40)}, not a VM"
    return None


def reason_unused(command: str) -> str | None:
    """Return why an ioctl is not used, or None if it may be."""
    if command in _REGION or command in ("KVM_CREATE_VM", "KVM_CHECK_EXTENSION"):
        return None
    return _other_ioctl(command)


def _other_ioctl(command: str) -> str:
    if command in ("KVM_GET_DIRTY_LOG", "KVM_CLEAR_DIRTY_LOG"):
        return "dirty-log call, no change of slots; its arguments are not shown, only where they are in memory"
    kind = "another KVM call" if command.startswith("KVM_") else "another ioctl"
    return f"{kind}: {shorten(command, 40)}"


def _gaps(at: tuple[int, ...], reason: str, line: str) -> Iterator[Record]:
    return (Gap(number, reason, line) for number in at)
