"""The views as one call each: what a notebook and the README use."""

from __future__ import annotations

import subprocess
import sys

import pytest

import explorer
from explorer import (
    because,
    effects_of,
    gpu_tables_of,
    guards_of,
    guide,
    hand_off_of,
    kernels_of,
    ledger_of_move,
    map_of,
    phases_of,
    play,
    routes_of,
    slots_of,
    tell,
    verdicts_of,
)
from explorer.engine.commands import CommandError
from explorer.engine.types import ExplorerError
from explorer.figures.dom import el, to_html, to_text
from explorer.scenarios import guided, scenario_names
from explorer.show import Panel, PlaceError, arrays_of

MOVE = """
set_region slot=0 gpa=0 size=0x20000 hva=0x7f0000000000    # a slot
set_region slot=0 gpa=0x100000 size=0x20000 hva=0x7f0000000000

"""


def test_every_public_name_is_there_and_importing_the_package_imports_no_display() -> None:
    assert all(getattr(explorer, name) is not None for name in explorer.__all__)

    code = "import explorer, explorer.engine.apply, sys; print(sorted({'plotly', 'ipywidgets'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"

    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        explorer.nonsense  # noqa: B018 - asking is the test


def test_lines_are_played_and_remarks_are_left_out() -> None:
    run = play(MOVE, profile="v6_1", tdp=True)

    assert [str(outcome.change.value) for outcome in run.outcomes if outcome.change] == ["CREATE", "MOVE"]
    assert run.end.config.tdp


@pytest.mark.parametrize(
    ("text", "options", "words"),
    [
        ("track gfn=1\nset_regoin slot=0", {}, "line 2"),
        ("", {"profile": "v2_6"}, "v6_12"),
        ("", {"tpd": True}, "fields are tdp"),
    ],
)
def test_what_cannot_be_played_says_where_and_what_there_is(text: str, options: dict[str, str], words: str) -> None:
    with pytest.raises(ExplorerError, match=words):
        play(text, **options)


def test_a_bad_line_is_a_command_error() -> None:
    with pytest.raises(CommandError):
        play("fly")


VIEWS = [
    because,
    effects_of,
    gpu_tables_of,
    guards_of,
    hand_off_of,
    kernels_of,
    ledger_of_move,
    phases_of,
    routes_of,
    slots_of,
    verdicts_of,
]


@pytest.mark.parametrize("name", scenario_names())
@pytest.mark.parametrize("view", VIEWS)
def test_every_view_of_every_story_can_be_read_at_every_step(name: str, view: object) -> None:
    run = tell(name)
    places = [f"{len(run)}.{cell + 1}" for cell in range(len(run.detail(len(run) - 1).cells))]

    for at in ("0", "1", *places, ""):
        panel = view(run, at)
        assert isinstance(panel, Panel)
        assert str(panel).strip()
        assert panel._repr_html_().count("<style>") == 1


def test_a_story_is_told_by_every_kernel_at_once() -> None:
    text = str(kernels_of(tell("rejected-is-not-free"), compare=("v6_1", "v6_12")))

    assert "From 6.1 to 6.12: 1 result changes" in text
    with pytest.raises(ExplorerError, match=r"no kernel profile is called '6\.1'"):
        kernels_of(tell("first-look"), compare=("6.1", "v6_12"))


def test_the_guided_story_can_be_read_as_text() -> None:
    text = str(guide())

    for beat in guided():
        assert beat.look in text
        assert beat.teaches in text
        assert f"?story={beat.id}\n" in f"{text}\n"


def test_a_map_is_a_plotly_figure_and_a_window_changes_it() -> None:
    run = play(MOVE)

    whole, part = map_of(run), map_of(run, window=(0, 16))

    assert whole.layout.width == part.layout.width
    assert whole != part
    assert "slot 0" in " ".join(" ".join(trace.text or ()) for trace in whole.data)
    assert arrays_of(play()) is None


@pytest.mark.parametrize("at", ["3", "2.99", "x", "1.x", "-5.1"])
def test_a_place_that_is_none_is_refused(at: str) -> None:
    with pytest.raises(PlaceError, match="is no place in this run of 2 operations"):
        because(play(MOVE), at)


def test_a_story_can_be_told_on_another_kernel() -> None:
    # The check came with 6.6: kernel-reference.md section 4.2.
    assert tell("rejected-is-not-free").outcomes[-1].errno is not None
    assert tell("rejected-is-not-free", profile="v6_1").outcomes[-1].errno is None


def test_text_and_html_of_a_tree_hold_the_same_words_and_escape_them() -> None:
    tree = el("div", el("h2", "A <b> & more"), el("table", el("tr", el("th", "a"), el("td", "1", el("i", "st")))))

    assert to_text(tree) == "A <b> & more\na  1st"
    assert to_html(tree) == (
        "<div><h2>A &lt;b&gt; &amp; more</h2><table><tr><th>a</th><td>1<i>st</i></td></tr></table></div>"
    )


def test_a_create_that_was_refused_at_once_hands_nothing_over() -> None:
    run = play("""
set_region slot=0 gpa=0 size=0x10000 hva=0x7f0000000000
set_region slot=1 gpa=0 size=0x10000 hva=0x7f0000010000
""")

    assert str(hand_off_of(run)) == "Refused before a slot was made: nothing changes hands."
