"""The write-track arrays and the lifetimes as a plotly figure."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from explorer.figures.theme import DEFAULT
from explorer.figures.trace import Sheet, text_width

if TYPE_CHECKING:
    from explorer.figures.theme import Spec, Theme
    from explorer.selectors.arrays import ArrayPicture, ArraysView

__all__ = ["ARRAYS_NARROW", "ARRAYS_WIDE", "ArraysSize", "arrays_spec"]

_TALL_PAGES = 64
_SPACING = 15.0
_MARKS = 20


class ArraysSize(NamedTuple):
    """Measures, in pixels."""

    width: float
    height: float
    lifetimes: bool
    """Whether there is room for the lifetimes."""


ARRAYS_WIDE = ArraysSize(460, 246, lifetimes=True)
ARRAYS_NARROW = ArraysSize(520, 132, lifetimes=False)


def arrays_spec(view: ArraysView, theme: Theme = DEFAULT, size: ArraysSize = ARRAYS_WIDE) -> Spec:
    """Return the figure of the arrays of an operation."""
    sheet = Sheet(theme, size.width, size.height)
    top = 10.0
    for picture in view.arrays[:2]:
        top = _array(sheet, picture, top, size.width)
    if size.lifetimes and view.lifetimes:
        _lifetimes(sheet, view, max(top + 6, size.height - 26 - 19 * len(view.lifetimes)), size.width)
    return sheet.spec()


def _array(sheet: Sheet, picture: ArrayPicture, top: float, width: float) -> float:
    left, right = 4.0, width - 16
    sheet.text(left, top, picture.name, "ink", 14, anchor="left", bold=True)
    sheet.text(right, top, picture.owner, "ink_2", 13, anchor="right")
    bar_top, bar_bottom = top + 14, top + 40
    style = {
        "live": "new_plain",
        "fresh": "new_uncommitted",
        "freed": "was_here",
        "absent": "was_here",
        "off": "was_here",
    }
    sheet.rect(style[picture.state], left, right, bar_top, bar_bottom)
    middle = (bar_top + bar_bottom) / 2
    if picture.state in ("fresh", "absent", "off"):
        sheet.text(width / 2, middle, picture.words, "ink_3")
        if picture.reason:
            sheet.text(left, bar_bottom + 12, picture.reason, "ink_2", 13, anchor="left")
            return bar_bottom + 36
        return bar_bottom + 20
    if picture.npages <= _TALL_PAGES and picture.state == "live":
        for page in range(1, picture.npages):
            x = left + (right - left) * page / picture.npages
            sheet.line([x, x], [bar_top + 1, bar_bottom - 1], "line")
    # On its page a tracker's watch comes first, as on the map.
    shown = sorted(picture.watches[:_MARKS], key=lambda watch: (watch.gfn, watch.by == "shadow paging"))
    xs = [left + (right - left) * (w.gfn - picture.base_gfn + 0.5) / picture.npages for w in shown]
    for at in range(1, len(xs)):
        xs[at] = max(xs[at], xs[at - 1] + _SPACING)
    for x, watch in zip(xs, shown, strict=True):
        held = "external" if watch.by == "tracker" else "internal"
        kind = {"held": held, "released": "released", "dropped": "lost", "lost": "lost"}[watch.fate]
        sheet.mark(f"watch_{kind}", min(x, right - 8), middle, scale=0.85)
    words = picture.words if picture.state != "freed" else f"freed: {picture.words}"
    role = "lost" if any(w.fate in ("dropped", "lost") for w in picture.watches) else "ink_2"
    sheet.text(left, bar_bottom + 12, words, role, 13, anchor="left")
    return bar_bottom + 36


def _lifetimes(sheet: Sheet, view: ArraysView, top: float, width: float) -> None:
    left, right = 112.0, width - 56
    step = (right - left) / max(view.steps, 1)
    sheet.text(4, top, "lifetime", "ink", 13, anchor="left", bold=True)
    for number in range(1, view.steps + 1):
        now = number == view.now
        sheet.text(left + step * (number - 0.5), top, str(number), "ink" if now else "ink_3", 13, bold=now)
    bottom = top + 10 + 19 * len(view.lifetimes)
    x_now = left + step * (view.now - 0.5)
    sheet.line([x_now, x_now], [top + 9, bottom], "accent", 3)
    for at, life in enumerate(view.lifetimes):
        y = top + 18 + 19 * at
        sheet.text(4, y, life.name, "ink_2", 13, anchor="left")
        x0 = left + step * max(life.start - 0.5, 0)
        x1 = left + step * (life.end - 0.5) if life.end is not None else right
        style = {"slot": "slot", "invalid": "invalid", "new": "new_plain"}[life.style]
        sheet.rect(style, x0, x1, y - 6, y + 6)
        if life.freed:
            sheet.line([x1 - 4, x1 + 4], [y - 4, y + 4], "lost", 2)
            sheet.line([x1 - 4, x1 + 4], [y + 4, y - 4], "lost", 2)
            if x1 < right - 6:
                # Words that the line of now would cross stand behind it.
                crossed = x1 + 9 < x_now < x1 + 9 + text_width("freed", 13, bold=True)
                sheet.text(x_now + 6 if crossed else x1 + 9, y, "freed", "lost", 13, anchor="left", bold=True)
