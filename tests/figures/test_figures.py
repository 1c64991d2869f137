"""Figures and panels: pure functions from what is told to what is drawn. Product rows 1, 28, 37, 49, 79."""

import copy
import json

import plotly.graph_objects as go
import pytest
from hypothesis import given, settings
from runs import (
    ALL_PROFILES,
    DELETE,
    KVMGT,
    LOG_ON,
    LOGGER,
    MOVE,
    SLOT,
    WATCHED,
    at_word,
    end_of,
    moments,
    random_runs,
    run_of,
)

from explorer.explain.ledger import ledger_of
from explorer.figures.arrays import ARRAYS_NARROW, ARRAYS_WIDE, arrays_spec
from explorer.figures.dom import ATTRIBUTES, TAGS, to_html
from explorer.figures.gpa_map import NARROW, WIDE, gpa_map_spec
from explorer.figures.guards import guards_panel
from explorer.figures.hand_off import hand_off_panel
from explorer.figures.ledger import ledger_panel
from explorer.figures.phases import phases_panel
from explorer.figures.rail import rail_panel
from explorer.figures.slide import caption_panel, slide_panel
from explorer.figures.slot_table import slot_table_panel
from explorer.figures.story import answer_caption, legend_panel, question_panel
from explorer.figures.theme import THEMES, theme_named
from explorer.figures.timeline import timeline_panel
from explorer.history import Stop
from explorer.history.moment import moment_at
from explorer.scenarios import load_scenario
from explorer.scenarios.runner import run_of as run_of_scenario
from explorer.selectors.arrays import select_arrays
from explorer.selectors.gpa_map import select_gpa_map
from explorer.selectors.guards import select_guards
from explorer.selectors.hand_off import select_hand_off
from explorer.selectors.phases import select_phases
from explorer.selectors.rail import select_rail
from explorer.selectors.slide import select_slide
from explorer.selectors.slot_table import select_slot_table
from explorer.selectors.timeline import select_timeline

RUNS = [
    run_of("v6_12", *KVMGT, MOVE),
    run_of("v6_1", *LOGGER, MOVE, DELETE),
    run_of("v6_1", *KVMGT, MOVE),
    run_of("pre_edd4", *LOGGER, LOG_ON, MOVE),
    run_of("v7_3", SLOT, LOG_ON, MOVE, tdp=True),
    run_of("v6_12"),
]
NASTY = '<script>alert("1")</script><b>x</b> & </td>'


def panels_of(run, moment, owners=None):
    """Return every document tree of a moment, by name."""
    views = {
        "strip": (phases_panel, select_phases(moment)),
        "fields": (hand_off_panel, select_hand_off(moment)),
        "guards": (guards_panel, select_guards(moment)),
    }
    panels = {name: draw(view) for name, (draw, view) in views.items() if view is not None}
    panels["ledger"] = ledger_panel(ledger_of(moment))
    panels["rail"] = rail_panel(select_rail(run, moment))
    panels["table"] = slot_table_panel(select_slot_table(moment, owners))
    panels["timeline"] = timeline_panel(select_timeline(run, moment))
    slide = select_slide(moment, select_rail(run, moment), None, len(run))
    panels |= {"slide": slide_panel(slide), "caption": caption_panel(slide)}
    return panels


def specs_of(moment, theme_name="light", owners=None):
    """Return every plotly specification of a moment, wide and narrow."""
    theme = theme_named(theme_name)
    view, arrays = select_gpa_map(moment, owners=owners), select_arrays(moment)
    found = [gpa_map_spec(view, theme, size) for size in (WIDE, NARROW)]
    return found + ([arrays_spec(arrays, theme, s) for s in (ARRAYS_WIDE, ARRAYS_NARROW)] if arrays else [])


def nodes_of(node):
    if not isinstance(node, str):
        yield node
        for child in node[2:]:
            yield from nodes_of(child)


def text_of(node):
    return node if isinstance(node, str) else "".join(text_of(child) for child in node[2:])


