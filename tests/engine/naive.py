"""The judge of the property tests: a VM as a plain list of slots, by the documented rules, without the engine.

Written from kernel-reference sections 2 to 7 alone; nothing here imports `explorer`. It does in loops over
lists what the engine does in trees and tables. Eras are told apart by name.
"""

from __future__ import annotations

from dataclasses import dataclass, field

PAGE = 4096
LOG, READONLY = 1, 2
OLD = ("pre_edd4", "v5_10", "v6_1")
"""Before the KVMGT series."""
FIRST_GFN_CHECK = ("v6_1", "v6_6", "v6_6_posted", "v6_6_nocheck", "v6_12_quirk_posted", "v6_12", "v6_18", "v7_3")
SMM_BY_BUILD = ("v6_6", "v6_6_posted", "v6_6_nocheck", "v6_12_quirk_posted", "v6_12", "v6_18", "v7_3")
ON_DEMAND = ("v6_12_quirk_posted", "v6_12", "v6_18", "v7_3")
BOTH_SPACES = ("v6_1", "v7_3")
REFUSES = ("v6_6", "v6_12_quirk_posted", "v6_12", "v6_18", "v7_3")


@dataclass
class Slot:
    """One slot, with what hangs on its pages by index."""

    id: int
    as_id: int
    base: int
    npages: int
    hva: int
    flags: int
    dirty: set[int] | None = None
    log: dict[int, int] = field(default_factory=dict)
    """Counts a logging tracker added."""
    vgpu: dict[int, int] = field(default_factory=dict)
    """Counts KVMGT added."""
    arrays_for: int = -1
    """The base its arrays were made for."""

    @property
    def end(self) -> int:
        return self.base + self.npages

    def has_entries_for(self, gfn: int) -> bool:
        """Tell whether the arrays per huge frame reach as far as a page of the slot."""
        return all(
            gfn // n - self.base // n <= (self.arrays_for + self.npages - 1) // n - self.arrays_for // n
            for n in (512, 512 * 512)
        )

    @property
    def key(self) -> tuple[int, ...]:
        return self.as_id, self.id, self.base, self.npages, self.hva, self.flags


