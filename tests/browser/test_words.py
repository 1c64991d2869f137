"""Words of the page: the guided story from cold, the glossary without a mouse, and the thread claim by claim."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import parse_qs, urlsplit

import pytest

from explorer.explain.claims import CLAIMS
from explorer.explain.glossary import GLOSSARY
from explorer.scenarios import guided

if TYPE_CHECKING:
    from collections.abc import Callable

    from screen import Screen

pytestmark = pytest.mark.browser

SIZES = pytest.mark.parametrize("size", [(1920, 1080), (1366, 768)], ids=lambda size: f"{size[0]}")


def address_of(screen: Screen) -> dict[str, str]:
    return {name: values[0] for name, values in parse_qs(urlsplit(screen.page.url).query).items()}


# -- the guided story ------------------------------------------------------------------------------


@SIZES
def test_two_keys_turn_the_beats_and_each_says_what_to_look_for(screen: Screen, size: tuple[int, int]) -> None:
    screen.page.set_viewport_size({"width": size[0], "height": size[1]})
    line = ".mx-because" if size[0] < 1720 else ".beat-look"

    for beat in guided()[1:]:
        revision = screen.revision
        screen.press("PageDown").until_drawn_anew(revision).until_read(line, beat.look)
        assert screen.page.locator(line).first.is_visible()
    revision = screen.revision
    screen.press("PageUp").until_drawn_anew(revision).until_read(line, guided()[-2].look)


def test_a_beat_opens_from_cold_and_its_address_follows_the_steps(screens: Callable[..., Screen], address: str) -> None:
    screen = screens(f"{address}?story=why-nobody-noticed")

    screen.until_at(12, 4)
    assert "Beat 3 of 9" in screen.rail
    screen.press("Shift+ArrowRight").until_at(12, 5)

    again = screens(screen.page.url)
    assert address_of(screen) == {"story": "why-nobody-noticed", "at": "13.6"}
    assert again.until_at(12, 5).rail == screen.rail


def test_a_beat_on_another_kernel_says_so(screen: Screen) -> None:
    screen.tell("Never trust a because")
    screen.until_read(".mx-rail", "no SPTE maps through an INVALID or dead slot")

    screen.choose("chip-kernel", "6.12")

    assert "Told on 6.12 as queued; now on 6.12" in screen.rail
    assert "no SPTE maps through an INVALID or dead slot" not in screen.rail


# -- the glossary ----------------------------------------------------------------------------------


@SIZES
def test_a_word_is_explained_under_the_pointer_and_under_the_keyboard(screen: Screen, size: tuple[int, int]) -> None:
    screen.press("3").until_at(12, 9)
    revision = screen.revision
    screen.page.set_viewport_size({"width": size[0], "height": size[1]})
    if size[0] < 1720:
        screen.until_drawn_anew(revision)
    word = screen.page.locator(".mx-fields-panel .gloss").locator("visible=true").first
    meaning = next(term.meaning for term in GLOSSARY if term.key == word.get_attribute("data-term"))

    word.hover()
    screen.until_read(".mx-card", meaning)
    card, page = screen.page.locator(".mx-card").bounding_box(), screen.page.viewport_size
    assert card is not None
    assert page is not None
    assert card["x"] >= 0
    assert card["x"] + card["width"] <= page["width"]
    assert card["y"] + card["height"] <= page["height"]
    screen.page.mouse.move(400, 5)
    screen.page.locator(".mx-card").wait_for(state="hidden")

    word.focus()
    screen.until_read(".mx-card", meaning)
    assert word.get_attribute("aria-describedby") == screen.page.locator(".mx-card").get_attribute("id")
    screen.press("Escape")
    screen.page.locator(".mx-card").wait_for(state="hidden")


def test_a_step_with_the_focus_on_a_word_keeps_the_keys_working(screen: Screen) -> None:
    screen.press("3").until_at(12, 9)
    screen.page.locator(".mx-rail .gloss").first.focus()

    for cell in range(8, -1, -1):
        screen.press("Shift+ArrowLeft").until_at(12, cell)

    assert screen.page.evaluate("document.activeElement.closest('.mx-frame') !== null")


def test_the_list_has_every_word_and_changes_with_the_kernel(screen: Screen) -> None:
    screen.press("?")
    screen.page.locator(".mx-help").wait_for()

    assert screen.texts(".glossary dt") == [term.name for term in GLOSSARY]
    assert screen.page.locator(".glossary .is-away").count() == 0
    screen.press("Escape")
    screen.choose("chip-kernel", "5.10").press("?")
    away = screen.page.locator(".glossary .is-away")
    away.first.wait_for()
    assert "not in 5.10: 6.8 to 7.3" in " ".join(away.all_inner_texts())


# -- the thread ------------------------------------------------------------------------------------


def test_a_claim_is_chosen_with_enter_and_opens_its_state(screen: Screen) -> None:
    screen.press("l")
    screen.page.locator(".mx-thread [data-claim]").first.wait_for()
    assert len(screen.texts(".claims li")) == len(CLAIMS)
    assert screen.page.evaluate("document.activeElement.dataset.claim") == CLAIMS[0].name

    screen.press("Enter").until_at(16, 7)

    assert screen.page.locator(".mx-thread").is_hidden()
    assert CLAIMS[0].words in screen.text(".mx-bars")
    assert "MOVE refused" in screen.rail


def test_what_is_opinion_offers_nothing_to_open(screen: Screen) -> None:
    screen.page.get_by_role("button", name="the thread, claim by claim").click()
    opinions = screen.page.locator(".claims li", has_text="experience or opinion")
    opinions.first.wait_for()

    assert opinions.count() == sum(claim.kind == "opinion" for claim in CLAIMS)
    assert opinions.locator("[data-claim]").count() == 0
    screen.press("Escape")
    assert screen.page.locator(".mx-thread").is_hidden()


# -- why -------------------------------------------------------------------------------------------


@SIZES
def test_w_asks_why_and_each_entry_leads_there(screen: Screen, size: tuple[int, int]) -> None:
    revision = screen.revision
    screen.page.set_viewport_size({"width": size[0], "height": size[1]})
    if size[0] < 1720:
        screen.until_drawn_anew(revision)
    screen.tell("What happens to the watches").press("Escape", "Enter").until_at(16, 9)

    screen.press("w").until_read(".mx-why h2", "Why is the count of gfn 0xd0203 0?").until_focus_in(".mx-why")
    screen.press("Enter").until_at(16, 7)
    screen.press("Tab", "Enter").until_at(14, 0)

    assert screen.page.locator(".mx-why").is_visible()
    screen.press("Escape")
    assert screen.page.locator(".mx-why").is_hidden()


def test_an_errno_is_asked_about_by_pressing_it(screen: Screen) -> None:
    screen.tell("Rejected is not free").press("Escape", "Enter").until_at(16, 7)

    screen.page.locator(".mx-rail .stop .ask").click()

    screen.until_read(".mx-why", "Attach KVMGT: before it, the check passes")
