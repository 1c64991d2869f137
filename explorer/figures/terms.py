"""Words of the glossary in document trees: marked where they stand, and as a list.

A mark is a button, so it has the keyboard's focus like any other; the page shows the list's entry beside it.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

from explorer.explain.glossary import GLOSSARY, pattern_for
from explorer.explain.sources import release_of, source_of
from explorer.figures.dom import Node, el

if TYPE_CHECKING:
    from explorer.engine.profile import KernelProfile
    from explorer.explain.glossary import Term

__all__ = ["glossary_panel", "with_terms"]

_SILENT = frozenset(("svg", "code", "kbd", "a", "button"))
"""Elements whose words are not marked: pictures, what is code, and what can be pressed already."""


def with_terms(node: Node, profile: KernelProfile, within: frozenset[str] = frozenset(("p", "h3", "th"))) -> Node:
    """Return a tree in which the first mention of each word of the glossary is marked.

    Parameters
    ----------
    node
        The tree; it stays as it is.
    profile
        The kernel on the screen; words it does not have are not marked.
    within
        Elements in whose text words are marked.
    """
    marked = _marked(node, profile, within, set(), inside=False)
    assert len(marked) == 1, "an element stays one element"
    return marked[0]


def _marked(node: Node, profile: KernelProfile, within: frozenset[str], seen: set[str], *, inside: bool) -> list[Node]:
    if isinstance(node, str):
        return _marked_text(node, profile, seen) if inside else [node]
    tag, attrs, *children = node
    if tag in _SILENT:
        return [node]
    inside = inside or tag in within
    found = [part for child in children for part in _marked(child, profile, within, seen, inside=inside)]
    return [[tag, attrs, *found]]


def _marked_text(text: str, profile: KernelProfile, seen: set[str]) -> list[Node]:
    pattern, keys = pattern_for(profile)
    parts: list[Node] = []
    at = 0
    for found in pattern.finditer(text):
        key = keys[found[0]]
        if key in seen:
            continue
        seen.add(key)
        if found.start() > at:
            parts.append(text[at : found.start()])
        parts.append(_term(found[0], key))
        at = found.end()
    if at < len(text):
        parts.append(text[at:])
    return parts


def _term(word: str, key: str) -> Node:
    return el("button", word, type="button", cls="gloss", data_term=key, aria_haspopup="dialog")


@cache
def glossary_panel(profile: KernelProfile) -> Node:
    """Return the list of all words, as a kernel has them."""
    return el("dl", *(part for term in GLOSSARY for part in _entry(term, profile)), cls="glossary")


def _entry(term: Term, profile: KernelProfile) -> tuple[Node, Node]:
    here = term.basis.holds(profile)
    source = source_of(term.basis.function, profile) if here else None
    where = (
        el(
            "a",
            f"{source.function}()",
            cls="code",
            href=source.url,
            target="_blank",
            rel="noreferrer noopener",
            title=f"{source.file} in {source.version}",
        )
        if source is not None
        else el("span", f"{term.basis.function}()", cls="code")
    )
    kernels = term.basis.range_text if here else f"not in {release_of(profile)}: {term.basis.range_text}"
    return (
        el("dt", term.name, data_word=term.key),
        el("dd", el("span", term.meaning), el("small", where, f" · {kernels}"), cls="" if here else "is-away"),
    )
