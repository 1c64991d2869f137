"""Where a kernel function is: its file, its name in older trees, and a link to a public browser.

Names are those of the newest kernel that has the function; `name_in` gives the name a profile's tree uses.
Those of 5.10 and newer are the ones in the recorded call trees, as far as the compiler left them there; those of
4.19 are the ones of that tree.
"""

from __future__ import annotations

import re
from functools import cache
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from explorer.engine.profile import KernelProfile

__all__ = ["FUNCTIONS", "Source", "in_words_of", "is_older", "name_in", "release_of", "source_of"]

_MAIN = "virt/kvm/kvm_main.c"
_X86 = "arch/x86/kvm/x86.c"
_MMU = "arch/x86/kvm/mmu/mmu.c"
_PTRACK = "arch/x86/kvm/mmu/page_track.c"
_GMEM = "virt/kvm/guest_memfd.c"
_KVMGT = "drivers/gpu/drm/i915/gvt/kvmgt.c"
_GVT = "drivers/gpu/drm/i915/gvt/page_track.c"
_GTT = "drivers/gpu/drm/i915/gvt/gtt.c"

FUNCTIONS: dict[str, str] = {
    "kvm_vm_ioctl": _MAIN,
    "kvm_vm_ioctl_set_memory_region": _MAIN,
    "check_memory_region_flags": _MAIN,
    "kvm_set_memory_region": _MAIN,
    "kvm_check_memslot_overlap": _MAIN,
    "kvm_set_memslot": _MAIN,
    "kvm_invalidate_memslot": _MAIN,
    "kvm_copy_memslot": _MAIN,
    "kvm_replace_memslot": _MAIN,
    "kvm_swap_active_memslots": _MAIN,
    "kvm_activate_memslot": _MAIN,
    "kvm_create_memslot": _MAIN,
    "kvm_delete_memslot": _MAIN,
    "kvm_move_memslot": _MAIN,
    "kvm_update_flags_memslot": _MAIN,
    "kvm_prepare_memory_region": _MAIN,
    "kvm_commit_memory_region": _MAIN,
    "kvm_alloc_dirty_bitmap": _MAIN,
    "kvm_free_memslot": _MAIN,
    "kvm_gmem_create": _GMEM,
    "kvm_gmem_release": _GMEM,
    "kvm_gmem_prepare_memory_region": _GMEM,
    "kvm_gmem_commit_memory_region": _GMEM,
    "kvm_gmem_unbind": _GMEM,
    "kvm_get_dirty_log_protect": _MAIN,
    "kvm_clear_dirty_log_protect": _MAIN,
    "mark_page_dirty_in_slot": _MAIN,
    "kvm_arch_memslots_updated": _X86,
    "kvm_arch_prepare_memory_region": _X86,
    "kvm_arch_commit_memory_region": _X86,
    "kvm_alloc_memslot_metadata": _X86,
    "memslot_rmap_alloc": _X86,
    "kvm_arch_free_memslot": _X86,
    "kvm_arch_guest_memory_reclaimed": _X86,
    "__x86_set_memory_region": _X86,
    "kvm_arch_flush_shadow_memslot": _MMU,
    "kvm_mmu_zap_all_fast": _MMU,
    "kvm_mmu_zap_memslot": _MMU,
    "kvm_unmap_gfn_range": _MMU,
    "kvm_mmu_zap_memslot_pages_and_flush": _MMU,
    "kvm_faultin_pfn": _MMU,
    "kvm_mmu_page_fault": _MMU,
    "x86_emulate_instruction": _X86,
    "apic_mmio_read": "arch/x86/kvm/lapic.c",
    "apic_mmio_write": "arch/x86/kvm/lapic.c",
    "fast_page_fault": _MMU,
    "kvm_mmu_slot_gfn_write_protect": _MMU,
    "kvm_mmu_slot_apply_flags": _X86,
    "kvm_vm_ioctl_enable_cap": _X86,
    "kvm_vm_ioctl_set_tss_addr": _X86,
    "kvm_vm_ioctl_set_identity_map_addr": _X86,
    "kvm_arch_vm_ioctl": _X86,
    "kvm_create_vm": _MAIN,
    "kvm_vm_ioctl_enable_cap_generic": _MAIN,
    "kvm_vm_ioctl_create_vcpu": _MAIN,
    "kvm_mmu_invalidate_zap_pages_in_memslot": _MMU,
    "kvm_mmu_invalidate_mmio_sptes": _MMU,
    "__kvm_mmu_prepare_zap_page": _MMU,
    "account_shadowed": _MMU,
    "unaccount_shadowed": _MMU,
    "update_gfn_disallow_lpage_count": _MMU,
    "kvm_mmu_gfn_allow_lpage": _MMU,
    "kvm_mmu_gfn_disallow_lpage": _MMU,
    "kvm_arch_mmu_enable_log_dirty_pt_masked": _MMU,
    "kvm_mmu_slot_leaf_clear_dirty": _MMU,
    "kvm_mmu_slot_remove_write_access": _MMU,
    "kvm_mmu_slot_try_split_huge_pages": _MMU,
    "kvm_mmu_zap_collapsible_sptes": _MMU,
    "kvm_mmu_recover_huge_pages": _MMU,
    "mmu_first_shadow_root_alloc": _MMU,
    "kvm_page_track_create_memslot": _PTRACK,
    "kvm_page_track_free_memslot": _PTRACK,
    "kvm_page_track_write_tracking_enabled": _PTRACK,
    "kvm_page_track_register_notifier": _PTRACK,
    "kvm_page_track_unregister_notifier": _PTRACK,
    "kvm_page_track_flush_slot": _PTRACK,
    "kvm_page_track_delete_slot": _PTRACK,
    "kvm_page_track_write": "arch/x86/kvm/mmu/page_track.h",
    "kvm_enable_external_write_tracking": _PTRACK,
    "kvm_write_track_add_gfn": _PTRACK,
    "kvm_write_track_remove_gfn": _PTRACK,
    "__kvm_write_track_add_gfn": _PTRACK,
    "__kvm_write_track_remove_gfn": _PTRACK,
    "update_gfn_write_track": _PTRACK,
    "kvm_page_track_has_external_user": "arch/x86/kvm/mmu/page_track.h",
    "intel_gvt_page_track_add": _KVMGT,
    "intel_gvt_page_track_remove": _KVMGT,
    "kvmgt_page_track_flush_slot": _KVMGT,
    "kvmgt_page_track_remove_region": _KVMGT,
    "intel_vgpu_register_page_track": _GVT,
    "intel_vgpu_unregister_page_track": _GVT,
    "intel_vgpu_enable_page_track": _GVT,
    "kvmgt_page_track_write": _KVMGT,
    "intel_gvt_dma_map_guest_page": _KVMGT,
    "intel_gvt_dma_unmap_guest_page": _KVMGT,
    "gtt_get_entry64": _GTT,
    "ppgtt_populate_spt": _GTT,
    "ppgtt_populate_shadow_entry": _GTT,
    "ppgtt_invalidate_spt": _GTT,
    "ppgtt_write_protection_handler": _GTT,
    "ppgtt_handle_guest_write_page_table": _GTT,
    "intel_vgpu_flush_post_shadow": _GTT,
}
"""File of every kernel function the engine names."""

