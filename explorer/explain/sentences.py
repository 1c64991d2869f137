"""One sentence for a newcomer and one for a KVM developer, for every moment of every operation.

Rule: a sentence is made from engine facts. A template that speaks of a count takes the count as an
argument; a template that holds in some profiles asks the profile's behaviour.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, assert_never

from explorer.engine.commands import (
    Advance,
    AttachTracker,
    Begin,
    ClearDirtyLog,
    CreateIrqchip,
    CreateVcpu,
    DetachTracker,
    EnableCap,
    GetDirtyLog,
    GuestWrite,
    ReadTrackerLog,
    SetIdentityMapAddr,
    SetMemoryRegion,
    SetTssAddr,
    ShadowTables,
    TrackGfn,
    UntrackGfn,
)
from explorer.engine.events import (
    ChangeClassified,
    DirtyLogRead,
    GuestWriteServed,
    KernelWarned,
    ShadowTableShadowed,
    TrackerForgot,
    TrackerNotified,
)
from explorer.engine.mmu import zaps_all
from explorer.engine.uapi import KvmMrChange
from explorer.explain.ledger import ledger_of
from explorer.explain.words import hex_text, pages_text, plural, size_text

if TYPE_CHECKING:
    from explorer.engine.commands import Command
    from explorer.history.moment import Moment

__all__ = ["Sentences", "op_words", "sentences_of"]


class Sentences(NamedTuple):
    """What a moment means."""

    newcomer: str
    developer: str
    """May name kernel functions, in backquotes."""
    function: str
    """Kernel function the developer's sentence is about; empty if there is none."""


def sentences_of(moment: Moment) -> Sentences:
    """Return the sentences of a moment."""
    op = moment.op
    if op is None:
        return Sentences(
            "A new VM has no memory yet.", "`kvm_create_vm()` made two empty memslot sets for each address space.", ""
        )
    if moment.call is not None:
        return _region(moment)
    return _other(moment, op.command)


# -- region calls ----------------------------------------------------------------------------------


def _region(moment: Moment) -> Sentences:
    op, call = moment.op, moment.call
    assert op is not None, "a region call is an operation"
    assert call is not None, "a region call has arguments"
    cell = op.cells[moment.stop.cell]
    word = cell.word
    if cell.refused:
        return _refused(moment)
    if word == "return":
        return _returned(moment)
    slot = f"slot {call.slot}"
    match word:
        case "check":
            return Sentences(
                f"KVM checks what it was asked: {_asked(moment)}",
                f"`kvm_set_memory_region()` found no argument wrong and called it {_kind(moment)}: {_reason(moment)}.",
                "kvm_set_memory_region",
            )
        case "copy":
            return Sentences(
                f"KVM makes a copy of {slot} and marks the copy INVALID. Nobody sees it yet.",
                "`kvm_copy_memslot()` copies the slot, pointers and all: the copy shares the old arrays and bitmap.",
                "kvm_copy_memslot",
            )
        case "stage":
            return _stage(moment, cell.function)
        case "swap":
            return _swap(moment)
        case "zap":
            return _zap(moment)
        case "allocate" | "prepare":
            return _prepare(moment)
        case "roll back":
            return Sentences(
                f"KVM puts {slot} back where it was. What it threw away on the way stays thrown away.",
                "`kvm_activate_memslot()` publishes the untouched old object again and frees the INVALID copy.",
                "kvm_activate_memslot",
            )
        case _:
            return _commit(moment)


def _asked(moment: Moment) -> str:
    call = moment.call
    assert call is not None, "only a region call asks for something"
    where = f"{size_text(call.memory_size)} at {hex_text(call.guest_phys_addr)}"
    match moment.change:
        case KvmMrChange.DELETE:
            return f"take slot {call.slot} away."
        case KvmMrChange.MOVE:
            old = moment.old
            return f"move slot {call.slot} from {hex_text((old.base_gfn if old else 0) << 12)} to {hex_text(call.guest_phys_addr)}."
        case KvmMrChange.FLAGS_ONLY:
            return f"change the flags of slot {call.slot}."
        case KvmMrChange.NOOP:
            return f"slot {call.slot}, exactly as it is."
        case _:
            return f"a slot {call.slot} of {where}."


def _kind(moment: Moment) -> str:
    return {
        KvmMrChange.CREATE: "a CREATE",
        KvmMrChange.DELETE: "a DELETE",
        KvmMrChange.MOVE: "a MOVE",
        KvmMrChange.FLAGS_ONLY: "a flags change",
        KvmMrChange.NOOP: "nothing to do",
        None: "unclear",
    }[moment.change]


def _reason(moment: Moment) -> str:
    return next((event.reason for event in moment.events if isinstance(event, ChangeClassified)), "")


