"""The equation of watches: what there was, and what became of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from explorer.figures.dom import Node, el, glyph

if TYPE_CHECKING:
    from explorer.explain.ledger import Ledger

__all__ = ["ledger_panel"]


def ledger_panel(ledger: Ledger | None) -> Node:
    """Return the equation of watches: before = returned + kept + lost."""
    if ledger is None:
        return el("div", cls="ledger is-empty")
    own = sum(1 for w in ledger.watches if w.by == "shadow paging")
    trackers = ledger.before - own
    lost = ledger.lost + ledger.will_be_lost
    when = f"will be lost at step {ledger.lost_at}" if ledger.will_be_lost else "lost"
    return el(
        "div",
        _term(
            ledger.before,
            None,
            "watches before" if ledger.before != 1 else "watch before",
            f"{own} shadow paging, {trackers} tracker",
        ),
        el("span", "=", cls="op"),
        _term(
            ledger.returned,
            "returned",
            "returned by the zap" if not ledger.dropped else "returned or dropped" if own else "dropped",
            "harmless: the zap comes before the slot changes"
            if not ledger.dropped
            else f"harmful: the tracker’s own callback dropped {ledger.dropped}",
        ),
        el("span", "+", cls="op"),
        _term(ledger.kept, None, "kept", "still in the array" if ledger.kept else "new arrays start at zero"),
        el("span", "+", cls="op"),
        _term(
            lost,
            "lost",
            when,
            _why_harmful(ledger) if lost else "nothing is lost",
            loud=lost > 0,
        ),
        cls="ledger",
        role="group",
        aria_label=f"{ledger.before} watches before, {ledger.returned} returned, {ledger.kept} kept, {lost} {when}",
    )


def _why_harmful(ledger: Ledger) -> str:
    if ledger.losers == "the external tracker":
        return "harmful: the tracker still counts on them"
    return "harmful: the shadow pages they stand for live on"


def _term(n: int, icon: str | None, words: str, note: str, *, loud: bool = False) -> Node:
    return el(
        "div",
        el("span", str(n), cls="key"),
        glyph(icon) if icon and n else None,
        el("span", el("b", words), el("small", note)),
        cls=f"term term-{icon or 'plain'}" + (" is-loud" if loud else ""),
    )
