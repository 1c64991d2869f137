"""Properties of one step: what must hold between a state and the one a command makes of it. Found by `invariants`.

Rule: a function here gets the state before, the command and its `Step`, and yields every place where the step
breaks its property; its docstring is the property.

Not modelled: swaps by calls that KVM makes itself for slots of its own. Read next: `invariants`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from explorer.engine.commands import SetMemoryRegion
from explorer.engine.guards import ladder_for
from explorer.engine.lookup import slots_in_gfn_range
from explorer.engine.slot_properties import counts_of, first_gfn_of, published, right_marks
from explorer.engine.spte import as_id_of_owner, sptes_of_gfn
from explorer.engine.state import DirtyBitmap
from explorer.engine.tracking_properties import shadow_pages_at
from explorer.engine.types import PG_LEVEL_4K, Gfn, Level, gfn_to_index, pages_per_hpage
from explorer.engine.uapi import KvmMrChange

if TYPE_CHECKING:
    from collections import Counter

    from explorer.engine.apply import Step
    from explorer.engine.commands import Command
    from explorer.engine.slot_properties import Found
    from explorer.engine.state import Kvm, KvmMemorySlot

__all__ = [
    "losses_of_a_refusal",
    "moves_beside_a_tracker",
    "new_huge_sptes",
    "newly_writable_for_the_other_space",
    "swaps",
]

_SWAPS = {
    KvmMrChange.CREATE: 1,
    KvmMrChange.DELETE: 2,
    KvmMrChange.MOVE: 2,
    KvmMrChange.FLAGS_ONLY: 1,
    KvmMrChange.NOOP: 0,
}


def swaps(before: Kvm, command: Command, step: Step) -> Found:
    """Each kind of call swaps the sets as often as its table says; a refusal after the zap as often as a MOVE."""
    if not isinstance(command, SetMemoryRegion):
        return
    per_swap = len(before.memslots) * before.profile.generation_step_factor
    for as_id, (one, two) in enumerate(zip(before.memslots, step.kvm.memslots, strict=True)):
        wanted = _wanted_swaps(before, command, step) if as_id == command.as_id else 0
        advanced = two.active.generation - one.active.generation
        if advanced != wanted * per_swap:
            yield as_id, None, None, f"generation {wanted * per_swap} further", advanced
        if (one.active_idx + wanted) % 2 != two.active_idx:
            yield as_id, None, None, f"{wanted} swaps", f"set {two.active_idx} active after set {one.active_idx}"


def _wanted_swaps(before: Kvm, command: SetMemoryRegion, step: Step) -> int:
    if step.change is None:
        return 0
    if step.errno is None:
        return _SWAPS[step.change]
    ladder = ladder_for(before.profile, command)
    late = ladder.prepare_move + (() if before.profile.dirty_bitmap_allocated_first else ladder.bitmap)
    too_late = step.change is KvmMrChange.MOVE and step.refused_by in late
    return _SWAPS[KvmMrChange.MOVE] if too_late else 0


def newly_writable_for_the_other_space(before: Kvm, _command: Command, step: Step) -> Found:
    """No small entry of one address space becomes writable for a gfn that is tracked in the other."""
    after = step.kvm
    if after.sptes is before.sptes:
        return
    tracked = [_tracked(before, as_id) for as_id in range(len(before.memslots))]
    for slot in published(after):
        for gfn in counts_of(after, slot).keys() & tracked[slot.as_id]:
            for as_id in range(len(after.memslots)):
                if as_id == slot.as_id:
                    continue
                could = {key[0] for key, spte in sptes_of_gfn(before, as_id, gfn) if spte.writable}
                for key, spte in sptes_of_gfn(after, as_id, gfn):
                    if spte.level == PG_LEVEL_4K and spte.writable and key[0] not in could:
                        yield as_id, slot.id, gfn, "read-only", "writable"


def _tracked(kvm: Kvm, as_id: int) -> set[int]:
    return {gfn for slot in kvm.slots(as_id) for gfn in counts_of(kvm, slot)}


def new_huge_sptes(before: Kvm, _command: Command, step: Step) -> Found:
    """No huge entry is made over a frame that holds a tracked page or a last-level table, or juts out of its slot."""
    after = step.kvm
    if after.sptes is before.sptes:
        return
    leaves = shadow_pages_at(after, upper=False)
    for key, spte in after.sptes.entries.items():
        known, as_id = before.sptes.entries.get(key), as_id_of_owner(after, key[0])
        if spte.level == PG_LEVEL_4K or as_id is None or (known is not None and known.level == spte.level):
            continue
        level = Level(spte.level)
        end = spte.gfn + pages_per_hpage(level)
        for slot in slots_in_gfn_range(after.active(as_id), spte.gfn, end):
            index = gfn_to_index(Gfn(max(spte.gfn, slot.base_gfn)), slot.base_gfn, level)
            if right_marks(slot, level).mark(index):
                yield as_id, slot.id, first_gfn_of(slot, index, level), "no huge entry", "one that juts out"
            for held, gfns in (("a tracked page", counts_of(after, slot)), ("a last-level table", leaves[as_id])):
                for gfn in sorted(gfn for gfn in gfns if spte.gfn <= gfn < end):
                    yield as_id, slot.id, gfn, "no huge entry", f"one over {held}"


def losses_of_a_refusal(before: Kvm, command: Command, step: Step) -> Found:
    """Slots, marks, dirty bits and what external trackers added are as before a refused call."""
    if not isinstance(command, SetMemoryRegion) or step.errno is None:
        return
    after = step.kvm
    if (before.nr_memslot_pages, before.nr_memslots_dirty_logging) != (
        after.nr_memslot_pages,
        after.nr_memslots_dirty_logging,
    ):
        yield None, None, None, f"{before.nr_memslot_pages} pages", after.nr_memslot_pages
    for as_id in range(len(before.memslots)):
        one, two = before.active(as_id).id_hash, after.active(as_id).id_hash
        for slot_id in sorted({*one, *two}):
            old, new = one.get(slot_id), two.get(slot_id)
            if old != new or old is None:
                yield as_id, slot_id, None, str(old), str(new)
                continue
            asked, kept = _external(before, old), _external(after, old)
            for gfn in sorted(asked.keys() | kept.keys()):
                if asked[gfn] != kept[gfn]:
                    yield as_id, slot_id, gfn, asked[gfn], kept[gfn]
            if _dirty(before, old) != _dirty(after, old):
                yield as_id, slot_id, None, "the dirty bits there were", "others"


def _external(kvm: Kvm, slot: KvmMemorySlot) -> Counter[int]:
    """Return what of a slot's counts is not shadow paging's."""
    counts = counts_of(kvm, slot)
    counts.subtract({g: n for g, n in shadow_pages_at(kvm, upper=True)[slot.as_id].items() if g in counts})
    return counts


def _dirty(kvm: Kvm, slot: KvmMemorySlot) -> DirtyBitmap | None:
    bitmap = None if slot.dirty_bitmap is None else kvm.heap.get(slot.dirty_bitmap)
    return bitmap if isinstance(bitmap, DirtyBitmap) else None


def moves_beside_a_tracker(before: Kvm, _command: Command, step: Step) -> Found:
    """While an external tracker is registered every MOVE fails."""
    returned = step.change is KvmMrChange.MOVE and step.kvm.pending is None
    if returned and step.errno is None and before.track_notifiers:
        yield None, None, None, "EINVAL", "success"
