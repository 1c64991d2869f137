"""``/dev/kvm`` from a distance: a process of its own makes the VM and the calls, this side reads the answers.

Read next: `child`, which is that process; then `compare`.
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from explorer.engine.capabilities import CAPABILITIES
from explorer.engine.types import PAGE_SHIFT, ExplorerError
from explorer.live.bare import Limits
from explorer.live.ioctls import REQUESTS, pack

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence
    from types import TracebackType
    from typing import Self

    from explorer.live.ioctls import Ioctl

__all__ = ["Answer", "Answers", "Device", "DeviceError"]

_CHILD = Path(__file__).with_name("child.py")
_REASONS = {
    "ENOENT": "there is no {device} on this machine: KVM is not loaded, or a container hides it",
    "EACCES": "this user may not open {device}; give it the device's group, usually kvm",
    "EPERM": "this user may not open {device}; give it the device's group, usually kvm",
    "ENODEV": "{device} is there, but no KVM module for this processor is loaded",
    "ENXIO": "{device} is there, but no KVM module for this processor is loaded",
}
_BITMAP_AT = {"KVM_GET_DIRTY_LOG": 8, "KVM_CLEAR_DIRTY_LOG": 16}
_FD_AT = 40
"""Bytes before ``guest_memfd`` in its structure."""
_END_SECONDS = 2.0
_START_SECONDS = 30.0
"""For the process to start, on however busy a machine; the limit of a run is the run's."""


class DeviceError(ExplorerError):
    """The device cannot be used; the message says why."""


class Answer(NamedTuple):
    """What the kernel answered to one call."""

    errno: str | None
    """Name, or None for success."""
    dirty: tuple[tuple[int, int], ...] | None
    """Runs of dirty pages, for a dirty log that was read."""


class Answers(NamedTuple):
    """What the kernel says of itself."""

    release: str
    device: dict[str, int]
    """Answers of ``/dev/kvm`` to KVM_CHECK_EXTENSION, by capability."""
    vm: dict[str, int]
    """Those of a VM."""


class Device:
    """The machine's KVM. A context: the process that holds the device ends with it.

    Parameters
    ----------
    limits
        What all runs on it may take.
    path
        The device.

    Raises
    ------
    DeviceError
        If there is no device that this user may open.
    """

    def __init__(self, limits: Limits | None = None, path: Path = Path("/dev/kvm")) -> None:
        """Start the process and open the device once, to see whether it can be."""
        self.limits = limits or Limits()
        self._path = str(path)
        # The kernel ends the child when the *thread* that started it ends, so a session stays in one thread.
        self._child = subprocess.Popen(  # noqa: S603 - our own file, by our own interpreter
            [sys.executable, "-I", "-S", str(_CHILD), str(os.getpid()), str(self.limits.seconds), self._path],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
        )
        self._unread = b""
        try:
            self.answers = self._ask()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        """Return the device."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the process."""
        self.close()

    @property
    def pid(self) -> int:
        """Number of the process that holds the device."""
        return self._child.pid

    def close(self) -> None:
        """End the process; its VM goes with it."""
        self._child.kill()
        with suppress(subprocess.TimeoutExpired):  # the kernel may still be letting go of a large VM
            self._child.wait(_END_SECONDS)
        for stream in (self._child.stdin, self._child.stdout):
            if stream is not None:
                stream.close()

    def _ask(self) -> Answers:
        names = [name for name, row in CAPABILITIES.items() if row.number]
        self._say({"ask": [CAPABILITIES[name].number for name in names]})
        reply = self._hear(time.monotonic() + max(self.limits.seconds, _START_SECONDS))
        if reply["vm_errno"] is not None:
            raise DeviceError(f"{self._path} makes no VM: KVM_CREATE_VM fails with {reply['vm_errno']}; is it KVM?")
        return Answers(
            str(reply["release"]),
            dict(zip(names, reply["device"], strict=True)),
            dict(zip(names, reply["vm"], strict=True)),
        )

    def perform(self, calls: Sequence[Ioctl], *, vm_type: int = 0) -> Generator[Answer, None, None]:
        """Make calls on a new VM, one after the other, and iterate over what the kernel answers.

        Raises
        ------
        DeviceError
            If the process ends, no VM can be made, or the limit of time is reached.
        """
        longest = max((call.memory[1] >> PAGE_SHIFT for call in calls), default=0)
        bitmap = min(longest, self.limits.most_pages) // 8 + 64
        self._say({"perform": [_as_json(call) for call in calls], "bitmap": bitmap, "vm_type": vm_type})
        deadline = time.monotonic() + self.limits.seconds
        ended = False
        try:
            for _ in calls:
                reply = self._hear(deadline)
                dirty = reply.get("dirty")
                yield Answer(reply["errno"], None if dirty is None else tuple((start, end) for start, end in dirty))
            ended = "end" in self._hear(deadline)
        finally:
            if not ended:  # nobody wants the rest, and the next run must not read it
                self.close()

    def _say(self, request: dict[str, Any]) -> None:
        assert self._child.stdin is not None, "opened with a pipe"
        line = memoryview(json.dumps(request).encode() + b"\n")
        try:
            while line:
                line = line[self._child.stdin.write(line) :]
        except (BrokenPipeError, ValueError) as error:
            raise DeviceError(self._ended()) from error

    def _hear(self, deadline: float) -> dict[str, Any]:
        """Return the next reply; a failure that it tells becomes a sentence."""
        assert self._child.stdout is not None, "opened with a pipe"
        stream = self._child.stdout
        while b"\n" not in self._unread:
            ready, _, _ = select.select([stream], [], [], max(deadline - time.monotonic(), 0))
            if not ready:
                self._child.kill()
                raise DeviceError(self._too_long())
            piece = os.read(stream.fileno(), 1 << 16)
            if not piece:
                raise DeviceError(self._ended())
            self._unread += piece
        line, _, self._unread = self._unread.partition(b"\n")
        reply: dict[str, Any] = json.loads(line)
        if "failed" in reply:
            errno, what = reply["failed"], reply["what"]
            reason = _REASONS.get(errno) if what == self._path else None
            raise DeviceError(reason.format(device=self._path) if reason else f"{what} fails with {errno}")
        return reply

    def _too_long(self) -> str:
        return f"the run was not done within {self.limits.seconds:g} s; the VM was given up"

    def _ended(self) -> str:
        status = self._child.wait(_END_SECONDS)
        if status == -signal.SIGALRM:  # its own limit of time
            return self._too_long()
        return f"the process that held /dev/kvm ended ({f'signal {-status}' if status < 0 else f'status {status}'})"


def _as_json(call: Ioctl) -> dict[str, Any]:
    """Return a call as the process takes it."""
    request = REQUESTS[call.name]
    made: dict[str, Any] = {"number": request.number}
    if not request.struct:
        made["value"] = call.value
        if call.name == "KVM_CREATE_VCPU":
            made["makes"] = call.value
        return made
    made["struct"] = pack(call).hex()
    if call.memory[1]:
        made["reserve"] = call.memory
    if call.name in _BITMAP_AT:
        # A log that is cleared names every page; one that is read begins empty.
        made["bitmap"] = [_BITMAP_AT[call.name], 0xFF if call.name == "KVM_CLEAR_DIRTY_LOG" else 0]
    if call.fd is not None:
        if call.name == "KVM_CREATE_GUEST_MEMFD":
            made["makes"] = call.fd
        else:
            made["fd"] = [_FD_AT, call.fd]
    return made
