"""Setting a VM up: the ioctls that make KVM add memory slots of its own.

On Intel without unrestricted guest KVM keeps a TSS and an identity page table in guest memory, and a page
for the virtual APIC; each is a slot with an id above those of userspace, in every address space. On AMD
without AVIC the same ioctls add none.

Models arch/x86/kvm/x86.c: __x86_set_memory_region(), the set-up ioctls; arch/x86/kvm/vmx/vmx.c: vmx_set_tss_addr(),
init_rmode_identity_map(), alloc_apic_access_page() (from v6.3 kvm_alloc_apic_access_page() in lapic.c).
Not modelled: AVIC, which gives AMD the page for the APIC, too; what a vCPU executes; where the kernel maps the host
memory of its slots. Read next: `apply`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, assert_never

from explorer.engine import memslots
from explorer.engine.commands import (
    CreateIrqchip,
    CreateVcpu,
    SetIdentityMapAddr,
    SetMemoryRegion,
    SetTssAddr,
)
from explorer.engine.lapic import APIC_DEFAULT_PHYS_BASE, kvm_lapic_reset
from explorer.engine.lookup import id_to_memslot
from explorer.engine.region_call import run_phase
from explorer.engine.types import PAGE_SIZE, Errno
from explorer.engine.uapi import (
    APIC_ACCESS_PAGE_PRIVATE_MEMSLOT,
    IDENTITY_PAGETABLE_PRIVATE_MEMSLOT,
    TSS_PRIVATE_MEMSLOT,
)

if TYPE_CHECKING:
    from explorer.engine.draft import KvmDraft

__all__ = ["enable_split_irqchip", "run"]

_TSS_PAGES = 3
_LAST_TSS_ADDR = (1 << 32) - _TSS_PAGES * PAGE_SIZE
_IDENTITY_DEFAULT = 0xFFFB_C000
_KVM_MAX_IRQ_ROUTES = 4096
"""Most I/O APIC pins that a VMM may reserve."""
_INTERNAL_HVA = 0x7FFF_0000_0000
"""Stand-in for the address mmap() would choose."""


def run(kvm: KvmDraft, command: SetTssAddr | SetIdentityMapAddr | CreateIrqchip | CreateVcpu) -> Errno | None:
    """Run one set-up ioctl."""
    match command:
        case SetTssAddr():
            return _set_tss_addr(kvm, command.addr)
        case SetIdentityMapAddr():
            if kvm.setup.vcpus:
                return Errno.EINVAL
            kvm.setup = kvm.setup._replace(identity_map_addr=command.addr)
            return None
        case CreateIrqchip():
            if kvm.setup.irqchip:
                return Errno.EEXIST
            if kvm.setup.vcpus:
                return Errno.EINVAL
            kvm.setup = kvm.setup._replace(irqchip=True)
            return None
        case CreateVcpu():
            return _create_vcpu(kvm, command.id)
        case _:
            assert_never(command)


def _set_tss_addr(kvm: KvmDraft, addr: int) -> Errno | None:
    """Place the TSS; it must end below 4 GiB.

    References
    ----------
    arch/x86/kvm/x86.c: kvm_vm_ioctl_set_tss_addr(); arch/x86/kvm/vmx/vmx.c: vmx_set_tss_addr() [all profiles]
    """
    if addr > _LAST_TSS_ADDR:
        return Errno.EINVAL
    if kvm.config.processor != "intel" or kvm.config.unrestricted_guest_enabled:
        return None
    return _x86_set_memory_region(kvm, TSS_PRIVATE_MEMSLOT, addr, _TSS_PAGES * PAGE_SIZE)


def enable_split_irqchip(kvm: KvmDraft, ioapic_pins: int) -> Errno | None:
    """Keep only the local APICs in the kernel; that is enough for the APIC page.

    References
    ----------
    arch/x86/kvm/x86.c: kvm_vm_ioctl_enable_cap(), KVM_CAP_SPLIT_IRQCHIP [all profiles]
    """
    if ioapic_pins > _KVM_MAX_IRQ_ROUTES:
        return Errno.EINVAL
    if kvm.setup.irqchip or kvm.setup.vcpus:
        return Errno.EEXIST
    kvm.setup = kvm.setup._replace(irqchip=True)
    return None


def _create_vcpu(kvm: KvmDraft, vcpu_id: int) -> Errno | None:
    """Create a vCPU; on Intel the first may add the APIC page and the identity page table.

    The first vCPU is the one that runs here.

    References
    ----------
    virt/kvm/kvm_main.c: kvm_vm_ioctl_create_vcpu() [all profiles]; arch/x86/kvm/vmx/vmx.c: vmx_vcpu_create()
    [v6_1 to v7_3], vmx_create_vcpu() [up to v5_10]
    """
    if kvm.config.processor == "intel":
        errno = _alloc_apic_access_page(kvm) or _init_rmode_identity_map(kvm)
        if errno is not None:
            return errno
    # Asked last: by then the architecture has made its slots.
    if vcpu_id in kvm.setup.vcpus:
        return Errno.EEXIST
    if kvm.setup.irqchip and not kvm.setup.vcpus:
        kvm.vcpu = kvm.vcpu._replace(apic=kvm_lapic_reset(vcpu_id, kvm.disabled_quirks))
    kvm.setup = kvm.setup._replace(vcpus=(*kvm.setup.vcpus, vcpu_id))
    return None


def _alloc_apic_access_page(kvm: KvmDraft) -> Errno | None:
    if not (kvm.config.flexpriority and kvm.setup.irqchip) or kvm.setup.apic_access_page_done:
        return None
    errno = _x86_set_memory_region(kvm, APIC_ACCESS_PAGE_PRIVATE_MEMSLOT, APIC_DEFAULT_PHYS_BASE, PAGE_SIZE)
    if errno is None:
        kvm.setup = kvm.setup._replace(apic_access_page_done=True)
    return errno


def _init_rmode_identity_map(kvm: KvmDraft) -> Errno | None:
    if not kvm.config.tdp or kvm.config.unrestricted_guest_enabled or kvm.setup.identity_map_done:
        return None
    addr = kvm.setup.identity_map_addr or _IDENTITY_DEFAULT
    kvm.setup = kvm.setup._replace(identity_map_addr=addr)
    errno = _x86_set_memory_region(kvm, IDENTITY_PAGETABLE_PRIVATE_MEMSLOT, addr, PAGE_SIZE)
    if errno is None:
        kvm.setup = kvm.setup._replace(identity_map_done=True)
    return errno


def _x86_set_memory_region(kvm: KvmDraft, which: int, gpa: int, size: int) -> Errno | None:
    """Add one internal slot to every address space, one after the other.

    If a later address space refuses, the earlier ones keep the slot, and every retry then fails with
    EEXIST because the id is taken.

    References
    ----------
    arch/x86/kvm/x86.c: __x86_set_memory_region() [all profiles]
    """
    slot_id = kvm.profile.user_mem_slots + which
    if id_to_memslot(kvm.active(0), slot_id) is not None:
        return Errno.EEXIST
    for as_id in range(len(kvm.memslots)):
        update = kvm.update = memslots.begin(
            SetMemoryRegion(
                slot=slot_id,
                as_id=as_id,
                guest_phys_addr=gpa,
                memory_size=size,
                userspace_addr=_INTERNAL_HVA + (which << 20),
            ),
            internal=True,
        )
        while kvm.update is not None:
            run_phase(kvm)
        if update.errno is not None:
            return update.errno
    return None
