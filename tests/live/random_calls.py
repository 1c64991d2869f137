"""Random runs of what a bare VM can be asked: most calls meet a slot there is, some are at the edge of a rule."""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING

from explorer.engine.commands import (
    ClearDirtyLog,
    Command,
    CreateGuestMemfd,
    CreateIrqchip,
    CreateVcpu,
    EnableCap,
    GetDirtyLog,
    SetIdentityMapAddr,
    SetMemoryRegion,
    SetMemoryRegion2,
    SetTssAddr,
)
from explorer.history import Run

if TYPE_CHECKING:
    from explorer.engine.config import VmConfig
    from explorer.engine.state import KvmMemorySlot

PAGE = 4096
_PAGES = (1, 2, 16, 64, 69, 512, 513, 4096)
_GFNS = (0, 0x100, 0x1FF, 0x200, 0xFFFF0, 0x100000, (1 << 36) - 1, (1 << 40) - 2, (1 << 40) - 1)
_HVAS = (0, 0x10000000, 0x7E00_0000_0000, 0x7F00_0020_0000, 0x7FFF_FFFF_E000)
_ODD = {
    "slot": (508, 509, 32763, 32764, 65535),
    "as_id": (1, 2, 65535),
    "flags": (4, 8, 0x10000, 0x20000, 0xFFFF_FFFF),
    "guest_phys_addr": (0x800, 0x1001, (1 << 64) - PAGE, (1 << 52) - PAGE, 1 << 52),
    "memory_size": (0x800, 0x1001, 1 << 43, (1 << 64) - PAGE),
    "userspace_addr": (0x800, 0x7FFF_FFFF_F000, 0x8000_0000_0000, 0xFFFF_8000_0000_0000, (1 << 64) - PAGE),
}


def random_run(seed: int, profile: str, config: VmConfig, length: int = 30) -> Run:
    """Return a run of `length` operations; the same seed gives the same run."""
    dice = Random(seed)  # noqa: S311 - nothing is kept secret here
    run = Run.new(profile, config)
    if dice.random() < 0.5:  # or no log would ever hold a page: without a guest only this sets one
        run = run.then(EnableCap(cap=168, arg=3))
    while len(run) < length:
        run = run.then(_next(dice, run))
    return run


def _next(dice: Random, run: Run) -> Command:
    slots = run.end.slots()
    kind = dice.choices(
        ("create", "move", "flags", "delete", "resize", "odd", "get", "clear", "cap", "gmem", "setup"),
        (7, 5, 4, 2, 2, 3, 4, 4, 1, 3, 1),
    )[0]
    if kind == "create" or (not slots and kind in ("move", "flags", "resize", "delete")):
        return _create(dice)
    if kind == "gmem":
        return _on_file(dice)
    if kind == "setup":
        return _setup(dice)
    if kind == "cap":
        return dice.choice(
            (
                *(EnableCap(cap=168, arg=arg) for arg in (0, 1, 2, 3, 4)),
                EnableCap(cap=213, arg=dice.choice((0x80, 1 << 40))),
            )
        )
    if kind == "odd":
        return _with_an_odd_value(dice, slots)
    if kind in ("get", "clear"):
        return _dirty_log(dice, slots, kind)
    return _change(dice, dice.choice(slots), kind)


def _create(dice: Random) -> SetMemoryRegion:
    return SetMemoryRegion(
        slot=dice.randrange(8),
        flags=dice.choice((0, 0, 1, 1, 2, 3)),
        guest_phys_addr=dice.choice(_GFNS) * PAGE,
        memory_size=dice.choice(_PAGES) * PAGE,
        userspace_addr=dice.choice(_HVAS),
    )


def _change(dice: Random, old: KvmMemorySlot, kind: str) -> SetMemoryRegion:
    gfn, npages, hva, flags = old.base_gfn, old.npages, old.userspace_addr, old.flags & 3
    match kind:
        case "move":
            gfn = dice.choice((*_GFNS, gfn + 1, max(gfn - 1, 0), gfn + npages))
            flags ^= dice.choice((0, 0, 1))
        case "flags":
            flags ^= dice.choice((0, 1, 1, 1, 2))
        case "resize":
            npages += dice.choice((0, 1))
            hva += dice.choice((0, PAGE))
        case "delete":
            npages = 0
    return SetMemoryRegion(
        slot=old.id, flags=flags, guest_phys_addr=gfn * PAGE, memory_size=npages * PAGE, userspace_addr=hva
    )


def _with_an_odd_value(dice: Random, slots: tuple[KvmMemorySlot, ...]) -> SetMemoryRegion:
    call = _change(dice, dice.choice(slots), "move") if slots and dice.random() < 0.5 else _create(dice)
    values = {name: getattr(call, name) for name in _ODD}
    odd = dice.choice(tuple(_ODD))
    return SetMemoryRegion(**values | {odd: dice.choice(_ODD[odd])})


def _dirty_log(dice: Random, slots: tuple[KvmMemorySlot, ...], kind: str) -> Command:
    logged = [slot for slot in slots if slot.flags & 1] or list(slots)
    npages = 64
    slot_id = dice.randrange(9)
    if logged and dice.random() < 0.8:
        slot = dice.choice(logged)
        slot_id, npages = slot.id, slot.npages
    as_id = dice.choice((0, 0, 0, 0, 0, 0, 1))
    if kind == "get":
        return GetDirtyLog(slot=slot_id, as_id=as_id)
    first = dice.choice((0, 0, 0, 64, 63, npages))
    num = dice.choice((npages, max(npages - first, 0), 64, 1, 0, npages + 1))
    return ClearDirtyLog(slot=slot_id, as_id=as_id, first_page=first, num_pages=num)


def _on_file(dice: Random) -> Command:
    if dice.random() < 0.4:
        size = dice.choice((0x10000, 0x200000, 0, 0x1800))
        return CreateGuestMemfd(fd=dice.choice((5, 6)), size=size, flags=dice.choice((0, 0, 1, 3, 4)))
    return SetMemoryRegion2(
        slot=dice.randrange(8, 12),
        flags=dice.choice((4, 4, 4, 5, 0, 1)),
        guest_phys_addr=dice.choice((0x4000_0000, 0x4001_0000, 0x4000_8000)),
        memory_size=dice.choice((0x8000, 0x10000, 0)),
        userspace_addr=0x7D00_0000_0000,
        guest_memfd=dice.choice((5, 5, 6, 7, 0xFFFF_FFFF)),
        guest_memfd_offset=dice.choice((0, 0x8000, 0x800, 0x100000, (1 << 64) - PAGE)),
    )


def _setup(dice: Random) -> Command:
    return dice.choice(
        (
            SetTssAddr(addr=dice.choice((0xFFFB_D000, (1 << 32) - 3 * PAGE, 1 << 32))),
            SetIdentityMapAddr(addr=0xFFFB_C000),
            CreateIrqchip(),
            CreateVcpu(id=dice.choice((0, 1))),
            EnableCap(cap=121, arg=dice.choice((0, 24, 4096, 4097))),
        )
    )
