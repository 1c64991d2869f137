"""Slots over time as a plotly figure; what stands around it, and the same in words, as document trees."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from explorer.figures.dom import Node, el, glyph
from explorer.figures.theme import DEFAULT
from explorer.figures.trace import Sheet

if TYPE_CHECKING:
    from explorer.figures.theme import Spec, Theme
    from explorer.selectors.over_time import TimeLine, TimeView

__all__ = ["CHART", "ChartMargins", "chart_places", "over_time_head", "over_time_spec", "over_time_table"]

_TITLE = "Slots over time"
_SCALES = "holes collapsed, log heights"
_LINE_TALL = 26.0
_BAR_ROLE = {"read_only": "slot_ink", "dirty": "slot_ink", "slot": "slot_ink", "packed": "ink_2"}


class ChartMargins(NamedTuple):
    """Room around the chart, in pixels."""

    left: float
    """For addresses."""
    right: float
    """For sizes of holes."""
    top: float
    foot: float
    """For numbers of operations."""
    line: float
    """For the line of the whole run, where there is one."""


CHART = ChartMargins(left=122, right=84, top=4, foot=26, line=40)


def over_time_spec(view: TimeView, theme: Theme = DEFAULT, *, cursor: bool = True) -> Spec:
    """Return the figure.

    Parameters
    ----------
    view
        What to draw.
    theme
        What roles look like.
    cursor
        Whether to draw the line at the operation the view is at; the page moves one of its own.
    """
    top = CHART.top + (CHART.line if view.line is not None else 0)
    sheet = Sheet(theme, CHART.left + view.width + CHART.right, top + view.height + CHART.foot)
    if view.notice:
        sheet.text(sheet.width / 2, sheet.height / 2, view.notice, "ink_2", 14)
        return sheet.spec()
    if view.line is not None:
        _line(sheet, view.line, view)
    drawing = _Drawing(view, sheet, top)
    drawing.axes()
    drawing.bars()
    drawing.marks()
    if cursor:
        x = CHART.left + view.at
        sheet.line([x, x], [top, top + view.height + 4], "ink", 3)
    return sheet.spec()


class _Drawing:
    def __init__(self, view: TimeView, sheet: Sheet, top: float) -> None:
        self.view, self.sheet, self.top = view, sheet, top
        self.left, self.right = CHART.left, CHART.left + view.width

    def axes(self) -> None:
        view, sheet, bottom = self.view, self.sheet, self.top + self.view.height
        for gap in view.gaps:
            y0, y1 = self.top + gap.top, self.top + gap.bottom
            sheet.area([self.left, self.right, self.right, self.left], [y0, y0, y1, y1], "sunken", "sunken")
            if gap.size:
                sheet.text(self.right + 8, (y0 + y1) / 2, gap.size, "ink_2", 12, anchor="left")
        for y, text in view.addresses:
            sheet.text(self.left - 8, self.top + y, text, "ink_2", 13, anchor="right")
        sheet.line([self.left, self.right], [bottom, bottom], "line_2")
        for x, text in view.ticks:
            sheet.line([self.left + x] * 2, [bottom, bottom + 4], "line_2")
            sheet.text(self.left + x, bottom + 15, text, "ink_2", 13)
        sheet.text(self.left - 8, bottom + 15, "operation", "ink_2", 13, anchor="right")

    def bars(self) -> None:
        sheet = self.sheet
        for bar in self.view.bars:
            x0, x1, y0, y1 = self.left + bar.x0, self.left + bar.x1, self.top + bar.top, self.top + bar.bottom
            if bar.style == "packed":
                sheet.area([x0, x1, x1, x0], [y0, y0, y1, y1], "surface_2", "line_2", layer=2)
            else:
                sheet.rect(bar.style, x0, x1, y0, y1)
            size = 14 if y1 - y0 >= 18 else 12
            role = _BAR_ROLE[bar.style]
            sheet.label(self.left + bar.label_x, (y0 + y1) / 2, bar.label, role, bar.style, bold=True, size=size)
            sheet.hover((x0 + x1) / 2, (x0 + x1) / 2, (y0 + y1) / 2, bar.hover)

    def marks(self) -> None:
        for riser in self.view.risers:
            xs, ys = [self.left + x for x in riser.xs], [self.top + y for y in riser.ys]
            self.sheet.line(xs, ys, "ink", 1.5, "dot" if riser.kind == "recreated" else "solid")
        for mark in self.view.marks:
            x, y = self.left + mark.x, self.top + mark.y
            self.sheet.mark(mark.kind, x, y, scale=0.62 if mark.kind == "rejected" else 0.7)
            self.sheet.hover(x, x, y, mark.hover)


def _line(sheet: Sheet, line: TimeLine, view: TimeView) -> None:
    """Draw the whole run above the chart: how many slots there are, and each refusal and MOVE."""
    left, top = CHART.left, CHART.top
    bottom = top + _LINE_TALL
    xs, ys = [left], [bottom]
    for x0, x1, share in line.parts:
        y = bottom - share * (_LINE_TALL - 8)
        xs += [left + x0, left + x1]
        ys += [y, y]
    sheet.area([*xs, left + view.width], [*ys, bottom], "slot_fill", "slot_line", layer=2)
    for x in line.moved:
        sheet.line([left + x] * 2, [bottom - 7, bottom], "ink", 1.5)
    for x in line.refused:
        sheet.line([left + x] * 2, [top, top + 7], "rejected", 1.5)
    x0, x1 = left + line.window[0], left + line.window[1]
    x0, x1 = (x0 - 2, x1 + 2) if x1 - x0 < 4 else (x0, x1)
    sheet.line([x0, x1, x1, x0, x0], [top - 2, top - 2, bottom + 3, bottom + 3, top - 2], "accent", 2)
    sheet.text(left - 8, top + _LINE_TALL / 2, "whole run", "ink", 13, anchor="right", bold=True)
    sheet.text(left + view.width + 8, top + _LINE_TALL / 2, line.most, "ink_2", 12, anchor="left")


def chart_places(view: TimeView) -> dict[str, Any]:
    """Return where the page finds things in the figure: columns of operations, and what a pointer reads where."""
    if view.notice:
        return {"columns": [], "boxes": []}
    top = CHART.top + (CHART.line if view.line is not None else 0)
    left, right = CHART.left, CHART.left + view.width
    columns = [[left, right, top, top + view.height + CHART.foot, view.first, view.last]]
    if view.line is not None:
        columns.append([left, right, 0, top - 4, 0, view.ops])
    marks = [[left + m.x - 7, left + m.x + 7, top + m.y - 7, top + m.y + 7, m.hover] for m in view.marks]
    bars = [[left + b.x0, left + b.x1, top + b.top, top + b.bottom, b.hover] for b in view.bars]
    return {"columns": columns, "boxes": [*marks, *bars], "span": [top, top + view.height]}


def over_time_head(view: TimeView) -> Node:
    """Return what stands above the chart: what is shown, what marks mean, how often what happened, where we are."""
    if view.notice:
        return el(
            "section",
            el("div", el("h2", _TITLE), _spaces(view), cls="late-head"),
            _counts(view) if view.ops else None,
            el("p", view.notice, cls="empty"),
            cls="over-head is-empty",
        )
    return el(
        "section",
        el(
            "div",
            el("h2", _TITLE, " ", el("small", el("span", view.where), el("span", f" · {_SCALES}", cls="wide-only"))),
            _spaces(view),
            _legend(),
            cls="late-head",
        ),
        _counts(view),
        el(
            "p",
            el("b", view.now),
            el("span", view.outside, cls="over-outside", title=view.outside) if view.outside else None,
            cls="over-now",
        ),
        cls="over-head",
    )


def _spaces(view: TimeView) -> Node | None:
    """Return buttons for the address spaces, if there are several."""
    if not view.spaces:
        return None
    buttons = [
        el("button", title, cls="mx-key", type="button", data_space=number, aria_pressed="true" if shown else "false")
        for number, title, shown in view.spaces
    ]
    return el("span", el("span", "address space"), *buttons, cls="over-spaces")


def _legend() -> Node:
    marks = (
        ("read_only", "read-only"),
        ("dirty", "dirty-logged"),
        ("riser", "recreated elsewhere"),
        ("move", "moved"),
        ("rejected", "refused"),
    )
    return el("span", *(el("span", glyph(name, size=18), word) for name, word in marks), cls="over-legend")


def _counts(view: TimeView) -> Node:
    return el(
        "table",
        el("thead", el("tr", *(el("th", count.word, scope="col") for count in view.counts))),
        el(
            "tbody",
            el(
                "tr",
                *(
                    el(
                        "td",
                        glyph("rejected", size=16) if count.loud else None,
                        el("b", count.number),
                        el("small", count.note, title=count.note) if count.note else None,
                        cls="is-loud" if count.loud else "",
                    )
                    for count in view.counts
                ),
            ),
        ),
        cls="over-counts",
        aria_label="how often what happened in the run",
    )


def over_time_table(view: TimeView) -> Node:
    """Return the chart in words, a row a bar."""
    heads = ("slot", "guest address", "size", "flags", "from", "until")
    return el(
        "div",
        el(
            "table",
            el("caption", view.sentence),
            el("thead", el("tr", *(el("th", head, scope="col") for head in heads))),
            el("tbody", *(el("tr", *(el("td", word) for word in row)) for row in view.rows)),
        ),
        el("p", view.rows_note) if view.rows_note else None,
        cls="over-words",
    )
