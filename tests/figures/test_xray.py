"""A refused call to scale as a tree: boxes at shares of the width, a cue beside each colour, the same in words."""

import json

from explorer.figures.dom import to_text
from explorer.figures.xray import xray_panel
from explorer.selectors.xray import XrayBox, XrayRow, XrayView

VIEW = XrayView(
    title="Why −EEXIST?",
    sub="guest memory, to scale",
    rows=(
        XrayRow("in memory", "before the call", (XrayBox("slot", 0.0, 0.5, "slot 0: all", "left", "slot 0", 0.125),)),
        XrayRow("asked for", "16 MiB", (XrayBox("asked", 0.25, 0.75, "asked for: that"),)),
        XrayRow("would work", "up by 8 MiB", (XrayBox("new", 0.5, 1.0, "slot 1: there", "", "slot 1", 0.75),), "0"),
        XrayRow("would work", "delete slot 0 first", (XrayBox("gone", 0.0, 0.5, "slot 0"),), "0", "2 watches are lost"),
    ),
    clash=(XrayBox("clash", 0.25, 0.5, "overlap with slot 0"),),
    clash_label="8 MiB overlap",
    clash_at=0.85,
    clash_on=False,
    ticks=((0.0, "0"), (0.5, "16 MiB")),
    free="Refused for free: nothing was touched",
    nothing="",
    told=("Asked for: slot 1.", "8 MiB overlap.", "Would work: up by 8 MiB; the call returns 0."),
)


def nodes_of(node):
    if not isinstance(node, str):
        yield node
        for child in node[2:]:
            yield from nodes_of(child)


def found(node, cls):
    return [n for n in nodes_of(node) if cls in str(n[1].get("class", "")).split()]


def test_boxes_lie_at_shares_of_the_width_and_words_where_nothing_covers_them():
    panel = xray_panel(VIEW)

    assert [n[1]["vars"] for n in found(panel, "xray-box")][:2] == [
        {"--x0": "0.0000", "--x1": "0.5000"},
        {"--x0": "0.2500", "--x1": "0.7500"},
    ]
    words = [(n[2], n[1]["vars"]["--at"]) for n in found(panel, "xray-word")]
    assert words == [("slot 0", "0.1250"), ("slot 1", "0.7500")]
    assert "is-torn-left" in found(panel, "xray-box")[0][1]["class"]


def test_what_both_claim_has_an_octagon_and_says_how_much_it_is():
    panel = xray_panel(VIEW)

    (stop,), (label,) = found(panel, "xray-stop"), found(panel, "xray-label")
    assert found(stop, "g--rejected")
    assert to_text(label) == "8 MiB overlap"
    on_it = xray_panel(VIEW._replace(clash_at=0.4, clash_on=True))
    assert not found(on_it, "xray-stop"), "the octagon stands beside the words"
    assert found(found(on_it, "xray-label")[0], "g--rejected")


def test_words_that_have_no_room_in_the_picture_stand_in_its_head():
    panel = xray_panel(VIEW._replace(clash_at=None))

    (head,), (pair,) = found(panel, "xray-head"), found(panel, "xray-pair")
    assert "8 MiB overlap" in to_text(head)
    assert "8 MiB overlap" not in to_text(pair)


def test_a_change_that_costs_watches_does_not_look_like_one_that_does_not():
    free, costly = found(xray_panel(VIEW), "xray-result")

    assert (to_text(free), bool(found(free, "g--check"))) == ("0", True)
    assert (to_text(costly), bool(found(costly, "g--lost"))) == ("0, but 2 watches are lost", True)


def test_a_screen_reader_gets_sentences_instead_of_boxes():
    panel = xray_panel(VIEW)

    (hidden,) = found(panel, "xray-grid")
    assert hidden[1]["aria-hidden"] == "true"
    # Words of the glossary are marked in these, and a mark can be focused.
    assert not [n for n in nodes_of(hidden) if n[0] in ("button", "a", "p", "th", "h3")]
    (told,) = found(panel, "only-read")
    assert to_text(told).splitlines() == list(VIEW.told)
    json.dumps(panel)


def test_where_nothing_would_work_it_says_so():
    assert "No change" in to_text(xray_panel(VIEW._replace(rows=VIEW.rows[:2], nothing="No change was found.")))
