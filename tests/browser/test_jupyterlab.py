"""The same dashboard as a cell of a notebook in JupyterLab."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from lab import lab_in, open_cell

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import Browser
    from screen import Screen

pytestmark = pytest.mark.browser

SIZE = (1600, 1000)


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with lab_in(tmp_path_factory.mktemp("lab")) as address:
        yield address


@pytest.fixture
def cell(browser: Browser, lab: str) -> Iterator[Screen]:
    """Run the notebook's cell and return the dashboard in its output."""
    screen = open_cell(browser, lab, SIZE)
    yield screen
    screen.close()
    assert screen.requests_outside == []


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
