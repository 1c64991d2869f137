"""The lane of huge pages: for each 2 MiB frame whether one may map it, and if not, what forbids it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from explorer.engine.lookup import slots_in_gfn_range
from explorer.engine.state import LpageInfo, LpageLevel
from explorer.engine.types import PG_LEVEL_2M
from explorer.explain.ledger import watches_of
from explorer.explain.words import hex_text, plural
from explorer.selectors.lane_parts import Bar, Lane, fitting, new_slot

if TYPE_CHECKING:
    from explorer.engine.state import Kvm, KvmMemorySlot
    from explorer.history.moment import Moment
    from explorer.selectors.gpa_map import Window

__all__ = ["huge_pages_lane"]

HUGE_BARS = 10
"""Most 2 MiB frames that are told one by one; more are drawn as runs."""


def huge_pages_lane(moment: Moment, windows: tuple[Window, ...]) -> Lane:
    """Say for each 2 MiB frame whether a huge page may map it, and if not, what forbids it."""
    bars: list[Bar] = []
    as_id = moment.focus.as_id if moment.focus is not None else 0
    shown = [
        slot
        for window in windows
        for slot in tuple(slots_in_gfn_range(moment.kvm.active(as_id), window.first_gfn, window.end_gfn))[:8]
    ]
    new = new_slot(moment)
    if new is not None and all((s.base_gfn, s.npages) != (new.base_gfn, new.npages) for s in shown):
        shown.append(new)
    for window in windows:
        for slot in shown:
            found = _huge_bars(moment.kvm, slot, window)
            over = [at for at, bar in enumerate(bars) if any(bar.x0 < b.x1 and b.x0 < bar.x1 for b in found)]
            if over:  # old and new arrays over the same pages: one above the other
                for at in over:
                    bars[at] = bars[at]._replace(y0=0.54, y1=0.94, label=f"old: {bars[at].label}")
                found = [bar._replace(y0=0.06, y1=0.46, label=f"new: {bar.label}") for bar in found]
            bars += found
    return Lane("2 MiB pages", "disallow_lpage", tuple(fitting(bar) for bar in bars[: 4 * HUGE_BARS]))


def _huge_bars(kvm: Kvm, slot: KvmMemorySlot, window: Window) -> list[Bar]:
    info = kvm.heap.get(slot.arch.lpage_info) if slot.arch.lpage_info is not None else None
    start, end = max(slot.base_gfn, window.first_gfn), min(slot.end_gfn, window.end_gfn)
    if not isinstance(info, LpageInfo) or start >= end:
        return []
    level = info.levels[PG_LEVEL_2M - 2]
    frames = range(start >> 9, ((end - 1) >> 9) + 1)
    if len(frames) > HUGE_BARS:
        return _huge_runs(kvm, slot, window, level, frames)
    bars = []
    for frame in frames:
        x0, x1 = (
            window.at(max(frame << 9, window.first_gfn, start)),
            window.at(min((frame + 1) << 9, window.end_gfn, end)),
        )
        text = _huge_text(kvm, slot, level, frame)
        style = "huge_yes" if text == "yes" else "huge_no"
        bars.append(Bar(x0, x1, style, text, f"2 MiB frame at gfn {hex_text(frame << 9)}<br>{text}", 0.28, 0.72))
    return bars


def _huge_runs(kvm: Kvm, slot: KvmMemorySlot, window: Window, level: LpageLevel, frames: range) -> list[Bar]:
    """Draw neighbouring frames with one answer as one bar; a single forbidden frame stays visible."""
    base = slot.base_gfn >> 9
    special = {0, level.n - 1} | {index for index, _ in level.added.items()}
    edges = sorted(
        {frames.start} | {f for i in special for f in (base + i, base + i + 1) if frames.start <= f < frames.stop}
    )
    bars = []
    for at, first in enumerate(edges):
        last = edges[at + 1] if at + 1 < len(edges) else frames.stop
        text = _huge_text(kvm, slot, level, first)
        x0 = window.at(max(first << 9, window.first_gfn, slot.base_gfn))
        x1 = window.at(min(last << 9, window.end_gfn, slot.end_gfn))
        style = "huge_yes" if text == "yes" else "huge_no"
        label = f"{plural(last - first, 'frame')}: {text}"
        bars.append(Bar(x0, max(x1, x0 + 2), style, label, f"from gfn {hex_text(first << 9)}<br>{label}", 0.28, 0.72))
    return bars


def _huge_text(kvm: Kvm, slot: KvmMemorySlot, level: LpageLevel, frame: int) -> str:
    """Return ``yes``, or ``no`` with the terms of the counter that forbid it."""
    index = frame - (slot.base_gfn >> 9)
    if not 0 <= index < level.n:
        return "no entry"
    value = level.value(index)
    if not value:
        return "yes"
    terms = []
    if level.mark(index):
        terms.append("host misaligned 1" if level.all else ("head 1" if index == 0 and level.head else "tail 1"))
    watches = sum(1 for watch in watches_of(kvm, slot) if watch.gfn >> 9 == frame)
    tables = sum(
        1
        for page in kvm.active_mmu_pages.values()
        if page.level == 1 and page.as_id == slot.as_id and page.gfn >> 9 == frame
    )
    if watches:
        terms.append(f"watches {watches}")
    if tables:
        terms.append(f"tables {tables}")
    return "no: " + " + ".join(terms) + (f" = {value}" if len(terms) > 1 else "")
