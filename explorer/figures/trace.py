"""Building blocks of figures: rectangles, lines, marks and words, gathered into few traces that hold arrays.

A figure is drawn on a sheet whose unit is one pixel and whose origin is the top left corner, as on the
screen; `Sheet` turns that into plotly's axes. What looks alike goes into one trace: plotly's cost is by
trace, not by point.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Sequence

    from explorer.figures.theme import Spec, Theme

__all__ = ["Sheet", "text_width"]

Anchor = Literal["left", "center", "right"]
_POSITION = {"left": "middle right", "center": "middle center", "right": "middle left"}
_SHAPES, _GROUNDS = 1, 4
"""Layers: below the first is ground, from the second on are grounds of labels."""
CHAR = 0.5
"""Width of an average character of the interface font, in units of its size."""


def text_width(text: str, size: float = 14, *, bold: bool = False) -> float:
    """Return about how wide a text will be, in pixels."""
    return len(text) * size * CHAR * (1.07 if bold else 1.0)


class Sheet:
    """Collects what a figure shows, by look, and returns it as a plotly figure.

    Parameters
    ----------
    theme
        What roles look like.
    width, height
        Size of the figure in pixels.
    """

    def __init__(self, theme: Theme, width: float, height: float) -> None:
        """Start with an empty sheet."""
        self.theme, self.width, self.height = theme, width, height
        self._fills: dict[tuple[int, str], tuple[list[float | None], list[float | None], Spec]] = {}
        self._lines: dict[tuple[bool, str, float, str], tuple[list[float | None], list[float | None]]] = {}
        self._marks: dict[tuple[str, float, str, str, float], tuple[list[float], list[float]]] = {}
        self._words: list[tuple[float, float, str, str, float, Anchor]] = []
        self._hover: list[tuple[float, float, str, str]] = []

    # -- shapes ----------------------------------------------------------------------------------

    def rect(self, style: str, x0: float, x1: float, top: float, bottom: float, *, layer: int = 2) -> None:
        """Draw a rectangle in the look of a style; lower layers are painted first."""
        look = self.theme.fills.get(style) or {
            "fillcolor": self.theme.color("surface"),
            "line": {"color": self.theme.color("slot_line"), "width": 1.5},
        }
        self._fill((layer, style), [x0, x1, x1, x0, x0], [top, top, bottom, bottom, top], look)

    def area(self, xs: Sequence[float], ys: Sequence[float], role: str, edge: str, *, layer: int = 0) -> None:
        """Fill a polygon with a colour role."""
        look = {"fillcolor": self.theme.color(role), "line": {"color": self.theme.color(edge), "width": 1}}
        self._fill((layer, f"{role}/{edge}"), [*xs, xs[0]], [*ys, ys[0]], look)

    def _fill(self, key: tuple[int, str], xs: Sequence[float], ys: Sequence[float], look: Spec) -> None:
        x, y, _ = self._fills.setdefault(key, ([], [], look))
        if x:
            x.append(None)
            y.append(None)
        x += [round(v, 1) for v in xs]
        y += [round(self.height - v, 1) for v in ys]

    def line(
        self,
        xs: Sequence[float],
        ys: Sequence[float],
        role: str,
        width: float = 1,
        dash: str = "solid",
        *,
        under: bool = False,
    ) -> None:
        """Draw a line, over all shapes or under those that are not ground."""
        x, y = self._lines.setdefault((under, self.theme.color(role), width, dash), ([], []))
        if x:
            x.append(None)
            y.append(None)
        x += [round(v, 1) for v in xs]
        y += [round(self.height - v, 1) for v in ys]

    def mark(self, role: str, x: float, y: float, *, scale: float = 1.0) -> None:
        """Draw the stack of markers that stands for a role."""
        for part in self.theme.marks[role]:
            color = str(part["color"])
            key = (
                str(part["symbol"]),
                round(part["size"] * scale, 1),
                color,
                str(part.get("line_color", color)),
                float(part.get("line_width", 0)),
            )
            xs, ys = self._marks.setdefault(key, ([], []))
            xs.append(round(x, 1))
            ys.append(round(self.height - y, 1))

    # -- words -----------------------------------------------------------------------------------

    def text(
        self,
        x: float,
        y: float,
        text: str,
        role: str,
        size: float = 14,
        *,
        anchor: Anchor = "center",
        bold: bool = False,
    ) -> None:
        """Write `text` with its middle at height `y`; ``left`` means it begins at `x`."""
        if text:
            # Plotly reads tags in a text; a name from outside must not become one.
            text = text.replace("<", "<\N{WORD JOINER}")
            shown = f"<b>{text}</b>" if bold else text
            self._words.append((x, y, shown, self.theme.color(role), size, anchor))

    def label(
        self, x: float, y: float, text: str, role: str, style: str, *, bold: bool = False, size: float = 14
    ) -> None:
        """Write on a filled shape; on a pattern the words get an opaque ground."""
        if not text:
            return
        look = self.theme.fills.get(style, {})
        if "fillpattern" in look:
            half, high = text_width(text, size, bold=bold) / 2 + 3, size * 9 / 14
            ground = {"fillcolor": look["fillcolor"], "line": {"color": look["fillcolor"], "width": 0}}
            self._fill(
                (4, f"ground {style}"),
                [x - half, x + half, x + half, x - half, x - half],
                [y - high, y - high, y + high, y + high, y - high],
                ground,
            )
        self.text(x, y, text, role, size, bold=bold)

    def hover(self, x0: float, x1: float, y: float, text: str, select: str = "") -> None:
        """Let a pointer anywhere between `x0` and `x1` read `text`; `select` names what a click selects."""
        steps = max(1, min(24, int((x1 - x0) / 24)))
        for n in range(steps):
            self._hover.append((x0 + (x1 - x0) * (n + 0.5) / steps, y, text, select))

    # -- the figure ------------------------------------------------------------------------------

    def spec(self) -> Spec:
        """Return the plotly figure."""
        fills = [
            {"type": "scatter", "mode": "lines", "x": x, "y": y, "fill": "toself", "hoverinfo": "skip", **look}
            for _, (x, y, look) in sorted(self._fills.items(), key=lambda item: item[0][0])
        ]
        ground = sum(1 for layer, _ in self._fills if layer < _SHAPES)
        shapes = sum(1 for layer, _ in self._fills if layer < _GROUNDS)
        under, over = (
            [
                {
                    "type": "scatter",
                    "mode": "lines",
                    "x": x,
                    "y": y,
                    "hoverinfo": "skip",
                    "line": {"color": color, "width": width, "dash": dash},
                }
                for (is_under, color, width, dash), (x, y) in self._lines.items()
                if is_under is wanted
            ]
            for wanted in (True, False)
        )
        marks = [
            {
                "type": "scatter",
                "mode": "markers",
                "x": x,
                "y": y,
                "hoverinfo": "skip",
                "marker": {
                    "symbol": symbol,
                    "size": size,
                    "color": color,
                    "line": {"color": line_color, "width": line_width},
                    "opacity": 1,
                },
            }
            for (symbol, size, color, line_color, line_width), (x, y) in self._marks.items()
        ]
        return {
            "data": [
                *fills[:ground],
                *under,
                *fills[ground:shapes],
                *over,
                *fills[shapes:],
                *marks,
                *self._text_trace(),
                *self._hover_trace(),
            ],
            "layout": self._layout(),
        }

    def _text_trace(self) -> list[Spec]:
        if not self._words:
            return []
        return [
            {
                "type": "scatter",
                "mode": "text",
                "x": [round(x, 1) for x, *_ in self._words],
                "y": [round(self.height - y, 1) for _, y, *_ in self._words],
                "text": [text for _, _, text, *_ in self._words],
                "textposition": [_POSITION[anchor] for *_, anchor in self._words],
                "textfont": {
                    "color": [color for _, _, _, color, _, _ in self._words],
                    "size": [size for *_, size, _ in self._words],
                },
                "hoverinfo": "skip",
            }
        ]

    def _hover_trace(self) -> list[Spec]:
        if not self._hover:
            return []
        return [
            {
                "type": "scatter",
                "mode": "markers",
                "x": [round(x, 1) for x, *_ in self._hover],
                "y": [round(self.height - y, 1) for _, y, *_ in self._hover],
                "hovertext": [text for _, _, text, _ in self._hover],
                "customdata": [select for *_, select in self._hover],
                "hoverinfo": "text",
                "marker": {"size": 18, "opacity": 0},
            }
        ]

    def _layout(self) -> Spec:
        template = self.theme.template
        axis = {
            "showgrid": False,
            "zeroline": False,
            "showline": False,
            "fixedrange": True,
            "showticklabels": False,
            "ticks": "",
        }
        return {
            **{
                key: value
                for key, value in template.items()
                # With a transition, even one of no length, plotly draws everything twice.
                if key not in ("xaxis", "yaxis", "title", "margin", "dragmode", "transition")
            },
            "width": self.width,
            "height": self.height,
            "margin": {"l": 0, "r": 0, "t": 0, "b": 0, "pad": 0},
            "plot_bgcolor": template["paper_bgcolor"],
            "hoverdistance": 24,
            "dragmode": False,
            "xaxis": {**axis, "range": [0, self.width]},
            "yaxis": {**axis, "range": [0, self.height]},
        }
