"""What readers see, which arrays exist and how the generation stands after each phase of a region call.

Kernel-reference sections 3.3, 4.5 and 4.9; the orders are those of kvm_set_memslot().
"""

from dataclasses import replace

import pytest
from story import H, Story, story

from explorer.engine.apply import apply, walk
from explorer.engine.commands import parse_command
from explorer.engine.events import (
    ArrayAllocated,
    ArrayFreed,
    ArraysInherited,
    CallReturned,
    DirtyBitmapHandedOver,
    GenerationAdvanced,
    InvalidCopyMade,
    MappingsZapped,
    MemslotsPublished,
    PagesAccounted,
    ReadersDrained,
    RolledBack,
    SlotObjectFreed,
)
from explorer.engine.invariants import violations
from explorer.engine.lookup import KVM_HVA_ERR_BAD, gfn_to_hva
from explorer.engine.memslots import TABLES
from explorer.engine.profile import PROFILES
from explorer.engine.uapi import KVM_MEM_LOG_DIRTY_PAGES, KVM_MEM_READONLY

BAD = KVM_HVA_ERR_BAD
LOG = KVM_MEM_LOG_DIRTY_PAGES
UPDATING = 1 << 63
OLD, NEW = 0xC01FF, 0xBFFFF
"""A gfn that only the old place holds, and one that only the new place does."""
BEHIND_OLD, BEHIND_NEW = H + 0x1FF000, H


def slot_10(**options) -> Story:
    return story(**options).slot(10, gfn=0xC0000, npages=0x200, hva=H)


def seen(kvm) -> tuple[str, int, int, int]:
    """Return what a reader finds at the two gfns, the generation it sees, and how many arrays are alive."""
    active = kvm.active()
    return gfn_to_hva(active, OLD), gfn_to_hva(active, NEW), active.generation, len(kvm.heap)


def test_a_create_is_seen_from_its_only_swap_on():
    vm = story()
    step, phases = walk(vm.kvm, vm.region(10, gfn=0xC0000, npages=0x200, hva=H, flags=LOG))

    assert [(p.phase.name, *seen(p.kvm)) for p in phases] == [
        ("check", BAD, BAD, 0, 0),
        ("prepare", BAD, BAD, 0, 4),
        ("stage_new", BAD, BAD, 0, 4),
        ("publish", BEHIND_OLD, BAD, 0 | UPDATING, 4),
        ("drain", BEHIND_OLD, BAD, 2, 4),
        ("commit", BEHIND_OLD, BAD, 2, 4),
        ("return", BEHIND_OLD, BAD, 2, 4),
    ]
    assert [type(e) for e in step.events if isinstance(e, MemslotsPublished | MappingsZapped | PagesAccounted)] == [
        MemslotsPublished,
        PagesAccounted,
    ], "one swap and no zap"


def test_a_delete_hides_the_slot_before_it_zaps_and_frees_it_at_the_very_end():
    vm = slot_10()
    step, phases = walk(vm.kvm, vm.deletion(10))

    assert [(p.phase.name, *seen(p.kvm)) for p in phases] == [
        ("check", BEHIND_OLD, BAD, 2, 3),
        ("copy", BEHIND_OLD, BAD, 2, 3),
        ("stage_invalid", BEHIND_OLD, BAD, 2, 3),
        ("publish_invalid", BAD, BAD, 2 | UPDATING, 3),
        ("drain_invalid", BAD, BAD, 4, 3),
        ("zap", BAD, BAD, 4, 3),
        ("prepare", BAD, BAD, 4, 3),
        ("stage_gone", BAD, BAD, 4, 3),
        ("publish", BAD, BAD, 4 | UPDATING, 3),
        ("drain", BAD, BAD, 6, 3),
        ("commit", BAD, BAD, 6, 0),
        ("return", BAD, BAD, 6, 0),
    ]
    assert step.kvm.nr_memslot_pages == 0


