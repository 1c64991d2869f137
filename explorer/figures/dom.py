"""Document trees: the words and tables of the screen as data, drawn by the page or written as HTML.

A node is a string, which is text and nothing else, or ``[tag, attributes, *children]``. Text from outside
can only ever be a string, so it cannot become markup; `to_html` escapes it, the page uses text nodes. Tags
and attributes come from a short list that the page checks again.
"""

from __future__ import annotations

import html
import re
from functools import cache
from typing import Any

__all__ = ["ATTRIBUTES", "TAGS", "Node", "el", "glyph", "rich", "to_html", "to_text"]

Node = str | list[Any]

TAGS = frozenset(
    "div span p b i em strong small code kbd table thead tbody tr th td ul ol li button h2 h3 h4 section "  # noqa: SIM905
    "svg path circle rect line text g dl dt dd a label caption colgroup col details summary".split()
)
ATTRIBUTES = frozenset(
    "class id title role href colspan rowspan scope type tabindex disabled d viewBox x y x1 x2 y1 y2 width height "  # noqa: SIM905
    "r cx cy transform target rel vars".split()
)


def el(tag: str, *children: Node | None, cls: str = "", **attributes: Any) -> Node:
    """Return an element.

    Attributes are keyword arguments; an underscore stands for a hyphen (``data_stop``, ``aria_label``), and
    ``vars={"--at": "12%"}`` sets CSS variables. A child that is None is left out.

    Raises
    ------
    ValueError
        If tag or attribute is not on the list.
    """
    if tag not in TAGS:
        raise ValueError(f"{tag!r} is no tag of a document tree")
    attrs: dict[str, Any] = {}
    if cls:
        attrs["class"] = cls
    for name, value in attributes.items():
        key = _key(name)
        if value is not None and value is not False:
            attrs[key] = value
    return [tag, attrs, *children] if None not in children else [tag, attrs, *(c for c in children if c is not None)]


@cache
def _key(name: str) -> str:
    key = name.rstrip("_").replace("_", "-") if name != "viewBox" else name
    if key not in ATTRIBUTES and not key.startswith(("data-", "aria-")):
        raise ValueError(f"{key!r} is no attribute of a document tree")
    return key


_CODE = re.compile(r"`([^`]*)`|\*\*([^*]*)\*\*")


def rich(text: str) -> list[Node]:
    """Return a sentence as nodes: ``backquoted`` parts as code, ``**starred**`` parts bold."""
    nodes: list[Node] = []
    at = 0
    for found in _CODE.finditer(text):
        if found.start() > at:
            nodes.append(text[at : found.start()])
        code, bold = found.groups()
        nodes.append(el("code", code) if code is not None else el("b", bold))
        at = found.end()
    if at < len(text):
        nodes.append(text[at:])
    return nodes


