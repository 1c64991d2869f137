"""The arrays behind a slot: kernel-reference sections 11.1, 11.2, 11.6 and 11.7."""

from dataclasses import replace

import pytest
from story import H, story

from explorer.engine.draft import KvmDraft
from explorer.engine.events import KernelWarned
from explorer.engine.invariants import get_invariant
from explorer.engine.profile import PROFILES
from explorer.engine.state import DirtyBitmap, RmapArrays
from explorer.engine.types import PG_LEVEL_1G, PG_LEVEL_2M, PG_LEVEL_4K, gfn_to_index, hpages
from explorer.engine.uapi import KVM_MEM_LOG_DIRTY_PAGES

ALL = "all"
EXAMPLES = {
    # 11.1: base_gfn, npages, hva, n and marked entries at 2 MiB, n and marked entries at 1 GiB
    "E1a selftest region": (0xC0000, 512, H, 1, set(), 1, {0}),
    "E1b after a move by -1 page": (0xBFFFF, 512, H, 2, {0, 1}, 2, {0, 1}),
    "E2 hva off by a page": (0xC0000, 512, H + 0x1000, 1, {0}, 1, {0}),
    "E3 1 GiB aligned": (0x100000, 262144, 0x7F0040000000, 512, set(), 1, set()),
    "E4 E3 moved by +1": (0x100001, 262144, 0x7F0040000000, 513, ALL, 2, {0, 1}),
    "E5 base and hva both +1": (0x100001, 262144, 0x7F0040001000, 513, {0, 512}, 2, {0, 1}),
    "E6 low RAM 640K": (0, 160, H, 1, {0}, 1, {0}),
    "E7 straddles 2M": (0x1FE, 4, 0x7F00001FE000, 2, {0, 1}, 1, {0}),
    "E8 odd": (0x12345, 1000, 0x7F0012345000, 3, {0, 2}, 1, {0}),
    "E9 hva rule only at 1G": (0x40000, 262144, 0x7F0000200000, 512, set(), 1, {0}),
    "E10 3 GiB high memory": (0x100000, 786432, 0x7F00C0000000, 1536, set(), 3, set()),
    "E11 APIC page": (0xFEE00, 1, H, 1, {0}, 1, {0}),
    "E12 2 GiB + 1 MiB offset": (0x100, 524288, 0x7F0000100000, 1025, {0, 1024}, 3, {0, 2}),
    "E13 two pages on a 1G edge": (0x3FFFF, 2, 0x7F003FFFF000, 2, {0, 1}, 2, {0, 1}),
    "E14 4 MiB": (0x100000, 1024, H, 2, set(), 1, {0}),
    "E15 E14 moved, unaligned": (0x140001, 1024, H, 3, {0, 1, 2}, 1, {0}),
    "E16 the same, hva +1 page": (0x140001, 1024, H + 0x1000, 3, {0, 2}, 1, {0}),
}


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("example", EXAMPLES.values(), ids=EXAMPLES)
def test_a_new_slot_has_arrays_of_the_computed_lengths_and_marks(example, profile):
    base_gfn, npages, hva, n_2m, marks_2m, n_1g, marks_1g = example

    vm = story(profile=profile).slot(1, gfn=base_gfn, npages=npages, hva=hva)

    two, one = vm.lpage(1, PG_LEVEL_2M), vm.lpage(1, PG_LEVEL_1G)
    assert vm.kvm.heap[vm[1].arch.rmap] == RmapArrays((npages, n_2m, n_1g))
    assert (len(two), len(one)) == (n_2m, n_1g)
    assert {i for i, value in enumerate(two) if value} == (set(range(n_2m)) if marks_2m == ALL else marks_2m)
    assert {i for i, value in enumerate(one) if value} == marks_1g
    assert {*two, *one} <= {0, 1}, "an entry that is head and tail has 1, for the rules assign"


