"""All that can be asked of the machine, and its one-line text form.

Rule: a command is imperative and carries raw arguments, legal or not; the engine answers with an errno
where the kernel would. The same grammar is used by scenarios, links, tests and the command line::

    set_region slot=1 gpa=0x100000 size=0x200000 hva=0x7f0000000000 flags=log

One flat table, so one file: a class a command, then the grammar, which is made from their fields.

Not modelled: memory attributes (no recording sets one), instructions but one load or store. Read next: `events`.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Literal

from explorer.engine.types import U64_MAX, ExplorerError
from explorer.engine.uapi import (
    KVM_CAP_DISABLE_QUIRKS2,
    KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2,
    KVM_CAP_SPLIT_IRQCHIP,
    KVM_MEM_GUEST_MEMFD,
    KVM_MEM_LOG_DIRTY_PAGES,
    KVM_MEM_READONLY,
)

__all__ = [
    "Advance",
    "AttachTracker",
    "Begin",
    "BuildPageTables",
    "ClearDirtyLog",
    "Command",
    "CommandError",
    "CreateGuestMemfd",
    "CreateIrqchip",
    "CreateVcpu",
    "DetachTracker",
    "EnableCap",
    "GetDirtyLog",
    "GuestRead",
    "GuestWrite",
    "HostTouch",
    "ReadTrackerLog",
    "SetIdentityMapAddr",
    "SetMemoryRegion",
    "SetMemoryRegion2",
    "SetTssAddr",
    "SetVcpuMode",
    "ShadowTables",
    "SubmitWorkload",
    "TrackGfn",
    "UntrackGfn",
    "arguments",
    "format_command",
    "parse_command",
    "verb_of",
]


class CommandError(ExplorerError):
    """A line is not a command; the message names the word and what could stand there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SetMemoryRegion:
    """KVM_SET_USER_MEMORY_REGION with its raw arguments."""

    slot: int
    """Slot id, the low 16 bits of the ioctl's ``slot``."""
    as_id: int = 0
    """Address space, the high 16 bits."""
    flags: int = 0
    guest_phys_addr: int
    """Bytes."""
    memory_size: int
    """Bytes; 0 deletes."""
    userspace_addr: int = 0
    """Bytes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SetMemoryRegion2(SetMemoryRegion):
    """KVM_SET_USER_MEMORY_REGION2: the same call with a part of a guest_memfd, if flags ask for it."""

    guest_memfd: int = 0xFFFF_FFFF
    """Descriptor; -1 as the ioctl's unsigned field has it stands for none."""
    guest_memfd_offset: int = 0
    """Bytes from the start of the file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CreateGuestMemfd:
    """KVM_CREATE_GUEST_MEMFD."""

    fd: int
    """Descriptor under which the file is known from then on; a file that had it before was closed."""
    size: int
    """Bytes."""
    flags: int = 0
    """1 is MMAP, 2 is INIT_SHARED."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GetDirtyLog:
    """KVM_GET_DIRTY_LOG."""

    slot: int
    as_id: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ClearDirtyLog:
    """KVM_CLEAR_DIRTY_LOG with every bit of the range set."""

    slot: int
    as_id: int = 0
    first_page: int
    num_pages: int


@dataclass(frozen=True, slots=True, kw_only=True)
class EnableCap:
    """KVM_ENABLE_CAP on the VM."""

    cap: int
    """Capability number; 168 is MANUAL_DIRTY_LOG_PROTECT2, 213 DISABLE_QUIRKS2."""
    arg: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class AttachTracker:
    """Register an external page tracker: one that only logs, or one that behaves like KVMGT."""

    user: int = 0
    """Which tracker; any small number."""
    kind: Literal["log", "kvmgt"] = "log"


@dataclass(frozen=True, slots=True, kw_only=True)
class DetachTracker:
    """Unregister an external page tracker."""

    user: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class TrackGfn:
    """An external tracker asks to intercept guest writes to a page."""

    user: int = 0
    gfn: int


