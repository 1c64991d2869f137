"""A refused region call to scale, as a document tree: lines of boxes on one axis, and the same in sentences."""

from __future__ import annotations

from typing import TYPE_CHECKING

from explorer.figures.dom import Node, el, glyph

if TYPE_CHECKING:
    from explorer.selectors.xray import XrayBox, XrayRow, XrayView

__all__ = ["xray_panel"]


def xray_panel(view: XrayView) -> Node:
    """Return the picture; a screen reader gets the sentences instead of the boxes."""
    before, asked, *works = view.rows
    return el(
        "div",
        el(
            "div",
            el("h3", view.title),
            None if view.clash_at is not None else _clash_words(view),
            el("small", view.sub),
            el("span", view.free, cls="xray-free"),
            cls="xray-head",
        ),
        el(
            "div",
            el("div", _name(before), _name(asked), cls="xray-names"),
            el(
                "div",
                _track(before),
                _track(asked),
                *(_box(box, cls="xray-clash") for box in view.clash),
                *(() if view.clash_on else (_octagon(box) for box in view.clash)),
                _clash_words(view) if view.clash_at is not None else None,
                cls="xray-pair",
            ),
            el("span"),
            *(part for row in works for part in _works(row)),
            el("span", cls="xray-corner"),
            el("div", *(_tick(x, text) for x, text in view.ticks), cls="xray-axis"),
            el("span"),
            cls="xray-grid",
            aria_hidden="true",
        ),
        el("p", view.nothing, cls="xray-nothing") if view.nothing else None,
        el("div", *(el("p", sentence) for sentence in view.told), cls="only-read"),
        cls="xray",
    )


def _name(row: XrayRow) -> Node:
    return el("span", el("b", row.name), el("span", row.sub, title=row.sub, cls="xray-sub"), cls="xray-name")


def _clash_words(view: XrayView) -> Node:
    """Return the words on what is refused: on it, beside it, or, where there is no room, in the head."""
    octagon = view.clash_on or view.clash_at is None
    return el(
        "span",
        glyph("rejected", size=18) if octagon else None,
        el("b", view.clash_label),
        cls="xray-label" + (" is-on" if view.clash_on else ""),
        vars={"--at": f"{view.clash_at:.4f}"} if view.clash_at is not None else None,
    )


def _track(row: XrayRow) -> Node:
    return el("div", *(part for box in row.boxes for part in (_box(box), _word(box))), cls="xray-track")


def _works(row: XrayRow) -> tuple[Node, Node, Node]:
    costs = f"{row.result}, but {row.costs}" if row.costs else row.result
    return (
        _name(row),
        _track(row),
        el(
            "span",
            glyph("lost" if row.costs else "check", size=16),
            el("b", costs, title=costs),
            cls="xray-result" + (" is-costly" if row.costs else ""),
        ),
    )


def _box(box: XrayBox, cls: str = "xray-box") -> Node:
    torn = "".join(f" is-torn-{side}" for side in box.torn.split())
    return el(
        "span",
        cls=f"{cls} is-{box.style.replace('_', '-')}{torn}",
        title=box.title,
        vars={"--x0": f"{box.x0:.4f}", "--x1": f"{box.x1:.4f}"},
    )


def _word(box: XrayBox) -> Node | None:
    if not box.label:
        return None
    style = box.style.replace("_", "-")
    return el("span", box.label, cls=f"xray-word is-{style}", title=box.title, vars={"--at": f"{box.label_at:.4f}"})


def _octagon(box: XrayBox) -> Node:
    return el("span", glyph("rejected", size=20), cls="xray-stop", vars={"--at": f"{(box.x0 + box.x1) / 2:.4f}"})


def _tick(x: float, text: str) -> Node:
    return el("span", text, cls="xray-tick", vars={"--at": f"{x:.4f}"})
