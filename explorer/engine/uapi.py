"""What userspace and KVM agreed on: flags, limits, the region argument, the kinds of change.

Models include/uapi/linux/kvm.h, include/linux/kvm_host.h (the limits, ``enum kvm_mr_change``) and the
x86 values in arch/x86/include/asm/kvm_host.h. Names are the kernel's.
Not modelled: memory attributes but the number that says whether there are any. Read next: `profile`.
"""

from __future__ import annotations

import enum
from functools import lru_cache

__all__ = [
    "APIC_ACCESS_PAGE_PRIVATE_MEMSLOT",
    "IDENTITY_PAGETABLE_PRIVATE_MEMSLOT",
    "KVM_CAP_DISABLE_QUIRKS2",
    "KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2",
    "KVM_CAP_SPLIT_IRQCHIP",
    "KVM_DIRTY_LOG_INITIALLY_SET",
    "KVM_DIRTY_LOG_MANUAL_PROTECT_ENABLE",
    "KVM_GUEST_MEMFD_FLAGS",
    "KVM_GUEST_MEMFD_FLAG_MMAP",
    "KVM_MEMORY_ATTRIBUTE_PRIVATE",
    "KVM_MEMSLOT_GMEM_ONLY",
    "KVM_MEMSLOT_INVALID",
    "KVM_MEM_GUEST_MEMFD",
    "KVM_MEM_LOG_DIRTY_PAGES",
    "KVM_MEM_MAX_NR_PAGES",
    "KVM_MEM_READONLY",
    "KVM_X86_DEFAULT_VM",
    "KVM_X86_QUIRK_IGNORE_GUEST_PAT",
    "KVM_X86_QUIRK_LINT0_REENABLED",
    "KVM_X86_QUIRK_SLOT_ZAP_ALL",
    "KVM_X86_SW_PROTECTED_VM",
    "TASK_SIZE_MAX",
    "TSS_PRIVATE_MEMSLOT",
    "KvmMrChange",
    "flags_text",
]

KVM_MEM_LOG_DIRTY_PAGES = 1 << 0
KVM_MEM_READONLY = 1 << 1
KVM_MEM_GUEST_MEMFD = 1 << 2
"""Taken by KVM_SET_USER_MEMORY_REGION2 only: the slot is backed by a part of a guest_memfd."""
KVM_MEMSLOT_INVALID = 1 << 16
"""Internal: the slot is being deleted or moved; gfn to hva fails."""
KVM_MEMSLOT_GMEM_ONLY = 1 << 17
"""Internal: the guest_memfd of the slot can be mapped, and all of its pages come from there."""

KVM_MEM_MAX_NR_PAGES = (1 << 31) - 1
"""Most pages one slot may have: 8 TiB - 4 KiB."""
TASK_SIZE_MAX = 0x7FFF_FFFF_F000
"""First address userspace cannot have, with four-level paging on the host (x86-64)."""

TSS_PRIVATE_MEMSLOT = 0
APIC_ACCESS_PAGE_PRIVATE_MEMSLOT = 1
IDENTITY_PAGETABLE_PRIVATE_MEMSLOT = 2
"""Internal slots, as offsets above the last id userspace may use."""

KVM_DIRTY_LOG_MANUAL_PROTECT_ENABLE = 1 << 0
KVM_DIRTY_LOG_INITIALLY_SET = 1 << 1

KVM_CAP_SPLIT_IRQCHIP = 121
KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2 = 168
KVM_CAP_DISABLE_QUIRKS2 = 213
KVM_X86_QUIRK_LINT0_REENABLED = 1 << 0
KVM_X86_QUIRK_SLOT_ZAP_ALL = 1 << 7
KVM_X86_QUIRK_IGNORE_GUEST_PAT = 1 << 9
"""Has a meaning only with TDP, so without it KVM does not offer it."""

KVM_GUEST_MEMFD_FLAG_MMAP = 1 << 0
"""The file can be mapped, so the VMM and KVM reach the same pages."""
KVM_GUEST_MEMFD_FLAGS = KVM_GUEST_MEMFD_FLAG_MMAP | 1 << 1
"""MMAP and INIT_SHARED."""
KVM_MEMORY_ATTRIBUTE_PRIVATE = 1 << 3

KVM_X86_DEFAULT_VM = 0
KVM_X86_SW_PROTECTED_VM = 1


class KvmMrChange(enum.Enum):
    """What a region call does to the slot it names; the kernel's ``enum kvm_mr_change``.

    `NOOP` is ours: the kernel returns 0 before it forms a change.
    """

    CREATE = "CREATE"
    DELETE = "DELETE"
    MOVE = "MOVE"
    FLAGS_ONLY = "FLAGS_ONLY"
    NOOP = "NOOP"


@lru_cache(maxsize=256)
def flags_text(flags: int) -> str:
    """Return slot flags as the words of this project, such as ``ro,log`` or ``rw``."""
    words = ["ro" if flags & KVM_MEM_READONLY else "rw"]
    if flags & KVM_MEM_LOG_DIRTY_PAGES:
        words.append("log")
    if flags & KVM_MEM_GUEST_MEMFD:
        words.append("gmem-only" if flags & KVM_MEMSLOT_GMEM_ONLY else "gmem")
    if flags & KVM_MEMSLOT_INVALID:
        words.append("INVALID")
    return ",".join(words)
