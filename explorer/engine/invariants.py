"""What should be true of one state: named properties, each with the kernels it is claimed for.

Rule 1: a check reads one snapshot and returns all violations; an empty tuple means that it holds.
Rule 2: a property is claimed for a profile unless calls that run one after another are known to break
it there. What else can break it stands in `Invariant.unless`.

Numbers are those of the project's list of invariants. A full check costs one pass over slots, counts
and shadow pages (what is stored, never what a slot spans); the two sets of an address space share their
trees at rest, so comparing them is immediate.

Not modelled: properties of a step rather than of a state (4, 21, 22: swaps per call, a refusal restores
all, a MOVE with an external tracker fails), which the tests compare; 14, which is 13 across address spaces.
Read next: `explorer.history`.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from explorer.engine.draft import KIND_NAMES
from explorer.engine.lookup import gfn_to_memslot, hva_key, slots_in_gfn_range
from explorer.engine.metadata import initial_lpage_level
from explorer.engine.spte import as_id_of_owner, sptes_of_gfn
from explorer.engine.state import DirtyBitmap, Kvmgt, LpageInfo, RmapArrays, WriteTrack
from explorer.engine.types import LEVELS, PG_LEVEL_4K, Gfn, gfn_to_index, hpages
from explorer.engine.uapi import KVM_MEM_LOG_DIRTY_PAGES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from explorer.engine.profile import KernelProfile
    from explorer.engine.state import Kvm, KvmMemorySlot, LpageLevel, MetadataArray
    from explorer.engine.types import ArrayId, Level

    Found = Iterator[tuple[int | None, int | None, int | None, int | str, int | str]]
    """(as_id, slot, gfn, expected, found) of each violation; None where the place has no such part."""

__all__ = ["INVARIANTS", "Invariant", "Violation", "get_invariant", "violations"]

_U16_MAX = 0xFFFF


class Violation(NamedTuple):
    """One place where one property does not hold."""

    invariant: str
    """Name of the property."""
    number: int
    as_id: int | None
    """Address space, or None for the whole VM; so for the two below."""
    slot: int | None
    gfn: int | None
    expected: int | str
    found: int | str


@dataclass(frozen=True, slots=True, eq=False)
class Invariant:
    """A property of one state."""

    number: int
    name: str
    """A short sentence."""
    find: Callable[[Kvm], Found]
    at_rest: bool = False
    """Whether it says nothing while a region call is in progress."""
    holds: Callable[[KernelProfile], bool] = lambda _profile: True
    """Whether it is claimed for a profile."""
    otherwise: str = ""
    """What breaks it where it is not claimed."""
    unless: str = ""
    """What may break it even where it is claimed."""

    @property
    def sentence(self) -> str:
        """What must hold, in full."""
        return self.find.__doc__ or self.name

    def check(self, kvm: Kvm) -> tuple[Violation, ...]:
        """Return all violations in a state, whether or not the property is claimed for its profile."""
        if self.at_rest and kvm.pending is not None:
            return ()
        return tuple(Violation(self.name, self.number, *found) for found in self.find(kvm))


def violations(kvm: Kvm) -> tuple[Violation, ...]:
    """Return all violations of what is claimed for the VM's profile, in the order of `INVARIANTS`."""
    return tuple(found for each in INVARIANTS if each.holds(kvm.profile) for found in each.check(kvm))


def get_invariant(number: int) -> Invariant:
    """Return the property with this number; a KeyError says that no state property has it."""
    return _BY_NUMBER[number]


# -- sets and slots --------------------------------------------------------------------------------


def _published(kvm: Kvm) -> Iterator[KvmMemorySlot]:
    for space in kvm.memslots:
        yield from space.active.slots()


def _overlaps(kvm: Kvm) -> Found:
    """No two slots of one set share a gfn."""
    for as_id, space in enumerate(kvm.memslots):
        for memslots in space.sets:
            end = 0
            for slot in memslots.slots():
                if slot.base_gfn < end:
                    yield as_id, slot.id, slot.base_gfn, f"{end:#x} or above", f"{slot.base_gfn:#x}"
                end = slot.end_gfn


