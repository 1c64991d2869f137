"""The ladder of checks: each fires, and of two the earlier one is named. Kernel-reference section 4.2."""

import itertools

import pytest
from story import H, Story, story

from explorer.engine.apply import apply
from explorer.engine.commands import SetMemoryRegion
from explorer.engine.events import CallRefused
from explorer.engine.guards import ladder_of
from explorer.engine.profile import PROFILES
from explorer.engine.state import new_vm
from explorer.engine.types import U64_MAX, Errno
from explorer.engine.uapi import KVM_MEM_GUEST_MEMFD, KVM_MEM_LOG_DIRTY_PAGES, KVM_MEM_READONLY, KvmMrChange

GOOD = {
    "slot": 1,
    "as_id": 0,
    "flags": 0,
    "guest_phys_addr": 0x100000,
    "memory_size": 0x2000,
    "userspace_addr": 0x100_0000_0000,
}
WRONG = {
    # what to add to a good request so that one check fails and no earlier one does
    "flags": {"flags": 0x8},
    "user_slot_id": {"slot": 40000},
    "size_aligned": {"memory_size": 0x800},
    "gpa_aligned": {"guest_phys_addr": 1},
    "hva_aligned": {"userspace_addr": 1},
    "hva_user_range": {"userspace_addr": 0x7FFF_FFFF_E000 - 0x100_0000_0000},
    "as_id": {"as_id": 2},
    "gpa_no_wrap": {"guest_phys_addr": U64_MAX - 0xFFF - 0x100000},
    "npages": {"memory_size": 1 << 43},
}
# Section 4.2: check 2 stands before 3 from v6.8 on; before, flags are check 5.
BEFORE_6_8 = ["user_slot_id", "flags", *list(WRONG)[2:]]
FROM_6_8 = ["region_flags", "user_slot_id", *list(WRONG)[2:]]


def kernel_order(profile):
    return BEFORE_6_8 if profile in ("pre_edd4", "v5_10", "v6_1", "v6_6", "v6_6_posted", "v6_6_nocheck") else FROM_6_8


def wrong_request(*checks):
    fields = dict(GOOD)
    for check in checks:
        for name, amount in WRONG["flags" if check == "region_flags" else check].items():
            fields[name] += amount
    return SetMemoryRegion(**fields)


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("at", range(len(FROM_6_8)))
def test_each_argument_check_fires_and_the_rest_is_not_reached(profile, at):
    order = kernel_order(profile)
    kvm = new_vm(profile)

    step = apply(kvm, wrong_request(order[at]))

    assert (step.errno, step.refused_by.name, step.change) == (Errno.EINVAL, order[at], None)
    assert [result.passed for result in step.results] == [True] * (len(step.results) - 1) + [False]
    asked = [r.guard.name for r in step.results if r.guard.name not in ("vm_alive", "flags")]
    assert asked == [name for name in order[: at + 1] if name != "flags"]
    assert step.kvm == kvm


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("pair", list(itertools.combinations(range(len(FROM_6_8)), 2)))
def test_of_two_wrong_arguments_the_earlier_check_is_named(profile, pair):
    order = kernel_order(profile)
    first, second = (order[at] for at in pair)

    step = apply(new_vm(profile), wrong_request(first, second))

    assert step.refused_by.name == first


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("check", WRONG)
def test_a_dead_vm_answers_eio_before_anything_else(profile, check):
    dead = new_vm(profile)._replace(vm_bugged=True)

    step = apply(dead, wrong_request(check))

    assert (step.errno, step.refused_by.name, len(step.results)) == (Errno.EIO, "vm_alive", 1)


@pytest.mark.parametrize("profile", PROFILES)
def test_a_deletion_is_checked_like_everything_else(profile):
    """Recording handwritten/delete_still_checks_alignment: size 0 excuses no wrong address."""
    vm = story(profile=profile).slot(1, gfn=0x100, npages=1)

    for field, check in (("guest_phys_addr", "gpa_aligned"), ("userspace_addr", "hva_aligned")):
        vm.do(SetMemoryRegion(**{"slot": 1, "memory_size": 0, "guest_phys_addr": 0, field: 1}))
        assert vm.refused_by == check


def two_slots(**options) -> Story:
    return story(**options).slot(1, gfn=0x100, npages=0x100, hva=H).slot(2, gfn=0x400, npages=0x100)


EXISTING = {
    "same_hva": {"hva": H + 0x1000},
    "same_size": {"npages": 0xFF},
    "same_readonly": {"flags": KVM_MEM_READONLY},
    "overlap": {"gfn": 0x3FF},
}


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("checks", [*((c,) for c in EXISTING), *itertools.combinations(EXISTING, 2)], ids=" ".join)
def test_of_two_impossible_changes_of_a_slot_the_earlier_check_is_named(profile, checks):
    vm = two_slots(profile=profile)
    before = vm.kvm

    vm.do(
        vm.region(
            1, **{"gfn": 0x100, "npages": 0x100, "hva": H} | {k: v for c in checks for k, v in EXISTING[c].items()}
        )
    )

    assert vm.refused_by == checks[0]
    assert vm.errno is (Errno.EEXIST if checks == ("overlap",) else Errno.EINVAL)
    assert vm.kvm == before


