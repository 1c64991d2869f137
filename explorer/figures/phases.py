"""The strip of steps: a column for each step of a call, the two sets in it, and the band that readers see."""

from __future__ import annotations

from typing import TYPE_CHECKING

from explorer.figures.dom import Node, el

if TYPE_CHECKING:
    from explorer.selectors.phases import PhaseStripView

__all__ = ["phases_panel"]

_READERS = {"old": "OLD slot", "INVALID": "INVALID: guest faults retry", "new": "NEW slot", "none": "no slot"}
_ROOM_FOR_WORDS, _ROOM_WHEN_NARROW = 20, 10
"""Operations that have room for their names on the timeline of a wide and of a narrow page."""


def phases_panel(view: PhaseStripView) -> Node:
    """Return the strip: a column for each step, two sets in it, and the band readers see."""
    n = len(view.cells)
    head = [
        el(
            "div",
            el("b", f"set {at}"),
            el("button", generation, type="button", cls="ask", data_why="generation", title="why? (W)")
            if at == view.active_idx
            else el("span", generation),
            cls="strip-set" + (" is-active" if at == view.active_idx else ""),
        )
        for at, generation in enumerate(view.generations)
    ]
    columns = []
    for cell in view.cells:
        boxes = [
            el(
                "div",
                el("span", cls="dot dot-on" if box.active else "dot"),
                el("span", "" if box.content == "none" else box.content, cls=f"box box-{box.content}"),
                cls="strip-row" + (" is-active" if box.active else ""),
            )
            for box in cell.boxes
        ]
        title = el(
            "div",
            el("span", f"{cell.number}", cls="n"),
            " ",
            cell.word,
            el("em", cell.note) if cell.note else None,
            cls="strip-word",
        )
        columns.append(
            el(
                "button",
                title,
                *boxes,
                cls=f"strip-cell is-{cell.tense}" + (" is-refused" if cell.refused else ""),
                type="button",
                data_cell=cell.number - 1,
                aria_label=f"step {cell.number}, {cell.word}",
                title=f"{cell.function}()" if cell.function else "",
            )
        )
    bands = [
        el(
            "div",
            _READERS[band.content],
            cls=f"band band-{band.content}",
            vars={"--from": band.first + 1, "--to": band.last + 2},
        )
        for band in view.bands
    ]
    return el(
        "div",
        el(
            "div",
            el("div", cls="strip-word"),
            *head,
            el("div", el("b", "readers see"), cls="strip-readers"),
            cls="strip-head",
        ),
        el("div", *columns, el("div", *bands, cls="bands"), cls="strip-cells", vars={"--n": n}),
        cls="strip",
    )