def _unequal_sets(kvm: Kvm) -> Found:
    """At rest the two sets of an address space hold the same slot objects."""
    for as_id, space in enumerate(kvm.memslots):
        one, other = space.active.id_hash, space.inactive.id_hash
        for slot_id in sorted({*one, *other}) if one != other else ():
            seen, hidden = one.get(slot_id), other.get(slot_id)
            if seen != hidden:
                yield as_id, slot_id, None, f"as active: {seen}", f"inactive: {hidden}"


def _generations(kvm: Kvm) -> Found:
    """At rest no update is marked, the residue is the address space's, and the active set's is the higher."""
    factor = kvm.profile.generation_step_factor
    step = len(kvm.memslots) * factor
    for as_id, space in enumerate(kvm.memslots):
        active, inactive = space.active.generation, space.inactive.generation
        residue = (kvm.profile.generation_start + as_id * factor) % step
        if active >> kvm.profile.generation_in_progress_bit & 1:
            yield as_id, None, None, "no update in progress", active
        elif active % step != residue:
            yield as_id, None, None, f"{residue} modulo {step}", active
        if active < inactive:
            yield as_id, None, None, f"{inactive} or above", active


def _invalid_at_rest(kvm: Kvm) -> Found:
    """INVALID copies are gone from both sets when the call has returned."""
    for as_id, space in enumerate(kvm.memslots):
        for memslots in space.sets:
            for slot in memslots.slots():
                if slot.invalid:
                    yield as_id, slot.id, slot.base_gfn, "valid", "INVALID"


def _page_total(kvm: Kvm) -> Found:
    """nr_memslot_pages is the sum over all slots of all address spaces."""
    total = sum(slot.npages for slot in _published(kvm))
    if total != kvm.nr_memslot_pages:
        yield None, None, None, total, kvm.nr_memslot_pages


def _logging_total(kvm: Kvm) -> Found:
    """nr_memslots_dirty_logging is the number of logged slots; before v6.3 KVM counts them for PML only."""
    total = sum(1 for slot in _published(kvm) if slot.flags & KVM_MEM_LOG_DIRTY_PAGES)
    if total != kvm.nr_memslots_dirty_logging:
        yield None, None, None, total, kvm.nr_memslots_dirty_logging


def _trees(kvm: Kvm) -> Found:
    """Gfn tree and hva tree of a set hold one entry for each slot, where it is, and no other."""
    for as_id, space in enumerate(kvm.memslots):
        for memslots in space.sets:
            slots = tuple(memslots.id_hash.values())
            for base_gfn, slot_id in {*memslots.gfn_tree.items()} ^ {(slot.base_gfn, slot.id) for slot in slots}:
                yield as_id, slot_id, base_gfn, "one entry of the gfn tree for each slot", "another"
            for _, hva, slot_id in {*memslots.hva_tree} ^ {hva_key(slot) for slot in slots}:
                yield as_id, slot_id, None, "one entry of the hva tree for each slot", f"another at {hva:#x}"


def _internal_slots(kvm: Kvm) -> Found:
    """KVM's own slots have the same place in every address space."""
    for slot_id in range(kvm.profile.user_mem_slots, kvm.profile.user_mem_slots + 3):
        first = kvm.slot(slot_id)
        for as_id in range(1, len(kvm.memslots)):
            slot = kvm.slot(slot_id, as_id)
            if (first and first[2:5]) != (slot and slot[2:5]):
                yield as_id, slot_id, None, first.brief() if first else "none", slot.brief() if slot else "none"


# -- arrays ----------------------------------------------------------------------------------------


def _pointers(slot: KvmMemorySlot) -> Iterator[tuple[type, ArrayId]]:
    """Iterate over the arrays a slot points to, each with the kind that must be there."""
    ids = (slot.arch.rmap, slot.arch.lpage_info, slot.arch.gfn_write_track, slot.dirty_bitmap)
    return ((cls, array_id) for cls, array_id in zip(KIND_NAMES, ids, strict=True) if array_id is not None)