def test_a_move_hides_the_old_place_before_the_new_one_is_seen():
    vm = slot_10()
    _, phases = walk(vm.kvm, vm.region(10, gfn=0xBFFFF, npages=0x200, hva=H))

    assert [(p.phase.name, *seen(p.kvm)) for p in phases] == [
        ("check", BEHIND_OLD, BAD, 2, 3),
        ("copy", BEHIND_OLD, BAD, 2, 3),
        ("stage_invalid", BEHIND_OLD, BAD, 2, 3),
        ("publish_invalid", BAD, BAD, 2 | UPDATING, 3),
        ("drain_invalid", BAD, BAD, 4, 3),
        ("zap", BAD, BAD, 4, 3),
        ("prepare", BAD, BAD, 4, 6),  # old and new arrays, side by side
        ("stage_new", BAD, BAD, 4, 6),
        ("publish", BAD, BEHIND_NEW, 4 | UPDATING, 6),
        ("drain", BAD, BEHIND_NEW, 6, 6),
        ("commit", BAD, BEHIND_NEW, 6, 3),  # the old ones are gone
        ("return", BAD, BEHIND_NEW, 6, 3),
    ]


def test_a_flags_change_is_never_noticed_by_a_lookup():
    vm = slot_10()
    step, phases = walk(vm.kvm, vm.region(10, gfn=0xC0000, npages=0x200, hva=H, flags=LOG))

    assert [(p.phase.name, *seen(p.kvm), p.kvm.slot(10).flags) for p in phases] == [
        ("check", BEHIND_OLD, BAD, 2, 3, 0),
        ("prepare", BEHIND_OLD, BAD, 2, 4, 0),
        ("stage_new", BEHIND_OLD, BAD, 2, 4, 0),
        ("publish", BEHIND_OLD, BAD, 2 | UPDATING, 4, LOG),
        ("drain", BEHIND_OLD, BAD, 4, 4, LOG),
        ("commit", BEHIND_OLD, BAD, 4, 4, LOG),
        ("return", BEHIND_OLD, BAD, 4, 4, LOG),
    ]
    assert not [e for e in step.events if isinstance(e, InvalidCopyMade | MappingsZapped)]
    assert [type(e) for e in step.events if isinstance(e, ArrayAllocated | ArrayFreed | ArraysInherited)] == [
        ArrayAllocated,
        ArraysInherited,
    ]


def test_a_refused_move_shows_the_old_slot_again_after_two_swaps():
    vm = slot_10().attach()
    step, phases = walk(vm.kvm, vm.region(10, gfn=0xBFFFF, npages=0x200, hva=H))

    assert (step.errno.name, step.refused_by.name) == ("EINVAL", "external_user")
    assert [(p.phase.name, *seen(p.kvm)) for p in phases] == [
        ("check", BEHIND_OLD, BAD, 2, 3),
        ("copy", BEHIND_OLD, BAD, 2, 3),
        ("stage_invalid", BEHIND_OLD, BAD, 2, 3),
        ("publish_invalid", BAD, BAD, 2 | UPDATING, 3),
        ("drain_invalid", BAD, BAD, 4, 3),
        ("zap", BAD, BAD, 4, 3),
        ("prepare", BAD, BAD, 4, 3),
        ("publish_old", BEHIND_OLD, BAD, 4 | UPDATING, 3),
        ("restore_old", BEHIND_OLD, BAD, 6, 3),
        ("return", BEHIND_OLD, BAD, 6, 3),
    ]
    assert [type(e) for e in step.events if isinstance(e, RolledBack | CallReturned)] == [RolledBack, CallReturned]


def test_a_reader_never_follows_a_slot_that_is_being_moved():
    vm = slot_10()

    vm.begin_move(10, to_gfn=0xBFFFF).run_through("publish")
    assert vm.lookup(0xC0000) == KVM_HVA_ERR_BAD
    assert vm.guest_writes(0xC0000) == "retry"

    vm.finish()
    assert vm.lookup(0xC0000) == vm.hva_of(10) + 0x1000
    assert vm.guest_writes(0xC0000) == "ram"


