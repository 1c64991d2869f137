"""Questions about places: where there is room, and what backs an address.

Numbered and counted as in `test_questions_of_calls`. Expected answers are worked out from the lines of the layout.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest
from answers import slots_by_hand
from hands import Hands

if TYPE_CHECKING:
    from screen import Screen

pytestmark = pytest.mark.browser

MIB = 1 << 20


@pytest.fixture
def hands(screen: Screen) -> Hands:
    return Hands(screen)


def first_room(size: int, below: int) -> int:
    """Return the lowest address at which so many bytes are free below another."""
    at = 0
    for told in slots_by_hand():
        if told.gpa - at >= size:
            break
        at = max(at, told.end)
    assert at + size <= below
    return at


def test_question_20_where_is_there_room_for_a_16_mib_slot_below_4_gib(hands: Hands) -> None:
    room = first_room(16 * MIB, 4096 * MIB)

    hands.press("/").until_focus_in(".mx-goto")
    screen = hands.type("gap>=16M <4G").until_read(".mx-found", f"16 MiB fit at {room:#x}")

    assert hands.actions <= 2
    assert screen.root.get_attribute("data-question") == "open", "typing moves nothing"
    screen.press("Enter").until_read(".mx-bar", f"16 MiB fit at {room:#x}")
    screen.page.locator(".mx-found").wait_for(state="hidden")
    screen.until_read(".mx-map-head", "0x")
    shown = [int(text, 16) for text in re.findall(r"0x[0-9a-f]+", screen.text(".mx-map-head"))[:2]]
    assert shown[0] < room < room + 16 * MIB - 1 < shown[1]


def test_question_21_which_slot_and_hva_back_this_gpa(hands: Hands) -> None:
    gpa = 0xD000_3ABC
    (slot,) = [told for told in slots_by_hand() if told.gpa <= gpa < told.end]

    screen = hands.paste(hex(gpa)).until_read(".mx-bar", f"{gpa:#x} lies in slot {slot.slot}, at host address")

    assert hands.actions <= 1
    assert screen.text(".mx-bar").split("host address ")[1].split()[0] == f"{gpa - slot.gpa + slot.hva:#x}."
    assert f"slot {slot.slot}" in screen.map_words


def test_question_21_of_an_address_that_is_typed(hands: Hands) -> None:
    hands.press("/").until_focus_in(".mx-goto")

    screen = hands.type("0xb0000").until_read(".mx-found", "gfn 0xb0 lies in a hole: no slot backs it.")

    assert hands.actions <= 2
    screen.press("Escape").page.locator(".mx-found").wait_for(state="hidden")
    assert screen.page.locator(".mx-goto input").input_value() == "", "who leaves the box goes nowhere"
    assert screen.root.get_attribute("data-question") == "open"
    assert screen.texts(".mx-bar") == []