def _arrays(kvm: Kvm, slot: KvmMemorySlot) -> Iterator[MetadataArray]:
    for _, array_id in _pointers(slot):
        array = kvm.heap.get(array_id)
        if array is not None:
            yield array


def _lengths(kvm: Kvm, slot: KvmMemorySlot) -> Iterator[tuple[str, Level, int]]:
    """Iterate over the per-level arrays of a slot as (name, level, entries)."""
    for array in _arrays(kvm, slot):
        match array:
            case RmapArrays():
                yield from ((f"rmap[{level - 1}]", level, n) for level, n in zip(LEVELS, array.lengths, strict=True))
            case LpageInfo():
                yield from ((f"lpage_info[{level - 2}]", level, entry.n) for level, entry in _levels(kvm, slot))
            case WriteTrack():
                yield "gfn_write_track", PG_LEVEL_4K, array.n


def _levels(kvm: Kvm, slot: KvmMemorySlot) -> Iterator[tuple[Level, LpageLevel]]:
    for array in _arrays(kvm, slot):
        if isinstance(array, LpageInfo):
            yield from zip(LEVELS[1:], array.levels, strict=True)


def _counts(kvm: Kvm, slot: KvmMemorySlot) -> Counter[int]:
    """Return the write-track counts of a slot by gfn."""
    for array in _arrays(kvm, slot):
        if isinstance(array, WriteTrack):
            return Counter({slot.base_gfn + index: count for index, count in array.counts.items()})
    return Counter()


def _frame(slot: KvmMemorySlot, index: int, level: Level) -> Gfn:
    """Return the first gfn of a slot that has `index` at `level`."""
    shift = (level - 1) * 9
    return Gfn(max(slot.base_gfn, ((slot.base_gfn >> shift) + index) << shift))


def _wrong_lengths(kvm: Kvm) -> Found:
    """Arrays are as long as base and size demand, and all slots have counts once anybody tracks."""
    with_counts = sum(1 for slot in _published(kvm) if slot.arch.gfn_write_track is not None)
    tracking = with_counts or kvm.external_write_tracking_enabled or kvm.shadow_root_allocated
    for slot in _published(kvm):
        for name, level, n in _lengths(kvm, slot):
            needed = hpages(slot.base_gfn, slot.npages, level)
            if n != needed:
                yield slot.as_id, slot.id, slot.base_gfn, f"{name} of {needed}", n
        if tracking and slot.arch.gfn_write_track is None:
            yield slot.as_id, slot.id, slot.base_gfn, f"gfn_write_track of {slot.npages}", "none"


def _past_the_end(kvm: Kvm) -> Found:
    """No gfn of a slot has an index outside one of its arrays."""
    for slot in _published(kvm):
        for name, level, n in _lengths(kvm, slot):
            last = gfn_to_index(Gfn(slot.end_gfn - 1), slot.base_gfn, level)
            if last >= n:
                yield slot.as_id, slot.id, _frame(slot, n, level), f"an index of {name} below {n}", last


def _right_marks(slot: KvmMemorySlot, level: Level) -> LpageLevel:
    return initial_lpage_level(slot.base_gfn, slot.npages, slot.userspace_addr, level)


def _wrong_marks(kvm: Kvm) -> Found:
    """Head, tail and hva marks are those of the slot's present place."""
    for slot in _published(kvm):
        for level, entry in _levels(kvm, slot):
            right = _right_marks(slot, level)
            # The rules mark the ends or everything, so the ends and one entry between them decide.
            for index in sorted({0, 1, entry.n - 1, right.n - 1} & set(range(min(entry.n, right.n)))):
                if entry.mark(index) != right.mark(index):
                    yield slot.as_id, slot.id, _frame(slot, index, level), right.mark(index), entry.mark(index)


