"""The equation of watches: what there was, and what became of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from explorer.figures.dom import Node, el, glyph

if TYPE_CHECKING:
    from explorer.explain.ledger import Ledger

__all__ = ["ledger_panel"]


def ledger_panel(ledger: Ledger | None) -> Node:
    """Return the equation of watches: before = released + kept + dropped + lost.

    Of the last two the one that is 0 is left out if the other is not.
    """
    if ledger is None:
        return el("div", cls="ledger is-empty")
    own = sum(1 for w in ledger.watches if w.by == "shadow paging")
    trackers = ledger.before - own
    harmed = _harmed(ledger)
    told = ", ".join(f"{n} {words}" for n, words, _ in harmed)
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
            ledger.released,
            "released",
            "released by the zap",
            "harmless: the zap comes before the slot changes",
        ),
        el("span", "+", cls="op"),
        _term(ledger.kept, None, "kept", "still in the array" if ledger.kept else "new arrays start at zero"),
        *(
            node
            for n, words, note in harmed
            for node in (el("span", "+", cls="op"), _term(n, "lost", words, note, loud=n > 0))
        ),
        cls="ledger",
        role="group",
        aria_label=f"{ledger.before} watches before, {ledger.released} released, {ledger.kept} kept, {told}",
    )


def _harmed(ledger: Ledger) -> tuple[tuple[int, str, str], ...]:
    """Return the terms of what is not there for who counts on it: number, words and why that is harmful."""
    lost, dropped = ledger.lost + ledger.will_be_lost, ledger.dropped + ledger.will_be_dropped
    when = f"will be lost at step {ledger.lost_at}" if ledger.will_be_lost else "lost"
    how = f"will be dropped by KVMGT at step {ledger.dropped_at}" if ledger.will_be_dropped else "dropped by KVMGT"
    terms = ((dropped, how, "harmful: its flags still say tracked"), (lost, when, _why_harmful(ledger)))
    return tuple(term for term in terms if term[0]) or ((0, "lost", "nothing is lost"),)


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
