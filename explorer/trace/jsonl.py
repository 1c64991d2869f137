"""The project's own format: one JSON object a line, a head first. ``assets/docs/json-logs.md`` describes it.

Two things come so: calls, as ``explorer replay --json`` prints them or as commands in the one grammar, and a
snapshot of a live VM's slots, as a debugger reads them out of a kernel::

    {"memslot-explorer": "calls", "version": 1, "profile": "v6_12", "config": {"smm": false}}
    {"do": "set_region slot=0 gpa=0x0 size=0x80000000 hva=0x7f0000000000", "errno": null}
    {"do": "get_dirty_log slot=0", "errno": "ENOENT"}

    {"memslot-explorer": "snapshot", "version": 1, "kernel": "6.12.9"}
    {"slot": 0, "base_gfn": 0, "npages": 160, "userspace_addr": 140451967401984, "flags": 0}

Not modelled: a snapshot's generations and its counts of tracked pages, which no call restores. Read next: `replay`.
"""

from __future__ import annotations

import json
from dataclasses import asdict, fields
from errno import errorcode
from typing import TYPE_CHECKING, Any, NamedTuple

from explorer.engine.commands import Advance, Begin, SetMemoryRegion, SetMemoryRegion2, format_command, parse_command
from explorer.engine.config import VmConfig
from explorer.engine.profile import PROFILES
from explorer.engine.types import PAGE_SHIFT, U64_MAX, ExplorerError
from explorer.engine.uapi import KVM_MEM_GUEST_MEMFD, KVM_MEMSLOT_INVALID, KVM_X86_SW_PROTECTED_VM
from explorer.trace.records import UNNAMED, Context, Gap, OtherCall, RegionCall, TraceError, Vm, shorten
from explorer.trace.source import LONGEST_LINE

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from explorer.engine.commands import Command
    from explorer.engine.state import Kvm
    from explorer.trace.records import Record
    from explorer.trace.source import Source

__all__ = ["VERSION", "Head", "calls_as_json", "is_json_line", "read_head", "read_json", "snapshot_as_json"]

VERSION = 1
_KEY = "memslot-explorer"
_U32 = (1 << 32) - 1
_U16 = (1 << 16) - 1
_MOST_VMS = 1024
_ERRNOS = {*errorcode.values(), UNNAMED}
_PLACE = ("base_gfn", "npages", "userspace_addr")


class Head(NamedTuple):
    """What the first line says; every part may be missing."""

    holds: str = "calls"
    """``calls`` or ``snapshot``."""
    profile: str | None = None
    kernel: str | None = None
    config: VmConfig | None = None
    shown: bool = False
    """Whether there is a head at all; the output of a replay has none."""


def is_json_line(line: str) -> bool:
    """Return whether `line` is a head, or a call as a replay prints it."""
    if not line.startswith("{") or len(line) > LONGEST_LINE:
        return False
    found = _object(line)
    return found is not None and (
        _KEY in found or "do" in found or (found.get("op") == "set_region" and "gpa" in found)
    )


def read_head(source: Source) -> Head:
    """Return what the first line says.

    Raises
    ------
    TraceError
        If it asks for what cannot be read: another version, an unknown profile, a wrong setting of the machine.
    """
    first = next((line for line in source.lines() if line.strip()), "")
    found = _object(first)
    if found is None or _KEY not in found:
        return Head()
    holds, version, profile = found[_KEY], found.get("version"), found.get("profile")
    if holds not in ("calls", "snapshot"):
        raise TraceError(f"{source.name}: it holds {shorten(str(holds), 20)!r}; there are calls and snapshot")
    if version != VERSION or isinstance(version, bool):
        raise TraceError(
            f"{source.name}: version {shorten(str(version), 20)} of the format; version {VERSION} is read here"
        )
    if profile is not None and profile not in (*PROFILES,):
        raise TraceError(
            f"{source.name}: no kernel profile is called {shorten(str(profile), 20)!r}; there are {', '.join(PROFILES)}"
        )
    kernel = found.get("kernel")
    return Head(holds, profile, None if kernel is None else shorten(str(kernel)), _config(source, found), shown=True)


