"""A refused call to scale: places are shares of the picture, and every change in it is one the engine accepts."""

import pytest
from hypothesis import given, settings
from runs import KVMGT, MOVE, SLOT, end_of, random_runs, run_of

from explorer.engine.apply import apply
from explorer.explain.xray import changes_at, xray_of
from explorer.history.moment import moment_at
from explorer.selectors.rail import select_rail
from explorer.selectors.xray import select_xray

FIRST = "set_region slot=0 gpa=0 size=0x1000000 hva=0x7f0000000000"
OVER = "set_region slot=1 gpa=0x800000 size=0x1000000 hva=0x7f1000000000"
"""The second call of the recorded log own-fails: 8 MiB of its 16 lie in slot 0."""


def picture(*lines, **config):
    moment = end_of(run_of("v6_12", *lines, **config))
    return select_xray(moment, changes_at(moment))


def test_an_overlap_is_drawn_to_scale_with_what_would_work_below_it():
    view = picture(FIRST, OVER)

    before, asked, *works = view.rows
    (there,), (wanted,), (clash,) = before.boxes, asked.boxes, view.clash
    mib = (there.x1 - there.x0) / 16
    assert wanted.x1 - wanted.x0 == pytest.approx(16 * mib, rel=1e-6)
    assert clash.x1 - clash.x0 == pytest.approx(8 * mib, rel=1e-6)
    assert (clash.x0, clash.x1) == (wanted.x0, there.x1)
    assert (view.title, view.clash_label) == ("Why −EEXIST?", "8 MiB overlap")
    assert [(row.sub, row.result, row.costs) for row in works] == [
        ("up by 8 MiB", "0", ""),
        ("what is free behind slot 0", "0", ""),
        ("delete slot 0 first", "0", ""),
    ]
    assert [[box.style for box in row.boxes] for row in works] == [["slot", "new"], ["slot", "new"], ["gone", "new"]]
    assert works[0].boxes[1].x0 == pytest.approx(there.x1), "it begins where slot 0 ends"
    assert view.free == "Refused for free: nothing was touched"


def test_the_axis_has_round_addresses_at_their_true_places():
    view = picture(FIRST, OVER)

    ticks = {word: x for x, word in view.ticks}
    assert ticks["8 MiB"] == pytest.approx(view.clash[0].x0)
    assert ticks["16 MiB"] == pytest.approx(view.clash[0].x1)


def test_a_small_overlap_in_a_large_slot_is_enlarged_and_the_slot_is_torn():
    view = picture(
        "set_region slot=0 gpa=0 size=0xc0000000 hva=0x7f0000000000",
        "set_region slot=1 gpa=0x40000000 size=0x1000 hva=0x7f1000000000",
    )

    (clash,), (there,) = view.clash, view.rows[0].boxes
    assert clash.x1 - clash.x0 > 0.1
    assert there.torn == "left right"
    far = next(row for row in view.rows if row.boxes and row.boxes[-1].style == "away")
    assert far.boxes[-1].label == "slot 1 at 0xc0000000 →"


def test_several_slots_in_the_way_are_all_marked():
    slots = [f"set_region slot={n} gpa={n * 0x100000:#x} size=0x40000 hva=0x7f0000000000" for n in range(3)]
    view = picture(*slots, "set_region slot=7 gpa=0 size=0x300000 hva=0x7f1000000000")

    assert len(view.clash) == 3
    assert view.clash_label == "768 KiB overlap with 3 slots"
    assert "In the way: slot 0 at 0 to 0x3ffff, 256 KiB, slot 1 at" in view.told[1]


@pytest.mark.parametrize(
    ("line", "words", "works"),
    [
        (
            "gpa=0x2000100 size=0x1000 hva=0x7f1000000000",
            "begins 256 bytes behind a page border",
            "rounded down to a page",
        ),
        (
            "gpa=0x2000000 size=0x1001 hva=0x7f1000000000",
            "ends 1 byte behind a page border",
            "size 0x1000, rounded down",
        ),
        ("gpa=0x2000000 size=0x1000 hva=0x7f1000000008", "begins 8 bytes behind a page border", "host address"),
    ],
)
def test_what_lies_on_no_page_is_shown_between_pages(line, words, works):
    view = picture(FIRST, f"set_region slot=1 {line}")

    assert view.clash_label == words
    assert view.rows[0].name.endswith("pages")
    assert len(view.rows[0].boxes) == 5
    assert works in view.rows[2].sub
    pages = {round(box.x0, 6) for box in view.rows[0].boxes}
    assert round(view.clash[0].x0, 6) in pages, "measured from the border of a page"


def test_a_range_beyond_the_last_page_and_one_that_wraps_are_shown_beside_all_guest_memory():
    beyond = picture(FIRST, "set_region slot=1 gpa=0x20000000000000 size=0x1000 hva=0x7f1000000000")
    wraps = picture(FIRST, "set_region slot=1 gpa=0xfffffffffffff000 size=0x2000 hva=0x7f1000000000")

    assert beyond.clash_label == "4 KiB beyond the last page"
    assert wraps.clash_label == "wraps past 2^64"
    for view in (beyond, wraps):
        assert [box.style for box in view.rows[0].boxes] == ["slot", "beyond"]
        assert view.rows[2].boxes[-1].style == "new"


def test_another_size_is_shown_beside_the_size_the_slot_has():
    view = picture(FIRST, FIRST.replace("size=0x1000000", "size=0x2000000"))

    assert view.clash_label == "16 MiB more than the slot has"
    assert [row.result for row in view.rows[2:]] == ["0", "0, no effect", "0"]


def test_a_late_refusal_and_an_accepted_call_have_no_such_picture():
    assert picture(*KVMGT, MOVE) is None, "what was spent by then is what matters"
    assert picture(FIRST) is None
    assert picture("attach kind=log") is None
    assert picture(FIRST, FIRST.replace("hva=0x7f0", "hva=0x7e0")) is None, "no place is wrong"


def test_a_change_that_costs_watches_says_so():
    view = picture(*KVMGT, SLOT.replace("slot=10", "slot=11"))

    costly = [row for row in view.rows[2:] if row.costs]
    assert [(row.sub, "watches are lost" in row.costs) for row in costly] == [("delete slot 10 first", True)]


@settings(max_examples=60)
@given(random_runs(25))
def test_the_picture_has_what_the_xray_and_the_rail_have(run):
    for op in range(len(run)):
        moment = moment_at(run, run.end_of(op))
        changes = changes_at(moment)
        view = select_xray(moment, changes)
        assert select_rail(run, moment, changes=changes) == select_rail(run, moment)
        if view is None:
            continue
        seen = xray_of(moment.op.before, moment.call)
        assert seen is not None
        assert seen.changes == changes
        assert len(view.rows) == 2 + len(changes)
        for change in changes:
            kvm = moment.op.before
            for command in change.commands:
                step = apply(kvm, command)
                assert step.errno is None
                kvm = step.kvm
        for row in view.rows:
            assert all(0 <= box.x0 < box.x1 <= 1.01 for box in row.boxes)
            assert all(box.x0 <= box.label_at <= box.x1 for box in row.boxes if box.label)
        assert 1 <= len(view.ticks) <= 7
