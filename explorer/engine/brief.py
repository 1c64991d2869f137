"""Reads the one line of `Kvm.brief` back: slots arrive by CREATE calls, then the generations are set.

Not modelled: what the line does not say. Host addresses are not part of it: a slot at guest address ``g`` is backed
at ``0x7f0000000000 + g``, and one on guest_memfd gets a file of its own. Read next: `slot_properties`.
"""

from __future__ import annotations

import re
from dataclasses import fields
from typing import TYPE_CHECKING

from explorer.engine.apply import apply
from explorer.engine.commands import CreateGuestMemfd, SetMemoryRegion, SetMemoryRegion2
from explorer.engine.state import AddressSpace
from explorer.engine.types import PAGE_SHIFT, ExplorerError, Gfn, gfn_to_gpa
from explorer.engine.uapi import KVM_MEM_GUEST_MEMFD, KVM_MEM_LOG_DIRTY_PAGES, KVM_MEM_READONLY

if TYPE_CHECKING:
    from explorer.engine.state import Kvm

__all__ = ["read_brief"]

_SPACE = re.compile(r"as(?P<as>[01]) gen=(?P<gen>-?\d+):(?P<slots>.*)")
_SLOT = re.compile(
    r"\[(?P<base>0x[0-9a-f]+)\+(?P<n>0x[0-9a-f]+)\]#(?P<id>\d+) (?P<flags>r[ow](?:,log)?(?:,gmem(?:-only)?)?)"
)


def read_brief(text: str, kvm: Kvm) -> Kvm:
    """Return a new VM with the slots and the generations of a line.

    Raises
    ------
    ExplorerError
        If the line does not follow the grammar or the slots cannot exist together.
    """
    for part in text.split(";"):
        header = _SPACE.fullmatch(part.strip())
        if header is None:
            raise ExplorerError(f"{part.strip()!r} is no address space; expected as0 gen=4: [0x100+0x200]#1 rw,log")
        as_id = int(header["as"])
        if as_id >= len(kvm.memslots):
            raise ExplorerError(f"{part.strip()[:20]!r}: the VM has no address space {as_id}; one with SMM has 0 and 1")
        for item in re.split(r"\s+(?=\[)", header["slots"].strip()) if header["slots"].strip() else ():
            found = _SLOT.fullmatch(item)
            if found is None:
                raise ExplorerError(f"{item!r} is no slot; expected [0x100+0x200]#1 rw,log")
            gpa = gfn_to_gpa(Gfn(int(found["base"], 16)))
            size = int(found["n"], 16) << PAGE_SHIFT
            words = found["flags"].split(",")
            call = SetMemoryRegion(
                slot=int(found["id"]),
                as_id=as_id,
                flags=(KVM_MEM_READONLY if "ro" in words else 0) | (KVM_MEM_LOG_DIRTY_PAGES if "log" in words else 0),
                guest_phys_addr=gpa,
                memory_size=size,
                userspace_addr=0x7F00_0000_0000 + gpa,
            )
            if words[-1].startswith("gmem"):
                fd = len(kvm.guest_memfds)
                kvm = apply(kvm, CreateGuestMemfd(fd=fd, size=size, flags=int(words[-1] == "gmem-only"))).kvm
                given = {f.name: getattr(call, f.name) for f in fields(call)} | {"flags": KVM_MEM_GUEST_MEMFD}
                call = SetMemoryRegion2(**given, guest_memfd=fd)
            step = apply(kvm, call)
            if step.errno is not None:
                raise ExplorerError(f"{item!r} cannot exist beside the others: {step.errno.name}")
            kvm = step.kvm
        space = kvm.memslots[as_id]
        sets = list(space.sets)
        sets[space.active_idx] = space.active._replace(generation=int(header["gen"]))
        spaces = list(kvm.memslots)
        spaces[as_id] = AddressSpace((sets[0], sets[1]), space.active_idx)
        kvm = kvm._replace(memslots=tuple(spaces))
    return kvm
