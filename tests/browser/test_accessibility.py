"""What an automated check of accessibility (axe-core) finds on the page: nothing, in any theme."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from axe_playwright_python.sync_playwright import Axe

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from screen import Screen

pytestmark = [pytest.mark.browser, pytest.mark.xdist_group("browser")]

SIZES = {"wide": (1920, 1080), "small": (1366, 768)}
PRESSES_OF_T = {"light": 0, "dark": 1, "hc": 2}


def states_of(screen: Screen) -> Iterator[str]:
    """Walk through the states of the page that differ most, and say where we are."""
    yield "the opening question"
    screen.press("3").until_at(12, 9)
    yield "an accepted MOVE"
    screen.tell("Rejected is not free").press("Enter")
    screen.press("2").until_read(".mx-panel-guards", "FIRED")
    yield "the checks of a refused MOVE"
    screen.press("3").until_read(".mx-panel-table", "slot 10")
    yield "the table of slots"
    screen.tell("Before the patch").press("Enter").until_at(16, 9).press("1")
    screen.page.wait_for_selector(".tl-node.is-broken", state="attached")
    yield "a violation"
    screen.press("n").until_focus_in(".mx-note")
    yield "the notes"
    screen.press("Escape")
    screen.press("?")
    screen.page.wait_for_selector(".mx-help", state="visible")
    yield "the list of keys"


@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)
@pytest.mark.parametrize("theme", PRESSES_OF_T)
def test_no_state_of_the_page_has_a_violation(
    screens: Callable[..., Screen], address: str, theme: str, size: tuple[int, int]
) -> None:
    screen = screens(address, size=size, color_scheme="light")
    for _ in range(PRESSES_OF_T[theme]):
        revision = screen.revision
        screen.press("t").until_drawn_anew(revision)
    assert screen.page.evaluate("document.querySelector('.mx-frame').dataset.theme ?? 'light'") == theme

    found = {}
    for state in states_of(screen):
        violations = Axe().run(screen.page).response["violations"]
        found[state] = {v["id"]: [node["target"] for node in v["nodes"]] for v in violations}

    assert found == {state: {} for state in found}
