"""How soon the dashboard shows the next step: from a key to the painted picture, all visible panels drawn.

A press ends, in the page itself, with the frame after the stage said that it is ready at another stop: up to a
frame more than a person waits, never less. The picture that counts is complete, but sketched; plotly draws the same
once the keys rest, and is not timed. Motion is switched off, as a person may; steps have none anyway.
"""

from __future__ import annotations

from pathlib import Path
from random import Random
from time import monotonic, sleep
from typing import TYPE_CHECKING

from measure import Report, Row, at_least, at_most, note, percentile

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from playwright.sync_api import Browser
    from servers import Server

__all__ = ["measure_steps"]

TYPICAL_MILLISECONDS = 50
SLOW_MILLISECONDS = 100
"""For 95 of 100 presses."""

_LOG = Path(__file__).parents[2] / "assets/traces/big-q100/strace.log.gz"
_LOG_NAME = "log of 62,227 operations"
_LOG_PRESSES = 16
_PACES = {"a glance at each": 250, "no rest": 0}
"""Milliseconds from a picture to the next press."""
_STORIES = {"a glance at each": "What happens to the watches", "no rest": "Rejected is not free"}
"""Each ends with a MOVE, and telling the other one in between makes the page forget its pictures."""
_PATIENCE = 60_000

_WATCH = """
() => {
  const root = document.querySelector(".mx");
  const stop = () => `${root.dataset.op}:${root.dataset.cell}`;
  let pressed = null;
  addEventListener("keydown", (event) => (pressed = { at: event.timeStamp, from: stop() }), { capture: true });
  new MutationObserver(() => {
    if (!pressed || root.dataset.state !== "ready" || stop() === pressed.from) return;
    const { at } = pressed;
    pressed = null;
    requestAnimationFrame(() => {
      const painted = new MessageChannel();
      painted.port1.onmessage = () => (window.__milliseconds = performance.now() - at);
      painted.port2.postMessage(null);
    });
  }).observe(root, { attributes: true });
}
"""
_DRAWN = """
(revision) => {
  const { state, playing, rev } = document.querySelector(".mx").dataset;
  return state === "ready" && playing === "no" && Number(rev) > revision;
}
"""


_COUNT = """
() => {
  const root = document.querySelector(".mx");
  const held = (window.__held = { pictures: 0, pressed: 0, painted: 0, op: root.dataset.op });
  window.__counting?.disconnect();
  window.__counting = new MutationObserver(() => {
    if (root.dataset.op === held.op) return; // the same stop, drawn once more
    held.op = root.dataset.op;
    held.pictures += 1;
    requestAnimationFrame(() => {
      const painted = new MessageChannel();
      painted.port1.onmessage = () => (held.painted = performance.now());
      painted.port2.postMessage(null);
    });
  });
  window.__counting.observe(root, { attributes: true, attributeFilter: ["data-op"] });
  addEventListener("keydown", (event) => (held.pressed = event.timeStamp), { capture: true });
}
"""
_LAST = "() => window.__held.painted > window.__held.pressed && window.__held"
_SCRUB = """
async (op) => {
  const root = document.querySelector(".mx");
  const scrub = document.querySelector(".mx-scrub");
  const there = () => root.dataset.state === "ready" && root.dataset.op === String(op);
  const begun = performance.now();
  scrub.value = String(op);
  scrub.dispatchEvent(new Event("input", { bubbles: true }));
  await new Promise((resolve) => {
    const watch = () => there() && (watcher.disconnect(), resolve());
    const watcher = new MutationObserver(watch);
    watcher.observe(root, { attributes: true });
    watch();
  });
  await new Promise((resolve) =>
    requestAnimationFrame(() => {
      const painted = new MessageChannel();
      painted.port1.onmessage = resolve;
      painted.port2.postMessage(null);
    }),
  );
  return performance.now() - begun;
}
"""
_SCRUB_STOPS = 40
_SEED = 62_227
_SCRUB_MILLISECONDS = 200
_SCRUB_PACES = {"a glance at each": 250, "dragged": 50, "no rest": 0}
_HELD_PRESSES = 500
_HELD_SECONDS = 1 / 30
"""From one repeat of a held key to the next, as keyboards do it."""
_HELD_PICTURES = 20
_HELD_MILLISECONDS = 100
_PAGE_MEGABYTES = 500
_IMPORT_SECONDS = 5


