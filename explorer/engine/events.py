"""All that can be observed: what a step did, in the order in which the kernel does it.

Rule 1: events are past tense, flat, hashable and explain themselves without the state.
Rule 2: the file ends with the full union; consumers match on it and end with ``assert_never``.

`Called` marks the entry of each modelled kernel function, so the events of a step are also the trace a
function tracer would give.

One flat table, so one file: a class an event and nothing else.

Not modelled: time, and functions below those that a module of the engine cites. Read next: `draft`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar, dataclass_transform

if TYPE_CHECKING:
    from explorer.engine.types import Errno
    from explorer.engine.uapi import KvmMrChange

__all__ = [
    "ArrayAllocated",
    "ArrayFreed",
    "ArraysInherited",
    "CallRefused",
    "CallReturned",
    "Called",
    "ChangeClassified",
    "DirtyBitmapHandedOver",
    "DirtyLogCleared",
    "DirtyLogRead",
    "Event",
    "GenerationAdvanced",
    "GpuEntryShadowed",
    "GuestMemfdBound",
    "GuestMemfdCreated",
    "GuestMemfdUnbound",
    "GuestMemoryReclaimed",
    "GuestReadServed",
    "GuestWriteServed",
    "InvalidCopyMade",
    "KernelWarned",
    "MappingsProtected",
    "MappingsZapped",
    "MemslotsPublished",
    "PageMapped",
    "PageMarkedDirty",
    "PagesAccounted",
    "ReadersDrained",
    "RolledBack",
    "ShadowPageZapped",
    "ShadowTableShadowed",
    "SlotObjectFreed",
    "SlotReplaced",
    "TrackerAttached",
    "TrackerDetached",
    "TrackerForgot",
    "TrackerNotified",
    "VmBugged",
    "WriteTracked",
    "WriteUntracked",
]


_T = TypeVar("_T")


@dataclass_transform(frozen_default=True, kw_only_default=True)
def _event(cls: type[_T]) -> type[_T]:
    """Make a class one of events: a dataclass that mypy takes for a frozen one.

    Nothing stops an assignment at run time: what would, more than doubles the time of the constructor, which was a
    tenth of a whole MOVE (`make bench`).
    """
    return dataclass(slots=True, kw_only=True, unsafe_hash=True)(cls)


@_event
class Called:
    """A modelled kernel function was entered."""

    function: str
    """Its name in the newest kernel that has it; `explorer.explain.sources` knows the others."""


@_event
class ChangeClassified:
    """The call was found to be one kind of change."""

    change: KvmMrChange
    reason: str
    """The comparison that decided, with its values."""


@_event
class CallRefused:
    """A check failed and the call will return an error."""

    check: str
    """Name of the guard, as in `explorer.engine.guard`."""
    function: str
    errno: Errno
    operands: str
    """What was compared, with values."""


@_event
class CallReturned:
    """The call returned to userspace."""

    errno: Errno | None


@_event
class InvalidCopyMade:
    """A copy of the old slot was made and marked INVALID; it shares the old arrays and bitmap."""

    as_id: int
    slot: int


@_event
class SlotReplaced:
    """The inactive set was edited: one slot object out, another in."""

    as_id: int
    node_idx: int
    slot: int
    removed: str | None
    """Brief of the object that left, or None."""
    inserted: str | None
    """Brief of the object that came, or None."""


@_event
class MemslotsPublished:
    """Readers of one address space now see the other set; the update-in-progress bit is set."""

    as_id: int
    node_idx: int
    generation: int
    """With the in-progress bit."""


@_event
class ReadersDrained:
    """Every reader that may have used the old set has left (SRCU grace period)."""

    as_id: int


@_event
class GenerationAdvanced:
    """The published set got its new generation, without the in-progress bit."""

    as_id: int
    generation: int


@_event
class MappingsZapped:
    """Mappings were thrown away."""

    scope: str
    """``all`` for the whole VM, ``slot`` for one slot."""
    shadow_pages: int
    """Indirect shadow pages zapped with them."""


@_event
class ShadowPageZapped:
    """One indirect shadow page was zapped and un-accounted."""

    gfn: int
    level: int
    as_id: int


@_event
class ShadowTableShadowed:
    """KVM made a shadow page for a guest page table and accounted for it."""

    gfn: int
    level: int
    as_id: int


@_event
class GuestMemoryReclaimed:
    """The architecture was told that guest memory goes away (SEV cache flush; nothing else)."""


@_event
class RolledBack:
    """A refused update put the old slot back in front of readers."""

    as_id: int
    slot: int


@_event
class ArrayAllocated:
    """A metadata array was allocated."""

    array: int
    kind: str
    """``rmap``, ``lpage_info``, ``gfn_write_track`` or ``dirty_bitmap``."""
    slot: int
    as_id: int
    size_bytes: int


@_event
class ArrayFreed:
    """A metadata array was freed."""

    array: int
    kind: str
    slot: int
    as_id: int
    held: int
    """Sum of the counts or number of dirty pages that went with it; 0 for other kinds."""


@_event
class ArraysInherited:
    """The new slot object took over the old one's architecture arrays."""

    slot: int
    as_id: int


