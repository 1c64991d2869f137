"""What should be true of one state and of one step: named properties, each with the kernels it is claimed for.

Rule 1: a check returns all violations; an empty tuple means that the property holds.
Rule 2: a property is claimed for a profile unless calls one after another are known to break it there; what else can
break it stands in `Invariant.unless`.
Rule 3: a kernel that never had what a property of steps speaks of does not violate it: `StepInvariant.concerns`.

Numbers are those of the project's list of invariants; 15 has a property of states and one of steps. What each says is
in `slot_properties`, `tracking_properties` and `step_properties`. A full check of a state costs one pass over slots,
counts and shadow pages (what is stored, never what a slot spans).

Not modelled: liveness, such as that a retry ends. Read next: `explorer.history`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from explorer.engine import slot_properties as slots
from explorer.engine import step_properties as steps
from explorer.engine import tracking_properties as tracking

if TYPE_CHECKING:
    from collections.abc import Callable

    from explorer.engine.apply import Step
    from explorer.engine.commands import Command
    from explorer.engine.profile import KernelProfile
    from explorer.engine.slot_properties import Found
    from explorer.engine.state import Kvm

__all__ = [
    "INVARIANTS",
    "STEP_INVARIANTS",
    "Invariant",
    "StepInvariant",
    "Violation",
    "get_invariant",
    "get_step_invariant",
    "step_violations",
    "violations",
]


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


@dataclass(frozen=True, slots=True, eq=False)
class StepInvariant:
    """A property of one step."""

    number: int
    name: str
    """A short sentence."""
    find: Callable[[Kvm, Command, Step], Found]
    concerns: Callable[[KernelProfile], bool] = lambda _profile: True
    """Whether a step of a profile that breaks it is a violation; not where the kernel has no such check."""
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

    def check(self, before: Kvm, command: Command, step: Step) -> tuple[Violation, ...]:
        """Return all violations by a step, whether or not the property is claimed for its profile."""
        return tuple(Violation(self.name, self.number, *found) for found in self.find(before, command, step))


def violations(kvm: Kvm) -> tuple[Violation, ...]:
    """Return all violations of what is claimed for the VM's profile, in the order of `INVARIANTS`."""
    return tuple(found for each in INVARIANTS if each.holds(kvm.profile) for found in each.check(kvm))


def step_violations(before: Kvm, command: Command, step: Step) -> tuple[Violation, ...]:
    """Return all violations by a step of what is claimed for the VM's profile, in the order of `STEP_INVARIANTS`."""
    return tuple(
        found for each in STEP_INVARIANTS if each.holds(before.profile) for found in each.check(before, command, step)
    )


def get_invariant(number: int) -> Invariant:
    """Return the property with this number; a KeyError says that no state property has it."""
    return _BY_NUMBER[number]


def get_step_invariant(number: int) -> StepInvariant:
    """Return the property of steps with this number; a KeyError says that there is none."""
    return _STEPS_BY_NUMBER[number]


# -- the list --------------------------------------------------------------------------------------


def _fits(profile: KernelProfile) -> bool:
    return not profile.move_keeps_arch_metadata


def _asks_about_trackers(profile: KernelProfile) -> bool:
    return profile.move_refused_for_external_user


def _refuses_moves(profile: KernelProfile) -> bool:
    return profile.move_refused_for_external_user and not profile.has_external_user_inverted


def _counts_follow(profile: KernelProfile) -> bool:
    return _fits(profile) and _no_survivors(profile)


def _no_survivors(profile: KernelProfile) -> bool:
    return profile.quirk_off_zaps_shadow_pages


def _kvmgt_survives_moves(profile: KernelProfile) -> bool:
    return _refuses_moves(profile) or profile.region_hook == "track_flush_slot"


def _refusals_lose_nothing(profile: KernelProfile) -> bool:
    """Say whether no refusal comes after the flush has told a tracker; without late checks there is none."""
    return profile.region_hook != "track_flush_slot" or profile.move_keeps_arch_metadata


