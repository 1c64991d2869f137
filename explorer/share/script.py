"""A run as one Python file that needs nothing but Python: it makes the ioctls itself and compares.

What no bare VM can be asked stands in it as a comment, and is left out of the model's answers too.
"""

from __future__ import annotations

from importlib import resources
from typing import TYPE_CHECKING

from explorer.engine.commands import format_command
from explorer.live.bare import bare
from explorer.live.ioctls import REQUESTS
from explorer.share.text import header, largest_slot, why_other

if TYPE_CHECKING:
    from collections.abc import Iterator

    from explorer.live import BareOp
    from explorer.share.text import Told

__all__ = ["write"]


def write(told: Told) -> Iterator[str]:
    """Iterate over the lines."""
    template = (resources.files("explorer.share") / "templates" / "script.py.txt").read_text(encoding="utf-8")
    ops = bare(told.run)
    head, tail = template.split("@STEPS@\n")
    yield "#!/usr/bin/env python3"
    yield from (f"# {line}" for line in header(told))
    yield (
        head.replace("@VM_TYPE@", str(told.run.start.config.vm_type))
        .replace("@LARGEST@", hex(largest_slot(ops)))
        .rstrip("\n")
    )
    for op in ops:
        yield from _step(told, op)
    yield tail.rstrip("\n")


def _step(told: Told, op: BareOp) -> Iterator[str]:
    note = told.note(op.at)
    if note:
        yield f"    # {note}"
    text = format_command(op.command)
    if op.call is None:
        yield f"    # {op.at + 1}. {text}: left out, {op.left_out}"
        return
    other = why_other(op)
    if other:
        yield f"    # {other}"
    call = op.call
    name = call.name.removeprefix("KVM_").lower()
    arguments = [_number(value) for member, value in call.members if member != "dirty_bitmap"]
    if not REQUESTS[call.name].struct:
        arguments = [hex(call.value)]
    elif call.name == "KVM_CREATE_GUEST_MEMFD":
        arguments.append(str(call.fd))
    expected = None if op.errno is None else op.errno.name
    dirty = "" if op.dirty is None else f", dirty={list(op.dirty)!r}"
    number = op.at + 1
    yield f"    vm.step({number}, {text!r}, {expected!r}, vm.{name}, {', '.join(arguments)}{dirty})"


def _number(value: int) -> str:
    return hex(value) if value > 9 else str(value)  # noqa: PLR2004 - one digit is the same in both
