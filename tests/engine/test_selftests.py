"""The kernel's own selftests as behaviours. Kernel-reference section 12.

Each story does what tools/testing/selftests/kvm/<name>.c does, with a guest that looks between all phases of a
call where the selftest lets a second thread race. What they need and the engine has no object for: an L2 guest,
the dirty ring, prefault, private memory that is converted. The errnos of guest_memfd are in test_guest_memfd.
"""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from story import H, Story, story

from explorer.engine.apply import apply
from explorer.engine.commands import Advance, Command, GuestRead, GuestWrite, SetMemoryRegion
from explorer.engine.config import VmConfig
from explorer.engine.events import GuestReadServed, GuestWriteServed
from explorer.engine.profile import PROFILES, get_profile
from explorer.engine.state import Kvm, new_vm
from explorer.engine.types import PG_LEVEL_2M, PG_LEVEL_4K
from explorer.engine.uapi import KVM_MEM_LOG_DIRTY_PAGES, KVM_MEM_READONLY

LOG = KVM_MEM_LOG_DIRTY_PAGES
MOVES = [name for name in PROFILES if name != "v6_6_posted"]
"""Kernels in which a VM without a vGPU may move a slot; the posted patch refused it, which these tests found."""
QUIRK = "enable_cap cap=DISABLE_QUIRKS2 arg=128"
QUIRKS = [(name, off) for name in MOVES for off in (False, True) if not off or PROFILES[name].slot_zap_quirk]
BASE = 0xC0000
"""gfn of MEM_REGION_GPA in set_memory_region_test."""


def value_at(vm: Story, gfn: int) -> tuple[str, int]:
    """Let the guest load from a page; return what answered and what it got."""
    vm.do(GuestRead(gpa=gfn << 12))
    (served,) = vm.events(GuestReadServed)
    return served.outcome, served.value


def seen_during(vm: Story, call: SetMemoryRegion, look: Command) -> set[str]:
    """Run a call phase by phase with a guest access after each, and return the outcomes."""
    seen = set()
    vm.begin(call)
    while vm.kvm.pending is not None:
        vm.do(Advance()).do(look)
        seen |= {e.outcome for e in (*vm.events(GuestReadServed), *vm.events(GuestWriteServed))}
    return seen


# -- set_memory_region_test.c ----------------------------------------------------------------------


@pytest.mark.parametrize("profile", PROFILES)
def test_a_vcpu_without_any_slot_cannot_run_and_kvm_does_not_mind(profile):
    """test_zero_memory_regions()."""
    vm = story(profile=profile).do("vcpu_mode mode=prot code=0x1000")

    assert vm.guest_reads(0) == "no code"
    assert vm.slot(1, gfn=0, npages=2).guest_reads(0) == "ram"


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("ioctl", ["set_region", "set_region2"])
def test_every_flag_bit_that_is_not_known_is_refused(profile, ioctl):
    """test_invalid_memory_region_flags()."""
    known = {LOG.bit_length() - 1, KVM_MEM_READONLY.bit_length() - 1}
    vm = story(profile=profile)
    if ioctl == "set_region2" and not vm.kvm.profile.set_user_memory_region2:
        assert vm.do(f"{ioctl} slot=0 gpa=0 size=0x1000 hva={H:#x}").errno_name == "ENOTTY"
        return

    for bit in set(range(32)) - known - {2}:
        vm.do(f"{ioctl} slot=0 gpa=0 size=0x1000 hva={H:#x} flags={1 << bit}")
        assert vm.errno_name == "EINVAL", f"bit {bit}"

    assert vm.kvm.slots() == ()


@pytest.mark.parametrize(("profile", "nslots"), [("v5_10", 509), ("v6_12", 32764)])
def test_as_many_slots_as_the_capability_says_and_not_one_more(profile, nslots):
    """test_add_max_memory_regions(): slots of 2 MiB one behind the other."""
    kvm = new_vm(profile, VmConfig(tdp=True))
    size = 0x200000
    for slot in range(nslots):
        region = SetMemoryRegion(
            slot=slot, guest_phys_addr=slot * size, memory_size=size, userspace_addr=H + slot * size
        )
        step = apply(kvm, region, record=False)
        assert step.errno is None
        kvm = step.kvm

    one_more = SetMemoryRegion(slot=nslots, guest_phys_addr=nslots * size, memory_size=size, userspace_addr=H)

    assert apply(kvm, one_more).errno.name == "EINVAL"
    assert len(kvm.slots()) == nslots


