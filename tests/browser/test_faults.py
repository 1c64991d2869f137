"""Faults between a page and its kernel: each ends in a sentence, and in a way back to the same step."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import expect
from screen import PATIENCE_SECONDS, ROOT, Screen, serving
from test_bad_input import send
from test_sessions import at_a_step_between_drawn_ones, kernel_of
from wire import Wire, wired

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from playwright.sync_api import Browser

pytestmark = pytest.mark.browser

CUT = "The connection is down and is tried again."
LOST = "Session lost. The picture still works; changes need a reload."
LOG = ROOT / "assets/traces/own-walk-good/strace.log.gz"
SIZE = (1366, 768)


@pytest.fixture
def wire(address: str) -> Iterator[Wire]:
    with wired(address) as wire:
        yield wire


@pytest.fixture
def visits(browser: Browser) -> Iterator[Callable[[str], Screen]]:
    """Open pages whose console may tell of connections that break; no line of it may be an error of the page."""
    opened: list[Screen] = []

    def visit(url: str) -> Screen:
        screen = Screen.open(browser, url, SIZE)
        opened.append(screen)
        return screen

    yield visit
    for screen in opened:
        screen.close()
        broken = ("net::ERR_", "WebSocket", "status of 404")
        assert [line for line in screen.complaints if not any(words in line for words in broken)] == []


def at_a_step(screen: Screen) -> Screen:
    """Apply the newcomer's MOVE and go to a step inside it, which the address holds."""
    screen.press("3").until_at(12, 9)
    return at_a_step_between_drawn_ones(screen)


def until_alive(screen: Screen) -> Screen:
    screen.page.locator(".mx-bar.is-lost").wait_for(state="detached")
    screen.page.wait_for_selector(".mx[data-kernel=alive]", state="attached")
    return screen


def test_while_the_connection_is_cut_steps_go_on_and_a_change_waits_for_it(
    visits: Callable[[str], Screen], wire: Wire
) -> None:
    screen = at_a_step(visits(wire.address))

    wire.cut()
    screen.until_read(".mx-bar.is-lost", CUT)
    screen.press("Shift+ArrowLeft").until_at(12, 7)
    screen.page.get_by_role("button", name="Delete", exact=True).click()

    wire.mend()
    screen.page.get_by_role("button", name="Try now").click()
    until_alive(screen).until_read(".mx-preflight", "DELETE, because the size is 0")
    assert screen.at == (12, 7)
    screen.press("Escape", "Shift+ArrowRight").until_at(12, 8)


def test_a_step_that_was_on_its_way_when_the_connection_broke_is_drawn_once_it_is_back(
    visits: Callable[[str], Screen], wire: Wire
) -> None:
    screen = at_a_step(visits(wire.address))

    wire.cut()
    screen.until_read(".mx-bar.is-lost", CUT)
    screen.press("Home")
    wire.mend()

    screen.page.get_by_role("button", name="Try now").click()
    until_alive(screen).until_at(-1, 0)


def test_a_log_that_is_on_its_way_when_the_connection_breaks_is_asked_for_again(
    visits: Callable[[str], Screen], wire: Wire, tmp_path: Path
) -> None:
    screen = at_a_step(visits(wire.address))
    large = tmp_path / "large.log"
    with large.open("wb") as file:
        file.truncate(60 << 20)

    wire.hold()
    send(screen, "large.log", large)
    screen.until_read(".mx-bar.is-info", "Reading large.log, 60 MiB")
    wire.cut()
    screen.until_read(".mx-bar.is-error", "The log was not taken: the connection broke off.")
    send(screen, "again.log", LOG)
    screen.until_read(".mx-bar.is-error", "cannot be sent now: the connection is down.")

    wire.mend()
    screen.page.get_by_role("button", name="Try now").click()
    until_alive(screen)
    send(screen, "again.log", LOG)
    screen.until_read(".mx-bar", "strace log with")


def test_a_server_that_was_started_anew_is_said_to_have_lost_the_session(
    visits: Callable[[str], Screen],
) -> None:
    with serving() as address:
        screen = at_a_step(visits(address))
    port = urlsplit(address).port

    # The server is down. The page is drawn, and a reload now would leave a person with the browser's own error.
    screen.until_read(".mx-bar.is-lost", CUT)
    with serving(port=port):
        screen.until_read(".mx-bar.is-lost", LOST)
        screen.press("Shift+ArrowLeft").until_at(12, 7)

        screen.page.get_by_role("button", name="Reload at this step").click()
        screen.page.wait_for_event("load")
        screen.until_at(12, 7).until_read(".mx-time-body", "13 of 13")


def test_a_reload_waits_for_the_server(visits: Callable[[str], Screen]) -> None:
    with serving() as address:
        screen = at_a_step(visits(address))
    screen.until_read(".mx-bar.is-lost", CUT)

    screen.page.get_by_role("button", name="Reload at this step").click()
    screen.until_read(".mx-bar.is-lost", "The page reloads at this step as soon as it does.")

    with serving(port=urlsplit(address).port):
        screen.page.wait_for_event("load")
        screen.until_at(12, 8).until_read(".mx-time-body", "13 of 13")


def test_a_tab_that_nobody_used_for_the_idle_time_says_so_to_who_returns(visits: Callable[[str], Screen]) -> None:
    with serving("--idle", "0.1") as address:
        screen = at_a_step(visits(address))
        kernel = kernel_of(screen)

        kernel.wait(PATIENCE_SECONDS)

        screen.page.mouse.move(300, 300)
        screen.until_read(".mx-bar.is-lost", LOST)
        screen.page.get_by_role("button", name="Reload at this step").click()
        screen.page.wait_for_event("load")
        screen.until_at(12, 8).until_read(".mx-time-body", "13 of 13")


def test_a_lost_session_leaves_no_control_that_does_nothing(visits: Callable[[str], Screen], address: str) -> None:
    screen = at_a_step(visits(address))

    kernel_of(screen).kill()
    screen.until_read(".mx-bar.is-lost", LOST)

    for part in (".mx-top", ".mx-compose", ".mx-map-tools"):
        expect(screen.page.locator(part)).to_have_attribute("inert", "")
    screen.press("Home")
    screen.until_read(".mx-bar.is-error", "That step was not drawn before the session was lost.")
    screen.press("Shift+ArrowLeft").until_at(12, 7)

    screen.press("k").until_focus_in(".mx-bar.is-lost")
    screen.press("Enter")
    screen.page.wait_for_event("load")
    screen.until_at(12, 7)


def test_a_log_of_50_mb_is_taken_or_refused_in_words_and_steps_go_on(
    visits: Callable[[str], Screen], address: str, tmp_path: Path
) -> None:
    screen = at_a_step(visits(address))
    large = tmp_path / "large.log"
    with large.open("wb") as file:
        file.truncate(50_000_000)

    send(screen, "large.log", large)
    screen.until_read(".mx-bar.is-info", "Reading large.log, 48 MiB")
    screen.press("Shift+ArrowLeft").until_at(12, 7)

    screen.until_read(".mx-bar.is-error", "large.log: binary data and no log")
    screen.press("Shift+ArrowLeft").until_at(12, 6)
