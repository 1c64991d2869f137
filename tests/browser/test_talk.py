"""The layout of a talk: large type, few parts, one sentence; by key, by button, and in the address."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from looks import faults_of
from states import SIZES, STATES, lay_out_for_a_talk, until_tab_drawn

if TYPE_CHECKING:
    from collections.abc import Callable

    from screen import Screen

pytestmark = pytest.mark.browser

LEAST = {(1920, 1080): 24, (1366, 768): 20}
"""Pixels of the smallest type, by size of the screen."""
NOTHING = ([], [], [], 0)
GONE = (".mx-top", ".mx-compose", ".mx-rail", ".mx-time", ".mx-tabbar")
BEYOND = """() => [...document.querySelectorAll('.mx-panel, .mx-tabs, .mx-slide, .mx-caption')]
    .filter((e) => e.offsetParent && e.scrollHeight > e.clientHeight + 1).map((e) => e.className)"""
SPOT = """slot => { const word = [...document.querySelectorAll('.mx-words text')].find(e => e.textContent === slot);
    const box = word.getBoundingClientRect();
    return [box.left + box.width / 2, box.top + box.height / 2] }"""


@pytest.mark.parametrize(
    ("state", "size"),
    [
        ("refused", SIZES["1920"]),
        *((s, SIZES["1366"]) for s in ("opening", "window", "refused", "kernels", "kvmgt", "compare", "calls")),
    ],
)
def test_a_talk_can_be_read_from_the_last_row(
    screens: Callable[..., Screen], address: str, state: str, size: tuple[int, int]
) -> None:
    screen = screens(address, size=size)
    STATES[state](screen)
    lay_out_for_a_talk(screen)
    if state in ("kvmgt", "compare", "calls"):
        until_tab_drawn(screen, state)

    assert faults_of(screen, LEAST[size]) == NOTHING
    assert screen.page.evaluate(BEYOND) == []
    revision = screen.revision
    screen.press("x")
    if size == SIZES["1366"] and state in ("opening", "window", "refused"):
        screen.until_drawn_anew(revision)  # the map has another height than the part below it had left for it
    assert faults_of(screen, LEAST[size]) == NOTHING
    assert screen.page.evaluate(BEYOND) == []


def test_a_talk_shows_the_verdict_its_price_and_one_sentence(screen: Screen) -> None:
    STATES["talk"](screen)

    assert not any(screen.page.locator(part).is_visible() for part in GONE)
    assert screen.text(".mx-slide h2") == "−EINVAL"
    assert "Memslot generation 22 26" in screen.text(".mx-slide table")
    assert screen.text(".mx-caption .caption p").startswith("KVM said no only after it had hidden the slot")
    assert screen.text(".caption-place") == "step 8 of 8 beat 5 of 9"
    assert "slot 10" in screen.map_words

    screen.press("Shift+ArrowLeft").until_at(16, 6)
    screen.until_read(".caption-place", "step 7 of 8")
    screen.press("PageDown").until_read(".caption-place", "beat 6 of 9")


def test_the_map_has_its_width_again_after_a_talk_that_was_left_without_it(screen: Screen) -> None:
    STATES["refused"](screen)
    width = "document.querySelector('.mx-map .mx-sketch').getBoundingClientRect().width"
    wide = screen.page.evaluate(width)
    lay_out_for_a_talk(screen)
    screen.press("4")
    screen.page.locator(".mx-map").wait_for(state="hidden")
    revision = screen.revision
    screen.press("p").until_drawn_anew(revision)

    revision = screen.revision
    screen.press("2").until_drawn_anew(revision)
    assert screen.page.evaluate(width) == wide


def test_the_layout_is_kept_in_the_address_and_left_by_its_key_or_escape(
    screens: Callable[..., Screen], screen: Screen
) -> None:
    STATES["talk"](screen)
    assert screen.page.url.endswith("layout=talk")

    other = screens(screen.page.url)
    other.until_read(".mx-slide h2", "−EINVAL")
    assert not any(other.page.locator(part).is_visible() for part in GONE)

    for key in ("Escape", "p"):
        revision = other.revision
        other.press(key).until_drawn_anew(revision)
        assert all(other.page.locator(part).is_visible() for part in GONE) == (key == "Escape")
        assert ("layout=talk" in other.page.url) == (key == "p")
    revision = other.revision
    other.press("?")
    other.press("Escape", "p").until_drawn_anew(revision)  # the list of keys was closed, not the talk
    assert all(other.page.locator(part).is_visible() for part in GONE)


def test_what_the_mouse_may_press_hides_no_other_word(screen: Screen) -> None:
    STATES["window"](screen)
    lay_out_for_a_talk(screen)

    screen.page.mouse.move(400, 1070)

    screen.page.wait_for_selector(".mx-frame[data-moved]")
    assert screen.page.locator(".mx-talk-keys").evaluate("e => getComputedStyle(e).opacity") == "1"
    assert faults_of(screen, LEAST[SIZES["1920"]]) == NOTHING


def test_the_mouse_finds_the_way_out_and_what_it_points_at(screen: Screen) -> None:
    STATES["talk"](screen)
    assert screen.page.locator(".mx-talk-keys").evaluate("e => getComputedStyle(e).opacity") == "0"

    x, y = screen.page.evaluate(SPOT, "VGA")
    screen.page.mouse.move(x, y)
    screen.until_read(".mx-tip", "slot 4 VGA")
    revision = screen.revision
    screen.page.get_by_role("button", name="leave the layout of a talk").click()

    screen.until_drawn_anew(revision)
    assert all(screen.page.locator(part).is_visible() for part in GONE)
    revision = screen.revision
    screen.page.get_by_role("button", name="layout for a talk (P)").click()
    screen.until_drawn_anew(revision).until_read(".mx-slide h2", "−EINVAL")


def test_a_small_screen_shows_one_half_and_x_the_other(screens: Callable[..., Screen], address: str) -> None:
    screen = screens(address, size=SIZES["1366"])
    STATES["talk"](screen)
    halves = [".mx-slide", ".mx-map-figure"]

    for shown in ([True, False], [False, True], [True, False]):
        assert [screen.page.locator(half).is_visible() for half in halves] == shown
        screen.press("x")
