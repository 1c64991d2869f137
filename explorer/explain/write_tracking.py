"""Whether slots have write-track counts at all, and what makes KVM allocate them."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from explorer.engine.state import Kvm

__all__ = ["Counts", "counts_of_the_vm"]


class Counts(NamedTuple):
    """Whether there are counts, and why."""

    exist: bool
    short: str
    """Why, in a few words."""
    sentence: str
    """Why, with the function that decides; calls are backquoted."""


def counts_of_the_vm(kvm: Kvm) -> Counts:
    """Return whether slots of a VM have write-track counts.

    References
    ----------
    arch/x86/kvm/mmu/page_track.c: kvm_page_track_write_tracking_enabled() [v6_1 to v7_3]
    """
    profile, config = kvm.profile, kvm.config
    if profile.track_arrays == "always":
        text = f"`kvm_page_track_create_memslot()` of {profile.title} allocates them with every slot and asks nothing."
        return Counts(True, "made with every slot", text)
    built = profile.track_arrays == "by config"
    third = "a build with external tracking" if built else "a tracker that has registered"
    asks = (
        f"`kvm_page_track_write_tracking_enabled()` of {profile.title} asks for TDP off, a shadow root that was made,"
        f" or {third}"
    )
    if not config.tdp:
        return Counts(True, "made with every slot: TDP is off", f"Made with every slot, because TDP is off: {asks}.")
    if built and config.external_write_tracking:
        return Counts(
            True,
            "made with every slot: external tracking is built in",
            f"Made with every slot, because external tracking is built in: {asks}.",
        )
    if not built and kvm.external_write_tracking_enabled:
        return Counts(
            True, "made for the first tracker", f"Made for every slot when the first tracker registered: {asks}."
        )
    if kvm.shadow_root_allocated:
        return Counts(
            True, "made with the first shadow root", f"Made for every slot with the first shadow root: {asks}."
        )
    if not built and config.external_write_tracking:
        wait, first = "the first tracker or shadow root", "The first tracker or shadow root makes them for every slot."
    else:
        wait, first = "the first shadow root", "The first shadow root makes them for every slot."
        if not config.external_write_tracking:
            first += " No tracker can register: external tracking is not built in."
    return Counts(False, f"TDP is on: made for {wait}", f"None yet: {asks}; here TDP is on. {first}")
