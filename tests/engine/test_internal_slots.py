"""Slots of KVM's own: who has them and how they meet those of userspace. Kernel-reference 4.10 and 8."""

import pytest
from story import Story, story

from explorer.engine.commands import CreateIrqchip, CreateVcpu, EnableCap, SetIdentityMapAddr, SetTssAddr
from explorer.engine.invariants import get_invariant, violations
from explorer.engine.profile import PROFILES
from explorer.engine.types import Errno
from explorer.engine.uapi import KVM_CAP_SPLIT_IRQCHIP

INTEL = {"processor": "intel", "tdp": True, "unrestricted_guest": False}
TSS = SetTssAddr(addr=0xFFFBD000)


def places(vm: Story) -> list[list[tuple[int, int, int]]]:
    return [[(s.id, s.base_gfn, s.npages) for s in vm.kvm.slots(a)] for a in range(len(vm.kvm.memslots))]


@pytest.mark.parametrize("profile", [n for n, p in PROFILES.items() if p.user_mem_slots == 32764])
def test_intel_without_unrestricted_guest_has_three_slots_in_each_address_space(profile):
    """Recording intel-ept1-ug0 intel/all_internal; ids of section 8."""
    vm = story(profile=profile, **INTEL).do(TSS).do(CreateIrqchip()).do(CreateVcpu())

    assert vm.errno is None
    assert places(vm) == [[(32765, 0xFEE00, 1), (32766, 0xFFFBC, 1), (32764, 0xFFFBD, 3)]] * 2
    assert (vm.kvm.nr_memslot_pages, violations(vm.kvm)) == (10, ())
    assert get_invariant(25).check(vm.kvm) == ()


@pytest.mark.parametrize(
    ("config", "ids"),
    [
        ({"processor": "amd", "tdp": True}, []),
        ({"processor": "intel", "tdp": True}, [32765]),
        ({"processor": "intel", "tdp": True, "flexpriority": False}, []),
        ({"processor": "intel", "tdp": False}, [32765, 32764]),
        (INTEL, [32765, 32766, 32764]),
    ],
)
def test_only_some_machines_need_internal_slots(config, ids):
    vm = story(**config).do(TSS).do(CreateIrqchip()).do(CreateVcpu())

    assert [slot.id for slot in vm.kvm.slots()] == ids


def test_where_only_smm_refuses_the_first_copy_stays_and_every_retry_fails():
    """Recording 6.12 intel-ept1-ug0 intel/tss_on_smm_slot, with its generations 2 and 3, then 2 and 7."""
    vm = story(**INTEL).slot(0, gfn=0xFFFBD, npages=1, as_id=1)

    assert vm.do(TSS).errno_name == "EEXIST"
    assert (vm.generation(0), vm.generation(1), vm.kvm.nr_memslot_pages) == (2, 3, 4)
    assert vm.do(TSS).errno_name == "EEXIST"
    vm.delete(0, as_id=1)

    assert vm.do(TSS).errno_name == "EEXIST", "the id is taken in address space 0"
    assert places(vm) == [[(32764, 0xFFFBD, 3)], []]
    assert (vm.generation(0), vm.generation(1)) == (2, 7)
    assert [(v.as_id, v.slot, v.found) for v in get_invariant(25).check(vm.kvm)] == [(1, 32764, "none")]


def test_a_user_slot_in_the_way_refuses_the_tss_and_costs_nothing():
    """Recording intel/tss_on_user_slot."""
    vm = story(**INTEL).slot(0, gfn=0xFFFBF, npages=1)
    before = vm.kvm

    assert vm.do(TSS).errno_name == "EEXIST"
    assert vm.kvm == before


@pytest.mark.parametrize(
    ("addr", "errno"), [(0xFFFFD000, None), (0xFFFFE000, "EINVAL"), (1 << 32, "EINVAL"), (0x1001, "EINVAL")]
)
def test_the_tss_lies_on_a_page_and_ends_below_4_gib(addr, errno):
    """Recordings intel/tss_limits and tss_misaligned."""
    assert story(**INTEL).do(SetTssAddr(addr=addr)).errno_name == errno


def test_the_identity_map_cannot_be_placed_once_there_is_a_vcpu():
    """Recording intel/identity_bad_then_vcpu."""
    vm = story(**INTEL).do(SetIdentityMapAddr(addr=0x1000))
    assert vm.errno is None

    vm.do(CreateVcpu())

    assert places(vm)[0] == [(32766, 1, 1)]
    assert vm.do(SetIdentityMapAddr(addr=0x2000)).errno_name == "EINVAL"


def test_a_tracker_can_watch_a_page_of_kvm_s_own():
    """Recording intel/tracker_on_apic_page: lookups find internal slots."""
    vm = story(**INTEL).do(CreateIrqchip()).do(CreateVcpu()).attach()

    vm.track(0xFEE00)

    assert (vm.errno, vm.counts(32765)) == (None, {0xFEE00: 1})


@pytest.mark.parametrize("again", [CreateIrqchip(), CreateVcpu()], ids=str)
def test_a_second_of_its_kind_is_refused(again):
    vm = story().do(CreateIrqchip()).do(CreateVcpu())

    assert vm.do(again).errno_name == "EEXIST"


@pytest.mark.parametrize(("pins", "errno"), [(0, None), (24, None), (4096, None), (4097, Errno.EINVAL)])
def test_a_split_irqchip_may_reserve_as_many_pins_as_there_are_irq_routes(pins, errno):
    """KVM_MAX_IRQ_ROUTES, 4096, in kvm_vm_ioctl_enable_cap(); a kernel 6.18 answers so."""
    vm = story(profile="v6_18").do(EnableCap(cap=KVM_CAP_SPLIT_IRQCHIP, arg=pins))

    assert vm.errno is errno


def test_an_address_that_was_never_set_is_the_kernel_s_own_from_the_first_vcpu_on():
    """vmx.c: init_rmode_identity_map(), VMX_EPT_IDENTITY_PAGETABLE_ADDR."""
    vm = story(processor="intel", tdp=True, unrestricted_guest=False)
    assert vm.kvm.setup.identity_map_addr == 0

    vm.do("create_vcpu id=0")

    assert vm.kvm.setup.identity_map_addr == 0xFFFBC000
