"""A random walk: operations made up one after another, each on the VM the ones before it left.

Most are legal, one in six is not: the checks are part of what there is to see. The same seed on the same VM
gives the same operations.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from explorer.engine.apply import apply
from explorer.engine.commands import (
    AttachTracker,
    ClearDirtyLog,
    DetachTracker,
    GetDirtyLog,
    GuestRead,
    GuestWrite,
    SetMemoryRegion,
    ShadowTables,
    TrackGfn,
    UntrackGfn,
)
from explorer.engine.types import PAGE_SHIFT, PAGE_SIZE, ExplorerError
from explorer.engine.uapi import KVM_MEM_LOG_DIRTY_PAGES, KVM_MEM_READONLY, KVM_MEMSLOT_INVALID

if TYPE_CHECKING:
    from collections.abc import Callable

    from explorer.engine.commands import Command
    from explorer.engine.state import Kvm, KvmMemorySlot

__all__ = ["MOST_OPERATIONS", "random_walk"]

MOST_OPERATIONS = 1_000
_HOST_BASE = 0x7F00_0000_0000
_PAGES = (1, 16, 32, 512, 4096)


def random_walk(kvm: Kvm, *, seed: int, operations: int) -> tuple[Command, ...]:
    """Return `operations` commands that can be applied to `kvm` in order.

    Raises
    ------
    ExplorerError
        If more than `MOST_OPERATIONS` are asked for, or none.
    """
    if not 1 <= operations <= MOST_OPERATIONS:
        raise ExplorerError(f"operations is {operations}; write a number from 1 to {MOST_OPERATIONS}")
    chance = random.Random(seed)  # noqa: S311 - a walk, not a secret
    made: list[Command] = []
    while len(made) < operations:
        command = _next(kvm, chance)
        made.append(command)
        kvm = apply(kvm, command, record=False).kvm
    return tuple(made)


def _next(kvm: Kvm, chance: random.Random) -> Command:
    slots = [slot for slot in kvm.slots() if slot.id < kvm.profile.user_mem_slots]
    if not slots:
        return _create(kvm, chance, None)
    make = chance.choices(_MAKERS, _WEIGHTS)[0]
    return make(kvm, chance, chance.choice(slots))


def _create(kvm: Kvm, chance: random.Random, beside: KvmMemorySlot | None) -> Command:
    used = {slot.id for slot in kvm.slots()}
    slot = next(number for number in range(len(used) + 1) if number not in used)
    npages = chance.choice(_PAGES)
    base = _somewhere(kvm, chance, beside)
    hva = _HOST_BASE + (slot << 32) + chance.choice((0, 0, PAGE_SIZE))
    flags = chance.choice((0, 0, KVM_MEM_LOG_DIRTY_PAGES, KVM_MEM_READONLY))
    return _region(slot, base, npages, hva, flags)


def _delete(_kvm: Kvm, _chance: random.Random, slot: KvmMemorySlot) -> Command:
    return SetMemoryRegion(slot=slot.id, as_id=slot.as_id, guest_phys_addr=0, memory_size=0)


def _move(kvm: Kvm, chance: random.Random, slot: KvmMemorySlot) -> Command:
    by = chance.choice((1, -1, slot.npages, 512))
    base = slot.base_gfn + by if _one_in(2, chance) else _somewhere(kvm, chance, slot)
    return _like(slot, base=max(base, 0))


def _flags(_kvm: Kvm, _chance: random.Random, slot: KvmMemorySlot) -> Command:
    return _like(slot, flags=slot.flags ^ KVM_MEM_LOG_DIRTY_PAGES)


def _wrong(kvm: Kvm, chance: random.Random, slot: KvmMemorySlot) -> Command:
    """Make a call that some check refuses."""
    others = [s for s in kvm.slots(slot.as_id) if s.id != slot.id]
    kinds: list[Callable[[], Command]] = [
        lambda: _like(slot, nbytes=slot.npages * PAGE_SIZE + 1),
        lambda: _like(slot, npages=slot.npages + 1),
        lambda: _like(slot, flags=slot.flags ^ KVM_MEM_READONLY),
        lambda: _like(slot, flags=slot.flags | KVM_MEMSLOT_INVALID),
        lambda: _like(slot, base=kvm.config.max_gfn()),
    ]
    if others:
        kinds.append(lambda: _like(slot, base=chance.choice(others).base_gfn))
    return chance.choice(kinds)()


def _guest(_kvm: Kvm, chance: random.Random, slot: KvmMemorySlot) -> Command:
    gpa = (slot.base_gfn + chance.randrange(-1 if slot.base_gfn else 0, slot.npages)) << PAGE_SHIFT
    if _one_in(3, chance):
        return GuestRead(gpa=gpa, as_id=slot.as_id)
    return GuestWrite(gpa=gpa, as_id=slot.as_id)


def _tables(_kvm: Kvm, chance: random.Random, slot: KvmMemorySlot) -> Command:
    levels = min(4, slot.npages)
    return ShadowTables(gfn=slot.base_gfn + chance.randrange(slot.npages - levels + 1), levels=levels, as_id=slot.as_id)


def _log(_kvm: Kvm, chance: random.Random, slot: KvmMemorySlot) -> Command:
    if _one_in(2, chance):
        return GetDirtyLog(slot=slot.id, as_id=slot.as_id)
    return ClearDirtyLog(slot=slot.id, as_id=slot.as_id, first_page=0, num_pages=slot.npages)


def _tracker(kvm: Kvm, chance: random.Random, slot: KvmMemorySlot) -> Command:
    attached = [user for user, tracker in kvm.trackers.items() if tracker.attached]
    if not attached:
        return AttachTracker(user=0, kind=chance.choice(("log", "kvmgt")))
    gfn = slot.base_gfn + chance.randrange(slot.npages)
    if _one_in(5, chance):
        return DetachTracker(user=attached[0])
    return UntrackGfn(user=attached[0], gfn=gfn) if _one_in(4, chance) else TrackGfn(user=attached[0], gfn=gfn)


_MAKERS = (_create, _delete, _move, _flags, _wrong, _guest, _tables, _log, _tracker)
_WEIGHTS = (22, 7, 14, 7, 14, 14, 6, 5, 11)


def _one_in(n: int, chance: random.Random) -> bool:
    return chance.randrange(n) == 0


def _somewhere(kvm: Kvm, chance: random.Random, beside: KvmMemorySlot | None) -> int:
    """Return a gfn: behind a slot, or at a round place that may be taken."""
    if beside is not None and not _one_in(3, chance):
        return beside.base_gfn + beside.npages + chance.choice((0, 0, 1, 512))
    return min(chance.randrange(1 << 10) << 8, kvm.config.max_gfn())


def _like(
    slot: KvmMemorySlot,
    *,
    base: int | None = None,
    npages: int | None = None,
    nbytes: int | None = None,
    flags: int | None = None,
) -> Command:
    size = nbytes if nbytes is not None else (npages if npages is not None else slot.npages) * PAGE_SIZE
    return SetMemoryRegion(
        slot=slot.id,
        as_id=slot.as_id,
        flags=slot.flags if flags is None else flags,
        guest_phys_addr=(slot.base_gfn if base is None else base) << PAGE_SHIFT,
        memory_size=size,
        userspace_addr=slot.userspace_addr,
    )


def _region(slot: int, base: int, npages: int, hva: int, flags: int) -> Command:
    return SetMemoryRegion(
        slot=slot,
        flags=flags,
        guest_phys_addr=base << PAGE_SHIFT,
        memory_size=npages << PAGE_SHIFT,
        userspace_addr=hva,
    )
