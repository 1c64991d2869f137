"""What an external tracker keeps: the log of a plain one, the tables of KVMGT.

Models struct intel_vgpu, intel_vgpu_ppgtt_spt and gvt_dma (drivers/gpu/drm/i915/gvt/gvt.h, gtt.h, kvmgt.c) as far as
write tracking and the last level of the GPU's tables go.
Not modelled: everything else of a vGPU. Read next: `paging_state`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from explorer.engine.sortedmap import SortedMap

if TYPE_CHECKING:
    from explorer.engine.types import Gfn, Hva

__all__ = ["GvtDma", "Kvmgt", "LogTracker", "ShadowEntry", "Spt", "Tracker", "TrackerNote"]


class TrackerNote(NamedTuple):
    """One callback a tracker received."""

    callback: str
    """``track_write``, ``track_flush_slot`` or ``track_remove_region``."""
    gfn: int
    """First gfn; for a write, the gfn written to."""
    npages: int
    """Pages of the region; 1 for a write."""
    slot: int | None = None
    as_id: int | None = None
    gpa: int | None = None
    """Of a write: where, how many bytes, and what."""
    nbytes: int | None = None
    value: int | None = None


class LogTracker(NamedTuple):
    """An external tracker that only logs its callbacks, as the recordings' module does."""

    attached: bool = False
    log: SortedMap[int, TrackerNote] = SortedMap()
    """Notes since the last read, numbered from 0."""

    def notes(self) -> tuple[TrackerNote, ...]:
        """Return the notes since the last read, oldest first."""
        return tuple(self.log.values())

    def with_note(self, note: TrackerNote) -> LogTracker:
        """Return the tracker with one note more."""
        return LogTracker(self.attached, self.log.set(len(self.log), note))


class ShadowEntry(NamedTuple):
    """One entry that the GPU really uses: where it leads, whatever the guest's own entry says by now."""

    gfn: Gfn
    """Guest page that the guest's entry named when it was shadowed."""
    hva: Hva
    """Host page that was pinned for it."""


class Spt(NamedTuple):
    """``struct intel_vgpu_ppgtt_spt``: KVMGT's shadow of one guest page table of the GPU."""

    entries: SortedMap[int, ShadowEntry] = SortedMap()
    """By index; every other entry leads to a scratch page."""
    post_shadow_bitmap: SortedMap[int, None] = SortedMap()
    """Entries that were half written and are shadowed when the guest next submits work."""


class GvtDma(NamedTuple):
    """``struct gvt_dma``: a guest page that is pinned for the GPU."""

    hva: Hva
    ref: int
    """How many shadow entries lead to it."""


class Kvmgt(NamedTuple):
    """A vGPU of KVMGT: what it asked KVM to watch, what it believes it watches, and what its GPU uses.

    The tables can disagree: `protect_table` is emptied by region callbacks, the others are not.
    """

    attached: bool = False
    protect_table: SortedMap[Gfn, None] = SortedMap()
    """``ptable``: gfns KVM was asked to intercept and KVMGT has not let go."""
    page_track_tree: SortedMap[Gfn, bool] = SortedMap()
    """``page_track_tree``: shadowed guest table pages with their ``tracked`` flag."""
    spts: SortedMap[Gfn, Spt] = SortedMap()
    """Shadow page tables, by the gfn of the guest's table."""
    gfn_cache: SortedMap[Gfn, GvtDma] = SortedMap()
    """Pinned pages by gfn. A page that is pinned is not looked up again."""


Tracker = LogTracker | Kvmgt