def test_old_and_invalid_share_their_arrays_until_the_old_ones_are_freed():
    vm = slot_10().begin_move(10, to_gfn=0xBFFFF).run_through("zap")
    before = vm.kvm.pending

    vm.run_through("prepare")

    update = vm.kvm.pending
    assert before.old.arch == before.invalid.arch == update.old.arch
    assert not set(update.new.arch) & set(update.old.arch)
    assert {*update.new.arch, *update.old.arch} == set(vm.kvm.heap)


@pytest.mark.parametrize("profile", [n for n, p in PROFILES.items() if not p.move_keeps_arch_metadata])
def test_a_move_frees_every_old_array_once_and_at_commit(profile):
    vm = slot_10(profile=profile, external_write_tracking=False)
    old = {array for array in vm[10].arch if array is not None}

    step, phases = walk(vm.kvm, vm.region(10, gfn=0xBFFFF, npages=0x200, hva=H))

    freed = [(p.phase.name, e.array) for p in phases for e in p.events if isinstance(e, ArrayFreed)]
    assert sorted(freed) == [("commit", array) for array in sorted(old)]
    assert [e.which for e in step.events if isinstance(e, SlotObjectFreed)] == ["INVALID", "old"]


def test_before_edd4_a_move_allocates_and_frees_nothing():
    vm = slot_10(profile="pre_edd4").move(10, to_gfn=0xBFFFF)

    assert vm.events(ArrayAllocated) == vm.events(ArrayFreed) == []
    assert len(vm.events(ArraysInherited)) == 1


@pytest.mark.parametrize("profile", PROFILES)
def test_the_two_sets_differ_only_while_a_call_runs(profile):
    vm = slot_10(profile=profile, external_write_tracking=False)
    for call in (
        vm.region(11, gfn=0x100, npages=2),
        vm.region(10, gfn=0xC0000, npages=0x200, hva=H, flags=LOG),
        vm.region(10, gfn=0xBFFFF, npages=0x200, hva=H),
        vm.deletion(11),
    ):
        step, phases = walk(vm.kvm, call)
        differ = [p.phase.name for p in phases if len({s.id_hash for s in p.kvm.memslots[0].sets}) > 1]
        # A set that readers do not see is edited first, and the other one follows after the drain.
        assert differ[0].startswith("stage")
        assert differ[-1] == "publish"
        vm.kvm = step.kvm


def test_only_the_published_set_gets_the_new_generation():
    """Section 3.3: the set that has just become inactive keeps an old one, so they differ even at rest."""
    vm = slot_10()

    space = vm.kvm.memslots[0]

    assert (space.active.generation, space.inactive.generation) == (2, 0)


@pytest.mark.parametrize("profile", ["v6_1", "v6_12"])
def test_a_swap_publishes_drains_and_only_then_advances(profile):
    vm = slot_10(profile=profile, external_write_tracking=False).move(10, to_gfn=0xBFFFF)

    swap = [MemslotsPublished, ReadersDrained, GenerationAdvanced]
    assert [type(e) for e in vm.last.events if type(e) in swap] == swap * 2


def test_a_refused_move_restores_everything_but_generation_shadow_pages_and_their_counts():
    """Section 4.6: what has happened by the time a MOVE is rejected."""
    vm = slot_10().slot(11, gfn=0x100, npages=8, flags=LOG).attach().track(0xC0003)
    vm.set_flags(10, LOG)
    assert [vm.guest_writes(gfn) for gfn in (0xC0005, 0x100)] == ["ram", "ram"]
    rest = vm.kvm
    vm.shadow(0xC0010).shadow(0x100)
    assert vm.kvm.indirect_shadow_pages == 8

    vm.move(10, to_gfn=0xBFFFF)

    assert vm.refused_by == "external_user"
    assert vm.generation() == rest.active().generation + 4
    assert (vm.kvm.indirect_shadow_pages, vm.kvm.shadow_root_allocated) == (0, True)
    assert vm.kvm.slots() == rest.slots()
    same = ("heap", "heap_bytes", "next_array", "trackers", "track_notifiers", "nr_memslot_pages", "pending")
    assert [getattr(vm.kvm, name) for name in same] == [getattr(rest, name) for name in same]
    assert violations(vm.kvm) == ()