class Hand:
    """A person at the keyboard of one page."""

    def __init__(self, browser: Browser, server: Server, size: dict[str, int]) -> None:
        """Open the dashboard."""
        self.server = server
        self.page = browser.new_context(viewport=size, reduced_motion="reduce").new_page()
        self.page.set_default_timeout(_PATIENCE)
        self.page.goto(server.url, wait_until="commit")
        self.page.wait_for_selector(".mx[data-state=ready]")
        self.page.evaluate(_WATCH)
        self.taken: dict[tuple[str, str], list[float]] = {}

    def tell(self, story: str) -> None:
        """Choose a story and apply its last call."""
        label = story.replace(" ", "\u00a0")  # as a drop-down of ipywidgets writes it
        self._change(lambda: self.page.locator(".mx-story select").select_option(label=label))
        self.page.evaluate("document.activeElement.blur()")
        self._change(lambda: self.page.keyboard.press("Enter"))

    def open(self, log: Path) -> None:
        """Import a log."""
        self._change(lambda: self.page.locator(".mx-import input[type=file]").set_input_files(log))

    def jump(self, key: str) -> tuple[int, int]:
        """Go to an end of the run, and rest there until the page has what is near; return where that is."""
        self.page.keyboard.press(key)
        self.server.wait_quiet()
        self.page.wait_for_selector(".mx[data-state=ready][data-playing=no]")
        op, cell = (self.page.locator(".mx").get_attribute(name) for name in ("data-op", "data-cell"))
        return int(op or 0), int(cell or 0)

    def press(self, case: str, pace: str, key: str, times: int) -> None:
        """Press a key and note the milliseconds to each picture."""
        for _ in range(times):
            self.page.wait_for_timeout(_PACES[pace])
            self.page.evaluate("window.__milliseconds = null")
            self.page.keyboard.press(key)
            painted = self.page.wait_for_function("window.__milliseconds", polling=20)
            self.taken.setdefault((case, pace), []).append(float(painted.json_value()))

    def scrub(self, pace: str, stops: list[int]) -> list[float]:
        """Drag the scrubber to operations; return the milliseconds to each picture."""
        taken = []
        for op in stops:
            self.page.wait_for_timeout(_SCRUB_PACES[pace])
            taken.append(float(self.page.evaluate(_SCRUB, op)))
        return taken

    def hold(self, key: str) -> tuple[float, float]:
        """Hold a key; return the pictures a second, and the milliseconds from its last repeat to the last picture."""
        self.page.evaluate(_COUNT)
        begun = due = monotonic()
        for _ in range(_HELD_PRESSES):
            sleep(max(0.0, due - monotonic()))
            due += _HELD_SECONDS
            self.page.keyboard.down(key)
        self.page.keyboard.up(key)
        self.page.wait_for_selector(".mx[data-state=ready][data-playing=no]")
        ended = monotonic()
        held = self.page.wait_for_function(_LAST, polling=20).json_value()
        return held["pictures"] / (ended - begun), held["painted"] - held["pressed"]

    def _change(self, action: Callable[[], object]) -> None:
        """Do what changes all pictures, and wait for them."""
        self.server.wait_quiet()  # what the page said last may still make pictures
        revision = int(self.page.locator(".mx").get_attribute("data-rev") or -1)
        action()
        self.page.wait_for_function(_DRAWN, arg=revision)


