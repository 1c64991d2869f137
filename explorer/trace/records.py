"""What an importer hands on: one record for each thing a log says, and the error when it says nothing.

Rule: no line is dropped. A line either goes into a `RegionCall` or a `Context`, which say how many lines they
took, or it becomes a `Gap` with a reason. Log text is data: nothing here interprets it, and what is shown of
it in a message passes through `shorten`.

Not modelled: memory attributes; how long a guest_memfd is, which no log shows. Read next: `source`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from explorer.engine.types import ExplorerError

if TYPE_CHECKING:
    from explorer.engine.commands import Command

__all__ = [
    "NOT_FROM_KVM",
    "UNNAMED",
    "Context",
    "Gap",
    "MmuEvent",
    "OtherCall",
    "Record",
    "RegionCall",
    "TraceError",
    "Vm",
    "shorten",
]

NOT_FROM_KVM = {
    "EBADF": "there is no such descriptor",
    "ENOTTY": "the descriptor is no VM",
    "EFAULT": "the arguments cannot be read",
    "EIO": "the VM belongs to another process, or it is dead",
    "ENOSYS": "a filter of system calls",
    "EPERM": "a filter of system calls",
    "EACCES": "a filter of system calls",
}
"""Errnos that come from before KVM looks at a region, and what they mean there."""
UNNAMED = "errno 0"
"""Stands for the errno of a call that failed in a log that does not say which errno it got."""

_SHOWN = 60


class TraceError(ExplorerError):
    """A file is no log that can be read; the message says what was expected and what to try."""


@dataclass(slots=True, kw_only=True, eq=False)
class Vm:
    """One VM as far as the log shows it. The importer keeps it up to date while it reads."""

    index: int
    """Order of appearance, from 0."""
    born: int | None
    """Line of its KVM_CREATE_VM, or None if it was there before the log begins."""
    doubt: str | None = None
    """Why the log may not show every call made on this VM, or None."""
    ended: int | None = None
    """Line on which its last descriptor was closed, or None."""
    names: int = 0
    """How many descriptors it has."""


class RegionCall(NamedTuple):
    """One KVM_SET_USER_MEMORY_REGION, or REGION2, that reached KVM."""

    line: int
    """Line that shows the arguments, from 1."""
    lines: int
    """How many lines of the log the call takes."""
    vm: Vm
    as_id: int
    slot: int
    flags: int
    gpa: int
    """Bytes."""
    size: int
    """Bytes."""
    hva: int
    """Bytes."""
    ret: int | None
    """0, -1, or None if the log does not show how the call ended."""
    errno: str | None
    """Name, such as ``EEXIST``, if `ret` is -1."""
    guest_memfd: int | None = None
    """Descriptor of the file a REGION2 puts the slot on; None if it puts it on none."""
    guest_memfd_offset: int = 0
    """Bytes."""


class OtherCall(NamedTuple):
    """Another call that reached KVM, such as KVM_GET_DIRTY_LOG with its arguments."""

    line: int
    vm: Vm
    command: Command
    ret: int | None
    """0, -1, or None if the log does not show how the call ended."""
    errno: str | None


class Context(NamedTuple):
    """Lines that are no operation but say which VM a later one is for."""

    line: int
    lines: int
    what: str = ""
    """What the lines say, such as ``KVM_CREATE_VM``."""


class MmuEvent(NamedTuple):
    """A trace event of KVM's MMU."""

    line: int
    name: str
    kind: str
    """``zap`` or ``SPTE``."""
    during: bool
    """Whether a region call was in progress; else the event is taken for one after the last that returned."""


class Gap(NamedTuple):
    """A line that was not used."""

    line: int
    reason: str
    text: str = ""
    """The line itself, as it stands in the log."""


Record = RegionCall | OtherCall | Context | MmuEvent | Gap


def shorten(text: str, most: int = _SHOWN) -> str:
    """Return `text` for a message: one line, at most `most` characters, control characters escaped."""
    shown = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text[: most + 1])
    return shown if len(shown) <= most else shown[:most] + "…"
