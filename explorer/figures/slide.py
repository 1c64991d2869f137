"""A slide: the verdict in letters for the last row, the numbers beside it, and the sentence under everything."""

from __future__ import annotations

from typing import TYPE_CHECKING

from explorer.figures.dom import Node, el, glyph

if TYPE_CHECKING:
    from explorer.selectors.guards import BillRow
    from explorer.selectors.slide import SlideView

__all__ = ["caption_panel", "slide_panel"]

_TWO_LINES = 120
"""Letters that two lines hold; longer sentences are set smaller, in three."""
_ICONS = {"octagon": "rejected", "check": "check", "lost": "lost", "info": "other"}


def slide_panel(view: SlideView) -> Node:
    """Return the badge, and beside it the table if there is one."""
    badge = el(
        "div",
        el("span", glyph(_ICONS[view.icon], size=64), cls="slide-icon"),
        el(
            "div",
            el("h2", view.headline),
            el("p", glyph("lost", size=18) if view.role == "lost" else None, view.subtitle, cls=f"role-{view.role}"),
        ),
        cls=f"slide-badge is-{view.icon}",
    )
    return el("div", badge, _table(view.rows) if view.rows else None, cls="slide" + (" has-rows" if view.rows else ""))


def _table(rows: tuple[BillRow, ...]) -> Node:
    head = el(
        "tr",
        el("th", el("span", "what", cls="only-read"), scope="col"),
        el("th", "before", scope="col"),
        el("th", "after", scope="col"),
        el("th", el("span", "note", cls="only-read"), scope="col"),
    )
    return el("table", el("thead", head), el("tbody", *(_row(row) for row in rows)), aria_label="what it changed")


def _row(row: BillRow) -> Node:
    mark = glyph(row.mark, size=16) if row.mark else None
    return el(
        "tr",
        el("th", row.what, " " if mark else None, mark, scope="row", title=row.what),
        el("td", row.before, title=row.before),
        el("td", el("b", row.after), title=row.after),
        el("td", row.note, title=row.note),
        cls="" if row.paid else "is-kept",
    )


def caption_panel(view: SlideView) -> Node:
    """Return the sentence under the picture, and where the talk is."""
    beat = el("span", view.beat.lower()) if view.beat else None
    return el(
        "div",
        el("p", view.caption, title=view.caption, cls="is-long" if len(view.caption) > _TWO_LINES else ""),
        el("div", el("b", view.place), beat, cls="caption-place"),
        cls="caption",
    )
