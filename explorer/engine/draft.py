"""The working copy on which one command runs, and the record of what it did.

Rule 1: only `explorer.engine.apply` makes a draft; nothing outside the engine ever sees one.
Rule 2: a draft is private until it is frozen, so engine functions edit it as plainly as the C does. The
values in it (slots, sets, arrays) stay immutable and are replaced, never changed.

Why not a new snapshot per line: a MOVE edits some thirty fields, and a frozen copy for each would cost
more than the MOVE itself (`assets/docs/adr/0001-snapshots.md`).

Not modelled: which allocator an array comes from, and its fragmentation. Read next: `locks`.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, ParamSpec

from explorer.engine.events import ArrayAllocated, ArrayFreed, Called, Event, KernelWarned, VmBugged
from explorer.engine.state import (
    AddressSpace,
    DirtyBitmap,
    Kvm,
    KvmMemslots,
    LpageInfo,
    MetadataArray,
    RmapArrays,
    WriteTrack,
)
from explorer.engine.types import ArrayId

if TYPE_CHECKING:
    from collections.abc import Callable

    from explorer.engine.config import VmConfig
    from explorer.engine.profile import KernelProfile
    from explorer.engine.region_call import RegionUpdate
    from explorer.engine.sortedmap import SortedMap
    from explorer.engine.state import (
        GuestMemfd,
        HostMemory,
        KvmMemorySlot,
        ShadowPage,
        Sptes,
        Tracker,
        VcpuSetup,
        VcpuState,
    )
    from explorer.engine.types import AsId, Gfn

__all__ = ["KIND_NAMES", "KvmDraft", "built"]

P = ParamSpec("P")

built = tuple.__new__
"""Makes a value that a region call makes several times from a tuple of its fields, past the constructor of its
class, which costs three times as much: an eighth of a whole call (`make bench`)."""

KIND_NAMES: dict[type, str] = {
    RmapArrays: "rmap",
    LpageInfo: "lpage_info",
    WriteTrack: "gfn_write_track",
    DirtyBitmap: "dirty_bitmap",
}
"""The field a slot keeps each kind of array in."""

_COPIED = tuple(name for name in Kvm._fields if name not in {"memslots", "pending"})


def _is_unchanged(now: object, before: object) -> bool:
    """Return whether a field was not stored to; an equal number is no change, whatever object holds it."""
    return now is before or (isinstance(now, int) and now == before)


class KvmDraft:
    """A `Kvm` under construction, with the events of the step.

    Attributes are those of `Kvm`; `memslots` is a list, and `update` is the region call in progress in
    its mutable form.
    """

    __slots__ = (*_COPIED, "before", "events", "memslots", "update")

    profile: KernelProfile
    config: VmConfig
    heap: SortedMap[ArrayId, MetadataArray]
    next_array: int
    heap_bytes: int
    nr_memslot_pages: int
    nr_memslots_dirty_logging: int
    setup: VcpuSetup
    manual_dirty_log_protect: int
    disabled_quirks: int
    vm_bugged: bool
    shadow_root_allocated: bool
    external_write_tracking_enabled: bool
    track_notifiers: tuple[int, ...]
    trackers: SortedMap[int, Tracker]
    mmu_valid_gen: int
    active_mmu_pages: SortedMap[int, ShadowPage]
    mmu_page_hash: SortedMap[tuple[Gfn, int, AsId], int]
    next_mmu_page: int
    indirect_shadow_pages: int
    guest_memfds: SortedMap[int, GuestMemfd]
    sptes: Sptes
    vcpu: VcpuState
    host: HostMemory
    before: Kvm
    """The snapshot it was copied from."""
    memslots: list[AddressSpace]
    update: RegionUpdate | None
    events: list[Event] | None

    def __init__(self, kvm: Kvm, *, record: bool) -> None:
        """Copy a snapshot; with `record` false no event is made."""
        (
            self.profile,
            self.config,
            memslots,
            self.heap,
            self.next_array,
            self.heap_bytes,
            self.nr_memslot_pages,
            self.nr_memslots_dirty_logging,
            self.setup,
            self.manual_dirty_log_protect,
            self.disabled_quirks,
            self.vm_bugged,
            self.shadow_root_allocated,
            self.external_write_tracking_enabled,
            self.track_notifiers,
            self.trackers,
            self.mmu_valid_gen,
            self.active_mmu_pages,
            self.mmu_page_hash,
            self.next_mmu_page,
            self.indirect_shadow_pages,
            self.guest_memfds,
            self.sptes,
            self.vcpu,
            self.host,
            pending,
        ) = self.before = kvm
        self.memslots = list(memslots)
        self.update = None if pending is None else pending.thaw()
        self.events = [] if record else None

    def freeze(self) -> Kvm:
        """Return the snapshot of the draft as it is now; the one it was copied from if nothing was stored."""
        before, spaces = self.before, self.memslots
        memslots = before.memslots
        if spaces[0] is not memslots[0] or spaces[-1] is not memslots[-1]:  # there are one or two
            memslots = tuple(spaces)
        fields = (
            self.profile,
            self.config,
            memslots,
            self.heap,
            self.next_array,
            self.heap_bytes,
            self.nr_memslot_pages,
            self.nr_memslots_dirty_logging,
            self.setup,
            self.manual_dirty_log_protect,
            self.disabled_quirks,
            self.vm_bugged,
            self.shadow_root_allocated,
            self.external_write_tracking_enabled,
            self.track_notifiers,
            self.trackers,
            self.mmu_valid_gen,
            self.active_mmu_pages,
            self.mmu_page_hash,
            self.next_mmu_page,
            self.indirect_shadow_pages,
            self.guest_memfds,
            self.sptes,
            self.vcpu,
            self.host,
            None if self.update is None else self.update.freeze(),
        )
        if memslots is before.memslots and all(map(_is_unchanged, fields, before)):
            return before
        return built(Kvm, fields)

    # -- what is observed ------------------------------------------------------------------------

    def emit(self, event: Callable[P, Event], *args: P.args, **kwargs: P.kwargs) -> None:
        """Record an event, given its class and fields; nothing is made when nobody records."""
        if self.events is not None:
            self.events.append(event(*args, **kwargs))

    def enter(self, function: str) -> None:
        """Record that a modelled kernel function was entered."""
        if self.events is not None:
            self.events.append(_called(function))

    def warn(self, function: str, what: str) -> None:
        """Record a kernel WARN; the kernel goes on."""
        self.emit(KernelWarned, function=function, what=what)

    def bug(self, function: str, what: str) -> None:
        """KVM_BUG: mark the VM dead and record it."""
        self.vm_bugged = True
        self.emit(VmBugged, function=function, what=what)

    # -- sets ------------------------------------------------------------------------------------

    def active(self, as_id: int) -> KvmMemslots:
        """Return the set readers of `as_id` see."""
        return self.memslots[as_id].active

    def inactive(self, as_id: int) -> KvmMemslots:
        """Return the set the updater may edit."""
        return self.memslots[as_id].inactive

    def put_set(self, as_id: int, edited: KvmMemslots) -> None:
        """Store an edited set in its place; which set is active does not change."""
        (one, two), active_idx = self.memslots[as_id]
        sets = (edited, two) if edited.node_idx == 0 else (one, edited)
        self.memslots[as_id] = built(AddressSpace, (sets, active_idx))

    # -- the heap --------------------------------------------------------------------------------

    def allocate(self, array: MetadataArray, slot: KvmMemorySlot) -> ArrayId:
        """Put a new array on the heap and return its identity."""
        array_id = ArrayId(self.next_array)
        self.next_array += 1
        self.heap = self.heap.set(array_id, array)
        size_bytes = array.size_bytes
        self.heap_bytes += size_bytes
        if self.events is not None:
            self.events.append(
                ArrayAllocated(
                    array=array_id,
                    kind=KIND_NAMES[type(array)],
                    slot=slot.id,
                    as_id=slot.as_id,
                    size_bytes=size_bytes,
                )
            )
        return array_id

    def free(self, slot: KvmMemorySlot, *arrays: ArrayId | None) -> None:
        """Take arrays of a slot off the heap; freeing NULL does nothing, freeing twice is a kernel bug."""
        for array_id in arrays:
            if array_id is None:
                continue
            self.heap, array = self.heap.pop(array_id)
            if array is None:
                self.warn("kvfree", f"array {array_id} of slot {slot.id} was freed before")
                continue
            self.heap_bytes -= array.size_bytes
            if self.events is not None:
                self.events.append(
                    ArrayFreed(
                        array=array_id, kind=KIND_NAMES[type(array)], slot=slot.id, as_id=slot.as_id, held=_held(array)
                    )
                )


@cache
def _called(function: str) -> Called:
    """Return the event of a function: half of all events, and there are not many of them that differ."""
    return Called(function=function)


def _held(array: MetadataArray) -> int:
    """Return what goes with an array: the sum of its counts, or its dirty bits."""
    if isinstance(array, WriteTrack):
        return sum(array.counts.values())
    return len(array.dirty) if isinstance(array, DirtyBitmap) else 0
