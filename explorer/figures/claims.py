"""The claims of the thread as a list to walk through: what was said, how far it can be shown, and the way there."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from explorer.explain.claims import CLAIMS
from explorer.figures.dom import Node, el, glyph

if TYPE_CHECKING:
    from explorer.explain.claims import Claim, Kind

__all__ = ["claims_panel"]

_KINDS: dict[Kind, tuple[str, str]] = {
    "proved": ("check", "proved in the model"),
    "conditional": ("internal", "conditional"),
    "opinion": ("other", "experience or opinion"),
}


def claims_panel() -> Node:
    """Return the list of claims."""
    many = Counter(claim.kind for claim in CLAIMS)
    kinds = [
        el("span", glyph(icon, size=16), " ", f"{many[kind]} {words}", cls=f"claim-kind is-{kind}")
        for kind, (icon, words) in _KINDS.items()
    ]
    return el(
        "div",
        el(
            "p",
            "In March 2023 a patch that refuses a MOVE was discussed on the KVM list.",
            " What was claimed there, in our words:",
        ),
        el("p", *kinds, cls="claim-kinds"),
        el("ol", *(_claim(claim) for claim in CLAIMS), cls="claims"),
        cls="thread",
    )


def _claim(claim: Claim) -> Node:
    icon, words = _KINDS[claim.kind]
    rests = f"{'If' if claim.kind == 'conditional' else 'Not shown'}: {claim.rests_on}" if claim.rests_on else ""
    said = el("a", claim.who, href=claim.url, target="_blank", rel="noreferrer noopener")
    return el(
        "li",
        el(
            "div",
            el("p", claim.words, cls="claim-words"),
            el("p", rests, cls="claim-rests") if rests else None,
            el(
                "small",
                said,
                " · ",
                el("span", f"{claim.basis.function}()", cls="code"),
                f" · {claim.basis.range_text}",
            ),
        ),
        el("span", glyph(icon, size=16), " ", words, cls=f"claim-kind is-{claim.kind}"),
        el("button", "Show", type="button", cls="mx-key", data_claim=claim.name, aria_label=f"show: {claim.words}")
        if claim.shown is not None
        else el("span"),
    )
