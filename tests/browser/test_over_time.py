"""Slots over time and the refused call to scale in a browser."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from states import SIZES, STATES, until_tab_drawn, wear

if TYPE_CHECKING:
    from collections.abc import Callable

    from screen import Screen

pytestmark = pytest.mark.browser


def test_a_click_on_the_chart_goes_to_its_operation_and_a_step_moves_the_line(screen: Screen) -> None:
    STATES["over-time"](screen)
    chart = screen.page.locator(".mx-over-figure")
    assert "52 slot 3 deleted" in screen.text(".over-now")
    assert "95 of 95" in screen.text(".over-counts")

    box = chart.bounding_box()
    assert box is not None
    left, right = 122, box["width"] - 84  # the names of the axes
    chart.click(position={"x": left + (right - left) * 39.5 / 95, "y": 200})
    until_tab_drawn(screen, "over-time").until_read(".over-now", "40 slot 3 deleted").until_painted()
    drawn = chart.locator(".mx-plot").inner_html()

    line = screen.page.locator(".mx-over-cursor")
    before = line.bounding_box()
    screen.press("ArrowRight").until_read(".over-now", "41 slot 3 created").until_painted()
    after = line.bounding_box()
    assert before is not None
    assert after is not None
    assert after["x"] - before["x"] == pytest.approx((right - left) / 95, abs=1)
    assert chart.locator(".mx-plot").inner_html() == drawn, "nothing else is drawn anew"


def test_a_pointer_over_a_bar_reads_what_it_is(screen: Screen) -> None:
    STATES["over-time"](screen)

    box = screen.page.locator(".mx-over-figure").bounding_box()
    assert box is not None
    screen.page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] - 36)

    screen.until_read(".mx-over-figure .mx-tip", "slot 0").until_read(".mx-over-figure .mx-tip", "640 KiB, 160 pages")


def test_the_address_opens_the_tab_on_a_story(screens: Callable[..., Screen], screen: Screen) -> None:
    screen.tell("What happens to the watches").press("Enter").until_at(16, 9).press("7")
    until_tab_drawn(screen, "over-time").until_read(".over-now", "17 slot 10 moved to")
    assert "tab=over-time" in screen.page.url

    other = until_tab_drawn(screens(screen.page.url), "over-time")

    assert other.text(".over-counts") == screen.text(".over-counts")


@pytest.mark.parametrize(("size", "theme"), [("1920", "dark"), ("1366", "hc")])
def test_a_refused_call_is_seen_to_scale_with_all_that_would_work(
    screens: Callable[..., Screen], address: str, size: str, theme: str
) -> None:
    screen = wear(screens(address, size=SIZES[size], color_scheme="light"), theme)
    STATES["imported"](screen)

    assert screen.text(".xray-head .xray-label") == "116 KiB overlap with 2 slots"
    assert screen.page.locator(".xray-clash").count() == 2
    assert screen.texts(".xray-result") == ["0"] * 3
    high, room = screen.page.locator(".mx-panel-guards").evaluate("e => [e.scrollHeight, e.clientHeight]")
    assert high <= room, "the ladder, the check that fired and the picture are there without scrolling"
    assert screen.page.locator(".ladder .is-fired").is_visible()