def _stage(moment: Moment, function: str) -> Sentences:
    call = moment.call
    assert call is not None, "a stage is inside a region call"
    if function == "kvm_replace_memslot":
        return Sentences(
            "The INVALID copy takes the old slot’s place in the set that no reader uses.",
            "`kvm_replace_memslot()` edits the inactive set only; the active one still holds the old object, for a roll-back.",
            function,
        )
    what = {
        KvmMrChange.CREATE: "The new slot goes",
        KvmMrChange.DELETE: "The slot is taken out of",
        KvmMrChange.MOVE: "The slot at its new place goes",
    }.get(moment.change or KvmMrChange.FLAGS_ONLY, "The slot with its new flags goes")
    into = "" if moment.change is KvmMrChange.DELETE else "into "
    return Sentences(
        f"{what} {into}the set that no reader uses.",
        f"`{function}()` calls `kvm_replace_memslot()` on the inactive set.",
        function,
    )


def _swap(moment: Moment) -> Sentences:
    call = moment.call
    assert call is not None, "a swap is inside a region call"
    seen = moment.kvm.slot(call.slot, call.as_id) if call.as_id < len(moment.kvm.memslots) else None
    if seen is not None and seen.invalid:
        return Sentences(
            f"Now every reader sees slot {call.slot} as INVALID: a guest access to it waits and tries again.",
            "`kvm_swap_active_memslots()` published the set with the INVALID copy and waited for every reader of the other one.",
            "kvm_swap_active_memslots",
        )
    words = "no longer finds the slot" if seen is None else f"sees slot {call.slot} at {hex_text(seen.base_gfn << 12)}"
    return Sentences(
        f"KVM switches the two sets. From here on every reader {words}.",
        "`kvm_swap_active_memslots()` published the edited set, waited for readers, and `kvm_replace_memslot()` made the other set equal.",
        "kvm_activate_memslot",
    )


def _zap(moment: Moment) -> Sentences:
    events = moment.op.cells[moment.stop.cell].events if moment.op is not None else ()
    ledger = ledger_of(moment)
    returned = ledger.returned if ledger is not None else 0
    told = [e for e in events if isinstance(e, TrackerNotified)]
    forgot = sum(len(e.gfns) for e in events if isinstance(e, TrackerForgot))
    everything = moment.kvm.profile.kvm_is_a_track_notifier or zaps_all(moment.kvm)
    newcomer = (
        "KVM throws away every mapping of the VM" if everything else "KVM throws away the mappings of this slot only"
    )
    if returned:
        newcomer += (
            f"; {plural(returned, 'watch')} of this slot {'is' if returned == 1 else 'are'} taken back with them"
        )
    newcomer += "."
    if told:
        newcomer += " The tracker is told before it is known whether the call succeeds."
    function = "kvm_mmu_zap_all_fast" if everything else "kvm_mmu_zap_memslot"
    developer = f"`kvm_arch_flush_shadow_memslot()` runs `{function}()`: each shadow page is un-accounted from the arrays it was counted in, which the INVALID slot still shares."
    if forgot:
        developer += (
            f" KVMGT’s `track_flush_slot` callback ran first and dropped {plural(forgot, 'page')} from its own table."
        )
    return Sentences(newcomer, developer, "kvm_arch_flush_shadow_memslot")


def _prepare(moment: Moment) -> Sentences:
    change = moment.change
    if change is KvmMrChange.MOVE:
        if moment.kvm.profile.move_keeps_arch_metadata:
            return Sentences(
                "The slot keeps its old lists, although they were made for the old place.",
                "Before 5.7 a MOVE inherited rmap, lpage_info and gfn_track by pointer; their length and marks belong to the old base.",
                "kvm_arch_prepare_memory_region",
            )
        ledger = ledger_of(moment)
        will = ledger.will_be_lost if ledger is not None else 0
        tail = (
            f" {plural(will, 'watch')} of the external tracker stay{'s' if will == 1 else ''} behind and will be thrown away."
            if will
            else ""
        )
        return Sentences(
            "The slot is being rebuilt at its new place with an empty watch list." + tail,
            "`kvm_alloc_memslot_metadata()` zeroes `new->arch` and allocates arrays B. Arrays A still belong to old, are shared by INVALID, and are freed after the commit.",
            "kvm_alloc_memslot_metadata",
        )
    if change is KvmMrChange.FLAGS_ONLY:
        return Sentences(
            "The slot keeps all its lists; only a dirty bitmap comes or goes.",
            "`kvm_arch_prepare_memory_region()` copies `old->arch`: the same arrays, no zap, no INVALID phase.",
            "kvm_arch_prepare_memory_region",
        )
    if change is KvmMrChange.DELETE:
        return Sentences(
            "There is nothing to prepare for a slot that goes.",
            "`kvm_arch_prepare_memory_region()` does nothing for a DELETE; from here on it cannot fail.",
            "kvm_prepare_memory_region",
        )
    return Sentences(
        "The new slot gets its lists: watches at zero, and marks where huge pages can never fit.",
        "`kvm_alloc_memslot_metadata()` allocates rmap and lpage_info, and counts if write tracking is enabled.",
        "kvm_alloc_memslot_metadata",
    )


