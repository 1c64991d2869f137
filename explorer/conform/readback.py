"""What the recorder read out of a kernel, computed from a snapshot in the recorder's own form."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from explorer.engine.events import GuestReadServed, GuestWriteServed
from explorer.engine.lookup import gfn_to_memslot
from explorer.engine.spte import mapped_4k
from explorer.engine.state import LpageInfo, LpageLevel, WriteTrack

if TYPE_CHECKING:
    from explorer.engine.state import Kvm, TrackerNote

__all__ = ["dump_of", "exits_of", "notes_of", "query_of", "slot_of"]

_VALUES_SHOWN = 16
_PORT = 128
_EMULATION, _DELIVERY_EV = 1, 3
"""KVM_INTERNAL_ERROR_EMULATION and KVM_INTERNAL_ERROR_DELIVERY_EV."""


def query_of(kvm: Kvm, gfn: int) -> dict[str, Any]:
    """Return what ``t_query`` gives: the slot of a gfn and its count, -1 without counts."""
    slot = gfn_to_memslot(kvm.active(), gfn)
    if slot is None:
        return {"found": False}
    array = kvm.heap.get(slot.arch.gfn_write_track) if slot.arch.gfn_write_track is not None else None
    count = array.counts.get(gfn - slot.base_gfn, 0) if isinstance(array, WriteTrack) else -1
    return {"found": True, "slot": slot.id, "array": array is not None, "count": count}


def slot_of(kvm: Kvm, slot_id: int, as_id: int) -> dict[str, Any]:
    """Return what ``t_slot`` gives: a slot with the values of its arrays."""
    slot = kvm.slot(slot_id, as_id) if as_id < len(kvm.memslots) else None
    if slot is None:
        return {"found": False}
    arch = slot.arch
    info = kvm.heap.get(arch.lpage_info) if arch.lpage_info is not None else None
    track = kvm.heap.get(arch.gfn_write_track) if arch.gfn_write_track is not None else None
    counts = list(track.counts.items()) if isinstance(track, WriteTrack) else []
    return {
        "found": True,
        "id": slot.id,
        "as": slot.as_id,
        "base_gfn": slot.base_gfn,
        "npages": slot.npages,
        "flags": slot.flags,
        "uaddr": slot.userspace_addr,
        "dirty_bitmap": slot.dirty_bitmap is not None,
        "rmap": [arch.rmap is not None] * 3,
        "rmap_4k_nonzero": mapped_4k(kvm, slot),
        "lpage_info": [_lpage(level, entry) for level, entry in zip((2, 3), info.levels, strict=True)]
        if isinstance(info, LpageInfo)
        else None,
        "gfn_write_track": {
            "ptr": True,
            "nonzero": [[slot.base_gfn + index, count] for index, count in counts],
            "count": len(counts),
            "sum": sum(count for _, count in counts),
        }
        if track is not None
        else {"ptr": False},
    }


def _lpage(level: int, entry: LpageLevel) -> dict[str, Any]:
    touched = [index for index, _ in entry.added.items()]
    marked = entry.n if entry.all else len({i for i in (0,) if entry.head} | {i for i in (entry.n - 1,) if entry.tail})
    nonzero = marked
    for index in touched:
        nonzero += (entry.value(index) != 0) - (entry.mark(index) != 0)
    return {
        "level": level,
        "ptr": True,
        "n": entry.n,
        "nonzero": nonzero,
        "values": [entry.value(index) for index in range(min(entry.n, _VALUES_SHOWN))],
        "last": entry.value(entry.n - 1),
    }


def dump_of(kvm: Kvm) -> dict[str, Any]:
    """Return what ``t_dump`` gives; the recorder asks a dead VM how many address spaces it has and gets none."""
    spaces = () if kvm.vm_bugged else kvm.memslots
    return {
        "generation": [space.active.generation for space in spaces],
        "node_idx": [space.active_idx for space in spaces],
        "indirect_shadow_pages": kvm.indirect_shadow_pages,
        "nr_memslot_pages": kvm.nr_memslot_pages,
        "slots": sorted(
            [slot.as_id, slot.id, slot.base_gfn, slot.npages, slot.flags, slot.userspace_addr]
            for space in spaces
            for slot in space.active.slots()
        ),
    }


def notes_of(note: TrackerNote) -> dict[str, Any]:
    """Return one callback as ``t_events`` gives it."""
    if note.callback == "track_flush_slot":
        return {"cb": note.callback, "gfn": note.gfn, "npages": note.npages, "slot": note.slot, "as": note.as_id}
    if note.callback == "track_write":
        return {"cb": note.callback, "gpa": note.gpa, "bytes": note.nbytes, "value": note.value}
    return {"cb": note.callback, "gfn": note.gfn, "npages": note.npages}


def exits_of(event: GuestReadServed | GuestWriteServed, value: int) -> list[dict[str, Any]]:
    """Return the exits to userspace that an access took.

    The recorder's guest ends each access by writing the byte to a port.
    """
    match event.outcome:
        case "ram" | "emulated" | "apic":
            return [{"reason": "IO", "port": _PORT, "al": value}]
        case "mmio" | "read-only":
            write = int(isinstance(event, GuestWriteServed))
            mmio = {"reason": "MMIO", "gpa": event.gpa, "len": 1, "write": write}
            return [mmio, {"reason": "IO", "port": _PORT, "al": value}]
        case "shutdown":
            return [{"reason": "SHUTDOWN"}]
        case "undelivered":
            return [{"reason": "INTERNAL_ERROR", "suberror": _DELIVERY_EV}]
        case "no code":
            return [{"reason": "INTERNAL_ERROR", "suberror": _EMULATION}]
        case _:
            return []