@pytest.mark.parametrize(("profile", "quirk_off"), QUIRKS)
def test_a_guest_never_sees_the_old_page_behind_a_slot_that_was_moved(profile, quirk_off):
    """test_move_memory_region(): the guest spins on one address while the slot goes a page down and comes back."""
    vm = story(profile=profile).slot(10, gfn=BASE, npages=0x200, hva=H)
    if quirk_off:
        vm.do(QUIRK)
    assert value_at(vm, BASE) == ("ram", 0)

    for _ in range(10):
        seen = seen_during(vm, vm.region(10, gfn=BASE - 1, npages=0x200, hva=H), GuestRead(gpa=BASE << 12))
        vm.do(f"host_touch hva={H:#x} value=2")
        assert value_at(vm, BASE) == ("ram", 0), "another host page is behind the address now"
        vm.do(f"host_touch hva={H:#x} value=1")
        seen |= seen_during(vm, vm.region(10, gfn=BASE, npages=0x200, hva=H), GuestRead(gpa=BASE << 12))
        assert value_at(vm, BASE) == ("ram", 1)
        vm.do(f"host_touch hva={H:#x} value=0")
        assert seen == {"ram", "retry"}


@pytest.mark.parametrize(("profile", "quirk_off"), QUIRKS)
def test_a_slot_deleted_under_the_guest_turns_into_mmio_and_back(profile, quirk_off):
    """test_delete_memory_region(): delete, create again, delete again, then the slot the code is in."""
    vm = story(profile=profile).slot(0, gfn=0, npages=16).slot(10, gfn=BASE, npages=0x200, hva=H)
    if quirk_off:
        vm.do(QUIRK)
    vm.do("vcpu_mode mode=prot code=0x1000")
    assert vm.guest_writes(BASE) == "ram"

    assert seen_during(vm, vm.deletion(10), GuestRead(gpa=BASE << 12)) == {"ram", "retry", "mmio"}
    assert value_at(vm, BASE)[0] == "mmio"
    assert value_at(vm.slot(10, gfn=BASE, npages=0x200, hva=H), BASE) == ("ram", 0)
    assert value_at(vm.delete(10), BASE)[0] == "mmio"
    assert value_at(vm.delete(0), BASE)[0] == "no code"


# -- memslot_perf_test.c, memslot_modification_stress_test.c ---------------------------------------


@pytest.mark.parametrize("profile", MOVES)
def test_a_guest_that_writes_elsewhere_does_not_notice_a_move(profile):
    """memslot_perf_test, "move inactive area": no MMIO exit at all."""
    vm = story(profile=profile).slot(1, gfn=0x100, npages=4).slot(2, gfn=0x200, npages=4).slot(3, gfn=0x300, npages=4)
    elsewhere = GuestWrite(gpa=0x200 << 12)

    there = seen_during(vm, vm.region(3, gfn=0x800, npages=4, hva=vm.hva_of(3)), elsewhere)
    back = seen_during(vm, vm.region(3, gfn=0x300, npages=4, hva=vm.hva_of(3)), elsewhere)

    assert there | back == {"ram"}


@pytest.mark.parametrize("profile", MOVES)
def test_a_guest_that_writes_inside_a_slot_that_moves_meets_mmio_only_there(profile):
    """memslot_perf_test, "move active area": only write exits, only inside the half that moves."""
    vm = story(profile=profile).slot(1, gfn=0x100, npages=4).slot(2, gfn=0x200, npages=4)

    seen = seen_during(vm, vm.region(2, gfn=0x800, npages=4, hva=vm.hva_of(2)), GuestWrite(gpa=0x203 << 12))

    assert seen == {"ram", "retry", "mmio"}
    assert vm.guest_writes(0x103) == "ram"
    assert vm.guest_writes(0x803) == "ram"


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("machine", [{"tdp": False}, {"tdp": True}, {"tdp": True, "tdp_mmu": False}], ids=str)
def test_a_dummy_slot_that_comes_and_goes_never_stops_the_guest(profile, machine):
    """memslot_modification_stress_test: vCPUs touch memory while a slot just below is made and deleted."""
    vm = story(profile=profile, **machine).slot(1, gfn=0x200, npages=0x200)

    seen = set()
    for _ in range(10):
        seen |= seen_during(vm, vm.region(2, gfn=0x1FF, npages=1), GuestWrite(gpa=0x200 << 12))
        seen |= seen_during(vm, vm.deletion(2), GuestRead(gpa=0x3FF << 12))

    assert seen == {"ram"}


