"""Every row of the table of outcomes, on each profile it applies to. Kernel-reference section 11.5."""

import pytest
from story import H, Story, story

from explorer.engine.commands import ClearDirtyLog, CreateIrqchip, CreateVcpu, GetDirtyLog, SetMemoryRegion
from explorer.engine.profile import PROFILES
from explorer.engine.types import PG_LEVEL_2M
from explorer.engine.uapi import (
    KVM_MEM_GUEST_MEMFD,
    KVM_MEM_LOG_DIRTY_PAGES,
    KVM_MEM_READONLY,
    KvmMrChange,
)

LOG = KVM_MEM_LOG_DIRTY_PAGES
ONE = {"slot": 1, "guest_phys_addr": 0x100000, "memory_size": 0x100000, "userspace_addr": H}
"""The request that made slot 1, to be changed in one or two places."""

ROWS = {
    "slot 3 inside slot 1": (
        {"slot": 3, "guest_phys_addr": 0x180000, "memory_size": 0x10000},
        "EEXIST",
        KvmMrChange.CREATE,
    ),
    "slot 3 that ends exactly at slot 2": (
        {"slot": 3, "guest_phys_addr": 0x200000, "memory_size": 0x200000},
        None,
        KvmMrChange.CREATE,
    ),
    "the same everything": ({}, None, KvmMrChange.NOOP),
    "base 0x101": ({"guest_phys_addr": 0x101000}, None, KvmMrChange.MOVE),
    "base 0x380, over slot 2": ({"guest_phys_addr": 0x380000}, "EEXIST", KvmMrChange.MOVE),
    "npages 0x80": ({"memory_size": 0x80000}, "EINVAL", None),
    "another hva": ({"userspace_addr": H + 0x1000}, "EINVAL", None),
    "READONLY": ({"flags": KVM_MEM_READONLY}, "EINVAL", None),
    "LOG_DIRTY": ({"flags": LOG}, None, KvmMrChange.FLAGS_ONLY),
    "base 0x800 with LOG_DIRTY": ({"guest_phys_addr": 0x800000, "flags": LOG}, None, KvmMrChange.MOVE),
    "size 0": ({"memory_size": 0}, None, KvmMrChange.DELETE),
    "size 0 of no slot": ({"slot": 9, "memory_size": 0}, "EINVAL", KvmMrChange.DELETE),
    "slot 32764": ({"slot": 32764}, "EINVAL", None),
    "address space 2": ({"as_id": 2}, "EINVAL", None),
    "gpa 0x1001": ({"guest_phys_addr": 0x1001}, "EINVAL", None),
    "size 0x1800": ({"memory_size": 0x1800}, "EINVAL", None),
    "flags 0x8": ({"flags": 0x8}, "EINVAL", None),
    "GUEST_MEMFD": ({"flags": KVM_MEM_GUEST_MEMFD}, "EINVAL", None),
    "2^31 pages": ({"memory_size": 1 << 43, "userspace_addr": 0}, "EINVAL", None),
}


def two_slots(**options) -> Story:
    return story(**options).slot(1, gfn=0x100, npages=0x100, hva=H).slot(2, gfn=0x400, npages=0x100)


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("row", ROWS.values(), ids=ROWS)
def test_a_request_has_the_outcome_of_its_row(row, profile):
    changes, errno, change = row
    # Without an external tracker built in, a MOVE is allowed in every era.
    vm = two_slots(profile=profile, external_write_tracking=False)

    vm.do(SetMemoryRegion(**(ONE | changes)))

    assert vm.errno_name == errno
    assert vm.last.change is change


def test_a_slot_moved_by_one_page_needs_one_more_2m_entry():
    vm = two_slots()
    assert vm.lpage_level(1, PG_LEVEL_2M).n == 1

    vm.move(1, to_gfn=0x101)

    assert vm.lpage_level(1, PG_LEVEL_2M).n == 2


def test_a_move_that_turns_logging_on_has_a_new_bitmap():
    vm = two_slots().move(1, to_gfn=0x800, flags=LOG)

    assert vm.kvm.heap[vm[1].dirty_bitmap].npages == 0x100
    assert len(vm.kvm.heap[vm[1].dirty_bitmap].dirty) == 0


