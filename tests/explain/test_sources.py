"""Sources: each function under the name and in the file it has in the kernel that is shown.

Judges: kernel-reference 15 (files, and which function does not exist), 3.7 (names before 6.6), and the call trees
recorded on real kernels, which hold the names as those kernels have them.
"""

import pytest
from runs import ALL_PROFILES

from explorer.conform.call_trees import graphs_of, recorded_files
from explorer.engine.guards import ladder_of
from explorer.engine.memslots import TABLES
from explorer.engine.profile import get_profile
from explorer.explain.sources import FUNCTIONS, in_words_of, is_older, name_in, source_of

MAIN, X86, MMU = "virt/kvm/kvm_main.c", "arch/x86/kvm/x86.c", "arch/x86/kvm/mmu/mmu.c"
PTRACK, KVMGT, GVT = (
    "arch/x86/kvm/mmu/page_track.c",
    "drivers/gpu/drm/i915/gvt/kvmgt.c",
    "drivers/gpu/drm/i915/gvt/page_track.c",
)
INDEX = [
    # kernel-reference 15: function, file in 6.1, 6.12 and 7.3; None where it does not exist
    ("kvm_vm_ioctl_set_memory_region", MAIN, MAIN, MAIN),
    ("check_memory_region_flags", MAIN, MAIN, MAIN),
    ("kvm_check_memslot_overlap", MAIN, MAIN, MAIN),
    ("kvm_set_memslot", MAIN, MAIN, MAIN),
    ("kvm_invalidate_memslot", MAIN, MAIN, MAIN),
    ("kvm_swap_active_memslots", MAIN, MAIN, MAIN),
    ("kvm_activate_memslot", MAIN, MAIN, MAIN),
    ("kvm_replace_memslot", MAIN, MAIN, MAIN),
    ("kvm_copy_memslot", MAIN, MAIN, MAIN),
    ("kvm_create_memslot", MAIN, MAIN, MAIN),
    ("kvm_delete_memslot", MAIN, MAIN, MAIN),
    ("kvm_move_memslot", MAIN, MAIN, MAIN),
    ("kvm_update_flags_memslot", MAIN, MAIN, MAIN),
    ("kvm_prepare_memory_region", MAIN, MAIN, MAIN),
    ("kvm_commit_memory_region", MAIN, MAIN, MAIN),
    ("kvm_alloc_dirty_bitmap", MAIN, MAIN, MAIN),
    ("kvm_free_memslot", MAIN, MAIN, MAIN),
    ("kvm_get_dirty_log_protect", MAIN, MAIN, MAIN),
    ("kvm_clear_dirty_log_protect", MAIN, MAIN, MAIN),
    ("mark_page_dirty_in_slot", MAIN, MAIN, MAIN),
    ("__x86_set_memory_region", X86, X86, X86),
    ("memslot_rmap_alloc", X86, X86, X86),
    ("kvm_alloc_memslot_metadata", X86, X86, X86),
    ("kvm_arch_free_memslot", X86, X86, X86),
    ("kvm_arch_memslots_updated", X86, X86, X86),
    ("kvm_arch_prepare_memory_region", X86, X86, X86),
    ("kvm_mmu_slot_apply_flags", X86, X86, X86),
    ("kvm_arch_commit_memory_region", X86, X86, X86),
    ("kvm_arch_flush_shadow_memslot", X86, MMU, MMU),
    ("kvm_mmu_zap_all_fast", MMU, MMU, MMU),
    ("kvm_mmu_zap_memslot_pages_and_flush", None, MMU, MMU),
    ("__kvm_mmu_prepare_zap_page", MMU, MMU, MMU),
    ("account_shadowed", MMU, MMU, MMU),
    ("unaccount_shadowed", MMU, MMU, MMU),
    ("update_gfn_disallow_lpage_count", MMU, MMU, MMU),
    ("mmu_first_shadow_root_alloc", MMU, MMU, MMU),
    ("kvm_mmu_invalidate_mmio_sptes", MMU, MMU, MMU),
    ("kvm_page_track_create_memslot", PTRACK, PTRACK, PTRACK),
    ("kvm_enable_external_write_tracking", None, PTRACK, PTRACK),
    ("kvm_page_track_register_notifier", PTRACK, PTRACK, PTRACK),
    ("kvm_page_track_flush_slot", PTRACK, None, None),
    ("kvm_page_track_delete_slot", None, PTRACK, PTRACK),
    ("kvm_page_track_has_external_user", None, *("arch/x86/kvm/mmu/page_track.h",) * 2),
    ("intel_gvt_page_track_add", KVMGT, KVMGT, KVMGT),
    ("intel_gvt_page_track_remove", KVMGT, KVMGT, KVMGT),
    ("kvmgt_page_track_flush_slot", KVMGT, None, None),
    ("kvmgt_page_track_remove_region", None, KVMGT, KVMGT),
    ("intel_vgpu_enable_page_track", GVT, GVT, GVT),
    ("intel_vgpu_unregister_page_track", GVT, GVT, GVT),
]
RECORDED = {"5.10": "v5_10", "6.1": "v6_1", "6.12": "v6_12", "7.3": "v7_3"}


def source(function, profile):
    return source_of(function, get_profile(profile))


