"""The guest's page tables of the GPU that KVMGT shadows: where they are by now, and where their entries lead.

Nothing in the kernel knows where the guest's table is after a MOVE; here it is followed by its host page, which stays
the same. An entry is wrong if the GPU uses another host page than the guest's entry leads to now.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from explorer.engine.commands import TrackGfn
from explorer.engine.gtt import page_named_by
from explorer.engine.lookup import gfn_to_memslot, slots_in_hva_range
from explorer.engine.state import Kvmgt, WriteTrack
from explorer.engine.types import PAGE_SHIFT, PAGE_SIZE, Gfn, Hva

if TYPE_CHECKING:
    from explorer.engine.state import Kvm, KvmMemorySlot, Spt
    from explorer.history import Run, Stop

__all__ = [
    "ENTRY_BYTES",
    "GpuEntry",
    "GpuTable",
    "count_of",
    "entries_of",
    "guest_words",
    "host_page_of",
    "table_at",
]

ENTRY_BYTES = 8


class GpuTable(NamedTuple):
    """A shadowed table with what the run knows of it."""

    user: int
    gfn: Gfn
    spt: Spt
    made: int
    """Operation in which its shadow was made; -1 if the run does not say."""
    home: Hva | None
    """Host page of the guest's table, which a MOVE does not change."""
    now: Gfn | None
    """Where the guest has its table by now."""


class GpuEntry(NamedTuple):
    """One entry: what the guest's table says, and what the GPU uses."""

    number: int
    page: Gfn | None
    means: Hva | None
    uses: Hva | None
    shadowed: Gfn | None
    word: str
    wrong: bool


# -- where pages are -------------------------------------------------------------------------------


def host_page_of(kvm: Kvm, gfn: int) -> Hva | None:
    """Return the VMM's memory behind a page of the guest, INVALID slots included; None in a hole."""
    slot = gfn_to_memslot(kvm.active(), gfn)
    if slot is None:
        return None
    return Hva(slot.userspace_addr + (gfn - slot.base_gfn << PAGE_SHIFT))


def _gfns_of(kvm: Kvm, hva: Hva) -> tuple[Gfn, ...]:
    """Return the pages of the guest that a host page is behind, lowest first."""
    return tuple(
        sorted(
            Gfn(slot.base_gfn + (hva - slot.userspace_addr >> PAGE_SHIFT))
            for slot in slots_in_hva_range(kvm.active(), hva, hva + PAGE_SIZE)
            if slot.userspace_addr <= hva
        )
    )


def count_of(kvm: Kvm, gfn: int) -> int | None:
    """Return how often a page is watched; None if no slot has it."""
    slot = gfn_to_memslot(kvm.active(), gfn)
    return None if slot is None else _count(kvm, slot, gfn)


def _count(kvm: Kvm, slot: KvmMemorySlot, gfn: int) -> int:
    array = kvm.heap.get(slot.arch.gfn_write_track) if slot.arch.gfn_write_track is not None else None
    return array.counts.get(gfn - slot.base_gfn, 0) if isinstance(array, WriteTrack) else 0


# -- tables and entries ----------------------------------------------------------------------------


def table_at(run: Run, stop: Stop, kvm: Kvm, user: int, gfn: Gfn, spt: Spt) -> GpuTable:
    """Return a shadowed table at a stop, followed to where the guest has it now."""
    made, home = -1, None
    for op in range(stop.op, -1, -1):
        command = run.commands[op]
        if isinstance(command, TrackGfn) and (command.user, command.gfn) == (user, gfn):
            before = run.kvm_before(op)
            vgpu = before.trackers.get(user)
            if not isinstance(vgpu, Kvmgt) or gfn not in vgpu.spts:
                made, home = op, host_page_of(before, gfn)
                break
    home = host_page_of(kvm, gfn) if home is None else home  # the run does not say: it is where it was shadowed
    gfns = _gfns_of(kvm, home) if home is not None else ()
    return GpuTable(user, gfn, spt, made, home, gfn if gfn in gfns else next(iter(gfns), None))


def guest_words(kvm: Kvm, home: Hva | None) -> dict[int, int]:
    """Return the entries in the guest's table that are not zero."""
    if home is None:
        return {}
    first, end = home // ENTRY_BYTES, (home + PAGE_SIZE) // ENTRY_BYTES
    found = {}
    for word, value in kvm.host.words.items_from(first):
        if word >= end:
            break
        found[word - first] = value
    return found


def entries_of(kvm: Kvm, table: GpuTable) -> list[GpuEntry]:
    """Return every entry that the guest or the GPU uses, by index."""
    words = guest_words(kvm, table.home) if table.now is not None else {}
    used = {index for index, value in words.items() if page_named_by(value) is not None} | set(table.spt.entries)
    return [_entry(kvm, table, index, words.get(index, 0)) for index in sorted(used)]


def _entry(kvm: Kvm, table: GpuTable, index: int, word: int) -> GpuEntry:
    page = page_named_by(word)
    means = None if page is None else host_page_of(kvm, page)
    shadow = table.spt.entries.get(index)
    uses, shadowed = (None, None) if shadow is None else (shadow.hva, shadow.gfn)
    if index in table.spt.post_shadow_bitmap:
        return GpuEntry(index, page, means, uses, shadowed, "half written: waits for work", wrong=False)
    if uses == means:
        text = "scratch page" if uses is None else "same page" if shadowed == page else "same page, by luck"
        return GpuEntry(index, page, means, uses, shadowed, text, wrong=False)
    if uses is None:
        text = "missing: scratch page"
    elif table.now is None:
        text = "stale: the table is gone"
    elif page is None:
        text = "stale: page was given up"
    else:
        text = "stale: wrong page" if means is not None else "stale: no page there"
    return GpuEntry(index, page, means, uses, shadowed, text, wrong=True)
