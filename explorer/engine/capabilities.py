"""What KVM says it can do: KVM_CHECK_EXTENSION, and which types of VM it makes.

A question changes nothing, so it is a function here and no command. An answer hangs on the kernel (profile),
on machine and build (configuration), and for some on the VM; `CAPABILITIES` is the whole table.

Models virt/kvm/kvm_main.c: kvm_vm_ioctl_check_extension_generic(), kvm_dev_ioctl_create_vm(); arch/x86/kvm/x86.c:
kvm_vm_ioctl_check_extension(), kvm_is_vm_type_supported().
Not modelled: capabilities that have nothing to do with memory slots, VMs of SEV and TDX, kernels before 5.7, whose
answers here are those of 5.10. Read next: `commands`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from explorer.engine.state import Kvm, new_vm
from explorer.engine.types import Errno
from explorer.engine.uapi import (
    KVM_DIRTY_LOG_INITIALLY_SET,
    KVM_DIRTY_LOG_MANUAL_PROTECT_ENABLE,
    KVM_GUEST_MEMFD_FLAGS,
    KVM_MEMORY_ATTRIBUTE_PRIVATE,
    KVM_X86_DEFAULT_VM,
    KVM_X86_QUIRK_IGNORE_GUEST_PAT,
    KVM_X86_SW_PROTECTED_VM,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from explorer.engine.config import VmConfig
    from explorer.engine.profile import KernelProfile

__all__ = [
    "CAPABILITIES",
    "Capability",
    "kvm_dev_ioctl_create_vm",
    "kvm_vm_ioctl_check_extension",
    "supported_guest_memfd_flags",
    "supported_quirks",
    "supported_vm_types",
]

_GENERIC = "kvm_vm_ioctl_check_extension_generic"
_X86 = "kvm_vm_ioctl_check_extension"
_DIRTY_RING_BYTES = 65536 * 16
"""Most entries of a dirty ring, 16 bytes each."""
_VM_TYPES_FROM = 32
"""No type has a number from here on."""


class Capability(NamedTuple):
    """One question userspace may ask."""

    name: str
    """Without ``KVM_CAP_``."""
    number: int
    function: str
    """Kernel function that answers."""
    answer: Callable[[KernelProfile, VmConfig, bool], int]
    """Given profile, configuration and whether a VM is asked; without one, KVM says what it can do at most."""


def kvm_vm_ioctl_check_extension(kvm: Kvm, capability: Capability, *, vm: bool = True) -> int | Errno:
    """Return the answer to a question, 0 for "no"; a dead VM answers nothing.

    Parameters
    ----------
    kvm
        The VM, or with `vm` False any VM of the host whose ``/dev/kvm`` is asked.
    vm
        Whether the VM is asked or ``/dev/kvm``.

    References
    ----------
    virt/kvm/kvm_main.c: kvm_vm_ioctl(), kvm_vm_ioctl_check_extension_generic(); arch/x86/kvm/x86.c:
    kvm_vm_ioctl_check_extension() [v5_10 to v7_3]
    """
    if vm and kvm.vm_bugged:
        return Errno.EIO
    return capability.answer(kvm.profile, kvm.config, vm)


def kvm_dev_ioctl_create_vm(profile: KernelProfile, config: VmConfig) -> Kvm | Errno:
    """Return the VM that KVM_CREATE_VM makes of the type asked for, or why it makes none.

    References
    ----------
    virt/kvm/kvm_main.c: kvm_dev_ioctl_create_vm(), kvm_create_vm(); arch/x86/kvm/x86.c: kvm_arch_init_vm()
    [all profiles]
    """
    if not kvm_is_vm_type_supported(profile, config):
        return Errno.EINVAL
    return new_vm(profile, config)


def kvm_is_vm_type_supported(profile: KernelProfile, config: VmConfig) -> bool:
    """Return whether KVM makes VMs of the configured type.

    References
    ----------
    arch/x86/kvm/x86.c: kvm_is_vm_type_supported() [v6_12, v7_3; before v6.8 every type but 0 is refused]
    """
    return config.vm_type < _VM_TYPES_FROM and bool(supported_vm_types(profile, config) >> config.vm_type & 1)


def supported_vm_types(profile: KernelProfile, config: VmConfig) -> int:
    """Return the types of VM as bits: the plain one, and one with private memory if KVM was built for it.

    References
    ----------
    arch/x86/kvm/x86.c: kvm_x86_vendor_init() [v6_12, v7_3]
    """
    private = profile.set_user_memory_region2 and config.sw_protected_vm and config.tdp_mmu_enabled
    return 1 << KVM_X86_DEFAULT_VM | (1 << KVM_X86_SW_PROTECTED_VM if private else 0)


def supported_quirks(profile: KernelProfile, config: VmConfig) -> int:
    """Return the quirks userspace may switch off, as bits; 0 if the kernel does not know the question.

    References
    ----------
    arch/x86/kvm/x86.c: kvm_vm_ioctl_check_extension() [v6_1 to v7_3], kvm_x86_vendor_init() [v6_18, v7_3]
    """
    return profile.valid_quirks & ~(0 if config.tdp else KVM_X86_QUIRK_IGNORE_GUEST_PAT)


def supported_guest_memfd_flags(profile: KernelProfile, config: VmConfig) -> int:
    """Return the flags KVM_CREATE_GUEST_MEMFD takes: mapping a file is for VMs without private memory.

    References
    ----------
    include/linux/kvm_host.h: kvm_gmem_get_supported_flags() [v6_18, v7_3; none in v6_12]
    """
    return KVM_GUEST_MEMFD_FLAGS if profile.guest_memfd_for_every_vm and not config.has_private_mem else 0


def _address_spaces(profile: KernelProfile, config: VmConfig, vm: bool) -> int:
    if profile.smm_is_optional and not config.smm:
        return 0
    return config.nr_memslot_as_ids(profile) if vm else 2


def _guest_memfd(profile: KernelProfile, config: VmConfig, vm: bool) -> int:
    if profile.guest_memfd_for_every_vm:
        return 1
    return int(profile.set_user_memory_region2 and (not vm or config.has_private_mem))


def _attributes(profile: KernelProfile, config: VmConfig, vm: bool) -> int:
    private = config.has_private_mem if vm else supported_vm_types(profile, config) != 1 << KVM_X86_DEFAULT_VM
    return KVM_MEMORY_ATTRIBUTE_PRIVATE if profile.set_user_memory_region2 and private else 0


CAPABILITIES: dict[str, Capability] = {
    row.name: row
    for row in (
        Capability("USER_MEMORY", 3, _GENERIC, lambda *_: 1),
        Capability("SET_TSS_ADDR", 4, _X86, lambda *_: 1),
        Capability("NR_MEMSLOTS", 10, _GENERIC, lambda profile, *_: profile.user_mem_slots),
        Capability("SYNC_MMU", 16, _X86, lambda *_: 1),
        Capability("DESTROY_MEMORY_REGION_WORKS", 21, _GENERIC, lambda *_: 1),
        Capability("JOIN_MEMORY_REGIONS_WORKS", 30, _GENERIC, lambda *_: 1),
        Capability("SET_IDENTITY_MAP_ADDR", 37, _X86, lambda *_: 1),
        Capability("READONLY_MEM", 81, _X86, lambda *_: 1),
        # Up to v6_1 it is no build option: every processor that is modelled can emulate SMM then.
        Capability("X86_SMM", 117, _X86, lambda profile, config, _: int(config.smm or not profile.smm_is_optional)),
        Capability("MULTI_ADDRESS_SPACE", 118, _GENERIC, _address_spaces),
        Capability(
            "MANUAL_DIRTY_LOG_PROTECT2",
            168,
            _GENERIC,
            lambda *_: KVM_DIRTY_LOG_MANUAL_PROTECT_ENABLE | KVM_DIRTY_LOG_INITIALLY_SET,
        ),
        Capability("DIRTY_LOG_RING", 192, _GENERIC, lambda profile, *_: _DIRTY_RING_BYTES * profile.dirty_ring),
        Capability("DISABLE_QUIRKS2", 213, _X86, lambda profile, config, _: supported_quirks(profile, config)),
        Capability("DIRTY_LOG_RING_ACQ_REL", 223, _GENERIC, lambda profile, *_: _DIRTY_RING_BYTES * profile.dirty_ring),
        Capability("USER_MEMORY2", 231, _GENERIC, lambda profile, *_: int(profile.set_user_memory_region2)),
        Capability("MEMORY_ATTRIBUTES", 233, _GENERIC, _attributes),
        Capability("GUEST_MEMFD", 234, _GENERIC, _guest_memfd),
        Capability(
            "VM_TYPES",
            235,
            _X86,
            lambda profile, config, _: supported_vm_types(profile, config) if profile.set_user_memory_region2 else 0,
        ),
        Capability(
            "PRE_FAULT_MEMORY", 236, _X86, lambda profile, config, _: int(profile.pre_fault_memory and config.tdp)
        ),
        Capability(
            "GUEST_MEMFD_FLAGS", 244, _GENERIC, lambda profile, config, _: supported_guest_memfd_flags(profile, config)
        ),
    )
}
"""Every capability that was recorded, by name."""