def test_a_refused_move_that_wanted_logging_gives_the_new_bitmap_back():
    vm = slot_10().attach()
    rest = vm.kvm

    vm.move(10, to_gfn=0xBFFFF, flags=LOG)

    (made,), (freed,) = vm.events(ArrayAllocated), vm.events(ArrayFreed)
    assert (made.kind, made.array) == (freed.kind, freed.array) == ("dirty_bitmap", freed.array)
    assert (vm.kvm.heap, vm[10]) == (rest.heap, rest.slot(10))


def test_a_refused_move_of_a_logged_slot_keeps_its_bitmap_and_bits():
    vm = slot_10().set_flags(10, LOG).attach()
    vm.guest_writes(0xC0005)
    rest = vm.kvm

    vm.move(10, to_gfn=0xBFFFF, flags=0)

    assert vm.events(ArrayFreed) == []
    assert (vm.kvm.heap, vm[10]) == (rest.heap, rest.slot(10))


def test_a_move_hands_the_bitmap_over_with_its_bits():
    """Section 7.4: page i dirty before is page i dirty after, at the new gfn."""
    vm = slot_10().set_flags(10, LOG)
    vm.guest_writes(0xC0005)
    bitmap = vm[10].dirty_bitmap

    vm.move(10, to_gfn=0xBFFFF)

    assert vm[10].dirty_bitmap == bitmap
    assert list(vm.kvm.heap[bitmap].dirty) == [5]
    assert [e.dirty_pages for e in vm.events(DirtyBitmapHandedOver)] == [1]


def test_a_move_that_turns_logging_off_frees_the_bitmap_at_commit():
    vm = slot_10().set_flags(10, LOG)
    _, phases = walk(vm.kvm, vm.region(10, gfn=0xBFFFF, npages=0x200, hva=H))

    freed = {e.kind: p.phase.name for p in phases for e in p.events if isinstance(e, ArrayFreed)}

    assert freed["dirty_bitmap"] == "commit"
    assert phases[-1].kvm.slot(10).dirty_bitmap is None


@pytest.mark.parametrize("profile", PROFILES)
def test_a_call_that_changes_nothing_returns_before_anything_is_made(profile):
    vm = slot_10(profile=profile)
    step, phases = walk(vm.kvm, vm.region(10, gfn=0xC0000, npages=0x200, hva=H))

    assert [p.phase.name for p in phases] == ["check", "return"]
    assert (step.errno, step.kvm) == (None, vm.kvm)


@pytest.mark.parametrize("profile", PROFILES)
def test_the_phases_of_a_call_add_up_to_the_call(profile):
    vm = slot_10(profile=profile).attach()
    for call in (
        vm.region(10, gfn=0xBFFFF, npages=0x200, hva=H),
        vm.deletion(10),
        vm.region(11, gfn=0xC0000, npages=1),
    ):
        step, phases = walk(vm.kvm, call)

        assert step == apply(vm.kvm, call)
        assert step.kvm is phases[-1].kvm
        assert step.events == tuple(event for phase in phases for event in phase.events)


def test_no_shadow_page_is_made_for_a_table_in_a_slot_that_is_going():
    vm = slot_10().begin_delete(10).run_through("publish")

    vm.shadow(0xC0000)
    assert vm.kvm.indirect_shadow_pages == 0

    assert vm.finish().errno is None


def test_a_read_only_slot_translates_for_reads_only():
    vm = story().slot(1, gfn=0x100, npages=1, flags=KVM_MEM_READONLY)

    assert vm.lookup(0x100) == vm.hva_of(1)
    assert vm.lookup(0x100, write=True) == KVM_HVA_ERR_BAD + 0x1000
    assert vm.guest_writes(0x100) == "read-only"


