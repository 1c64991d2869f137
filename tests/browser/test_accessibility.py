"""What an automated check of accessibility (axe-core) finds on the page: nothing, in any theme."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from axe_playwright_python.sync_playwright import Axe
from states import SIZES, STATES, lay_out_for_a_talk, until_tab_drawn, wear

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from screen import Screen

pytestmark = pytest.mark.browser


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
    screen.press("w").page.wait_for_selector(".mx-why .origins")
    yield "why a value is what it is"
    screen.press("Escape", "l").page.wait_for_selector(".mx-thread .claims")
    yield "the thread, claim by claim"
    screen.press("Escape", "?").page.wait_for_selector(".mx-help .glossary")
    yield "the list of keys and words"
    screen.press("Escape")
    for tab in ("kernels", "kvmgt", "calls"):
        STATES[tab](screen)
        yield f"the tab {tab}"
    screen.tell("What happens to the watches").press("6")
    yield f"the tab {until_tab_drawn(screen, 'compare').text('.compare h2')}"
    STATES["imported"](screen)
    yield "a refused call to scale"
    screen.press("7").until_read(".over-counts", "refused")
    until_tab_drawn(screen, "over-time")
    yield "slots over time"
    STATES["refused"](screen)
    lay_out_for_a_talk(screen)
    yield "a talk"


@pytest.mark.parametrize(
    ("theme", "size", "rules"), [("light", "1920", ()), ("hc", "1366", ()), ("dark", "1366", ("color-contrast",))]
)
def test_no_state_of_the_page_has_a_violation(
    screens: Callable[..., Screen], address: str, theme: str, size: str, rules: tuple[str, ...]
) -> None:
    """Colours are the theme's, and the large and the small page differ in what they leave out."""
    screen = wear(screens(address, size=SIZES[size], color_scheme="light"), theme)
    asked: dict[str, object] = {"resultTypes": ["violations"]}  # no words for what passes: half of the time
    if rules:
        asked["runOnly"] = list(rules)

    found = {}
    for state in states_of(screen):
        violations = Axe().run(screen.page, options=asked).response["violations"]
        found[state] = {v["id"]: [node["target"] for node in v["nodes"]] for v in violations}

    assert found == {state: {} for state in found}
