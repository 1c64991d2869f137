"""The verdict matrix as a document tree: a row for each kernel, a column for each way to build and use it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from explorer.explain.words import plural
from explorer.figures.dom import Node, el, glyph, rich

if TYPE_CHECKING:
    from explorer.selectors.matrix import MatrixCell, MatrixRow, MatrixView

__all__ = ["matrix_panel", "no_matrix_panel"]

_GLYPHS = {"allowed": "check", "refused": "rejected", "lost": "lost"}
_TESTS = (("posted", "list empty", "as posted"), ("merged", "list not empty", "as merged"))


def matrix_panel(view: MatrixView) -> Node:
    """Return the matrix with what it comes to and the switch of the test."""
    return el(
        "section",
        el(
            "div",
            el("h2", view.title, " ", el("small", view.where)),
            _switch(view),
            cls="kernels-head",
        ),
        el(
            "p",
            el("b", view.finding),
            *(el("span", *rich(text), cls="shows") for text in view.shows),
            el("span", f"{plural(view.pending, 'cell')} not computed yet", cls="shows") if view.pending else None,
            cls="finding" + (" is-loud" if any(row.loud for row in view.rows) else ""),
            title="; ".join((view.finding, *view.shows)).replace("`", ""),
        ),
        el(
            "table",
            el("colgroup", el("col", cls="c-kernel"), *(el("col", cls=f"c-{at}") for at in range(len(view.columns)))),
            _heads(view),
            el("tbody", *(_row(row, view.op) for row in view.rows)),
            cls="matrix",
            aria_label=f"{view.title}: {view.where}",
            data_grid="matrix",
        ),
        cls="kernels-matrix",
    )


def _heads(view: MatrixView) -> Node:
    """Return two lines of heads: how the kernel is built, and who uses it."""
    groups = dict.fromkeys(column.build for column in view.columns)
    first = (
        el(
            "th",
            el("b", build),
            colspan=sum(column.build == build for column in view.columns),
            scope="colgroup",
            cls="group",
        )
        for build in groups
    )
    second = (el("th", column.use, el("small", column.how), scope="col", cls="use") for column in view.columns)
    kernel = el("th", el("b", "kernel"), el("small", "refuses a MOVE if"), rowspan=2, scope="col")
    return el("thead", el("tr", kernel, *first), el("tr", *second))


def no_matrix_panel() -> Node:
    """Return what stands where no region call has run yet."""
    return el(
        "section",
        el("div", el("h2", "One call, every configuration"), cls="kernels-head"),
        el("p", "A region call appears here under every kernel and build, when one runs or is composed.", cls="empty"),
        cls="kernels-matrix",
    )


def _switch(view: MatrixView) -> Node:
    buttons = (
        el(
            "button",
            el("span", cls="dot dot-on" if view.test == name else "dot"),
            el("b", test),
            el("small", words),
            type="button",
            cls="test" + (" is-chosen" if view.test == name else ""),
            data_test=name,
            data_at=name,
            aria_pressed="true" if view.test == name else "false",
            aria_label=f"6.6 {words}: refuses a MOVE if the {test.replace('list', 'list of trackers is')}",
        )
        for name, test, words in _TESTS
    )
    return el(
        "div",
        el("small", "test of 6.6: refuse if"),
        *buttons,
        el("button", el("kbd", "I"), type="button", cls="key-chip", data_key="i", aria_label="turn the test round (I)"),
        cls="tests",
        role="group",
        aria_label="test",
    )


def _row(row: MatrixRow, op: int) -> Node:
    return el(
        "tr",
        el("th", el("b", row.title), el("small", f"{row.test} · {row.provenance}"), scope="row"),
        *(_cell(cell, op) for cell in row.cells),
        cls="is-loud" if row.loud else "",
    )


def _cell(cell: MatrixCell, op: int) -> Node:
    if cell.mark in ("impossible", "pending"):
        return el(
            "td",
            el("span", cell.word, " ", el("small", cell.cost.partition(":")[0]), cls=f"cell is-{cell.mark}"),
            title=cell.cost,
        )
    by = cell.word if " by " in cell.word else ""
    notes: list[Node] = [el("em", "≠ intended")] if cell.differs else []
    if cell.variants:
        notes += [el("small", f"{text.split()[0]} ≠", cls="variant") for text in cell.variants]
    elif cell.cost and not cell.differs:
        notes.append(el("small", cell.cost))
    return el(
        "td",
        el(
            "button",
            glyph(_GLYPHS[cell.mark], size=18),
            _outcome(cell),
            *notes,
            type="button",
            cls=f"cell is-{cell.mark}" + (" is-here" if cell.here else ""),
            **_opens(cell, op),
            aria_label=cell.spoken,
            aria_current="true" if cell.here else None,
            title=", ".join(text for text in (by, cell.cost, *cell.variants) if text) or None,
        ),
    )


def _outcome(cell: MatrixCell) -> Node:
    """Return result and word; of watches dropped or astray, by whom and of what is told aloud."""
    if cell.mark == "lost" and cell.word.count(" ") > 1:
        word, _, by = cell.word.partition(" by ")
        number, noun, fate = word.split(" ", 2)
        if by or fate == "astray":
            return el("span", el("b", cell.result), f", {number} {fate}")
        return el("span", el("b", cell.result), f", {number} ", el("span", f"{noun} ", cls="wide-only"), fate)
    return el("span", el("b", cell.result), f" {cell.word}" if cell.word else "")


def _opens(cell: MatrixCell, op: int) -> dict[str, object]:
    """Return the cell's name and what a click does: go to the call, where the page is not there yet switch it first."""
    key = f"{cell.profile}:{int(cell.built_in)}:{int(cell.attached)}"
    return {"data_at": key, **({"data_op": op} if cell.here else {"data_matrix": key})}