def test_an_invalid_slot_is_still_found_by_lookups_that_count():
    """Section 4.5: counts stay reachable in the window, for lookups do not filter INVALID."""
    vm = slot_10().attach().begin_delete(10).run_through("drain")

    vm.track(0xC0000)

    assert vm.errno is None
    assert vm.counts(10) == {0xC0000: 1}
    assert vm[10].invalid


CALLS = {
    "create": ("set_region slot=9 gpa=0x100000 size=0x1000 hva=0x7f0000000000", None, []),
    "delete": ("set_region slot=1 gpa=0 size=0", None, ["INVALID", "old"]),
    "move": ("set_region slot=1 gpa=0x800000 size=0x4000 hva=0x7f0000000000", None, ["INVALID", "old"]),
    "flags": ("set_region slot=1 gpa=0 size=0x4000 hva=0x7f0000000000 flags=log", None, ["old"]),
    "nothing": ("set_region slot=1 gpa=0 size=0x4000 hva=0x7f0000000000", None, []),
    "refused at once": ("set_region slot=1 gpa=1 size=0x4000 hva=0x7f0000000000", "EINVAL", []),
    "refused by overlap": ("set_region slot=9 gpa=0x3000 size=0x4000 hva=0x7f0000000000", "EEXIST", []),
    "refused by the file": (
        "set_region2 slot=9 gpa=0x100000 size=0x1000 hva=0x7f0000000000 flags=gmem",
        "EBADF",
        ["new"],
    ),
    "refused after the zap": (
        "set_region slot=1 gpa=0xffffffff000 size=0x4000 hva=0x7f0000000000",
        "EINVAL",
        ["new", "INVALID"],
    ),
}


@pytest.mark.parametrize("call", CALLS)
def test_every_call_returns_and_every_object_that_nobody_needs_is_freed(call):
    """kvm_set_memslot() and its callers: kfree() of new, invalid and old. Kernel-reference 4.4, 4.7."""
    line, errno, freed = CALLS[call]
    vm = story(profile="v7_3", tdp=True, host_phys_bits=44).slot(1, gfn=0, npages=4, hva=H)

    vm.do(line)

    assert vm.errno_name == errno
    assert [(e.errno.name if e.errno else None) for e in vm.events(CallReturned)] == [errno]
    assert [e.which for e in vm.events(SlotObjectFreed)] == freed


def test_where_the_bitmap_is_allocated_first_a_lack_of_memory_frees_the_new_object():
    vm = slot_10(profile="v5_10")
    vm.kvm = vm.kvm._replace(config=replace(vm.kvm.config, host_memory=vm.kvm.heap_bytes))

    vm.set_flags(10, LOG)

    assert (vm.errno_name, [e.which for e in vm.events(SlotObjectFreed)]) == ("ENOMEM", ["new"])


def test_a_roll_back_has_no_new_slot_any_more():
    vm = slot_10().attach().begin_move(10, to_gfn=0xBFFFF).run_through("prepare")

    assert vm.kvm.pending is not None
    assert vm.kvm.pending.new is None


@pytest.mark.parametrize("call", ["create", "delete", "move", "flags", "nothing"])
def test_a_call_runs_the_phases_of_its_table(call):
    vm = story(profile="v7_3").slot(1, gfn=0, npages=4, hva=H)

    step, phases = walk(vm.kvm, parse_command(CALLS[call][0]))

    assert tuple(p.phase for p in phases) == TABLES[step.change]


@pytest.mark.parametrize("profile", PROFILES)
def test_a_delete_frees_the_bitmap_with_the_arrays(profile):
    vm = slot_10(profile=profile).set_flags(10, LOG)

    vm.delete(10)

    assert (len(vm.kvm.heap), vm.kvm.heap_bytes) == (0, 0)
