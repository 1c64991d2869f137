"""The words of the screen, each in one or two sentences, with the kernel function to read. The only list of them.

Rule 1: a word that only some kernels have says so, and is not marked on a screen of another kernel.
Rule 2: `spellings` are what is marked in sentences and headings; the longest that fits wins.
"""

from __future__ import annotations

import re
from functools import cache
from typing import TYPE_CHECKING, NamedTuple

from explorer.explain.basis import Basis

if TYPE_CHECKING:
    from explorer.engine.profile import KernelProfile

__all__ = ["GLOSSARY", "Term", "pattern_for", "term_of"]


class Term(NamedTuple):
    """One word."""

    name: str
    """How the list has it."""
    meaning: str
    """What it is, for somebody who has not met it."""
    basis: Basis
    spellings: tuple[str, ...] = ()
    """How sentences and headings write it; empty for the name alone."""

    @property
    def key(self) -> str:
        """What stands for the term in a document tree."""
        return re.sub(r"\W+", "-", self.name.lower()).strip("-")


GLOSSARY: tuple[Term, ...] = (
    Term(
        "address space",
        "One of the guest’s memory maps with slots of its own: 0 is the normal one, 1 is what a vCPU sees in System Management Mode.",
        Basis("kvm_set_memory_region"),
        ("address space", "address spaces", "as_id"),
    ),
    Term(
        "change",
        "What a region call amounts to: CREATE, DELETE, MOVE, a change of flags, or nothing. KVM derives it from what differs from the slot that is there.",
        Basis("kvm_set_memory_region"),
        ("CREATE", "DELETE", "MOVE", "flags change"),
    ),
    Term(
        "dirty log",
        "A bitmap with a bit for each page of a slot: set when the page is written, read and cleared by the VMM, for instance to migrate a guest.",
        Basis("kvm_get_dirty_log_protect"),
        ("dirty log", "dirty bitmap", "dirty_bitmap", "dirty-logged"),
    ),
    Term(
        "emulation",
        "KVM carries an instruction of the guest out itself. A write to a watched page is served so, and KVM can tell others of it.",
        Basis("kvm_mmu_page_fault"),
        ("emulation", "emulated", "carries the write out itself", "carries it out itself"),
    ),
    Term(
        "generation",
        "A number of each memslot set that grows with every swap; what was remembered under an older one is no longer believed. In 4.19, and so before 5.7 here, it starts at −150.",
        Basis("kvm_swap_active_memslots"),
        ("generation", "generations"),
    ),
    Term(
        "gfn",
        "Guest frame number: a guest physical address without its last 12 bits, so it counts pages of 4 KiB.",
        Basis("kvm_faultin_pfn"),
        ("gfn", "gfns"),
    ),
    Term(
        "gpa",
        "Guest physical address: what the guest takes for an address of its RAM. A slot says which host memory is behind it.",
        Basis("kvm_faultin_pfn"),
        ("gpa", "first gpa", "last gpa"),
    ),
    Term(
        "guest_memfd",
        "A file of guest memory that the kernel keeps; a slot can take its pages from it instead of from the memory of the VMM.",
        Basis("kvm_gmem_create", since="v6.8"),
    ),
    Term(
        "huge page",
        "One mapping for 2 MiB or 1 GiB instead of 4 KiB. KVM makes none where a slot does not fill it, where addresses do not line up, or over a watched page.",
        Basis("update_gfn_disallow_lpage_count"),
        ("huge page", "huge pages", "2 MiB pages"),
    ),
    Term(
        "hva",
        "Host virtual address: where the memory of a slot lies in the VMM’s own address space.",
        Basis("kvm_set_memory_region"),
        ("hva", "userspace_addr", "host address", "host addresses"),
    ),
    Term(
        "internal slot",
        "A slot that KVM makes for itself, with an id that userspace cannot use, such as the page of the virtual APIC on Intel.",
        Basis("__x86_set_memory_region"),
        ("internal slot", "internal slots"),
    ),
    Term(
        "INVALID",
        "Mark of a slot that is about to move or go. Whoever looks it up finds the slot but no memory, and tries again or gives up.",
        Basis("kvm_invalidate_memslot"),
        ("INVALID",),
    ),
    Term(
        "KVMGT",
        "The part of Intel’s graphics driver that gives a guest a virtual GPU. It is the only user of page tracking outside KVM.",
        Basis("kvm_page_track_register_notifier"),
        ("KVMGT", "KVMGT’s"),
    ),
    Term(
        "lpage_info",
        "Array of a slot with one counter, disallow_lpage, for each huge page of it. A huge mapping is allowed only where the counter is 0.",
        Basis("kvm_alloc_memslot_metadata"),
        ("lpage_info", "arch.lpage_info", "disallow_lpage"),
    ),
    Term(
        "memslot",
        "Memory slot: a range of guest physical pages with host memory behind it. The VMM makes, moves and deletes slots by KVM_SET_USER_MEMORY_REGION.",
        Basis("kvm_vm_ioctl_set_memory_region"),
        ("memslot", "memslots", "memory slots"),
    ),
    Term(
        "memslot set",
        "All slots of one address space, kept twice: readers use the active set, updates edit the inactive one, and a swap exchanges the two.",
        Basis("kvm_swap_active_memslots", since="v5.17"),
        ("memslot set", "memslot sets", "active set", "inactive set", "the two sets", "in both sets"),
    ),
    Term(
        "MMIO exit",
        "A guest access that no slot answers. KVM stops the vCPU and lets the VMM answer, as it would for a device.",
        Basis("kvm_faultin_pfn"),
        ("MMIO exit", "MMIO"),
    ),
    Term(
        "page-track notifier",
        "Callbacks that a tracker registers: one runs for each write that KVM emulates, one when a slot goes away.",
        Basis("kvm_page_track_register_notifier"),
        ("page-track notifier", "notifier", "callback", "callbacks", "track_flush_slot", "track_remove_region"),
    ),
    Term(
        "pfn",
        "Page frame number of the host: the physical page that really holds the guest’s data.",
        Basis("kvm_faultin_pfn"),
        ("pfn", "host page", "host pages"),
    ),
    Term(
        "quirk",
        "An old habit of KVM that is kept for userspaces that rely on it and that a VMM can switch off.",
        Basis("kvm_vm_ioctl_enable_cap", since="v5.18"),
        ("quirk", "quirks"),
    ),
    Term(
        "KVM_X86_QUIRK_SLOT_ZAP_ALL",
        "The quirk that a MOVE or DELETE throws away every mapping of the VM. With it off, only what maps the slot is zapped.",
        Basis("kvm_arch_flush_shadow_memslot", since="v6.12"),
    ),
    Term(
        "reader",
        "Anyone in KVM who looks a slot up, above all a vCPU that handles a fault. It sees one whole set or the other, never one being edited.",
        Basis("kvm_swap_active_memslots"),
        ("reader", "readers", "every reader", "readers see"),
    ),
    Term(
        "rmap",
        "Reverse map: for each page of a slot the entries that map it, so that KVM can find and change them. An array of the slot.",
        Basis("memslot_rmap_alloc"),
        ("rmap", "arch.rmap", "rmaps"),
    ),
    Term(
        "shadow page",
        "A page of SPTEs that KVM keeps for one page table of the guest. While it lives, it is counted in the arrays of the slot the guest’s table lies in.",
        Basis("account_shadowed"),
        ("shadow page", "shadow pages", "shadow of each"),
    ),
    Term(
        "shadow paging",
        "Without TDP the processor cannot walk the guest’s page tables, so KVM keeps tables of its own that follow them. It must see each write to the guest’s upper tables.",
        Basis("account_shadowed"),
        ("shadow paging", "shadow paging’s"),
    ),
    Term(
        "SMM",
        "System Management Mode: a mode of the processor for firmware, with memory that the operating system cannot see. Its slots are address space 1.",
        Basis("kvm_set_memory_region"),
        ("SMM", "System Management Mode"),
    ),
    Term(
        "SPTE",
        "Shadow page table entry: an entry of the tables that the processor really walks when the guest runs.",
        Basis("kvm_mmu_page_fault"),
        ("SPTE", "SPTEs", "mapping", "mappings"),
    ),
    Term(
        "SRCU",
        "How readers and an update stay out of each other’s way: readers never wait, and after a swap the update waits until none can still use the old set.",
        Basis("kvm_swap_active_memslots"),
        ("SRCU", "waited for every reader", "waited for readers", "waited for the readers"),
    ),
    Term(
        "TDP",
        "Two-dimensional paging, EPT or NPT: the processor walks the guest’s tables and KVM’s. KVM then shadows nothing, unless a guest is nested.",
        Basis("kvm_mmu_page_fault"),
        ("TDP",),
    ),
    Term(
        "tracker",
        "Somebody who wants to see guest writes to certain pages. Inside KVM that is shadow paging; from outside, such as KVMGT, it registers callbacks.",
        Basis("kvm_page_track_register_notifier"),
        ("tracker", "trackers", "external tracker", "page tracker", "tracker’s", "Trackers"),
    ),
    Term(
        "vCPU",
        "A processor of the guest. In the host it is a thread that enters the guest and comes back to KVM when something is to do.",
        Basis("kvm_vm_ioctl_create_vcpu"),
        ("vCPU", "vCPUs"),
    ),
    Term(
        "VMM",
        "Virtual machine monitor, the program that runs the guest through KVM, such as QEMU. Its calls are the operations on the timeline.",
        Basis("kvm_vm_ioctl"),
        ("VMM",),
    ),
    Term(
        "WARN",
        "The kernel found something that cannot be, wrote a line to its log and went on. KVM_BUG goes further and ends the VM.",
        Basis("unaccount_shadowed"),
        ("WARN", "KVM_BUG", "Kernel warning"),
    ),
    Term(
        "write tracking",
        "A count for each page of a slot, here called watches: while it is above 0, no guest write reaches the page unseen and no huge page covers it.",
        Basis("kvm_page_track_create_memslot"),
        (
            "write tracking",
            "write-tracked",
            "write-track counts",
            "gfn_write_track",
            "watch",
            "watches",
            "Watches",
            "watched",
        ),
    ),
    Term(
        "zap",
        "Throw mappings away. The next guest access faults, and KVM makes the mapping again from the slots as they are then.",
        Basis("kvm_mmu_zap_all_fast"),
        ("zap", "zaps", "zapped", "throws away"),
    ),
)
"""By name."""


@cache
def term_of(key: str) -> Term:
    """Return a term by its key."""
    return next(term for term in GLOSSARY if term.key == key)


@cache
def _spelled() -> dict[str, Term]:
    return {spelling: term for term in GLOSSARY for spelling in (term.spellings or (term.name,))}


@cache
def pattern_for(profile: KernelProfile) -> tuple[re.Pattern[str], dict[str, str]]:
    """Return what finds the words of a profile's kernel in a text, and the key of each spelling."""
    here = {spelling: term.key for spelling, term in _spelled().items() if term.basis.holds(profile)}
    words = "|".join(re.escape(spelling) for spelling in sorted(here, key=lambda s: (-len(s), s)))
    return re.compile(rf"(?<![\w.]){'(?:' + words + ')'}(?![\w’])"), here
