"""Dirty logging: who may ask, what is reported, what a MOVE keeps. Kernel-reference section 7."""

import pytest
from story import Story, story

from explorer.engine.commands import ClearDirtyLog, EnableCap, GetDirtyLog
from explorer.engine.events import DirtyLogCleared, DirtyLogRead, PageMarkedDirty
from explorer.engine.profile import PROFILES
from explorer.engine.uapi import (
    KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2,
    KVM_DIRTY_LOG_INITIALLY_SET,
    KVM_DIRTY_LOG_MANUAL_PROTECT_ENABLE,
    KVM_MEM_LOG_DIRTY_PAGES,
)

LOG = KVM_MEM_LOG_DIRTY_PAGES
MANUAL = KVM_DIRTY_LOG_MANUAL_PROTECT_ENABLE
INITIALLY_SET = MANUAL | KVM_DIRTY_LOG_INITIALLY_SET


def logged(npages=200, *, profile="v6_12", manual=0) -> Story:
    vm = story(profile=profile).do(EnableCap(cap=KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2, arg=manual))
    return vm.slot(1, gfn=0x100, npages=npages, flags=LOG)


def reported(vm: Story) -> list[int]:
    """Ask for the dirty log of slot 1 and return the page indices in it."""
    (read,) = vm.do(GetDirtyLog(slot=1)).events(DirtyLogRead)
    assert read.count == sum(end - start for start, end in read.runs)
    return [index for run in read.runs for index in range(*run)]


def test_a_page_the_guest_wrote_is_reported_once():
    vm = logged()

    for gfn in (0x100, 0x1C7, 0x1C7, 0x1C8):
        vm.guest_writes(gfn)

    assert reported(vm) == [0, 199], "first and last page; 0x1c8 is in no slot"
    assert reported(vm) == []


def test_a_write_to_a_tracked_page_is_dirty_too():
    vm = logged().attach().track(0x105)

    assert vm.guest_writes(0x105) == "emulated"
    assert reported(vm) == [5]


def test_a_slot_without_logging_marks_nothing():
    vm = story().slot(1, gfn=0x100, npages=4)
    vm.guest_writes(0x100)

    assert vm.events(PageMarkedDirty) == []


def test_with_manual_protection_a_read_clears_nothing_and_a_clear_does():
    vm = logged(manual=MANUAL)
    for gfn in (0x100, 0x13F, 0x140, 0x1C7):
        vm.guest_writes(gfn)

    assert reported(vm) == reported(vm) == [0, 63, 64, 199]
    vm.do(ClearDirtyLog(slot=1, first_page=64, num_pages=64))
    assert ([e.count for e in vm.events(DirtyLogCleared)], reported(vm)) == ([1], [0, 63, 199])


@pytest.mark.parametrize(
    ("arg", "errno"),
    [(0, None), (1, None), (3, None), (2, "EINVAL"), (4, "EINVAL"), (5, "EINVAL"), (1 << 63, "EINVAL")],
)
def test_initially_set_needs_manual_protection(arg, errno):
    """Section 7.1; recording handwritten/enable_cap_dirty."""
    assert story().do(EnableCap(cap=KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2, arg=arg)).errno_name == errno


@pytest.mark.parametrize("profile", PROFILES)
def test_initially_set_means_that_a_new_bitmap_is_full(profile):
    vm = logged(100, profile=profile, manual=INITIALLY_SET)
    assert reported(vm) == list(range(100))

    vm.set_flags(1, 0).set_flags(1, LOG)

    assert reported(vm) == list(range(100))


def test_a_move_that_turns_logging_on_starts_full_where_initially_set_was_asked_for():
    vm = story().do(EnableCap(cap=KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2, arg=INITIALLY_SET)).slot(1, gfn=0x100, npages=100)

    vm.move(1, to_gfn=0x200, flags=LOG)

    assert reported(vm) == list(range(100))


@pytest.mark.parametrize("profile", PROFILES)
def test_dirty_bits_move_with_the_slot(profile):
    """Section 7.4."""
    vm = logged(profile=profile)
    vm.kvm = vm.kvm._replace(config=vm.kvm.config.__class__(external_write_tracking=False))
    for gfn in (0x100, 0x150):
        vm.guest_writes(gfn)

    vm.move(1, to_gfn=0x123)
    vm.guest_writes(0x124)

    assert reported(vm) == [0, 1, 0x50]


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize(
    ("command", "errno"),
    [
        # section 7.3, in the order of the checks
        (GetDirtyLog(slot=1, as_id=2), "EINVAL"),
        (GetDirtyLog(slot=32764), "EINVAL"),
        (GetDirtyLog(slot=9), "ENOENT"),
        (GetDirtyLog(slot=2), "ENOENT"),
        (GetDirtyLog(slot=1, as_id=1), "ENOENT"),
        (GetDirtyLog(slot=1), None),
        (ClearDirtyLog(slot=1, as_id=2, first_page=1, num_pages=64), "EINVAL"),
        (ClearDirtyLog(slot=32764, first_page=0, num_pages=64), "EINVAL"),
        (ClearDirtyLog(slot=9, first_page=32, num_pages=64), "EINVAL"),  # before the slot is looked for
        (ClearDirtyLog(slot=9, first_page=0, num_pages=64), "ENOENT"),
        (ClearDirtyLog(slot=2, first_page=0, num_pages=63), "ENOENT"),  # before the range is looked at
        (ClearDirtyLog(slot=1, first_page=256, num_pages=0), "EINVAL"),
        (ClearDirtyLog(slot=1, first_page=192, num_pages=64), "EINVAL"),
        (ClearDirtyLog(slot=1, first_page=0, num_pages=63), "EINVAL"),
        (ClearDirtyLog(slot=1, first_page=0, num_pages=64), None),
        (ClearDirtyLog(slot=1, first_page=128, num_pages=72), None),
        (ClearDirtyLog(slot=1, first_page=192, num_pages=0), None),
    ],
    ids=str,
)
def test_the_dirty_log_checks_its_arguments_in_kernel_order(profile, command, errno):
    vm = logged(profile=profile).slot(2, gfn=0x400, npages=4)

    assert vm.do(command).errno_name == errno


@pytest.mark.parametrize("command", [GetDirtyLog(slot=1), ClearDirtyLog(slot=1, first_page=0, num_pages=64)], ids=str)
def test_a_dead_vm_has_no_dirty_log(command):
    vm = logged()
    vm.kvm = vm.kvm._replace(vm_bugged=True)

    assert vm.do(command).errno_name == "EIO"


def test_logged_slots_are_counted_over_both_address_spaces():
    vm = logged().slot(1, gfn=0x100, npages=4, flags=LOG, as_id=1)
    assert vm.kvm.nr_memslots_dirty_logging == 2

    assert vm.set_flags(1, 0).kvm.nr_memslots_dirty_logging == 1
    assert vm.move(1, to_gfn=0x400, flags=LOG).kvm.nr_memslots_dirty_logging == 2
    assert vm.delete(1, as_id=1).kvm.nr_memslots_dirty_logging == 1
    assert vm.delete(1).kvm.nr_memslots_dirty_logging == 0
