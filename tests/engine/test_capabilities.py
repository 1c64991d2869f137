"""What KVM says it can do. The numbers are those the recorded kernels gave; `explorer conform` asks them all again."""

import pytest
from story import story

from explorer.engine.capabilities import (
    CAPABILITIES,
    kvm_dev_ioctl_create_vm,
    kvm_vm_ioctl_check_extension,
    supported_quirks,
)
from explorer.engine.config import VmConfig
from explorer.engine.profile import PROFILES, get_profile
from explorer.engine.state import Kvm, new_vm
from explorer.engine.types import Errno
from explorer.engine.uapi import KVM_X86_QUIRK_SLOT_ZAP_ALL, KVM_X86_SW_PROTECTED_VM

PROTECTED = {"vm_type": KVM_X86_SW_PROTECTED_VM, "sw_protected_vm": True, "tdp": True}


def answer(name, profile, *, vm=True, **config):
    return kvm_vm_ioctl_check_extension(new_vm(profile, VmConfig(**config)), CAPABILITIES[name], vm=vm)


@pytest.mark.parametrize(
    ("name", "answers"),
    [
        # recordings handwritten/check_extensions: 5.10, 6.1, 6.12, 7.3 with nested paging
        ("NR_MEMSLOTS", (509, 32764, 32764, 32764)),
        ("MULTI_ADDRESS_SPACE", (2, 2, 2, 2)),
        ("DIRTY_LOG_RING", (0, 1048576, 1048576, 1048576)),
        ("USER_MEMORY2", (0, 0, 1, 1)),
        ("GUEST_MEMFD", (0, 0, 0, 1)),
        ("GUEST_MEMFD_FLAGS", (0, 0, 0, 3)),
        ("VM_TYPES", (0, 0, 1, 1)),
        ("PRE_FAULT_MEMORY", (0, 0, 1, 1)),
        ("DISABLE_QUIRKS2", (0, 127, 2047, 4095)),
    ],
)
def test_each_kernel_answers_as_it_was_recorded(name, answers):
    assert tuple(answer(name, profile, tdp=True) for profile in ("v5_10", "v6_1", "v6_12", "v7_3")) == answers


def test_without_two_dimensional_paging_kvm_offers_less():
    assert answer("PRE_FAULT_MEMORY", "v6_12", tdp=False) == 0
    assert answer("DISABLE_QUIRKS2", "v6_12", tdp=False) == 1535
    assert answer("DISABLE_QUIRKS2", "v6_18", tdp=False) == 1535


def test_dev_kvm_tells_what_some_vm_could_do():
    """6.12: guest_memfd is there, but not for the plain VM that asks."""
    assert answer("GUEST_MEMFD", "v6_12", vm=False) == 1
    assert answer("GUEST_MEMFD", "v6_12") == 0


def test_a_kvm_without_smm_has_one_address_space_and_does_not_say_so():
    """Recording host-6.18-pvm: 0, not 1."""
    assert answer("MULTI_ADDRESS_SPACE", "v6_18", smm=False) == 0
    assert answer("X86_SMM", "v6_18", smm=False) == 0
    assert answer("MULTI_ADDRESS_SPACE", "v6_1", smm=False) == 2


def test_a_dead_vm_answers_nothing_but_dev_kvm_does():
    """Recording tracker/track_without_attach_bugs_the_vm."""
    dead = story(tdp=True).slot(0, gfn=0, npages=16).track(3).kvm

    assert kvm_vm_ioctl_check_extension(dead, CAPABILITIES["NR_MEMSLOTS"]) is Errno.EIO
    assert kvm_vm_ioctl_check_extension(dead, CAPABILITIES["NR_MEMSLOTS"], vm=False) == 32764


def test_numbers_of_capabilities_are_unique():
    assert len({row.number for row in CAPABILITIES.values()}) == len(CAPABILITIES)


# -- quirks ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("profile", PROFILES.values(), ids=lambda p: p.name)
def test_the_quirk_of_the_zap_is_offered_where_it_is_modelled(profile):
    offered = supported_quirks(profile, VmConfig())

    assert bool(offered & KVM_X86_QUIRK_SLOT_ZAP_ALL) == profile.slot_zap_quirk


@pytest.mark.parametrize("profile", PROFILES)
def test_exactly_the_quirks_that_are_offered_can_be_switched_off(profile):
    vm = story(profile=profile, tdp=True)
    offered = answer("DISABLE_QUIRKS2", profile, tdp=True)

    for bit in range(13):
        vm.do(f"enable_cap cap=DISABLE_QUIRKS2 arg={1 << bit}")
        assert vm.errno is (None if offered >> bit & 1 else Errno.EINVAL)
    assert vm.kvm.disabled_quirks == offered


def test_before_5_18_no_quirk_can_even_be_asked_for():
    assert story(profile="v5_10").do("enable_cap cap=DISABLE_QUIRKS2 arg=0").errno is Errno.EINVAL
    assert story(profile="v6_1").do("enable_cap cap=DISABLE_QUIRKS2 arg=0").errno is None


# -- types of VM -----------------------------------------------------------------------------------


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("vm_type", range(1, 6))
def test_a_distribution_kernel_makes_plain_vms_only(profile, vm_type):
    """Recordings gmem_sw_protected_vm and internal_in_protected_vm: EINVAL on every kernel."""
    config = VmConfig(tdp=True, vm_type=vm_type)

    assert kvm_dev_ioctl_create_vm(get_profile(profile), config) is Errno.EINVAL


@pytest.mark.parametrize("profile", PROFILES)
def test_the_plain_vm_is_always_made(profile):
    assert isinstance(kvm_dev_ioctl_create_vm(get_profile(profile), VmConfig()), Kvm)


def test_a_vm_with_private_memory_needs_a_kernel_built_for_it():
    assert isinstance(kvm_dev_ioctl_create_vm(get_profile("v6_12"), VmConfig(**PROTECTED)), Kvm)
    assert kvm_dev_ioctl_create_vm(get_profile("v6_1"), VmConfig(**PROTECTED)) is Errno.EINVAL
    assert kvm_dev_ioctl_create_vm(get_profile("v6_12"), VmConfig(**PROTECTED | {"tdp": False})) is Errno.EINVAL


def test_private_memory_goes_without_smm():
    """Kernel-reference 3.3: NR_AS is 2 only without private memory."""
    assert answer("MULTI_ADDRESS_SPACE", "v6_12", **PROTECTED) == 1
    assert answer("GUEST_MEMFD", "v6_12", **PROTECTED) == 1
    assert answer("MEMORY_ATTRIBUTES", "v6_12", **PROTECTED) == 8
    assert answer("GUEST_MEMFD_FLAGS", "v7_3", **PROTECTED) == 0
