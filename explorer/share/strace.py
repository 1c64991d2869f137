"""A run as strace would have logged it: the importer of this project reads the region calls back.

What no ioctl does, a tracker or a guest, is a line that begins with ``#``; the importer counts such lines as not used.
A bitmap is written as strace writes sets: the pages that are set, ``~[]`` for all.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from explorer.engine.capabilities import CAPABILITIES, kvm_vm_ioctl_check_extension
from explorer.engine.commands import Advance, Begin, format_command
from explorer.engine.types import Errno
from explorer.engine.uapi import (
    KVM_MEM_GUEST_MEMFD,
    KVM_MEM_LOG_DIRTY_PAGES,
    KVM_MEM_READONLY,
)
from explorer.live.bare import prologue
from explorer.live.ioctls import ioctl_of
from explorer.share.ioctl_c import CAPS
from explorer.share.text import dirty_of, header

if TYPE_CHECKING:
    from collections.abc import Iterator

    from explorer.live.ioctls import Ioctl
    from explorer.share.text import Told

__all__ = ["write"]

_KVM_FD, _VM_FD, _VCPU_FD = 3, 4, 100
_MAIN, _OTHER = "1001  ", "1002  "
"""Threads: the second makes the calls that stop between two phases."""
_FLAGS = {
    KVM_MEM_LOG_DIRTY_PAGES: "KVM_MEM_LOG_DIRTY_PAGES",
    KVM_MEM_READONLY: "KVM_MEM_READONLY",
    KVM_MEM_GUEST_MEMFD: "KVM_MEM_GUEST_MEMFD",
}
_HEX = {"guest_phys_addr", "userspace_addr", "guest_memfd_offset"}


def write(told: Told) -> Iterator[str]:
    """Iterate over the lines."""
    run = told.run
    pid, other = (_MAIN, _OTHER) if any(isinstance(command, Begin) for command in run.commands) else ("", "")
    yield from (f"# {line}" for line in header(told))
    yield f'{pid}openat(AT_FDCWD, "/dev/kvm", O_RDWR|O_CLOEXEC) = {_KVM_FD}'
    yield f"{pid}ioctl({_KVM_FD}, KVM_CREATE_VM, {run.start.config.vm_type}) = {_VM_FD}"
    for name in ("NR_MEMSLOTS", "MULTI_ADDRESS_SPACE"):
        answer = kvm_vm_ioctl_check_extension(run.start, CAPABILITIES[name])
        if not isinstance(answer, Errno):
            yield f"{pid}ioctl({_VM_FD}, KVM_CHECK_EXTENSION, KVM_CAP_{name}) = {answer}"
    for command in prologue(run):
        call = ioctl_of(command)
        assert not isinstance(call, str), "what was asked before the run is an ioctl"
        yield f"{pid}{_call(call)}) = 0"
    vcpus = 0
    for index, (command, outcome) in enumerate(zip(run.commands, run.outcomes, strict=True)):
        call = ioctl_of(command)
        if isinstance(command, Advance):
            if run.kvm_before(index).pending is not None and run.kvm_before(index + 1).pending is None:
                yield f"{other}<... ioctl resumed>) = {_result(outcome.errno)}"
        elif isinstance(call, str):
            end = "" if outcome.errno is None else f" = {outcome.errno.name}"
            yield f"# {format_command(command)}{end}  ({call})"
        elif isinstance(command, Begin):
            yield f"{other}{_call(call)} <unfinished ...>"
        else:
            dirty = dirty_of(run, index) if call.name == "KVM_GET_DIRTY_LOG" and outcome.errno is None else None
            done = "0"
            if call.name == "KVM_CREATE_GUEST_MEMFD":
                done = str(call.fd)
            elif call.name == "KVM_CREATE_VCPU" and outcome.errno is None:
                done, vcpus = str(_VCPU_FD + vcpus), vcpus + 1
            yield f"{pid}{_call(call, dirty)}) = {_result(outcome.errno, done)}"


def _result(errno: Errno | None, done: str = "0") -> str:
    return done if errno is None else f"-1 {errno.name} ({os.strerror(errno)})"


def _call(call: Ioctl, dirty: tuple[tuple[int, int], ...] | None = None) -> str:
    """Return a call up to its closing bracket."""
    start = f"ioctl({_VM_FD}, {call.name}"
    if call.name == "KVM_CREATE_IRQCHIP":
        return start
    if call.name == "KVM_SET_IDENTITY_MAP_ADDR":
        return f"{start}, [{dict(call.members)['addr']:#x}]"
    if not call.members:
        return f"{start}, {call.value:#x}"
    return f"{start}, {{{', '.join(_member(call, name, value, dirty) for name, value in call.members)}}}"


def _member(call: Ioctl, name: str, value: int, dirty: tuple[tuple[int, int], ...] | None) -> str:
    match name:
        case "flags" if "REGION" in call.name:
            text = _flags(value)
        case "cap":
            text = f"{CAPS[value]}, flags=0"
        case "args[0]":
            return f"args=[{value:#x}, 0, 0, 0]"
        case "guest_memfd":
            text = str(value if value < 1 << 31 else value - (1 << 32))
        case "dirty_bitmap" if call.name == "KVM_CLEAR_DIRTY_LOG":
            text = "~[]"
        case "dirty_bitmap":
            pages = (str(first) if end == first + 1 else f"{first}-{end - 1}" for first, end in dirty or ())
            text = "NULL" if dirty is None else f"[{' '.join(pages)}]"
        case _:
            text = hex(value) if name in _HEX and value else str(value)
    return f"{name}={text}"


def _flags(flags: int) -> str:
    names = [name for bit, name in _FLAGS.items() if flags & bit]
    rest = flags & ~sum(_FLAGS)
    return "|".join([*names, *([hex(rest)] if rest else [])]) or "0"
