"""The right rail: verdict, sentences, source and sections."""

from __future__ import annotations

from typing import TYPE_CHECKING

from explorer.figures.dom import Node, el, glyph, rich

if TYPE_CHECKING:
    from explorer.selectors.rail import RailCell, RailView, Section

__all__ = ["rail_panel"]


def rail_panel(view: RailView) -> Node:
    """Return the rail."""
    return el(
        "div",
        el("h2", "Because"),
        _verdict(view),
        el("p", view.newcomer, cls="lead"),
        el("p", *rich(view.developer), cls="dev"),
        _chips(view),
        *(_section(section) for section in view.sections),
        cls="rail-body",
    )


def _verdict(view: RailView) -> Node:
    if view.icon == "octagon":
        ask = el("button", view.errno, type="button", cls="ask", data_why="errno", title="why? (W)")
        icon = el("span", glyph("stop", size=96), el("b", ask), cls="stop")
    else:
        icon = el(
            "span", glyph({"check": "check", "lost": "lost", "info": "other"}[view.icon], size=30), cls="verdict-icon"
        )
    subtitle = el(
        "span",
        glyph("lost", size=16) if view.subtitle_role == "lost" else None,
        " ",
        view.subtitle,
        cls=f"verdict-sub role-{view.subtitle_role}",
    )
    return el("div", icon, el("div", el("span", view.verdict, cls="verdict-title"), subtitle), cls="verdict")


def _chips(view: RailView) -> Node:
    chips: list[Node] = []
    if view.source is not None:
        chips.append(
            el(
                "a",
                f"{view.source.function}()",
                cls="chip code",
                href=view.source.url,
                target="_blank",
                rel="noreferrer noopener",
                title=f"{view.source.file} in {view.source.version}",
            )
        )
        chips.append(el("span", f"{view.source.file.rsplit('/', 1)[-1]} · {view.source.version}", cls="chip"))
    told = "what backs this sentence: recordings of that kernel, or the model of its code alone"
    chips.append(el("span", view.provenance, cls="chip", title=told))
    return el("div", *chips, cls="chips")


def _section(section: Section) -> Node:
    body: list[Node] = []
    if section.text:
        body.append(el("p", *rich(section.text)))
    if section.rows:
        head = (
            el("thead", el("tr", *(el("th", text, scope="col") for text in section.header))) if section.header else None
        )
        body.append(
            el(
                "table",
                head,
                el("tbody", *(el("tr", *(_rail_cell(cell) for cell in row)) for row in section.rows)),
                aria_label=section.title,
            )
        )
    if section.note:
        body.append(el("p", el("small", section.note)))
    return el("section", el("h3", section.title), *body)


def _rail_cell(cell: RailCell) -> Node:
    words: Node = cell.text
    if cell.why:
        words = el("button", cell.text, type="button", cls="ask", data_why=cell.why, title="why? (W)")
    elif cell.stop is not None:
        words = el("button", cell.text, type="button", cls="link", data_op=cell.stop.op, data_cell=cell.stop.cell)
    return el(
        "td",
        glyph(cell.glyph, size=16) if cell.glyph else None,
        " " if cell.glyph else None,
        words,
        cls=(f"role-{cell.role}" if cell.role else "") + (" num" if cell.number else ""),
    )
