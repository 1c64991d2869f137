"""A refused MOVE or DELETE over time: the slot before the call, while readers saw INVALID, and after it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from explorer.engine.uapi import KvmMrChange
from explorer.explain.ledger import Watch, ledger_of
from explorer.selectors.lane_parts import Bar, Label, Lane, holes, outline, slot_bar
from explorer.selectors.watch_lane import counts_beside, marks_of

if TYPE_CHECKING:
    from explorer.history.moment import Moment
    from explorer.selectors.gpa_map import Window

__all__ = ["before_during_after"]


def before_during_after(moment: Moment, windows: tuple[Window, ...]) -> tuple[Lane, ...]:
    """Draw a refused MOVE or DELETE as the window of time in which readers saw INVALID."""
    op, old, target = moment.op, moment.old, moment.target
    if op is None or old is None:
        return ()
    hidden = next(i for i, cell in enumerate(op.cells) if cell.swaps)
    restored = next((i for i, cell in enumerate(op.cells) if i > hidden and cell.swaps), len(op.cells) - 1)
    home = next((w for w in windows if w.first_gfn <= old.base_gfn and old.end_gfn <= w.end_gfn), windows[0])
    ledger = ledger_of(moment)
    now = ledger.watches if ledger is not None else ()
    before = tuple(w._replace(fate="held") for w in now)
    at_home = slot_bar(old, home, label=f"slot {old.id}", y0=0.58, y1=0.96)
    slot_before = Lane(
        "Before",
        f"steps 1 to {hidden}",
        (at_home,),
        marks_of(before, windows, y=0.28),
        (*_count_labels(before, windows, "shadow paging"), *holes(windows, [at_home])),
        stem_from=0.58,
        rule_below=True,
    )
    refused_bars = _outline_refused(target, windows) if target is not None and moment.change is KvmMrChange.MOVE else []
    invalid = op.cells[hidden].kvm.slot(old.id, old.as_id)
    hidden_bar = slot_bar(
        invalid or old, home, label=f"slot {old.id}: INVALID to every reader", style="invalid", y0=0.3, y1=0.7
    )
    if any(bar.x0 < hidden_bar.x1 and hidden_bar.x0 < bar.x1 for bar in refused_bars):
        # Asked for a place over its own: one above the other.
        hidden_bar = hidden_bar._replace(y0=0.54, y1=0.92)
        refused_bars = [bar._replace(y0=0.08, y1=0.46) for bar in refused_bars]
    during = Lane("During", f"steps {hidden + 1} to {restored}", (hidden_bar, *refused_bars), rule_below=True)
    if moment.stop.cell < restored:
        after = Lane(
            "After",
            f"step {restored + 1} on",
            labels=(Label(home.x0 + (home.x1 - home.x0) / 2, 0.5, "not yet", "ink_3"),),
        )
        return (slot_before, during, after)
    marks = marks_of(now, windows, y=0.28)
    after = Lane(
        "After",
        f"step {restored + 1} on",
        (at_home._replace(label=f"slot {old.id}, back"),),
        marks,
        (*_count_labels(now, windows, "released"), *holes(windows, [at_home])),
        stem_from=0.58,
    )
    return (slot_before, during, after)


def _outline_refused(target: tuple[int, int], windows: tuple[Window, ...]) -> list[Bar]:
    bars = outline(target, windows, "refused_target", "asked for, refused: nothing was built here")
    return [bar._replace(y0=0.3, y1=0.7, refused=True) for bar in bars]


def _count_labels(watches: tuple[Watch, ...], windows: tuple[Window, ...], word: str) -> list[Label]:
    """Say behind the last mark how many watches are shadow paging's; the number alone if the window ends first."""
    marks = marks_of(watches, windows, y=0.28)
    own = [w for w in watches if w.by == "shadow paging"]
    if not marks or not own:
        return []
    x = max(mark.x for mark in marks) + 18
    text = f"{len(own)} {word}"
    end = next((window.x1 for window in windows if x <= window.x1), windows[-1].x1)
    fits = x + len(text) * 7.4 <= end
    told = Label(x, 0.28, text if fits else str(len(own)), "internal", "left", bold=word == "released")
    return [told, *counts_beside(marks)]