def _config(source: Source, head: dict[str, Any]) -> VmConfig | None:
    given = head.get("config")
    if given is None:
        return None
    types = {f.name: type(f.default) for f in fields(VmConfig)} | {"host_memory": int}
    if not isinstance(given, dict) or not set(given) <= set(types):
        wrong = next((key for key in given if key not in types), "") if isinstance(given, dict) else str(given)
        raise TraceError(f"{source.name}: config has no {shorten(str(wrong), 30)!r}; it has {', '.join(types)}")
    for name, value in given.items():
        right = value is None if name == "host_memory" and value is None else type(value) is types[name]
        if not right or (type(value) is int and not 0 <= value <= U64_MAX):
            raise TraceError(
                f"{source.name}: config has {name} = {shorten(str(value), 30)}, which is none of its values"
            )
    if given.get("processor", "amd") not in ("amd", "intel", "pvm"):
        raise TraceError(
            f"{source.name}: no processor {shorten(given['processor'], 20)!r}; there are amd, intel and pvm"
        )
    if given.get("vm_type", 0) not in (0, KVM_X86_SW_PROTECTED_VM):
        raise TraceError(f"{source.name}: vm_type is {given['vm_type']}; there are 0 and {KVM_X86_SW_PROTECTED_VM}")
    try:
        return VmConfig(**given)
    except ExplorerError as error:
        raise TraceError(f"{source.name}: {error}") from None


def read_json(lines: Iterable[str], head: Head) -> Iterator[Record]:
    """Iterate over the records of a log; no text makes it raise."""
    vms: dict[int, Vm] = {}
    seen = False
    for number, line in enumerate(lines, 1):
        if not line or line.isspace():
            continue
        found = _object(line) if len(line) <= LONGEST_LINE else None
        if found is None:
            yield Gap(number, "no JSON object on one line", line)
        elif not seen and _KEY in found:
            yield Context(number, 1, "the head")
        elif "summary" in found:
            yield Context(number, 1, "the summary of a replay")
        else:
            yield _record(number, line, found, vms, head)
        seen = True


def _object(line: str) -> dict[str, Any] | None:
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _record(number: int, line: str, found: dict[str, Any], vms: dict[int, Vm], head: Head) -> Record:
    index = found.get("vm", 0)
    if type(index) is not int or not (index in vms or (index >= 0 and len(vms) < _MOST_VMS)):
        return Gap(number, "vm is not a number, or there are too many", line)
    if head.holds == "snapshot":
        return _of_snapshot(number, line, found, vms, head)
    ended = _result(found)
    if ended is None:
        return Gap(number, "the result is not understood: errno is null or a name, ret 0, -1 or null", line)
    ret, errno = ended
    if "do" in found:
        return _command(number, line, found["do"], _vm(vms, index, head), ret, errno)
    if found.get("op") != "set_region":
        return Gap(number, f"no call that is known: {shorten(str(found.get('op')), 30)}", line)
    values = [found.get(name) for name in ("as_id", "slot", "flags", "gpa", "size", "hva")]
    if any(type(value) is not int or not 0 <= value <= U64_MAX for value in values):
        return Gap(number, "set_region without as_id, slot, flags, gpa, size and hva as numbers", line)
    as_id, slot, flags, gpa, size, hva = (int(value or 0) for value in values)
    if max(as_id, slot) > _U16 or flags > _U32:
        return Gap(number, "a number that does not fit its field", line)
    return RegionCall(number, 1, _vm(vms, index, head), as_id, slot, flags, gpa, size, hva, ret, errno)


def _vm(vms: dict[int, Vm], index: int, head: Head) -> Vm:
    """Return the VM of a number; VMs are counted in the order in which they appear."""
    found = vms.get(index)
    if found is None:
        found = vms[index] = Vm(index=len(vms), born=1 if head.shown else None)
    return found


def _result(found: dict[str, Any]) -> tuple[int | None, str | None] | None:
    """Return what was recorded; a replay prints what it was given beside what it found."""
    prefix = "recorded_" if "recorded_ret" in found else ""
    errno = found.get(f"{prefix}errno")
    if errno is not None and (not isinstance(errno, str) or errno not in _ERRNOS):
        return None
    default = None if "errno" not in found else 0 if errno is None else -1
    ret = found.get(f"{prefix}ret", default)
    if ret not in (None, 0, -1) or isinstance(ret, bool) or (errno is None) == (ret == -1):
        return None
    return ret, errno


