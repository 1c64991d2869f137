"""The text of one system call as strace writes it, taken apart. No text makes anything here raise.

strace has many ways to write the same call: constants by name, by number or both (``-X``), the descriptor with
or without what it stands for (``-y``), arguments with their names (``-N``), everything raw (``-e raw``).

Read next: `descriptors`, `strace`.
"""

from __future__ import annotations

import re
from errno import errorcode
from functools import lru_cache
from typing import NamedTuple

from explorer.engine.types import U64_MAX
from explorer.engine.uapi import KVM_MEM_GUEST_MEMFD, KVM_MEM_LOG_DIRTY_PAGES, KVM_MEM_READONLY
from explorer.trace.records import shorten

__all__ = [
    "ERRNOS",
    "Call",
    "Ioctl",
    "Region",
    "Result",
    "flags_of",
    "number_of",
    "parse_fds",
    "parse_ioctl",
    "parse_region",
    "parse_result",
    "shares_descriptors",
    "split_call",
]

ERRNOS = frozenset(errorcode.values())
"""Every name an errno has; anything else is a name that was cut off."""

_NAMES = {
    0xAE01: "KVM_CREATE_VM",
    0xAE03: "KVM_CHECK_EXTENSION",
    0x4020AE46: "KVM_SET_USER_MEMORY_REGION",
    0x40A0AE49: "KVM_SET_USER_MEMORY_REGION2",
    0x4010AE42: "KVM_GET_DIRTY_LOG",
    0xC018AEC0: "KVM_CLEAR_DIRTY_LOG",
    0x4068AEA3: "KVM_ENABLE_CAP",
    0xC040AED4: "KVM_CREATE_GUEST_MEMFD",
    0xAE41: "KVM_CREATE_VCPU",
    0xAE47: "KVM_SET_TSS_ADDR",
    0xAE60: "KVM_CREATE_IRQCHIP",
    0xAE80: "KVM_RUN",
}
_DIRECTIONS = {"_IOC_NONE": 0, "_IOC_WRITE": 1, "_IOC_READ": 2}
_FLAGS = {
    "KVM_MEM_LOG_DIRTY_PAGES": KVM_MEM_LOG_DIRTY_PAGES,
    "KVM_MEM_READONLY": KVM_MEM_READONLY,
    "KVM_MEM_GUEST_MEMFD": KVM_MEM_GUEST_MEMFD,
}
_IOC_PARTS = 4
"""Direction, type, number and size of the argument."""
_U32 = (1 << 32) - 1
_CLONE_FILES = 0x400

_IOCTL = re.compile(
    r"(?:\w+=)?(0x[0-9a-f]{1,16}|-?\d{1,20})(?:<(.*?)>)?, (?:\w+=)?(_IOC\([^)]*\)|\w+)(?: or \w+)*(?: /\*.*?\*/)?"
    r"(?:, (?:\w+=)?(.*))?$",
    re.ASCII,
)
_FD = re.compile(r"(?:\w+=)?(0x[0-9a-f]{1,16}|-?\d{1,20})(?:<.*?>)?(?=, |$)", re.ASCII)
_FIELD = re.compile(r"(\w+)=([^,{}]*)", re.ASCII)
_DESCRIPTOR = re.compile(r"(-?\d{1,10})(?:<.*)?$", re.ASCII)
_COMMENT = re.compile(r"\s*/\*.*?\*/", re.ASCII)
_NUMBER = re.compile(r"0x[0-9a-f]{1,20}|\d{1,20}", re.ASCII)
_RESULT = re.compile(
    r"(\?|-?\d{1,20}|0x[0-9a-f]{1,16})(?:<.*?>+)?(?:\s+(E[A-Z0-9_]+|\(errno \d+\)))?(?![\w.])", re.ASCII
)
_ELSEWHERE = re.compile(r"/\* (\d{1,20}) in strace's PID NS \*/", re.ASCII)
_CLONE_FLAGS = re.compile(r"flags=([^,}]*)", re.ASCII)
_CALL = re.compile(r"([a-z_][a-z0-9_]*)\(", re.ASCII)
_UNFINISHED = re.compile(r"\s*<(?:unfinished|detached) \.\.\.>\s*$", re.ASCII)


class Call(NamedTuple):
    """A system call, or as much of it as one line shows."""

    name: str
    args: str
    """Text between the brackets; up to the cut if the call is unfinished."""
    result: str | None
    """Text after the equals sign; None if the line does not have it."""
    unfinished: bool


class Result(NamedTuple):
    """What a call returned."""

    value: int | None
    """None for ``?``."""
    errno: str | None
    injected: bool
    """Whether strace made the result up and the kernel never saw the call."""
    restarts: bool
    """Whether the call was interrupted and comes again."""


class Ioctl(NamedTuple):
    """The arguments of an ioctl."""

    fd: int
    path: str | None
    """What strace says the descriptor is, or None."""
    command: str
    """Name if known, else the number."""
    argument: str


class Region(NamedTuple):
    """The arguments of a region call, as numbers."""

    slot: int
    """With the address space in the high 16 bits."""
    flags: int
    gpa: int
    size: int
    hva: int
    guest_memfd: int | None = None
    """Descriptor, if the call shows one."""
    guest_memfd_offset: int = 0