@_event
class DirtyBitmapHandedOver:
    """The new slot object took over the old one's dirty bitmap, bits and all."""

    slot: int
    as_id: int
    dirty_pages: int


@_event
class SlotObjectFreed:
    """A slot object went away."""

    slot: int
    as_id: int
    which: str
    """``old``, ``INVALID`` or ``new``."""


@_event
class PagesAccounted:
    """The VM's number of memslot pages changed."""

    npages: int
    """Pages added; negative if taken away."""
    total: int


@_event
class WriteTracked:
    """A page's write-track count went up."""

    gfn: int
    slot: int
    as_id: int
    count: int
    """The new count."""
    by: str
    """``shadow paging`` or ``tracker N``."""


@_event
class WriteUntracked:
    """A page's write-track count went down."""

    gfn: int
    slot: int
    as_id: int
    count: int
    by: str


@_event
class TrackerAttached:
    """An external tracker registered."""

    user: int
    kind: str


@_event
class TrackerDetached:
    """An external tracker unregistered."""

    user: int


@_event
class TrackerNotified:
    """A callback of an external tracker ran."""

    user: int
    callback: str
    gfn: int
    npages: int


@_event
class TrackerForgot:
    """KVMGT dropped entries of its own table of protected gfns."""

    user: int
    gfns: tuple[int, ...]


@_event
class GpuEntryShadowed:
    """An entry of a vGPU's shadow page table leads elsewhere now."""

    user: int
    table: int
    """gfn of the guest's page table."""
    index: int
    page: int | None
    """gfn whose host page the GPU uses; None for a scratch page."""


@_event
class GuestWriteServed:
    """A guest write was answered."""

    gpa: int
    as_id: int
    outcome: str
    """``ram``, ``emulated``, ``mmio``, ``read-only``, ``retry``, or one of `explorer.engine.guest.OUTCOMES`."""


@_event
class GuestReadServed:
    """A guest read was answered."""

    gpa: int
    as_id: int
    outcome: str
    """As for a write; ``read-only`` cannot be."""
    value: int
    """What the guest got; where userspace is asked, what the command says it answers."""


@_event
class PageMapped:
    """A fault made an entry that maps a page or a huge frame."""

    gfn: int
    """First gfn the entry maps."""
    level: int
    as_id: int
    writable: bool
    prefetched: bool
    """Whether it was made along with a neighbour, before anybody asked for it."""


@_event
class MappingsProtected:
    """Entries lost write access or their D bit, so that the next write is noticed."""

    gfn: int
    npages: int
    as_id: int
    why: str
    """``write tracking`` or ``dirty log``."""


@_event
class PageMarkedDirty:
    """A page of a dirty-logged slot was marked dirty."""

    slot: int
    as_id: int
    index: int


@_event
class DirtyLogRead:
    """KVM_GET_DIRTY_LOG reported."""

    slot: int
    as_id: int
    runs: tuple[tuple[int, int], ...]
    """Dirty page indices of the slot as half-open runs."""
    count: int


@_event
class DirtyLogCleared:
    """KVM_CLEAR_DIRTY_LOG cleared."""

    slot: int
    as_id: int
    count: int


@_event
class GuestMemfdCreated:
    """A guest_memfd was made."""

    fd: int
    size: int
    """Bytes."""
    flags: int


@_event
class GuestMemfdBound:
    """A slot took a part of a guest_memfd, which no other slot can have meanwhile."""

    slot: int
    as_id: int
    fd: int
    pgoff: int
    """First page of the part."""
    npages: int


@_event
class GuestMemfdUnbound:
    """A slot gave back its part of a guest_memfd."""

    slot: int
    as_id: int
    fd: int
    pgoff: int
    npages: int


@_event
class KernelWarned:
    """The kernel would print a WARN."""

    function: str
    what: str


@_event
class VmBugged:
    """KVM_BUG: the VM is dead for every later ioctl."""

    function: str
    what: str


Event = (
    Called
    | ChangeClassified
    | CallRefused
    | CallReturned
    | InvalidCopyMade
    | SlotReplaced
    | MemslotsPublished
    | ReadersDrained
    | GenerationAdvanced
    | MappingsZapped
    | ShadowPageZapped
    | ShadowTableShadowed
    | GuestMemoryReclaimed
    | RolledBack
    | ArrayAllocated
    | ArrayFreed
    | ArraysInherited
    | DirtyBitmapHandedOver
    | SlotObjectFreed
    | PagesAccounted
    | WriteTracked
    | WriteUntracked
    | TrackerAttached
    | TrackerDetached
    | TrackerNotified
    | TrackerForgot
    | GpuEntryShadowed
    | GuestWriteServed
    | GuestReadServed
    | PageMapped
    | MappingsProtected
    | PageMarkedDirty
    | DirtyLogRead
    | DirtyLogCleared
    | GuestMemfdCreated
    | GuestMemfdBound
    | GuestMemfdUnbound
    | KernelWarned
    | VmBugged
)
