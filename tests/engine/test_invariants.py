"""Named properties: each can fail, each says where, and where a kernel breaks one a story shows it."""

from __future__ import annotations

import pytest
from story import H, Story, story

from explorer.engine.commands import EnableCap, SetTssAddr
from explorer.engine.invariants import INVARIANTS, Violation, get_invariant, violations
from explorer.engine.profile import PROFILES
from explorer.engine.sortedmap import SortedMap
from explorer.engine.state import AddressSpace, Kvm, Kvmgt, LpageInfo, RmapArrays, ShadowPage, Spte, Sptes, WriteTrack
from explorer.engine.uapi import KVM_MEM_LOG_DIRTY_PAGES, KVM_MEMSLOT_INVALID

LOG = KVM_MEM_LOG_DIRTY_PAGES


def healthy() -> Story:
    """A VM that has some of everything."""
    vm = (
        story()
        .slot(1, gfn=0x100, npages=0x10, flags=LOG)
        .slot(2, gfn=0x400, npages=0x400)
        .slot(3, gfn=0x100, npages=4, as_id=1)
    )
    vm.shadow(0x100).attach(kind="kvmgt").track(0x105)
    assert violations(vm.kvm) == ()
    return vm


# -- each property can fail ------------------------------------------------------------------------


def with_active(kvm: Kvm, *, both: bool = False, **fields: object) -> Kvm:
    space = kvm.memslots[0]
    sets = [s._replace(**fields) if both or i == space.active_idx else s for i, s in enumerate(space.sets)]
    return kvm._replace(memslots=(AddressSpace((sets[0], sets[1]), space.active_idx), *kvm.memslots[1:]))


def with_slot_1(kvm: Kvm, **fields: object) -> Kvm:
    slot = kvm.slot(1)._replace(**fields)
    return with_active(kvm, both=True, id_hash=kvm.active().id_hash.set(slot.id, slot))


def with_array(kvm: Kvm, kind: str, array: object) -> Kvm:
    return kvm._replace(heap=kvm.heap.set(getattr(kvm.slot(1).arch, kind), array))


def with_level(kvm: Kvm, **fields: object) -> Kvm:
    two, one = kvm.heap[kvm.slot(1).arch.lpage_info].levels
    return with_array(kvm, "lpage_info", LpageInfo((two._replace(**fields), one)))


def untracked_behind_kvmgt(kvm: Kvm) -> Kvm:
    return kvm._replace(trackers=SortedMap([(0, Kvmgt(True, SortedMap([(0x107, None)]), SortedMap()))]))


BROKEN = {
    1: lambda kvm: with_slot_1(kvm, npages=0x301),
    2: lambda kvm: with_active(kvm, id_hash=kvm.active().id_hash.set(1, kvm.slot(1)._replace(userspace_addr=H))),
    3: lambda kvm: with_active(kvm, generation=kvm.active().generation + 1),
    5: lambda kvm: with_slot_1(kvm, flags=LOG | KVM_MEMSLOT_INVALID),
    6: lambda kvm: with_array(kvm, "rmap", RmapArrays((0x10, 2, 1))),
    7: lambda kvm: with_array(kvm, "gfn_write_track", WriteTrack(0xF, SortedMap())),
    8: lambda kvm: with_level(kvm, head=0, tail=0),
    9: lambda kvm: with_level(kvm, added=SortedMap([(0, 4)])),
    10: lambda kvm: with_array(kvm, "gfn_write_track", WriteTrack(0x10, SortedMap([(0, 1), (1, 1), (5, 1)]))),
    11: untracked_behind_kvmgt,
    12: lambda kvm: kvm._replace(trackers=SortedMap([(0, Kvmgt(True, SortedMap(), SortedMap([(0x105, True)])))])),
    13: lambda kvm: kvm._replace(sptes=Sptes(SortedMap([((0, 0x104), Spte(0x104, 2, 1, True, True, True))]))),
    15: lambda kvm: with_level(kvm, added=SortedMap([(0, -1)])),
    16: lambda kvm: kvm._replace(active_mmu_pages=kvm.active_mmu_pages.set(99, ShadowPage(0xFF, 1, 0, 0))),
    17: lambda kvm: kvm._replace(nr_memslot_pages=1),
    18: lambda kvm: with_slot_1(kvm, flags=0),
    19: lambda kvm: kvm._replace(nr_memslots_dirty_logging=2),
    20: lambda kvm: kvm._replace(heap=kvm.heap.discard(kvm.slot(2).arch.lpage_info)),
    23: lambda kvm: kvm._replace(indirect_shadow_pages=3),
    24: lambda kvm: with_active(kvm, hva_tree=SortedMap()),
    25: lambda _: story(processor="intel").slot(1, gfn=0xFFFBD, npages=1, as_id=1).do(SetTssAddr(addr=0xFFFBD000)).kvm,
}


