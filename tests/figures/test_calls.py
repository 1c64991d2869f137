"""The panel of the tab Calls: a sign and a word beside every line, what is long behind one line, and a text twin."""

from __future__ import annotations

from runs import KVMGT, MOVE, moments, run_of

from explorer.figures.calls import calls_panel
from explorer.figures.dom import to_html, to_text
from explorer.selectors.calls import CallRow, CallRun, CallsView, ModelCall, Recorded, select_calls

OURS = ModelCall("kvm_set_memslot", "kvm_main.c", "virt/kvm/kvm_main.c in 6.12", "https://example.org/kvm_set_memslot")
THEIRS = Recorded("kvm_set_memslot", 2, "93 %", "93.4%")
EXTRA = Recorded("kvm_vcpu_kick", 3, "< 1 %", "0.2%")
BOTH = CallRow("both", "both", OURS, THEIRS, step="copy", now=True)
INLINED = CallRow("inlined", "inlined", OURS._replace(function="kvm_copy_memslot"), None, "not shown by 6.12", now=True)
LEFT_OUT = CallRow("left out", "left out", None, EXTRA, "not modelled: `kicks` (swap.py)")
FOLD = CallRun("left out", "left out", "4 calls, from `kvm_vcpu_kick`", 3, "4 not modelled", (LEFT_OUT,) * 4, now=False)
VIEW = CallsView(
    where="operation 2 of 2",
    claim="All 2 calls of the model: 1 in this order in what 6.12 recorded, 1 inlined there; 5 more",
    why="recorded: a MOVE",
    chip="recorded on 6.12, npt1",
    recorded=True,
    heads=("The model enters, on 6.12", "6.12 entered"),
    rows=(BOTH, INLINED, LEFT_OUT, FOLD),
)


def nodes_of(node):
    if not isinstance(node, str):
        yield node
        for child in node[2:]:
            yield from nodes_of(child)


def found(node, cls):
    """Return the elements of a class."""
    return [n for n in nodes_of(node) if cls in str(n[1].get("class", "")).split()]


def test_every_line_says_by_a_sign_and_a_word_which_side_has_the_function():
    marks = [to_text(mark) for mark in found(calls_panel(VIEW), "call-mark")]

    assert marks[:3] == [
        "= both: in the model and in the recording",
        "◁ inlined: in the model only",
        "▶ left out: in the recording only",
    ]


def test_a_function_of_the_model_leads_to_its_source():
    (link, *_) = [node for node in nodes_of(calls_panel(VIEW)) if node[0] == "a"]

    assert (link[1]["href"], link[1]["title"]) == ("https://example.org/kvm_set_memslot", "virt/kvm/kvm_main.c in 6.12")
    assert "kvm_main.c" in to_text(found(calls_panel(VIEW), "call-ours")[0])


def test_the_lines_of_the_step_are_marked_and_the_step_is_spoken():
    lines = [node for node in nodes_of(calls_panel(VIEW)) if node[0] == "li"]

    assert ["is-now" in line[1]["class"].split() for line in lines[:3]] == [True, True, False]
    assert to_text(found(calls_panel(VIEW), "call-step")[0]) == "▸ copy, now"


def test_depth_is_drawn_and_spoken_and_time_is_a_share():
    (shown, *_) = found(calls_panel(VIEW), "call-theirs")

    assert to_text(shown) == "depth 2 kvm_set_memslot 93 %"
    assert {"--depth": "2"} in [node[1].get("vars") for node in nodes_of(shown)]
    assert " us" not in to_text(calls_panel(VIEW))
    assert "emulated" in to_text(calls_panel(VIEW))


def test_what_is_long_opens_behind_one_line_without_a_script():
    (fold,) = [node for node in nodes_of(calls_panel(VIEW)) if node[0] == "details"]
    (summary,) = [node for node in nodes_of(fold) if node[0] == "summary"]

    assert "4 calls, from kvm_vcpu_kick" in to_text(summary)
    assert "4 not modelled" in to_text(summary)
    assert sum(node[0] == "li" for node in nodes_of(fold)) == 4


def test_without_a_recording_there_is_one_side_and_the_reason():
    alone = CallRow("unseen", "", OURS, None)
    panel = calls_panel(CallsView(claim="1 call", chip="not recorded", missing="No graph on 6.6.", rows=(alone,)))

    assert "No graph on 6.6." in to_text(panel)
    assert "not recorded" in to_text(panel)
    assert found(panel, "call-mark") == found(panel, "call-theirs") == []


def test_an_empty_tab_says_what_would_be_here():
    assert to_text(calls_panel(CallsView("Go to one."))) == "Calls\nGo to one."


def test_every_moment_of_a_run_can_be_drawn_and_written():
    run = run_of("v6_1", *KVMGT, MOVE)
    for moment in moments(run):
        html = to_html(calls_panel(select_calls(run, moment.stop)))
        assert html.startswith("<section")