def _bitmaps(kvm: Kvm) -> Found:
    """dirty_bitmap is there, with a bit for each page, exactly for LOG_DIRTY_PAGES."""
    for slot in _published(kvm):
        wanted = slot.npages if slot.flags & KVM_MEM_LOG_DIRTY_PAGES else 0
        bits = sum(array.npages for array in _arrays(kvm, slot) if isinstance(array, DirtyBitmap))
        if bits != wanted:
            yield slot.as_id, slot.id, slot.base_gfn, wanted, bits


def _ownership(kvm: Kvm) -> Found:
    """Every published slot points to live arrays that are its own; at rest nothing else is allocated."""
    owned: set[ArrayId] = set()
    for slot in _published(kvm):
        for cls, array_id in _pointers(slot):
            if not isinstance(kvm.heap.get(array_id), cls):
                yield slot.as_id, slot.id, slot.base_gfn, f"a live {KIND_NAMES[cls]}", f"array {array_id} is gone"
            if array_id in owned:
                yield slot.as_id, slot.id, slot.base_gfn, f"{KIND_NAMES[cls]} of its own", f"array {array_id} shared"
            owned.add(array_id)
    if kvm.pending is None:
        for array_id, array in kvm.heap.items():
            if array_id not in owned:
                yield None, None, None, "a slot that owns it", f"{KIND_NAMES[type(array)]} {array_id} leaked"
        total = sum(array.size_bytes for array in kvm.heap.values())
        if total != kvm.heap_bytes:
            yield None, None, None, total, kvm.heap_bytes


# -- counts and shadow pages -----------------------------------------------------------------------


def _shadowed(kvm: Kvm, *, upper: bool) -> dict[int, Counter[int]]:
    """Return how many shadow pages of a kind lie at each gfn, by address space."""
    found = {as_id: Counter[int]() for as_id in range(len(kvm.memslots))}
    for page in kvm.active_mmu_pages.values():
        if (page.level > PG_LEVEL_4K) is upper:
            found[page.as_id][page.gfn] += 1
    return found


def _huge_page_counters(kvm: Kvm) -> Found:
    """disallow_lpage is its mark plus the counts and the level-1 shadow pages in the frame."""
    leaves = _shadowed(kvm, upper=False)
    for slot in _published(kvm):
        forbidding = _counts(kvm, slot)
        forbidding.update({g: n for g, n in leaves[slot.as_id].items() if slot.base_gfn <= g < slot.end_gfn})
        for level, entry in _levels(kvm, slot):
            added: Counter[int] = Counter()
            for gfn, count in forbidding.items():
                added[gfn_to_index(Gfn(gfn), slot.base_gfn, level)] += count
            for index in sorted({*added, *entry.added}):
                right = entry.mark(index) + added[index]
                if right != entry.value(index):
                    yield slot.as_id, slot.id, _frame(slot, index, level), right, entry.value(index)


def _ledger(kvm: Kvm) -> Found:
    """Every count covers the shadowed upper-level tables at its gfn, and is just that without any external tracker.

    What trackers add nobody writes down, except KVMGT in its protect table: that is 11.
    """
    tables = _shadowed(kvm, upper=True)
    for slot in _published(kvm):
        counts, shadowed = _counts(kvm, slot), tables[slot.as_id]
        for gfn in sorted({*counts, *(g for g in shadowed if slot.base_gfn <= g < slot.end_gfn)}):
            most = _U16_MAX if kvm.trackers else shadowed[gfn]
            if not shadowed[gfn] <= counts[gfn] <= most:
                yield slot.as_id, slot.id, gfn, shadowed[gfn], counts[gfn]


def _vgpus(kvm: Kvm) -> Iterator[Kvmgt]:
    return (tracker for tracker in kvm.trackers.values() if isinstance(tracker, Kvmgt))


def _protected(kvm: Kvm) -> Found:
    """Pages in KVMGT's protect table lie in a slot and have a count above that of shadow paging."""
    shadowed = _shadowed(kvm, upper=True)[0]
    counts = {gfn: count for slot in kvm.slots() for gfn, count in _counts(kvm, slot).items()}
    for vgpu in _vgpus(kvm):
        for gfn in vgpu.protect_table:
            slot = gfn_to_memslot(kvm.active(), gfn)
            if slot is None:
                yield 0, None, gfn, "a slot", "none"
            elif counts.get(gfn, 0) <= shadowed[gfn]:
                yield 0, slot.id, gfn, f"{shadowed[gfn] + 1} or more", counts.get(gfn, 0)


