"""The hand-off: old slot, INVALID copy and new slot field by field, and the arrays with their owners.

Rule: every field has a fate for every kind of change; `fate_of` is total, and a test walks it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple

from explorer.engine.events import ArrayAllocated, ArrayFreed, SlotObjectFreed
from explorer.engine.state import DirtyBitmap, LpageInfo, LpageLevel, RmapArrays, WriteTrack
from explorer.engine.uapi import KVM_MEM_LOG_DIRTY_PAGES, KvmMrChange
from explorer.explain.ledger import ledger_of
from explorer.explain.words import count_text, hex_text, pages_text, plural
from explorer.history.moment import invalidates
from explorer.selectors.style import flags_words

if TYPE_CHECKING:
    from explorer.engine.profile import KernelProfile
    from explorer.engine.region_call import PendingUpdate
    from explorer.engine.state import Kvm, KvmArchMemorySlot, KvmMemorySlot
    from explorer.engine.types import ArrayId
    from explorer.history import OpDetail
    from explorer.history.moment import Moment

__all__ = [
    "FIELDS",
    "Column",
    "FieldRow",
    "HandOffView",
    "Lifetime",
    "Value",
    "fate_of",
    "never_was",
    "select_hand_off",
]

Fate = Literal["kept", "changed", "handed over", "from zero", "freed", "new", "none"]
FieldName = Literal[
    "id, as_id",
    "base_gfn",
    "npages",
    "userspace_addr",
    "flags",
    "dirty_bitmap",
    "arch.rmap",
    "arch.lpage_info",
    "gfn_write_track",
]
FIELDS: tuple[FieldName, ...] = (
    "id, as_id",
    "base_gfn",
    "npages",
    "userspace_addr",
    "flags",
    "dirty_bitmap",
    "arch.rmap",
    "arch.lpage_info",
    "gfn_write_track",
)


class Value(NamedTuple):
    """What a slot object has in a field."""

    text: str
    """Empty if the object does not exist yet."""
    tag: str = ""
    """Letter of the array object it points to."""
    fresh: bool = False
    """Whether that object was made in this operation."""
    same: bool = False
    """Whether it equals the column to its left."""


class FieldRow(NamedTuple):
    """One field through the operation."""

    field: FieldName
    old: Value
    invalid: Value
    new: Value
    fate: Fate
    changed_now: bool
    """Whether this step changed it."""
    message: bool
    """Whether it is the row in which something is lost."""


class Column(NamedTuple):
    """A slot object: where it is now."""

    name: str
    where: str


class Lifetime(NamedTuple):
    """How long an object lives, in steps of the operation; 0 is before it."""

    name: str
    style: Literal["slot", "invalid", "new"]
    start: int
    end: int | None
    """Step in which it is freed; None if it lives on."""
    freed: bool


class HandOffView(NamedTuple):
    """Everything the hand-off tab shows besides strip and ledger."""

    change: str
    columns: tuple[Column, Column, Column]
    rows: tuple[FieldRow, ...]
    lifetimes: tuple[Lifetime, ...]
    steps: int
    now: int
    """Number of the current step, from 1."""
    changed: int
    """Fields this step changed."""
    summary: str
    """Such as ``9 fields, 4 fates``."""


def fate_of(field: FieldName, change: KvmMrChange, profile: KernelProfile, *, logs: tuple[bool, bool]) -> Fate:
    """Return what becomes of a field when a change of this kind succeeds.

    Parameters
    ----------
    field
        A field of the slot.
    change
        Kind of the change.
    profile
        Kernel era; before 5.7 a MOVE keeps the arrays.
    logs
        Whether the slot is dirty-logged before and after.

    References
    ----------
    virt/kvm/kvm_main.c: kvm_prepare_memory_region(), kvm_commit_memory_region() [all profiles]
    """
    match change:
        case KvmMrChange.CREATE:
            if field == "dirty_bitmap":
                return "new" if logs[1] else "none"
            return "new"
        case KvmMrChange.DELETE:
            if field == "dirty_bitmap":
                return "freed" if logs[0] else "none"
            return "freed"
        case KvmMrChange.NOOP:
            return "kept"
        case KvmMrChange.MOVE | KvmMrChange.FLAGS_ONLY:
            return _fate_of_a_slot_that_stays(field, change, profile, logs)


def _fate_of_a_slot_that_stays(
    field: FieldName, change: KvmMrChange, profile: KernelProfile, logs: tuple[bool, bool]
) -> Fate:
    moves = change is KvmMrChange.MOVE
    match field:
        case "base_gfn":
            return "changed" if moves else "kept"
        case "flags":
            return "changed" if logs[0] != logs[1] else "kept"
        case "dirty_bitmap":
            bitmaps: dict[tuple[bool, bool], Fate] = {
                (True, True): "handed over",
                (True, False): "freed",
                (False, True): "from zero",
                (False, False): "none",
            }
            return bitmaps[logs]
        case "arch.rmap" | "arch.lpage_info" | "gfn_write_track":
            return "from zero" if moves and not profile.move_keeps_arch_metadata else "handed over"
        case _:
            return "kept"


def never_was(moment: Moment) -> bool:
    """Return whether a call was refused before the slot it asked for was made, and there was none before it."""
    op = moment.op
    refused = op is not None and moment.call is not None and op.step.errno is not None and moment.old is None
    return refused and op is not None and not any(cell.word == "allocate" for cell in op.cells)


def select_hand_off(moment: Moment) -> HandOffView | None:
    """Return the hand-off at a moment; None if it is in no region call that touches a slot."""
    op, change = moment.op, moment.change
    if op is None or moment.call is None or change is None or op.step.change is None:
        return None
    objects = _Objects(moment)
    earlier = _earlier(moment)
    ledger = ledger_of(moment)
    loses = ledger is not None and ledger.lost + ledger.will_be_lost > 0
    rows = tuple(_row(field, objects, earlier, moment, change, loses=loses) for field in FIELDS)
    fates = {row.fate for row in rows if row.fate != "none"}
    return HandOffView(
        change=change.value,
        columns=objects.columns(),
        rows=rows,
        lifetimes=_lifetimes(op, objects),
        steps=len(op.cells),
        now=moment.stop.cell + 1,
        changed=sum(row.changed_now for row in rows),
        summary=f"{len(rows)} fields · {plural(len(fates), 'fate')}",
    )


class _Objects:
    """The slot objects of an operation as they are at a moment, and letters for their arrays."""

    def __init__(self, moment: Moment) -> None:
        op, call = moment.op, moment.call
        assert op is not None, "a hand-off is inside an operation"
        assert call is not None, "a hand-off is inside a region call"
        self.moment, self.op = moment, op
        pending = moment.kvm.pending
        self.old = op.before.slot(call.slot, call.as_id)
        self.invalid = pending.invalid if pending is not None else None
        self.new = self._new(pending)
        self.gone = {
            event.which
            for cell in op.cells[: moment.stop.cell + 1]
            for event in cell.events
            if isinstance(event, SlotObjectFreed)
        }
        self.letters = _letters(op, self.old)

    def _new(self, pending: PendingUpdate | None) -> KvmMemorySlot | None:
        if pending is not None:
            return pending.new
        if self.op.step.errno is not None or self.op.step.change in (KvmMrChange.DELETE, KvmMrChange.NOOP):
            return None
        call = self.moment.call
        return None if call is None else self.moment.kvm.slot(call.slot, call.as_id)

    def columns(self) -> tuple[Column, Column, Column]:
        space = self.moment.kvm.memslots[self.moment.call.as_id]  # type: ignore[union-attr]

        def where(slot: KvmMemorySlot | None, *, absent: str) -> str:
            if slot is None:
                return absent
            sets = [
                f"set {s.node_idx}{', readers see it' if s.node_idx == space.active_idx else ', inactive'}"
                for s in space.sets
                if s.id_hash.get(slot.id) == slot
            ]
            return "in both sets" if len(sets) == 2 else f"in {sets[0]}" if sets else "in no set"

        change = self.op.step.change
        old_absent = "there was none" if self.old is None else "freed"
        invalid = self.invalid if "INVALID" not in self.gone else None
        return (
            Column("old", "freed" if "old" in self.gone else where(self._old_now(), absent=old_absent)),
            Column(
                "INVALID",
                where(
                    invalid,
                    absent="freed" if "INVALID" in self.gone else "not yet" if invalidates(change) else "not needed",
                ),
            ),
            Column(
                "new",
                where(
                    self.new,
                    absent="freed" if "new" in self.gone else "none" if change is KvmMrChange.DELETE else "not yet",
                ),
            ),
        )

    def last_with(self, array_id: ArrayId) -> Kvm:
        """Return the VM now, or as it was last before this array was freed."""
        kvms = [self.op.before, *(cell.kvm for cell in self.op.cells[: self.moment.stop.cell + 1])]
        return next((kvm for kvm in reversed(kvms) if array_id in kvm.heap), kvms[-1])

    def _old_now(self) -> KvmMemorySlot | None:
        pending = self.moment.kvm.pending
        return pending.old if pending is not None and pending.old is not None else self.old


def _letters(op: OpDetail, old: KvmMemorySlot | None) -> dict[int, str]:
    """Return a letter for each array of the operation: one for what was there, the next for what is made."""
    letters: dict[int, str] = {}
    if old is not None:
        for array in (*old.arch, old.dirty_bitmap):
            if array is not None:
                letters[array] = "A"
    fresh = "B" if letters else "A"
    for cell in op.cells:
        for event in cell.events:
            if isinstance(event, ArrayAllocated):
                letters[event.array] = fresh
    return letters


def _row(
    field: FieldName, objects: _Objects, earlier: _Objects | None, moment: Moment, change: KvmMrChange, *, loses: bool
) -> FieldRow:
    old, invalid, new = objects.old, objects.invalid, objects.new
    kvm, profile = moment.kvm, moment.kvm.profile
    call = moment.call
    logs = (
        old is not None and bool(old.flags & KVM_MEM_LOG_DIRTY_PAGES),
        call is not None and bool(call.memory_size) and bool(call.flags & KVM_MEM_LOG_DIRTY_PAGES),
    )
    values = [
        _value(field, slot, kvm if slot is not old or "old" not in objects.gone else None, objects)
        for slot in (
            old,
            invalid if "INVALID" not in objects.gone else None,
            new if "new" not in objects.gone else None,
        )
    ]
    if values[1].text:
        values[1] = values[1]._replace(same=values[1][:2] == values[0][:2])
    if values[2].text:
        values[2] = values[2]._replace(same=values[2][:2] == values[0][:2])
    refused = moment.op is not None and moment.op.step.errno is not None
    fate: Fate = "kept" if refused else fate_of(field, change, profile, logs=logs)
    if _is_no_array(field, objects):
        fate = "none"
    return FieldRow(
        field,
        values[0],
        values[1],
        values[2],
        fate,
        _changed_now(field, objects, earlier),
        field == "gfn_write_track" and loses,
    )


def _is_no_array(field: FieldName, objects: _Objects) -> bool:
    """Return whether a field is an array that no slot object of the operation has, such as counts that are off."""
    kind = field.removeprefix("arch.")
    if kind not in ("rmap", "lpage_info", "gfn_write_track", "dirty_bitmap"):
        return False
    old = objects.old
    holder = None if old is None else old if kind == "dirty_bitmap" else old.arch
    return (holder is None or getattr(holder, kind) is None) and not any(
        isinstance(event, ArrayAllocated) and event.kind == kind for cell in objects.op.cells for event in cell.events
    )


def _earlier(moment: Moment) -> _Objects | None:
    """Return the objects one step ago; None at the first step."""
    if moment.op is None or moment.stop.cell == 0:
        return None
    at = moment.stop.cell - 1
    return _Objects(moment._replace(stop=moment.stop._replace(cell=at), kvm=moment.op.cells[at].kvm))


def _changed_now(field: FieldName, now: _Objects, then: _Objects | None) -> bool:
    """Return whether this field of an object that was there one step ago has another value now."""
    if then is None:
        return False
    return any(
        _value(field, a, now.moment.kvm, now) != _value(field, b, then.moment.kvm, then)
        for a, b in ((now.old, then.old), (now.invalid, then.invalid), (now.new, then.new))
        if a is not None and b is not None
    )


def _value(field: FieldName, slot: KvmMemorySlot | None, kvm: Kvm | None, objects: _Objects) -> Value:
    """Return what a slot object has in a field; without a VM, arrays that were freed hold what they held then."""
    if slot is None:
        return Value("")
    match field:
        case "id, as_id":
            return Value(f"{slot.id}, {slot.as_id}")
        case "base_gfn":
            return Value(hex_text(slot.base_gfn))
        case "npages":
            return Value(count_text(slot.npages))
        case "userspace_addr":
            return Value(hex_text(slot.userspace_addr))
        case "flags":
            return Value(flags_words(slot.flags) + (", INVALID" if slot.invalid else ""))
        case "dirty_bitmap":
            return _array_value(slot.dirty_bitmap, kvm, objects)
        case "arch.rmap":
            return _array_value(slot.arch.rmap, kvm, objects)
        case "arch.lpage_info":
            return _array_value(slot.arch.lpage_info, kvm, objects)
        case "gfn_write_track":
            return _array_value(slot.arch.gfn_write_track, kvm, objects)


def _array_value(array_id: ArrayId | None, kvm: Kvm | None, objects: _Objects) -> Value:
    if array_id is None:
        return Value("NULL")
    letter = objects.letters.get(array_id, "A")
    array = (kvm or objects.last_with(array_id)).heap.get(array_id)
    match array:
        case RmapArrays():
            text = " + ".join(count_text(n) for n in array.lengths)
        case LpageInfo():
            text = ", ".join(str(_sum(level)) for level in array.levels)
        case WriteTrack():
            text = f"sum {count_text(sum(array.counts.values()))}"
        case DirtyBitmap():
            text = f"{pages_text(len(array.dirty))} dirty"
        case _:
            text = "freed"
    return Value(text, letter, letter != "A")


def _sum(level: LpageLevel) -> int:
    """Return the counter of a level with one entry, else how many entries forbid a huge page."""
    if level.n == 1:
        return level.value(0)
    if level.all:
        return level.n
    candidates = {0, level.n - 1} | {index for index, _ in level.added.items()}
    return sum(1 for index in candidates if level.value(index))


def _lifetimes(op: OpDetail, objects: _Objects) -> tuple[Lifetime, ...]:
    """Return when the arrays and slot objects of the operation come and go."""
    found: list[Lifetime] = []
    old_arch = objects.old.arch if objects.old is not None else None
    if old_arch is not None:
        found.append(_span("arrays A", "slot", 0, _freed_at(op, old_arch)))
    if invalidates(op.step.change):
        made = next((n for n, cell in enumerate(op.cells, 1) if cell.word == "copy"), None)
        if made is not None:
            found.append(_span("INVALID copy", "invalid", made, _object_freed_at(op, "INVALID")))
    if op.step.change in (KvmMrChange.MOVE, KvmMrChange.CREATE, KvmMrChange.FLAGS_ONLY):
        found.append(_span("new slot", "new", 1, _object_freed_at(op, "new")))
    made = next(
        (
            n
            for n, cell in enumerate(op.cells, 1)
            if any(isinstance(e, ArrayAllocated) and e.kind != "dirty_bitmap" for e in cell.events)
        ),
        None,
    )
    if made is not None:
        found.append(_span("arrays B" if old_arch is not None else "arrays A", "slot", made, None))
    return tuple(found)


def _span(name: str, style: Literal["slot", "invalid", "new"], start: int, end: int | None) -> Lifetime:
    return Lifetime(name, style, start, end, end is not None)


def _freed_at(op: OpDetail, arch: KvmArchMemorySlot) -> int | None:
    for number, cell in enumerate(op.cells, 1):
        if any(isinstance(event, ArrayFreed) and event.array in arch for event in cell.events):
            return number
    return None


def _object_freed_at(op: OpDetail, which: str) -> int | None:
    for number, cell in enumerate(op.cells, 1):
        if any(isinstance(event, SlotObjectFreed) and event.which == which for event in cell.events):
            return number
    return None
