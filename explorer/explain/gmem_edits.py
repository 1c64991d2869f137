"""What could be changed in a refused call that puts a slot on a guest_memfd. Read next: `changes`."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from explorer.engine.commands import CreateGuestMemfd, SetMemoryRegion2
from explorer.engine.guest_memfd import bound_to
from explorer.engine.types import PAGE_SHIFT, PAGE_SIZE
from explorer.engine.uapi import KVM_MEM_GUEST_MEMFD
from explorer.explain.edits import ARGUMENT, CALL_BEFORE, Edit, deletion, with_size
from explorer.explain.words import hex_text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from explorer.engine.commands import SetMemoryRegion
    from explorer.engine.state import GuestMemfd, Kvm

__all__ = ["GMEM_EDITS"]

_FIRST_FD = 3
"""Descriptors below it are any program's own."""


def _offset_aligned(_kvm: Kvm, call: SetMemoryRegion) -> Iterator[Edit]:
    if isinstance(call, SetMemoryRegion2):
        down = call.guest_memfd_offset & -PAGE_SIZE
        yield _with_offset(call, down, "rounded down to a page")
        yield _with_offset(call, down + PAGE_SIZE, "rounded up to a page")


def _with_offset(call: SetMemoryRegion2, offset: int, why: str) -> Edit:
    words = f"offset {hex_text(offset)}, {why}"
    return Edit("offset", ARGUMENT, words, replace(call, guest_memfd_offset=offset))


def _immutable(kvm: Kvm, call: SetMemoryRegion) -> Iterator[Edit]:
    """Leave the file out, or take the slot that exists away."""
    yield _without_file(call)
    old = kvm.slot(call.slot, call.as_id)
    if old is not None:
        yield Edit("delete", CALL_BEFORE, "DELETE and CREATE", call, (deletion(old),))


def _without_file(call: SetMemoryRegion) -> Edit:
    return Edit(
        "flags",
        ARGUMENT,
        f"flags {hex_text(call.flags & ~KVM_MEM_GUEST_MEMFD)}, without GUEST_MEMFD",
        replace(call, flags=call.flags & ~KVM_MEM_GUEST_MEMFD),
    )


def _other_file(kvm: Kvm, call: SetMemoryRegion) -> Iterator[Edit]:
    """Name a file of this VM, make one, or do without."""
    if not isinstance(call, SetMemoryRegion2):
        return
    for fd, file in kvm.guest_memfds.items():
        if call.guest_memfd_offset + call.memory_size <= file.size:
            words = f"descriptor {fd}, a guest_memfd of this VM"
            yield Edit("fd", ARGUMENT, words, replace(call, guest_memfd=fd))
    yield _without_file(call)
    yield _new_file(kvm, call)


def _new_file(kvm: Kvm, call: SetMemoryRegion2) -> Edit:
    last = kvm.guest_memfds.last()
    fd = _FIRST_FD if last is None else last[0] + 1
    made = CreateGuestMemfd(fd=fd, size=call.guest_memfd_offset + call.memory_size)
    words = f"make a guest_memfd of {hex_text(made.size)} bytes first"
    return Edit("new file", CALL_BEFORE, words, replace(call, guest_memfd=fd), (made,))


def _file_of(kvm: Kvm, call: SetMemoryRegion2) -> GuestMemfd | None:
    return kvm.guest_memfds.get(call.guest_memfd)


def _within_file(kvm: Kvm, call: SetMemoryRegion) -> Iterator[Edit]:
    if not isinstance(call, SetMemoryRegion2):
        return
    file = _file_of(kvm, call)
    if file is not None:
        if call.memory_size <= file.size:
            yield _with_offset(call, file.size - call.memory_size, "so that the file holds it")
        if PAGE_SIZE <= file.size - call.guest_memfd_offset < call.memory_size:
            yield with_size(call, file.size - call.guest_memfd_offset, "to the end of the file")
    yield _new_file(kvm, call)


def _free_part(kvm: Kvm, call: SetMemoryRegion) -> Iterator[Edit]:
    if not isinstance(call, SetMemoryRegion2):
        return
    file = _file_of(kvm, call)
    npages, first = call.memory_size >> PAGE_SHIFT, call.guest_memfd_offset >> PAGE_SHIFT
    holder = None if file is None else bound_to(file, first, npages)
    if file is None or holder is None:
        return
    starts = [0, *(pgoff + binding.npages for pgoff, binding in file.bindings.items())]
    free = [s for s in starts if (s + npages) << PAGE_SHIFT <= file.size and bound_to(file, s, npages) is None]
    if free:
        nearest = min(free, key=lambda start: abs(start - first))
        yield _with_offset(call, nearest << PAGE_SHIFT, "the nearest part that is free")
    slot = kvm.slot(holder.slot, holder.as_id)
    if slot is not None:
        yield Edit("delete other", CALL_BEFORE, f"delete slot {slot.id} first", call, (deletion(slot),))
    yield _new_file(kvm, call)


GMEM_EDITS: dict[str, Callable[[Kvm, SetMemoryRegion], Iterator[Edit]]] = {
    "gmem_offset_aligned": _offset_aligned,
    "gmem_no_wrap": _within_file,
    "gmem_immutable": _immutable,
    "gmem_fd": _other_file,
    "gmem_file": _other_file,
    "gmem_size": _within_file,
    "gmem_overlap": _free_part,
}
"""Edits by the check that fired."""
