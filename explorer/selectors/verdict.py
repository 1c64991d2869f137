"""The verdict of a moment in a few words: what was allowed, refused or done, and what it cost or left."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple, assert_never

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
    GuestReadServed,
    GuestWriteServed,
    KernelWarned,
    ShadowTableShadowed,
    VmBugged,
    WriteTracked,
    WriteUntracked,
)
from explorer.engine.state import Kvmgt
from explorer.engine.uapi import KVM_CAP_DISABLE_QUIRKS2, KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2, KvmMrChange
from explorer.explain.ledger import ledger_of
from explorer.explain.words import errno_text, hex_text, pages_text, plural

if TYPE_CHECKING:
    from explorer.engine.commands import Command
    from explorer.history import OpDetail
    from explorer.history.moment import Moment

__all__ = ["Icon", "Verdict", "verdict_of"]

Icon = Literal["check", "octagon", "lost", "info"]
_SERVED = {
    "ram": ("Write goes to memory", "nobody is told"),
    "emulated": ("Write caught", "KVM carries it out itself"),
    "apic": ("Write goes to the APIC", "KVM's device, not memory"),
    "mmio": ("Write exits to the VMM", "no slot holds the address"),
    "read-only": ("Write exits to the VMM", "the slot is read-only"),
    "retry": ("Write tried again", "the slot is INVALID"),
    "shutdown": ("vCPU shut down", "nobody takes its page fault"),
    "undelivered": ("vCPU stopped", "its page fault cannot be delivered"),
    "no code": ("vCPU stopped", "its code is gone"),
}
_READ = _SERVED | {
    "ram": ("Read from memory", "the page is mapped"),
    "emulated": ("Read by KVM", "it carries the instruction out itself"),
    "apic": ("Read from the APIC", "KVM's device, not memory"),
    "mmio": ("Read exits to the VMM", "no slot holds the address"),
    "retry": ("Read tried again", "the slot is INVALID"),
}


class Verdict(NamedTuple):
    """What a moment came to."""

    icon: Icon
    errno: str
    """Written in the octagon; empty otherwise."""
    title: str
    subtitle: str
    role: str
    """Colour role of the subtitle."""


def verdict_of(moment: Moment) -> Verdict:
    """Return the verdict of a moment."""
    op = moment.op
    if op is None:
        return Verdict("info", "", "A new VM", "nothing happened yet", "ink_2")
    if op.step.errno is not None:
        return _refusal(moment, op)
    if moment.call is None:
        return _done(op, op.command)
    return _allowed(moment)


def _refusal(moment: Moment, op: OpDetail) -> Verdict:
    errno = errno_text(op.step.errno)
    if moment.call is None:
        return Verdict("octagon", errno, "Refused", "", "ink_2")
    name = moment.change.value if moment.change is not None else "Call"
    late = any(cell.word == "zap" for cell in op.cells)
    return Verdict(
        "octagon", errno, f"{name} refused", "and it was not free" if late else "before anything was touched", "ink_2"
    )


def _allowed(moment: Moment) -> Verdict:
    match moment.change:
        case KvmMrChange.MOVE:
            return Verdict("check", "", "MOVE allowed", *_cost_of_a_move(moment))
        case KvmMrChange.CREATE:
            return Verdict("check", "", "CREATE allowed", "one slot more", "ink_2")
        case KvmMrChange.DELETE:
            return Verdict("check", "", "DELETE allowed", "one slot less", "ink_2")
        case KvmMrChange.FLAGS_ONLY:
            return Verdict("check", "", "Flags changed", "the arrays stay", "ink_2")
        case _:
            return Verdict("check", "", "Nothing to do", "KVM returns 0 at once", "ink_2")


def _cost_of_a_move(moment: Moment) -> tuple[str, str]:
    ledger = ledger_of(moment)
    if ledger is None:
        return "and no watch is lost", "ink_2"
    lost, dropped = ledger.lost + ledger.will_be_lost, ledger.dropped + ledger.will_be_dropped
    if lost:
        now = "is lost" if lost == 1 else "are lost"
        return f"and {plural(lost, 'watch')} {now if ledger.lost else 'will be lost'}", "lost"
    if dropped:
        return f"and KVMGT {'drops' if ledger.dropped else 'will drop'} {plural(dropped, 'watch')}", "lost"
    stay = ledger.count("held", "tracker")  # shadow paging's go back with the zap
    if moment.kvm.profile.move_keeps_arch_metadata and stay:
        return f"and {plural(stay, 'watch')} will stand for other pages", "lost"
    return "and no watch is lost", "ink_2"


def _done(op: OpDetail, command: Command) -> Verdict:
    if any(isinstance(event, VmBugged) for event in op.step.events):
        return Verdict("lost", "", "The VM is marked dead", "KVM found a bug of its own", "lost")
    title, subtitle = _what_was_done(op, command)
    if any(isinstance(event, KernelWarned) for event in op.step.events):
        return Verdict("lost", "", title, "and the kernel warned", "lost")
    return Verdict("check", "", title, subtitle, "ink_2")


def _what_was_done(op: OpDetail, command: Command) -> tuple[str, str]:
    events = op.step.events
    match command:
        case ShadowTables():
            made = sum(isinstance(event, ShadowTableShadowed) for event in events)
            watched = sum(isinstance(event, WriteTracked) for event in events)
            if made:
                return "Page tables shadowed", f"{plural(watched, 'watch')} more"
            return (
                "Nothing is shadowed",
                "with TDP there is no need" if op.before.config.tdp else "nothing new to shadow",
            )
        case AttachTracker():
            return ("KVMGT attached" if command.kind == "kvmgt" else "Tracker attached"), "KVM calls it from now on"
        case DetachTracker():
            return _detached(op, command)
        case TrackGfn():
            up = next((event for event in events if isinstance(event, WriteTracked)), None)
            if up is None:
                return "Nothing was asked of KVM", "KVMGT believes it watches the page"
            return "Page watched", f"gfn {hex_text(up.gfn)} has count {up.count}"
        case UntrackGfn():
            down = next((event for event in events if isinstance(event, WriteUntracked)), None)
            if down is None:
                return "No watch was taken back", "KVM held none for this page"
            return "Watch taken back", f"gfn {hex_text(down.gfn)} has count {down.count}"
        case SubmitWorkload():
            again = sum(isinstance(event, GpuEntryShadowed) for event in events)
            return "Work submitted to the vGPU", f"entries shadowed first: {again}"
        case GuestWrite():
            served = next((event for event in events if isinstance(event, GuestWriteServed)), None)
            return _SERVED[served.outcome if served is not None else "retry"]
        case GuestRead():
            got = next((event for event in events if isinstance(event, GuestReadServed)), None)
            return _READ[got.outcome if got is not None else "retry"]
        case SetVcpuMode():
            return "vCPU mode set", command.mode
        case HostTouch() | BuildPageTables():
            return "VMM wrote its memory", "no call into KVM"
        case GetDirtyLog():
            read = next((event for event in events if isinstance(event, DirtyLogRead)), None)
            return "Dirty log read", f"{pages_text(read.count if read is not None else 0)} written"
        case ClearDirtyLog():
            cleared = next((event for event in events if isinstance(event, DirtyLogCleared)), None)
            return "Dirty log cleared", f"{pages_text(cleared.count if cleared is not None else 0)}"
        case EnableCap():
            names = {KVM_CAP_DISABLE_QUIRKS2: "Quirk disabled", KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2: "Dirty log set up"}
            return names.get(command.cap, "Interrupt chip split"), f"argument {hex_text(command.arg)}"
        case ReadTrackerLog():
            return "Tracker’s log read", "and emptied"
        case SetTssAddr():
            return "TSS address set", hex_text(command.addr)
        case SetIdentityMapAddr():
            return "Identity map address set", hex_text(command.addr)
        case CreateIrqchip():
            return "Interrupt chip made", ""
        case CreateVcpu():
            return "vCPU made", f"number {command.id}"
        case CreateGuestMemfd():
            return "guest_memfd made", f"descriptor {command.fd}"
        case Begin():
            return "Region call begun", "it waits before its first step"
        case Advance():
            return "One step further", "inside the region call"
        case SetMemoryRegion():
            raise AssertionError("a region call has a verdict of its own")
        case _:
            assert_never(command)


def _detached(op: OpDetail, command: DetachTracker) -> tuple[str, str]:
    known = op.before.trackers.get(command.user)
    if known is None or not known.attached:
        return "Nothing to detach", "no such tracker is attached"
    if isinstance(known, Kvmgt):
        back = sum(isinstance(event, WriteUntracked) for event in op.step.events)
        return "KVMGT detached", f"{plural(back, 'watch')} given back"
    return "Tracker detached", "what it asked for stays"
