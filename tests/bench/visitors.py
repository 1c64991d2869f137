"""Twenty visitors of one server at once: does each get through the opening story, how soon, and what does each hold?

Every visitor is a browser context of its own with a kernel of its own. The pages press their keys themselves, all at
the same time, with a glance at each step. A visitor's memory is the proportional set size of the kernel: a page of
memory that several processes share counts for each of them in part.
"""

from __future__ import annotations

import json
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

from chromium import FLAGS, find_chromium
from measure import Report, Row, at_most, note, percentile
from playwright.sync_api import sync_playwright
from servers import dashboard, empty_notebook

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import Browser, Page
    from servers import Server

__all__ = ["measure_visitors"]

VISITORS = 20
MEBIBYTES_EACH = 150
_SIZE = {"width": 1366, "height": 768}
_PATIENCE = 300_000
_GLANCE = 250
_FIRST = ".mx[data-state=ready][data-question=open]"
_END = ".mx[data-state=ready][data-playing=no][data-question=no]"
_TELLS_AN_ERROR = ".mx-bar.is-error, .mx-bar.is-lost"
# Answer the question, go to the start, and press a key for each step until nothing comes any more.
_WALK = """
(glance) => {
  const root = document.querySelector(".mx");
  const press = (key, shiftKey) =>
    document.body.dispatchEvent(new KeyboardEvent("keydown", { key, shiftKey, bubbles: true }));
  const stop = () => `${root.dataset.op}:${root.dataset.cell}`;
  const rest = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
  const until = (holds) => new Promise((resolve) => {
    const watcher = new MutationObserver(() => holds() && (watcher.disconnect(), requestAnimationFrame(resolve)));
    watcher.observe(root, { attributes: true });
    if (holds()) (watcher.disconnect(), resolve());
  });
  const drawn = () => root.dataset.state === "ready" && root.dataset.playing === "no";
  const walk = async () => {
    const taken = [];
    press("Home");
    await until(() => drawn() && root.dataset.op === "-1");
    for (;;) {
      await rest(glance);
      const from = stop();
      if (from === window.__last) return taken;
      const at = performance.now();
      press("ArrowRight", true);
      await until(() => drawn() && stop() !== from);
      taken.push(performance.now() - at);
    }
  };
  window.__last = stop();
  window.__taken = null;
  walk().then((taken) => (window.__taken = taken));
}
"""


def measure_visitors(rounds: int) -> Iterator[Report]:
    """Iterate over the one table of visitors."""
    with ExitStack() as stack:
        playwright = stack.enter_context(sync_playwright())
        browser = playwright.chromium.launch(executable_path=find_chromium(), args=FLAGS)
        stack.callback(browser.close)
        floor = _floor(browser)
        server = stack.enter_context(dashboard(preheat=1))
        yield _twenty(browser, server, rounds, floor)


def _floor(browser: Browser) -> float:
    """Return what the kernel of a page that does nothing holds."""
    note("opening an empty notebook")
    with empty_notebook(preheat=0) as server:
        page = _visit(browser, server)
        page.get_by_text("ready", exact=True).first.wait_for()
        return _held(server, page)


def _twenty(browser: Browser, server: Server, rounds: int, floor: float) -> Report:
    note(f"{VISITORS} visitors open the page")
    pages = [_visit(browser, server) for _ in range(VISITORS)]
    errors: list[str] = []
    for page in pages:
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    for page in pages:
        page.wait_for_selector(_FIRST, state="attached")
        page.keyboard.press("3")
        page.wait_for_selector(_END, state="attached")
    typical, slow, failed, held = [], [], [], []
    for number in range(rounds):
        note(f"{VISITORS} visitors step through the story, round {number + 1} of {rounds}")
        for page in pages:
            page.evaluate(_WALK, _GLANCE)
        taken = [page.wait_for_function("window.__taken", polling=500).json_value() for page in pages]
        steps = [milliseconds for walk in taken for milliseconds in walk]
        told = sum(page.locator(_TELLS_AN_ERROR).count() for page in pages)
        typical.append(median(steps))
        slow.append(percentile(steps, 0.95))
        failed.append(float(told + len(errors) + sum(not walk for walk in taken)))
        held.append(median(_held(server, page) for page in pages))
        errors.clear()
    return Report(
        f"Visitors: {VISITORS} at once on one server, {len(steps) // VISITORS} steps each",
        (
            Row("errors", "", tuple(failed), at_most(0)),
            Row("from a key to the painted picture, median", "ms", tuple(typical)),
            Row("from a key to the painted picture, p95", "ms", tuple(slow)),
            Row("memory of a visitor's kernel", "MiB", tuple(held), at_most(MEBIBYTES_EACH)),
            Row("memory of the kernel of an empty notebook, alone", "MiB", (floor,)),
        ),
    )


def _visit(browser: Browser, server: Server) -> Page:
    page = browser.new_context(viewport=_SIZE, reduced_motion="reduce").new_page()
    page.set_default_timeout(_PATIENCE)
    page.goto(server.url, wait_until="commit")
    return page


def _held(server: Server, page: Page) -> float:
    """Return the mebibytes of the kernel behind a page, shared ones in part."""
    config = json.loads(page.locator("#jupyter-config-data").text_content() or "")
    rollup = Path(f"/proc/{server.kernel(config['kernelId'])}/smaps_rollup").read_text(encoding="ascii")
    kibibytes = next(line.split()[1] for line in rollup.splitlines() if line.startswith("Pss:"))
    return int(kibibytes) / 1024
