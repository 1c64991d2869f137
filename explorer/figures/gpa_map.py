"""The map of guest memory: the line of all memory, the funnel to the slot in focus, and its lanes."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from explorer.figures.theme import DEFAULT
from explorer.figures.trace import Sheet, text_width

if TYPE_CHECKING:
    from explorer.figures.theme import Spec, Theme
    from explorer.selectors.gpa_map import GpaMapView, Segment
    from explorer.selectors.lane_parts import Bar, Lane

__all__ = ["NARROW", "WIDE", "MapSize", "gpa_map_spec"]


class MapSize(NamedTuple):
    """Measures of the map, in pixels from its top left corner."""

    height: float
    left: float
    """Column of the lanes' names."""
    right: float
    bar: float
    """Height of the line of all memory."""
    bar_top: float
    lanes_top: float
    foot: float
    """Room for the axis below the lanes."""
    roomy: bool
    """Whether names have a second line and sizes stand above the line of all memory."""


WIDE = MapSize(height=380, left=158, right=20, bar=34, bar_top=26, lanes_top=111, foot=28, roomy=True)
NARROW = MapSize(height=234, left=118, right=20, bar=24, bar_top=15, lanes_top=72, foot=23, roomy=False)
_LABEL_ROLE = {
    "invalid": "invalid_ink",
    "new_uncommitted": "new_line",
    "new_plain": "ink",
    "was_here": "ink_3",
    "refused_target": "rejected",
    "huge_yes": "surface",
    "huge_no": "ink",
}
_OUTLINES = ("new_uncommitted", "refused_target")
_BOLD = ("slot", "invalid", "refused_target", "read_only", "dirty")
_STROKE_ROOM = 24


def gpa_map_spec(view: GpaMapView, theme: Theme = DEFAULT, size: MapSize = WIDE) -> Spec:
    """Return the figure of a map.

    Parameters
    ----------
    view
        What to draw; x positions are pixels of ``view.width``.
    theme
        What roles look like.
    size
        Measures for the room there is.
    """
    sheet = Sheet(theme, size.left + view.width + size.right, size.height)
    drawing = _Drawing(view, sheet, size)
    drawing.overview()
    drawing.detail()
    return sheet.spec()