@pytest.mark.parametrize("profile", [name for name, p in PROFILES.items() if not p.move_keeps_arch_metadata])
@pytest.mark.parametrize(
    ("base_gfn", "npages", "hva", "to_gfn"),
    [
        (0xC0000, 512, H, 0xBFFFF),
        (0x100000, 262144, 0x7F0040000000, 0x100001),
        (0x40000, 1024, H + 0x40000000, 0x40100),
        (0x1001FF, 513, 0x7F00001FF000, 0x100200),
        (0x100000, 1024, H, 0x100200),
    ],
    ids=["P1", "P2", "P3", "P4", "P5"],
)
def test_a_move_builds_what_a_create_at_the_new_place_would(profile, base_gfn, npages, hva, to_gfn):
    no_tracker = {"profile": profile, "external_write_tracking": False}  # so that every era allows the MOVE
    moved = story(**no_tracker).slot(1, gfn=base_gfn, npages=npages, hva=hva)
    created = story(**no_tracker).slot(1, gfn=to_gfn, npages=npages, hva=hva)

    moved.move(1, to_gfn=to_gfn)

    assert moved.errno is None
    for level in (PG_LEVEL_2M, PG_LEVEL_1G):
        assert moved.lpage_level(1, level) == created.lpage_level(1, level)
    assert moved.kvm.heap[moved[1].arch.rmap] == created.kvm.heap[created[1].arch.rmap]


OLD_ARRAYS = {
    # 11.2: base, npages, hva, new base, n 2M kept and needed, n 1G kept and needed, gfns past the end
    "P1": (0xC0000, 512, H, 0xBFFFF, (1, 2), (1, 2), (0, 511, 511)),
    "P2": (0x100000, 262144, 0x7F0040000000, 0x100001, (512, 513), (1, 2), (0, 1, 1)),
    "P3": (0x40000, 1024, H, 0x40100, (2, 3), (1, 1), (0, 256, 0)),
    "P4": (0x1001FF, 513, 0x7F00001FF000, 0x100200, (2, 2), (1, 1), (0, 0, 0)),
    "P5": (0x100000, 1024, H, 0x100200, (2, 2), (1, 1), (0, 0, 0)),
}


@pytest.mark.parametrize("example", OLD_ARRAYS.values(), ids=OLD_ARRAYS)
def test_before_edd4_a_moved_slot_indexes_past_the_end_of_its_old_arrays(example):
    base_gfn, npages, hva, to_gfn, two, one, past = example
    vm = story(profile="pre_edd4").slot(1, gfn=base_gfn, npages=npages, hva=hva)
    before = vm[1].arch

    vm.move(1, to_gfn=to_gfn)

    assert (vm.errno, vm[1].arch, vm[1].base_gfn) == (None, before, to_gfn)
    assert (vm.lpage_level(1, PG_LEVEL_2M).n, hpages(to_gfn, npages, PG_LEVEL_2M)) == two
    assert (vm.lpage_level(1, PG_LEVEL_1G).n, hpages(to_gfn, npages, PG_LEVEL_1G)) == one
    assert tuple(len(vm.past_the_end(1, level)) for level in (PG_LEVEL_2M, PG_LEVEL_1G)) == past[1:]
    found = {(v.expected.split(" below")[0], to_gfn + npages - v.gfn) for v in get_invariant(7).check(vm.kvm)}
    names = {1: ("rmap[1]", "lpage_info[0]"), 2: ("rmap[2]", "lpage_info[1]")}
    assert found == {(f"an index of {name}", past[at]) for at in (1, 2) if past[at] for name in names[at]}


def test_before_edd4_the_only_gfn_of_p2_past_the_end_is_the_last():
    vm = story(profile="pre_edd4").slot(1, gfn=0x100000, npages=262144, hva=0x7F0040000000)

    vm.move(1, to_gfn=0x100001)

    assert vm.past_the_end(1, PG_LEVEL_2M) == vm.past_the_end(1, PG_LEVEL_1G) == [0x140000]