def _asks_both_spaces(profile: KernelProfile) -> bool:
    return profile.write_tracked_in_both_spaces


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
    Invariant(1, "slots of one address space never overlap", slots.overlaps),
    Invariant(2, "both sets hold the same slots", slots.unequal_sets, at_rest=True),
    Invariant(3, "a generation belongs to its address space and only grows", slots.generations, at_rest=True),
    Invariant(5, "no slot at rest is INVALID", slots.invalid_at_rest, at_rest=True),
    Invariant(6, "every array has the length its slot needs", slots.wrong_lengths, holds=_fits, otherwise=_STALE),
    Invariant(7, "no gfn of a slot lies past the end of an array", slots.past_the_end, holds=_fits, otherwise=_STALE),
    Invariant(8, "huge frames that cannot be mapped are marked", slots.wrong_marks, holds=_fits, otherwise=_STALE),
    Invariant(
        9,
        "huge-page counters add up",
        tracking.huge_page_counters,
        holds=_counts_follow,
        otherwise=f"{_STALE}; or {_SURVIVORS}",
        unless=_WARNED,
    ),
    Invariant(
        10,
        "ledger balances",
        tracking.ledger,
        holds=_no_survivors,
        otherwise=_SURVIVORS,
        unless=f"somebody tracked without registering; or {_WARNED}",
    ),
    Invariant(
        11,
        "every tracked gfn of a tracker's own table has a positive count",
        tracking.protected,
        at_rest=True,
        holds=_kvmgt_survives_moves,
        otherwise=_FREED,
        unless=_IN_A_WINDOW,
    ),
    Invariant(
        12,
        "every page KVMGT believes it tracks is in its table",
        tracking.believed,
        at_rest=True,
        holds=_nowhere,
        otherwise=_ONE_SIDED,
    ),
    Invariant(13, "no mapping lets the guest write to a tracked gfn", tracking.writable_though_tracked, unless=_WARNED),
    Invariant(
        15,
        "no huge mapping covers a tracked gfn",
        tracking.huge_mappings,
        holds=_fits,
        otherwise=_STALE,
        unless=_WARNED,
    ),
    Invariant(
        16,
        "no SPTE maps through an INVALID or dead slot",
        tracking.homeless_sptes,
        holds=_no_survivors,
        otherwise=_SURVIVORS,
    ),
    Invariant(17, "memslot pages add up", slots.page_total, at_rest=True),
    Invariant(18, "a slot has a dirty bitmap if and only if it is logged", slots.bitmaps),
    Invariant(19, "logged slots add up", slots.logging_total, at_rest=True),
    Invariant(20, "no access to a freed array", slots.ownership),
    Invariant(23, "shadow pages are counted", tracking.shadow_page_count),
    Invariant(24, "the trees find exactly the slots of their set", slots.trees),
    Invariant(
        25,
        "internal slots are equal in every address space",
        slots.internal_slots,
        at_rest=True,
        holds=_nowhere,
        otherwise=_HALF_DONE,
    ),
)
"""Properties of states, in the order of their numbers."""

STEP_INVARIANTS: tuple[StepInvariant, ...] = (
    StepInvariant(4, "every call swaps the sets as often as its kind needs", steps.swaps),
    StepInvariant(
        14,
        "no step gives the other address space write access to a tracked gfn",
        steps.newly_writable_for_the_other_space,
        holds=_asks_both_spaces,
        otherwise="the fault asks for the count of its own address space only",
        unless="an entry was writable when the page began to be tracked, or is huge: nobody takes that back",
    ),
    StepInvariant(
        15,
        "no huge mapping is made where a page is tracked or the slot ends",
        steps.new_huge_sptes,
        holds=_fits,
        otherwise=_STALE,
        unless=_WARNED,
    ),
    StepInvariant(
        21,
        "a refused call changes no slot, no dirty bit and no tracker's count",
        steps.losses_of_a_refusal,
        holds=_refusals_lose_nothing,
        otherwise="KVMGT gives its counts up in the zap, before it is known that the call fails",
    ),
    StepInvariant(
        22,
        "a MOVE beside an external tracker fails",
        steps.moves_beside_a_tracker,
        concerns=_asks_about_trackers,
        holds=_refuses_moves,
        otherwise="the kernel asks the opposite of what is meant",
        unless="a tracker registers after the question was asked, inside the call",
    ),
)
"""Properties of steps, in the order of their numbers."""

_STEPS_BY_NUMBER = {each.number: each for each in STEP_INVARIANTS}
_BY_NUMBER = {each.number: each for each in INVARIANTS}