@pytest.mark.parametrize("profile", [n for n, p in PROFILES.items() if p.prepare_checks_max_gfn])
def test_a_slot_ends_at_the_last_gfn_of_a_46_bit_guest(profile):
    vm = two_slots(profile=profile, tdp=True, host_phys_bits=46, external_write_tracking=False)
    last = 0x3FFFFFFFF

    too_high = vm.region(3, gfn=last, npages=2, hva=H)
    assert vm.do(too_high).refused_by == "max_gfn"
    assert vm.generation() == 4, "a CREATE is refused before any swap"
    assert vm.move(1, to_gfn=last - 0xFE).refused_by == "max_gfn"
    assert vm.generation() == 8, "a MOVE only after two"
    assert vm.move(1, to_gfn=last - 0xFF).errno is None
    assert vm.lookup(last) == H + 0xFF000


@pytest.mark.parametrize("profile", ["pre_edd4", "v5_10"])
def test_old_kernels_do_not_look_at_the_end_gfn(profile):
    """Recording 5.10 handwritten/gpa_beyond_maxphyaddr."""
    vm = story(profile=profile, tdp=True, host_phys_bits=40)

    assert vm.do(vm.region(1, gfn=1 << 30, npages=1, hva=H)).errno is None


def test_without_tdp_a_guest_reaches_52_bits():
    vm = story(host_phys_bits=46)
    top = (1 << 40) - 1

    assert vm.do(vm.region(1, gfn=top, npages=1, hva=H)).errno is None
    assert vm.do(vm.region(2, gfn=top + 1, npages=1, hva=H)).refused_by == "max_gfn"


@pytest.mark.parametrize(
    ("profile", "attached", "errno"),
    [
        ("v6_1", True, None),
        ("v6_1", False, None),
        ("v6_6", True, "EINVAL"),
        ("v6_6", False, None),
        ("v6_12", True, "EINVAL"),
        ("v7_3", True, "EINVAL"),
        ("v7_3", False, None),
        ("v6_6_posted", True, None),
        ("v6_6_posted", False, "EINVAL"),
        ("v6_6_nocheck", True, None),
    ],
)
def test_a_move_with_a_vgpu_has_the_outcome_of_its_era(profile, attached, errno):
    vm = two_slots(profile=profile)
    if attached:
        vm.attach(kind="kvmgt")

    vm.move(1, to_gfn=0x800)

    assert vm.errno_name == errno


def test_a_user_slot_over_the_apic_page_is_refused_once_the_page_is_there():
    vm = story(processor="intel", tdp=True)
    assert vm.do(vm.region(1, gfn=0xFEE00, npages=1)).errno is None
    assert vm.delete(1).errno is None

    vm.do(CreateIrqchip()).do(CreateVcpu())

    assert vm.do(vm.region(1, gfn=0xFED00, npages=0x200)).errno_name == "EEXIST"


def test_a_dirty_log_is_there_only_for_a_logged_slot():
    vm = two_slots()

    assert vm.do(GetDirtyLog(slot=1)).errno_name == "ENOENT"
    assert vm.set_flags(1, LOG).do(GetDirtyLog(slot=1)).errno is None


@pytest.mark.parametrize(
    ("first", "num", "errno"),
    [(32, 64, "EINVAL"), (64, 36, None), (0, 36, "EINVAL"), (0, 64, None), (0, 100, None), (128, 0, "EINVAL")],
)
def test_a_clear_covers_whole_words_or_reaches_the_end(first, num, errno):
    vm = story().slot(1, gfn=0x100, npages=100, flags=LOG)

    vm.do(ClearDirtyLog(slot=1, first_page=first, num_pages=num))

    assert vm.errno_name == errno


@pytest.mark.parametrize(("profile", "last"), [("pre_edd4", 508), ("v5_10", 508), ("v6_1", 32763), ("v7_3", 32763)])
def test_the_last_slot_id_of_userspace_is_that_of_its_era(profile, last):
    """Recording handwritten/slot_id_boundaries; section 8."""
    vm = story(profile=profile).slot(last, gfn=0x100, npages=1)

    assert vm.do(vm.region(last + 1, gfn=0x200, npages=1)).refused_by == "user_slot_id"


@pytest.mark.parametrize("profile", ["v6_12", "v7_3"])
def test_without_smm_there_is_one_address_space(profile):
    vm = story(profile=profile, smm=False)

    assert vm.do(vm.region(1, gfn=0x100, npages=1, as_id=1)).refused_by == "as_id"