def test_before_edd4_p4_leaves_a_frame_huge_that_is_not_whole_in_the_slot():
    vm = story(profile="pre_edd4").slot(1, gfn=0x1001FF, npages=513, hva=0x7F00001FF000)

    vm.move(1, to_gfn=0x100200)

    assert vm.lpage(1, PG_LEVEL_2M) == [1, 0]
    (stale,) = (v for v in get_invariant(8).check(vm.kvm) if (v.expected, v.found) == (1, 0) and v.gfn == 0x100400)
    assert stale.slot == 1
    assert [v.gfn for v in get_invariant(15).check(vm.kvm)] == [0x100400]


def test_before_edd4_p5_is_lucky():
    vm = story(profile="pre_edd4").slot(1, gfn=0x100000, npages=1024)
    marks = vm.lpage(1, PG_LEVEL_2M)

    vm.move(1, to_gfn=0x100200)

    assert vm.lpage(1, PG_LEVEL_2M) == marks == [0, 0]
    assert all(get_invariant(number).check(vm.kvm) == () for number in (6, 7))


@pytest.mark.parametrize(
    ("npages", "half", "allocated"),
    [
        (1, 8, 16),
        (63, 8, 16),
        (64, 8, 16),
        (65, 16, 32),
        (160, 24, 48),
        (512, 64, 128),
        (1000, 128, 256),
        (4096, 512, 1024),
        (262144, 32768, 65536),
    ],
)
def test_a_dirty_bitmap_takes_whole_words_twice(npages, half, allocated):
    vm = story().slot(1, gfn=0x100, npages=npages, flags=KVM_MEM_LOG_DIRTY_PAGES)

    bitmap = vm.kvm.heap[vm[1].dirty_bitmap]

    assert isinstance(bitmap, DirtyBitmap)
    assert (bitmap.half_bytes, bitmap.size_bytes) == (half, allocated)


@pytest.mark.parametrize(
    ("base_gfn", "npages", "hva", "config", "size_bytes"),
    [
        (0x100000, 1024, H, {}, 10276),  # E14: 8216 + 12 + 2048
        (0x100000, 262144, 0x7F0040000000, {}, 2627596),  # E3: 2101256 + 2052 + 524288
        (0x100000, 262144, 0x7F0040000000, {"tdp": True}, 2052),  # no rmaps and no tracking
    ],
)
def test_the_metadata_of_a_slot_takes_the_computed_memory(base_gfn, npages, hva, config, size_bytes):
    vm = story(**config).slot(1, gfn=base_gfn, npages=npages, hva=hva)

    assert vm.kvm.heap_bytes == size_bytes
    assert sum(array.size_bytes for array in vm.kvm.heap.values()) == size_bytes


@pytest.mark.parametrize(
    ("profile", "config", "rmap", "counts"),
    [
        # kernel-reference 3.6: who has counts; 3.4: who has rmaps
        ("pre_edd4", {"tdp": True, "external_write_tracking": False}, True, True),  # rmaps on demand came with 5.14
        ("v5_10", {"tdp": True}, True, True),  # the same
        ("v6_1", {"tdp": True}, False, True),
        ("v6_1", {"tdp": True, "external_write_tracking": False}, False, False),
        ("v6_1", {"tdp": False, "external_write_tracking": False}, True, True),
        ("v6_6", {"tdp": True, "tdp_mmu": False}, True, True),
        ("v6_12", {"tdp": True}, False, False),
        ("v6_12", {"tdp": True, "tdp_mmu": False}, True, False),
        ("v6_12", {"tdp": False}, True, True),
        ("v7_3", {"tdp": True}, False, False),
    ],
)
def test_a_slot_has_only_the_arrays_its_kernel_and_machine_need(profile, config, rmap, counts):
    vm = story(profile=profile, **config).slot(1, gfn=0x100, npages=1)

    assert (vm[1].arch.rmap is not None, vm[1].arch.gfn_write_track is not None) == (rmap, counts)
    assert vm[1].arch.lpage_info is not None


