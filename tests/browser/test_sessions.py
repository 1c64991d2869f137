"""What a session survives: a reload, an address sent to a colleague, and the death of its kernel."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import psutil
import pytest
from screen import PATIENCE_SECONDS

if TYPE_CHECKING:
    from collections.abc import Callable

    from screen import Screen

pytestmark = pytest.mark.browser


def kernel_of(screen: Screen) -> psutil.Process:
    """Return the process of the kernel behind a page."""
    config = json.loads(screen.page.locator("#jupyter-config-data").text_content() or "")
    name = f"kernel-{config['kernelId']}.json"
    return next(p for p in psutil.process_iter(["cmdline"]) if any(name in word for word in p.info["cmdline"] or ()))


def until_addressed(screen: Screen, words: str) -> str:
    """Wait until the address of the page holds `words`; return the address."""
    screen.page.wait_for_function("w => location.search.includes(w)", arg=words)
    return screen.page.url


def at_a_step_between_drawn_ones(screen: Screen) -> Screen:
    """Go from the end of the newcomer's MOVE back to its step 9, whose neighbours can be drawn without the kernel."""
    screen.press("Shift+ArrowLeft").until_at(12, 8).press("Shift+ArrowLeft").until_at(12, 7)
    screen.press("Shift+ArrowRight").until_at(12, 8)
    until_addressed(screen, "at=13.9")
    return screen


def test_a_page_that_is_closed_ends_its_kernel(screen: Screen) -> None:
    kernel = kernel_of(screen)

    with screen.page.expect_event("close"):
        screen.page.close(run_before_unload=True)

    kernel.wait(PATIENCE_SECONDS)
    assert not kernel.is_running()


def test_an_address_opens_the_same_run_at_the_same_step(
    screens: Callable[..., Screen], screen: Screen, address: str
) -> None:
    screen.press("k").until_at(12, 0).press("Enter").until_at(13, 7)
    screen.press("Shift+ArrowLeft", "Shift+ArrowLeft").until_at(13, 5)
    verdict, words = screen.rail, screen.map_words

    colleague = screens(until_addressed(screen, "at=14.6"))

    colleague.until_at(13, 5)
    assert colleague.rail == verdict
    assert colleague.map_words == words
    assert colleague.page.url.startswith(address)


def test_an_address_that_cannot_be_read_opens_the_story_and_says_so(
    screens: Callable[..., Screen], address: str
) -> None:
    screen = screens(f"{address}?v=1&k=%3Cb%3Ev99&at=1.1")

    screen.until_read(".mx-bar.is-error", "This address cannot be opened: k='<b>v99' is no kernel profile")
    assert screen.page.locator(".mx-bar b").count() == 0
    assert "Three pages of this one are watched for writes." in screen.text(".mx-map-head")


def test_a_dead_kernel_announces_itself_and_a_reload_returns_to_the_step(screen: Screen) -> None:
    at_a_step_between_drawn_ones(screen.press("3").until_at(12, 9))

    kernel_of(screen).kill()

    screen.until_read(".mx-bar.is-lost", "Session lost. The picture still works; changes need a reload.")
    screen.press("Shift+ArrowLeft").until_at(12, 7)

    screen.page.get_by_role("button", name="Reload at this step").click()
    screen.page.wait_for_load_state("domcontentloaded")
    screen.until_at(12, 7)
    screen.until_read(".mx-time-body", "13 of 13")
