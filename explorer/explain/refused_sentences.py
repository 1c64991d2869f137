"""The sentences of a call that is no region call and that the kernel, or the machine, answers with an error.

One flat table: which call, which errno, what each reader is told.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from explorer.engine.commands import (
    AttachTracker,
    ClearDirtyLog,
    CreateGuestMemfd,
    CreateIrqchip,
    CreateVcpu,
    EnableCap,
    GetDirtyLog,
    GuestRead,
    GuestWrite,
    SetIdentityMapAddr,
    SetTssAddr,
    SubmitWorkload,
    TrackGfn,
    UntrackGfn,
)
from explorer.engine.types import Errno
from explorer.explain.sentence import Sentences

if TYPE_CHECKING:
    from explorer.engine.commands import Command

__all__ = ["refused_otherwise"]


_NO_DIRTY_LOG = ("There is no such slot, or it keeps no dirty log.", "no slot with this id has a dirty bitmap")
_NO_SLOT_THERE = ("No slot holds that page.", "the lookup in address space 0 finds no slot")
_NOTHING_BEHIND = (
    "The VMM has no memory behind the slot, so the vCPU cannot run on.",
    "the host address of the slot is not mapped",
    "kvm_faultin_pfn",
)
_HANGS = (
    "The guest hangs until a signal comes: it cannot get past its own page tables, or nobody has started the vCPU.",
    "the processor’s walk meets a table that is tracked or in no slot; or a vCPU with an APIC in the kernel sleeps",
    "kvm_mmu_page_fault",
)
_ASKED_WRONGLY: dict[tuple[type[Command], Errno], tuple[str, str, str]] = {
    (GetDirtyLog, Errno.EINVAL): (
        "There can be no such slot.",
        "the slot id or the address space does not exist",
        "kvm_get_dirty_log_protect",
    ),
    (GuestWrite, Errno.EFAULT): _NOTHING_BEHIND,
    (GuestRead, Errno.EFAULT): _NOTHING_BEHIND,
    (GuestWrite, Errno.EINTR): _HANGS,
    (GuestRead, Errno.EINTR): _HANGS,
    (GetDirtyLog, Errno.ENOENT): (*_NO_DIRTY_LOG, "kvm_get_dirty_log_protect"),
    (ClearDirtyLog, Errno.EINVAL): (
        "That is no range of pages that can be cleared.",
        "the first page is no multiple of 64, or the range is not in whole 64s and does not end with the slot, or there can be no such slot",
        "kvm_clear_dirty_log_protect",
    ),
    (ClearDirtyLog, Errno.ENOENT): (*_NO_DIRTY_LOG, "kvm_clear_dirty_log_protect"),
    (EnableCap, Errno.EINVAL): (
        "This kernel does not know what was asked for.",
        "an unknown capability, or an argument with unknown bits",
        "kvm_vm_ioctl_enable_cap",
    ),
    (EnableCap, Errno.EEXIST): (
        "That must be asked for before there are interrupt controllers or vCPUs.",
        "an irqchip or a vCPU exists",
        "kvm_vm_ioctl_enable_cap",
    ),
    (AttachTracker, Errno.ENODEV): (
        "This kernel was built without external write tracking, so nobody can attach.",
        "CONFIG_KVM_EXTERNAL_WRITE_TRACKING is off, and the function does not exist",
        "kvm_page_track_register_notifier",
    ),
    (AttachTracker, Errno.EEXIST): (
        "One vGPU is attached, and a VM can have only one.",
        "the vGPU, or another one of this VM, is attached; KVMGT does not register twice",
        "kvm_page_track_register_notifier",
    ),
    (AttachTracker, Errno.EBUSY): (
        "This tracker is attached already.",
        "the tracker does not register twice",
        "kvm_page_track_register_notifier",
    ),
    (TrackGfn, Errno.EINVAL): (*_NO_SLOT_THERE, "kvm_write_track_add_gfn"),
    (TrackGfn, Errno.ESRCH): (
        "KVMGT is not attached, so it cannot watch.",
        "the vGPU is not attached",
        "intel_gvt_page_track_add",
    ),
    (TrackGfn, Errno.ENXIO): (
        "An entry of the table names a page that no slot holds, so KVMGT gives the table up.",
        "the page cannot be pinned through VFIO",
        "ppgtt_populate_shadow_entry",
    ),
    (SubmitWorkload, Errno.ESRCH): (
        "No vGPU of this number is attached.",
        "the vGPU is not attached",
        "intel_vgpu_flush_post_shadow",
    ),
    (SubmitWorkload, Errno.ENXIO): (
        "An entry of the table names a page that no slot holds.",
        "the page cannot be pinned through VFIO",
        "ppgtt_populate_shadow_entry",
    ),
    (UntrackGfn, Errno.EINVAL): (*_NO_SLOT_THERE, "kvm_write_track_remove_gfn"),
    (CreateGuestMemfd, Errno.ENOTTY): (
        "This kernel does not know guest_memfd.",
        "the ioctl came with v6.8",
        "kvm_arch_vm_ioctl",
    ),
    (CreateGuestMemfd, Errno.EINVAL): (
        "That is no size of a file, or the kernel does not know what was asked for.",
        "a flag that is not supported, or a size that is not a positive number of pages",
        "kvm_gmem_create",
    ),
    (SetTssAddr, Errno.EINVAL): (
        "The three pages must end below 4 GiB and fit between the slots.",
        "the address is too high, or no legal place for a slot",
        "kvm_vm_ioctl_set_tss_addr",
    ),
    (SetTssAddr, Errno.EEXIST): (
        "There is a slot in the way already.",
        "the TSS slot exists, or another slot overlaps it",
        "kvm_vm_ioctl_set_tss_addr",
    ),
    (SetIdentityMapAddr, Errno.EINVAL): (
        "That must be said before there is a vCPU.",
        "a vCPU exists",
        "kvm_vm_ioctl_set_identity_map_addr",
    ),
    (CreateIrqchip, Errno.EINVAL): (
        "Interrupt controllers must be made before vCPUs.",
        "a vCPU exists",
        "kvm_arch_vm_ioctl",
    ),
    (CreateIrqchip, Errno.EEXIST): (
        "There are interrupt controllers already.",
        "an irqchip exists",
        "kvm_arch_vm_ioctl",
    ),
    (CreateVcpu, Errno.EEXIST): (
        "There is a vCPU with this number, or a slot where KVM needs one of its own.",
        "the id exists, or an internal slot overlaps a slot of userspace",
        "kvm_vm_ioctl_create_vcpu",
    ),
}


def refused_otherwise(command: Command, errno: Errno) -> Sentences:
    """Say why a call that is no region call was refused."""
    if errno is Errno.EIO:
        return Sentences(
            "KVM marked this VM dead before: it answers nothing any more.",
            "`kvm_vm_ioctl()`: KVM_BUG marked the VM dead, and every later ioctl fails with EIO.",
            "kvm_vm_ioctl",
        )
    found = _ASKED_WRONGLY.get((type(command), errno))
    if found is None:
        return Sentences(f"KVM said no, with {errno.name}.", f"`kvm_vm_ioctl()` returned {errno.name}.", "kvm_vm_ioctl")
    newcomer, developer, function = found
    return Sentences(newcomer, f"`{function}()`, {errno.name}: {developer}.", function)
