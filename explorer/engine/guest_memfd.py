"""guest_memfd: files of guest memory that the VMM need not be able to reach, and the slots on them.

A file is made for one VM. A slot on it takes a part when it is created and gives it back when it is deleted;
in between the two cannot be changed: no MOVE, no other flags, no dirty log, no read-only slot. Two slots
never share a page of a file.

Models virt/kvm/guest_memfd.c: kvm_gmem_create(), kvm_gmem_release(), kvm_gmem_prepare_memory_region() and
kvm_gmem_commit_memory_region() (one function, kvm_gmem_bind(), before v7_3), kvm_gmem_unbind().
Not modelled: what is in a file, holes punched into it, which pages are private (memory attributes), a file
that is closed without another taking its number. A descriptor the model has no file for is taken for some
other open file, and one above 2^31 for none. Read next: `region_call`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from explorer.engine.capabilities import supported_guest_memfd_flags
from explorer.engine.events import GuestMemfdBound, GuestMemfdCreated, GuestMemfdUnbound
from explorer.engine.state import GmemBinding, GmemPart, GuestMemfd
from explorer.engine.types import PAGE_SHIFT, PAGE_SIZE, Errno
from explorer.engine.uapi import KVM_GUEST_MEMFD_FLAG_MMAP, KVM_MEMSLOT_GMEM_ONLY

if TYPE_CHECKING:
    from explorer.engine.draft import KvmDraft
    from explorer.engine.state import KvmMemorySlot

__all__ = [
    "bound_to",
    "has_file",
    "kvm_gmem_commit_memory_region",
    "kvm_gmem_create",
    "kvm_gmem_prepare_memory_region",
    "kvm_gmem_unbind",
]

_S64_MAX = (1 << 63) - 1
_S32_MAX = (1 << 31) - 1


def kvm_gmem_create(kvm: KvmDraft, fd: int, size: int, flags: int) -> Errno | None:
    """Make a file of `size` bytes, known as `fd` from now on. Any VM may, even one whose slots may not use it.

    References
    ----------
    virt/kvm/guest_memfd.c: kvm_gmem_create(); virt/kvm/kvm_main.c: kvm_vm_ioctl() [v6_12 to v7_3]
    """
    if not kvm.profile.set_user_memory_region2:
        return Errno.ENOTTY
    kvm.enter("kvm_gmem_create")
    if flags & ~supported_guest_memfd_flags(kvm.profile, kvm.config):
        return Errno.EINVAL
    if not 0 < size <= _S64_MAX or size % PAGE_SIZE:
        return Errno.EINVAL
    kvm_gmem_release(kvm, fd)
    kvm.guest_memfds = kvm.guest_memfds.set(fd, GuestMemfd(size, flags))
    kvm.emit(GuestMemfdCreated, fd=fd, size=size, flags=flags)
    return None


def kvm_gmem_release(kvm: KvmDraft, fd: int) -> None:
    """Forget the file that has this descriptor, if one has: its slots stay, with nothing behind them.

    References
    ----------
    virt/kvm/guest_memfd.c: kvm_gmem_release() [v6_12 to v7_3]
    """
    file = kvm.guest_memfds.get(fd)
    if file is None:
        return
    kvm.enter("kvm_gmem_release")
    for pgoff, binding in file.bindings.items():
        for edited in kvm.memslots[binding.as_id].sets:
            slot = edited.id_hash[binding.slot]._replace(gmem=None)
            kvm.put_set(binding.as_id, edited._replace(id_hash=edited.id_hash.set(slot.id, slot)))
        _note(kvm, GuestMemfdUnbound, binding, fd, pgoff)
    kvm.guest_memfds = kvm.guest_memfds.discard(fd)


def has_file(fd: int) -> bool:
    """Return whether there can be an open file behind a descriptor: -1, as an unsigned number, has none."""
    return fd <= _S32_MAX


def bound_to(file: GuestMemfd, pgoff: int, npages: int) -> GmemBinding | None:
    """Return who has taken a page of a part of a file, or None."""
    found = file.bindings.floor(pgoff + npages - 1)
    return found[1] if found is not None and found[0] + found[1].npages > pgoff else None


def kvm_gmem_prepare_memory_region(kvm: KvmDraft, slot: KvmMemorySlot, fd: int, offset: int) -> KvmMemorySlot:
    """Return the new slot with its part of a file, once every check has passed.

    Where there is no later step to do it, the part is taken here.

    References
    ----------
    virt/kvm/guest_memfd.c: kvm_gmem_prepare_memory_region() [v7_3], kvm_gmem_bind() [v6_12 to v6_18]
    """
    file = kvm.guest_memfds[fd]
    # What can be mapped needs no other memory behind the slot.
    flags = slot.flags | (KVM_MEMSLOT_GMEM_ONLY if file.flags & KVM_GUEST_MEMFD_FLAG_MMAP else 0)
    slot = slot._replace(flags=flags, gmem=GmemPart(fd, offset >> PAGE_SHIFT))
    if not kvm.profile.guest_memfd_binds_late:
        _bind(kvm, slot)
    return slot


def kvm_gmem_commit_memory_region(kvm: KvmDraft, slot: KvmMemorySlot) -> None:
    """Take the part of the file for a slot that is ready to be published.

    References
    ----------
    virt/kvm/guest_memfd.c: kvm_gmem_commit_memory_region() [v7_3], kvm_gmem_bind() [v6_12 to v6_18]
    """
    _bind(kvm, slot)


def _bind(kvm: KvmDraft, slot: KvmMemorySlot) -> None:
    part = slot.gmem
    assert part is not None, "only a slot on guest_memfd is bound"
    file = kvm.guest_memfds[part.fd]
    binding = GmemBinding(slot.npages, slot.as_id, slot.id)
    kvm.guest_memfds = kvm.guest_memfds.set(part.fd, file._replace(bindings=file.bindings.set(part.pgoff, binding)))
    _note(kvm, GuestMemfdBound, binding, part.fd, part.pgoff)


def kvm_gmem_unbind(kvm: KvmDraft, slot: KvmMemorySlot) -> None:
    """Give back the part of a file that a slot has; nothing happens if the file was closed before.

    References
    ----------
    virt/kvm/guest_memfd.c: kvm_gmem_unbind() [v6_12 to v7_3]
    """
    part = slot.gmem
    if part is None:
        return
    kvm.enter("kvm_gmem_unbind")
    file = kvm.guest_memfds[part.fd]
    binding = file.bindings[part.pgoff]
    kvm.guest_memfds = kvm.guest_memfds.set(part.fd, file._replace(bindings=file.bindings.discard(part.pgoff)))
    _note(kvm, GuestMemfdUnbound, binding, part.fd, part.pgoff)


def _note(
    kvm: KvmDraft, event: type[GuestMemfdBound | GuestMemfdUnbound], binding: GmemBinding, fd: int, pgoff: int
) -> None:
    kvm.emit(event, slot=binding.slot, as_id=binding.as_id, fd=fd, pgoff=pgoff, npages=binding.npages)