@settings(max_examples=15)
@given(random_runs(8))
def test_trees_are_made_of_known_parts_and_can_be_sent(run):
    for moment in moments(run):
        for panel in panels_of(run, moment).values():
            assert json.loads(json.dumps(panel)) == panel
            for tag, attributes, *_ in nodes_of(panel):
                assert tag in TAGS
                for name, value in attributes.items():
                    assert name in ATTRIBUTES or name.startswith(("data-", "aria-"))
                    assert name != "href" or value.startswith("https://")
                    assert name != "vars" or all(key.startswith("--") for key in value)
            assert "None" not in text_of(panel)


@settings(max_examples=10)
@given(random_runs(8))
def test_drawing_twice_draws_the_same_and_changes_nothing(run):
    for moment in moments(run):
        view = select_gpa_map(moment)
        before = copy.deepcopy(view)
        assert gpa_map_spec(view) == gpa_map_spec(view)
        assert panels_of(run, moment) == panels_of(run, moment)
        assert view == before == select_gpa_map(moment)


@pytest.mark.parametrize("run", RUNS, ids=lambda run: f"{run.start.profile.name}-{len(run)}")
def test_plotly_takes_every_specification(run):
    for op in range(-1, len(run)):
        for cell in {0, 5, run.end_of(op).cell}:
            for spec in specs_of(moment_at(run, Stop(op, cell)), THEMES[op % 3]):
                assert json.loads(json.dumps(spec, allow_nan=False)) == spec
                assert len(spec["data"]) <= 40
    figure = go.Figure(spec)  # the last one: validation of a figure takes a while
    assert len(figure.data) == len(spec["data"])


@pytest.mark.parametrize("theme", THEMES)
def test_a_specification_is_valid_in_each_theme(theme):
    run = RUNS[0]

    for spec in specs_of(end_of(run), theme):
        figure = go.Figure(spec)
        assert figure.layout.width == spec["layout"]["width"]
        lengths = {(len(trace.x), len(trace.y)) for trace in figure.data}
        assert all(x == y for x, y in lengths)


@pytest.mark.parametrize("profile", ALL_PROFILES)
def test_hover_and_words_have_one_entry_a_point(profile):
    for spec in specs_of(end_of(run_of(profile, *WATCHED, MOVE))):
        for trace in spec["data"]:
            for key in ("text", "hovertext", "customdata", "textposition"):
                assert len(trace.get(key, trace["x"])) == len(trace["x"])


def test_the_name_of_a_slot_is_text_wherever_it_is_drawn():
    run = run_of("v6_12", SLOT)
    moment = end_of(run)

    panels = panels_of(run, moment, owners={10: NASTY})
    assert NASTY in text_of(panels["table"])
    assert "<script" not in to_html(panels["table"])
    for spec in specs_of(moment, owners={10: NASTY}):
        for trace in spec["data"]:
            for text in [*trace.get("text", []), *trace.get("hovertext", [])]:
                assert "<script" not in text
                assert "</td" not in text
                assert not text.removeprefix("<b>").removesuffix("</b>").replace("<b>slot 10</b>", "").count("<b>") > 1
    names = [t for spec in specs_of(moment, owners={10: NASTY}) for d in spec["data"] for t in d.get("hovertext", [])]
    assert any("alert" in name for name in names), "the name is told, and as text"


def test_a_refusal_is_told_by_shape_and_words_not_by_colour_alone():
    run = RUNS[0]
    panels = panels_of(run, end_of(run))

    assert "FIRED −EINVAL" in text_of(panels["guards"])
    assert "−EINVAL" in text_of(panels["rail"])
    octagons = [n for n in nodes_of(panels["guards"]) if "g--rejected" in str(n[1].get("class"))]
    assert [node[1]["aria-label"] for node in octagons] == ["fired"]
    symbols = {t["marker"].get("symbol") for t in specs_of(end_of(run))[0]["data"] if t.get("mode") == "markers"}
    assert any("octagon" in str(symbol) for symbol in symbols)


