"""The same dashboard as a cell of a notebook in JupyterLab."""

from __future__ import annotations

import os
import shutil
import sys
from typing import TYPE_CHECKING

import pytest
from playwright.sync_api import TimeoutError  # noqa: A004 - playwright's own
from screen import PATIENCE_SECONDS, ROOT, Screen, server_of

from explorer.cli.serve import free_port

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from playwright.sync_api import Browser

pytestmark = [pytest.mark.browser, pytest.mark.xdist_group("browser")]

SIZE = (1600, 1000)


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Serve JupyterLab on a copy of the notebooks, so that nothing is saved into the project."""
    folder: Path = tmp_path_factory.mktemp("lab")
    shutil.copy(ROOT / "notebooks/90_dashboard.ipynb", folder)
    port = free_port(9700)
    options = ("--no-browser", f"--port={port}", "--ServerApp.port_retries=0", "--IdentityProvider.token=")
    settings = ("--LabApp.news_url=", "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate")
    command = [sys.executable, "-m", "jupyterlab", *options, *settings, f"--ServerApp.root_dir={folder}"]
    if os.geteuid() == 0:
        command.append("--allow-root")
    with server_of(command, f"http://127.0.0.1:{port}/", probe="api/status"):
        yield f"http://127.0.0.1:{port}/lab/tree/90_dashboard.ipynb?reset"


@pytest.fixture
def cell(browser: Browser, lab: str) -> Iterator[Screen]:
    """Run the notebook's cell and return the dashboard in its output."""
    screen = Screen.visit(browser, lab, SIZE)
    run(screen)
    screen.ready()
    yield screen
    screen.close()
    assert screen.requests_outside == []


def run(screen: Screen) -> None:
    """Run the first cell; JupyterLab forgets a run that is asked for while it still connects, so ask again."""
    for _ in range(PATIENCE_SECONDS):
        screen.page.locator(".jp-CodeCell .jp-InputArea-editor").first.click()
        screen.press("Control+Enter")
        try:
            screen.page.wait_for_selector(".jp-CodeCell .jp-InputPrompt:not(:text-is('[ ]:'))", timeout=2000)
        except TimeoutError:
            continue
        return
    pytest.fail("JupyterLab does not run the cell")


def test_the_dashboard_runs_in_a_cell_and_leaves_the_notebook_its_keys(cell: Screen) -> None:
    assert "Three pages of this one are watched for writes." in cell.text(".mx-map-head")

    cell.page.locator(".answer").nth(2).click()
    cell.until_at(12, 9)
    assert "You said so. Gone, and on this setup that is harmless." in cell.text(".mx-map-head")

    cell.page.locator(".tl-cell.is-now").click()
    cell.press("Shift+ArrowLeft").until_at(12, 8).press("ArrowLeft").until_at(11, 0)

    # Outside the dashboard its keys are the notebook's.
    cell.page.locator(".jp-CodeCell .jp-InputArea-editor").first.click()
    cell.press("End", "ArrowRight", "3")
    assert cell.at == (11, 0)
