"""Kernel eras as named behaviours, each with the commit it comes from.

Rule 1: the engine asks for a behaviour (``profile.move_keeps_arch_metadata``), never for a version.
Rule 2: a behaviour has a citation in `SOURCES`; a test compares the two lists.

A profile says what the *code* does; what the machine and the build add (paging mode, the
config option of the external tracker, SMM, address width) is `explorer.engine.config.VmConfig`.

One flat table, so one file: a field a behaviour, its source, and what each kernel has.

Not modelled: anything that no field names. Between ``pre_edd4`` (before v5.7) and ``v6_1`` many small
steps differ that no profile stands for. Read next: `config`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, fields
from typing import Literal

from explorer.engine.types import ExplorerError

__all__ = ["PROFILES", "SOURCES", "Behaviour", "KernelProfile", "differences", "get_profile", "profile_of_release"]


@dataclass(frozen=True, slots=True)
class Behaviour:
    """Where a behaviour is from."""

    meaning: str
    """What the behaviour is, one sentence for a person who compares two profiles."""
    source: str
    """Commit and subject, or the function it was read in."""
    sha: str = ""
    """Abbreviated hash in the mainline tree; empty where only the tree was read."""

    @property
    def url(self) -> str:
        """Return the address of the commit in a public browser, or an empty string."""
        return f"https://git.kernel.org/torvalds/c/{self.sha}" if self.sha else ""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class KernelProfile:
    """How one kernel era behaves where eras differ. Equality is identity."""

    name: str
    """Identifier, such as ``v6_1``."""
    title: str
    """What people call it, such as ``6.1``."""
    summary: str
    """One sentence: what this era is for."""
    kind: Literal["release", "posted", "what-if"] = "release"
    """A released kernel, a patch as it was posted, or a thought experiment."""
    links: str = "7.3"
    """Tree whose lines the source links show; the nearest one that was read."""

    user_mem_slots: int = 32764
    generation_start: int = 0
    generation_in_progress_bit: int = 63
    generation_step_factor: int = 1
    smm_is_optional: bool = True
    region_flags_checked_first: bool = True
    hva_checked_for_internal_slots: bool = True
    move_keeps_arch_metadata: bool = False
    prepare_checks_max_gfn: bool = True
    dirty_bitmap_allocated_first: bool = False
    kvm_is_a_track_notifier: bool = False
    region_hook: Literal["track_flush_slot", "track_remove_region"] = "track_remove_region"
    move_refused_for_external_user: bool = True
    has_external_user_inverted: bool = False
    track_arrays: Literal["always", "by config", "on demand"] = "on demand"
    external_api_needs_config: bool = True
    tracking_misuse: Literal["warn", "bug the vm"] = "bug the vm"
    disallow_lpage_warns: Literal["below zero", "bit 31 flips"] = "bit 31 flips"
    external_lookup_precedes_table: bool = False
    detached_vgpu_untracks_silently: bool = False
    gpu_page_outside_slots_is_scratch: bool = False
    slot_zap_quirk: bool = True
    quirk_off_zaps_shadow_pages: bool = True
    write_tracked_in_both_spaces: bool = False
    dirty_ring: bool = True
    valid_quirks: int = 0x7FF
    set_user_memory_region2: bool = True
    guest_memfd_for_every_vm: bool = True
    guest_memfd_binds_late: bool = False
    pre_fault_memory: bool = True
    prefetch_completes_window: bool = True
    rmaps_on_demand: bool = True
    pages_of_vm_are_checked: bool = True
    initially_set_spares_huge_pages: bool = True
    splits_huge_pages_early: bool = True
    small_mappings_after_logging: Literal["zapped if the host has huge pages", "zapped", "promoted"] = "zapped"
    walk_of_tracked_table_is_emulated: bool = True
    apic_page_needs_apicv: bool = True
    emulation_refused_in_vectoring: bool = True
    amd_expedites_mmio: bool = True

    def __repr__(self) -> str:
        """Return the name; profiles are compared by identity."""
        return f"get_profile({self.name!r})"


SOURCES: dict[str, Behaviour] = {
    "user_mem_slots": Behaviour(
        "how many slot ids userspace may use",
        "include/linux/kvm_host.h: KVM_USER_MEM_SLOTS; 509 before v5.12",
    ),
    "generation_start": Behaviour(
        "the generation a new VM starts from",
        "virt/kvm/kvm_main.c: kvm_create_vm(); 4.19 starts below zero to exercise the wrap",
    ),
    "generation_in_progress_bit": Behaviour(
        "which bit of the generation says that an update is in progress",
        "include/linux/kvm_host.h: KVM_MEMSLOT_GEN_UPDATE_IN_PROGRESS; bit 0 in 4.19, bit 63 from v5.1",
    ),
    "generation_step_factor": Behaviour(
        "how far one swap moves the generation, in address spaces",
        "virt/kvm/kvm_main.c: install_new_memslots() in 4.19, kvm_swap_active_memslots() from v5.17",
    ),
    "smm_is_optional": Behaviour(
        "whether the second address space depends on how KVM was built",
        "arch/x86/include/asm/kvm_host.h: KVM_ADDRESS_SPACE_NUM under CONFIG_KVM_SMM (in v6.2),"
        " kvm_arch_nr_memslot_as_ids() from v6.8",
    ),
    "region_flags_checked_first": Behaviour(
        "whether the plain region ioctl checks the flags before the slot id",
        "commit that added KVM_SET_USER_MEMORY_REGION2 (in v6.8)",
        "bb58b90b1a8f",
    ),
    "hva_checked_for_internal_slots": Behaviour(
        "whether the host address of KVM's own slots is checked too",
        "virt/kvm/kvm_main.c: __kvm_set_memory_region(); user slots only in 4.19",
    ),
    "move_keeps_arch_metadata": Behaviour(
        "whether a MOVE keeps the old rmap, huge-page and tracking arrays",
        '"KVM: x86: Allocate new rmap and large page tracking when moving memslot" (in v5.7)',
        "edd4fa37baa6ee8e44dc65523b27bd6fe44c94de",
    ),
    "prepare_checks_max_gfn": Behaviour(
        "whether a slot must end within the guest's physical address width",
        "arch/x86/kvm/x86.c: kvm_arch_prepare_memory_region()",
    ),
    "dirty_bitmap_allocated_first": Behaviour(
        "whether the dirty bitmap is allocated before the slot is invalidated, so that a lack of memory costs nothing",
        "virt/kvm/kvm_main.c: __kvm_set_memory_region() before v5.17, kvm_prepare_memory_region() from then on",
    ),
    "kvm_is_a_track_notifier": Behaviour(
        "whether KVM's own zap is reached through the page-track notifier list",
        '"KVM: x86/mmu: Don\'t rely on page-track mechanism to flush on memslot change" (in v6.6)',
        "eeb87272a364",
    ),
    "region_hook": Behaviour(
        "how an external tracker hears of a slot: before the outcome is known, or after a DELETE has committed",
        '"drm/i915/gvt: switch from ->track_flush_slot() to ->track_remove_region()" (in v6.6)',
        "c15fcf12ffb3",
    ),
    "move_refused_for_external_user": Behaviour(
        "whether a MOVE is refused while an external page tracker is registered",
        '"KVM: x86: Reject memslot MOVE operations if KVMGT is attached" (in v6.6)',
        "c70934e0ab2d2c4bb16bf70c3e3db8c064a1761b",
    ),
    "has_external_user_inverted": Behaviour(
        "whether the test for an external tracker answers the opposite, as it was posted (v1 to v4 of the series)",
        "arch/x86/kvm/mmu/page_track.h: kvm_page_track_has_external_user(), as posted; corrected before v6.6",
    ),
    "track_arrays": Behaviour(
        "when the per-page write-track counts are allocated",
        "commit that allocates the counts at the first kvm_page_track_register_notifier() (in v6.9)",
        "a364c014a2c1ad6e011bc5fdb8afb9d4ba316956",
    ),
    "external_api_needs_config": Behaviour(
        "whether an external tracker can register only if KVM was built for it",
        '"KVM: x86/mmu: Use page-track notifiers iff there are external users" (in v6.6)',
        "e998fb1a3013",
    ),
    "tracking_misuse": Behaviour(
        "what happens when a page is tracked although tracking was never enabled",
        '"KVM: x86/mmu: Bug the VM if write-tracking is used but not enabled" (in v6.6)',
        "427c76aed29e",
    ),
    "disallow_lpage_warns": Behaviour(
        "when the huge-page counter warns: below zero, or when bit 31 flips",
        "arch/x86/kvm/mmu/mmu.c: update_gfn_disallow_lpage_count(); bit 31 from v6.8",
    ),
    "external_lookup_precedes_table": Behaviour(
        "whether KVMGT looks for the slot before its own table when it takes a watch away",
        "drivers/gpu/drm/i915/gvt/kvmgt.c: intel_gvt_page_track_remove(), before v5.17 kvmgt_page_track_remove()",
    ),
    "detached_vgpu_untracks_silently": Behaviour(
        "whether a detached vGPU that takes a watch away is told 0 instead of ESRCH",
        "drivers/gpu/drm/i915/gvt/kvmgt.c: intel_gvt_page_track_remove()",
    ),
    "gpu_page_outside_slots_is_scratch": Behaviour(
        "what KVMGT shadows for an entry that names a page in no slot: a scratch page, or nothing and it gives up",
        '"drm/i915/gvt: remove interface intel_gvt_is_valid_gfn" (in v6.6)',
        "1e557c1cd054",
    ),
    "slot_zap_quirk": Behaviour(
        "whether userspace may ask that a MOVE or DELETE zaps only the slot",
        "commit that added KVM_X86_QUIRK_SLOT_ZAP_ALL (in v6.12)",
        "aa8d1f48d353b0469bff357183ee9df137d15ef0",
    ),
    "quirk_off_zaps_shadow_pages": Behaviour(
        "whether a zap of only the slot also takes the shadow pages of guest page tables that lie in it",
        "commit before the quirk reached v6.12: its first version zapped only leaf entries",
        "58a20a9435aa",
    ),
    "write_tracked_in_both_spaces": Behaviour(
        "whether the test for a tracked page looks into the other address space too",
        "commit that made kvm_gfn_is_write_tracked() consult the other address space (in v7.2, stable 6.1.187)",
        "0f38453cdb2e17566ccb7c0f3dabd5bd21caca26",
    ),
    "dirty_ring": Behaviour(
        "whether dirty pages can be logged in a ring instead of a bitmap",
        "virt/kvm/kvm_main.c: kvm_vm_ioctl_check_extension_generic(), KVM_CAP_DIRTY_LOG_RING; from v5.11",
    ),
    "valid_quirks": Behaviour(
        "which old habits userspace may switch off, as bits; 0 if it cannot be asked",
        "arch/x86/include/asm/kvm_host.h: KVM_X86_VALID_QUIRKS; KVM_CAP_DISABLE_QUIRKS2 came with v5.18, and stable"
        " trees get new bits",
    ),
    "set_user_memory_region2": Behaviour(
        "whether there is KVM_SET_USER_MEMORY_REGION2 and with it guest_memfd",
        "virt/kvm/kvm_main.c: kvm_vm_ioctl(), KVM_SET_USER_MEMORY_REGION2 (in v6.8)",
        "bb58b90b1a8f",
    ),
    "guest_memfd_for_every_vm": Behaviour(
        "whether any VM may have slots on guest_memfd and map its files, or only VMs with private memory",
        "virt/kvm/kvm_main.c: check_memory_region_flags(), kvm_vm_ioctl_check_extension_generic(); in the recorded"
        " kernels 6.18 and 7.3",
    ),
    "guest_memfd_binds_late": Behaviour(
        "whether a new slot takes its part of a guest_memfd after it is prepared, with EEXIST if another slot has it",
        "virt/kvm/guest_memfd.c: kvm_gmem_commit_memory_region(); kvm_gmem_bind() before, with EINVAL",
    ),
    "pre_fault_memory": Behaviour(
        "whether guest memory can be mapped before the guest touches it",
        "arch/x86/kvm/x86.c: kvm_vm_ioctl_check_extension(), KVM_CAP_PRE_FAULT_MEMORY; recorded from 6.12 on",
    ),
    "prefetch_completes_window": Behaviour(
        "whether the older MMU, when it maps a page, also maps the neighbours behind it, and not just those before",
        '"KVM: x86/mmu: Complete prefetch for trailing SPTEs for direct, legacy MMU" (after v5.10, before v6.1)',
    ),
    "rmaps_on_demand": Behaviour(
        "whether slots do without rmap arrays as long as the TDP MMU alone maps their pages",
        "arch/x86/kvm/mmu.h: kvm_memslots_have_rmaps(); from v5.14",
    ),
    "pages_of_vm_are_checked": Behaviour(
        "whether the pages of all slots are added up, and a call is checked against the sum",
        "virt/kvm/kvm_main.c: __kvm_set_memory_region(), nr_memslot_pages; from v5.17",
    ),
    "initially_set_spares_huge_pages": Behaviour(
        "whether huge mappings stay writable when the dirty log begins with every page set",
        "arch/x86/kvm/x86.c: kvm_mmu_slot_apply_flags(); in 5.10 they lose write access at once",
    ),
    "splits_huge_pages_early": Behaviour(
        "whether the TDP MMU splits a slot's huge mappings as soon as its dirty log is switched on",
        "arch/x86/kvm/x86.c: kvm_mmu_slot_apply_flags(), eager_page_split; in the 6.1 tree and later",
    ),
    "small_mappings_after_logging": Behaviour(
        "what becomes of small mappings where huge ones would fit, when the dirty log is switched off",
        "arch/x86/kvm/x86.c: kvm_mmu_slot_apply_flags() down to mmu.c: kvm_mmu_zap_collapsible_spte() in 5.10, 6.1 and "
        "6.12; kvm_mmu_recover_huge_pages() from v6.13",
    ),
    "walk_of_tracked_table_is_emulated": Behaviour(
        "whether a guest gets on that walks a page table of its own which is write-tracked, with TDP; else it hangs",
        '"KVM: x86/mmu: Skip emulation on page fault iff 1+ SPs were unprotected" (posted August 2024, in v6.12)',
    ),
    "apic_page_needs_apicv": Behaviour(
        "whether KVM maps its page for the local APIC only if the processor virtualises interrupts (APICv)",
        '"KVM: x86/mmu: allow APICv memslot to be enabled but invisible" (in v5.15)',
        "9cc13d60ba6b9976e01ec6f66fa1ec4a06992929",
    ),
    "emulation_refused_in_vectoring": Behaviour(
        "whether KVM gives up, whatever the exit was, when it would have to emulate while an event is on its way to"
        " the guest; before, only Intel's exit for a page it remembers as MMIO was refused",
        '"KVM: VMX: Handle event vectoring error in check_emulate_instruction()", and its like for SVM (in v6.14)',
        "47ef3ef843c0f6e8006094d707b4aac18ed87e53",
    ),
    "amd_expedites_mmio": Behaviour(
        "whether the exit for a page that KVM remembers as MMIO just tries again, on AMD as on Intel, when emulation"
        " is refused",
        '"KVM: SVM: Add support for expedited writes to the fast MMIO bus" (posted November 2025, recorded in 7.3)',
    ),
}

_BEFORE_6_14 = {"emulation_refused_in_vectoring": False, "amd_expedites_mmio": False}
_BEFORE_THE_SERIES = {
    "region_flags_checked_first": False,
    "kvm_is_a_track_notifier": True,
    "region_hook": "track_flush_slot",
    "move_refused_for_external_user": False,
    "track_arrays": "by config",
    "external_api_needs_config": False,
    "tracking_misuse": "warn",
    "disallow_lpage_warns": "below zero",
    "external_lookup_precedes_table": True,
    "detached_vgpu_untracks_silently": True,
    "gpu_page_outside_slots_is_scratch": True,
    "slot_zap_quirk": False,
    "smm_is_optional": False,
    "valid_quirks": 0x7F,
    "set_user_memory_region2": False,
    "guest_memfd_for_every_vm": False,
    "pre_fault_memory": False,
    "walk_of_tracked_table_is_emulated": False,
    "links": "6.1",
} | _BEFORE_6_14
_OLD_MMU = {
    "rmaps_on_demand": False,
    "pages_of_vm_are_checked": False,
    "initially_set_spares_huge_pages": False,
    "apic_page_needs_apicv": False,
    "prefetch_completes_window": False,
    "splits_huge_pages_early": False,
    "small_mappings_after_logging": "zapped if the host has huge pages",
}
_V6_6 = {
    "region_flags_checked_first": False,
    "track_arrays": "by config",
    "disallow_lpage_warns": "below zero",
    "slot_zap_quirk": False,
    "valid_quirks": 0x7F,
    "set_user_memory_region2": False,
    "guest_memfd_for_every_vm": False,
    "pre_fault_memory": False,
    "walk_of_tracked_table_is_emulated": False,
    "links": "6.12",
} | _BEFORE_6_14

PROFILES: dict[str, KernelProfile] = {
    profile.name: profile
    for profile in (
        KernelProfile(
            name="pre_edd4",
            title="before 5.7",
            summary="A MOVE keeps the old arrays, although their length and marks hang on the old place.",
            **_BEFORE_THE_SERIES
            | _OLD_MMU
            | {
                "user_mem_slots": 509,
                "generation_start": -150,
                "generation_in_progress_bit": 0,
                "generation_step_factor": 2,
                "hva_checked_for_internal_slots": False,
                "move_keeps_arch_metadata": True,
                "prepare_checks_max_gfn": False,
                "dirty_bitmap_allocated_first": True,
                "track_arrays": "always",
                "dirty_ring": False,
                "valid_quirks": 0,
            },  # type: ignore[arg-type]
        ),
        KernelProfile(
            name="v5_10",
            title="5.10",
            summary="The oldest kernel that was recorded: 509 slots at the most, and no check of the end gfn.",
            **_BEFORE_THE_SERIES
            | _OLD_MMU
            | {
                "user_mem_slots": 509,
                "prepare_checks_max_gfn": False,
                "dirty_bitmap_allocated_first": True,
                "track_arrays": "always",
                "dirty_ring": False,
                "valid_quirks": 0,
            },  # type: ignore[arg-type]
        ),
        KernelProfile(
            name="v6_1",
            title="6.1",
            summary="The kernel of the thread: a MOVE is allowed for everybody and builds new, empty arrays.",
            **_BEFORE_THE_SERIES | {"write_tracked_in_both_spaces": True},  # type: ignore[arg-type]
        ),
        KernelProfile(
            name="v6_6_posted",
            title="6.6 as posted",
            summary="The series as it was on the list: the test for an external tracker answers the opposite.",
            kind="posted",
            **_V6_6 | {"has_external_user_inverted": True},  # type: ignore[arg-type]
        ),
        KernelProfile(
            name="v6_6",
            title="6.6",
            summary="The series as it was merged: a MOVE is refused while an external tracker is registered.",
            **_V6_6,  # type: ignore[arg-type]
        ),
        KernelProfile(
            name="v6_6_nocheck",
            title="6.6 without the test",
            summary="What if the series had moved KVMGT to the new hook but had not refused the MOVE?",
            kind="what-if",
            **_V6_6 | {"move_refused_for_external_user": False},  # type: ignore[arg-type]
        ),
        KernelProfile(
            name="v6_12_quirk_posted",
            title="6.12 as queued",
            summary="The quirk before its fix: with it off, a MOVE zaps leaf entries of the slot and no shadow page.",
            kind="posted",
            guest_memfd_for_every_vm=False,
            quirk_off_zaps_shadow_pages=False,
            **_BEFORE_6_14 | {"links": "6.12"},  # type: ignore[arg-type]
        ),
        KernelProfile(
            name="v6_12",
            title="6.12",
            summary="Tracking arrays on demand, and a quirk that lets userspace switch the full zap off.",
            guest_memfd_for_every_vm=False,
            **_BEFORE_6_14 | {"links": "6.12"},  # type: ignore[arg-type]
        ),
        KernelProfile(
            name="v6_18",
            title="6.18",
            summary="The kernel of the recording host: as 6.12, but any VM may use guest_memfd, and after logging small"
            " mappings become huge again.",
            amd_expedites_mmio=False,
            small_mappings_after_logging="promoted",
            links="6.12",
        ),
        KernelProfile(
            name="v7_3",
            title="7.3",
            summary="The newest kernel that was recorded: write tracking counts in both address spaces.",
            write_tracked_in_both_spaces=True,
            valid_quirks=0xFFF,
            guest_memfd_binds_late=True,
            small_mappings_after_logging="promoted",
        ),
    )
}
"""All profiles by name, oldest first."""

_SINCE = (
    ((7, 3), "v7_3"),
    ((6, 18), "v6_18"),
    ((6, 12), "v6_12"),
    ((6, 6), "v6_6"),
    ((5, 17), "v6_1"),
    ((5, 7), "v5_10"),
    ((4, 6), "pre_edd4"),
)
"""First kernel of each profile, newest first; page tracking came with 4.6."""


def profile_of_release(release: str) -> KernelProfile | None:
    """Return the profile that is nearest to a kernel by its version, such as ``6.18.44``; None if none can be."""
    version = re.search(r"(\d+)\.(\d+)", release)
    found = (int(version[1]), int(version[2])) if version else (0, 0)
    return next((PROFILES[name] for first, name in _SINCE if found >= first), None)


def get_profile(name: str) -> KernelProfile:
    """Return the profile called `name`.

    Raises
    ------
    ExplorerError
        If there is none; the message lists those there are.
    """
    try:
        return PROFILES[name]
    except KeyError:
        known = ", ".join(PROFILES)
        raise ExplorerError(f"no kernel profile is called {name!r}; there are {known}") from None


def differences(one: KernelProfile, other: KernelProfile) -> tuple[tuple[str, object, object], ...]:
    """Return the behaviours in which two profiles differ, as ``(field, in one, in other)``."""
    return tuple(
        (f.name, getattr(one, f.name), getattr(other, f.name))
        for f in fields(KernelProfile)
        if f.name in SOURCES and getattr(one, f.name) != getattr(other, f.name)
    )
