"""Which ioctl a command is, with its number and its argument as KVM expects it.

Rule: a command either is one ioctl on the VM's descriptor that needs no guest, or there is a sentence that says why
it is not.

Models include/uapi/linux/kvm.h: the numbers and the structures of the calls.
Not modelled: calls on a vCPU, capabilities that the engine does not know. Read next: `bare`.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from explorer.engine.commands import (
    Advance,
    AttachTracker,
    Begin,
    BuildPageTables,
    ClearDirtyLog,
    CreateGuestMemfd,
    CreateIrqchip,
    CreateVcpu,
    DetachTracker,
    EnableCap,
    GetDirtyLog,
    GuestRead,
    GuestWrite,
    HostTouch,
    ReadTrackerLog,
    SetIdentityMapAddr,
    SetMemoryRegion,
    SetMemoryRegion2,
    SetTssAddr,
    SetVcpuMode,
    ShadowTables,
    SubmitWorkload,
    TrackGfn,
    UntrackGfn,
)
from explorer.engine.types import U64_MAX
from explorer.engine.uapi import (
    KVM_CAP_DISABLE_QUIRKS2,
    KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2,
    KVM_CAP_SPLIT_IRQCHIP,
)

if TYPE_CHECKING:
    from explorer.engine.commands import Command

__all__ = ["REQUESTS", "Ioctl", "Request", "ioctl_of", "pack"]

_U16_MAX = (1 << 16) - 1
_U32_MAX = (1 << 32) - 1
_MOST_VCPUS = 1024
"""KVM_MAX_VCPUS by default, which the model has no limit for."""
_CAPS = {KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2, KVM_CAP_DISABLE_QUIRKS2, KVM_CAP_SPLIT_IRQCHIP}


@dataclass(frozen=True, slots=True)
class Request:
    """One kind of ioctl."""

    number: int
    struct: str = ""
    """C name of the structure its argument points to; empty if the argument is a number."""
    layout: str = ""
    """The structure for `struct.pack`."""
    members: tuple[str, ...] = ()
    """Names of the values in `layout`, in order."""


_REGION = ("slot", "flags", "guest_phys_addr", "memory_size", "userspace_addr")

REQUESTS: dict[str, Request] = {
    "KVM_SET_USER_MEMORY_REGION": Request(0x4020AE46, "kvm_userspace_memory_region", "<IIQQQ", _REGION),
    "KVM_SET_USER_MEMORY_REGION2": Request(
        0x40A0AE49,
        "kvm_userspace_memory_region2",
        "<IIQQQQI116x",
        (*_REGION, "guest_memfd_offset", "guest_memfd"),
    ),
    "KVM_CREATE_GUEST_MEMFD": Request(0xC040AED4, "kvm_create_guest_memfd", "<QQ48x", ("size", "flags")),
    "KVM_GET_DIRTY_LOG": Request(0x4010AE42, "kvm_dirty_log", "<IxxxxQ", ("slot", "dirty_bitmap")),
    "KVM_CLEAR_DIRTY_LOG": Request(
        0xC018AEC0, "kvm_clear_dirty_log", "<IIQQ", ("slot", "num_pages", "first_page", "dirty_bitmap")
    ),
    "KVM_ENABLE_CAP": Request(0x4068AEA3, "kvm_enable_cap", "<IxxxxQ88x", ("cap", "args[0]")),
    "KVM_SET_TSS_ADDR": Request(0xAE47),
    "KVM_SET_IDENTITY_MAP_ADDR": Request(0x4008AE48, "__u64", "<Q", ("addr",)),
    "KVM_CREATE_IRQCHIP": Request(0xAE60),
    "KVM_CREATE_VCPU": Request(0xAE41),
}
"""Every ioctl that is made, by name."""


class Ioctl(NamedTuple):
    """One ioctl on the VM's descriptor."""

    name: str
    value: int = 0
    """The argument, if it is a number."""
    members: tuple[tuple[str, int], ...] = ()
    """The argument, if it is a structure: its members in order. ``dirty_bitmap`` is an address the caller chooses."""
    fd: int | None = None
    """Descriptor that the model uses for the file that is made or asked for; the kernel chooses its own."""
    memory: tuple[int, int] = (0, 0)
    """Host address and bytes of what a slot is asked to have behind it."""