def split_call(text: str) -> Call | None:
    """Return the call that `text` begins with, or None if it begins with something else."""
    found = _CALL.match(text)
    if found is None:
        return None
    name, start = found[1], found.end()
    cut = _UNFINISHED.search(text, start)
    if cut is not None:
        return Call(name, text[start : cut.start()], None, unfinished=True)
    equals = text.rfind(" = ", start)
    head = text[start:equals].rstrip() if equals >= 0 else ""
    if not head.endswith(")"):
        return Call(name, text[start:], None, unfinished=False)
    # A thread that dies within a call leaves both marks: <unfinished ...>) = ?
    return Call(name, _UNFINISHED.sub("", head[:-1]), text[equals + 3 :], unfinished=False)


def parse_result(text: str) -> Result | None:
    """Return what stands after the equals sign, or None if it is cut off."""
    found = _RESULT.match(text)
    if found is None:
        return None
    value, errno = found[1], found[2]
    if value == "?":
        return Result(None, None, injected=False, restarts=bool(errno))
    number = int(value, 16) if value.startswith("0x") else int(value)
    if errno is not None and errno not in ERRNOS and not errno.startswith("("):
        return None
    if number == -1 and errno is None:
        return None
    elsewhere = _ELSEWHERE.search(text)
    return Result(
        int(elsewhere[1]) if elsewhere and number >= 0 else number,
        errno.strip("()") if errno else None,
        injected="(INJECTED" in text,
        restarts=False,
    )


def parse_ioctl(args: str) -> Ioctl | None:
    """Return the arguments of an ioctl, or None if they are cut off."""
    found = _IOCTL.match(args)
    if found is None:
        return None
    fd, path, command, argument = found.groups()
    return Ioctl(int(fd, 16) if fd.startswith("0x") else int(fd), path, _command(command), argument or "")


def _command(text: str) -> str:
    """Return the name of an ioctl command that is written by name, number or parts."""
    number = number_of(text)
    if text.startswith("_IOC("):
        parts = [part.strip() for part in text[5:-1].split(",")]
        direction = sum({_DIRECTIONS.get(name, 0) for name in parts[0].split("|")})
        rest = [part for part in map(number_of, parts[1:]) if part is not None]
        if len(parts) == len(rest) + 1 == _IOC_PARTS:
            kind, nr, size = rest
            number = direction << 30 | size << 16 | kind << 8 | nr
    return text if number is None else _NAMES.get(number, hex(number))


def parse_region(argument: str) -> Region | str:
    """Return the numbers of a region call, or the reason why they cannot be had."""
    if not argument.startswith("{"):
        return "arguments not shown, only where they are in memory"
    if "}" not in argument:
        return "the line is cut off in the middle of the arguments"
    fields = dict(_FIELD.findall(argument))
    flags = flags_of(fields.get("flags", ""))
    if flags is None:
        return f"flags that are not understood: {shorten(fields.get('flags', ''), 40)}"
    values = [number_of(fields.get(name, "")) for name in ("slot", "guest_phys_addr", "memory_size", "userspace_addr")]
    if any(value is None for value in values):
        return "arguments that are not understood"
    slot, gpa, size, hva = (value or 0 for value in values)
    if slot > _U32 or flags > _U32:
        return "a number that does not fit its field"
    fd = _DESCRIPTOR.match(fields.get("guest_memfd", ""))
    offset = number_of(fields.get("guest_memfd_offset", ""))
    return Region(slot, flags, gpa, size, hva, None if fd is None else int(fd[1]), offset or 0)


@lru_cache(maxsize=1024)
def flags_of(text: str) -> int | None:
    """Return slot flags written as names, numbers or both, such as ``KVM_MEM_READONLY|0x8``."""
    flags = 0
    for part in _COMMENT.sub("", text).split("|"):
        bit = _FLAGS.get(part.strip())
        bit = number_of(part) if bit is None else bit
        if bit is None:
            return None
        flags |= bit
    return flags


def number_of(text: str) -> int | None:
    """Return an unsigned 64-bit number written in hex with 0x or in decimal, or None."""
    text = _COMMENT.sub("", text).strip()
    if not _NUMBER.fullmatch(text):
        return None
    number = int(text, 16) if text.startswith("0x") else int(text)
    return number if number <= U64_MAX else None


def parse_fds(args: str, most: int) -> list[int]:
    """Return up to `most` numbers that the arguments begin with, such as the descriptors of dup2."""
    fds: list[int] = []
    at = 0
    while len(fds) < most and (found := _FD.match(args, at)) is not None:
        fds.append(int(found[1], 16) if found[1].startswith("0x") else int(found[1]))
        at = found.end() + 2
    return fds


def shares_descriptors(name: str, args: str) -> bool:
    """Return whether a new thread shares the descriptor table (CLONE_FILES) instead of getting a copy."""
    if name in ("fork", "vfork"):
        return False
    found = _CLONE_FLAGS.search(args)
    if found is None:  # raw arguments: nearly every clone is a thread
        return True
    number = number_of(found[1])
    return bool(number & _CLONE_FILES) if number is not None else "CLONE_FILES" in found[1]
