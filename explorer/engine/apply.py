"""The only door: a snapshot and a command in, the next snapshot and what happened out.

Rule 1: `apply` never changes its argument; an old snapshot stays valid for ever.
Rule 2: a call that the kernel refuses is a result with an errno, not an exception.

Models the dispatch of virt/kvm/kvm_main.c: kvm_vm_ioctl().
Not modelled: capabilities but three (KVM_CAP_DISABLE_QUIRKS, the older form, is not among them), vCPU ioctls but
those that make slots or set the mode, reset and destruction of a VM. Read next: `brief`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, assert_never

from explorer.engine import dirty_log, hostmem, memslots, mmu, trackers, vcpu
from explorer.engine.capabilities import supported_quirks
from explorer.engine.commands import (
    Advance,
    AttachTracker,
    Begin,
    BuildPageTables,
    ClearDirtyLog,
    Command,
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
from explorer.engine.draft import KvmDraft, built
from explorer.engine.guest import guest_read, guest_write
from explorer.engine.guest_memfd import kvm_gmem_create
from explorer.engine.locks import BusyError, need_arch_lock, need_lock, need_lock_for_paging
from explorer.engine.region_call import run_phase, run_to_end
from explorer.engine.types import AsId, Errno
from explorer.engine.uapi import (
    KVM_CAP_DISABLE_QUIRKS2,
    KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2,
    KVM_CAP_SPLIT_IRQCHIP,
    KvmMrChange,
)

if TYPE_CHECKING:
    from explorer.engine.events import Event
    from explorer.engine.guard import Guard, GuardResult
    from explorer.engine.region_call import Phase
    from explorer.engine.state import Kvm

__all__ = ["Step", "SubStep", "apply", "walk"]


class Step(NamedTuple):
    """What one command did."""

    kvm: Kvm
    """The VM afterwards."""
    events: tuple[Event, ...]
    """What happened, in kernel order; empty if it was not recorded."""
    errno: Errno | None
    """What the call returned: None for success."""
    change: KvmMrChange | None = None
    """For a region call: what it was found to be, if it came that far."""
    refused_by: Guard | None = None
    results: tuple[GuardResult, ...] = ()
    """For a region call: every check that was asked, in order."""


class SubStep(NamedTuple):
    """One phase of a region call."""

    phase: Phase
    kvm: Kvm
    events: tuple[Event, ...]


def apply(kvm: Kvm, command: Command, *, record: bool = True) -> Step:
    """Run one command to its end.

    Parameters
    ----------
    kvm
        VM snapshot; never modified.
    command
        What to do; arguments may be illegal.
    record
        Whether to make events; without them a run is about twice as fast.

    Returns
    -------
    Step
        The next snapshot with events and errno. A call refused by a free check returns an equal state.

    Raises
    ------
    BusyError
        If a region call in progress holds the lock the command needs.
    """
    draft = KvmDraft(kvm, record=record)
    match command:
        case SetMemoryRegion():
            need_lock(kvm, command)
            update = draft.update = memslots.begin(command)
            run_to_end(draft, update)
            events, results = tuple(draft.events or ()), tuple(update.results)
            return built(Step, (draft.freeze(), events, update.errno, update.change, update.refused_by, results))
        case Begin():
            need_lock(kvm, command)
            draft.update = memslots.begin(command.call)
            return Step(draft.freeze(), (), None)
        case Advance():
            return _advance(draft)
        case _:
            errno = _run(kvm, draft, command)
            return Step(draft.freeze(), tuple(draft.events or ()), errno)


def walk(kvm: Kvm, call: SetMemoryRegion) -> tuple[Step, tuple[SubStep, ...]]:
    """Run a region call and keep the snapshot after each phase.

    Returns
    -------
    tuple
        The step as `apply` gives it, and its phases, first to last. The last phase's snapshot is the
        step's, and the step's events are those of the phases one after another.
    """
    draft = KvmDraft(kvm, record=True)
    need_lock(kvm, call)
    update = draft.update = memslots.begin(call)
    phases: list[SubStep] = []
    events: list[Event] = []
    while update.at < len(update.phases):
        draft.events = []
        at = update.at
        run_phase(draft)
        events += draft.events
        phases.append(SubStep(update.phases[at], draft.freeze(), tuple(draft.events)))
    step = Step(phases[-1].kvm, tuple(events), update.errno, update.change, update.refused_by, tuple(update.results))
    return step, tuple(phases)


def _advance(draft: KvmDraft) -> Step:
    update = draft.update
    if update is None:
        raise BusyError("no region call is in progress; begin one first")
    run_phase(draft)
    return Step(
        draft.freeze(),
        tuple(draft.events or ()),
        update.errno,
        update.change,
        update.refused_by,
        tuple(update.results),
    )


def _run(
    kvm: Kvm,
    draft: KvmDraft,
    command: GetDirtyLog
    | ClearDirtyLog
    | EnableCap
    | AttachTracker
    | DetachTracker
    | TrackGfn
    | UntrackGfn
    | ReadTrackerLog
    | SubmitWorkload
    | ShadowTables
    | GuestWrite
    | GuestRead
    | SetVcpuMode
    | HostTouch
    | BuildPageTables
    | SetTssAddr
    | SetIdentityMapAddr
    | CreateIrqchip
    | CreateVcpu
    | CreateGuestMemfd,
) -> Errno | None:
    match command:
        case GetDirtyLog():
            need_lock(kvm, command)
            draft.enter("kvm_vm_ioctl")
            return (
                Errno.EIO if kvm.vm_bugged else dirty_log.kvm_get_dirty_log_protect(draft, command.slot, command.as_id)
            )
        case ClearDirtyLog():
            need_lock(kvm, command)
            draft.enter("kvm_vm_ioctl")
            if kvm.vm_bugged:
                return Errno.EIO
            return dirty_log.kvm_clear_dirty_log_protect(
                draft, command.slot, command.as_id, command.first_page, command.num_pages
            )
        case EnableCap():
            return Errno.EIO if kvm.vm_bugged else _enable_cap(draft, command)
        case AttachTracker():
            if draft.profile.track_arrays == "on demand" and not kvm.external_write_tracking_enabled:
                need_arch_lock(kvm, command)
            return trackers.attach_tracker(draft, command.user, command.kind)
        case DetachTracker():
            return trackers.detach_tracker(draft, command.user)
        case TrackGfn():
            return trackers.track_gfn(draft, command.user, command.gfn)
        case UntrackGfn():
            return trackers.untrack_gfn(draft, command.user, command.gfn)
        case ReadTrackerLog():
            trackers.read_tracker_log(draft, command.user)
            return None
        case SubmitWorkload():
            return trackers.submit_workload(draft, command.user)
        case ShadowTables():
            return mmu.shadow_tables(draft, command)
        case GuestWrite():
            if command.as_id >= len(kvm.memslots):
                return Errno.EINVAL
            need_lock_for_paging(kvm, command)
            if kvm.vm_bugged:
                return Errno.EIO
            return guest_write(draft, command.gpa, command.nbytes, AsId(command.as_id), command.value)
        case GuestRead():
            if command.as_id >= len(kvm.memslots):
                return Errno.EINVAL
            need_lock_for_paging(kvm, command)
            if kvm.vm_bugged:
                return Errno.EIO
            return guest_read(draft, command.gpa, command.nbytes, AsId(command.as_id), command.answer)
        case SetVcpuMode():
            draft.vcpu = draft.vcpu._replace(mode=command.mode, cr3=command.cr3, code=command.code)
            return None
        case HostTouch():
            return hostmem.host_touch(draft, command.hva, command.size, command.value)
        case BuildPageTables():
            hostmem.build_page_tables(draft, command.gpa, command.hva)
            return None
        case SetTssAddr() | SetIdentityMapAddr() | CreateIrqchip() | CreateVcpu():
            need_lock(kvm, command)
            return Errno.EIO if kvm.vm_bugged else vcpu.run(draft, command)
        case CreateGuestMemfd():
            if command.fd in kvm.guest_memfds:
                need_lock(kvm, command)  # the file that had the number is released
            return Errno.EIO if kvm.vm_bugged else kvm_gmem_create(draft, command.fd, command.size, command.flags)
        case _:
            assert_never(command)


def _enable_cap(draft: KvmDraft, command: EnableCap) -> Errno | None:
    """Enable one of the capabilities that change what is modelled; others are answered as unknown.

    References
    ----------
    virt/kvm/kvm_main.c: kvm_vm_ioctl_enable_cap_generic() [v5_10 to v7_3]; arch/x86/kvm/x86.c:
    kvm_vm_ioctl_enable_cap() [all profiles; KVM_X86_QUIRK_SLOT_ZAP_ALL from v6_12 on]
    """
    if command.cap == KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2:
        return dirty_log.enable_manual_protect(draft, command.arg)
    if command.cap == KVM_CAP_DISABLE_QUIRKS2:
        # Quirks but those of the zap and of LINT0 are accepted and have no effect here.
        known = supported_quirks(draft.profile, draft.config)
        if not known or command.arg & ~known:
            return Errno.EINVAL
        draft.disabled_quirks |= command.arg
        return None
    if command.cap == KVM_CAP_SPLIT_IRQCHIP:
        return vcpu.enable_split_irqchip(draft, command.arg)
    return Errno.EINVAL
