"""Slots over time as a figure: few traces, a second cue for every look, the same in words."""

import json

import plotly.graph_objects as go
import pytest
from runs import run_of

from explorer import over_time_of
from explorer.figures.dom import to_text
from explorer.figures.over_time import CHART, chart_places, over_time_head, over_time_spec, over_time_table
from explorer.figures.theme import THEMES, theme_named
from explorer.history import Stop
from explorer.selectors.over_time import TimeBar, TimeGap, TimeLine, TimeMark, TimeRiser, TimeView, select_over_time
from explorer.selectors.time_words import Count

VIEW = TimeView(
    "",
    "operations 3 to 4 of 9",
    "2 refused outside the window.",
    "3  slot 1 created",
    (Count("created", "1"), Count("refused", "2", "why", loud=True)),
    ((0, "0: memory", True), (1, "1: SMM", False)),
    first=2,
    last=4,
    ops=9,
    width=200.0,
    height=100.0,
    at=50.0,
    gaps=(TimeGap(40, 50, "2 GiB"),),
    bars=(
        TimeBar("slot", 0, 200, 50, 100, "low", "slot 0", 100),
        TimeBar("read_only", 0, 100, 20, 40, "ro"),
        TimeBar("dirty", 100, 200, 0, 20, "log", "vga", 150),
        TimeBar("packed", 0, 200, 10, 15, "many"),
    ),
    risers=(TimeRiser("recreated", (50, 60, 60), (30, 30, 10)), TimeRiser("moved", (100, 100, 100), (30, 30, 10))),
    marks=(TimeMark("rejected", 150, 70, (3,), "refused"), TimeMark("move", 100, 10, (3,), "moved")),
    addresses=((90, "0x0"), (15, "0xe0000000")),
    ticks=((50, "3"),),
    line=TimeLine(((0, 100, 0.5), (100, 200, 1.0)), "up to 2", (10.0,), (20.0,), (44, 88)),
)


def traces(spec, **look):
    return [trace for trace in spec["data"] if all(trace.get(key) == value for key, value in look.items())]


@pytest.mark.parametrize("theme", THEMES)
def test_every_look_is_one_trace_and_differs_in_more_than_colour(theme):
    spec = over_time_spec(VIEW, theme_named(theme))

    filled = traces(spec, fill="toself")
    patterns = {trace["fillpattern"]["shape"] for trace in filled if "fillpattern" in trace}
    assert patterns == {"/", "."}, "read-only is hatched, dirty-logged dotted"
    dashes = {trace["line"]["dash"] for trace in traces(spec, mode="lines") if "dash" in trace["line"]}
    assert {"dot", "solid"} <= dashes
    symbols = {trace["marker"]["symbol"] for trace in traces(spec, mode="markers") if trace["hoverinfo"] == "skip"}
    assert symbols == {"octagon", "x-thin", "triangle-right"}
    assert "shapes" not in spec["layout"]
    assert len(spec["data"]) < 30


def test_the_page_finds_operations_and_hovers_where_the_figure_draws_them():
    places = chart_places(VIEW)

    chart, line = places["columns"]
    top = CHART.top + CHART.line
    assert chart == [CHART.left, CHART.left + 200, top, top + 100 + CHART.foot, 2, 4]
    assert line[4:] == [0, 9], "the line above is of the whole run"
    assert [box[4] for box in places["boxes"]] == ["refused", "moved", "low", "ro", "log", "many"], "marks come first"
    assert places["boxes"][2][:4] == [CHART.left, CHART.left + 200, top + 50, top + 100]


def test_the_cursor_is_drawn_unless_the_page_draws_it():
    with_cursor, without = over_time_spec(VIEW), over_time_spec(VIEW, cursor=False)

    thick = [trace["x"] for trace in traces(with_cursor, mode="lines") if trace["line"]["width"] == 3]
    assert thick == [[CHART.left + 50, CHART.left + 50]]
    assert len(with_cursor["data"]) == len(without["data"]) + 1


def test_the_head_says_what_is_shown_what_is_not_and_how_often_what_happened():
    text = to_text(over_time_head(VIEW))

    assert "operations 3 to 4 of 9" in text
    assert "2 refused outside the window." in text
    assert "created  refused" in text
    assert "1  2 why" in text
    pressed = json.dumps(over_time_head(VIEW))
    assert '"data-space": 1, "aria-pressed": "false"' in pressed


def test_the_chart_can_be_read_as_a_table():
    run = run_of("v6_12", "set_region slot=2 gpa=0x1000 size=0x2000 hva=0x7f0000000000 flags=log")

    text = to_text(over_time_table(select_over_time(run, Stop(0, 0))))

    assert text.splitlines()[0] == "Slots over time, one operation."
    assert text.splitlines()[-1] == "slot 2  0x1000  8 KiB  dirty-logged  created by operation 1  lives at the end"


def test_where_there_is_nothing_the_figure_and_the_head_say_so():
    view = select_over_time(run_of("v6_12"), Stop(-1, 0))

    assert "No operation yet" in to_text(over_time_head(view))
    assert chart_places(view) == {"columns": [], "boxes": []}
    assert isinstance(over_time_of(run_of("v6_12")), go.Figure)


def test_a_notebook_gets_a_plotly_figure_at_any_place():
    run = run_of("v6_12", "set_region slot=2 gpa=0x1000 size=0x2000 hva=0x7f0000000000")

    start, end = over_time_of(run, "0"), over_time_of(run, theme="dark")

    assert isinstance(end, go.Figure)
    assert start != end
    assert "slot 2, 8 KiB" in " ".join(" ".join(trace.text or ()) for trace in end.data)
