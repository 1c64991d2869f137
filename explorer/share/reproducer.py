"""A run as one C file: the ioctls, the model's answer beside each, and a line for every operation.

Only the parts that a run needs are in the file, so that it compiles without a warning.
"""

from __future__ import annotations

from importlib import resources
from typing import TYPE_CHECKING

from explorer.engine.commands import format_command
from explorer.engine.types import Errno
from explorer.live.bare import bare
from explorer.share.ioctl_c import comment, errno_c, members_c, number_c, runs_c, say_before, string_c
from explorer.share.text import header, largest_slot

if TYPE_CHECKING:
    from collections.abc import Iterator

    from explorer.live import BareOp
    from explorer.share.text import Told

__all__ = ["write"]

_PART = "/* @"
_PARTS = {
    "KVM_SET_USER_MEMORY_REGION": ("reserve", "set_region"),
    "KVM_SET_USER_MEMORY_REGION2": ("reserve", "files", "region2", "set_region2"),
    "KVM_CREATE_GUEST_MEMFD": ("files", "region2", "create_guest_memfd"),
    "KVM_GET_DIRTY_LOG": ("bitmap", "get_dirty_log"),
    "KVM_CLEAR_DIRTY_LOG": ("bitmap", "clear_dirty_log"),
    "KVM_ENABLE_CAP": ("enable_cap",),
    "KVM_SET_TSS_ADDR": ("with_number",),
    "KVM_SET_IDENTITY_MAP_ADDR": ("set_identity_map_addr",),
    "KVM_CREATE_IRQCHIP": ("with_number",),
    "KVM_CREATE_VCPU": ("with_number",),
}
"""Which parts of the template a call needs."""


def write(told: Told) -> Iterator[str]:
    """Iterate over the lines."""
    ops = bare(told.run)
    calls = [op.call.name for op in ops if op.call is not None]
    needed = {part for name in calls for part in _PARTS[name]}
    yield from comment(
        *header(told),
        "",
        "Makes these calls on /dev/kvm, prints a line for each, and compares with the model.",
        "A VM of its own, no guest; memory behind slots is reserved, never touched.",
        "Build: gcc -Wall -Wextra -Werror -o reproducer THIS_FILE",
        "Exit status: 0 every answer is the model's, 1 one is not, 2 no device that may be opened.",
    )
    yield from _parts(needed)
    yield from _main(told, ops)


def _parts(needed: set[str]) -> Iterator[str]:
    """Iterate over the parts of the template that a run needs; the first is needed by all."""
    text = (resources.files("explorer.share") / "templates" / "reproducer.c.txt").read_text(encoding="utf-8")
    used = True
    for line in text.splitlines():
        if line.startswith(_PART):
            used = line.removeprefix(_PART).removesuffix(" */") in {"all", *needed}
        elif used:
            yield line.replace("@ERRNOS@", " ".join(f"E({errno.name})" for errno in Errno))


def _main(told: Told, ops: tuple[BareOp, ...]) -> Iterator[str]:
    yield "int main(void)"
    yield "{"
    yield f"\topen_vm({told.run.start.config.vm_type}, {number_c(largest_slot(ops) // 4096)});"
    for op in ops:
        yield ""
        yield from say_before(told, op)
        if op.call is not None:
            yield from _step(op)
    yield ""
    yield "\treturn finish();"
    yield "}"


def _step(op: BareOp) -> Iterator[str]:
    call = op.call
    assert call is not None, "what is left out is no step"
    end = f"{errno_c(op.errno)}, {op.at + 1}, {string_c(format_command(op.command))});"
    values = dict(call.members)
    numbers = members_c(call)
    match call.name:
        case "KVM_SET_USER_MEMORY_REGION" | "KVM_SET_USER_MEMORY_REGION2":
            start = f"set_region{'2' if call.name.endswith('2') else ''}({', '.join(numbers)},"
        case "KVM_CREATE_GUEST_MEMFD":
            start = f"create_guest_memfd({call.fd}, {number_c(values['size'])}, {number_c(values['flags'])},"
        case "KVM_GET_DIRTY_LOG":
            runs = op.dirty or ()
            name = "NULL, 0"
            if runs:
                name = f"dirty_{op.at + 1}, {len(runs)}"
                yield f"\tstatic const uint64_t dirty_{op.at + 1}[][2] = {{ {runs_c(runs)} }};"
            start = f"get_dirty_log({numbers[0]}, {name},"
        case "KVM_CLEAR_DIRTY_LOG":
            start = f"clear_dirty_log({', '.join(numbers[:3])},"
        case "KVM_ENABLE_CAP":
            start = f"enable_cap({', '.join(numbers)},"
        case "KVM_SET_IDENTITY_MAP_ADDR":
            start = f"set_identity_map_addr({numbers[0]},"
        case _:
            start = f"with_number({call.name}, {number_c(call.value)},"
    yield f"\t{start}"
    yield f"\t\t{end}"
