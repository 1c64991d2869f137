"""One sentence for a newcomer and one for a KVM developer, for every operation that is no region call.

The rule is that of `sentences`: each is made from what the engine did, not from what was asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, assert_never

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
    ArrayAllocated,
    DirtyLogCleared,
    DirtyLogRead,
    GpuEntryShadowed,
    GuestReadServed,
    GuestWriteServed,
    KernelWarned,
    ShadowTableShadowed,
    TrackerNotified,
    VmBugged,
    WriteTracked,
    WriteUntracked,
)
from explorer.engine.state import Kvmgt
from explorer.engine.types import Errno
from explorer.engine.uapi import (
    KVM_CAP_DISABLE_QUIRKS2,
    KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2,
    KVM_DIRTY_LOG_MANUAL_PROTECT_ENABLE,
    KVM_GUEST_MEMFD_FLAG_MMAP,
    KVM_X86_QUIRK_SLOT_ZAP_ALL,
)
from explorer.explain.ledger import watches_of
from explorer.explain.words import hex_text, pages_text, plural, size_text

if TYPE_CHECKING:
    from explorer.engine.commands import Command
    from explorer.history.moment import Moment

__all__ = ["Sentences", "other_sentences"]


class Sentences(NamedTuple):
    """What a moment means."""

    newcomer: str
    developer: str
    """May name kernel functions, in backquotes."""
    function: str
    """Kernel function the developer's sentence is about; empty if there is none."""


_MODES = {"real": "real mode", "prot": "protected mode, without paging", "long": "64-bit mode, with paging"}
_STUCK = {
    "shutdown": "cannot reach its page tables and shuts down",
    "no tables": "cannot reach its page tables",
    "no code": "cannot fetch its instructions",
}


def other_sentences(moment: Moment, command: Command) -> Sentences:
    """Return the sentences of an operation that is no region call."""
    op = moment.op
    assert op is not None, "a moment after a command has an operation"
    if op.step.errno is not None:
        return _other_refused(command, op.step.errno)
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
            return _shadow_tables(moment)
        case AttachTracker():
            return _attached(moment, command)
        case DetachTracker():
            return _detached(moment, command)
        case TrackGfn():
            return _tracked(moment, command)
        case UntrackGfn():
            return _untracked(moment, command)
        case SubmitWorkload():
            again = sum(isinstance(event, GpuEntryShadowed) for event in op.step.events)
            return Sentences(
                f"The guest hands work to its vGPU. Entries that it had written by halves are read again first: {again}.",
                "`intel_vgpu_flush_post_shadow()` reads such entries from the guest’s table; KVM is not called.",
                "intel_vgpu_flush_post_shadow",
            )
        case GuestWrite():
            return _guest_write(moment, command)
        case GuestRead():
            return _guest_read(moment, command)
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


def _shadow_tables(moment: Moment) -> Sentences:
    op = moment.op
    assert op is not None, "tables are shadowed in an operation"
    made = sum(isinstance(event, ShadowTableShadowed) for event in op.step.events)
    watched = sum(isinstance(event, WriteTracked) for event in op.step.events)
    if made:
        times = "once" if made == 1 else f"{made} times"
        last = " The last level is not: it forbids huge pages, and may go out of sync." if made > watched else ""
        return Sentences(
            "These pages hold the guest’s own page tables. KVM keeps a shadow of each, and watches the upper ones for writes.",
            f"`account_shadowed()` ran {times}: each upper-level table is write-tracked.{last}",
            "account_shadowed",
        )
    if moment.kvm.config.tdp:
        return Sentences(
            "The processor walks the guest’s tables itself, so KVM shadows none.",
            "With TDP, and no nested guest, there is no shadow root: `account_shadowed()` has nothing to do, and nobody inside KVM tracks writes.",
            "account_shadowed",
        )
    return Sentences(
        "KVM makes no new shadow: these tables have one, or they do not lie in memory the guest can use.",
        "`account_shadowed()` did not run: a shadow page exists already, or no visible slot holds the table.",
        "account_shadowed",
    )


