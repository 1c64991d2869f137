"""The line of operations, with the steps of the open one."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from explorer.figures.dom import Node, el, glyph

if TYPE_CHECKING:
    from explorer.selectors.branches import Branch
    from explorer.selectors.timeline import TimelineNode, TimelineView

__all__ = ["timeline_panel"]

_ROOM_FOR_WORDS, _ROOM_WHEN_NARROW = 20, 10
"""Operations that have room for their names on the timeline of a wide and of a narrow page."""


def _crowding(nodes: int) -> str:
    """Return the class of a line with that many operations: the words go first where the page is narrow."""
    return " is-dense is-many" if nodes > _ROOM_FOR_WORDS else " is-many" if nodes > _ROOM_WHEN_NARROW else ""


def timeline_panel(view: TimelineView) -> Node:
    """Return the line of operations with the open one's steps."""
    items: list[Node] = []
    dense = len(view.nodes) > _ROOM_FOR_WORDS
    if view.hidden_before:
        items.append(el("span", f"{view.hidden_before} before", cls="tl-more"))
    for at, node in enumerate(view.nodes):
        opened = at == view.open_after and bool(view.cells)
        named = not dense or node.tense == "now"
        items.append(_node(node, current=node.tense == "now" and not opened, opened=opened, named=named))
        if view.branch is not None and node.first <= view.branch.after <= node.last:
            items.append(_branch(view.branch))
        if opened:
            items.append(_track(view, node))
    if view.hidden_after:
        items.append(el("span", f"{view.hidden_after} after", cls="tl-more"))
    return el(
        "div",
        el("div", el("b", view.caption), el("span", view.sub), cls="tl-name"),
        el("div", *items, cls="tl-line" + _crowding(len(view.nodes))),
        cls="tl",
    )


@lru_cache(maxsize=4096)
def _node(node: TimelineNode, *, current: bool, opened: bool, named: bool) -> Node:
    """Return an operation; where there is no room for its name, the name is told to who points at it, or listens."""
    words = f"{node.title} {node.detail}".strip()
    return el(
        "button",
        el("span", node.title, cls="tl-title") if named else None,
        el("span", glyph(node.glyph, size=22), cls="tl-glyph" + (" is-stack" if node.last > node.first else "")),
        el("span", node.detail, cls="tl-detail") if named else None,
        el("span", cls="tl-handle") if current else None,
        cls=f"tl-node is-{node.tense}"
        + (" is-ghost" if node.ghost else "")
        + (" is-current" if current else "")
        + (" is-open" if opened else ""),
        type="button",
        data_op=node.last,
        data_first=node.first,
        aria_label=f"operation {node.last + 1}: {words}" + (", not applied yet" if node.ghost else ""),
        title=words,
    )


def _branch(branch: Branch) -> Node:
    told = " ".join(filter(None, (branch.words, branch.result, branch.loss, branch.kept)))
    button = el(
        "button",
        glyph(branch.glyph, size=18),
        " ",
        branch.words,
        el("b", " ", branch.result) if branch.result else None,
        ", " if branch.loss or branch.kept else None,
        el("b", glyph("lost", size=16), " ", branch.loss, cls="lost") if branch.loss else branch.kept or None,
        type="button",
        aria_label=f"{told}; go there" if branch.era else f"{told}; go back to it",
        **({"data_era": branch.era} if branch.era else {"data_earlier": ""}),
    )
    return el("span", button, cls="tl-branch")


def _track(view: TimelineView, node: TimelineNode) -> Node:
    cells = [
        el(
            "button",
            el("span", glyph("rejected", size=20), cls="tl-refused") if cell.refused else el("span", cls="tl-dot"),
            el("span", el("span", str(cell.number), cls="n"), " ", el("span", cell.word, cls="w"), cls="tl-word"),
            el("span", el("span", view.handle, cls="tl-label"), cls="tl-handle") if cell.tense == "now" else None,
            cls=f"tl-cell is-{cell.tense}"
            + (" is-refused" if cell.refused else "")
            + (" in-invalid" if view.invalid and view.invalid[0] <= cell.number - 1 <= view.invalid[1] else ""),
            type="button",
            data_op=node.last,
            data_cell=cell.number - 1,
            aria_label=f"step {cell.number}: {cell.word}",
            title=f"{cell.number} {cell.word}",
        )
        for cell in view.cells
    ]
    return el("div", *cells, cls="tl-track" + (" is-ghost" if node.ghost else ""), vars={"--n": len(cells)})
