"""The local APIC that KVM keeps in the kernel: who answers at its page, and what its registers hold.

A device, not memory: an access of the page that KVM has to emulate goes to the registers, also where a slot of
userspace holds the page; userspace hears of none. On Intel the page is a slot of KVM's own, which an older kernel
maps: then the processor itself serves the task priority and leaves the rest to KVM.

Models arch/x86/kvm/lapic.c: kvm_lapic_reset(), kvm_lapic_reg_read(), kvm_lapic_reg_write() for an APIC in the state
that a reset leaves it in (xAPIC mode at its default place); the virtualised APIC page of VMX without APICv.
Not modelled: interrupts, timers, EOI, ICR and ESR writes, x2APIC, what KVM_SET_CPUID2 changes in the version
register, CR8, the base in MSR_IA32_APICBASE. Read next: `guest`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from explorer.engine.lookup import gfn_to_memslot
from explorer.engine.sortedmap import SortedMap
from explorer.engine.types import PAGE_SHIFT, PAGE_SIZE, AsId
from explorer.engine.uapi import APIC_ACCESS_PAGE_PRIVATE_MEMSLOT, KVM_X86_QUIRK_LINT0_REENABLED

if TYPE_CHECKING:
    from explorer.engine.draft import KvmDraft
    from explorer.engine.state import KvmMemorySlot

__all__ = [
    "APIC_DEFAULT_PHYS_BASE",
    "apic_outcome",
    "apic_read",
    "apic_write",
    "is_disabled_apic_page",
    "kvm_lapic_reg_read",
    "kvm_lapic_reg_write",
    "kvm_lapic_reset",
]

APIC_DEFAULT_PHYS_BASE = 0xFEE0_0000
_ID, _LVR, _TASKPRI, _ARBPRI, _PROCPRI, _LDR, _DFR, _SPIV = 0x20, 0x30, 0x80, 0x90, 0xA0, 0xD0, 0xE0, 0xF0
_ISR, _ISR_TO_IRR, _ESR, _ICR, _ICR2 = 0x100, 24, 0x280, 0x300, 0x310
_LVTT, _LVTTHMR, _LVTPC, _LVT0, _LVT1, _LVTERR = _LVTS = (0x320, 0x330, 0x340, 0x350, 0x360, 0x370)
_TMICT, _TMCCT, _TDCR = 0x380, 0x390, 0x3E0
_READABLE = frozenset(
    (_ID, _LVR, _TASKPRI, _ARBPRI, _PROCPRI, _LDR, _DFR, _SPIV, _ESR, _ICR, _ICR2, *_LVTS, _TMICT, _TMCCT, _TDCR)
) | {_ISR + 16 * at for at in range(_ISR_TO_IRR)}
"""Registers that a read in xAPIC mode may name; EOI and RRR are not among them."""
_VERSION = 0x14 | (len(_LVTS) - 1) << 16
_LVT_MASKED = 0x1_0000
_EXTINT = 0x700
"""LVT0 of the first vCPU: interrupts of the PIC come through."""
_SPIV_ENABLED = 0x100
_LVT_BITS = {_LVTTHMR: 0x117FF, _LVTPC: 0x117FF, _LVT0: 0x1F7FF, _LVT1: 0x1F7FF, _LVTERR: 0x110FF}
"""What a guest may set in each local vector; that of the timer hangs on CPUID."""
_REGISTER = 4
"""Bytes of a register; it stands at the start of 16."""


def kvm_lapic_reset(vcpu_id: int, disabled_quirks: int) -> SortedMap[int, int]:
    """Return the registers of a new vCPU's APIC by offset; those left out are 0.

    References
    ----------
    arch/x86/kvm/lapic.c: kvm_lapic_reset() [all profiles; KVM_X86_QUIRK_LINT0_REENABLED can be off]
    """
    lint0_open = vcpu_id == 0 and not disabled_quirks & KVM_X86_QUIRK_LINT0_REENABLED
    values = {
        _ID: (vcpu_id & 0xFF) << 24,
        _LVR: _VERSION,
        _DFR: 0xFFFF_FFFF,
        _SPIV: 0xFF,
        **dict.fromkeys(_LVTS, _LVT_MASKED),
        **({_LVT0: _EXTINT} if lint0_open else {}),
    }
    return SortedMap((offset, value) for offset, value in values.items() if value)


def kvm_lapic_reg_read(registers: SortedMap[int, int], offset: int, nbytes: int) -> int | None:
    """Return what a read of the device gets, or None if it leaves the reader's buffer as it was.

    References
    ----------
    arch/x86/kvm/lapic.c: kvm_lapic_reg_read(), __apic_read() [all profiles; apic_mmio_read() passes no error on]
    """
    within = offset & 0xF
    if within + nbytes > _REGISTER or offset & ~0xF not in _READABLE or nbytes not in (1, 2, 4):
        return None
    # Nothing is in service, so the processor's priority is the task's.
    register = _TASKPRI if offset & ~0xF == _PROCPRI else offset & ~0xF
    return registers.get(register, 0) >> 8 * within & ((1 << 8 * nbytes) - 1)


def kvm_lapic_reg_write(registers: SortedMap[int, int], offset: int, nbytes: int, value: int) -> SortedMap[int, int]:
    """Return the registers after a store; one that is not of four aligned bytes has no effect.

    References
    ----------
    arch/x86/kvm/lapic.c: apic_mmio_write(), kvm_lapic_reg_write() [all profiles]
    """
    if nbytes != _REGISTER or offset & 0xF:
        return registers
    match offset:
        case 0x20 | 0xD0 | 0x310:  # ID, LDR, ICR2
            return registers.set(offset, value & 0xFF00_0000)
        case 0x80:
            return registers.set(_TASKPRI, value & 0xFF)
        case 0xE0:
            return registers.set(_DFR, value | 0x0FFF_FFFF)
        case 0xF0:
            registers = registers.set(_SPIV, value & 0x3FF)
            if not value & _SPIV_ENABLED:
                for lvt in _LVTS:
                    registers = registers.set(lvt, registers.get(lvt, 0) | _LVT_MASKED)
            return registers
        case _ if offset in _LVT_BITS:
            masked = 0 if registers.get(_SPIV, 0) & _SPIV_ENABLED else _LVT_MASKED
            return registers.set(offset, (value | masked) & _LVT_BITS[offset])
        case _:
            return registers


# -- who answers -----------------------------------------------------------------------------------


def is_disabled_apic_page(kvm: KvmDraft, slot: KvmMemorySlot) -> bool:
    """Return whether a fault meets KVM's APIC page while APICv is off: it is emulated, and nothing is mapped.

    References
    ----------
    arch/x86/kvm/mmu/mmu.c: kvm_faultin_pfn() [v6_1 to v7_3]
    """
    return kvm.profile.apic_page_needs_apicv and _is_apic_page(kvm, slot)


def _is_apic_page(kvm: KvmDraft, slot: KvmMemorySlot) -> bool:
    return slot.id == kvm.profile.user_mem_slots + APIC_ACCESS_PAGE_PRIVATE_MEMSLOT


def apic_outcome(kvm: KvmDraft, as_id: AsId, gpa: int, outcome: str) -> str:
    """Return what an access comes to once it is known whether the local APIC's page is concerned.

    The emulator takes that page for a device always, whatever slot holds it. Without an APIC in the kernel the
    device is userspace's.

    References
    ----------
    arch/x86/kvm/x86.c: vcpu_is_mmio_gpa(), vcpu_mmio_write(), vcpu_mmio_read() [all profiles];
    arch/x86/kvm/vmx/vmx.c: handle_apic_access() [all profiles]
    """
    if gpa & -PAGE_SIZE != APIC_DEFAULT_PHYS_BASE:
        return outcome
    if outcome == "ram":
        slot = gfn_to_memslot(kvm.active(as_id), gpa >> PAGE_SHIFT)
        return "apic" if slot is not None and _is_apic_page(kvm, slot) else outcome
    if outcome not in ("emulated", "mmio", "read-only"):
        return outcome
    if kvm.setup.irqchip:
        return "apic"
    return "mmio" if outcome == "emulated" else outcome


def _processor_serves(gpa: int, outcome: str) -> bool:
    """Return whether an access needs no exit: the task priority, through the page that KVM has mapped.

    So says the Intel SDM, volume 3, of the APIC-access page with a TPR shadow and no APIC-register virtualization.
    """
    return outcome == "ram" and gpa % PAGE_SIZE == _TASKPRI


def apic_read(kvm: KvmDraft, gpa: int, nbytes: int, reached: str) -> int:
    """Serve a load; where no register answers, the emulator's buffer still holds what it read last.

    References
    ----------
    arch/x86/kvm/emulate.c: read_emulated() [all profiles]
    """
    value = kvm_lapic_reg_read(kvm.vcpu.apic, gpa % PAGE_SIZE, nbytes)
    if value is None:
        return kvm.vcpu.mem_read & ((1 << 8 * nbytes) - 1)
    if not _processor_serves(gpa, reached):
        kvm.vcpu = kvm.vcpu.with_read(value, nbytes)
    return value


def apic_write(kvm: KvmDraft, gpa: int, nbytes: int, value: int, reached: str) -> None:
    """Serve a store; the processor's own, of the task priority, takes bytes that the device does not.

    References
    ----------
    arch/x86/kvm/lapic.c: apic_mmio_write() [all profiles]
    """
    if _processor_serves(gpa, reached) and nbytes <= _REGISTER:
        kvm.vcpu = kvm.vcpu._replace(apic=kvm.vcpu.apic.set(_TASKPRI, value & 0xFF))
        return
    registers = kvm_lapic_reg_write(kvm.vcpu.apic, gpa % PAGE_SIZE, nbytes, value)
    kvm.vcpu = kvm.vcpu._replace(apic=registers)
