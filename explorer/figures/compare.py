"""MOVE beside DELETE and CREATE as a document tree: one table, a row a fact."""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING

from explorer.figures.dom import Node, el, glyph

if TYPE_CHECKING:
    from explorer.selectors.compare import CompareRow, CompareView

__all__ = ["compare_panel"]

_TITLE = "MOVE beside DELETE + CREATE"


def compare_panel(view: CompareView) -> Node:
    """Return what it comes to and the table; where there is no MOVE, what would be here."""
    if view.notice:
        return el(
            "section",
            el("div", el("h2", _TITLE), cls="late-head"),
            el("p", view.notice, cls="empty"),
            cls="compare is-empty",
        )
    heads = ("", "fact", "MOVE", "DELETE, then CREATE", "")
    spoken = ("part", "fact", "MOVE", "DELETE, then CREATE", "differs")
    return el(
        "section",
        el("div", el("h2", _TITLE, " ", el("small", view.where)), cls="late-head"),
        el(
            "p",
            glyph("rejected", size=18) if view.refused else None,
            el("b", view.finding),
            el("span", view.why, cls="shows"),
            cls="finding" + (" is-refused" if view.refused else ""),
        ),
        el(
            "table",
            el("colgroup", *(el("col", cls=f"c-{name}") for name in ("group", "fact", "move", "pair", "mark"))),
            el(
                "thead",
                el(
                    "tr",
                    *(
                        el("th", head or el("span", say, cls="sr"), scope="col")
                        for head, say in zip(heads, spoken, strict=True)
                    ),
                ),
            ),
            *(_group(name, list(rows)) for name, rows in groupby(view.rows, key=lambda row: row.group)),
            cls="routes",
            aria_label=f"{_TITLE}: {view.where}",
        ),
        cls="compare",
    )


def _group(name: str, rows: list[CompareRow]) -> Node:
    return el("tbody", *(_row(row, (name, len(rows)) if at == 0 else None) for at, row in enumerate(rows)))


def _row(row: CompareRow, group: tuple[str, int] | None) -> Node:
    return el(
        "tr",
        el("th", group[0], scope="rowgroup", rowspan=group[1], cls="group") if group is not None else None,
        el("th", row.fact, scope="row"),
        el("td", row.move),
        el("td", row.pair),
        el("td", el("b", "≠", title="the routes differ") if row.differs else el("small", "same"), cls="mark"),
        cls="differs" if row.differs else "",
    )