@dataclass(frozen=True, slots=True, kw_only=True)
class UntrackGfn:
    """An external tracker lets a page go."""

    user: int = 0
    gfn: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadTrackerLog:
    """Take the callbacks a logging tracker received since the last read."""

    user: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class SubmitWorkload:
    """The guest submits work to its vGPU, which first shadows what was written by halves."""

    user: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ShadowTables:
    """The guest runs on page tables that lie in consecutive pages, the top level first.

    With shadow paging KVM then shadows each of them.
    """

    gfn: int
    """Page of the top-level table."""
    levels: int = 4
    """How many levels there are, 1 to 5."""
    as_id: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class GuestWrite:
    """The guest stores bytes at a guest physical address."""

    gpa: int
    nbytes: int = 8
    as_id: int = 0
    value: int = 0
    """What it stores, as a little-endian number."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GuestRead:
    """The guest loads bytes from a guest physical address."""

    gpa: int
    nbytes: int = 8
    as_id: int = 0
    answer: int = 0
    """What userspace answers if it is asked, as a little-endian number."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SetVcpuMode:
    """KVM_SET_SREGS and KVM_SET_REGS, as far as memory accesses hang on them."""

    mode: Literal["real", "prot", "long"] = "prot"
    """Only ``long`` has paging."""
    cr3: int = 0
    """Guest physical address of the top-level page table, for ``long``."""
    code: int | None = None
    """Guest physical address of the instructions; without it their fetch is left out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HostTouch:
    """The VMM stores one byte at the start of each page of its own memory, so that the host has the pages."""

    hva: int
    size: int = 4096
    value: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildPageTables:
    """The VMM writes four pages of guest page tables, one a level, that map the first GiB to itself.

    The last level maps the first 2 MiB by small pages; the level above has 2 MiB pages for the rest.
    """

    gpa: int
    """Where the guest finds the top level; the others follow."""
    hva: int
    """Where the VMM writes them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SetTssAddr:
    """KVM_SET_TSS_ADDR: where an Intel VM without unrestricted guest keeps three pages of its own."""

    addr: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SetIdentityMapAddr:
    """KVM_SET_IDENTITY_MAP_ADDR: where such a VM keeps its identity page table."""

    addr: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CreateIrqchip:
    """KVM_CREATE_IRQCHIP: interrupt controllers in the kernel."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CreateVcpu:
    """KVM_CREATE_VCPU."""

    id: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Begin:
    """Start a region call and stop before its first phase."""

    call: SetMemoryRegion


@dataclass(frozen=True, slots=True, kw_only=True)
class Advance:
    """Run one phase of the region call in progress."""


Command = (
    SetMemoryRegion
    | SetMemoryRegion2
    | CreateGuestMemfd
    | GetDirtyLog
    | ClearDirtyLog
    | EnableCap
    | AttachTracker
    | DetachTracker
    | TrackGfn
    | UntrackGfn
    | ReadTrackerLog
    | SubmitWorkload
    | ShadowTables
    | GuestWrite
    | GuestRead
    | SetVcpuMode
    | HostTouch
    | BuildPageTables
    | SetTssAddr
    | SetIdentityMapAddr
    | CreateIrqchip
    | CreateVcpu
    | Begin
    | Advance
)

_FLAG_WORDS = {"log": KVM_MEM_LOG_DIRTY_PAGES, "ro": KVM_MEM_READONLY, "gmem": KVM_MEM_GUEST_MEMFD, "rw": 0}
_CAP_WORDS = {
    "MANUAL_DIRTY_LOG_PROTECT2": KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2,
    "DISABLE_QUIRKS2": KVM_CAP_DISABLE_QUIRKS2,
    "SPLIT_IRQCHIP": KVM_CAP_SPLIT_IRQCHIP,
}
_KEYS = {
    "as_id": "as",
    "guest_phys_addr": "gpa",
    "memory_size": "size",
    "userspace_addr": "hva",
    "first_page": "first",
    "num_pages": "num",
    "nbytes": "bytes",
    "guest_memfd": "gmem",
    "guest_memfd_offset": "gmem_off",
}
_HEX = {
    *("guest_phys_addr", "memory_size", "userspace_addr", "guest_memfd_offset"),
    *("gfn", "gpa", "addr", "cr3", "code", "hva", "size", "value", "answer"),
}
_VERBS: dict[str, type[Command]] = {
    "set_region": SetMemoryRegion,
    "set_region2": SetMemoryRegion2,
    "create_guest_memfd": CreateGuestMemfd,
    "get_dirty_log": GetDirtyLog,
    "clear_dirty_log": ClearDirtyLog,
    "enable_cap": EnableCap,
    "attach": AttachTracker,
    "detach": DetachTracker,
    "track": TrackGfn,
    "untrack": UntrackGfn,
    "tracker_log": ReadTrackerLog,
    "submit_workload": SubmitWorkload,
    "shadow_tables": ShadowTables,
    "guest_write": GuestWrite,
    "guest_read": GuestRead,
    "vcpu_mode": SetVcpuMode,
    "host_touch": HostTouch,
    "build_pt": BuildPageTables,
    "set_tss_addr": SetTssAddr,
    "set_identity_map_addr": SetIdentityMapAddr,
    "create_irqchip": CreateIrqchip,
    "create_vcpu": CreateVcpu,
    "advance": Advance,
}
_VERB_OF = {cls: verb for verb, cls in _VERBS.items()}
_LONGEST_SHOWN = 40
"""Characters of a word that a message repeats."""


def format_command(command: Command) -> str:
    """Return the command as one line; `parse_command` reads it back."""
    if isinstance(command, Begin):
        return "begin " + format_command(command.call)
    words = [_VERB_OF[type(command)]]
    for f in fields(command):
        value = getattr(command, f.name)
        if value == f.default and f.name != "user":
            continue
        if f.name == "flags":
            names = [word for word, bit in _FLAG_WORDS.items() if bit and value & bit]
            rest = value & ~(KVM_MEM_LOG_DIRTY_PAGES | KVM_MEM_READONLY | KVM_MEM_GUEST_MEMFD)
            text = hex(value) if rest else ",".join(names)
        else:
            text = hex(value) if f.name in _HEX else str(value)
        words.append(f"{_KEYS.get(f.name, f.name)}={text}")
    return " ".join(words)


def parse_command(line: str) -> Command:
    """Return the command a line stands for.

    Raises
    ------
    CommandError
        If a word is not understood; the message says which, and what could stand there.
    """
    words = line.split()
    if not words:
        raise CommandError("an empty line is no command; try: set_region slot=0 gpa=0 size=0x1000 hva=0x7f0000000000")
    verb, rest = words[0], words[1:]
    if verb == "begin":
        call = parse_command(" ".join(rest))
        if not isinstance(call, SetMemoryRegion):
            raise CommandError(f"begin needs a set_region, not {_shown(rest[0]) if rest else 'nothing'!r}")
        return Begin(call=call)
    cls = _VERBS.get(verb)
    if cls is None:
        raise CommandError(f"{_shown(verb)!r} is no command; there are {', '.join([*_VERBS, 'begin'])}")
    names = {_KEYS.get(f.name, f.name): f.name for f in fields(cls)}
    given: dict[str, object] = {}
    for word in rest:
        key, equals, text = word.partition("=")
        if not equals or key not in names:
            raise CommandError(
                f"{_shown(word)!r} is no argument of {verb}; it takes {', '.join(f'{n}=' for n in names) or 'none'}"
            )
        if names[key] in given:
            raise CommandError(f"{verb} has {key}= twice")
        given[names[key]] = _value(key, text)
    try:
        return cls(**given)  # type: ignore[arg-type, no-any-return, unused-ignore]
    except TypeError:
        missing = [k for k, name in names.items() if name not in given and _required(cls, name)]
        raise CommandError(f"{verb} needs {', '.join(f'{k}=' for k in missing)}") from None


def _shown(text: str) -> str:
    """Return what a message repeats of a text: all of a word, the beginning of a long one."""
    return text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}..."


def arguments(verb: str) -> dict[str, str | None]:
    """Return the arguments a verb of the grammar takes, as they are written, with their defaults; None: needed.

    Raises
    ------
    CommandError
        If there is no such verb.
    """
    cls = _VERBS.get(verb)
    if cls is None:
        raise CommandError(f"{_shown(verb)!r} is no command; there are {', '.join(_VERBS)}")
    return {
        _KEYS.get(f.name, f.name): None if _required(cls, f.name) else "" if f.default is None else str(f.default)
        for f in fields(cls)
    }


def verb_of(command: Command) -> str:
    """Return the first word of a command's line."""
    return "begin" if isinstance(command, Begin) else _VERB_OF[type(command)]


def _required(cls: type[Command], name: str) -> bool:
    return any(f.name == name and repr(f.default).startswith("<dataclasses._MISSING") for f in fields(cls))


def _value(key: str, text: str) -> object:
    if key == "kind":
        if text not in {"log", "kvmgt"}:
            raise CommandError(f"kind={_shown(text)} is no tracker; there are log and kvmgt")
        return text
    if key == "mode":
        if text not in {"real", "prot", "long"}:
            raise CommandError(f"mode={_shown(text)} is no mode of a vCPU; there are real, prot and long")
        return text
    if key == "cap" and text in _CAP_WORDS:
        return _CAP_WORDS[text]
    if key == "flags":
        words = text.split(",")
        if all(word in _FLAG_WORDS for word in words):
            return sum({_FLAG_WORDS[word] for word in words})
    try:
        number = int(text, 0)
    except ValueError:
        hint = "; flags also takes log, ro and gmem, with commas" if key == "flags" else ""
        raise CommandError(f"{key}={_shown(text)} is not a number; write 4096 or 0x1000{hint}") from None
    if not 0 <= number <= U64_MAX:
        raise CommandError(f"{key}={_shown(text)} does not fit an unsigned 64-bit number")
    return number