@dataclass
class Naive:
    """A VM. Methods answer with the errno's name, or None."""

    profile: str
    tdp: bool = False
    tdp_mmu: bool = True
    external_write_tracking: bool = True
    smm: bool = True
    bits: int = 46

    def __post_init__(self) -> None:
        self.slots: list[Slot] = []
        self.spaces = 1 if self.profile in SMM_BY_BUILD and not self.smm else 2
        first, step = (-150, 2) if self.profile == "pre_edd4" else (0, 1)
        self.generation = [first + step * as_id for as_id in range(self.spaces)]
        self.step = step * self.spaces
        self.manual = 0
        self.zap_slot_only = False
        self.attached: list[int] = []
        self.kinds: dict[int, str] = {}
        self.tables: list[tuple[int, int, int]] = []
        """Shadow pages as (as_id, gfn, level)."""
        self.protect: set[int] = set()
        self.tree: dict[int, bool] = {}
        self.damaged = False
        """Whether a count was told to change that could not: from here on counters need not add up."""

    # -- questions -------------------------------------------------------------------------------

    def slot(self, slot_id: int, as_id: int = 0) -> Slot | None:
        return next((s for s in self.slots if (s.id, s.as_id) == (slot_id, as_id)), None)

    def at(self, gfn: int, as_id: int = 0) -> Slot | None:
        return next((s for s in self.slots if s.as_id == as_id and s.base <= gfn < s.end), None)

    def count(self, slot: Slot, gfn: int) -> int:
        index = gfn - slot.base
        shadowed = sum(1 for as_id, at, level in self.tables if (as_id, at) == (slot.as_id, gfn) and level > 1)
        return shadowed + slot.log.get(index, 0) + slot.vgpu.get(index, 0)

    def counts(self, slot: Slot) -> dict[int, int]:
        gfns = {slot.base + i for i in {*slot.log, *slot.vgpu}} | {
            gfn for as_id, gfn, _ in self.tables if as_id == slot.as_id and slot.base <= gfn < slot.end
        }
        return {gfn: n for gfn in sorted(gfns) if (n := self.count(slot, gfn))}

    def tracked(self, slot: Slot, gfn: int) -> bool:
        if self.count(slot, gfn):
            return True
        other = self.at(gfn, 1 - slot.as_id)
        return self.profile in BOTH_SPACES and other is not None and self.count(other, gfn) > 0

    # -- the region call -------------------------------------------------------------------------

    def set_region(
        self, *, slot: int, as_id: int, flags: int, gpa: int, size: int, hva: int
    ) -> tuple[str | None, str | None]:
        """Return the errno's name or None, and the kind of change or None."""
        wrong = (
            flags & ~(LOG | READONLY)
            or slot >= (509 if self.profile in ("pre_edd4", "v5_10") else 32764)
            or size % PAGE
            or gpa % PAGE
            or hva % PAGE
            or hva + size > 0x7FFFFFFFF000
            or as_id >= self.spaces
            or gpa + size >= 1 << 64
            or size // PAGE > (1 << 31) - 1
        )
        if wrong:
            return "EINVAL", None
        base, npages, old = gpa // PAGE, size // PAGE, self.slot(slot, as_id)
        if npages == 0:
            return self._delete(old)
        if old is not None:
            if hva != old.hva or npages != old.npages or (flags ^ old.flags) & READONLY:
                return "EINVAL", None
            if base == old.base and flags == old.flags:
                return None, "NOOP"
            if base == old.base:
                return self._change_flags(old, flags)
        kind = "CREATE" if old is None else "MOVE"
        others = (s for s in self.slots if s.as_id == as_id and s.id != slot)
        if any(base < s.end and s.base < base + npages for s in others):
            return "EEXIST", kind
        beyond = self.profile in FIRST_GFN_CHECK and base + npages > 1 << ((self.bits if self.tdp else 52) - 12)
        if old is not None:
            return self._move(old, base, flags, beyond=beyond)
        if beyond:
            return "EINVAL", kind
        bitmap = self._new_bitmap(flags, npages)
        self.slots.append(Slot(slot, as_id, base, npages, hva, flags, bitmap, arrays_for=base))
        self.generation[as_id] += self.step
        return None, kind

    def _new_bitmap(self, flags: int, npages: int) -> set[int] | None:
        if not flags & LOG:
            return None
        return set(range(npages)) if self.manual & 2 else set()

    def _delete(self, old: Slot | None) -> tuple[str | None, str]:
        if old is None:
            return "EINVAL", "DELETE"
        self._invalidate(old)
        if self.profile not in OLD:
            self._forget(old)
        self.slots.remove(old)
        return None, "DELETE"

    def _move(self, old: Slot, base: int, flags: int, *, beyond: bool) -> tuple[str | None, str]:
        self._invalidate(old)
        if (self.profile in REFUSES and self.attached) or beyond:
            return "EINVAL", "MOVE"
        if self.profile == "v6_6_posted" and self.external_write_tracking and not self.attached:
            return "EINVAL", "MOVE"
        if not (flags & LOG and old.flags & LOG):
            old.dirty = self._new_bitmap(flags, old.npages)
        old.base, old.flags = base, flags
        if self.profile != "pre_edd4":
            old.log, old.vgpu, old.arrays_for = {}, {}, base
        return None, "MOVE"

    def _change_flags(self, old: Slot, flags: int) -> tuple[str | None, str]:
        old.dirty, old.flags = self._new_bitmap(flags, old.npages), flags
        self.generation[old.as_id] += self.step
        return None, "FLAGS_ONLY"

    def _invalidate(self, old: Slot) -> None:
        """Both swaps, the zap, and what trackers are told before anybody knows whether the call succeeds."""
        self.generation[old.as_id] += 2 * self.step
        if self.profile in OLD:
            for gfn in self._forget(old):
                # KVMGT removes from this very slot, also where the page it tracks lies in the other space.
                self.damaged |= old.as_id != 0
                if old.as_id == 0:
                    self._vgpu_remove(old, gfn)
        self.tables = [t for t in self.tables if self.zap_slot_only and not old.base <= t[1] < old.end]

    def _forget(self, slot: Slot) -> list[int]:
        gone = (
            sorted(gfn for gfn in self.protect if slot.base <= gfn < slot.end) if self.vgpu_user() is not None else []
        )
        self.protect -= set(gone)
        return gone

    # -- trackers --------------------------------------------------------------------------------

    def vgpu_user(self) -> int | None:
        return next((user for user in self.attached if self.kinds[user] == "kvmgt"), None)

    def attach(self, user: int, kind: str) -> str | None:
        if user in self.attached:
            return "EEXIST" if kind == "kvmgt" else "EBUSY"
        if kind == "kvmgt" and self.vgpu_user() is not None:
            return "EEXIST"
        if self.profile not in OLD and not self.external_write_tracking:
            return "ENODEV"
        self.attached.insert(0, user)
        self.kinds[user] = kind
        return None

    def detach(self, user: int) -> None:
        if user not in self.attached:
            return
        if self.kinds[user] == "kvmgt":
            for gfn in sorted(self.tree):
                self.vgpu_untrack(gfn)
            self.protect = set()
        self.attached.remove(user)

    def log_track(self, gfn: int, amount: int) -> str | None:
        slot = self.at(gfn)
        if slot is None:
            return "EINVAL"
        index = gfn - slot.base
        self.damaged |= not slot.has_entries_for(gfn)
        slot.log[index] = slot.log.get(index, 0) + amount
        return None

    def log_may_untrack(self, gfn: int) -> bool:
        slot = self.at(gfn)
        return slot is None or slot.log.get(gfn - slot.base, 0) > 0

    def vgpu_track(self, gfn: int) -> str | None:
        self.tree.setdefault(gfn, False)
        slot = self.at(gfn)
        if self.tree[gfn]:
            return None
        if slot is None and (self.profile in OLD or gfn not in self.protect):
            return "EINVAL"
        if gfn not in self.protect and slot is not None:
            self.damaged |= not slot.has_entries_for(gfn)
            slot.vgpu[gfn - slot.base] = slot.vgpu.get(gfn - slot.base, 0) + 1
            self.protect.add(gfn)
        self.tree[gfn] = True
        return None

    def vgpu_untrack(self, gfn: int) -> None:
        slot = self.at(gfn)
        if self.tree.pop(gfn, False) and gfn in self.protect and slot is not None:
            self.protect.discard(gfn)
            self._vgpu_remove(slot, gfn)

    def _vgpu_remove(self, slot: Slot, gfn: int) -> None:
        index = gfn - slot.base
        if slot.vgpu.get(index, 0):
            slot.vgpu[index] -= 1
        else:
            self.damaged = True

    # -- the rest --------------------------------------------------------------------------------

    def shadow(self, gfn: int, levels: int, as_id: int) -> None:
        if self.tdp:
            return
        for at in range(levels):
            table = (as_id, gfn + at, levels - at)
            if table not in self.tables:
                slot = self.at(gfn + at, as_id)
                self.damaged |= slot is not None and not slot.has_entries_for(gfn + at)
                self.tables.append(table)

    def guest_write(self, gfn: int, as_id: int) -> str:
        slot = self.at(gfn, as_id)
        if slot is None:
            return "mmio"
        if slot.flags & READONLY:
            return "read-only"
        if slot.dirty is not None:
            slot.dirty.add(gfn - slot.base)
        return "emulated" if self.tracked(slot, gfn) else "ram"

    def get_dirty(self, slot_id: int, as_id: int) -> tuple[str | None, list[int]]:
        if as_id >= self.spaces:
            return "EINVAL", []
        slot = self.slot(slot_id, as_id)
        if slot is None or slot.dirty is None:
            return "ENOENT", []
        found = sorted(slot.dirty)
        if not self.manual:
            slot.dirty = set()
        return None, found

    def clear_dirty(self, slot_id: int, as_id: int, first: int, num: int) -> str | None:
        if as_id >= self.spaces or first % 64:
            return "EINVAL"
        slot = self.slot(slot_id, as_id)
        if slot is None or slot.dirty is None:
            return "ENOENT"
        if first + num > slot.npages or first > slot.npages or (num % 64 and first + num != slot.npages):
            return "EINVAL"
        slot.dirty -= set(range(first, first + num))
        return None

    def manual_protect(self, arg: int) -> str | None:
        if arg not in (0, 1, 3):
            return "EINVAL"
        self.manual = arg
        return None

    def disable_slot_zap_quirk(self) -> str | None:
        if self.profile not in ON_DEMAND:
            return "EINVAL"
        self.zap_slot_only = True
        return None