def pack(call: Ioctl, **replaced: int) -> bytes:
    """Return the structure a call's argument points to, with some members replaced."""
    values = dict(call.members) | replaced
    request = REQUESTS[call.name]
    return struct.pack(request.layout, *(values[name] for name in request.members))


def ioctl_of(command: Command) -> Ioctl | str:
    """Return the ioctl that a command is, or why it is none that a bare VM can be asked."""
    match command:
        case SetMemoryRegion():
            return _region(command)
        case Begin():
            return ioctl_of(command.call)
        case Advance():
            return "part of a region call, which the kernel does in one go"
        case CreateGuestMemfd():
            if command.fd > _U32_MAX:
                return _no_fit("fd")
            return _struct("KVM_CREATE_GUEST_MEMFD", command.size, command.flags)._replace(fd=command.fd)
        case GetDirtyLog():
            slot = _slot(command.slot, command.as_id)
            return _no_fit("slot") if slot is None else _struct("KVM_GET_DIRTY_LOG", slot, 0)
        case ClearDirtyLog():
            slot = _slot(command.slot, command.as_id)
            if slot is None or command.num_pages > _U32_MAX:
                return _no_fit("slot" if slot is None else "num_pages")
            return _struct("KVM_CLEAR_DIRTY_LOG", slot, command.num_pages, command.first_page, 0)
        case EnableCap():
            if command.cap not in _CAPS:
                return f"capability {command.cap} is not modelled"
            return _struct("KVM_ENABLE_CAP", command.cap, command.arg)
        case SetTssAddr():
            return Ioctl("KVM_SET_TSS_ADDR", command.addr)
        case SetIdentityMapAddr():
            return _struct("KVM_SET_IDENTITY_MAP_ADDR", command.addr)
        case CreateIrqchip():
            return Ioctl("KVM_CREATE_IRQCHIP")
        case CreateVcpu():
            return Ioctl("KVM_CREATE_VCPU", command.id) if command.id < _MOST_VCPUS else _no_fit("id")
        case AttachTracker() | DetachTracker() | TrackGfn() | UntrackGfn() | ReadTrackerLog() | SubmitWorkload():
            return "page trackers are inside the kernel; no ioctl reaches them"
        case GuestWrite() | GuestRead() | ShadowTables():
            return "needs a guest that runs"
        case SetVcpuMode():
            return "prepares a guest that runs"
        case HostTouch() | BuildPageTables():
            return "stores into memory behind a slot, which is reserved and never touched"


def _region(command: SetMemoryRegion) -> Ioctl | str:
    slot = _slot(command.slot, command.as_id)
    if slot is None or command.flags > _U32_MAX:
        return _no_fit("slot" if slot is None else "flags")
    plain = (slot, command.flags, command.guest_phys_addr, command.memory_size, command.userspace_addr)
    memory = (command.userspace_addr, command.memory_size)
    if not isinstance(command, SetMemoryRegion2):
        return _struct("KVM_SET_USER_MEMORY_REGION", *plain)._replace(memory=memory)
    if command.guest_memfd > _U32_MAX:
        return _no_fit("guest_memfd")
    call = _struct("KVM_SET_USER_MEMORY_REGION2", *plain, command.guest_memfd_offset, command.guest_memfd)
    return call._replace(memory=memory, fd=command.guest_memfd)


def _slot(slot: int, as_id: int) -> int | None:
    return as_id << 16 | slot if max(slot, as_id) <= _U16_MAX else None


def _no_fit(member: str) -> str:
    return f"{member} does not fit the call's argument"


def _struct(name: str, *values: int) -> Ioctl:
    members = tuple(zip(REQUESTS[name].members, values, strict=True))
    assert all(0 <= value <= U64_MAX for value in values), "a command's numbers are unsigned"
    return Ioctl(name, members=members)