def test_there_is_a_broken_state_for_each_property():
    assert list(BROKEN) == [each.number for each in INVARIANTS]


@pytest.mark.parametrize("each", INVARIANTS, ids=lambda each: each.name)
def test_a_broken_state_is_noticed_by_its_property(each):
    sound = healthy().kvm
    assert each.check(sound) == ()

    broken = BROKEN[each.number](sound)

    assert each.check(broken) != ()
    assert {violation.invariant for violation in each.check(broken)} == {each.name}
    if each.holds(broken.profile):
        assert set(each.check(broken)) <= set(violations(broken))


@pytest.mark.parametrize(
    ("broken", "expected"),
    [
        (
            lambda kvm: kvm._replace(heap=kvm.heap.set(999, WriteTrack(1, SortedMap())), heap_bytes=kvm.heap_bytes + 2),
            Violation(
                "no access to a freed array", 20, None, None, None, "a slot that owns it", "gfn_write_track 999 leaked"
            ),
        ),
        (
            lambda kvm: kvm._replace(heap_bytes=0),
            Violation("no access to a freed array", 20, None, None, None, healthy().kvm.heap_bytes, 0),
        ),
        (
            lambda kvm: with_slot_1(kvm, arch=kvm.slot(2).arch),
            None,
        ),
    ],
    ids=["leaked", "bytes", "shared"],
)
def test_arrays_that_leak_or_are_shared_are_noticed(broken, expected):
    found = get_invariant(20).check(broken(healthy().kvm))

    assert expected in found if expected else any("shared" in str(v.found) for v in found)


def test_all_violations_are_returned_and_each_says_where():
    vm = healthy()

    broken = with_level(vm.kvm._replace(nr_memslot_pages=0), added=SortedMap([(0, 7)]))

    # four shadowed tables and one tracked page lie in the frame, and the frame has a mark of its own
    assert violations(broken) == (
        Violation("huge-page counters add up", 9, 0, 1, 0x100, 1 + 5, 1 + 7),
        Violation("memslot pages add up", 17, None, None, None, 0x10 + 0x400 + 4, 0),
    )


def test_every_property_has_a_sentence_and_a_reason_where_it_is_not_claimed():
    for each in INVARIANTS:
        assert each.sentence[0].isupper() or each.sentence.startswith(("nr_", "dirty_", "disallow_", "indirect_"))
        claimed_everywhere = all(each.holds(profile) for profile in PROFILES.values())
        assert bool(each.otherwise) is not claimed_everywhere


def test_the_numbers_are_those_of_the_list_and_ascend():
    numbers = [each.number for each in INVARIANTS]

    assert numbers == sorted(set(numbers))
    with pytest.raises(KeyError):
        get_invariant(22)


def test_properties_of_rest_say_nothing_while_a_call_runs():
    vm = healthy().begin_delete(2).run_through("publish")

    assert vm[2].invalid
    assert violations(vm.kvm) == ()
    assert get_invariant(5).check(vm.kvm._replace(pending=None)) != ()


# -- section 9: where a kernel breaks what others hold ---------------------------------------------


def moved_off_its_alignment(profile: str) -> Story:
    """11.2, P1."""
    return story(profile=profile).slot(1, gfn=0xC0000, npages=512, hva=H).move(1, to_gfn=0xBFFFF)


def moved_with_a_count(profile: str) -> Story:
    """A logging tracker keeps its count, which then lies in a frame that nobody counted it in."""
    return (
        story(profile=profile).slot(1, gfn=0xC0000, npages=1024, hva=H).attach().track(0xC0200).move(1, to_gfn=0xBFFFF)
    )


def moved_under_kvmgt(profile: str) -> Story:
    """6.6."""
    return (
        story(profile=profile)
        .slot(1, gfn=0x1000, npages=0x1000)
        .attach(kind="kvmgt")
        .track(0x1010)
        .move(1, to_gfn=0x5000)
    )


def refused_under_kvmgt(profile: str) -> Story:
    """6.5, edge 1."""
    vm = story(profile=profile).slot(1, gfn=0x1000, npages=0x1000).attach(kind="kvmgt").track(0x1010)
    return vm.move(1, to_gfn=(1 << 40) - 1)


