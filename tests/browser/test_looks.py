"""How states of the page look: no word is cut off, lies on another or is too small; nothing scrolls sideways."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from looks import faults_of
from states import SIZES, STATES

if TYPE_CHECKING:
    from collections.abc import Callable

    from screen import Screen

pytestmark = pytest.mark.browser

NOTHING = ([], [], [], 0)


@pytest.mark.parametrize(
    ("state", "size"),
    [
        *((name, SIZES["1366"]) for name in STATES if name != "talk"),
        *((name, SIZES["1920"]) for name in ("opening", "refused", "kernels-6.1")),
    ],
)
def test_every_word_of_a_state_can_be_read(
    screens: Callable[..., Screen], address: str, state: str, size: tuple[int, int]
) -> None:
    screen = screens(address, size=size)
    STATES[state](screen)

    assert faults_of(screen) == NOTHING


def test_the_measure_finds_what_is_wrong_on_purpose(screen: Screen) -> None:
    screen.page.add_style_tag(
        content=".question h2 { max-width: 200px; overflow: hidden; white-space: nowrap }"
        " .q-label { font-size: 6px } .legend li { height: 4px } .mx-app { min-width: 2000px }"
    )

    faults = faults_of(screen)

    assert "Move the slot up by one page. The three watches… (H2: sideways)" in faults.clipped
    assert {words.partition(" (")[0] for words in faults.small} == {"old", "new"}
    assert any("Watched page" in words for words in faults.overlapping)
    assert faults.sideways == 80