_OLDER_NAMES: tuple[tuple[str, dict[str, str | None]], ...] = (
    # A kernel older than the first word calls things as the dictionary says; the oldest that fits decides.
    (
        "v5.7",
        {
            "kvm_set_memslot": "__kvm_set_memory_region",
            "kvm_replace_memslot": "__kvm_set_memory_region",
            "kvm_invalidate_memslot": "__kvm_set_memory_region",
            "kvm_copy_memslot": "__kvm_set_memory_region",
            "kvm_prepare_memory_region": "__kvm_set_memory_region",
            "kvm_alloc_dirty_bitmap": "kvm_create_dirty_bitmap",
            "kvm_alloc_memslot_metadata": "kvm_arch_create_memslot",
            "memslot_rmap_alloc": "kvm_arch_create_memslot",
            "__kvm_mmu_prepare_zap_page": "kvm_mmu_prepare_zap_page",
            "kvm_mmu_zap_all_fast": "kvm_mmu_invalidate_zap_all_pages",
            "kvm_clear_dirty_log_protect": None,
            "kvm_vm_ioctl_enable_cap_generic": None,
            "kvm_arch_guest_memory_reclaimed": None,
            "kvm_page_track_delete_slot": None,
        },
    ),
    (
        "v5.17",
        {
            "kvm_swap_active_memslots": "install_new_memslots",
            "kvm_activate_memslot": "install_new_memslots",
            "kvm_invalidate_memslot": "kvm_set_memslot",
            "kvm_copy_memslot": "kvm_dup_memslots",
            "kvm_replace_memslot": "kvm_set_memslot",
            "kvm_create_memslot": "update_memslots",
            "kvm_delete_memslot": "update_memslots",
            "kvm_move_memslot": "update_memslots",
            "kvm_update_flags_memslot": "update_memslots",
            "kvm_prepare_memory_region": "kvm_set_memslot",
            "kvm_commit_memory_region": "kvm_arch_commit_memory_region",
            "kvm_check_memslot_overlap": "__kvm_set_memory_region",
            "memslot_rmap_alloc": "kvm_alloc_memslot_metadata",
            "mmu_first_shadow_root_alloc": None,
            "kvm_mmu_slot_try_split_huge_pages": None,
            "kvm_faultin_pfn": "try_async_pf",
            "intel_gvt_page_track_add": "kvmgt_page_track_add",
            "intel_gvt_page_track_remove": "kvmgt_page_track_remove",
            "intel_gvt_dma_map_guest_page": "kvmgt_dma_map_guest_page",
            "intel_gvt_dma_unmap_guest_page": "kvmgt_dma_unmap_guest_page",
        },
    ),
    (
        "v6.6",
        {
            "__kvm_write_track_add_gfn": "kvm_slot_page_track_add_page",
            "__kvm_write_track_remove_gfn": "kvm_slot_page_track_remove_page",
            "kvm_write_track_add_gfn": "kvm_slot_page_track_add_page",
            "kvm_write_track_remove_gfn": "kvm_slot_page_track_remove_page",
            "update_gfn_write_track": "update_gfn_track",
            "kvm_page_track_has_external_user": None,
            "kvm_page_track_delete_slot": None,
            "kvmgt_page_track_remove_region": None,
        },
    ),
    (
        "v6.8",
        {
            "kvm_gmem_create": None,
            "kvm_gmem_release": None,
            "kvm_gmem_prepare_memory_region": None,
            "kvm_gmem_commit_memory_region": None,
            "kvm_gmem_unbind": None,
        },
    ),
    ("v6.9", {"kvm_enable_external_write_tracking": None}),
    ("v6.12", {"kvm_mmu_zap_memslot": None, "kvm_mmu_zap_memslot_pages_and_flush": None}),
    ("v6.13", {"kvm_mmu_recover_huge_pages": None}),
    ("v6.14", {"kvm_set_memory_region": "__kvm_set_memory_region"}),
    (
        "v7.3",
        {
            "kvm_gmem_prepare_memory_region": "kvm_gmem_bind",
            "kvm_gmem_commit_memory_region": "kvm_gmem_bind",
        },
    ),
)
_GONE: dict[str, str] = {
    "kvm_page_track_flush_slot": "v6.6",
    "kvmgt_page_track_flush_slot": "v6.6",
    "kvm_mmu_invalidate_zap_pages_in_memslot": "v6.6",
    "kvm_mmu_zap_collapsible_sptes": "v6.13",
}
"""First kernel without a function."""
_MOVED: tuple[tuple[str, dict[str, str]], ...] = (
    # A kernel older than the first word has these files under the old name.
    ("v5.5", {_MMU: "arch/x86/kvm/mmu.c", _PTRACK: "arch/x86/kvm/page_track.c"}),
)
_CHANGED_FILE = {
    "kvm_arch_flush_shadow_memslot": ("v6.6", _X86),
    "kvm_page_track_write": ("v6.6", _PTRACK),
}
"""Functions that changed their file: the first kernel that has them in the new one, and the old one."""
_OLD_FILES = {"kvm_arch_create_memslot": _X86, "kvm_arch_commit_memory_region": _X86}
"""Files of older functions, where they differ from that of the newer one."""
_TREE = {
    "pre_edd4": "v4.19",
    "v5_10": "v5.10",
    "v6_1": "v6.1",
    "v6_6": "v6.6",
    "v6_6_posted": "v6.6",
    "v6_6_nocheck": "v6.6",
    "v6_12_quirk_posted": "v6.12",
    "v6_12": "v6.12",
    "v6_18": "v6.18",
    "v7_3": "v7.3",
}