def _attached(moment: Moment, command: AttachTracker) -> Sentences:
    op = moment.op
    assert op is not None, "a tracker attaches in an operation"
    who = (
        "KVMGT, the driver of Intel’s virtual GPU,"
        if command.kind == "kvmgt"
        else "A tracker that only logs its callbacks"
    )
    held = sum(watch.by == "tracker" for slot in moment.kvm.slots() for watch in watches_of(moment.kvm, slot))
    now = (
        "No page is watched for it yet."
        if not held
        else f"{plural(held, 'watch')} of an external tracker {'is' if held == 1 else 'are'} there already."
    )
    arrays = sum(isinstance(e, ArrayAllocated) for e in op.step.events)
    tail = (
        f" It is the first, so `kvm_enable_external_write_tracking()` gave {plural(arrays, 'slot')} counts."
        if arrays
        else ""
    )
    return Sentences(
        f"{who} is attached. {now}",
        f"`kvm_page_track_register_notifier()` put it at the head of the list: it is called first.{tail}",
        "kvm_page_track_register_notifier",
    )


def _detached(moment: Moment, command: DetachTracker) -> Sentences:
    op = moment.op
    assert op is not None, "a tracker detaches in an operation"
    known = op.before.trackers.get(command.user)
    if known is None or not known.attached:
        return Sentences(
            "No such tracker is attached, so nothing happens.",
            "`kvm_page_track_unregister_notifier()` was not called.",
            "kvm_page_track_unregister_notifier",
        )
    back = sum(isinstance(event, WriteUntracked) for event in op.step.events)
    if isinstance(known, Kvmgt):
        newcomer = f"KVMGT gives back {plural(back, 'watch')} and is detached."
        first = "KVMGT first lets go of every page it shadows; then "
    else:
        newcomer = "The tracker is detached. Watches it did not give back stay."
        first = ""
    return Sentences(
        newcomer,
        f"{first}`kvm_page_track_unregister_notifier()` took it off the list.",
        "kvm_page_track_unregister_notifier",
    )


def _tracked(moment: Moment, command: TrackGfn) -> Sentences:
    op = moment.op
    assert op is not None, "a page is tracked in an operation"
    page = hex_text(command.gfn)
    up = next((e for e in op.step.events if isinstance(e, WriteTracked)), None)
    if up is None:
        return Sentences(
            f"KVMGT believes that it watches page {page} already, so it does not ask KVM.",
            "`intel_vgpu_enable_page_track()` returns at once where the `tracked` flag is set, or KVMGT’s own table has the page.",
            "intel_vgpu_enable_page_track",
        )
    return Sentences(
        f"The tracker asks KVM to catch every guest write to page {page}.",
        f"`kvm_write_track_add_gfn()`: the page’s count is {up.count} now, and no huge page may cover it.",
        "kvm_write_track_add_gfn",
    )


def _untracked(moment: Moment, command: UntrackGfn) -> Sentences:
    op = moment.op
    assert op is not None, "a page is let go in an operation"
    page = hex_text(command.gfn)
    down = next((e for e in op.step.events if isinstance(e, WriteUntracked)), None)
    if down is None:
        return Sentences(
            f"KVMGT forgets page {page}; KVM takes no watch away.",
            "`intel_vgpu_unregister_page_track()`: KVM watched the page no more for KVMGT, or no slot holds it.",
            "intel_vgpu_unregister_page_track",
        )
    return Sentences(
        f"The tracker lets page {page} go.",
        f"`kvm_write_track_remove_gfn()`: the page’s count is {down.count} now.",
        "kvm_write_track_remove_gfn",
    )


