"""QEMU's own trace: one line for each kvm_set_user_memory event.

QEMU writes the event after the ioctl has returned, with its result as a negative errno::

    kvm_set_user_memory Slot#0 flags=0x0 gpa=0x0 size=0x40000000 ua=0x7f9a3be00000 ret=0
    kvm_set_user_memory AddrSpace#0 Slot#0 flags=0x0 gpa=0x0 size=0x0 ua=0x7fade3e00000 guest_memfd=-1 ... ret=0

The first form (up to QEMU 8.1) has the address space in the high 16 bits of ``Slot#``. What stands in front
depends on options: nothing, ``THREAD@SECONDS.MICROS:``, an ISO time, or what syslog or ftrace puts there.
The text that scripts/simpletrace.py makes of a binary trace has other field names and is read too.

Models accel/kvm/trace-events and the call of it in accel/kvm/kvm-all.c: kvm_set_user_memory_region().
Not modelled: the events of other names; kvm_vm_ioctl shows the same calls without their arguments.
Read next: `strace`.
"""

from __future__ import annotations

import re
from errno import errorcode
from typing import TYPE_CHECKING

from explorer.engine.draft import built
from explorer.engine.lookup import as_id_of
from explorer.engine.types import U64_MAX
from explorer.engine.uapi import KVM_MEM_GUEST_MEMFD
from explorer.trace.records import NOT_FROM_KVM, Gap, RegionCall, Vm, shorten
from explorer.trace.source import LONGEST_LINE

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from explorer.trace.records import Record

__all__ = ["is_event_line", "is_region_line", "read_qemu"]

_EVENT = "kvm_set_user_memory"
_LINE = re.compile(
    _EVENT + r" (?:AddrSpace#(\d{1,5}) )?Slot#(\d{1,10}) flags=0x([0-9a-f]{1,8}) gpa=0x([0-9a-f]{1,16})"
    r" size=0x([0-9a-f]{1,16}) ua=0x([0-9a-f]{1,16})(?: guest_memfd=(-?\d{1,9}) guest_memfd_offset=0x([0-9a-f]{1,16}))?"
    r" ret=(-?\d{1,9})\s*$",
    re.ASCII,
)
_ANY_FORM = re.compile(rf"(?:^|[\s:])({_EVENT})(?:\s+|$)", re.ASCII)
_FIELD = re.compile(r"(\w+)[#=](-?(?:0x[0-9a-fA-F]{1,16}|\d{1,20}))(?!\w)", re.ASCII)
_OTHER_EVENT = re.compile(
    r"(?:\d+@\d+\.\d+:|\d{4}-\d\d-\d\dT\S+ |.{0,200}[\]:>] )?([a-z][a-z0-9]*(?:_[a-z0-9]+)+)(?: |$)", re.ASCII
)
_SURELY_EVENT = re.compile(r"\d+@\d+\.\d+:[a-z]\w+|(?:kvm|flatview|memory_region|ram_block|vfio)_\w+ ", re.ASCII)
_SYSLOG = re.compile(r".*\S\[(\d+)\]: *$", re.ASCII)
_NAMES = {
    "AddrSpace": "as",
    "Slot": "slot",
    "guest_phys_addr": "gpa",
    "memory_size": "size",
    "userspace_addr": "ua",
    "guest_memfd": "fd",
}
_NEEDED = ("slot", "flags", "gpa", "size", "ua", "ret")
_CUT_OFF = {1, 2}
"""EPERM and ENOENT: KVM never answers so, but a longer number that was cut off begins so."""
_U32 = (1 << 32) - 1
_U16 = (1 << 16) - 1
_MOST_VMS = 1024


def is_region_line(line: str) -> bool:
    """Return whether `line` is the event itself, whole or cut off."""
    found = _ANY_FORM.search(line, 0, LONGEST_LINE)
    return found is not None and bool(_FIELD.search(line, found.end()))


def is_event_line(line: str) -> bool:
    """Return whether `line` looks like another event of QEMU's trace."""
    return bool(_SURELY_EVENT.match(line))