_GLYPHS: dict[str, list[tuple[str, str]]] = {
    # shapes on a 20 x 20 field; the class says what colour role fills or strokes it
    "internal": [("M10 3.5 16.5 10 10 16.5 3.5 10Z", "fill")],
    "external": [("M10 5.5 14.5 10 10 14.5 5.5 10Z", "fill"), ("M10 1 19 10 10 19 1 10Z", "stroke")],
    "released": [("M10 4 16 10 10 16 4 10Z", "stroke")],
    "lost": [("M10 2 18 10 10 18 2 10Z", "stroke"), ("M6 6 14 14M14 6 6 14", "stroke")],
    "rejected": [("M6.3 1h7.4L19 6.3v7.4L13.7 19H6.3L1 13.7V6.3Z", "fill"), ("M7 7 13 13M13 7 7 13", "knock")],
    "stop": [
        ("M6.3 1h7.4L19 6.3v7.4L13.7 19H6.3L1 13.7V6.3Z", "fill"),
        ("M6.7 2h6.6L18 6.7v6.6L13.3 18H6.7L2 13.3V6.7Z", "ring"),
    ],
    "create": [("M3 3h14v14H3Z", "fill")],
    "delete": [("M3 3h14v14H3Z", "stroke"), ("M6 6 14 14M14 6 6 14", "stroke")],
    "move": [("M5 2 17 10 5 18Z", "fill")],
    "flags": [("M4 4h12v12Z", "fill")],
    "no_op": [("M3 10h14", "stroke")],
    "attach": [("M10 1.5 17.4 5.75v8.5L10 18.5 2.6 14.25v-8.5Z", "stroke"), ("M10 7.2a2.8 2.8 0 1 0 .01 0Z", "fill")],
    "detach": [("M10 1.5 17.4 5.75v8.5L10 18.5 2.6 14.25v-8.5Z", "stroke")],
    "write": [("M2.5 4h15L10 16.5Z", "fill")],
    "tables": [("M10 2.5 17.5 10 10 17.5 2.5 10Z", "fill")],
    "other": [("M10 6a4 4 0 1 0 .01 0Z", "stroke")],
    "check": [("M3 11 8 16 17 4", "stroke")],
    "violation": [("M10 .5Q12 10.5 19.5 17 10 14.5.5 17 8 10.5 10 .5Z", "fill")],
    "note": [("M10 2a8 8 0 1 0 .01 0Z", "stroke"), ("M10 7.2a2.8 2.8 0 1 0 .01 0Z", "fill")],
    "slot": [("M1 4h18v12H1Z", "fill")],
    "invalid": [("M1 4h18v12H1Z", "stroke"), ("M1 4 13 16M7 4 19 16M13 4 1 16M19 4 7 16", "hatch")],
    "new": [("M1 4h18v12H1Z", "dots")],
    "hole": [("M1 10h5M14 10h5M8 14 10 6M11 14 13 6", "stroke")],
    "riser": [("M10 1V19", "dots")],
    "read_only": [("M1 4h18v12H1Z", "stroke"), ("M1 10 7 4M1 16 13 4M7 16 19 4M13 16 19 10", "hatch")],
    "dirty": [
        ("M1 4h18v12H1Z", "fill"),
        ("M4 7h.1M8 7h.1M12 7h.1M16 7h.1M6 10h.1M10 10h.1M14 10h.1M4 13h.1M8 13h.1M12 13h.1M16 13h.1", "dotted"),
    ],
}


@cache
def glyph(name: str, label: str = "", *, size: int = 20) -> Node:
    """Return a mark as a small picture; without a label it is decoration beside words that say the same.

    A tree is never changed once it is made, so every place gets the same one.
    """
    parts = [el("path", d=d, cls=f"g-{paint}") for d, paint in _GLYPHS[name]]
    attributes: dict[str, Any] = {"role": "img", "aria_label": label} if label else {"aria_hidden": "true"}
    return el("svg", *parts, cls=f"g g--{name}", viewBox="0 0 20 20", width=size, height=size, **attributes)


def to_html(node: Node) -> str:
    """Return a tree as HTML text with everything escaped."""
    if isinstance(node, str):
        return html.escape(node, quote=True)
    tag, attrs, *children = node
    written = ""
    for name, value in attrs.items():
        if name == "vars":
            written += f' style="{html.escape(";".join(f"{k}:{v}" for k, v in value.items()), quote=True)}"'
        else:
            written += f' {name}="{html.escape(str(value), quote=True)}"'
    return f"<{tag}{written}>{''.join(to_html(child) for child in children)}</{tag}>"


_LINES = frozenset(("div", "p", "tr", "li", "h2", "h3", "h4", "section", "table", "ul", "ol", "caption", "summary"))
"""Elements that begin and end a line of text."""
_CELLS = frozenset(("td", "th"))
_CELL = "\t"


def to_text(node: Node) -> str:
    """Return the words of a tree: a line for each row or paragraph, two spaces between cells.

    Pictures are left out, and so are rows that stand for others where there is no room.
    """
    lines = [""]
    _write(node, lines)
    return "\n".join("  ".join(" ".join(cell.split()) for cell in line.split(_CELL)) for line in lines if line.strip())


def _write(node: Node, lines: list[str]) -> None:
    if isinstance(node, str):
        lines[-1] += node
        return
    tag, attrs, *children = node
    if tag == "svg" or "folded" in str(attrs.get("class", "")).split():
        return
    if tag in _LINES:
        lines.append("")
    elif tag in _CELLS and lines[-1].strip():
        lines[-1] += _CELL
    for at, child in enumerate(children):
        # Elements side by side are apart on the page; words that touch in the tree touch.
        beside = at and not isinstance(child, str) and not isinstance(children[at - 1], str)
        if beside and lines[-1] and not lines[-1].endswith(" "):
            lines[-1] += " "
        _write(child, lines)
    if tag in _LINES:
        lines.append("")
