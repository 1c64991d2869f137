"""What a check of a region call is, the ladder checks stand in, and how they are asked.

Rule 1: a check is one comparison with one errno; those that share an ``if`` in the kernel are separate here, in the
order in which C evaluates them, so that each cause can be named.
Rule 2: a check that passes changes nothing. What a refusal has already cost depends on where the check stands: those
of `Ladder.prepare_move` are asked only after the old slot was invalidated and zapped.

Models the order of the checks in virt/kvm/kvm_main.c: kvm_set_memory_region() and what it calls.
Not modelled: the checks themselves; they are in `guards` and `gmem_guards`. Read next: `guards`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from explorer.engine.draft import built
from explorer.engine.types import PAGE_SIZE, Errno
from explorer.engine.uapi import (
    KvmMrChange,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from explorer.engine.draft import KvmDraft
    from explorer.engine.profile import KernelProfile
    from explorer.engine.region_call import RegionUpdate

__all__ = ["Guard", "GuardResult", "Ladder", "first_refusal", "multiple"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Guard:
    """One check: what must hold, where it is, and what is returned if it does not."""

    name: str
    """Identifier, such as ``overlap``."""
    title: str
    """What must hold, in a few words."""
    function: str
    """Kernel function it stands in."""
    errno: Errno
    passes: Callable[[KvmDraft, RegionUpdate], bool]
    operands: Callable[[KvmDraft, RegionUpdate], str]
    """The values compared, for a reader."""
    behaviour: Callable[[KernelProfile], bool] = lambda _profile: True
    """Whether a profile has the check at all."""


class GuardResult(NamedTuple):
    """What became of one check in one call."""

    guard: Guard
    passed: bool
    operands: str


class Ladder(NamedTuple):
    """The checks of one profile, by where they stand. Each part is in kernel order."""

    ioctl: tuple[Guard, ...]
    """Asked of every call in the ioctl's own code, before the memslot code is entered."""
    arguments: tuple[Guard, ...]
    """Asked of every call, before a slot is looked up."""
    delete: tuple[Guard, ...]
    create: tuple[Guard, ...]
    existing: tuple[Guard, ...]
    """Asked when a slot with the id exists and the size is not zero."""
    place: tuple[Guard, ...]
    """Asked of CREATE and MOVE; the last that is free."""
    bitmap: tuple[Guard, ...]
    """Asked of whatever keeps a slot, when its dirty bitmap is prepared; of a MOVE after the zap from v5.17 on."""
    prepare_move: tuple[Guard, ...]
    """Asked of MOVE after the old slot was invalidated and zapped."""
    prepare_create: tuple[Guard, ...]
    gmem: tuple[Guard, ...]
    """Asked of a CREATE on guest_memfd before the slot is prepared."""
    gmem_commit: tuple[Guard, ...]
    """Asked of it when it is prepared."""

    def of(self, change: KvmMrChange | None) -> tuple[Guard, ...]:
        """Return the whole ladder of one kind of change, top to bottom."""
        match change:
            case KvmMrChange.DELETE:
                return self.ioctl + self.arguments + self.delete
            case KvmMrChange.CREATE:
                before = self.ioctl + self.arguments + self.create + self.place + self.gmem
                return before + self.bitmap + self.prepare_create + self.gmem_commit
            case KvmMrChange.MOVE:
                return self.ioctl + self.arguments + self.existing + self.place + self.bitmap + self.prepare_move
            case KvmMrChange.FLAGS_ONLY:
                return self.ioctl + self.arguments + self.existing + self.bitmap
            case _:
                return self.ioctl + self.arguments + self.existing


def first_refusal(kvm: KvmDraft, update: RegionUpdate, guards: tuple[Guard, ...]) -> Guard | None:
    """Ask `guards` in order and return the first that refuses; note the results if someone records."""
    if kvm.events is None:
        for guard in guards:
            if not guard.passes(kvm, update):
                return guard
        return None
    for guard in guards:
        passed = guard.passes(kvm, update)
        update.results.append(built(GuardResult, (guard, passed, guard.operands(kvm, update))))
        if not passed:
            return guard
    return None


def multiple(value: int) -> str:
    """Return for a reader whether an address or a size is one of whole pages."""
    return f"{value:#x} is {'a' if value % PAGE_SIZE == 0 else 'no'} multiple of {PAGE_SIZE:#x}"