@pytest.mark.parametrize("profile", PROFILES)
def test_flags_of_guest_memfd_are_refused_by_the_plain_ioctl(profile):
    vm = two_slots(profile=profile).set_flags(1, KVM_MEM_GUEST_MEMFD)

    assert vm.errno is Errno.EINVAL
    assert vm.refused_by == kernel_order(profile)[0 if kernel_order(profile) is FROM_6_8 else 1]


@pytest.mark.parametrize("profile", [name for name in PROFILES if name not in ("pre_edd4", "v5_10")])
def test_what_cannot_happen_is_checked_all_the_same(profile):
    """D2 and C1 of section 4.2, in states that only a test can make; kernels before 5.17 do not add the pages up."""
    vm = two_slots(profile=profile)

    too_few = apply(vm.kvm._replace(nr_memslot_pages=0xFF), vm.deletion(1))
    too_many = apply(vm.kvm._replace(nr_memslot_pages=U64_MAX), vm.region(3, gfn=0x100, npages=1))

    assert (too_few.errno, too_few.refused_by.name) == (Errno.EIO, "pages_accounted")
    assert (too_many.errno, too_many.refused_by.name) == (Errno.EINVAL, "total_no_wrap"), "asked before the overlap"


MAX_GFN = 0x3FFFFFFFF
"""Section 11.5: 46 address bits, with TDP."""
TDP = {"tdp": True, "tdp_mmu": False, "host_phys_bits": 46}


@pytest.mark.parametrize(
    ("profile", "first"),
    [
        # section 4.6: the order of kvm_arch_prepare_memory_region() by version
        ("v6_1", "max_gfn"),
        ("v6_6_nocheck", "max_gfn"),
        ("v6_6", "external_user"),
        ("v6_12", "external_user"),
        ("v7_3", "external_user"),
    ],
)
def test_a_move_that_fails_for_three_reasons_names_the_first_of_its_era(profile, first):
    vm = two_slots(profile=profile, **TDP).attach()
    vm.kvm = vm.kvm._replace(config=vm.kvm.config.__class__(**TDP, host_memory=vm.kvm.heap_bytes))

    vm.move(1, to_gfn=MAX_GFN)

    assert vm.refused_by == first
    assert [r.guard.name for r in vm.last.results][-2:] == ["bitmap_memory", first]
    assert vm.detach().move(1, to_gfn=MAX_GFN).refused_by == "max_gfn"
    assert vm.move(1, to_gfn=0x800).refused_by == "array_memory"
    assert vm.move(1, to_gfn=MAX_GFN, flags=KVM_MEM_LOG_DIRTY_PAGES).refused_by == "bitmap_memory"


@pytest.mark.parametrize("profile", PROFILES)
def test_an_overlap_is_found_before_anything_is_invalidated(profile):
    vm = two_slots(profile=profile).attach()
    before = vm.kvm

    vm.move(1, to_gfn=0x380)

    (refusal,) = vm.events(CallRefused)
    assert (refusal.check, refusal.errno) == ("overlap", Errno.EEXIST)
    assert refusal.function == "kvm_check_memslot_overlap"
    assert "slot 2" in refusal.operands
    assert vm.kvm == before


@pytest.mark.parametrize(
    ("gfn", "npages", "errno"),
    [
        # neighbours of the slot at [0x400, 0x500): touching is free, one page more is not
        (0x3FF, 1, None),
        (0x3FF, 2, Errno.EEXIST),
        (0x400, 1, Errno.EEXIST),
        (0x4FF, 1, Errno.EEXIST),
        (0x500, 1, None),
        (0x200, 0x500, Errno.EEXIST),
        (0, 0x100, None),
        (0, 0x101, Errno.EEXIST),
    ],
)
def test_a_slot_may_touch_another_but_not_overlap_it(gfn, npages, errno):
    vm = two_slots()

    vm.do(vm.region(3, gfn=gfn, npages=npages))

    assert vm.errno is errno


@pytest.mark.parametrize("profile", PROFILES)
def test_slots_of_the_two_address_spaces_never_overlap_each_other(profile):
    """Recording handwritten/as1_independent."""
    vm = two_slots(profile=profile).slot(1, gfn=0x100, npages=0x400, as_id=1)

    assert [slot.id for slot in vm.kvm.slots(1)] == [1]


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("change", list(KvmMrChange))
def test_the_whole_ladder_of_a_change_is_its_parts_in_kernel_order(profile, change):
    ladder = ladder_of(PROFILES[profile])
    names = [guard.name for guard in ladder.of(change)]

    first = (*ladder.ioctl, *ladder.arguments)
    assert names[: len(first)] == [guard.name for guard in first]
    assert ("slot_exists" in names) == (change is KvmMrChange.DELETE)
    assert ("overlap" in names) == (change in (KvmMrChange.CREATE, KvmMrChange.MOVE))
    assert ("external_user" in names) == (
        change is KvmMrChange.MOVE
        and profile in ("v6_6", "v6_6_posted", "v6_12_quirk_posted", "v6_12", "v6_18", "v7_3")
    )
    summed = {"pages_accounted", "total_no_wrap"} & set(names)
    assert bool(summed) == (
        change in (KvmMrChange.CREATE, KvmMrChange.DELETE) and profile not in ("pre_edd4", "v5_10")
    ), "KVM adds up the pages of its slots from v5.17 on"
    assert ("max_gfn" in names) == (
        change in (KvmMrChange.CREATE, KvmMrChange.MOVE) and profile not in ("pre_edd4", "v5_10")
    )
