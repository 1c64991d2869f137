"""Refused calls and the changes that are offered for them, performed on this machine's own KVM.

A bare VM without a vCPU; memory is reserved and never touched. What needs gigabytes for arrays, a second address
space the machine does not have, or a guest_memfd is left to the recordings.
"""

from __future__ import annotations

import ctypes
import errno as errno_numbers
import fcntl
import mmap
import os
import platform
import re
import struct
from contextlib import contextmanager
from pathlib import Path

import pytest

from explorer.engine.apply import apply
from explorer.engine.commands import parse_command
from explorer.engine.config import VmConfig
from explorer.engine.profile import profile_of_release
from explorer.engine.state import new_vm
from explorer.explain.xray import xray_of

pytestmark = pytest.mark.kvm

DEVICE = Path("/dev/kvm")
KVM_CREATE_VM, KVM_CHECK_EXTENSION = 0xAE01, 0xAE03
KVM_SET_USER_MEMORY_REGION = 0x4020AE46
KVM_CAP_MULTI_ADDRESS_SPACE = 118
RESERVED = 64 << 20
MAP_NORESERVE = 0x4000
SLOTS = (
    # One slot in the middle, one behind a hole, one read-only, one logged.
    "set_region slot=1 gpa=0x100000 size=0x100000 hva={0}",
    "set_region slot=2 gpa=0x400000 size=0x100000 hva={1}",
    "set_region slot=3 gpa=0x600000 size=0x10000 hva={2} flags=ro",
    "set_region slot=4 gpa=0x700000 size=0x10000 hva={3} flags=log",
)
REFUSED = {
    # check, and a call that it refuses
    "overlap": (
        "set_region slot=5 gpa=0x180000 size=0x100000 hva={4}",
        "set_region slot=5 gpa=0x380000 size=0x100000 hva={4}",
        "set_region slot=5 gpa=0x100000 size=0x400000 hva={4}",
        "set_region slot=1 gpa=0x380000 size=0x100000 hva={0}",
        "set_region slot=5 gpa=0xff000 size=0x701000 hva={4}",
    ),
    "same_size": ("set_region slot=1 gpa=0x100000 size=0x80000 hva={0}", "set_region slot=1 gpa=0 size=0x1000 hva={0}"),
    "same_hva": ("set_region slot=1 gpa=0x100000 size=0x100000 hva={4}",),
    "same_readonly": (
        "set_region slot=3 gpa=0x600000 size=0x10000 hva={2}",
        "set_region slot=4 gpa=0x700000 size=0x10000 hva={3} flags=log,ro",
    ),
    "region_flags": ("set_region slot=5 gpa=0x800000 size=0x1000 hva={4} flags=0x9",),
    "user_slot_id": ("set_region slot=40000 gpa=0x800000 size=0x1000 hva={4}",),
    "size_aligned": ("set_region slot=5 gpa=0x800000 size=0x1800 hva={4}",),
    "gpa_aligned": ("set_region slot=5 gpa=0x800001 size=0x1000 hva={4}", "set_region slot=5 gpa=0x1ff800 size=0x1000"),
    "hva_aligned": ("set_region slot=5 gpa=0x800000 size=0x1000 hva=0x7f0000000001",),
    "hva_user_range": ("set_region slot=5 gpa=0x800000 size=0x1000 hva=0xffff800000000000",),
    "as_id": ("set_region slot=5 as=7 gpa=0x800000 size=0x1000 hva={4}",),
    "gpa_no_wrap": ("set_region slot=5 gpa=0xfffffffffffff000 size=0x2000 hva={4}",),
    "max_gfn": (
        "set_region slot=5 gpa=0x10000000000000 size=0x1000 hva={4}",
        "set_region slot=1 gpa=0x10000000000000 size=0x100000 hva={0}",
    ),
    "slot_exists": ("set_region slot=9 gpa=0 size=0",),
}


@pytest.fixture(scope="module")
def kvm():
    try:
        fd = os.open(DEVICE, os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        pytest.skip(f"{DEVICE} cannot be used: {error.strerror}")
    yield fd
    os.close(fd)


@pytest.fixture(scope="module")
def machine(kvm):
    """The model of this machine: its kernel's profile, paging mode, address width and address spaces."""
    profile = profile_of_release(platform.release())
    assert profile is not None, platform.release()
    parameters = [Path("/sys/module") / name for name in ("kvm_intel/parameters/ept", "kvm_amd/parameters/npt")]
    width = re.search(r"(\d+) bits physical", Path("/proc/cpuinfo").read_text(encoding="utf-8"))
    config = VmConfig(
        tdp=any(path.exists() and path.read_text(encoding="utf-8").strip() in ("Y", "1") for path in parameters),
        smm=fcntl.ioctl(kvm, KVM_CHECK_EXTENSION, KVM_CAP_MULTI_ADDRESS_SPACE) > 1,
        external_write_tracking=False,
        host_phys_bits=int(width[1]) if width else 46,
    )
    return new_vm(profile, config)


@pytest.fixture(scope="module")
def memory():
    """Host addresses of five stretches that are reserved and never touched."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype, libc.mmap.argtypes = (
        ctypes.c_size_t,
        [ctypes.c_size_t] * 2 + [ctypes.c_int] * 3 + [ctypes.c_long],
    )
    start = libc.mmap(0, RESERVED, 0, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | MAP_NORESERVE, -1, 0)
    assert start != ctypes.c_size_t(-1).value, os.strerror(ctypes.get_errno())
    yield [hex(start + (at << 20)) for at in range(0, 40, 8)]
    libc.munmap(ctypes.c_size_t(start), ctypes.c_size_t(RESERVED))


@contextmanager
def bare_vm(kvm):
    fd = fcntl.ioctl(kvm, KVM_CREATE_VM, 0)
    try:
        yield fd
    finally:
        os.close(fd)


def perform(vm, call):
    """Return the name of the errno that the kernel answers a region call with, or None."""
    slot = call.as_id << 16 | call.slot
    region = struct.pack("=IIQQQ", slot, call.flags, call.guest_phys_addr, call.memory_size, call.userspace_addr)
    try:
        fcntl.ioctl(vm, KVM_SET_USER_MEMORY_REGION, region)
    except OSError as error:
        return errno_numbers.errorcode[error.errno]
    return None


@pytest.mark.parametrize(("check", "line"), [(check, line) for check, lines in REFUSED.items() for line in lines])
def test_the_kernel_refuses_the_call_as_the_model_does_and_accepts_each_change(check, line, kvm, machine, memory):
    calls = [parse_command(text.format(*memory)) for text in SLOTS]
    call = parse_command(line.format(*memory))
    model = machine
    for first in calls:
        step = apply(model, first)
        assert step.errno is None
        model = step.kvm
    seen = xray_of(model, call)
    assert seen.guard.name == check
    assert seen.changes

    for change in seen.changes:
        with bare_vm(kvm) as vm:
            assert [perform(vm, first) for first in calls] == [None] * len(calls)
            assert perform(vm, call) == seen.errno.name
            assert [perform(vm, part) for part in change.commands] == [None] * len(change.commands), change.words
