"""Mistakes of a person's hands: every key in every focus, double clicks, a window resized while the story plays.

The keys are read from the list that the page itself shows; a key that is added there is pressed here.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest
from playwright.sync_api import (
    Error,
    TimeoutError,  # noqa: A004 - playwright's own
    expect,
)
from screen import PATIENCE_SECONDS

if TYPE_CHECKING:
    from collections.abc import Callable

    from screen import Screen

pytestmark = pytest.mark.browser

NAMES = {
    "→": "ArrowRight",
    "←": "ArrowLeft",
    "↑": "ArrowUp",
    "↓": "ArrowDown",
    "PgDn": "PageDown",
    "PgUp": "PageUp",
    "Esc": "Escape",
    "−": "-",
}
"""Signs of the list of keys that a browser calls otherwise; the rest are letters or names of its own."""
HELD = {"⇧": "Shift+", "Ctrl+": "Control+"}
FOCUSES = {
    "the page": "body",
    "the timeline": ".tl-node button, button.tl-node, .tl-cell",
    "a tab": ".mx-tab",
    "the scrubber": ".mx-scrub",
    "a drop-down": ".mx-chip-kernel select",
    "the map": ".mx-map-figure",
}
TEXT_FIELDS = {
    "a field of the operation": ".mx-fields input",
    "the go-to box": ".mx-goto input",
    "the paste box": ".mx-paste",
}
START = '.mx[data-state=ready][data-op="-1"]'
FIRST_STEP = '.mx[data-state=ready][data-op="0"][data-cell="0"]'
FAILED = "The explorer itself failed"


def published_keys(screen: Screen) -> list[str]:
    """Return the keys of the page's own list, as a browser calls them."""
    screen.press("?")
    shown = screen.texts(".mx-help > dl > dt")
    screen.press("Escape")
    keys: list[str] = []
    for entry in shown:
        digits = re.fullmatch(r"(\d) to (\d)", entry)
        if digits:
            keys += [str(n) for n in range(int(digits[1]), int(digits[2]) + 1)]
            continue
        for word in entry.replace(" or ", " ").split():
            held, sign = next(
                ((key, word.removeprefix(mark)) for mark, key in HELD.items() if word.startswith(mark)), ("", word)
            )
            name = NAMES.get(sign, sign)
            keys.append(held + (name.lower() if len(name) == 1 else name))
    return list(dict.fromkeys(keys))


def batched(things: list[str], size: int = 12) -> list[list[str]]:
    """Return a few at a time: whether the page still answers is asked after each few."""
    return [things[at : at + size] for at in range(0, len(things), size)]


def focus(screen: Screen, selector: str) -> None:
    screen.page.evaluate(
        "s => { const e = [...document.querySelectorAll(s)].find((e) => e.offsetParent || s === 'body');"
        " if (s === 'body') document.activeElement.blur(); else e?.focus(); }",
        selector,
    )


def until_it_steps(screen: Screen) -> None:
    """Leave whatever is open, go to the start and one operation on: the page answers.

    A key before may still change the story, which then opens where it opens: press again.
    """
    for _ in range(PATIENCE_SECONDS // 4):
        screen.press("Escape", "Escape")
        focus(screen, "body")
        if screen.root.get_attribute("data-playing") == "yes":
            screen.press("Space")
        screen.press("Home")
        try:
            screen.page.wait_for_selector(START, state="attached", timeout=4000)
            screen.press("Shift+ArrowRight")
            screen.page.wait_for_selector(FIRST_STEP, state="attached", timeout=4000)
        except TimeoutError:
            continue
        return
    pytest.fail(f"the page does not step: {screen.root.evaluate('e => JSON.stringify(e.dataset)')}")


def assert_nothing_failed(screen: Screen, after: str) -> None:
    assert FAILED not in screen.text(".mx-bars"), after
    assert screen.complaints == [], after
    assert screen.root.get_attribute("data-kernel") in (None, "alive"), after


@pytest.mark.parametrize("place", FOCUSES)
def test_every_key_can_be_pressed_wherever_the_focus_is(screen: Screen, place: str) -> None:
    screen.press("3").until_at(12, 9)
    keys = published_keys(screen)
    assert {"ArrowRight", "Shift+ArrowLeft", "Enter", "Space", "PageDown", "6", "!", "["} <= set(keys)

    for few in batched(keys):
        for key in few:
            screen.press("Escape")
            focus(screen, FOCUSES[place])
            screen.press(key)
        until_it_steps(screen)
        assert_nothing_failed(screen, f"{few} on {place}")


@pytest.mark.parametrize("place", TEXT_FIELDS)
def test_no_key_that_is_typed_into_a_text_is_a_shortcut(screen: Screen, place: str) -> None:
    screen.press("3").until_at(12, 9)
    typed = [key for key in published_keys(screen) if len(key) == 1]
    frame = screen.page.locator(".mx-frame")
    theme, tab = frame.get_attribute("data-theme"), frame.get_attribute("data-tab")
    field = screen.page.locator(TEXT_FIELDS[place]).first
    field.fill("")

    field.focus()
    screen.page.keyboard.type("".join(typed))
    screen.press("ArrowLeft", "Home", "Shift+ArrowRight", "End", "Space")

    expect(field).to_have_value("".join(typed) + " ", timeout=PATIENCE_SECONDS * 1000)
    assert screen.at == (12, 9)
    assert frame.get_attribute("data-theme") == theme
    assert frame.get_attribute("data-tab") == tab
    for sheet in (".mx-help", ".mx-thread", ".mx-why", ".mx-sheet"):
        assert screen.page.locator(sheet).filter(visible=True).count() == 0, sheet
    until_it_steps(screen)
    assert_nothing_failed(screen, place)


def test_a_double_click_on_any_button_leaves_a_page_that_answers(screen: Screen) -> None:
    screen.press("3").until_at(12, 9)
    buttons = screen.page.locator("button:visible")
    names = [buttons.nth(at).evaluate("e => e.ariaLabel ?? e.textContent") for at in range(buttons.count())]
    assert {"Move", "Apply", "next step", "play", "Replay"} <= {" ".join(name.split()) for name in names}

    for few in batched(list(dict.fromkeys(names))):
        for name in few:
            button = screen.page.get_by_role("button", name=name, exact=True).or_(
                screen.page.get_by_role("tab", name=name, exact=True)
            )
            if "Open a file" in name or not button.first.is_visible():
                continue  # the browser's own dialog; or an operation that is on another page of the run now
            try:
                button.first.dblclick(force=True)
            except Error:
                if button.first.is_visible():
                    raise
                continue  # an operation before it was still on its way, and took the button along
            screen.press("Escape")
            focus(screen, "body")
            screen.ready()
        until_it_steps(screen)
        assert_nothing_failed(screen, f"double click on {few}")
        screen.press("End")
        screen.ready()


def test_a_window_that_is_resized_while_it_plays_goes_on_playing(screens: Callable[..., Screen], address: str) -> None:
    screen = screens(address)
    screen.press("3").until_at(12, 9).press("Home").until_at(-1, 0)

    screen.press("]", "]", "Space")
    for width, height in ((1366, 768), (900, 700), (1280, 720), (1920, 1080)):
        at = screen.at
        screen.page.set_viewport_size({"width": width, "height": height})
        screen.page.wait_for_function(
            "at => { const { op, cell } = document.querySelector('.mx').dataset; return `${op}:${cell}` !== at }",
            arg=f"{at[0]}:{at[1]}",
        )
        assert screen.root.get_attribute("data-playing") == "yes"

    screen.press("Space").ready()
    until_it_steps(screen)
    assert_nothing_failed(screen, "resizing")
