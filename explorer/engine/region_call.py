"""A region call while it runs: its local variables, its table of phases, and how far it has come.

Rule: a phase ends where another CPU may look. Between two phases the call is part of the state (`PendingUpdate`), so
that a reader can stop there and other commands can run there.

Models the locals of virt/kvm/kvm_main.c: kvm_set_memory_region() and of what it calls.
Not modelled: what the phases do; that is in `memslots` and `swap`. Read next: `guard`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from explorer.engine.commands import SetMemoryRegion  # noqa: TC001 - mypyc looks it up where the class is made
from explorer.engine.types import PAGE_SHIFT, Errno

if TYPE_CHECKING:
    from collections.abc import Callable

    from explorer.engine.draft import KvmDraft
    from explorer.engine.guard import Guard, GuardResult
    from explorer.engine.profile import KernelProfile
    from explorer.engine.state import KvmMemorySlot
    from explorer.engine.uapi import KvmMrChange

__all__ = ["PendingUpdate", "Phase", "RegionUpdate", "run_phase", "run_to_end"]


class Phase(NamedTuple):
    """One row of a table: what runs until another CPU may look."""

    name: str
    """Identifier within its table."""
    cell: str
    """Word under which a reader sees it; neighbours with one word are shown as one step."""
    function: str
    """Kernel function in which the phase ends."""
    run: Callable[[KvmDraft, RegionUpdate], None]
    arch_lock: bool = False
    """Whether slots_arch_lock is held when the phase has ended: from the first copy to each swap."""


class PendingUpdate(NamedTuple):
    """A region call in progress, frozen: part of `Kvm` between two phases."""

    call: SetMemoryRegion
    internal: bool
    change: KvmMrChange | None
    """Set once the call is classified."""
    old: KvmMemorySlot | None
    invalid: KvmMemorySlot | None
    new: KvmMemorySlot | None
    phases: tuple[Phase, ...]
    """The table as it stands: a refusal replaces the rows that are left."""
    at: int
    """How many phases ran."""
    errno: Errno | None
    refused_by: Guard | None
    results: tuple[GuardResult, ...]
    """The checks asked so far; empty if the step is not recorded."""

    @property
    def holds_slots_arch_lock(self) -> bool:
        """Whether the call holds slots_arch_lock, so that no other CPU may give slots arrays now."""
        returns = self.at == len(self.phases) - 1  # the last phase does nothing else
        return self.at > 0 and not returns and self.phases[self.at - 1].arch_lock

    def thaw(self) -> RegionUpdate:
        """Return the mutable form."""
        update = RegionUpdate(self.call, self.phases, internal=self.internal)
        update.change, update.old, update.invalid, update.new = self.change, self.old, self.invalid, self.new
        update.at, update.errno, update.refused_by = self.at, self.errno, self.refused_by
        update.results = list(self.results)
        return update


class RegionUpdate:
    """The local variables of a region call while it runs."""

    __slots__ = PendingUpdate._fields

    call: SetMemoryRegion
    internal: bool
    change: KvmMrChange | None
    old: KvmMemorySlot | None
    invalid: KvmMemorySlot | None
    new: KvmMemorySlot | None
    phases: tuple[Phase, ...]
    at: int
    errno: Errno | None
    refused_by: Guard | None
    results: list[GuardResult]

    def __init__(self, call: SetMemoryRegion, phases: tuple[Phase, ...], *, internal: bool) -> None:
        """Stand before the first phase."""
        self.call = call
        self.internal = internal
        self.change = self.old = self.invalid = self.new = self.errno = self.refused_by = None
        self.phases = phases
        self.at = 0
        self.results = []

    def freeze(self) -> PendingUpdate:
        """Return the immutable form."""
        return PendingUpdate(
            self.call,
            self.internal,
            self.change,
            self.old,
            self.invalid,
            self.new,
            self.phases,
            self.at,
            self.errno,
            self.refused_by,
            tuple(self.results),
        )

    @property
    def npages(self) -> int:
        """Pages the call asks for."""
        return self.call.memory_size >> PAGE_SHIFT

    def checks_hva(self, profile: KernelProfile) -> bool:
        """Return whether the host address of this call is checked."""
        return profile.hva_checked_for_internal_slots or not self.internal


def run_to_end(kvm: KvmDraft, update: RegionUpdate) -> None:
    """Run the phases of a call one after another; a phase may replace those that are left."""
    while update.at < len(update.phases):
        phase = update.phases[update.at]
        update.at += 1
        phase.run(kvm, update)
    kvm.update = None


def run_phase(kvm: KvmDraft) -> None:
    """Run the next phase of the call in progress; after the last one there is none."""
    update = kvm.update
    assert update is not None, "only a call in progress has phases"
    phase = update.phases[update.at]
    update.at += 1
    phase.run(kvm, update)
    if update.at == len(update.phases):
        kvm.update = None
