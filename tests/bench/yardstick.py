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
_MOVES = 500


def slower_by(row: Row, real: Row) -> Row:
    """Return a row as it would be on the machine of the targets: its times divided, its rates multiplied."""
    factors = [value / REAL_MOVE_MICROSECONDS for value in real.rounds]
    rate = row.unit.endswith("/s")
    values = tuple(
        value * factor if rate else value / factor for value, factor in zip(row.rounds, factors, strict=True)
    )
    return replace(row, what=f"{row.what}, where the real MOVE takes {REAL_MOVE_MICROSECONDS} us", rounds=values)


def real_move() -> tuple[float, ...]:
    """Return the microseconds that KVM takes for a MOVE of 2 MiB, the median of many; nothing without a device."""
    try:
        device = os.open(_DEVICE, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return ()
    vm = fcntl.ioctl(device, _CREATE_VM, 0)
    try:
        with mmap.mmap(-1, _SIZE) as memory:
            address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
            number = REQUESTS["KVM_SET_USER_MEMORY_REGION"].number
            taken = []
            for n in range(_MOVES + 1):
                call = ctypes.create_string_buffer(pack(_region(_SIZE * (n % 2), address)))
                start = perf_counter_ns()
                _, errno = call_ioctl(vm, number, ctypes.addressof(call))
                taken.append(perf_counter_ns() - start)
                assert errno is None, f"the real MOVE failed with {errno}"
            return (median(taken[1:]) / 1000,)  # the first is a CREATE
    finally:
        os.close(vm)
        os.close(device)


def _region(gpa: int, hva: int) -> Ioctl:
    members = ("slot", "flags", "guest_phys_addr", "memory_size", "userspace_addr")
    return Ioctl("KVM_SET_USER_MEMORY_REGION", members=tuple(zip(members, (0, 0, gpa, _SIZE, hva), strict=True)))
