"""The write-track arrays of an operation as objects: what is in them, who owns them, how long they live."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from explorer.engine.state import WriteTrack
from explorer.explain.ledger import Watch, ledger_of, watches_of
from explorer.explain.words import count_text, hex_text, plural
from explorer.explain.write_tracking import counts_of_the_vm
from explorer.selectors.hand_off import Lifetime, select_hand_off

if TYPE_CHECKING:
    from explorer.engine.state import KvmMemorySlot
    from explorer.history.moment import Moment

__all__ = ["ArrayPicture", "ArraysView", "select_arrays"]


class ArrayPicture(NamedTuple):
    """One write-track array."""

    name: str
    owner: str
    npages: int
    watches: tuple[Watch, ...]
    base_gfn: int
    state: str
    """``live``, ``fresh``, ``freed``, ``absent`` or ``off`` (there are no counts)."""
    words: str
    """Written in or under it."""
    reason: str = ""
    """Why there are no counts, under it."""


class ArraysView(NamedTuple):
    """Both arrays and the lifetimes of what the operation makes and frees."""

    arrays: tuple[ArrayPicture, ...]
    lifetimes: tuple[Lifetime, ...]
    steps: int
    now: int


def select_arrays(moment: Moment) -> ArraysView | None:
    """Return the arrays at a moment; outside a region call, those of the slot in focus."""
    hand_off = select_hand_off(moment)
    if hand_off is None:
        slot = None
        if moment.focus is not None and moment.focus.as_id < len(moment.kvm.memslots):
            slot = moment.kvm.slot(moment.focus.slot_id, moment.focus.as_id)
        if slot is None:
            return None
        picture = _picture(
            "write_track", f"owner slot {slot.id}", slot, moment, watches_of(moment.kvm, slot), fresh=False
        )
        return ArraysView((picture,), (), 0, 0)
    pictures = []
    old = moment.old
    if old is not None:
        pictures.append(_old_picture(moment, old))
    new = _new_slot(moment)
    shared = new is not None and old is not None and new.arch.gfn_write_track == old.arch.gfn_write_track
    inherits = shared and old is not None and old.arch.gfn_write_track is not None
    if new is not None and not inherits:
        name = "write_track B" if old is not None else "write_track A"
        picture = _picture(name, "owner new", new, moment, watches_of(moment.kvm, new), fresh=True)
        pictures.append(picture._replace(reason="") if pictures else picture)  # it is the first one's, too
    elif old is not None and hand_off.change == "MOVE":
        refused = moment.op is not None and moment.op.step.errno is not None
        words = "never allocated" if refused else "not allocated yet"
        pictures.append(ArrayPicture("write_track B", "", old.npages, (), 0, "absent", words))
    return ArraysView(tuple(pictures), hand_off.lifetimes, hand_off.steps, hand_off.now)


def _new_slot(moment: Moment) -> KvmMemorySlot | None:
    pending = moment.kvm.pending
    if pending is not None:
        return pending.new if pending.new is not None and pending.new.arch.lpage_info is not None else None
    call, op = moment.call, moment.op
    if call is None or op is None or op.step.errno is not None:
        return None
    return moment.kvm.slot(call.slot, call.as_id)


def _old_picture(moment: Moment, old: KvmMemorySlot) -> ArrayPicture:
    ledger = ledger_of(moment)
    watches = ledger.watches if ledger is not None else ()
    array = moment.kvm.heap.get(old.arch.gfn_write_track) if old.arch.gfn_write_track is not None else None
    pending = moment.kvm.pending
    shared = pending is not None and pending.invalid is not None
    owner = "owner old, shared with INVALID" if shared else "owner old"
    state = "live"
    if old.arch.gfn_write_track is None:
        state = "off"
    elif array is None:
        state, owner = "freed", "freed"
    elif moment.at_end and moment.change is not None and moment.change.value == "FLAGS_ONLY":
        owner = "owner new, inherited"
    reason = counts_of_the_vm(moment.kvm).short if state == "off" else ""
    return ArrayPicture(
        "write_track A", owner, old.npages, watches, old.base_gfn, state, _words(watches, state), reason
    )


def _picture(
    name: str, owner: str, slot: KvmMemorySlot, moment: Moment, watches: tuple[Watch, ...], *, fresh: bool
) -> ArrayPicture:
    array = moment.kvm.heap.get(slot.arch.gfn_write_track) if slot.arch.gfn_write_track is not None else None
    if not isinstance(array, WriteTrack):
        reason = counts_of_the_vm(moment.kvm).short
        return ArrayPicture(name, owner, slot.npages, (), slot.base_gfn, "off", _words((), "off"), reason)
    if fresh and not watches:
        return ArrayPicture(
            name, f"{owner}, all zero", slot.npages, (), slot.base_gfn, "fresh", f"{count_text(slot.npages)} × 0"
        )
    return ArrayPicture(name, owner, slot.npages, watches, slot.base_gfn, "live", _words(watches, "live"))


def _words(watches: tuple[Watch, ...], state: str) -> str:
    if state == "off":
        return "no counts: write tracking is off"
    if not watches:
        return "all counts are 0"
    parts = []
    for fate in ("held", "released", "dropped", "lost"):
        mine = [w for w in watches if w.fate == fate]
        if mine:
            pages = sorted({w.gfn for w in mine})
            listed = ", ".join(hex_text(gfn) for gfn in pages[:2]) + (" …" if len(pages) > 2 else "")
            parts.append(f"{plural(len(mine), 'watch')} on {listed}" if fate == "held" else f"{len(mine)} {fate}")
    return "; ".join(parts)
