"""The machine and the build a VM runs on: what a kernel profile leaves open.

Rule: a value that the guest or the VMM can change at run time is state, not configuration.
Not modelled: EPT without accessed and dirty bits, processor features beyond these, TDX and SEV machine types (no VM
of theirs is made), dirty rings. Read next: `slot_state`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from explorer.engine.types import PAGE_SHIFT, ExplorerError, Gfn
from explorer.engine.uapi import KVM_X86_SW_PROTECTED_VM

if TYPE_CHECKING:
    from explorer.engine.profile import KernelProfile

__all__ = ["VmConfig"]

_FEWEST_BITS, _MOST_BITS = 32, 52
"""Physical address bits of x86-64 processors."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VmConfig:
    """Properties of machine and kernel build that memslot code asks for.

    Raises
    ------
    ExplorerError
        If `host_phys_bits` is not in 32..52.
    """

    tdp: bool = False
    """Whether the processor walks KVM's tables for guest addresses (EPT, NPT); False is shadow paging."""
    tdp_mmu: bool = True
    """Whether the newer MMU for those tables is on (kvm.tdp_mmu); without `tdp` it is off."""
    external_write_tracking: bool = True
    """Whether KVM was built with CONFIG_KVM_EXTERNAL_WRITE_TRACKING."""
    smm: bool = True
    """Whether KVM was built with CONFIG_KVM_SMM, where a profile leaves that open."""
    processor: Literal["amd", "intel", "pvm"] = "amd"
    """Whose virtualisation it is; Intel's needs memory slots of its own."""
    unrestricted_guest: bool = True
    """Intel with EPT: whether the guest may run in real mode without help; else KVM adds two slots."""
    vm_type: int = 0
    """What userspace asked KVM_CREATE_VM for: 0 is the plain VM, 1 KVM_X86_SW_PROTECTED_VM."""
    sw_protected_vm: bool = False
    """Whether KVM was built with CONFIG_KVM_SW_PROTECTED_VM, for VMs with private memory on any processor."""
    flexpriority: bool = True
    """Intel: whether the APIC page is virtualised through a slot."""
    pml: bool = True
    """Intel with EPT: whether the processor logs which pages the guest writes (page modification logging)."""
    host_huge_pages: bool = True
    """Whether the host backs the VMM's memory with 2 MiB pages (transparent huge pages)."""
    vmm_memory_start: int = 0
    """Lowest host address that the VMM has mapped; a slot below it has nothing behind it."""
    host_phys_bits: int = 46
    """Physical address bits of the host, from CPUID 0x80000008."""
    host_memory: int | None = None
    """Bytes of host memory that metadata may fill; None for no limit."""

    def __post_init__(self) -> None:
        """Refuse a width no x86-64 processor has."""
        if not _FEWEST_BITS <= self.host_phys_bits <= _MOST_BITS:
            raise ExplorerError(
                f"host_phys_bits is {self.host_phys_bits}, expected {_FEWEST_BITS} to {_MOST_BITS}; try 46"
            )

    @property
    def tdp_mmu_enabled(self) -> bool:
        """Return whether the TDP MMU runs: the parameter counts only with TDP on."""
        return self.tdp and self.tdp_mmu

    @property
    def pml_enabled(self) -> bool:
        """Return whether dirty pages are found by PML: only Intel has it, and only for EPT."""
        return self.processor == "intel" and self.tdp and self.pml

    @property
    def unrestricted_guest_enabled(self) -> bool:
        """Return whether real mode runs natively: the feature counts only with EPT on."""
        return self.tdp and self.unrestricted_guest

    @property
    def has_private_mem(self) -> bool:
        """Return whether the VM can have memory that the VMM cannot reach.

        References
        ----------
        arch/x86/include/asm/kvm_host.h: kvm_arch_has_private_mem() [v6_12, v7_3]
        """
        return self.vm_type == KVM_X86_SW_PROTECTED_VM

    def max_gfn(self) -> Gfn:
        """Return the last gfn a slot may have.

        References
        ----------
        arch/x86/kvm/mmu.h: kvm_mmu_max_gfn() [v6_1 to v7_3]
        """
        bits = self.host_phys_bits if self.tdp else 52
        return Gfn((1 << (bits - PAGE_SHIFT)) - 1)

    def nr_memslot_as_ids(self, profile: KernelProfile) -> int:
        """Return how many address spaces a VM has: 2 with SMM, else 1; private memory goes without SMM.

        References
        ----------
        arch/x86/include/asm/kvm_host.h: kvm_arch_nr_memslot_as_ids() [v6_12, v7_3]
        """
        if not profile.smm_is_optional:
            return 2
        return 2 if self.smm and not self.has_private_mem else 1
