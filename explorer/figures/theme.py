"""Colours, type and marks by role, for each theme; the same values as the page's stylesheet.

Rule: a figure names roles (``"tracked"``, ``"invalid"``), never a colour; what a role looks like is here,
read from ``static/tokens.json``. A test compares it with ``static/tokens.css``.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any, Literal

__all__ = ["DEFAULT", "PLOT_CONFIG", "THEMES", "Spec", "Theme", "stylesheet", "theme_named"]

ThemeName = Literal["light", "dark", "hc"]
Spec = dict[str, Any]
"""A plotly figure as plain JSON: ``{"data": [...], "layout": {...}}``."""

_STATIC = resources.files("explorer.figures") / "static"
_SHEETS = (
    "tokens.css",
    "explorer.css",
    "kernels.css",
    "inside.css",
    "over_time.css",
    "xray.css",
    "timeline.css",
    "talk.css",
)

THEMES: tuple[ThemeName, ...] = ("light", "dark", "hc")


@dataclass(frozen=True, slots=True)
class Theme:
    """What every role looks like in one theme."""

    name: str
    colors: dict[str, str]
    fills: dict[str, Spec]
    """Fill, edge and pattern of rectangles, by role."""
    marks: dict[str, list[Spec]]
    """Stacks of markers, by role."""
    template: Spec
    """Plotly layout that every figure starts from."""
    ui_font: str
    mono_font: str

    def color(self, role: str) -> str:
        """Return the colour of a role, such as ``ink_2`` or ``internal``."""
        return self.colors[role.replace("_", "-")]


def stylesheet() -> str:
    """Return the tokens and the rules that document trees are drawn by, as CSS."""
    return "\n".join((_STATIC / name).read_text(encoding="utf-8") for name in _SHEETS)


@cache
def _tokens() -> dict[str, Any]:
    text = (_STATIC / "tokens.json").read_text(encoding="utf-8")
    tokens: dict[str, Any] = json.loads(text)
    return tokens


@cache
def theme_named(name: str) -> Theme:
    """Return a theme: ``light``, ``dark`` or ``hc``; any other name gives the light one."""
    tokens = _tokens()
    chosen = tokens["theme"].get(name) or tokens["theme"]["light"]
    return Theme(
        name=name,
        colors=chosen["color"],
        fills=chosen["fill"],
        marks=chosen["mark"],
        template=chosen["template"]["layout"],
        ui_font=tokens["font"]["ui"],
        mono_font=tokens["font"]["mono"],
    )


DEFAULT = theme_named("light")
PLOT_CONFIG: Spec = {**_tokens()["config"], "scrollZoom": False}
"""Plotly's config argument: no mode bar, no upload button; zoom is the explorer's own."""