def _believed(kvm: Kvm) -> Found:
    """Every page that KVMGT's tree calls tracked is in its protect table."""
    for vgpu in _vgpus(kvm):
        for gfn, tracked in vgpu.page_track_tree.items():
            if tracked and gfn not in vgpu.protect_table:
                yield 0, None, gfn, "in the protect table", "missing"


def _huge_mappings(kvm: Kvm) -> Found:
    """disallow_lpage is not 0 where a frame holds a tracked page or cannot be mapped as a whole."""
    for slot in _published(kvm):
        tracked = _counts(kvm, slot)
        for level, entry in _levels(kvm, slot):
            right = _right_marks(slot, level)
            held = {gfn_to_index(Gfn(gfn), slot.base_gfn, level) for gfn in tracked}
            ends = {index for index in (0, 1, right.n - 1) if index < right.n and right.mark(index)}
            touched = {index for index in entry.added if right.mark(index)}
            for index in sorted(held | ends | touched):
                if index < entry.n and entry.value(index) == 0:
                    yield slot.as_id, slot.id, _frame(slot, index, level), "forbidden", "allowed"


def _homeless_shadow_pages(kvm: Kvm) -> Found:
    """Every shadow page lies in a slot, and none in an INVALID one that was flushed."""
    pending = kvm.pending
    flushed = pending is not None and any(phase.name == "zap" for phase in pending.phases[: pending.at])
    for page in kvm.active_mmu_pages.values():
        slot = gfn_to_memslot(kvm.active(page.as_id), page.gfn)
        if slot is None or (slot.invalid and flushed):
            yield (
                page.as_id,
                None if slot is None else slot.id,
                page.gfn,
                "no shadow page",
                f"one of level {page.level}",
            )


def _homeless_sptes(kvm: Kvm) -> Found:
    """Every entry maps pages of a slot; a shadow page lies in one; and neither in one that was flushed."""
    yield from _homeless_shadow_pages(kvm)
    for key, spte in kvm.sptes.entries.items():
        as_id = as_id_of_owner(kvm, key[0])
        if as_id is None:
            yield None, None, spte.gfn, "a shadow page that owns it", "none"
        elif next(slots_in_gfn_range(kvm.active(as_id), spte.gfn, spte.gfn + spte.span), None) is None:
            yield as_id, None, spte.gfn, "no entry", f"one of level {spte.level}"


def _writable_though_tracked(kvm: Kvm) -> Found:
    """No entry that maps a tracked gfn, in the address space of the count, lets the guest write."""
    for slot in _published(kvm):
        for gfn in _counts(kvm, slot):
            for _, spte in sptes_of_gfn(kvm, slot.as_id, gfn):
                if spte.writable or spte.mmu_writable:
                    yield slot.as_id, slot.id, gfn, "read-only", "writable" if spte.writable else "MMU-writable"


def _shadow_page_count(kvm: Kvm) -> Found:
    """indirect_shadow_pages is the number of valid indirect shadow pages, and the hash finds each."""
    valid = sum(1 for page in kvm.active_mmu_pages.values() if page.mmu_valid_gen == kvm.mmu_valid_gen)
    if not valid == kvm.indirect_shadow_pages == len(kvm.mmu_page_hash):
        yield None, None, None, valid, kvm.indirect_shadow_pages
    for key, page in kvm.active_mmu_pages.items():
        if kvm.mmu_page_hash.get((page.gfn, page.level, page.as_id)) != key:
            yield page.as_id, None, page.gfn, "in the hash", "missing"


# -- the list --------------------------------------------------------------------------------------


def _fits(profile: KernelProfile) -> bool:
    return not profile.move_keeps_arch_metadata


def _counts_follow(profile: KernelProfile) -> bool:
    return _fits(profile) and _no_survivors(profile)


