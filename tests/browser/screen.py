"""The dashboard in a browser, as the tests use it: keys, what can be read, and states to wait for."""

from __future__ import annotations

import os
import subprocess
import sys
import urllib.error
import urllib.request
from contextlib import contextmanager
from pathlib import Path
from time import monotonic, sleep
from typing import TYPE_CHECKING, Any, ClassVar
from weakref import WeakKeyDictionary

from explorer.cli.serve import free_port

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import Browser, ConsoleMessage, Locator, Page, Request

ROOT = Path(__file__).resolve().parents[2]
PATIENCE_SECONDS = 40
"""How long a state may take on a machine that is busy with other things; nothing waits this long for nothing."""
_KINDS_OF_COMPLAINT = ("error",)


class Tabs:
    """The tabs of one browser, in one window's profile.

    A tab that is left is used again: opening a window takes as long as loading the dashboard. What is loaded in it is
    loaded anew, with a kernel of its own.
    """

    _of: ClassVar[WeakKeyDictionary[Browser, Tabs]] = WeakKeyDictionary()

    def __init__(self, browser: Browser) -> None:
        self._context = browser.new_context()
        self._left: list[Page] = []

    @classmethod
    def of(cls, browser: Browser) -> Tabs:
        if browser not in cls._of:
            cls._of[browser] = cls(browser)
        return cls._of[browser]

    def take(self) -> Page:
        if not self._left:
            return self._context.new_page()
        page = self._left.pop()
        page.bring_to_front()  # a drop-down of a tab behind another one does not open
        return page

    def leave(self, page: Page) -> None:
        """Leave what a tab shows, as a person does, so that its kernel is ended."""
        page.mouse.move(0, 0)
        page.goto("about:blank")
        self._left.append(page)


@contextmanager
def serving(*options: str, port: int | None = None) -> Iterator[str]:
    """Run `explorer serve` and give its address once it answers; a port is given to serve where a server was before."""
    port = port or free_port(11_000 + os.getpid() % 500 * 20)  # a browser refuses 10080
    command = [sys.executable, "-m", "explorer", "serve", "--no-browser", "--port", str(port), *options]
    # A file that is not there: an answer that starts no kernel.
    with server_of(command, f"http://127.0.0.1:{port}/", probe="voila/static/none") as address:
        yield address


@contextmanager
def server_of(command: list[str], address: str, *, probe: str) -> Iterator[str]:
    """Run a server until the block is left; enter it once a path of it is answered."""
    server = subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        _wait_for(f"{address}{probe}", server)
        yield address
    finally:
        server.terminate()
        server.wait(PATIENCE_SECONDS)


def _wait_for(url: str, server: subprocess.Popen[bytes]) -> None:
    deadline = monotonic() + PATIENCE_SECONDS
    while monotonic() < deadline:
        assert server.poll() is None, f"the server ended with status {server.returncode}"
        try:
            urllib.request.urlopen(url, timeout=5).close()  # noqa: S310 - our own server
        except urllib.error.HTTPError:
            return
        except OSError:
            sleep(0.1)
        else:
            return
    raise AssertionError(f"nothing answers at {url}")