@pytest.mark.parametrize(
    ("run", "equation"),
    [
        (RUNS[0], "5 watches before, 3 released, 2 kept, 0 lost"),
        (RUNS[1].up_to(6), "5 watches before, 3 released, 0 kept, 2 lost"),
        (run_of("v6_12", *WATCHED, MOVE), "3 watches before, 3 released, 0 kept, 0 lost"),
    ],
)
def test_the_ledger_is_read_out_as_an_equation(run, equation):
    assert ledger_panel(ledger_of(end_of(run)))[1]["aria-label"].startswith(equation)


def test_what_kvmgt_dropped_is_not_called_harmless():
    # kernel-reference 6.6: the flush callback takes KVMGT's two back; the zap takes shadow paging's three.
    panel = ledger_panel(ledger_of(end_of(RUNS[2])))
    terms = [node for node in panel[2:] if "term" in str(node[1].get("class")).split()]

    assert panel[1]["aria-label"] == "5 watches before, 3 released, 0 kept, 2 dropped by KVMGT"
    assert ["harmless" in text_of(term) for term in terms] == [False, True, False, False]
    assert "2dropped by KVMGTharmful" in text_of(terms[-1])
    assert ["is-loud" in term[1]["class"] for term in terms] == [False, False, False, True]


def test_what_kvmgt_will_drop_is_told_from_the_first_step():
    panel = ledger_panel(ledger_of(at_word(RUNS[2], "check")))

    assert panel[1]["aria-label"].startswith("5 watches before, 0 released, 3 kept, 2 will be dropped by KVMGT at step")


def test_in_the_array_a_dropped_watch_has_the_mark_of_a_lost_one():
    spec = arrays_spec(select_arrays(end_of(RUNS[2])))
    drawn = {
        trace["marker"]["symbol"]: len(trace["x"])
        for trace in spec["data"]
        if str(trace.get("marker", {}).get("symbol")).startswith("diamond")
    }

    assert drawn == {"diamond-open": 3, "diamond-x-open": 2}
    assert "freed: 3 released; 2 dropped" in str(spec)


def test_a_new_slot_is_not_told_as_rebuilt():
    panel = hand_off_panel(select_hand_off(end_of(run_of("v6_12", SLOT))))

    assert "✳ new" in text_of(panel)
    assert "from zero" not in text_of(panel)


def test_every_button_has_a_name():
    run = RUNS[0]
    for moment in moments(run):
        for panel in panels_of(run, moment).values():
            for node in nodes_of(panel):
                if node[0] == "button":
                    assert node[1].get("aria-label") or text_of(node)
                if node[0] == "svg":
                    assert node[1].get("aria-label") or node[1]["aria-hidden"] == "true"


# -- the newcomer's story --------------------------------------------------------------------------


def test_the_question_is_asked_about_the_watches_there_are():
    run = run_of_scenario(load_scenario("first-look"))

    panel = question_panel(end_of(run))

    assert "The three watches…" in text_of(panel)
    assert [n[1]["data-answer"] for n in nodes_of(panel) if n[0] == "button"] == [1, 2, 3]


@pytest.mark.parametrize(
    ("profile", "lines", "words"),
    [
        ("v6_12", WATCHED, "on this setup that is harmless"),
        ("v6_1", LOGGER, "harmful: a tracker still counts on 2 watches"),
        ("v6_6_nocheck", KVMGT, "harmful: a tracker still counts on 2 watches"),
        ("v6_1", KVMGT, "harmful: KVMGT dropped 2 watches"),
        ("v6_12", KVMGT, "The move was refused."),
    ],
)
def test_the_answer_is_told_from_the_ledger(profile, lines, words):
    moment = end_of(run_of(profile, *lines, MOVE))

    wrong = answer_caption(2, False, moment)
    assert words in wrong
    assert wrong.endswith(" You said: they stay behind.")
    assert answer_caption(3, True, moment) == f"You said so. {wrong.removesuffix(' You said: they stay behind.')}"
    assert answer_caption(3, True, moment._replace(stop=Stop(moment.stop.op, 0))) == ""


def test_the_legend_tells_each_mark_in_words():
    text = text_of(legend_panel("why", "origin"))

    assert all(word in text for word in ("Slot", "Watched page", "Hole", "Read-only slot", "Dirty-logged slot"))