def _commit(moment: Moment) -> Sentences:
    ledger = ledger_of(moment)
    lost = ledger.lost if ledger is not None else 0
    match moment.change:
        case KvmMrChange.MOVE:
            tail = f" {plural(lost, 'watch')} went with them." if lost else " No watch was left in them."
            return Sentences(
                "Nobody can reach the old lists any more, so they are freed." + tail,
                "`kvm_arch_free_memslot(old)` frees arrays A in `kvm_arch_commit_memory_region()`, whatever their counts say.",
                "kvm_arch_commit_memory_region",
            )
        case KvmMrChange.DELETE:
            told = any(isinstance(e, TrackerNotified) for e in moment.events)
            return Sentences(
                "The slot is gone for good; its lists are freed."
                + (
                    " The tracker is told now."
                    if told and moment.kvm.profile.region_hook == "track_remove_region"
                    else ""
                ),
                "`kvm_commit_memory_region()` takes the pages off the VM’s account, runs `track_remove_region` of every tracker, and frees bitmap and arrays.",
                "kvm_commit_memory_region",
            )
        case KvmMrChange.FLAGS_ONLY:
            return Sentences(
                "The old slot object is freed; its lists live on in the new one.",
                "`kvm_commit_memory_region()` frees a bitmap that is no longer used, then the old object without its arrays.",
                "kvm_commit_memory_region",
            )
        case _:
            return Sentences(
                "The pages are added to the VM’s account.",
                "`kvm_commit_memory_region()` adds to `nr_memslot_pages`.",
                "kvm_commit_memory_region",
            )


def _refused(moment: Moment) -> Sentences:
    op = moment.op
    assert op is not None, "a refusal is inside an operation"
    guard = op.step.refused_by
    assert guard is not None, "a refused step names its check"
    operands = next((r.operands for r in op.step.results if r.guard is guard), "")
    late = any(cell.word == "zap" for cell in op.cells[: moment.stop.cell])
    if guard.name == "external_user":
        newcomer = (
            "KVM said no only after it had hidden the slot from every reader and thrown away every mapping of the VM."
            if not moment.kvm.profile.has_external_user_inverted
            else "KVM said no because nobody watches from outside: the test is upside down."
        )
        developer = (
            "A page tracker is attached, so `kvm_page_track_has_external_user()` is true. It is the first question of this step; the steps before it had already run."
            if not moment.kvm.profile.has_external_user_inverted
            else "As posted, `kvm_page_track_has_external_user()` asks whether the list is empty, and it is."
        )
        return Sentences(newcomer, developer, guard.function)
    if guard.name == "overlap":
        return Sentences(
            "Another slot is in the way. Slots of one address space may not overlap.",
            f"`kvm_check_memslot_overlap()`: {operands}. Nothing was touched yet.",
            guard.function,
        )
    newcomer = (
        f"KVM said no: {guard.title} was asked, and it is not so."
        if not late
        else f"KVM said no, after it had hidden the slot and zapped its mappings: {guard.title} was asked, and it is not so."
    )
    return Sentences(newcomer, f"`{guard.function}()`: {operands}.", guard.function)


def _returned(moment: Moment) -> Sentences:
    op, call = moment.op, moment.call
    assert op is not None, "a return ends an operation"
    assert call is not None, "a return ends a region call"
    if op.step.errno is not None:
        return _refused(moment)._replace(function=op.step.refused_by.function if op.step.refused_by else "")
    ledger = ledger_of(moment)
    match moment.change:
        case KvmMrChange.MOVE:
            if ledger is not None and ledger.lost:
                words = f"The slot moved. {plural(ledger.lost, 'watch')} of the external tracker {'was' if ledger.lost == 1 else 'were'} lost on the way."
            elif ledger is not None and ledger.returned:
                words = "The slot moved. Its watches are gone, and on this setup that is harmless: the next fault makes them again."
            else:
                words = "The slot moved. Nobody watched a page of it."
        case KvmMrChange.CREATE:
            words = f"The guest has {size_text(call.memory_size)} more memory, in slot {call.slot}."
        case KvmMrChange.DELETE:
            words = f"Slot {call.slot} is gone. A guest access there now goes to the VMM."
        case KvmMrChange.FLAGS_ONLY:
            words = f"Slot {call.slot} has its new flags."
        case _:
            words = "There was nothing to do: KVM returned before it touched anything."
    return Sentences(
        words, f"The ioctl returns 0; generation is {moment.kvm.active(call.as_id).generation}.", "kvm_vm_ioctl"
    )


