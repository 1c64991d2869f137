"""The words everything else is written in: addresses as types, page arithmetic, errnos.

Rule 1: a frame number counts pages, an address counts bytes, and only the functions here cross over.
Rule 2: ranges are half-open, ``[start, end)``; an inclusive end is called ``last``.

Models arch/x86/include/asm/page_types.h and the page-size helpers of arch/x86/kvm/mmu.h.
Not modelled: physical frames (pfn, hpa). Read next: `uapi`.
"""

from __future__ import annotations

import enum
from typing import NewType

__all__ = [
    "KVM_HPAGE_GFN_SHIFT",
    "LEVELS",
    "PAGE_SHIFT",
    "PAGE_SIZE",
    "PG_LEVEL_1G",
    "PG_LEVEL_2M",
    "PG_LEVEL_4K",
    "U64_MAX",
    "ArrayId",
    "AsId",
    "Errno",
    "ExplorerError",
    "Gfn",
    "Gpa",
    "Hva",
    "Level",
    "SlotId",
    "gfn_to_gpa",
    "gfn_to_index",
    "gpa_to_gfn",
    "hpages",
    "pages_per_hpage",
]

Gfn = NewType("Gfn", int)
"""Guest frame number: a guest physical address in pages."""
Gpa = NewType("Gpa", int)
"""Guest physical address in bytes."""
Hva = NewType("Hva", int)
"""Host virtual address in bytes, in the VMM's address space."""
SlotId = NewType("SlotId", int)
"""Slot id chosen by userspace, the low 16 bits of the ioctl's ``slot``."""
AsId = NewType("AsId", int)
"""Address space id, the high 16 bits of the ioctl's ``slot``: 0 normal, 1 SMM."""
ArrayId = NewType("ArrayId", int)
"""Identity of one allocated metadata array; never used twice in a VM."""
Level = NewType("Level", int)
"""Page-table level: 1 maps 4 KiB, 2 maps 2 MiB, 3 maps 1 GiB."""

PAGE_SHIFT = 12
PAGE_SIZE = 1 << PAGE_SHIFT
U64_MAX = (1 << 64) - 1

PG_LEVEL_4K = Level(1)
PG_LEVEL_2M = Level(2)
PG_LEVEL_1G = Level(3)
LEVELS = (PG_LEVEL_4K, PG_LEVEL_2M, PG_LEVEL_1G)


class Errno(enum.IntEnum):
    """Error numbers the modelled calls can return, by their Linux values."""

    ENOENT = 2
    EINTR = 4
    EIO = 5
    ENXIO = 6
    EBADF = 9
    ENOMEM = 12
    EFAULT = 14
    EBUSY = 16
    EEXIST = 17
    ENODEV = 19
    EINVAL = 22
    ENOTTY = 25
    ESRCH = 3


class ExplorerError(Exception):
    """Our caller is wrong; the message says where, what was expected and what to try."""


def gpa_to_gfn(gpa: Gpa) -> Gfn:
    """Return the frame that contains `gpa`."""
    return Gfn(gpa >> PAGE_SHIFT)


def gfn_to_gpa(gfn: Gfn) -> Gpa:
    """Return the address of the first byte of `gfn`."""
    return Gpa(gfn << PAGE_SHIFT)


def KVM_HPAGE_GFN_SHIFT(level: Level) -> int:  # noqa: N802 - the kernel's macro
    """Return how far a gfn is shifted to give its frame number at `level`."""
    return (level - 1) * 9


def pages_per_hpage(level: Level) -> int:
    """Return ``KVM_PAGES_PER_HPAGE(level)``: 1, 512 or 262144 pages."""
    return 1 << ((level - 1) * 9)


def gfn_to_index(gfn: Gfn, base_gfn: Gfn, level: Level) -> int:
    """Return the index of `gfn` in a per-slot array of `level`.

    The index counts frames of that size from the one that holds `base_gfn`, so it depends on how the
    slot is aligned and not only on how far `gfn` is into it.

    References
    ----------
    arch/x86/kvm/mmu.h: gfn_to_index() [v6_1 to v7_3]; arch/x86/include/asm/kvm_host.h: gfn_to_index() [up to v5_10]
    """
    shift = (level - 1) * 9
    return (gfn >> shift) - (base_gfn >> shift)


def hpages(base_gfn: Gfn, npages: int, level: Level) -> int:
    """Return how many entries an array of `level` needs for a slot; at least 1 for ``npages >= 1``.

    References
    ----------
    arch/x86/kvm/mmu.h: __kvm_mmu_slot_lpages() [v6_1 to v7_3]; arch/x86/kvm/x86.c:
    kvm_alloc_memslot_metadata() [v5_10], kvm_arch_create_memslot() [pre_edd4]
    """
    shift = (level - 1) * 9
    return ((base_gfn + npages - 1) >> shift) - (base_gfn >> shift) + 1
