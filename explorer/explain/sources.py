"""Where a kernel function is: its file, its name in older trees, and a link to a public browser.

Names are those of the newest kernel that has the function; `name_in` gives the name a profile's tree uses.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from explorer.engine.profile import KernelProfile

__all__ = ["FUNCTIONS", "Source", "source_of"]

_MAIN = "virt/kvm/kvm_main.c"
_X86 = "arch/x86/kvm/x86.c"
_MMU = "arch/x86/kvm/mmu/mmu.c"
_PTRACK = "arch/x86/kvm/mmu/page_track.c"
_KVMGT = "drivers/gpu/drm/i915/gvt/kvmgt.c"
_GVT = "drivers/gpu/drm/i915/gvt/page_track.c"

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
    "kvm_mmu_invalidate_zap_pages_in_memslot": _MMU,
    "kvm_mmu_invalidate_mmio_sptes": _MMU,
    "__kvm_mmu_prepare_zap_page": _MMU,
    "account_shadowed": _MMU,
    "unaccount_shadowed": _MMU,
    "update_gfn_disallow_lpage_count": _MMU,
    "mmu_first_shadow_root_alloc": _MMU,
    "kvm_page_track_create_memslot": _PTRACK,
    "kvm_page_track_register_notifier": _PTRACK,
    "kvm_page_track_unregister_notifier": _PTRACK,
    "kvm_page_track_flush_slot": _PTRACK,
    "kvm_page_track_delete_slot": _PTRACK,
    "kvm_page_track_write": _PTRACK,
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
}
"""File of every kernel function the engine names."""

_BEFORE_6_6 = {
    "__kvm_write_track_add_gfn": "kvm_slot_page_track_add_page",
    "__kvm_write_track_remove_gfn": "kvm_slot_page_track_remove_page",
    "kvm_write_track_add_gfn": "kvm_slot_page_track_add_page",
    "kvm_write_track_remove_gfn": "kvm_slot_page_track_remove_page",
    "update_gfn_write_track": "update_gfn_track",
    "intel_gvt_page_track_add": "intel_gvt_page_track_add",
}
_BEFORE_5_17 = {
    "kvm_swap_active_memslots": "install_new_memslots",
    "kvm_activate_memslot": "install_new_memslots",
    "kvm_invalidate_memslot": "kvm_set_memslot",
    "kvm_copy_memslot": "kvm_dup_memslots",
    "kvm_replace_memslot": "update_memslots",
    "kvm_create_memslot": "kvm_set_memslot",
    "kvm_delete_memslot": "kvm_delete_memslot",
    "kvm_move_memslot": "kvm_set_memslot",
    "kvm_update_flags_memslot": "kvm_set_memslot",
    "kvm_prepare_memory_region": "kvm_arch_prepare_memory_region",
    "kvm_commit_memory_region": "kvm_arch_commit_memory_region",
    "kvm_check_memslot_overlap": "__kvm_set_memory_region",
}
_TREE = {
    "pre_edd4": "v4.19",
    "v5_10": "v5.10",
    "v6_1": "v6.1",
    "v6_6": "v6.6",
    "v6_6_posted": "v6.6",
    "v6_6_nocheck": "v6.6",
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


def source_of(function: str, profile: KernelProfile) -> Source | None:
    """Return where a function is in the tree of a profile; None for what is no kernel function."""
    file = FUNCTIONS.get(function)
    if file is None:
        return None
    name = function
    if profile.region_hook == "track_flush_slot":
        name = _BEFORE_6_6.get(name, name)
        if file == _MMU and name == "kvm_arch_flush_shadow_memslot":
            file = _X86
    if profile.name in ("pre_edd4", "v5_10"):
        name = _BEFORE_5_17.get(name, name)
    if name == "kvm_set_memory_region" and profile.name != "v7_3":
        name = "__kvm_set_memory_region"
    tree = _TREE.get(profile.name, "latest")
    return Source(name, file, tree.removeprefix("v"), f"https://elixir.bootlin.com/linux/{tree}/A/ident/{name}")
