"""Old slot, INVALID copy and new slot, field by field; and what an operation without steps changed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from explorer.figures.dom import Node, el, glyph

if TYPE_CHECKING:
    from explorer.selectors.effects import EffectsView
    from explorer.selectors.hand_off import FieldRow, HandOffView, Value

__all__ = ["effects_panel", "hand_off_panel"]

_FATES = {
    "kept": "= kept",
    "changed": "≠ changed",
    "handed over": "⇥ handed over",
    "from zero": "✳ from zero",
    "freed": "× freed",
    "new": "✳ new",
    "none": "–",
}


def hand_off_panel(view: HandOffView) -> Node:
    """Return the table of fields with a fate each."""
    heads = [
        el("th", el("span", glyph(icon), " ", el("b", column.name)), el("small", column.where), scope="col")
        for icon, column in zip(("slot", "invalid", "new"), view.columns, strict=True)
    ]
    return el(
        "table",
        el(
            "thead",
            el(
                "tr",
                el("th", el("span", "field", cls="only-read"), scope="col"),
                *heads,
                el("th", el("b", "fate"), scope="col"),
            ),
        ),
        el("tbody", _quiet_row(view), *(_field_row(row) for row in view.rows)),
        cls="fields",
        aria_label=f"fields of the slot through this {view.change}",
    )


def effects_panel(view: EffectsView) -> Node:
    """Return the table of what an operation without steps changed."""
    rows = [
        el(
            "tr",
            el("th", row.what, scope="row"),
            el("td", row.before),
            el("td", el("b", row.after)),
            el("td", el("code", f"{row.function}()") if row.function else "", cls="where"),
        )
        for row in view.rows
    ]
    heads = ("what it changed", "before", "after", "function")
    return el(
        "div",
        el(
            "table",
            el("thead", el("tr", *(el("th", el("b", text), scope="col") for text in heads))),
            el("tbody", *rows),
            cls="fields effects",
        ),
        el("p", f"and {view.more} more", cls="empty") if view.more else None,
    )


def _quiet_row(view: HandOffView) -> Node | None:
    """Return one row that stands for all that keep their value, where there is little room."""
    kept = [row.field for row in view.rows if row.fate in ("kept", "none")]
    if not kept:
        return None
    names = ", ".join(kept)
    return el("tr", el("th", names, colspan=4, scope="row", title=names), el("td", _FATES["kept"]), cls="folded")


def _field_row(row: FieldRow) -> Node:
    quiet = row.fate in ("kept", "none")
    cls = (
        ("is-quiet" if quiet else "")
        + (" is-message" if row.message else "")
        + (" is-changed" if row.changed_now else "")
    )
    return el(
        "tr",
        el("th", _asked(row.field), scope="row"),
        el("td", *_value(row.old)),
        el("td", *_value(row.invalid)),
        el("td", *_value(row.new, bold=row.fate in ("changed", "from zero") and not row.new.same)),
        el("td", _FATES[row.fate], cls="fate"),
        cls=cls.strip(),
    )


def _asked(field: str) -> Node:
    """Return the name of a field; of one whose value can be asked about, as a button."""
    if field != "flags":
        return field
    return el("button", field, type="button", cls="ask", data_why="flags", title="why? (W)")


def _value(value: Value, *, bold: bool = False) -> list[Node]:
    if not value.text:
        return [el("span", "–", cls="absent")]
    if value.tag:
        tag = el("span", value.tag, cls="tag tag-new" if value.fresh else "tag")
        return [tag, " ", "same" if value.same and not value.fresh else value.text]
    if value.same:
        return [el("span", "same", cls="same")]
    return [el("b", value.text) if bold else value.text]
