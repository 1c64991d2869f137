"""The process that talks to ``/dev/kvm``: reads requests on standard input, answers on standard output, as JSON lines.

Rule 1: it is started as a file of its own, with nothing of this package imported, and dies with whoever started it; a
VM lives as long as its descriptors, so nothing is left behind.
Rule 2: it runs no guest. Memory that a slot asks for is reserved without access (PROT_NONE, MAP_NORESERVE) and never
touched; where the address is taken already, KVM gets the number alone.

::

    {"ask": [10, 118]}                             -> {"device": [...], "vm": [...], "vm_errno": null, "release": ...}
    {"perform": [call, ...], "bitmap": 4096, ...}  -> one {"errno": ...} for each call, then {"end": true}

A call is ``{"number", "value"}`` or ``{"number", "struct"}`` with the structure in hex; ``reserve``, ``bitmap``, ``fd``
and ``makes`` say what else is to be filled in.
"""

from __future__ import annotations

import ctypes
import errno as errnos
import json
import mmap
import os
import re
import resource
import signal
import sys
from typing import Any

KVM_CREATE_VM = 0xAE01
KVM_CHECK_EXTENSION = 0xAE03
PR_SET_PDEATHSIG = 1
MAP_FLAGS = 0x02 | 0x20 | 0x4000 | 0x100000
"""MAP_PRIVATE, MAP_ANONYMOUS, MAP_NORESERVE, MAP_FIXED_NOREPLACE."""
PROT_NONE = 0
MAP_FAILED = ctypes.c_void_p(-1).value

libc = ctypes.CDLL(None, use_errno=True)
libc.ioctl.argtypes = (ctypes.c_int, ctypes.c_ulong, ctypes.c_ulong)
libc.mmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long)
libc.mmap.restype = ctypes.c_void_p
ASK_SECONDS = 30.0


def main() -> None:
    """Answer requests until standard input ends."""
    parent, seconds, device = int(sys.argv[1]), float(sys.argv[2]), sys.argv[3]
    libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # it died before the kernel knew that we want to follow
        return
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for line in sys.stdin:
        request = json.loads(line)
        # Whatever hangs, the alarm ends the process: nothing handles the signal. Only a run has a limit of its own.
        signal.setitimer(signal.ITIMER_REAL, seconds if "perform" in request else max(seconds, ASK_SECONDS))
        try:
            answer(request, device)
        except OSError as error:
            say(
                {"failed": errnos.errorcode.get(error.errno or 0, str(error.errno)), "what": error.filename or "a call"}
            )
        signal.setitimer(signal.ITIMER_REAL, 0)


def answer(request: dict[str, Any], device: str) -> None:
    """Do what one request asks for, on a VM of its own."""
    kvm = os.open(device, os.O_RDWR | os.O_CLOEXEC)
    try:
        vm, vm_errno = call_ioctl(kvm, KVM_CREATE_VM, int(request.get("vm_type", 0)))
        if "ask" in request:
            say(
                {
                    "release": os.uname().release,
                    "device": [call_ioctl(kvm, KVM_CHECK_EXTENSION, number)[0] for number in request["ask"]],
                    "vm": [call_ioctl(vm, KVM_CHECK_EXTENSION, number)[0] for number in request["ask"]],
                    "vm_errno": vm_errno,
                }
            )
        elif vm_errno is not None:
            say({"failed": vm_errno, "what": "KVM_CREATE_VM"})
        else:
            machine = Machine(vm, int(request["bitmap"]))
            try:
                for call in request["perform"]:
                    say(machine.perform(call))
                say({"end": True})
            finally:
                machine.close()
        if vm_errno is None:
            os.close(vm)
    finally:
        os.close(kvm)


class Machine:
    """One VM, its files, and the memory that is reserved for it."""

    def __init__(self, vm: int, bitmap_bytes: int) -> None:
        self.vm = vm
        self.files: dict[int, int] = {}
        """Descriptors by the number that the requests use."""
        self.vcpus: list[int] = []
        self.reserved: list[tuple[int, int]] = []
        # Large enough for every slot that is asked for: the kernel decides how much of it it writes.
        self.bitmap = mmap.mmap(-1, max(bitmap_bytes, mmap.PAGESIZE))
        self.address = ctypes.addressof(ctypes.c_char.from_buffer(self.bitmap))

    def perform(self, call: dict[str, Any]) -> dict[str, Any]:
        """Make one call and say what came of it."""
        if "reserve" in call:
            self.reserve(*call["reserve"])
        if "struct" not in call:
            value, errno = call_ioctl(self.vm, call["number"], call["value"])
            if "makes" in call and errno is None:
                self.vcpus.append(value)
            return {"errno": errno}
        argument = bytearray.fromhex(call["struct"])
        if "fd" in call:
            at, fd = call["fd"]
            if fd < 1 << 31:
                # What is no guest_memfd of this VM is some other open file: standard input.
                fd = self.files.get(fd, 0)
            argument[at : at + 4] = fd.to_bytes(4, "little")
        if "bitmap" in call:
            at, byte = call["bitmap"]
            self.bitmap[:] = bytes([byte]) * len(self.bitmap)
            argument[at : at + 8] = self.address.to_bytes(8, "little")
        buffer = (ctypes.c_char * len(argument)).from_buffer(argument)
        value, errno = call_ioctl(self.vm, call["number"], ctypes.addressof(buffer))
        if "makes" in call and errno is None:
            old = self.files.pop(call["makes"], None)
            if old is not None:
                os.close(old)
            self.files[call["makes"]] = value
        if "bitmap" in call and call["bitmap"][1] == 0 and errno is None:
            return {"errno": None, "dirty": runs(self.bitmap)}
        return {"errno": errno}

    def reserve(self, address: int, size: int) -> None:
        """Keep a range of addresses free of everything else, as far as nothing is there yet."""
        at = libc.mmap(address, size, PROT_NONE, MAP_FLAGS, -1, 0)
        if at not in (None, MAP_FAILED):
            self.reserved.append((at, size))

    def close(self) -> None:
        """Let go of what was made beside the VM."""
        for fd in (*self.files.values(), *self.vcpus):
            os.close(fd)
        for address, size in self.reserved:
            libc.munmap(ctypes.c_void_p(address), ctypes.c_size_t(size))


def call_ioctl(fd: int, number: int, argument: int) -> tuple[int, str | None]:
    """Return what an ioctl returned and the name of its errno."""
    value = libc.ioctl(fd, number, argument)
    if value >= 0:
        return value, None
    errno = ctypes.get_errno()
    return value, errnos.errorcode.get(errno, str(errno))


def runs(bitmap: mmap.mmap) -> list[tuple[int, int]]:
    """Return the runs of set bits, half-open, in order."""
    found: list[tuple[int, int]] = []
    for part in re.finditer(rb"\xff+|[^\x00\xff]", bitmap):
        text = part[0]
        first = part.start() * 8
        if text[0] == 0xFF:  # noqa: PLR2004 - all bits of a byte
            add(found, first, first + 8 * len(text))
        else:
            for bit in range(8):
                if text[0] >> bit & 1:
                    add(found, first + bit, first + bit + 1)
    return found


def add(found: list[tuple[int, int]], start: int, end: int) -> None:
    """Append a run, or make the last one longer."""
    if found and found[-1][1] == start:
        found[-1] = (found[-1][0], end)
    else:
        found.append((start, end))


def say(reply: dict[str, Any]) -> None:
    """Write one reply."""
    sys.stdout.write(json.dumps(reply) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
