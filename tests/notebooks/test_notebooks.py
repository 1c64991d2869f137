"""Every notebook runs from top to bottom, and is text with one call a cell, without stored output."""

from __future__ import annotations

import ast
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

FOLDER = Path(__file__).parents[2] / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
LINES = 6


def named(path: Path) -> str:
    return path.stem


def code_cells(path: Path) -> list[nbformat.NotebookNode]:
    return [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]


def test_the_chapters_are_here() -> None:
    assert {path.stem for path in NOTEBOOKS} >= {"00_tour", "10_memslots", "20_page_tracking", "90_dashboard"}


@pytest.mark.parametrize("path", NOTEBOOKS, ids=named)
def test_it_runs(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)

    NotebookClient(notebook, timeout=120, resources={"metadata": {"path": str(FOLDER)}}).execute()

    shown = [output.output_type for cell in notebook.cells for output in cell.get("outputs", ())]
    assert shown
    assert set(shown) <= {"execute_result", "display_data"}, "a notebook shows results and prints nothing to stderr"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=named)
def test_no_output_and_no_count_is_stored(path: Path) -> None:
    assert [(cell.outputs, cell.execution_count) for cell in code_cells(path)] == [([], None)] * len(code_cells(path))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=named)
def test_cells_are_short_and_call_the_explorer_alone(path: Path) -> None:
    for number, cell in enumerate(code_cells(path)):
        imports_alone = number == 0 and all(isinstance(n, ast.ImportFrom) for n in ast.parse(cell.source).body)
        assert imports_alone or len(cell.source.splitlines()) <= LINES, cell.source
        for node in ast.walk(ast.parse(cell.source)):
            assert not isinstance(node, ast.FunctionDef | ast.ClassDef | ast.For | ast.While), cell.source
            if isinstance(node, ast.ImportFrom):
                assert (node.module or "").split(".")[0] == "explorer", cell.source
            assert not isinstance(node, ast.Import), cell.source


def test_the_dashboards_notebook_says_nothing_that_the_page_would_show() -> None:
    assert [cell.cell_type for cell in nbformat.read(FOLDER / "90_dashboard.ipynb", as_version=4).cells] == ["code"]