# -- everything else -------------------------------------------------------------------------------


def _other(moment: Moment, command: Command) -> Sentences:
    op = moment.op
    assert op is not None, "a moment after a command has an operation"
    if op.step.errno is not None:
        return Sentences(f"Refused: {op.step.errno.name}.", f"The call returned {op.step.errno.name}.", "")
    warned = [event for event in op.step.events if isinstance(event, KernelWarned)]
    if warned:
        return Sentences(
            "The kernel would print a warning here.", f"`{warned[0].function}()`: {warned[0].what}.", warned[0].function
        )
    match command:
        case ShadowTables():
            made = sum(isinstance(event, ShadowTableShadowed) for event in op.step.events)
            if not made:
                return Sentences(
                    "The processor walks the guest’s tables itself, so KVM shadows none.",
                    "With TDP on there is no shadow root, and no internal tracker.",
                    "",
                )
            return Sentences(
                "These pages hold the guest’s own page tables. KVM keeps a shadow of them, so it must see each write.",
                f"`account_shadowed()` ran {made} times: each upper-level table is write-tracked once, the last level only forbids huge pages.",
                "account_shadowed",
            )
        case AttachTracker():
            who = "KVMGT, the virtual GPU," if command.kind == "kvmgt" else "A tracker that only logs its callbacks"
            return Sentences(
                f"{who} is attached. It watches no page yet.",
                "`kvm_page_track_register_notifier()` put it at the head of the list.",
                "kvm_page_track_register_notifier",
            )
        case DetachTracker():
            return Sentences(
                "The tracker is detached.",
                "`kvm_page_track_unregister_notifier()` took it off the list.",
                "kvm_page_track_unregister_notifier",
            )
        case TrackGfn():
            return Sentences(
                f"The tracker asks KVM to catch every guest write to page {hex_text(command.gfn)}.",
                "`kvm_write_track_add_gfn()`: the page’s count goes up, and its frames may not be huge.",
                "kvm_write_track_add_gfn",
            )
        case UntrackGfn():
            return Sentences(
                f"The tracker lets page {hex_text(command.gfn)} go.",
                "`kvm_write_track_remove_gfn()`: the page’s count goes down.",
                "kvm_write_track_remove_gfn",
            )
        case GuestWrite():
            return _guest_write(moment, command)
        case GetDirtyLog():
            read = next((e for e in op.step.events if isinstance(e, DirtyLogRead)), None)
            count = read.count if read is not None else 0
            return Sentences(
                f"The VMM asks which pages were written: {pages_text(count)}.",
                "`kvm_get_dirty_log_protect()` reports, and without manual protection clears.",
                "kvm_get_dirty_log_protect",
            )
        case ClearDirtyLog():
            return Sentences(
                "The VMM says it has seen these pages.",
                "`kvm_clear_dirty_log_protect()` cleared them.",
                "kvm_clear_dirty_log_protect",
            )
        case (
            EnableCap()
            | ReadTrackerLog()
            | SetTssAddr()
            | SetIdentityMapAddr()
            | CreateIrqchip()
            | CreateVcpu()
            | Advance()
            | Begin()
        ):
            return Sentences("The VM is set up further.", "No memslot changed unless the picture shows one.", "")
        case SetMemoryRegion():
            return _region(moment)
        case _:
            assert_never(command)


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
                "The count is 0: a plain mapping serves the write.",
                "",
            )
        case "mmio":
            return Sentences(
                f"The guest writes to {where}, where there is no slot: the VMM must answer.",
                "No slot holds the gfn: an MMIO exit to userspace.",
                "",
            )
        case "read-only":
            return Sentences(
                f"The guest writes to {where}, which is read-only: the VMM must answer.",
                "A write to a READONLY slot exits to userspace.",
                "",
            )
        case _:
            return Sentences(
                f"The guest writes to {where} while the slot is INVALID: it tries again until the update is over.",
                "`kvm_faultin_pfn()` answers RET_PF_RETRY for an INVALID slot.",
                "",
            )


def op_words(command: Command) -> tuple[str, str]:
    """Return an operation's name and detail for the timeline, such as ``("Track", "0xd0010")``."""
    match command:
        case SetMemoryRegion():
            return ("Region", f"slot {command.slot}")
        case AttachTracker():
            return ("Attach", "KVMGT" if command.kind == "kvmgt" else "tracker")
        case DetachTracker():
            return ("Detach", "tracker")
        case TrackGfn():
            return ("Track", hex_text(command.gfn))
        case UntrackGfn():
            return ("Untrack", hex_text(command.gfn))
        case ShadowTables():
            return ("Page tables", hex_text(command.gfn))
        case GuestWrite():
            return ("Write", hex_text(command.gpa))
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