class Source(NamedTuple):
    """Where a statement comes from."""

    function: str
    """Its name in the tree of the profile."""
    file: str
    version: str
    """Such as ``6.12``."""
    url: str
    """Definition and uses of the function in a public browser of that version."""


def is_older(profile: KernelProfile, release: str) -> bool:
    """Return whether the kernel a profile stands for came before a release, such as ``v5.17``."""
    return _number(_TREE[profile.name]) < _number(release)


def release_of(profile: KernelProfile) -> str:
    """Return the release a profile stands for or was posted for, such as ``6.12``."""
    return _TREE[profile.name].removeprefix("v")


def name_in(function: str, profile: KernelProfile) -> str | None:
    """Return what a function is called in the kernel of a profile; None if that has no such function."""
    return _name_in(function, _TREE[profile.name])


@cache
def _name_in(function: str, tree: str) -> str | None:
    release = _number(tree)
    gone = _GONE.get(function)
    if gone is not None and release >= _number(gone):
        return None
    for newer, names in _OLDER_NAMES:
        if release < _number(newer) and function in names:
            return names[function]
    return function


def in_words_of(text: str, profile: KernelProfile) -> str:
    """Return a sentence with every backquoted call under the name the function has in a profile's kernel."""
    return _CALL.sub(lambda found: f"`{name_in(found[1], profile) or found[1]}(", text)


def source_of(function: str, profile: KernelProfile) -> Source | None:
    """Return where a function is in the kernel of a profile; None for what is no function there."""
    name, file = name_in(function, profile), FUNCTIONS.get(function)
    if name is None or file is None:
        return None
    file = _OLD_FILES.get(name, file)
    moved = _CHANGED_FILE.get(function)
    if moved is not None and is_older(profile, moved[0]):
        file = moved[1]
    for release, files in _MOVED:
        if is_older(profile, release):
            file = files.get(file, file)
    tree = _TREE[profile.name]
    return Source(name, file, tree.removeprefix("v"), f"https://elixir.bootlin.com/linux/{tree}/A/ident/{name}")


_CALL = re.compile(r"`(\w+)\(")


def _number(release: str) -> tuple[int, ...]:
    return tuple(int(part) for part in release.removeprefix("v").split("."))
