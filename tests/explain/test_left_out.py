"""What is said of functions that the engine does not enter: by its own files, and of every recorded one."""

import ast
import re
from pathlib import Path

import pytest

from explorer.conform.call_trees import entered_functions, newest_name, recorded_files, shown_by
from explorer.explain.left_out import ABSENT, DONE_IN, OF_THE_MODULE, why_left_out

ENGINE = Path(__file__).parents[2] / "explorer/engine"
UNTOLD = {"kvm_mmu_slot_set_dirty", "vmx_slot_disable_log_dirty"}
"""What 5.10 does when the log is switched off with PML: the engine's files are silent about it."""


@pytest.mark.parametrize(("file", "words"), ABSENT)
def test_a_file_says_under_not_modelled_what_is_quoted_from_it(file, words):
    docstring = " ".join((ast.get_docstring(ast.parse((ENGINE / file).read_text())) or "").split())
    said = re.search(r"Not modelled: (.+?)(?: Read next:|$)", docstring)

    assert said is not None
    assert words in said[1]


@pytest.mark.parametrize(("file", "function"), DONE_IN)
def test_a_function_that_does_another_s_work_is_in_its_file(file, function):
    tree = ast.parse((ENGINE / file).read_text())

    assert function in {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}


def test_something_is_said_of_every_function_that_graphs_show_and_the_engine_does_not_enter():
    shown = {name for path in recorded_files() for name in shown_by(path)}

    assert {name for name in shown - entered_functions() if why_left_out(name) is None} == UNTOLD


def test_nothing_is_said_of_a_function_that_no_graph_shows_or_that_the_engine_enters():
    told = [name for names in (*DONE_IN.values(), *ABSENT.values()) for name in names]
    shown = {name for path in recorded_files() for name in shown_by(path)}

    assert len(told) == len(set(told))
    assert set(told) | OF_THE_MODULE <= shown - entered_functions()
    assert [name for name in told if newest_name(name) != name] == []
