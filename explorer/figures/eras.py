"""The ribbon as a document tree: a row for each kernel, a column for each operation, and what changes between two."""

from __future__ import annotations

from typing import TYPE_CHECKING

from explorer.explain.words import count_text, plural
from explorer.figures.dom import Node, el, glyph

if TYPE_CHECKING:
    from explorer.selectors.eras import EraCell, EraChange, EraColumn, EraRow, ErasView

__all__ = ["eras_panel"]


def eras_panel(view: ErasView) -> Node:
    """Return the ribbon and the comparison of two kernels below it."""
    if not view.columns:
        return el(
            "section",
            el("div", el("h2", "One sequence, every kernel"), cls="kernels-head"),
            el("p", "The operations of the run appear here under every kernel.", cls="empty"),
            cls="kernels-eras",
        )
    return el(
        "section",
        el(
            "div",
            el("h2", "One sequence, every kernel ", el("small", f"compared with {view.reference}; {_extent(view)}")),
            _first(view),
            cls="kernels-head",
        ),
        el(
            "table",
            el("colgroup", el("col", cls="c-kernel"), *(el("col") for _ in view.columns), el("col", cls="c-end")),
            el(
                "thead",
                el(
                    "tr",
                    el("th", el("span", "kernel", cls="sr"), scope="col"),
                    *(_head(column) for column in view.columns),
                    el("th", el("span", "differences", cls="sr"), scope="col"),
                ),
            ),
            el("tbody", *(_row(row, view.columns) for row in view.rows)),
            cls="eras",
            aria_label="results of each operation under each kernel",
            data_grid="eras",
        ),
        _changes(view),
        cls="kernels-eras",
    )


def _extent(view: ErasView) -> str:
    """Return which part of the run is shown and, if it is not all of it, replayed."""
    hidden = [
        f"{count_text(n)} {where}" for n, where in ((view.hidden_before, "before"), (view.hidden_after, "after")) if n
    ]
    shown = f"{' and '.join(hidden)} are outside the window" if hidden else f"all {plural(view.ops, 'operation')}"
    if view.reached < view.ops:
        shown += f"; {count_text(view.reached)} of {count_text(view.ops)} operations replayed so far"
    return shown


def _first(view: ErasView) -> Node:
    if view.first is None:
        so_far = " so far" if view.reached < view.ops else ""
        return el("span", f"all kernels agree{so_far}", cls="agree")
    return el(
        "button",
        el("span", "First difference: ", el("b", f"operation {count_text(view.first + 1)}")),
        el("kbd", "J"),
        type="button",
        cls="mx-key first-difference",
        data_op=view.first,
    )


def _head(column: EraColumn) -> Node:
    title = f"{column.title}?" if column.composed else column.title
    number = str(column.first + 1) if column.first == column.last else f"{column.first + 1} to {column.last + 1}"
    return el(
        "th",
        el("b", title),
        el("small", column.detail or number),
        scope="col",
        cls=" ".join(word for word, on in (("is-now", column.now), ("parts", column.parts)) if on),
        title=f"operation {number}: {column.title} {column.detail}" + (", not applied yet" if column.composed else ""),
    )


def _row(row: EraRow, columns: tuple[EraColumn, ...]) -> Node:
    name = el(
        "button",
        el("span", cls="dot dot-on" if row.picked else "dot"),
        el("b", row.title) if row.here else row.title,
        type="button",
        cls="link",
        data_pick=row.profile,
        data_at=row.profile,
        aria_pressed="true" if row.picked else "false",
        aria_label=f"{row.title}: compare its results",
        title=row.summary,
    )
    end = (
        "the page’s kernel"
        if row.here
        else "the same"
        if row.first is None
        else f"{count_text(row.differing)} differ{'s' if row.differing == 1 else ''}"
    )
    return el(
        "tr",
        el("th", name, scope="row"),
        *(_cell(cell, column, here=row.here) for cell, column in zip(row.cells, columns, strict=True)),
        el("td", end, cls="end" + (" is-different" if row.first is not None else "")),
        cls="is-here" if row.here else "",
    )


def _cell(cell: EraCell, column: EraColumn, *, here: bool) -> Node:
    marks = (
        ("is-now", column.now),
        ("parts", column.parts),
        ("differs", cell.differs),
        ("first", cell.first),
    )
    words = " ".join(word for word, on in marks if on)
    if cell.kind == "pending":
        return el("td", el("span", cell.text, cls="cell is-pending"), cls=words, title="not replayed yet")
    return el(
        "td",
        el(
            "button",
            glyph(cell.glyph, size=16) if cell.glyph else None,
            el("span", f"≠ {cell.text}" if cell.first and not cell.glyph else cell.text),
            type="button",
            cls=f"cell is-{cell.kind}",
            **({"data_op": cell.op} if here else {"data_era": f"{cell.profile}:{cell.op}"}),
            data_at=f"{cell.profile}:{cell.op}",
            aria_label=cell.spoken,
        ),
        cls=words,
    )


def _changes(view: ErasView) -> Node:
    one, other = view.pair
    found = plural(view.changed, "result") if view.changed else "no result"
    verb = "changes" if view.changed <= 1 else "change"
    rest = view.changed - len(view.changes)
    return el(
        "p",
        el("b", f"From {one} to {other}: {found} {verb}"),
        *(_change(change) for change in view.changes),
        el("span", f"and {count_text(rest)} more") if rest else None,
        el("small", "choose two kernels by name to compare them", cls="hint"),
        cls="changes",
        role="status",
    )


def _change(change: EraChange) -> Node:
    return el(
        "button",
        f"{count_text(change.op + 1)} {change.title}: {change.before} → ",
        el("b", change.after),
        type="button",
        cls="mx-key",
        data_op=change.op,
    )
