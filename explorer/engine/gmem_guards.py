"""The checks that came with KVM_SET_USER_MEMORY_REGION2: of flags, of the file and of the part of it a slot takes.

Models the checks of virt/kvm/kvm_main.c: check_memory_region_flags() and kvm_set_memory_region() for guest_memfd,
and of virt/kvm/guest_memfd.c: kvm_gmem_prepare_memory_region(), kvm_gmem_commit_memory_region().
Not modelled: VMs with protected state (no READONLY), the padding of REGION2, which no kernel checks.
Read next: `swap`.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from explorer.engine.commands import SetMemoryRegion2
from explorer.engine.guard import Guard, multiple
from explorer.engine.guest_memfd import bound_to, has_file
from explorer.engine.types import PAGE_SHIFT, PAGE_SIZE, U64_MAX, Errno
from explorer.engine.uapi import (
    KVM_MEM_GUEST_MEMFD,
    KVM_MEM_LOG_DIRTY_PAGES,
    KVM_MEM_READONLY,
)

if TYPE_CHECKING:
    from explorer.engine.draft import KvmDraft
    from explorer.engine.region_call import RegionUpdate
    from explorer.engine.state import GmemBinding

__all__ = [
    "GMEM_FD",
    "GMEM_FILE",
    "GMEM_FREE",
    "GMEM_IMMUTABLE",
    "GMEM_NO_WRAP",
    "GMEM_OFFSET_ALIGNED",
    "GMEM_SIZE",
    "GMEM_STILL_FREE",
    "REGION2_EXISTS",
    "SAME_GUEST_MEMFD",
    "check_memory_region_flags",
]


REGION2_EXISTS = Guard(
    name="region2_exists",
    title="the kernel knows the call",
    function="kvm_arch_vm_ioctl",
    errno=Errno.ENOTTY,
    passes=lambda kvm, _: kvm.profile.set_user_memory_region2,
    operands=lambda kvm, _: f"it {'has' if kvm.profile.set_user_memory_region2 else 'does not have'} REGION2",
    behaviour=lambda profile: not profile.set_user_memory_region2,
)


def check_memory_region_flags(kvm: KvmDraft, flags: int) -> int:
    """Return the flags that a region call may have beside those it has.

    References
    ----------
    virt/kvm/kvm_main.c: check_memory_region_flags() [all profiles]
    """
    if not flags & KVM_MEM_GUEST_MEMFD:
        return KVM_MEM_LOG_DIRTY_PAGES | KVM_MEM_READONLY
    # Private memory is neither logged nor read-only, and not every VM may have it.
    return KVM_MEM_GUEST_MEMFD if kvm.profile.guest_memfd_for_every_vm or kvm.config.has_private_mem else 0


GMEM_OFFSET_ALIGNED = Guard(
    name="gmem_offset_aligned",
    title="offset in the file on a page",
    function="kvm_set_memory_region",
    errno=Errno.EINVAL,
    passes=lambda _, u: not _offset(u) & (PAGE_SIZE - 1),
    operands=lambda _, u: f"offset {multiple(_offset(u))}",
)
GMEM_NO_WRAP = Guard(
    name="gmem_no_wrap",
    title="part of the file does not wrap",
    function="kvm_set_memory_region",
    errno=Errno.EINVAL,
    passes=lambda _, u: _offset(u) + u.call.memory_size <= U64_MAX,
    operands=lambda _, u: f"offset + size = {_offset(u) + u.call.memory_size:#x}, most is {U64_MAX:#x}",
)


GMEM_IMMUTABLE = Guard(
    name="gmem_immutable",
    title="a slot that exists is not put on guest_memfd",
    function="kvm_set_memory_region",
    errno=Errno.EINVAL,
    passes=lambda _, u: not u.call.flags & KVM_MEM_GUEST_MEMFD,
    operands=lambda _, u: f"slot {u.call.slot} exists; with guest_memfd it can only be deleted",
)

SAME_GUEST_MEMFD = Guard(
    name="same_guest_memfd",
    title="GUEST_MEMFD unchanged",
    function="kvm_set_memory_region",
    errno=Errno.EINVAL,
    passes=lambda _, u: u.old is not None and not (u.call.flags ^ u.old.flags) & KVM_MEM_GUEST_MEMFD,
    operands=lambda _, u: (
        f"GUEST_MEMFD {'on' if u.call.flags & KVM_MEM_GUEST_MEMFD else 'off'},"
        f" slot has it {'on' if u.old and u.old.flags & KVM_MEM_GUEST_MEMFD else 'off'}"
    ),
    behaviour=lambda profile: profile.set_user_memory_region2,
)


def _offset(update: RegionUpdate) -> int:
    return update.call.guest_memfd_offset if isinstance(update.call, SetMemoryRegion2) else 0


def _fd(update: RegionUpdate) -> int:
    return update.call.guest_memfd if isinstance(update.call, SetMemoryRegion2) else 0


def _file_size(kvm: KvmDraft, update: RegionUpdate) -> int:
    file = kvm.guest_memfds.get(_fd(update))
    return 0 if file is None else file.size


def _gmem_holder(kvm: KvmDraft, update: RegionUpdate) -> GmemBinding | None:
    file = kvm.guest_memfds.get(_fd(update))
    return None if file is None else bound_to(file, _offset(update) >> PAGE_SHIFT, update.npages)


def _gmem_overlap_operands(kvm: KvmDraft, update: RegionUpdate) -> str:
    first = _offset(update) >> PAGE_SHIFT
    holder = _gmem_holder(kvm, update)
    pages = f"pages [{first:#x}, {first + update.npages:#x}) of the file"
    return f"{pages} are free" if holder is None else f"slot {holder.slot} has some of {pages}"


GMEM_FD = Guard(
    name="gmem_fd",
    title="the descriptor is open",
    function="kvm_gmem_prepare_memory_region",
    errno=Errno.EBADF,
    passes=lambda _, u: has_file(_fd(u)),
    operands=lambda _, u: f"descriptor {_fd(u) if has_file(_fd(u)) else _fd(u) - (1 << 32)}",
)
GMEM_FILE = Guard(
    name="gmem_file",
    title="the descriptor is a guest_memfd of this VM",
    function="kvm_gmem_prepare_memory_region",
    errno=Errno.EINVAL,
    passes=lambda kvm, u: _fd(u) in kvm.guest_memfds,
    operands=lambda kvm, u: f"descriptor {_fd(u)} {'is' if _fd(u) in kvm.guest_memfds else 'is none'}",
)
GMEM_SIZE = Guard(
    name="gmem_size",
    title="part lies in the file",
    function="kvm_gmem_prepare_memory_region",
    errno=Errno.EINVAL,
    passes=lambda kvm, u: _offset(u) + u.call.memory_size <= _file_size(kvm, u),
    operands=lambda kvm, u: f"ends at {_offset(u) + u.call.memory_size:#x}, the file at {_file_size(kvm, u):#x}",
)
GMEM_FREE = Guard(
    name="gmem_overlap",
    title="no other slot has the part",
    function="kvm_gmem_prepare_memory_region",
    errno=Errno.EINVAL,
    passes=lambda kvm, u: _gmem_holder(kvm, u) is None,
    operands=_gmem_overlap_operands,
    behaviour=lambda profile: not profile.guest_memfd_binds_late,
)
GMEM_STILL_FREE = replace(
    GMEM_FREE,
    function="kvm_gmem_commit_memory_region",
    errno=Errno.EEXIST,
    behaviour=lambda profile: profile.guest_memfd_binds_late,
)