def test_the_first_tracker_gives_every_slot_its_counts_on_demand():
    vm = story(tdp=True).slot(1, gfn=0x100, npages=3).slot(2, gfn=0x200, npages=5).slot(1, gfn=0x300, npages=7, as_id=1)
    assert vm.kvm.external_write_tracking_enabled is False

    vm.attach()

    sizes = [vm.kvm.heap[vm[key].arch.gfn_write_track].n for key in ((1, 0), (2, 0), (1, 1))]
    assert sizes == [3, 5, 7]
    assert vm.detach().kvm.external_write_tracking_enabled is True, "never switched off again"


def test_memory_that_does_not_suffice_refuses_a_slot_and_leaves_everything():
    vm = story(host_memory=10276 - 1)
    before = vm.kvm

    vm.do(vm.region(1, gfn=0x100000, npages=1024, hva=H))

    assert (vm.errno_name, vm.refused_by) == ("ENOMEM", "array_memory")
    assert vm.kvm == before
    assert story(host_memory=10276).slot(1, gfn=0x100000, npages=1024, hva=H).kvm.heap_bytes == 10276


def test_a_slot_without_memory_for_its_arrays_gives_its_bitmap_back():
    vm = story(host_memory=10276 + 255)  # the bitmap of 1024 pages takes 256

    vm.do(vm.region(1, gfn=0x100000, npages=1024, hva=H, flags=KVM_MEM_LOG_DIRTY_PAGES))

    assert (vm.refused_by, vm.kvm.heap_bytes, len(vm.kvm.heap)) == ("array_memory", 0, 0)


@pytest.mark.parametrize(("profile", "generations"), [("pre_edd4", 0), ("v5_10", 0), ("v6_1", 4), ("v7_3", 4)])
def test_a_move_without_memory_for_its_bitmap_costs_two_swaps_from_5_17_on(profile, generations):
    """Before, __kvm_set_memory_region() allocates the bitmap ahead of kvm_set_memslot()."""
    vm = story(profile=profile).slot(1, gfn=0x100, npages=1024, hva=H)
    vm.kvm = vm.kvm._replace(config=replace(vm.kvm.config, host_memory=vm.kvm.heap_bytes))
    before, slots = vm.generation(), vm.kvm.slots()

    vm.move(1, to_gfn=0x800, flags=KVM_MEM_LOG_DIRTY_PAGES)

    assert (vm.errno_name, vm.refused_by) == ("ENOMEM", "bitmap_memory")
    assert (vm.generation() - before, vm.kvm.slots()) == (generations, slots)


def test_before_edd4_a_create_can_run_out_of_memory_as_well():
    """4.19 calls kvm_arch_create_memslot() for CREATE, and it returns -ENOMEM."""
    vm = story(profile="pre_edd4", host_memory=4096)

    vm.do(vm.region(1, gfn=0x100000, npages=262144))

    assert vm.errno_name == "ENOMEM"


@pytest.mark.parametrize("level", [PG_LEVEL_4K, PG_LEVEL_2M, PG_LEVEL_1G])
def test_an_index_counts_frames_and_not_pages(level):
    """arch/x86/kvm/mmu.h: gfn_to_index(); kernel-reference 3.4."""
    pages = {PG_LEVEL_4K: 1, PG_LEVEL_2M: 512, PG_LEVEL_1G: 262144}[level]
    for base in (0, 1, pages - 1, pages, pages + 1):
        for gfn in (base, base + 1, base + pages - 1, base + pages, base + 3 * pages):
            assert gfn_to_index(gfn, base, level) == gfn // pages - base // pages


def test_an_array_that_is_freed_twice_is_a_kernel_bug():
    vm = story().slot(1, gfn=0x100, npages=4)
    draft = KvmDraft(vm.kvm, record=True)

    draft.free(vm[1], vm[1].arch.rmap, vm[1].arch.rmap)

    assert [(e.function, e.what) for e in draft.events if isinstance(e, KernelWarned)] == [
        ("kvfree", f"array {vm[1].arch.rmap} of slot 1 was freed before")
    ]
