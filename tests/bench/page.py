"""The page in a real browser: how soon it is there, and how soon it follows a key.

Needs Chromium: the one ``CHROMIUM`` names, or ``chromium``, ``chromium-browser`` or ``google-chrome`` on the path.
"""

from __future__ import annotations

from contextlib import ExitStack
from time import sleep
from typing import TYPE_CHECKING

from chromium import FLAGS, find_chromium
from measure import Report, Row, at_most, note, ratio
from playwright.sync_api import sync_playwright
from servers import dashboard, empty_notebook, plain_voila
from steps import measure_steps

from explorer.cli.serve import FILL_SECONDS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import Browser
    from servers import Server

__all__ = ["measure_page"]

TIMES_OF_EMPTY = 1.5
SIZE = {"width": 1920, "height": 1080}
_SITES = {"dashboard": dashboard, "empty": empty_notebook, "plain": plain_voila}
_TITLES = {
    "dashboard": "the dashboard",
    "empty": "empty notebook, same command line",
    "plain": "empty notebook, Voila as it comes",
}
_MOMENTS = {"painted": "first painted", "usable": "usable"}
# Looks once a frame, as a person would; an element counts when it takes room on the page.
_WATCH = """
(() => {
  const shown = (e) => e.getClientRects().length > 0;
  const look = () => {
    const stage = document.querySelector(".mx[data-state=ready] .mx-map");
    const text = [...document.querySelectorAll(".jp-OutputArea-output")].find((e) => e.textContent.trim() === "ready");
    if ((stage && shown(stage)) || (text && shown(text))) window.__usable = performance.now();
    else requestAnimationFrame(look);
  };
  requestAnimationFrame(look);
})();
"""
_TIMES = """
() => {
  const paint = performance.getEntriesByName("first-contentful-paint")[0];
  return window.__usable && paint ? { painted: paint.startTime, usable: window.__usable } : null;
}
"""


def measure_page(rounds: int) -> Iterator[Report]:
    """Iterate over the tables of the page."""
    with ExitStack() as stack:
        note("starting servers")
        sites = {
            (site, preheat): stack.enter_context(serve(preheat=preheat))
            for preheat in (0, 1)
            for site, serve in _SITES.items()
        }
        playwright = stack.enter_context(sync_playwright())
        browser = playwright.chromium.launch(executable_path=find_chromium(), args=FLAGS)
        stack.callback(browser.close)
        yield _opening(browser, sites, rounds)
        server = sites["dashboard", 1]
        server.wait_quiet()
        yield from measure_steps(browser, server, SIZE, rounds)


def _opening(browser: Browser, sites: dict[tuple[str, int], Server], rounds: int) -> Report:
    taken: dict[tuple[int, str, str], list[float]] = {}
    for number in range(rounds + 1):
        note(f"opening pages, round {number} of {rounds}" if number else "opening each page once, not counted")
        for (site, preheat), server in sites.items():
            sleep(FILL_SECONDS)  # by then the server visited before has begun to fill its pool
            for each in sites.values():
                each.wait_quiet()
            times = _visit(browser, server)
            for moment, milliseconds in times.items():
                if number:
                    taken.setdefault((preheat, moment, site), []).append(milliseconds)
    rows = {
        (preheat, moment, site): Row(f"{_heat(preheat)}, {_MOMENTS[moment]}: {_TITLES[site]}", "ms", tuple(values))
        for (preheat, moment, site), values in sorted(taken.items())
    }
    judged = [
        ratio(
            f"{_heat(preheat)}, {title}: dashboard to {_TITLES[site]}",
            rows[preheat, moment, "dashboard"],
            rows[preheat, moment, site],
            at_most(TIMES_OF_EMPTY),
        )
        for preheat in (0, 1)
        for moment, title in _MOMENTS.items()
        for site in ("empty", "plain")
    ]
    return Report("Page: from the address to the page, a new browser profile each time", (*rows.values(), *judged))


def _visit(browser: Browser, server: Server) -> dict[str, float]:
    context = browser.new_context(viewport=SIZE)
    try:
        context.add_init_script(_WATCH)
        page = context.new_page()
        page.goto(server.url, wait_until="commit")
        times: dict[str, float] = page.wait_for_function(_TIMES, timeout=60_000, polling=100).json_value()
        page.goto("about:blank")  # as a person leaves; the page then tells the server to end its kernel
        return times
    finally:
        context.close()


def _heat(preheat: int) -> str:
    return "preheated" if preheat else "cold"