def tracked_in_the_window(profile: str) -> Story:
    """6.5, edge 2."""
    vm = story(profile=profile).slot(1, gfn=0x1000, npages=0x1000).attach(kind="kvmgt")
    return vm.begin_move(1, to_gfn=0x5000).run_through("zap").track(0x1010).finish()


def deleted_and_created_again(profile: str) -> Story:
    """6.5, edge 4."""
    vm = story(profile=profile).slot(1, gfn=0x1000, npages=0x1000).attach(kind="kvmgt").track(0x1010)
    return vm.delete(1).slot(1, gfn=0x1000, npages=0x1000)


def untracked_once_too_often(profile: str) -> Story:
    """5.4."""
    return story(profile=profile).slot(1, gfn=0x100, npages=4).attach().untrack(0x100)


def tss_refused_by_smm(profile: str) -> Story:
    """Recording intel/tss_on_smm_slot."""
    return (
        story(profile=profile, processor="intel")
        .slot(0, gfn=0xFFFBD, npages=1, as_id=1)
        .do(SetTssAddr(addr=0xFFFBD000))
    )


def shifted_with_survivors(profile: str) -> Story:
    """5.6 (ii): the moved slot still covers a shadow page that was counted in its old arrays."""
    vm = story(profile=profile).do(EnableCap(cap=213, arg=128)).slot(1, gfn=0x100, npages=0x10)
    return vm.shadow(0x108, levels=2).move(1, to_gfn=0x104)


def deleted_with_survivors(profile: str) -> Story:
    """5.6 (i)."""
    vm = story(profile=profile).do(EnableCap(cap=213, arg=128)).slot(1, gfn=0x100, npages=0x10)
    return vm.shadow(0x108, levels=2).delete(1)


X = [
    *((number, "pre_edd4", moved_off_its_alignment) for number in (6, 7, 8)),
    (9, "pre_edd4", moved_with_a_count),
    (9, "v6_12_quirk_posted", shifted_with_survivors),
    (10, "v6_12_quirk_posted", shifted_with_survivors),
    (15, "pre_edd4", moved_off_its_alignment),
    (16, "v6_12_quirk_posted", deleted_with_survivors),
    (11, "v6_6_nocheck", moved_under_kvmgt),
    (11, "v6_6_posted", moved_under_kvmgt),
    (12, "v6_1", moved_under_kvmgt),
    (12, "v6_1", refused_under_kvmgt),
    *((12, profile, deleted_and_created_again) for profile in PROFILES),
    *((25, profile, tss_refused_by_smm) for profile in PROFILES),
]


@pytest.mark.parametrize(("number", "profile", "tale"), X, ids=lambda part: getattr(part, "__name__", part))
def test_a_kernel_breaks_what_is_not_claimed_for_it(number, profile, tale):
    each = get_invariant(number)
    vm = tale(profile)

    assert each.check(vm.kvm) != ()
    assert not each.holds(vm.kvm.profile)
    assert number not in {violation.number for violation in violations(vm.kvm)}


@pytest.mark.parametrize(
    ("number", "profile", "tale"),
    [
        *((11, profile, tracked_in_the_window) for profile in ("pre_edd4", "v5_10", "v6_1")),
        *((number, profile, untracked_once_too_often) for profile in ("v6_1", "v6_12", "v7_3") for number in (9, 15)),
    ],
    ids=lambda part: getattr(part, "__name__", part),
)
def test_what_a_claim_leaves_out_can_happen(number, profile, tale):
    each = get_invariant(number)
    vm = tale(profile)

    assert each.unless
    assert each.check(vm.kvm) != ()
    assert each.holds(vm.kvm.profile)


@pytest.mark.parametrize("number", sorted({number for number, _, _ in X}))
def test_every_profile_a_property_is_not_claimed_for_has_its_story(number):
    unclaimed = {name for name, profile in PROFILES.items() if not get_invariant(number).holds(profile)}

    assert unclaimed == {profile for n, profile, _ in X if n == number}


@pytest.mark.parametrize(
    ("profile", "tale"),
    [
        (name, tale)
        for tale in (moved_off_its_alignment, moved_under_kvmgt, refused_under_kvmgt, deleted_and_created_again)
        for name in PROFILES
    ],
    ids=lambda part: getattr(part, "__name__", part),
)
def test_what_is_claimed_holds_in_every_one_of_these_stories(profile, tale):
    assert violations(tale(profile).kvm) == ()
