"""What both C texts have in common: numbers, strings and comments of C."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

from explorer.engine.commands import format_command
from explorer.engine.uapi import (
    KVM_CAP_DISABLE_QUIRKS2,
    KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2,
    KVM_CAP_SPLIT_IRQCHIP,
    KVM_MEM_GUEST_MEMFD,
    KVM_MEM_LOG_DIRTY_PAGES,
    KVM_MEM_READONLY,
)
from explorer.share.text import plain, why_other

if TYPE_CHECKING:
    from collections.abc import Iterator

    from explorer.engine.types import Errno
    from explorer.live import BareOp
    from explorer.live.ioctls import Ioctl
    from explorer.share.text import Told

__all__ = ["CAPS", "comment", "errno_c", "members_c", "number_c", "runs_c", "say_before", "string_c"]

_WIDTH = 88
_FLAGS = {
    KVM_MEM_LOG_DIRTY_PAGES: "KVM_MEM_LOG_DIRTY_PAGES",
    KVM_MEM_READONLY: "KVM_MEM_READONLY",
    KVM_MEM_GUEST_MEMFD: "KVM_MEM_GUEST_MEMFD",
}
CAPS = {
    KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2: "KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2",
    KVM_CAP_DISABLE_QUIRKS2: "KVM_CAP_DISABLE_QUIRKS2",
    KVM_CAP_SPLIT_IRQCHIP: "KVM_CAP_SPLIT_IRQCHIP",
}
"""Capabilities by name."""
_DECIMAL = {"slot", "num_pages", "first_page"}


def comment(*texts: str, indent: str = "") -> Iterator[str]:
    """Iterate over the lines of a block comment; each text begins a line."""
    lines = [line for text in texts for line in textwrap.wrap(plain(text), _WIDTH - len(indent)) or [""]]
    if len(lines) == 1:
        yield f"{indent}/* {lines[0]} */"
        return
    yield f"{indent}/*"
    yield from (f"{indent} * {line}".rstrip() for line in lines)
    yield f"{indent} */"


def say_before(told: Told, op: BareOp) -> Iterator[str]:
    """Iterate over what stands before an operation: the note, and why it is left out or comes out differently."""
    texts = [told.note(op.at)] if told.note(op.at) else []
    if op.call is None:
        texts.append(f"{op.at + 1}. {format_command(op.command)}: left out, {op.left_out}")
    elif why_other(op):
        texts.append(why_other(op))
    if texts:
        yield from comment(*texts, indent="\t")


def number_c(value: int) -> str:
    """Return a number as an unsigned 64-bit constant of C where it needs one."""
    if value < 10:  # noqa: PLR2004 - one digit is the same in both
        return str(value)
    return f"{value:#x}" if value < 1 << 31 else f"{value:#x}ULL"


def members_c(call: Ioctl) -> list[str]:
    """Return the members of a call's argument as C has them: flags and capabilities by name."""
    return [_member(name, value) for name, value in call.members]


def _member(name: str, value: int) -> str:
    if name == "flags":
        return _flags(value)
    if name == "cap":
        return CAPS[value]
    return str(value) if name in _DECIMAL and value < 1 << 16 else number_c(value)


def _flags(flags: int) -> str:
    names = [name for bit, name in _FLAGS.items() if flags & bit]
    rest = flags & ~sum(_FLAGS)
    return " | ".join([*names, *([number_c(rest)] if rest else [])]) or "0"


def errno_c(errno: Errno | None) -> str:
    """Return an errno by name, 0 for success."""
    return "0" if errno is None else errno.name


def string_c(text: str) -> str:
    """Return a text as a string literal that no character of it can end."""
    escaped = plain(text).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def runs_c(runs: tuple[tuple[int, int], ...]) -> str:
    """Return runs of pages as the initialiser of an array of pairs."""
    return ", ".join(f"{{ {start}, {end} }}" for start, end in runs)
