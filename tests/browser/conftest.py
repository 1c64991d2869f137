"""A real Chromium, a real server, and pages that must stay silent and ask nobody outside for anything."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from chromium import FLAGS, find_chromium
from playwright.sync_api import Browser, sync_playwright
from screen import Screen, serving

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    path = find_chromium()
    assert path is not None, "no Chromium: run the tests with `make test`, which installs one, or set CHROMIUM"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def address() -> Iterator[str]:
    """Where `explorer serve` serves the dashboard."""
    with serving() as address:
        yield address


@pytest.fixture
def screens(browser: Browser) -> Iterator[Callable[..., Screen]]:
    """Open pages of any size and theme; at the end each must have been silent."""
    opened: list[Screen] = []

    def open_screen(url: str, *, size: tuple[int, int] = (1920, 1080), **context: object) -> Screen:
        screen = Screen.open(browser, url, size, **context)
        opened.append(screen)
        return screen

    yield open_screen
    for screen in opened:
        screen.close()
        assert screen.complaints == []
        assert screen.requests_outside == []


@pytest.fixture
def screen(screens: Callable[..., Screen], address: str) -> Screen:
    """Return the dashboard at 1920 x 1080, opening question and all."""
    return screens(address)
