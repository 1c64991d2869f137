"""One sentence for a newcomer and one for a KVM developer, for every operation that is no region call.

The rule is that of `sentences`: each is made from what the engine did, not from what was asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, assert_never

from explorer.engine.commands import (
    Advance,
    AttachTracker,
    Begin,
    BuildPageTables,
    ClearDirtyLog,
    CreateGuestMemfd,
    CreateIrqchip,
    CreateVcpu,
    DetachTracker,
    EnableCap,
    GetDirtyLog,
    GuestRead,
    GuestWrite,
    HostTouch,
    ReadTrackerLog,
    SetIdentityMapAddr,
    SetMemoryRegion,
    SetTssAddr,
    SetVcpuMode,
    ShadowTables,
    SubmitWorkload,
    TrackGfn,
    UntrackGfn,
)
from explorer.engine.events import (
    DirtyLogCleared,
    DirtyLogRead,
    GpuEntryShadowed,
    KernelWarned,
    VmBugged,
)
from explorer.engine.uapi import (
    KVM_CAP_DISABLE_QUIRKS2,
    KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2,
    KVM_DIRTY_LOG_MANUAL_PROTECT_ENABLE,
    KVM_GUEST_MEMFD_FLAG_MMAP,
    KVM_X86_QUIRK_SLOT_ZAP_ALL,
)
from explorer.explain.guest_sentences import guest_read, guest_write
from explorer.explain.refused_sentences import refused_otherwise
from explorer.explain.sentence import Sentences
from explorer.explain.tracking_sentences import attached, detached, shadowed_tables, tracked, untracked
from explorer.explain.words import hex_text, pages_text, plural, size_text

if TYPE_CHECKING:
    from explorer.engine.commands import Command
    from explorer.history.moment import Moment

__all__ = ["other_sentences"]


_MODES = {"real": "real mode", "prot": "protected mode, without paging", "long": "64-bit mode, with paging"}


def other_sentences(moment: Moment, command: Command) -> Sentences:
    """Return the sentences of an operation that is no region call."""
    op = moment.op
    assert op is not None, "a moment after a command has an operation"
    if op.step.errno is not None:
        return refused_otherwise(command, op.step.errno)
    alarm = next((e for e in op.step.events if isinstance(e, VmBugged | KernelWarned)), None)
    if alarm is not None:
        newcomer = (
            "KVM finds a bug of its own and marks the VM dead: every later call fails."
            if isinstance(alarm, VmBugged)
            else "The kernel would print a warning here."
        )
        return Sentences(newcomer, f"`{alarm.function}()`: {alarm.what}.", alarm.function)
    match command:
        case ShadowTables():
            return shadowed_tables(moment)
        case AttachTracker():
            return attached(moment, command)
        case DetachTracker():
            return detached(moment, command)
        case TrackGfn():
            return tracked(moment, command)
        case UntrackGfn():
            return untracked(moment, command)
        case SubmitWorkload():
            again = sum(isinstance(event, GpuEntryShadowed) for event in op.step.events)
            return Sentences(
                f"The guest hands work to its vGPU. Entries that it had written by halves are read again first: {again}.",
                "`intel_vgpu_flush_post_shadow()` reads such entries from the guest’s table; KVM is not called.",
                "intel_vgpu_flush_post_shadow",
            )
        case GuestWrite():
            return guest_write(moment, command)
        case GuestRead():
            return guest_read(moment, command)
        case SetVcpuMode():
            return Sentences(
                f"The vCPU runs in {_MODES[command.mode]} from now on.",
                f"KVM_SET_SREGS: paging is {'on' if command.mode == 'long' else 'off'}; no memory slot is touched.",
                "",
            )
        case HostTouch() | BuildPageTables():
            return Sentences(
                "The VMM writes to its own memory, so the host has those pages.",
                "No call into KVM: the VMM stores through its own mapping.",
                "",
            )
        case GetDirtyLog():
            read = next((e for e in op.step.events if isinstance(e, DirtyLogRead)), None)
            clears = (
                "leaves the bits for KVM_CLEAR_DIRTY_LOG" if op.before.manual_dirty_log_protect else "clears the bits"
            )
            return Sentences(
                f"The VMM asks which pages were written: {pages_text(read.count if read is not None else 0)}.",
                f"`kvm_get_dirty_log_protect()` copies the bitmap to userspace and {clears}.",
                "kvm_get_dirty_log_protect",
            )
        case ClearDirtyLog():
            cleared = next((e for e in op.step.events if isinstance(e, DirtyLogCleared)), None)
            return Sentences(
                f"The VMM says it has seen these pages; {pages_text(cleared.count if cleared is not None else 0)} of them {'was' if cleared is not None and cleared.count == 1 else 'were'} marked.",
                "`kvm_clear_dirty_log_protect()` clears those bits and catches the next write to each page again.",
                "kvm_clear_dirty_log_protect",
            )
        case EnableCap():
            return _capability(moment, command)
        case SetTssAddr() | SetIdentityMapAddr() | CreateIrqchip() | CreateVcpu():
            return _set_up(moment, command)
        case CreateGuestMemfd():
            return _guest_memfd(command)
        case ReadTrackerLog():
            return Sentences(
                "The tracker hands over what it was told since it was last asked.",
                "No call into KVM: the log is the tracker’s own.",
                "",
            )
        case Begin():
            return Sentences(
                "A region call begins and waits before its first step.",
                "`kvm_vm_ioctl()` is entered; nothing was checked yet.",
                "kvm_vm_ioctl",
            )
        case Advance():
            return Sentences(
                "The region call that is in progress goes one step further.",
                "`kvm_set_memory_region()` is under way; other CPUs may look between two steps.",
                "kvm_set_memory_region",
            )
        case SetMemoryRegion():
            raise AssertionError("a region call has sentences of its own, one for each step")
        case _:
            assert_never(command)


def _capability(moment: Moment, command: EnableCap) -> Sentences:
    if command.cap == KVM_CAP_DISABLE_QUIRKS2:
        off = command.arg & KVM_X86_QUIRK_SLOT_ZAP_ALL
        return Sentences(
            "From now on a MOVE or DELETE zaps only the slot’s own mappings."
            if off
            else "Userspace does without an old habit of KVM that memory slots have no part in.",
            "`kvm_vm_ioctl_enable_cap()` turns KVM_X86_QUIRK_SLOT_ZAP_ALL off for this VM."
            if off
            else "`kvm_vm_ioctl_enable_cap()` turns quirks off; none of them is modelled.",
            "kvm_vm_ioctl_enable_cap",
        )
    if command.cap == KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2:
        manual = moment.kvm.manual_dirty_log_protect & KVM_DIRTY_LOG_MANUAL_PROTECT_ENABLE
        return Sentences(
            "From now on reading the dirty log leaves it as it is; userspace clears it."
            if manual
            else "Reading the dirty log clears it.",
            f"`kvm_vm_ioctl_enable_cap_generic()` set `manual_dirty_log_protect` to {command.arg}.",
            "kvm_vm_ioctl_enable_cap_generic",
        )
    return Sentences(
        "The interrupt controllers are split between KVM and the VMM.",
        "`kvm_vm_ioctl_enable_cap()`: KVM_CAP_SPLIT_IRQCHIP keeps the local APICs in the kernel.",
        "kvm_vm_ioctl_enable_cap",
    )


def _guest_memfd(command: CreateGuestMemfd) -> Sentences:
    can = "can be mapped" if command.flags & KVM_GUEST_MEMFD_FLAG_MMAP else "cannot be mapped"
    return Sentences(
        f"There is a file of {size_text(command.size)} of guest memory now, descriptor {command.fd}. It {can}; no slot uses it yet.",
        "`kvm_gmem_create()` makes the file; a slot takes a part of it by KVM_SET_USER_MEMORY_REGION2.",
        "kvm_gmem_create",
    )


def _set_up(moment: Moment, command: SetTssAddr | SetIdentityMapAddr | CreateIrqchip | CreateVcpu) -> Sentences:
    op = moment.op
    assert op is not None, "a set-up is an operation"
    before = {(slot.as_id, slot.id) for at in range(len(op.before.memslots)) for slot in op.before.slots(at)}
    after = {(slot.as_id, slot.id) for at in range(len(moment.kvm.memslots)) for slot in moment.kvm.slots(at)}
    more = len(after - before)
    made = f" KVM made {plural(more, 'slot')} of its own for it." if more else " No slot is made for it."
    match command:
        case SetTssAddr():
            return Sentences(
                f"The VMM says where an Intel VM may keep a task state segment: {hex_text(command.addr)}.{made}",
                "`kvm_vm_ioctl_set_tss_addr()`: only Intel without unrestricted guest needs three pages there.",
                "kvm_vm_ioctl_set_tss_addr",
            )
        case SetIdentityMapAddr():
            return Sentences(
                f"The VMM says where an Intel VM may keep its identity page table: {hex_text(command.addr)}.{made}",
                "`kvm_vm_ioctl_set_identity_map_addr()` only notes the address; the first vCPU uses it.",
                "kvm_vm_ioctl_set_identity_map_addr",
            )
        case CreateIrqchip():
            return Sentences(
                f"Interrupt controllers are made in the kernel.{made}",
                "`kvm_arch_vm_ioctl()`: KVM_CREATE_IRQCHIP; on Intel a vCPU then gets a page for its virtual APIC.",
                "kvm_arch_vm_ioctl",
            )
        case CreateVcpu():
            return Sentences(
                f"vCPU {command.id} is made.{made}",
                "`kvm_vm_ioctl_create_vcpu()`: on Intel the first one may add the APIC page and the identity page table.",
                "kvm_vm_ioctl_create_vcpu",
            )
        case _:
            assert_never(command)