class Screen:
    """One page with the dashboard."""

    def __init__(self, page: Page, tabs: Tabs | None = None) -> None:
        self.page = page
        self._tabs = tabs
        self._page_errors = lambda error: self.complaints.append(str(error))
        self.complaints: list[str] = []
        self.requests_outside: list[str] = []
        page.on("console", self._on_console)
        page.on("pageerror", self._page_errors)
        page.on("request", self._on_request)

    @classmethod
    def open(cls, browser: Browser, url: str, size: tuple[int, int], **media: Any) -> Screen:
        """Open a page and wait until the picture is there; motion is reduced unless asked for."""
        tabs = Tabs.of(browser)
        return cls.visit(tabs.take(), url, size, tabs=tabs, **media).ready()

    @classmethod
    def visit(cls, page: Page, url: str, size: tuple[int, int], *, tabs: Tabs | None = None, **media: Any) -> Screen:
        """Go to an address without waiting for a dashboard."""
        page.set_default_timeout(PATIENCE_SECONDS * 1000)
        page.set_viewport_size({"width": size[0], "height": size[1]})
        page.emulate_media(**{"reduced_motion": "reduce", "color_scheme": "light", **media})
        screen = cls(page, tabs)
        page.goto(url, wait_until="domcontentloaded")
        return screen

    def close(self) -> None:
        """Close the page, or leave it for the next one; both end its kernel."""
        if self.page.is_closed():
            return
        self.page.remove_listener("console", self._on_console)
        self.page.remove_listener("pageerror", self._page_errors)
        self.page.remove_listener("request", self._on_request)
        if self._tabs is not None:
            self._tabs.leave(self.page)
            return
        self.page.on("dialog", lambda dialog: dialog.accept())  # JupyterLab asks whether to leave
        with self.page.expect_event("close"):
            self.page.close(run_before_unload=True)

    def _on_console(self, message: ConsoleMessage) -> None:
        if message.type in _KINDS_OF_COMPLAINT:
            self.complaints.append(f"{message.type}: {message.text}")

    def _on_request(self, request: Request) -> None:
        if not request.url.startswith(("http://127.0.0.1:", "ws://127.0.0.1:", "data:", "blob:")):
            self.requests_outside.append(request.url)

    # -- where we are ----------------------------------------------------------------------------

    @property
    def root(self) -> Locator:
        return self.page.locator(".mx")

    def ready(self) -> Screen:
        """Wait until what is wanted is drawn."""
        self.page.wait_for_selector(".mx[data-state=ready][data-playing=no]", state="attached")
        return self

    @property
    def at(self) -> tuple[int, int]:
        """Operation, from 0, and step inside it, from 0."""
        op, cell = self.root.get_attribute("data-op"), self.root.get_attribute("data-cell")
        assert op is not None
        assert cell is not None
        return int(op), int(cell)

    @property
    def revision(self) -> int:
        return int(self.root.get_attribute("data-rev") or -1)

    def until_at(self, op: int, cell: int) -> Screen:
        """Wait until a stop is drawn."""
        self.page.wait_for_selector(
            f'.mx[data-state=ready][data-playing=no][data-op="{op}"][data-cell="{cell}"]', state="attached"
        )
        return self

    def until_drawn_anew(self, revision: int) -> Screen:
        """Wait until pictures of a later revision are drawn."""
        self.page.wait_for_function(
            "r => { const m = document.querySelector('.mx');"
            " return m.dataset.state === 'ready' && m.dataset.playing === 'no' && Number(m.dataset.rev) > r }",
            arg=revision,
        )
        return self

    def until_painted(self) -> Screen:
        """Wait until plotly has drawn what was sketched."""
        self.page.wait_for_selector(".mx[data-state=ready][data-pen=plotly]", state="attached")
        return self

    # -- hands -----------------------------------------------------------------------------------

    def press(self, *keys: str) -> Screen:
        for key in keys:
            self.page.keyboard.press(key)
        return self

    def choose(self, control: str, label: str) -> Screen:
        """Choose from a drop-down: ``story``, or a chip such as ``chip-kernel``."""
        revision = self.revision
        self.page.locator(f".mx-{control} select").select_option(label=label)
        return self.until_drawn_anew(revision)

    def tell(self, story: str) -> Screen:
        return self.choose("story", story)

    def fill(self, field: str, text: str) -> Screen:
        self.field(field).fill(text)
        return self

    def field(self, name: str) -> Locator:
        return self.page.locator(".mx-field", has=self.page.get_by_text(name, exact=True)).locator("input")

    # -- eyes ------------------------------------------------------------------------------------

    def text(self, selector: str) -> str:
        """Return what can be read in an element, in one line."""
        return " ".join(self.page.locator(selector).first.inner_text().split())

    def texts(self, selector: str) -> list[str]:
        return [" ".join(text.split()) for text in self.page.locator(selector).all_inner_texts()]

    def until_read(self, selector: str, words: str) -> Screen:
        """Wait until words can be read in an element."""
        self.page.locator(selector).filter(has_text=words).first.wait_for()
        return self

    def until_focus_in(self, selector: str) -> Screen:
        """Wait until the keyboard is in a part of the page."""
        self.page.wait_for_function("s => document.activeElement.closest(s) !== null", arg=selector)
        return self

    @property
    def rail(self) -> str:
        return self.text(".mx-rail")

    @property
    def map_words(self) -> list[str]:
        return self.page.locator(".mx-map-figure .mx-words text").all_text_contents()