@pytest.mark.parametrize(("function", "in_6_1", "in_6_12", "in_7_3"), INDEX, ids=[row[0] for row in INDEX])
def test_a_function_is_cited_with_the_file_of_the_function_index(function, in_6_1, in_6_12, in_7_3):
    for profile, version, file in (("v6_1", "6.1", in_6_1), ("v6_12", "6.12", in_6_12), ("v7_3", "7.3", in_7_3)):
        found = source(function, profile)
        if file is None:
            assert found is None
        else:
            assert (found.function, found.file, found.version) == (function, file, version)
            assert found.url == f"https://elixir.bootlin.com/linux/v{version}/A/ident/{function}"


@pytest.mark.parametrize(
    ("function", "before_6_6"),
    [
        # kernel-reference 3.7 and 15
        ("kvm_write_track_add_gfn", "kvm_slot_page_track_add_page"),
        ("__kvm_write_track_add_gfn", "kvm_slot_page_track_add_page"),
        ("kvm_write_track_remove_gfn", "kvm_slot_page_track_remove_page"),
        ("update_gfn_write_track", "update_gfn_track"),
    ],
)
def test_page_tracking_has_its_older_names_before_6_6(function, before_6_6):
    assert source(function, "v6_1").function == before_6_6
    assert source(function, "v6_6").function == function


@pytest.mark.parametrize(
    ("profile", "name"),
    # kernel-reference 2.5: the checked core took the plain name in 6.14.
    [(p, "__kvm_set_memory_region") for p in ("pre_edd4", "v5_10", "v6_1", "v6_6", "v6_6_posted", "v6_12")]
    + [("v6_18", "kvm_set_memory_region"), ("v7_3", "kvm_set_memory_region")],
)
def test_the_core_of_the_ioctl_had_underscores_up_to_6_13(profile, name):
    assert source("kvm_set_memory_region", profile).function == name


def names_recorded(kernel):
    files = [path for path in recorded_files() if path.parts[-4] == kernel]
    return {call.function for path in files for graph in graphs_of(path) for call in graph.calls}


@pytest.mark.parametrize(("kernel", "profile"), RECORDED.items())
def test_a_function_that_a_kernel_was_seen_to_run_is_cited_under_that_name(kernel, profile):
    seen = names_recorded(kernel)
    cited = {found.function for name in FUNCTIONS if (found := source(name, profile)) is not None}
    older = {  # names that these kernels do not have any more, or do not have yet
        "kvm_mmu_invalidate_zap_pages_in_memslot": "v6_6",
        "kvm_page_track_flush_slot": "v6_6",
    }

    told_otherwise = {name for name in seen & set(FUNCTIONS) if name_in(name, get_profile(profile)) != name}

    # Only 5.10's kvm_delete_memslot() is another function than today's: it calls kvm_set_memslot().
    assert told_otherwise == ({"kvm_delete_memslot"} if kernel == "5.10" else set())
    assert seen & {"__kvm_set_memory_region", "kvm_set_memory_region"} <= cited
    assert seen & {"install_new_memslots", "kvm_swap_active_memslots"} <= cited
    assert seen & {"kvm_slot_page_track_add_page", "__kvm_write_track_add_gfn"} <= cited
    assert len(seen & cited) > 15
    assert older.keys() & seen == (set(older) if profile in ("v5_10", "v6_1") else set())


@pytest.mark.parametrize("profile", ALL_PROFILES)
def test_every_step_and_every_check_has_a_source(profile):
    kernel = get_profile(profile)
    functions = {phase.function for table in TABLES.values() for phase in table}
    for kind in ("region", "region2", *(["gmem"] if kernel.set_user_memory_region2 else [])):
        functions |= {guard.function for part in ladder_of(kernel, kind) for guard in part}

    sources = {function: source_of(function, kernel) for function in functions}

    assert [function for function, found in sources.items() if found is None] == []
    assert all(found.function and found.file.endswith((".c", ".h")) for found in sources.values())
    assert all(found.url.endswith(f"/{found.function}") for found in sources.values())


def test_4_19_kept_its_mmu_in_one_folder_with_the_rest():
    assert source("account_shadowed", "pre_edd4").file == "arch/x86/kvm/mmu.c"
    assert source("kvm_page_track_register_notifier", "pre_edd4").file == "arch/x86/kvm/page_track.c"
    assert source("kvm_page_track_register_notifier", "v5_10").file == PTRACK


def test_what_is_no_kernel_function_has_no_source():
    assert source("watches_of", "v6_12") is None


def test_a_sentence_speaks_of_functions_as_its_kernel_calls_them():
    sentence = "`kvm_set_memory_region()` and `kvm_swap_active_memslots()`, not kvm_copy_memslot()"

    assert in_words_of(sentence, get_profile("v5_10")) == (
        "`__kvm_set_memory_region()` and `install_new_memslots()`, not kvm_copy_memslot()"
    )
    assert in_words_of(sentence, get_profile("v7_3")) == sentence


def test_releases_are_compared_as_numbers():
    assert is_older(get_profile("v6_6"), "v6.12")
    assert not is_older(get_profile("v6_12"), "v6.6")
    assert not is_older(get_profile("v6_12"), "v6.12")
