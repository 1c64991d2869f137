"""The yardstick: what a real MOVE costs on this machine, where it has a /dev/kvm that may be used.

The targets in microseconds were written beside a measurement: on their machine KVM itself took 21 microseconds for
a MOVE of 2 MiB. Machines of one kind differ by a factor of three from day to day, and the real call tells by how
much: a target holds for a machine if it holds after both were divided by what the real call takes there.
"""

from __future__ import annotations

import ctypes
import fcntl
import mmap
import os
from dataclasses import replace
from pathlib import Path
from statistics import median
from time import perf_counter_ns
from typing import TYPE_CHECKING

from explorer.live.child import call_ioctl
from explorer.live.ioctls import REQUESTS, Ioctl, pack

if TYPE_CHECKING:
    from measure import Row

__all__ = ["real_move", "slower_by"]

REAL_MOVE_MICROSECONDS = 21
"""Of the machine for which the targets were written."""

_DEVICE = Path("/dev/kvm")
_CREATE_VM = 0xAE01
_SIZE = 2 << 20
_BATCHES, _MOVES = 5, 200


def slower_by(row: Row, real: Row) -> Row:
    """Return a row as it would be on the machine of the targets: its times divided, its rates multiplied."""
    factors = [value / REAL_MOVE_MICROSECONDS for value in real.rounds]
    rate = row.unit.endswith("/s")
    values = tuple(
        value * factor if rate else value / factor for value, factor in zip(row.rounds, factors, strict=True)
    )
    return replace(row, what=f"{row.what}, where the real MOVE takes {REAL_MOVE_MICROSECONDS} us", rounds=values)


def real_move() -> tuple[float, ...]:
    """Return the microseconds that KVM takes for a MOVE of 2 MiB; nothing without a device.

    The median of a batch, in the quickest of some: what a neighbour of the machine takes away now and then would
    flatter whatever is divided by it.
    """
    try:
        device = os.open(_DEVICE, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return ()
    vm = fcntl.ioctl(device, _CREATE_VM, 0)
    try:
        with mmap.mmap(-1, _SIZE) as memory:
            address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
            _call(vm, 0, address)
            return (min(median(_batch(vm, address)) for _ in range(_BATCHES)) / 1000,)
    finally:
        os.close(vm)
        os.close(device)


def _batch(vm: int, address: int) -> list[int]:
    return [_call(vm, _SIZE * ((n + 1) % 2), address) for n in range(_MOVES)]


def _call(vm: int, gpa: int, hva: int) -> int:
    """Make one call and return its nanoseconds."""
    call = ctypes.create_string_buffer(pack(_region(gpa, hva)))
    start = perf_counter_ns()
    _, errno = call_ioctl(vm, REQUESTS["KVM_SET_USER_MEMORY_REGION"].number, ctypes.addressof(call))
    taken = perf_counter_ns() - start
    assert errno is None, f"the real call failed with {errno}"
    return taken


def _region(gpa: int, hva: int) -> Ioctl:
    members = ("slot", "flags", "guest_phys_addr", "memory_size", "userspace_addr")
    return Ioctl("KVM_SET_USER_MEMORY_REGION", members=tuple(zip(members, (0, 0, gpa, _SIZE, hva), strict=True)))
