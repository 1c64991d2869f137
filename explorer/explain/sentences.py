"""One sentence for a newcomer and one for a KVM developer, for every moment of every operation.

Rule: a sentence is made from engine facts. A template that speaks of a count takes the count as an
argument; a template that holds in some profiles asks the profile's behaviour.
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
from explorer.explain.other_sentences import other_sentences
from explorer.explain.region_sentences import has_slot_arrays, region_sentences
from explorer.explain.sentence import Sentences
from explorer.explain.sources import in_words_of, name_in
from explorer.explain.words import hex_text

if TYPE_CHECKING:
    from explorer.engine.commands import Command
    from explorer.history.moment import Moment

__all__ = ["op_words", "sentences_of"]


def sentences_of(moment: Moment) -> Sentences:
    """Return the sentences of a moment, with every function under the name it has in the moment's kernel."""
    found, kernel = _sentences(moment), moment.kvm.profile
    developer = in_words_of(found.developer, kernel)
    if found.function and name_in(found.function, kernel) is None:
        developer += f" {kernel.title[:1].upper()}{kernel.title[1:]} has no such function."
    return found._replace(developer=developer)


def _sentences(moment: Moment) -> Sentences:
    op = moment.op
    if op is None:
        what = "an empty slot array" if has_slot_arrays(moment) else "two empty memslot sets"
        return Sentences(
            "A new VM has no memory yet.", f"`kvm_create_vm()` made {what} for each address space.", "kvm_create_vm"
        )
    if moment.call is not None:
        return region_sentences(moment)
    return other_sentences(moment, op.command)


def op_words(command: Command) -> tuple[str, str]:
    """Return an operation's name and detail for the timeline, such as ``("Track", "0xd0010")``."""
    match command:
        case SetMemoryRegion():
            return ("Region", f"slot {command.slot}")
        case CreateGuestMemfd():
            return ("guest_memfd", f"descriptor {command.fd}")
        case AttachTracker():
            return ("Attach", "KVMGT" if command.kind == "kvmgt" else "tracker")
        case DetachTracker():
            return ("Detach", "tracker")
        case TrackGfn():
            return ("Track", hex_text(command.gfn))
        case UntrackGfn():
            return ("Untrack", hex_text(command.gfn))
        case SubmitWorkload():
            return ("GPU work", f"vGPU {command.user}")
        case ShadowTables():
            return ("Page tables", hex_text(command.gfn))
        case GuestWrite():
            return ("Write", hex_text(command.gpa))
        case GuestRead():
            return ("Read", hex_text(command.gpa))
        case SetVcpuMode():
            return ("vCPU mode", command.mode)
        case HostTouch():
            return ("VMM writes", hex_text(command.hva))
        case BuildPageTables():
            return ("Build tables", hex_text(command.gpa))
        case GetDirtyLog():
            return ("Get log", f"slot {command.slot}")
        case ClearDirtyLog():
            return ("Clear log", f"slot {command.slot}")
        case EnableCap():
            return ("Enable", f"cap {command.cap}")
        case ReadTrackerLog():
            return ("Read log", "tracker")
        case SetTssAddr():
            return ("TSS", hex_text(command.addr))
        case SetIdentityMapAddr():
            return ("Identity map", hex_text(command.addr))
        case CreateIrqchip():
            return ("Irqchip", "")
        case CreateVcpu():
            return ("vCPU", str(command.id))
        case Begin() | Advance():
            return ("Step", "")
        case _:
            assert_never(command)