# -- dirty_log_test.c and its relatives ------------------------------------------------------------

ROUNDS = st.lists(st.lists(st.integers(0, 127), max_size=6), min_size=1, max_size=5)
MACHINES = st.sampled_from(
    [{"tdp": False}, {"tdp": True}, {"tdp": True, "tdp_mmu": False}, {"tdp": True, "processor": "intel"}]
)


@pytest.mark.parametrize("profile", PROFILES)
@given(rounds=ROUNDS, machine=MACHINES, clear=st.booleans())
@settings(max_examples=30)
def test_the_log_of_a_round_is_what_the_guest_wrote_in_it(profile, rounds, machine, clear):
    """dirty_log_test in the modes dirty-log and clear-log."""
    vm = story(profile=profile, **machine)
    if clear:
        vm.do("enable_cap cap=MANUAL_DIRTY_LOG_PROTECT2 arg=1")
    vm.slot(1, gfn=0x200, npages=128, flags=LOG)

    for pages in rounds:
        for page in pages:
            assert vm.guest_writes(0x200 + page) == "ram"
        assert vm.dirty(1) == sorted(set(pages))
        if clear:
            vm.do("clear_dirty_log slot=1 first=0 num=128")


@pytest.mark.parametrize("profile", [name for name in PROFILES if PROFILES[name].splits_huge_pages_early])
def test_logging_leaves_no_huge_page_and_ending_it_brings_them_back(profile):
    """dirty_log_page_splitting_test: with eager splitting, the counts of pages before and after are equal."""
    vm = story(profile=profile, tdp=True).slot(1, gfn=0x200, npages=0x400)
    vm.do(f"host_touch hva={vm.hva_of(1):#x} size=0x400000 value=1")
    touch = range(0x200, 0x600, 0x80)

    def levels() -> set[int]:
        assert {vm.guest_writes(gfn) for gfn in touch} == {"ram"}
        return {spte.level for spte in vm.kvm.sptes.entries.values()}

    assert levels() == {PG_LEVEL_2M}
    vm.set_flags(1, LOG)
    assert {spte.level for spte in vm.kvm.sptes.entries.values()} == {PG_LEVEL_4K}
    assert levels() == {PG_LEVEL_4K}
    vm.set_flags(1, 0)
    assert levels() == {PG_LEVEL_2M}


@pytest.mark.parametrize("profile", PROFILES)
def test_switching_the_log_of_many_slots_counts_them(profile):
    """dirty_log_perf_test: enable, get, clear, disable over several slots."""
    vm = story(profile=profile).do("enable_cap cap=MANUAL_DIRTY_LOG_PROTECT2 arg=1")
    slots = range(1, 9)
    for slot in slots:
        vm.slot(slot, gfn=0x100 * slot, npages=64)

    for slot in slots:
        vm.set_flags(slot, LOG).guest_writes(0x100 * slot + slot)
        assert vm.kvm.nr_memslots_dirty_logging == slot
    assert [vm.dirty(slot) for slot in slots] == [[slot] for slot in slots]
    for slot in slots:
        vm.do(f"clear_dirty_log slot={slot} first=0 num=64")
    assert [vm.dirty(slot) for slot in slots] == [[]] * 8
    for slot in slots:
        vm.set_flags(slot, 0)

    assert vm.kvm.nr_memslots_dirty_logging == 0


# -- smm_test.c ------------------------------------------------------------------------------------


@pytest.mark.parametrize("profile", PROFILES)
def test_smram_is_there_for_smm_alone(profile):
    """smm_test: SMRAM is a slot of the second address space."""
    vm = story(profile=profile).slot(0, gfn=0, npages=16).slot(1, gfn=0x1000, npages=16, as_id=1)

    assert vm.guest_writes(0x1000, as_id=1) == "ram"
    assert vm.guest_writes(0x1000) == "mmio"
    assert vm.guest_reads(0, as_id=1) == "mmio"


def test_the_stories_run_on_every_kernel_that_moves_slots():
    kinds = {name: get_profile(name).has_external_user_inverted for name in PROFILES}

    assert [name for name, inverted in kinds.items() if not inverted] == MOVES
    assert isinstance(new_vm("v6_12"), Kvm)
