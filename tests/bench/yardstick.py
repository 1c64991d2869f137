"""The yardstick: what a real MOVE costs on this machine, where it has a /dev/kvm that may be used.

The targets in microseconds were written beside a measurement: on their machine KVM itself took 21 microseconds for
a MOVE of 2 MiB. Machines of one kind differ by a factor of three from day to day, and the real call tells by how
much. What is divided by it is told, not judged: the real call waits for readers, and that has moods of its own.
"""

from __future__ import annotations

import ctypes
import fcntl
import mmap
import os
from dataclasses import replace
from pathlib import Path
from time import perf_counter_ns, sleep
from typing import TYPE_CHECKING

from measure import percentile

from explorer.engine.commands import SetMemoryRegion
from explorer.live.child import call_ioctl
from explorer.live.ioctls import REQUESTS, Ioctl, ioctl_of, pack

if TYPE_CHECKING:
    from measure import Row

__all__ = ["real_move", "slower_by"]

REAL_MOVE_MICROSECONDS = 21
"""Of the machine for which the targets were written."""

_DEVICE = Path("/dev/kvm")
_CREATE_VM = 0xAE01
_SIZE = 2 << 20
_BATCHES, _MOVES = 10, 100
_PAUSE_SECONDS = 0.1
_QUICK = 0.1


def slower_by(row: Row, real: Row) -> Row:
    """Return a row as it would be on the machine of the targets: times divided, rates multiplied, and not judged."""
    factors = [value / REAL_MOVE_MICROSECONDS for value in real.rounds]
    rate = row.unit.endswith("/s")
    values = tuple(
        value * factor if rate else value / factor for value, factor in zip(row.rounds, factors, strict=True)
    )
    what = f"{row.what}, where the real MOVE takes {REAL_MOVE_MICROSECONDS} us"
    return replace(row, what=what, rounds=values, target=None)


def real_move() -> tuple[float, ...]:
    """Return the microseconds that KVM takes for a MOVE of 2 MiB; nothing without a device.

    The tenth quickest of a hundred, in the quickest of some batches: a wait for readers that takes the long way, or
    a neighbour of the machine, would flatter whatever is divided by it.
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
            return (min(_batch(vm, address) for _ in range(_BATCHES)) / 1000,)
    finally:
        os.close(vm)
        os.close(device)


def _batch(vm: int, address: int) -> float:
    sleep(_PAUSE_SECONDS)
    return percentile([_call(vm, _SIZE * ((n + 1) % 2), address) for n in range(_MOVES)], _QUICK)


def _call(vm: int, gpa: int, hva: int) -> int:
    """Make one call and return its nanoseconds."""
    made = ioctl_of(SetMemoryRegion(slot=0, guest_phys_addr=gpa, memory_size=_SIZE, userspace_addr=hva))
    assert isinstance(made, Ioctl), made
    call = ctypes.create_string_buffer(pack(made))
    start = perf_counter_ns()
    _, errno = call_ioctl(vm, REQUESTS[made.name].number, ctypes.addressof(call))
    taken = perf_counter_ns() - start
    assert errno is None, f"the real call failed with {errno}"
    return taken