def _command(number: int, line: str, text: object, vm: Vm, ret: int | None, errno: str | None) -> Record:
    try:
        command = parse_command(text if isinstance(text, str) else "")
    except ExplorerError as error:
        return Gap(number, f"no command: {shorten(str(error), 120)}", line)
    if isinstance(command, Begin | Advance):
        return Gap(number, "a step inside a call; a log has whole calls", line)
    if not isinstance(command, SetMemoryRegion):
        return OtherCall(number, vm, command, ret, errno)
    if max(command.as_id, command.slot) > _U16 or command.flags > _U32:
        return Gap(number, "a number that does not fit its field", line)
    call = RegionCall(
        number,
        1,
        vm,
        command.as_id,
        command.slot,
        command.flags,
        command.guest_phys_addr,
        command.memory_size,
        command.userspace_addr,
        ret,
        errno,
    )
    if isinstance(command, SetMemoryRegion2) and command.flags & KVM_MEM_GUEST_MEMFD:
        return call._replace(guest_memfd=command.guest_memfd & _U32, guest_memfd_offset=command.guest_memfd_offset)
    return call


def _of_snapshot(number: int, line: str, found: dict[str, Any], vms: dict[int, Vm], head: Head) -> Record:
    if "slot" not in found:
        if "generation" in found:
            return Gap(number, "a generation; it is not restored, a replay counts from its own start", line)
        if "gfn" in found:
            return Gap(number, "a count of tracking; it says how many track a page and not who", line)
        return Gap(number, "no slot", line)
    as_id, slot, flags = found.get("as_id", 0), found["slot"], found.get("flags", 0)
    numbers = [as_id, slot, flags, *(found.get(name) for name in _PLACE)]
    if any(type(value) is not int for value in numbers):
        return Gap(number, f"a slot without {', '.join(_PLACE)} as numbers", line)
    base, npages, hva = (found[name] for name in _PLACE)
    if slot < 0 or slot >= _U16 >> 1:
        return Gap(number, f"slot {slot}: one of KVM's own, which no call makes", line)
    fits = 0 <= as_id <= 1 and 0 <= flags <= _U32 and 0 <= hva <= U64_MAX
    if not fits or not 0 <= base <= U64_MAX >> PAGE_SHIFT or not 0 < npages <= U64_MAX >> PAGE_SHIFT:
        return Gap(number, "a number that does not fit its field", line)
    gpa, size = base << PAGE_SHIFT, npages << PAGE_SHIFT
    vm = _vm(vms, found.get("vm", 0), head)
    call = RegionCall(number, 1, vm, as_id, slot, flags & ~KVM_MEMSLOT_INVALID, gpa, size, hva, 0, None)
    return call._replace(guest_memfd=slot) if flags & KVM_MEM_GUEST_MEMFD else call


# -- writing ---------------------------------------------------------------------------------------


def calls_as_json(kvm: Kvm, calls: Iterable[tuple[Command, str | None]]) -> Iterator[str]:
    """Return the lines that hold calls and their errnos; `kvm` is the VM they were made on."""
    config = {name: value for name, value in asdict(kvm.config).items() if value != getattr(VmConfig(), name)}
    yield json.dumps({_KEY: "calls", "version": VERSION, "profile": kvm.profile.name, "config": config})
    for command, errno in calls:
        yield json.dumps({"do": format_command(command), "errno": errno})


def snapshot_as_json(kvm: Kvm) -> Iterator[str]:
    """Return the lines that hold a VM's slots, generations and counts of tracked pages."""
    yield json.dumps({_KEY: "snapshot", "version": VERSION, "profile": kvm.profile.name})
    for as_id in range(len(kvm.memslots)):
        yield json.dumps({"as_id": as_id, "generation": kvm.active(as_id).generation})
        for slot in kvm.slots(as_id):
            place = {"base_gfn": slot.base_gfn, "npages": slot.npages, "userspace_addr": slot.userspace_addr}
            yield json.dumps({"slot": slot.id, "as_id": as_id, **place, "flags": slot.flags})
