"""The sentences of a region call, one pair for each step inside it.

The rule is that of `sentences`: each is made from what the engine did, not from what was asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from explorer.engine.events import (
    ArrayAllocated,
    ChangeClassified,
    TrackerForgot,
    TrackerNotified,
)
from explorer.engine.mmu import zaps_all
from explorer.engine.uapi import (
    KVM_X86_DEFAULT_VM,
    KvmMrChange,
)
from explorer.explain.answer_sentences import refused, returned, what_goes
from explorer.explain.ledger import ledger_of
from explorer.explain.sentence import Sentences
from explorer.explain.sources import is_older
from explorer.explain.words import hex_text, plural, size_text

if TYPE_CHECKING:
    from explorer.engine.state import Kvm
    from explorer.history.moment import Moment

__all__ = ["has_slot_arrays", "region_sentences"]


# -- region calls ----------------------------------------------------------------------------------


def region_sentences(moment: Moment) -> Sentences:
    """Return the sentences of a step of a region call."""
    op, call = moment.op, moment.call
    assert op is not None, "a region call is an operation"
    assert call is not None, "a region call has arguments"
    cell = op.cells[moment.stop.cell]
    word = cell.word
    if cell.refused:
        return refused(moment)
    if word == "return":
        return returned(moment)
    slot = f"slot {call.slot}"
    match word:
        case "check":
            return Sentences(
                f"KVM checks what it was asked: {_asked(moment)}",
                f"`kvm_set_memory_region()` found no argument wrong and called it {_kind(moment)}: {_reason(moment)}.",
                "kvm_set_memory_region",
            )
        case "copy":
            what = "every slot of the space" if has_slot_arrays(moment) else "the slot"
            return Sentences(
                f"KVM makes a copy of {slot} and marks the copy INVALID. Nobody sees it yet.",
                f"`kvm_copy_memslot()` copies {what}, pointers and all: the copy shares the old arrays and bitmap.",
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
                "`kvm_activate_memslot()` publishes the untouched old object again; then the INVALID copy is freed.",
                "kvm_activate_memslot",
            )
        case _:
            return _commit(moment)


def has_slot_arrays(moment: Moment) -> bool:
    """Return whether the kernel keeps all slots of a space in one array, which every update copies."""
    return is_older(moment.kvm.profile, "v5.17")


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
            return f"a new slot {call.slot} of {where}."


def _kind(moment: Moment) -> str:
    return {
        KvmMrChange.CREATE: "a CREATE",
        KvmMrChange.DELETE: "a DELETE",
        KvmMrChange.MOVE: "a MOVE",
        KvmMrChange.FLAGS_ONLY: "a flags change",
        KvmMrChange.NOOP: "no change",
        None: "unclear",
    }[moment.change]


def _reason(moment: Moment) -> str:
    return next((event.reason for event in moment.events if isinstance(event, ChangeClassified)), "")


def _stage(moment: Moment, function: str) -> Sentences:
    call = moment.call
    assert call is not None, "a stage is inside a region call"
    arrays = has_slot_arrays(moment)
    if function == "kvm_replace_memslot":
        developer = "`kvm_replace_memslot()` edits the inactive set only; the active one still holds the old object, for a roll-back."
        if arrays:
            developer = "Only the copied array is edited, by `kvm_replace_memslot()`; the active one still holds the old slot, for a roll-back."
        return Sentences(
            "The INVALID copy takes the old slot’s place in the set that no reader uses.", developer, function
        )
    what = {
        KvmMrChange.CREATE: "The new slot goes",
        KvmMrChange.DELETE: "The slot is taken out of",
        KvmMrChange.MOVE: "The slot at its new place goes",
    }.get(moment.change or KvmMrChange.FLAGS_ONLY, "The slot with its new flags goes")
    into = "" if moment.change is KvmMrChange.DELETE else "into "
    return Sentences(
        f"{what} {into}the set that no reader uses.",
        f"`{function}()` edits the array that no reader sees."
        if arrays
        else f"`{function}()` calls `kvm_replace_memslot()` on the inactive set.",
        function,
    )


def _swap(moment: Moment) -> Sentences:
    call = moment.call
    assert call is not None, "a swap is inside a region call"
    seen = moment.kvm.slot(call.slot, call.as_id) if call.as_id < len(moment.kvm.memslots) else None
    if seen is not None and seen.invalid:
        return Sentences(
            f"Now every reader sees slot {call.slot} as INVALID: a guest access that faults there tries again until the update is over.",
            "`kvm_swap_active_memslots()` published the set with the INVALID copy and waited for every reader of the other one.",
            "kvm_swap_active_memslots",
        )
    words = "no longer finds the slot" if seen is None else f"sees slot {call.slot} at {hex_text(seen.base_gfn << 12)}"
    return Sentences(
        f"KVM switches the two sets. From here on every reader {words}.",
        "`kvm_swap_active_memslots()` published the edited array and waited for the readers of the other one."
        if has_slot_arrays(moment)
        else "`kvm_swap_active_memslots()` published the edited set, waited for readers, and `kvm_replace_memslot()` made the other set equal.",
        "kvm_activate_memslot",
    )


def _zap(moment: Moment) -> Sentences:
    events = moment.op.cells[moment.stop.cell].events if moment.op is not None else ()
    ledger, profile = ledger_of(moment), moment.kvm.profile
    own = ledger.count("released", "shadow paging") if ledger is not None else 0
    told = any(isinstance(e, TrackerNotified) for e in events)
    forgot = sum(len(e.gfns) for e in events if isinstance(e, TrackerForgot))
    newcomer = f"KVM throws away {what_goes(moment)}"
    if own:
        newcomer += f"; {plural(own, 'watch')} of shadow paging {'is' if own == 1 else 'are'} released with them"
    newcomer += "."
    if told:
        who = (
            f"KVMGT was told first and dropped its {plural(forgot, 'watch')}"
            if forgot
            else "The tracker was told first"
        )
        newcomer += f" {who}, before it is known whether the call succeeds."
    if profile.kvm_is_a_track_notifier:
        developer = "`kvm_arch_flush_shadow_memslot()` runs the `track_flush_slot` callback of every tracker, KVM’s own last: that one is `kvm_mmu_invalidate_zap_pages_in_memslot()`, and calls `kvm_mmu_zap_all_fast()`."
    elif not zaps_all(moment.kvm) and not profile.quirk_off_zaps_shadow_pages:
        developer = f"{_why_not_all(moment.kvm)}, `kvm_arch_flush_shadow_memslot()` zaps the leaf mappings of the slot and nothing else: shadow pages of guest tables that lie in it survive, and their counts stay in arrays A."
    elif not zaps_all(moment.kvm):
        developer = f"{_why_not_all(moment.kvm)}, `kvm_arch_flush_shadow_memslot()` ends in `kvm_mmu_zap_memslot_pages_and_flush()`: the leaf mappings of the slot, and the shadow pages of guest tables that lie in it."
    else:
        developer = (
            "`kvm_arch_flush_shadow_memslot()` calls `kvm_mmu_zap_all_fast()`."
            if is_older(profile, "v7.3")
            else "`kvm_arch_flush_shadow_memslot()` runs both halves of `kvm_mmu_zap_all_fast()`, the first under mmu_lock."
        )
    if own:
        developer += (
            " Each shadow page is un-accounted from the arrays it was counted in, which the INVALID slot still shares."
        )
    if forgot:
        developer += f" `kvmgt_page_track_flush_slot()` took {plural(forgot, 'page')} out of KVMGT’s own table and left its `tracked` flags as they were."
    return Sentences(newcomer, developer, "kvm_arch_flush_shadow_memslot")


_ARRAY_NAMES = {"rmap": "rmap", "lpage_info": "lpage_info", "gfn_write_track": "the write-track counts"}


def _why_not_all(kvm: Kvm) -> str:
    """Return why a zap takes no more than the slot: `kvm_memslot_flush_zap_all()`, from 6.12 on."""
    if kvm.config.vm_type != KVM_X86_DEFAULT_VM:
        return "In a VM of another type than the plain one"
    return "With KVM_X86_QUIRK_SLOT_ZAP_ALL off"


def _new_arrays(moment: Moment) -> str:
    """List the arrays this step allocated, such as ``rmap, lpage_info and the write-track counts``."""
    events = moment.op.cells[moment.stop.cell].events if moment.op is not None else ()
    names = [_ARRAY_NAMES[e.kind] for e in events if isinstance(e, ArrayAllocated) and e.kind in _ARRAY_NAMES]
    return " and ".join([part for part in (", ".join(names[:-1]), *names[-1:]) if part])


def _prepare(moment: Moment) -> Sentences:
    change, arrays = moment.change, has_slot_arrays(moment)
    if change is KvmMrChange.MOVE:
        return _prepare_move(moment)
    if change is KvmMrChange.FLAGS_ONLY:
        where = "kvm_set_memory_region" if arrays else "kvm_arch_prepare_memory_region"
        return Sentences(
            "The slot keeps all its lists; only a dirty bitmap comes or goes.",
            f"`{where}()` copies `old->arch`: the same arrays, and no INVALID phase.",
            where,
        )
    if change is KvmMrChange.DELETE:
        return Sentences(
            "There is nothing to prepare for a slot that goes.",
            "`kvm_arch_prepare_memory_region()` does nothing for a DELETE; from here on it cannot fail.",
            "kvm_arch_prepare_memory_region",
        )
    return Sentences(
        "The new slot gets its lists, with marks where huge pages can never fit; no page is watched yet.",
        f"`kvm_alloc_memslot_metadata()` allocates {_new_arrays(moment)}.",
        "kvm_alloc_memslot_metadata",
    )


def _prepare_move(moment: Moment) -> Sentences:
    if moment.kvm.profile.move_keeps_arch_metadata:
        return Sentences(
            "The slot keeps its old lists, although they were made for the old place.",
            "Before 5.7 a MOVE takes rmap, lpage_info and gfn_track over by pointer, as `kvm_set_memory_region()` copied them; their length and marks belong to the old base.",
            "kvm_set_memory_region",
        )
    ledger = ledger_of(moment)
    will = ledger.will_be_lost if ledger is not None else 0
    tail = (
        f" {plural(will, 'watch')} of {ledger.losers} stay{'s' if will == 1 else ''} behind and will be thrown away."
        if ledger is not None and will
        else ""
    )
    return Sentences(
        "The slot is being rebuilt for its new place with new lists: no page of it is watched." + tail,
        f"`kvm_alloc_memslot_metadata()` zeroes `new->arch` and allocates {_new_arrays(moment)}: arrays B. Arrays A still belong to old, are shared by INVALID, and are freed in the commit.",
        "kvm_alloc_memslot_metadata",
    )


def _commit(moment: Moment) -> Sentences:
    match moment.change:
        case KvmMrChange.MOVE:
            return _commit_move(moment)
        case KvmMrChange.DELETE:
            late_hook = moment.kvm.profile.region_hook == "track_remove_region"
            told = late_hook and any(isinstance(e, TrackerNotified) for e in moment.events)
            account = "" if has_slot_arrays(moment) else "takes the pages off `nr_memslot_pages`, "
            hooks = "`kvm_page_track_delete_slot()` runs `track_remove_region` of every tracker, " if late_hook else ""
            return Sentences(
                "The slot is gone for good; its lists are freed." + (" The tracker is told now." if told else ""),
                f"`kvm_commit_memory_region()` {account or 'runs, '}{hooks}and `kvm_free_memslot()` frees bitmap and arrays.",
                "kvm_commit_memory_region",
            )
        case KvmMrChange.FLAGS_ONLY:
            return Sentences(
                "The old slot object is freed; its lists live on in the new one.",
                "A dirty bitmap that is no longer used is freed, and the old object without its arrays. `kvm_mmu_slot_apply_flags()` arms the mappings if logging came on, and lets huge pages come back if it went off.",
                "kvm_commit_memory_region",
            )
        case _ if has_slot_arrays(moment):
            return Sentences(
                "The new slot is complete.",
                "`kvm_commit_memory_region()` computes anew how many shadow pages the VM may have.",
                "kvm_commit_memory_region",
            )
        case _:
            return Sentences(
                "The pages are added to the VM’s account.",
                "`kvm_commit_memory_region()` adds to `nr_memslot_pages`.",
                "kvm_commit_memory_region",
            )


def _commit_move(moment: Moment) -> Sentences:
    ledger = ledger_of(moment)
    if moment.kvm.profile.move_keeps_arch_metadata:
        return Sentences(
            "The old slot object is gone; its lists live on at the new place.",
            "`kvm_free_memslot()` frees an array only where old and new point to different ones: for a MOVE, none.",
            "kvm_free_memslot",
        )
    lost = ledger.lost if ledger is not None else 0
    tail = f" {plural(lost, 'watch')} went with them." if lost else " No watch was left in them."
    return Sentences(
        "Nobody can reach the old lists any more, so they are freed." + tail,
        "`kvm_arch_free_memslot(old)` frees arrays A in `kvm_arch_commit_memory_region()`, whatever their counts say.",
        "kvm_arch_commit_memory_region",
    )
