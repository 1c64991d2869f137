"""The dashboard's notebook in JupyterLab: a server on a copy of it, and the run of its cell."""

from __future__ import annotations

import os
import shutil
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

from playwright.sync_api import TimeoutError  # noqa: A004 - playwright's own
from screen import PATIENCE_SECONDS, ROOT, Screen, server_of

from explorer.cli.serve import free_port

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from playwright.sync_api import Browser

__all__ = ["lab_in", "open_cell"]


@contextmanager
def lab_in(folder: Path) -> Iterator[str]:
    """Serve JupyterLab on a copy of the notebook, so that nothing is saved into the project; give its address."""
    shutil.copy(ROOT / "notebooks/90_dashboard.ipynb", folder)
    port = free_port(9700)
    options = ("--no-browser", f"--port={port}", "--ServerApp.port_retries=0", "--IdentityProvider.token=")
    settings = ("--LabApp.news_url=", "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate")
    command = [sys.executable, "-m", "jupyterlab", *options, *settings, f"--ServerApp.root_dir={folder}"]
    if os.geteuid() == 0:
        command.append("--allow-root")
    with server_of(command, f"http://127.0.0.1:{port}/", probe="api/status"):
        yield f"http://127.0.0.1:{port}/lab/tree/90_dashboard.ipynb?reset"


def open_cell(browser: Browser, lab: str, size: tuple[int, int]) -> Screen:
    """Open the notebook, run its cell and wait for the dashboard in its output."""
    screen = Screen.visit(browser.new_context().new_page(), lab, size)  # it keeps what is open where in its storage
    _run(screen)
    return screen.ready()


def _run(screen: Screen) -> None:
    """Run the first cell; JupyterLab forgets a run that is asked for while it still connects, so ask again."""
    for _ in range(PATIENCE_SECONDS):
        screen.page.locator(".jp-CodeCell .jp-InputArea-editor").first.click()
        screen.press("Control+Enter")
        try:
            screen.page.wait_for_selector(".jp-CodeCell .jp-InputPrompt:not(:text-is('[ ]:'))", timeout=2000)
        except TimeoutError:
            continue
        return
    raise AssertionError("JupyterLab does not run the cell")