def _guest_write(moment: Moment, command: GuestWrite) -> Sentences:
    op = moment.op
    assert op is not None, "a write is an operation"
    served = next((e for e in op.step.events if isinstance(e, GuestWriteServed)), None)
    told = sum(isinstance(e, TrackerNotified) for e in op.step.events)
    where = hex_text(command.gpa)
    match served.outcome if served is not None else "":
        case "emulated":
            who = f"; {plural(told, 'tracker')} {'is' if told == 1 else 'are'} told" if told else ""
            return Sentences(
                f"The guest writes to {where}. The page is watched, so KVM carries the write out itself{who}.",
                "The fault is answered by emulation; `kvm_page_track_write()` runs when memory already has the new value.",
                "kvm_page_track_write",
            )
        case "ram":
            return Sentences(
                f"The guest writes to {where}. Nobody watches the page, so nobody is told.",
                "The count is 0: `kvm_faultin_pfn()` finds the page, and a writable mapping serves the write.",
                "kvm_faultin_pfn",
            )
        case "mmio":
            return Sentences(
                f"The guest writes to {where}, where there is no slot: the VMM must answer.",
                "`kvm_faultin_pfn()` finds no slot for the gfn: an MMIO exit to userspace.",
                "kvm_faultin_pfn",
            )
        case "read-only":
            return Sentences(
                f"The guest writes to {where}, which is read-only: the VMM must answer.",
                "`kvm_faultin_pfn()` gets no writable page from a READONLY slot: the write exits to userspace as MMIO.",
                "kvm_faultin_pfn",
            )
        case "shutdown" | "no tables" | "no code" as stuck:
            return _stuck(stuck)
        case _:
            return Sentences(
                f"The guest writes to {where} while the slot is INVALID: it tries again until the update is over.",
                "`kvm_faultin_pfn()` answers RET_PF_RETRY for an INVALID slot.",
                "kvm_faultin_pfn",
            )


def _guest_read(moment: Moment, command: GuestRead) -> Sentences:
    op = moment.op
    assert op is not None, "a read is an operation"
    served = next((e for e in op.step.events if isinstance(e, GuestReadServed)), None)
    where = hex_text(command.gpa)
    match served.outcome if served is not None else "":
        case "ram":
            return Sentences(
                f"The guest reads from {where} and gets what memory holds.",
                "`kvm_faultin_pfn()` finds the page if it is not mapped yet; a mapping that allows writes counts as one.",
                "kvm_faultin_pfn",
            )
        case "emulated":
            return Sentences(
                f"The guest reads from {where}; KVM carries the instruction out itself.",
                "`kvm_mmu_page_fault()` has the instruction emulated.",
                "kvm_mmu_page_fault",
            )
        case "mmio":
            return Sentences(
                f"The guest reads from {where}, where there is no slot: the VMM must answer.",
                "`kvm_faultin_pfn()` finds no slot for the gfn: an MMIO exit to userspace.",
                "kvm_faultin_pfn",
            )
        case "shutdown" | "no tables" | "no code" as stuck:
            return _stuck(stuck)
        case _:
            return Sentences(
                f"The guest reads from {where} while the slot is INVALID: it tries again until the update is over.",
                "`kvm_faultin_pfn()` answers RET_PF_RETRY for an INVALID slot.",
                "kvm_faultin_pfn",
            )


def _stuck(outcome: str) -> Sentences:
    return Sentences(
        f"The vCPU {_STUCK[outcome]}.",
        "`kvm_mmu_page_fault()` finds no slot behind what the vCPU must read to go on.",
        "kvm_mmu_page_fault",
    )


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


_NO_DIRTY_LOG = ("There is no such slot, or it keeps no dirty log.", "no slot with this id has a dirty bitmap")
_NO_SLOT_THERE = ("No slot holds that page.", "the lookup in address space 0 finds no slot")
_NOTHING_BEHIND = (
    "The VMM has no memory behind the slot, so the vCPU cannot run on.",
    "the host address of the slot is not mapped",
    "kvm_faultin_pfn",
)
_HANGS = (
    "The guest hangs: a page of its own page tables is watched, and KVM handles the same fault for ever.",
    "the processor’s walk writes to the tracked table, KVM unprotects nothing and tries again, until a signal comes",
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


def _other_refused(command: Command, errno: Errno) -> Sentences:
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
