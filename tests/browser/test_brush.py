"""The line of all memory as a brush: drag over it and the detail shows that stretch; keys do the same."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from states import STATES, lay_out_for_a_talk

if TYPE_CHECKING:
    from screen import Screen

pytestmark = pytest.mark.browser

VGA = (0xFD000000, 0xFE000000)
"""Where the layout q72-pc-3584M has its frame buffer, 16 MiB of it, as bytes."""
WORD = """text => { const word = [...document.querySelectorAll('.mx-words text')].find(e => e.textContent === text);
    const box = word.getBoundingClientRect(); return [box.left, box.right, (box.top + box.bottom) / 2] }"""


def shown(screen: Screen) -> tuple[int, int]:
    """Return the first and the last byte that the head of the map names."""
    first, last = screen.text(".mx-map-head .code").split(" · ")[0].split(" to ")
    return int(first, 16), int(last, 16)


def drag_over(screen: Screen, word: str) -> None:
    left, right, y = screen.page.evaluate(WORD, word)
    revision = screen.revision
    screen.page.mouse.move(left, y)
    screen.page.mouse.down()
    screen.page.mouse.move((left + right) / 2, y)
    screen.page.mouse.move(right, y)
    screen.page.mouse.up()
    screen.until_drawn_anew(revision)


def test_a_drag_over_a_slot_of_the_line_shows_that_part_of_it(screen: Screen) -> None:
    STATES["violation"](screen)
    was = shown(screen)

    drag_over(screen, "VGA")

    first, last = shown(screen)
    assert VGA[0] < first < last < VGA[1]
    assert "slot 4" in screen.map_words
    # The drag chose a stretch and nothing else: U takes it back, and the slot in focus is the one it was.
    revision = screen.revision
    screen.press("u").until_drawn_anew(revision)
    assert shown(screen) == was


def test_the_same_without_a_mouse(screen: Screen) -> None:
    STATES["violation"](screen)
    screen.page.locator(".mx-goto input").fill("0xfd000000..0xfe000000")
    revision = screen.revision
    screen.press("Enter").until_drawn_anew(revision)
    first, last = shown(screen)
    assert first <= VGA[0] < VGA[1] - 1 <= last

    screen.press("Escape")
    for key, sign in ((">", 1), ("<", -1)):
        before, revision = shown(screen), screen.revision
        screen.press(key).until_drawn_anew(revision)
        after = shown(screen)
        assert after[1] - after[0] == before[1] - before[0]
        assert after[0] - before[0] == sign * ((before[1] + 1 - before[0]) // 2)


def test_it_works_on_an_enlarged_page(screen: Screen) -> None:
    STATES["violation"](screen)
    lay_out_for_a_talk(screen)

    drag_over(screen, "VGA")
    revision = screen.revision
    screen.press("p").until_drawn_anew(revision)

    first, last = shown(screen)
    assert VGA[0] < first < last < VGA[1]
