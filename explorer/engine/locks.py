"""The locks a region call holds while it is stopped between two phases, and which commands wait for them.

In the kernel a thread sleeps until it gets the lock. Here nobody sleeps: a command that would is refused, changes
nothing, and can be given again once the region call has gone on.

Models include/linux/kvm_host.h: slots_lock and slots_arch_lock of struct kvm.
Not modelled: that up to v5_10 there is no slots_arch_lock; mmu_lock, SRCU and the vCPU's mutex as locks of their own;
a phase ends where none of them is held that another command needs. Read next: `lookup`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from explorer.engine.types import ExplorerError

if TYPE_CHECKING:
    from explorer.engine.commands import Command
    from explorer.engine.state import Kvm

__all__ = ["BusyError", "need_arch_lock", "need_lock", "need_lock_for_paging"]


class BusyError(ExplorerError):
    """A command needs a lock that a region call, stopped between two phases, holds."""


def need_lock(kvm: Kvm, command: Command) -> None:
    """Raise `BusyError` while a region call is in progress: it holds slots_lock from its first line to its last."""
    if kvm.pending is not None:
        raise BusyError(
            f"{type(command).__name__} needs slots_lock, which the region call in progress holds; advance it first"
        )


def need_arch_lock(kvm: Kvm, command: Command) -> None:
    """Raise `BusyError` where slots' arrays may not be added to: from a copy of a slot to the swap that shows it."""
    if kvm.pending is not None and kvm.pending.holds_slots_arch_lock:
        raise BusyError(
            f"{type(command).__name__} needs slots_arch_lock, which the region call in progress holds here;"
            " advance it past its next swap first"
        )


def need_lock_for_paging(kvm: Kvm, command: Command) -> None:
    """Refuse an access that would make the first shadow root while slots' arrays are locked: it gives slots arrays."""
    if kvm.vcpu.mode == "long" and not kvm.config.tdp and not kvm.shadow_root_allocated:
        need_arch_lock(kvm, command)
