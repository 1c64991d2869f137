"""What the engine's files say of kernel functions that recorded graphs show and the engine has no event for.

Either another function of the engine does what the kernel's does, or a file says under "Not modelled" that nobody
does. A test looks both up in the files; a function with neither is left out without a word.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

__all__ = ["ABSENT", "DONE_IN", "OF_THE_MODULE", "LeftOut", "why_left_out"]


class LeftOut(NamedTuple):
    """What is said of one function."""

    how: Literal["part", "not modelled", "module"]
    words: str
    """The engine's function that does it, or what is not modelled."""
    file: str = ""
    """File of the engine that says so."""


OF_THE_MODULE = frozenset({"fk_open", "new_event", "on_flush", "on_remove"})
"""Functions of the small module that stood in for KVMGT in the recordings."""

DONE_IN: dict[tuple[str, str], tuple[str, ...]] = {
    # (file, function of the engine): what it does of the kernel's work
    ("lookup.py", "gfn_to_memslot"): ("gfn_to_memslot",),
    ("spte.py", "sptes_in"): (
        "gfn_to_rmap",
        "rmap_get_first",
        "rmap_walk_init_level",
        "slot_rmap_walk_next",
        "tdp_iter_start",
        "tdp_iter_restart",
        "tdp_iter_next",
        "tdp_iter_refresh_sptep",
        "kvm_mmu_page_get_gfn",
    ),
    ("spte.py", "rearm_dirty_pages"): (
        "__rmap_clear_dirty",
        "clear_dirty_gfn_range",
        "clear_dirty_pt_masked",
        "kvm_mmu_clear_dirty_pt_masked",
        "kvm_tdp_mmu_clear_dirty_pt_masked",
        "kvm_tdp_mmu_clear_dirty_slot",
        "kvm_tdp_mmu_wrprot_slot",
        "vmx_enable_log_dirty_pt_masked",
        "vmx_slot_enable_log_dirty",
        "wrprot_gfn_range",
    ),
    ("spte.py", "put_spte"): (
        "__handle_changed_spte",
        "__rmap_write_protect",
        "__tdp_mmu_set_spte",
        "handle_changed_spte",
        "kvm_tdp_mmu_write_protect_gfn",
        "mmu_spte_update",
        "mmu_spte_update_no_track",
        "rmap_write_protect",
    ),
    ("spte.py", "drop_page_sptes"): (
        "__pte_list_remove",
        "drop_spte",
        "mmu_page_zap_pte",
        "mmu_spte_clear_track_bits",
        "pte_list_remove",
    ),
    ("spte.py", "zap_sptes"): (
        "__kvm_rmap_zap_gfn_range",
        "kvm_tdp_mmu_unmap_gfn_range",
        "kvm_zap_all_rmap_sptes",
        "tdp_mmu_zap_leafs",
    ),
    ("spte.py", "split_huge_sptes"): ("kvm_tdp_mmu_try_split_huge_pages", "tdp_mmu_split_huge_pages_root"),
    ("dirty_log.py", "kvm_mmu_slot_apply_flags"): (
        "kvm_rmap_zap_collapsible_sptes",
        "kvm_tdp_mmu_recover_huge_pages",
        "kvm_tdp_mmu_zap_collapsible_sptes",
    ),
    ("mmu.py", "kvm_mmu_zap_all_fast"): ("__kvm_mmu_zap_all_fast_front_half",),
    ("memslots.py", "begin"): ("kvm_delete_memslot",),
}

ABSENT: dict[tuple[str, str], tuple[str, ...]] = {
    # (file, what it says is not modelled): functions that do nothing else
    ("page_track.py", "TLB flushes"): (
        "kvm_arch_flush_remote_tlbs_memslot",
        "kvm_flush_remote_tlbs",
        "kvm_flush_remote_tlbs_memslot",
    ),
    ("swap.py", "kicks of vCPUs"): (
        "__kvm_vcpu_kick",
        "kvm_arch_vcpu_should_kick",
        "kvm_make_all_cpus_request",
        "kvm_make_all_cpus_request_except",
        "kvm_make_vcpu_request",
        "kvm_reload_remote_mmus",
        "kvm_vcpu_kick",
    ),
    ("mmu.py", "direct shadow pages and TDP MMU roots"): (
        "__tdp_mmu_zap_root",
        "kvm_tdp_mmu_invalidate_all_roots",
        "kvm_tdp_mmu_invalidate_roots",
        "kvm_tdp_mmu_put_root",
        "kvm_tdp_mmu_zap_invalidated_roots",
        "spte_to_child_pt",
        "tdp_mmu_free_sp_rcu_callback",
        "tdp_mmu_next_root",
        "tdp_mmu_zap_root",
    ),
    ("mmu.py", "the flush between the zap of pages and their end"): ("kvm_mmu_commit_zap_page",),
    ("mmu.py", "the mark of pages out of sync"): ("mmu_zap_unsync_children",),
    ("memslots.py", "the SP quota"): ("kvm_mmu_calculate_default_mmu_pages", "kvm_mmu_change_mmu_pages"),
    ("memslots.py", "memory reclaim for SEV"): ("sev_guest_memory_reclaimed",),
    ("commands.py", "memory attributes"): ("kvm_mmu_init_memslot_memory_attributes",),
    ("dirty_log.py", "the dirty ring"): ("kvm_use_dirty_bitmap",),
    ("dirty_log.py", "the PML buffer"): ("kvm_arch_sync_dirty_log", "vmx_flush_log_dirty"),
    ("spte.py", "access tracking"): (
        "handle_changed_spte_acc_track",
        "kvm_set_pfn_accessed",
        "spte_has_volatile_bits",
        "spte_needs_atomic_update",
    ),
    ("hostmem.py", "host physical frames"): (
        "kvm_is_reserved_pfn",
        "kvm_pfn_to_refcounted_page",
        "kvm_set_page_dirty",
        "kvm_set_pfn_dirty",
    ),
    ("trackers.py", "the reference to the VM that a tracker holds"): ("kvm_get_kvm", "kvm_put_kvm"),
}

_SAID: dict[str, LeftOut] = (
    {name: LeftOut("part", of, file) for (file, of), names in DONE_IN.items() for name in names}
    | {name: LeftOut("not modelled", what, file) for (file, what), names in ABSENT.items() for name in names}
    | {name: LeftOut("module", "the module that stood in for KVMGT") for name in OF_THE_MODULE}
)


def why_left_out(function: str) -> LeftOut | None:
    """Return what is said of a function that a kernel entered and the engine does not; None if nothing is."""
    return _SAID.get(function)
