"""The tables of the Kernels tab: words and shapes beside colours, and a name for every cell."""

from __future__ import annotations

import json

from hypothesis import given, settings
from runs import ALL_PROFILES, KVMGT, LOGGER, MOVE, SLOT, WATCHED, random_runs, run_of

from explorer.engine.commands import SetMemoryRegion
from explorer.figures.dom import to_html, to_text
from explorer.figures.eras import eras_panel
from explorer.figures.matrix import matrix_panel, no_matrix_panel
from explorer.selectors.configurations import ROWS, call_at
from explorer.selectors.eras import COLUMNS, select_eras
from explorer.selectors.matrix import MatrixCell, MatrixColumn, MatrixRow, MatrixView, select_matrix


def nodes_of(node):
    if not isinstance(node, str):
        yield node
        for child in node[2:]:
            yield from nodes_of(child)


def found(node, tag, **attributes):
    """Return the elements of a tree with a tag and these attributes."""
    wanted = {name.replace("_", "-"): value for name, value in attributes.items()}
    return [n for n in nodes_of(node) if n[0] == tag and wanted.items() <= n[1].items()]


def panels_of(run, op=None):
    at = len(run) - 1 if op is None else op
    call = call_at(run, at, None)
    return [matrix_panel(select_matrix(run, call)) if call else no_matrix_panel(), eras_panel(select_eras(run, at))]


def cell(mark, **more):
    base = MatrixCell("v6_6", True, True, mark, "0", "moved", "gen +4", False, False, (), "6.6, all of it in words")
    return base._replace(**more)


def panel_of_cells(*cells):
    row = MatrixRow("v6_6", "6.6", "list not empty", "model", cells, 0, loud=False)
    columns = tuple(MatrixColumn("built in", f"use {n}", "") for n in range(len(cells)))
    view = MatrixView(7, "One MOVE", "slot 10", columns, (row,), "", (), "merged", 0)
    return matrix_panel(view)


def test_a_cell_is_told_by_shape_and_words():
    refused = cell("refused", result="\N{MINUS SIGN}EINVAL", word="", differs=True)
    panel = panel_of_cells(cell("allowed"), refused, cell("lost", word="2 watches lost"))

    assert [g[1]["class"] for g in found(panel, "svg")] == ["g g--check", "g g--rejected", "g g--lost"]
    text = to_text(panel)
    assert "0 moved" in text
    assert "\N{MINUS SIGN}EINVAL ≠ intended" in text
    assert "0, 2 watches lost" in text


def test_what_cannot_be_is_no_button_and_says_why():
    panel = panel_of_cells(cell("impossible", result="", word="cannot be", cost="\N{MINUS SIGN}ENODEV: nobody can"))

    assert found(panel, "button", data_matrix="v6_6:1:1") == []
    assert found(panel, "td", title="\N{MINUS SIGN}ENODEV: nobody can")
    assert "cannot be \N{MINUS SIGN}ENODEV" in to_text(panel)


def test_a_click_goes_to_the_call_where_the_page_is_and_switches_the_page_elsewhere():
    here, there = found(panel_of_cells(cell("allowed", here=True), cell("allowed", attached=False)), "button")[-2:]

    assert (here[1]["data-op"], here[1]["aria-current"]) == (7, "true")
    assert there[1]["data-matrix"] == "v6_6:1:0"
    assert "data-op" not in there[1]
    assert here[1]["aria-label"] == "6.6, all of it in words"


def test_the_switch_says_which_form_of_the_test_the_page_has():
    for profile, pressed in (("v6_6_posted", ["true", "false"]), ("v6_6", ["false", "true"]), ("v7_3", ["false"] * 2)):
        run = run_of(profile, *WATCHED, MOVE)
        tests = [b for b in found(panels_of(run)[0], "button") if "data-test" in b[1]]
        assert [b[1]["data-test"] for b in tests] == ["posted", "merged"]
        assert [b[1]["aria-pressed"] for b in tests] == pressed


def test_every_row_and_column_of_both_tables_has_a_head():
    for panel in panels_of(run_of("v6_12", *KVMGT, MOVE)):
        (table,) = found(panel, "table")
        assert table[1]["aria-label"]
        assert len(found(table, "th", scope="row")) in (len(ROWS), len(ALL_PROFILES))
        heads = found(table, "th", scope="col")
        assert all(to_text(head).strip() for head in heads)
        body = next(n for n in nodes_of(table) if n[0] == "tbody")
        assert {len(tr) - 2 for tr in found(body, "tr")} == {len(heads)}


def test_the_first_difference_is_a_button_that_goes_there():
    _, panel = panels_of(run_of("v6_12", *KVMGT, MOVE))

    (button,) = [b for b in found(panel, "button") if "first-difference" in b[1].get("class", "")]
    assert button[1]["data-op"] == 5
    assert to_text(button).startswith("First difference: operation 6")
    assert "all kernels agree" in to_text(panels_of(run_of("v6_12", SLOT))[1])


def test_what_changes_between_two_kernels_is_listed_with_a_way_there():
    run = run_of("v6_1", *LOGGER, MOVE)
    panel = eras_panel(select_eras(run, 0, pair=("v6_1", "v6_6")))

    assert "From 6.1 to 6.6: 1 result changes" in to_text(panel)
    assert "6 MOVE: 0 moved → \N{MINUS SIGN}EINVAL" in to_text(panel)


def test_a_long_run_says_what_is_outside_the_window():
    run = run_of("v6_12", *(SLOT, MOVE) * 100)
    panel = eras_panel(select_eras(run, 100))

    assert "before and" in to_text(panel)
    assert "after are outside the window" in to_text(panel)
    assert len(found(panel, "th", scope="col")) == COLUMNS + 2


def test_where_nothing_ran_the_tab_says_what_will_appear():
    matrix, eras = panels_of(run_of("v6_12"))

    assert "appears here under every kernel and build" in to_text(matrix)
    assert "appear here under every kernel" in to_text(eras)


@settings(max_examples=15)
@given(random_runs(8))
def test_every_button_has_a_name_and_every_tree_can_be_sent(run):
    for op, command in enumerate(run.commands):
        if not isinstance(command, SetMemoryRegion):
            continue
        for panel in panels_of(run, op):
            assert json.loads(json.dumps(panel)) == panel
            assert "None" not in to_html(panel)
            for button in found(panel, "button"):
                assert button[1].get("aria-label") or to_text(button).strip()
