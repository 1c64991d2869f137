"""Marks of broken invariants for the timeline, and what the rail says of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from explorer.figures.dom import Node, el, glyph

if TYPE_CHECKING:
    from explorer.selectors.invariants import BreakMark, BrokenRow

__all__ = ["broken_panel", "note_mark", "violation_mark"]


def violation_mark(mark: BreakMark) -> Node:
    """Return the mark of an operation that breaks an invariant, with its word."""
    return el(
        "span",
        glyph("violation", size=18),
        el("span", mark.word, cls="tl-mark-word"),
        cls="tl-mark tl-violation",
        title=mark.text,
    )


def note_mark() -> Node:
    """Return the mark of an operation that somebody wrote a note on."""
    return el("span", glyph("note", size=16), cls="tl-mark tl-note")


def broken_panel(rows: tuple[BrokenRow, ...]) -> Node:
    """Return what the rail says of the invariants that are broken at a stop."""
    return el("div", *(_broken(row) for row in rows), cls="told-broken", role="group", aria_label="broken invariants")


def _broken(row: BrokenRow) -> Node:
    return el(
        "div",
        el("h3", glyph("violation", size=16), " ", "Broken here" if row.now else "Still broken", f": I{row.number}"),
        el("p", el("b", row.name)),
        el("p", row.sentence),
        el("p", el("small", f"{row.since[:1].upper()}{row.since[1:]}. {row.why}")),
    )