def measure_steps(browser: Browser, server: Server, size: dict[str, int], rounds: int) -> Iterator[Report]:
    """Iterate over the tables of steps; a value of a round is the median or the 95th percentile of its presses."""
    hand = Hand(browser, server, size)
    values: dict[tuple[str, str], list[list[float]]] = {}
    for number in range(rounds):
        note(f"stepping through stories, round {number + 1} of {rounds}")
        _stories(hand)
        _keep(hand, values)
    note("importing a log")
    begun = monotonic()
    hand.open(_LOG)
    imported = monotonic() - begun
    hand.jump("Home")
    for number in range(rounds):
        note(f"stepping through the log, round {number + 1} of {rounds}")
        _log(hand)
        _keep(hand, values)
    note("holding a key in the log")
    hand.jump("Home")
    held = [hand.hold("ArrowRight") for _ in range(rounds)]
    note("scrubbing through the log")
    scrubbed = list(_scrubbed(hand, rounds))
    megabytes = float(hand.page.evaluate("performance.memory.usedJSHeapSize")) / 1e6
    hand.page.context.close()
    yield Report("Steps: from a key to the painted picture", tuple(_rows(values)))
    yield Report(f"The scrubber, to places of a {_LOG_NAME} that were never drawn", tuple(scrubbed))
    what = f"{_HELD_PRESSES} operations of a {_LOG_NAME}"
    yield Report(
        "A key held down, 30 repeats a second",
        (
            Row(f"{what}, pictures", "1/s", tuple(pictures for pictures, _ in held), at_least(_HELD_PICTURES)),
            Row(f"{what}, last picture", "ms", tuple(last for _, last in held), at_most(_HELD_MILLISECONDS)),
            Row("objects of the page afterwards", "MB", (megabytes,), at_most(_PAGE_MEGABYTES)),
            Row(f"import of the {_LOG_NAME}", "s", (imported,), at_most(_IMPORT_SECONDS)),
        ),
    )


def _scrubbed(hand: Hand, rounds: int) -> Iterator[Row]:
    """Iterate over the rows of the scrubber; every place is a new one."""
    last = int(hand.page.locator(".mx-scrub").get_attribute("max") or 0)
    places = iter(Random(_SEED).sample(range(last), 10_000))  # noqa: S311 - places, not secrets
    for pace in _SCRUB_PACES:
        taken = [hand.scrub(pace, [next(places) for _ in range(_SCRUB_STOPS)]) for _ in range(rounds)]
        for name, share, target in (("median", 0.5, None), ("p95", 0.95, at_most(_SCRUB_MILLISECONDS))):
            values = tuple(percentile(times, share) for times in taken)
            yield Row(f"{pace}, {name} of {_SCRUB_STOPS} places", "ms", values, target)


def _stories(hand: Hand) -> None:
    for pace, story in _STORIES.items():
        hand.tell(story)
        op, cell = hand.jump("End")
        hand.press("inside a MOVE", pace, "Shift+ArrowLeft", cell)
        hand.press("inside a MOVE", pace, "Shift+ArrowRight", cell)
        hand.jump("Home")
        hand.press("operations of a story", pace, "ArrowRight", op + 1)
        hand.press("operations of a story", pace, "ArrowLeft", op + 1)


def _log(hand: Hand) -> None:
    """Step on from where the round before stopped, so that half of the stops are new to the page."""
    for pace in _PACES:
        for case, keys in (
            (f"operations of a {_LOG_NAME}", ("ArrowRight", "ArrowLeft")),
            (f"inside operations of a {_LOG_NAME}", ("Shift+ArrowRight", "Shift+ArrowLeft")),
        ):
            ahead, back = keys
            hand.press(case, pace, ahead, _LOG_PRESSES)
            hand.press(case, pace, back, _LOG_PRESSES // 2)


def _keep(hand: Hand, values: dict[tuple[str, str], list[list[float]]]) -> None:
    for case, taken in hand.taken.items():
        values.setdefault(case, []).append(taken)
    hand.taken = {}


def _rows(values: dict[tuple[str, str], list[list[float]]]) -> Iterator[Row]:
    for (case, pace), rounds in values.items():
        for name, share, limit in (("median", 0.5, TYPICAL_MILLISECONDS), ("p95", 0.95, SLOW_MILLISECONDS)):
            taken = tuple(percentile(presses, share) for presses in rounds)
            yield Row(f"{case}, {pace}, {name} of {len(rounds[0])} presses", "ms", taken, at_most(limit))