class _Drawing:
    def __init__(self, view: GpaMapView, sheet: Sheet, size: MapSize) -> None:
        self.view, self.sheet, self.size = view, sheet, size
        self.left = size.left

    # -- the line of all memory ------------------------------------------------------------------

    def overview(self) -> None:
        view, size, sheet = self.view, self.size, self.sheet
        top, bottom = size.bar_top, size.bar_top + size.bar
        sheet.line([self.left, self.left + view.width], [bottom, bottom], "line_2")
        for segment in view.segments:
            if segment.kind == "gap":
                self._hole(segment, bottom)
            else:
                self._segment(segment, top, bottom)
        if view.segments:
            x = self.left + view.segments[-1].x1
            room = self.left + view.width - x
            if room > text_width(view.end_text, 12):
                sheet.text(x + room / 2, bottom - 13, view.end_text, "ink_2", 12)
                self._strokes(x + room / 2, bottom)
        self._side_name("All memory", view.scale_note, (top + bottom) / 2)
        if view.funnel is not None:
            self._funnel(*view.funnel, bottom)
        if view.brush is not None:
            x0, x1 = (self.left + x for x in view.brush)
            sheet.line([x0, x1, x1, x0, x0], [top - 4, top - 4, bottom + 4, bottom + 4, top - 4], "accent", 2)

    def _segment(self, segment: Segment, top: float, bottom: float) -> None:
        sheet = self.sheet
        x0, x1 = self.left + segment.x0, self.left + segment.x1
        middle = (x0 + x1) / 2
        sheet.rect(segment.style, x0, x1, top, bottom)
        for x in segment.dividers:
            sheet.line([self.left + x] * 2, [top, bottom], "slot_line", 1.2)
        if segment.name:
            role = "invalid_ink" if segment.style == "invalid" else "slot_ink"
            sheet.label(
                middle,
                (top + bottom) / 2,
                segment.name,
                role,
                segment.style,
                bold=segment.focused or segment.style != "slot",
            )
        if segment.in_the_way:
            self._frame(x0, x1, top, bottom)
            sheet.text(middle, top - 10, segment.size, "rejected", 12, bold=True)
        elif segment.size and (self.size.roomy or segment.kind == "cluster"):
            sheet.text(middle, top - 10, segment.size, "ink_2", 12)
        if segment.address:
            sheet.line([x0, x0], [bottom, bottom + 5], "line_2")
            if segment.x0 < 8:
                sheet.text(x0, bottom + 14, segment.address, "ink_2", 12, anchor="left")
            elif segment.focused and self.view.funnel is not None:
                sheet.text(x0 - 6, bottom + 14, segment.address, "ink_2", 12, anchor="right")
            else:
                sheet.text(x0, bottom + 14, segment.address, "ink_2", 12)
        select = f"{segment.slot.as_id}:{segment.slot.slot_id}" if segment.slot is not None else ""
        sheet.hover(x0, x1, (top + bottom) / 2, segment.hover, select)

    def _frame(self, x0: float, x1: float, top: float, bottom: float) -> None:
        """Draw an edge around what is in the way; what is inside stays to be seen."""
        self.sheet.line([x0, x1, x1, x0, x0], [top, top, bottom, bottom, top], "rejected", 2.5)

    def _hole(self, segment: Segment, bottom: float) -> None:
        x0, x1 = self.left + segment.x0, self.left + segment.x1
        if x1 - x0 > _STROKE_ROOM:
            self._strokes((x0 + x1) / 2, bottom)
        self.sheet.text((x0 + x1) / 2, bottom - 14, segment.size, "ink_2", 12)
        self.sheet.hover(x0, x1, bottom - 8, segment.hover)

    def _strokes(self, x: float, bottom: float) -> None:
        """Draw the two strokes that say a length is not to scale."""
        for dx in (-3, 3):
            self.sheet.line([x + dx - 3, x + dx + 3], [bottom + 5, bottom - 5], "ink_2", 1.5)

    def _funnel(self, x0: float, x1: float, bottom: float) -> None:
        top = self.size.lanes_top
        straight = bottom + min(26, (top - bottom) * 0.6)
        left, right = self.left, self.left + self.view.width
        x0, x1 = left + x0, left + x1
        self.sheet.area([x0, x0, left, right, x1, x1], [bottom, straight, top, top, straight, bottom], "canvas", "line")

    def _side_name(self, name: str, sub: str, middle: float) -> None:
        two = bool(sub) and self.size.roomy
        self.sheet.text(16, middle - (9 if two else 0), name, "ink", 14, anchor="left", bold=True)
        if two:
            self.sheet.text(16, middle + 9, sub, "ink_2", 13, anchor="left")

    # -- the detail ------------------------------------------------------------------------------

    def detail(self) -> None:
        view, size, sheet = self.view, self.size, self.sheet
        top, bottom = size.lanes_top, size.height - size.foot
        if not view.lanes:
            sheet.text(self.left + view.width / 2, (top + bottom) / 2, view.notice, "ink_2", 17)
            return
        for window in view.windows:
            x0, x1 = self.left + window.x0, self.left + window.x1
            sheet.area([x0, x1, x1, x0], [top, top, bottom, bottom], "canvas", "line")
        if view.break_text:
            self._break(top, bottom)
        tall = (bottom - top) / len(view.lanes)
        for at, lane in enumerate(view.lanes):
            self._lane(lane, top + at * tall, tall)
        sheet.text(16, bottom + 14, "gfn", "ink_2", 13, anchor="left")
        for x, text in view.ticks:
            sheet.line([self.left + x] * 2, [bottom, bottom + 5], "line_2")
            sheet.text(self.left + x, bottom + 15, text, "ink_2", 13)

    def _break(self, top: float, bottom: float) -> None:
        middle = self.left + (self.view.windows[0].x1 + self.view.windows[1].x0) / 2
        steps = range(int((bottom - top - 8) / 5))
        for dx in (-6, 6):
            self.sheet.line(
                [middle + dx + (3.5 if n % 2 else -3.5) for n in steps],
                [top + 6 + n * 5 for n in steps],
                "ink_3",
                1.2,
                under=True,
            )
        self.sheet.text(middle, bottom + 15, self.view.break_text, "ink_2", 13)

    def _lane(self, lane: Lane, top: float, tall: float) -> None:
        sheet, single = self.sheet, len(self.view.lanes) == 1
        self._side_name(lane.name, lane.sub, top + tall * (0.26 if single else 0.45))
        for ribbon in lane.ribbons:
            xs = [self.left + x for x in (ribbon.top0, ribbon.top1, ribbon.bottom1, ribbon.bottom0)]
            ys = [top, top, top + tall * 0.5, top + tall * 0.5]
            if ribbon.dotted:
                sheet.line([xs[0], xs[3]], [ys[0], ys[3]], "new_line", 1.5, "dot")
                sheet.line([xs[1], xs[2]], [ys[1], ys[2]], "new_line", 1.5, "dot")
            else:
                sheet.area(xs, ys, "accent_soft", "accent_soft", layer=1)
        for bar in lane.bars:
            self._bar(bar, top, tall)
        for x0, x1, hover in lane.frames:
            self._frame(self.left + x0, self.left + x1, top + 0.06 * tall, top + 0.44 * tall)
            sheet.hover(self.left + x0, self.left + x1, top + 0.25 * tall, hover)
        self._stems(lane, top, tall)
        for mark in lane.marks:
            y = top + (1 - mark.y) * tall
            sheet.mark(f"watch_{mark.kind}", self.left + mark.x, y, scale=1.5 if single else 1.0)
            sheet.hover(self.left + mark.x - 4, self.left + mark.x + 4, y, mark.hover)
        for x0, x1, height in lane.brackets:
            y = top + (1 - height) * tall
            sheet.line([self.left + x for x in (x0, x0, x1, x1)], [y - 8, y, y, y - 8], "internal", 2)
        for label in lane.labels:
            size = {"body": 14, "title": 17, "small": 13}[label.size]
            y = top + (1 - label.y) * tall
            sheet.text(self.left + label.x, y, label.text, label.role, size, anchor=label.anchor, bold=label.bold)
        if lane.rule_below:
            for window in self.view.windows:
                sheet.line([self.left + window.x0, self.left + window.x1], [top + tall] * 2, "line_2", 1.2, "dash")

    def _bar(self, bar: Bar, top: float, tall: float) -> None:
        sheet = self.sheet
        x0, x1 = self.left + bar.x0, self.left + bar.x1
        y_top, y_bottom = top + (1 - bar.y1) * tall, top + (1 - bar.y0) * tall
        middle = (y_top + y_bottom) / 2
        sheet.rect(bar.style, x0, x1, y_top, y_bottom, layer=1 if bar.style in _OUTLINES else 2)
        for x in bar.dividers:
            sheet.line([self.left + x] * 2, [y_top + 1, y_bottom - 1], "surface")
        shift = 10 if bar.refused else 0
        role = _LABEL_ROLE.get(bar.style, "slot_ink")
        sheet.label((x0 + x1) / 2 + shift, middle, bar.label, role, bar.style, bold=bar.style in _BOLD)
        if bar.refused:
            sheet.mark(
                "rejected",
                max((x0 + x1) / 2 + shift - text_width(bar.label, bold=True) / 2 - 18, x0 + 14),
                middle,
                scale=0.8,
            )
        sheet.hover(x0, x1, middle, bar.hover)

    def _stems(self, lane: Lane, top: float, tall: float) -> None:
        for mark in lane.marks:
            start, end = top + (1 - lane.stem_from) * tall, top + (1 - mark.y) * tall - 11
            if end - start > 5:
                above = 10 if lane.stem_from == 1 else 0
                x, true_x = self.left + mark.x, self.left + mark.true_x
                self.sheet.line([true_x, true_x, x], [start - above, start + 3, end], "ink_3", under=True)