def _no_survivors(profile: KernelProfile) -> bool:
    return profile.quirk_off_zaps_shadow_pages


def _kvmgt_survives_moves(profile: KernelProfile) -> bool:
    refused = profile.move_refused_for_external_user and not profile.has_external_user_inverted
    return refused or profile.region_hook == "track_flush_slot"


def _nowhere(_profile: KernelProfile) -> bool:
    return False


_STALE = "a MOVE keeps the arrays, but their length, their marks and the frames of their counts hang on the old place"
_SURVIVORS = "with the quirk off, a MOVE or DELETE leaves shadow pages whose counts went with the slot's arrays"
_FREED = "a MOVE with KVMGT attached frees the counts and leaves the table"
_ONE_SIDED = (
    "region callbacks empty the table and not the tree: at a DELETE, before v6.6 also at a MOVE, refused or not"
)
_HALF_DONE = "where a later address space refuses an internal slot, the earlier ones keep theirs"
_WARNED = "KVM warned that a count cannot change"
_IN_A_WINDOW = f"a page was tracked inside a region call, after its zap; or {_WARNED}"

INVARIANTS: tuple[Invariant, ...] = (
    Invariant(1, "slots of one address space never overlap", _overlaps),
    Invariant(2, "both sets hold the same slots", _unequal_sets, at_rest=True),
    Invariant(3, "a generation belongs to its address space and only grows", _generations, at_rest=True),
    Invariant(5, "no slot at rest is INVALID", _invalid_at_rest, at_rest=True),
    Invariant(6, "every array has the length its slot needs", _wrong_lengths, holds=_fits, otherwise=_STALE),
    Invariant(7, "no gfn of a slot lies past the end of an array", _past_the_end, holds=_fits, otherwise=_STALE),
    Invariant(8, "huge frames that cannot be mapped are marked", _wrong_marks, holds=_fits, otherwise=_STALE),
    Invariant(
        9,
        "huge-page counters add up",
        _huge_page_counters,
        holds=_counts_follow,
        otherwise=f"{_STALE}; or {_SURVIVORS}",
        unless=_WARNED,
    ),
    Invariant(
        10,
        "ledger balances",
        _ledger,
        holds=_no_survivors,
        otherwise=_SURVIVORS,
        unless=f"somebody tracked without registering; or {_WARNED}",
    ),
    Invariant(
        11,
        "every tracked gfn of a tracker's own table has a positive count",
        _protected,
        at_rest=True,
        holds=_kvmgt_survives_moves,
        otherwise=_FREED,
        unless=_IN_A_WINDOW,
    ),
    Invariant(
        12,
        "every page KVMGT believes it tracks is in its table",
        _believed,
        at_rest=True,
        holds=_nowhere,
        otherwise=_ONE_SIDED,
    ),
    Invariant(13, "no mapping lets the guest write to a tracked gfn", _writable_though_tracked, unless=_WARNED),
    Invariant(
        15, "no huge mapping covers a tracked gfn", _huge_mappings, holds=_fits, otherwise=_STALE, unless=_WARNED
    ),
    Invariant(
        16,
        "no SPTE maps through an INVALID or dead slot",
        _homeless_sptes,
        holds=_no_survivors,
        otherwise=_SURVIVORS,
    ),
    Invariant(17, "memslot pages add up", _page_total, at_rest=True),
    Invariant(18, "a slot has a dirty bitmap if and only if it is logged", _bitmaps),
    Invariant(19, "logged slots add up", _logging_total, at_rest=True),
    Invariant(20, "no access to a freed array", _ownership),
    Invariant(23, "shadow pages are counted", _shadow_page_count),
    Invariant(24, "the trees find exactly the slots of their set", _trees),
    Invariant(
        25,
        "internal slots are equal in every address space",
        _internal_slots,
        at_rest=True,
        holds=_nowhere,
        otherwise=_HALF_DONE,
    ),
)
"""In the order of their numbers."""

_BY_NUMBER = {each.number: each for each in INVARIANTS}
