"""The table of slots and holes: the map in words."""

from __future__ import annotations

from typing import TYPE_CHECKING

from explorer.figures.dom import Node, el

if TYPE_CHECKING:
    from explorer.selectors.slot_table import SlotTableView

__all__ = ["slot_table_panel"]


def slot_table_panel(view: SlotTableView) -> Node:
    """Return the table of slots and holes."""
    heads = ("slot", "first gpa", "last gpa", "size", "hva", "flags", "watches")
    rows = []
    for row in view.rows:
        cells = [
            el("td", text, cls="num" if at in (3, 6) else "code" if at in (1, 2, 4) else "")
            for at, text in enumerate((row.name, row.first, row.last, row.size, row.hva, row.flags, row.watches))
        ]
        if row.key is not None:
            cells[0] = el(
                "td", el("button", row.name, type="button", cls="link", data_slot=f"{row.key.as_id}:{row.key.slot_id}")
            )
        rows.append(el("tr", *cells, cls=f"is-{row.kind}" + (" is-selected" if row.selected else "")))
    return el(
        "div",
        el(
            "table",
            el("caption", view.caption),
            el("thead", el("tr", *(el("th", text, scope="col") for text in heads))),
            el("tbody", *rows),
            cls="slots",
        ),
        el("p", view.notice) if view.notice else None,
        cls="slot-table",
    )