def read_qemu(lines: Iterable[str]) -> Iterator[Record]:
    """Iterate over the records of a QEMU trace; no text makes it raise."""
    vms: dict[str, Vm] = {}
    for number, line in enumerate(lines, 1):
        found = _LINE.search(line, 0, LONGEST_LINE)
        if found is None:
            if line and not line.isspace():
                yield _other_line(number, line, vms)
            continue
        space, slot, flags, gpa, size, ua, fd, offset, ret = found.groups()
        yield _record(
            number,
            line,
            vms,
            line[: found.start()],
            None if space is None else int(space),
            (int(slot), int(flags, 16), int(gpa, 16), int(size, 16), int(ua, 16)),
            (-1 if fd is None else int(fd), int(offset or "0", 16)),
            int(ret),
        )


def _record(
    number: int,
    line: str,
    vms: dict[str, Vm],
    prefix: str,
    space: int | None,
    numbers: tuple[int, int, int, int, int],
    part: tuple[int, int],
    ret: int,
) -> Record:
    if prefix and prefix[-1] not in ": \t":
        return Gap(number, "the name of the event is part of another word", line)
    slot, flags, gpa, size, ua = numbers
    if slot > (_U32 if space is None else _U16) or not 0 <= (space or 0) <= _U16:
        return Gap(number, "a slot number that KVM has no room for", line)
    errno = None if ret == 0 else errorcode.get(-ret, f"errno {-ret}")
    if ret > 0 or -ret in _CUT_OFF:
        return Gap(number, f"ret={ret} is no answer of KVM to this call; the line may be cut off", line)
    if errno in NOT_FROM_KVM:
        return Gap(number, f"refused before KVM looked at it: {errno}, {NOT_FROM_KVM[errno]}", line)
    vm = _vm(vms, prefix)
    if vm is None:
        return Gap(number, f"more than {_MOST_VMS} VMs in one log", line)
    as_id, slot_id = as_id_of(slot) if space is None else (space, slot)
    fd, offset = part if part[0] >= 0 and flags & KVM_MEM_GUEST_MEMFD else (None, 0)
    fields = (number, 1, vm, as_id, slot_id, flags, gpa, size, ua, 0 if ret == 0 else -1, errno, fd, offset)
    return built(RegionCall, fields)


def _vm(vms: dict[str, Vm], prefix: str) -> Vm | None:
    # A QEMU has one VM. The number before @ is a thread and says nothing; syslog's is the process.
    process = _SYSLOG.match(prefix) if prefix.endswith((": ", ":")) and "[" in prefix else None
    key = process[1] if process else ""
    vm = vms.get(key)
    if vm is None and len(vms) < _MOST_VMS:
        vm = vms[key] = Vm(index=len(vms), born=None)
    return vm


def _other_line(number: int, line: str, vms: dict[str, Vm]) -> Record:
    if len(line) > LONGEST_LINE:
        return Gap(number, f"longer than {LONGEST_LINE:,} characters", line)
    found = _ANY_FORM.search(line)
    if found is not None:
        return _other_form(number, line, vms, line[: found.start(1)], found.end())
    event = _OTHER_EVENT.match(line)
    if event is not None:
        return Gap(number, f"another trace event: {shorten(event[1])}", line)
    return Gap(number, "binary data" if "\0" in line else "no line of QEMU's trace", line)


def _other_form(number: int, line: str, vms: dict[str, Vm], prefix: str, at: int) -> Record:
    """Read the event in whatever order and with whatever names its fields come, or say what is missing."""
    values = {_NAMES.get(name, name): int(text, 0) for name, text in _FIELD.findall(line, at) if _is_number(text)}
    missing = [name for name in _NEEDED if name not in values]
    if missing:
        return Gap(number, f"{_EVENT} without {', '.join(missing)}: the line is cut off or of an unknown form", line)
    if any(not 0 <= values[name] <= U64_MAX for name in _NEEDED[:-1]) or values["flags"] > _U32:
        return Gap(number, f"{_EVENT} with a number that does not fit its field", line)
    ret = values["ret"]
    for sign in (1 << 64, 1 << 32):  # simpletrace prints a negative number as an unsigned one
        if sign >> 1 <= ret < sign:
            ret -= sign
            break
    pid = f"x[{values['pid']}]:" if "pid" in values else prefix
    return _record(
        number,
        line,
        vms,
        pid,
        values.get("as"),
        (values["slot"], values["flags"], values["gpa"], values["size"], values["ua"]),
        (values.get("fd", -1), values.get("guest_memfd_offset", 0)),
        ret,
    )


def _is_number(text: str) -> bool:
    digits = text.lstrip("-")
    return digits.startswith("0x") or digits == "0" or not digits.startswith("0")
