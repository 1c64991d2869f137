"""Why a value is what it is, as a list of steps that leads to each."""

from __future__ import annotations

from typing import TYPE_CHECKING

from explorer.explain.words import plural
from explorer.figures.dom import Node, el

if TYPE_CHECKING:
    from explorer.explain.origins import Chain, Origin

__all__ = ["why_panel"]

FIRST = 5
"""Origins that are shown before one asks for more."""


def why_panel(chain: Chain, others: tuple[tuple[str, str], ...], *, whole: bool = False) -> Node:
    """Return the chain of a value, and the other values that can be asked about as ``(key, name)``."""
    shown = chain.origins if whole else chain.origins[:FIRST]
    left = len(chain.origins) - len(shown)
    return el(
        "div",
        el("h2", f"Why {'are' if chain.value.kind == 'flags' else 'is'} the {chain.name} {chain.now}?"),
        el("ol", *(_origin(origin) for origin in shown), cls="origins") if shown else el("p", "Nothing made it here."),
        el("button", f"{left} more", type="button", cls="mx-key", data_why=chain.value.key, data_all="1")
        if left
        else None,
        el("p", el("small", _note(chain)), cls="why-note"),
        el(
            "p",
            *(
                el(
                    "button",
                    name,
                    type="button",
                    cls="mx-key" + (" is-chosen" if key == chain.value.key else ""),
                    data_why=key,
                )
                for key, name in others
            ),
            cls="why-others",
        ),
        cls="why",
    )


def _origin(origin: Origin) -> Node:
    change = f"{origin.before} \N{RIGHTWARDS ARROW} {origin.after}" if origin.before else origin.after
    return el(
        "li",
        el("button", origin.place, type="button", cls="link", data_op=origin.stop.op, data_cell=origin.stop.cell),
        el(
            "span",
            origin.what,
            el("small", el("span", f"{origin.function}()", cls="code")) if origin.function else None,
        ),
        el("b", change),
    )


def _note(chain: Chain) -> str:
    parts = [f"{plural(chain.copies, 'step')} that only carried it along skipped"] if chain.copies else []
    if chain.first_op > 1:
        parts.append(f"operations before {chain.first_op} not looked at")
    return ("newest first" + "".join(f"; {part}" for part in parts)) + "."
