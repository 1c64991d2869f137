"""The map: nothing overlaps, nothing is invented, the largest VM is few marks. Product rows 27 to 35 and 90."""

import itertools
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from runs import KVMGT, MOVE, SLOT, WATCHED, end_of, moments, random_runs, run_of

from explorer.engine.commands import SetMemoryRegion, parse_command
from explorer.engine.config import VmConfig
from explorer.history import Run, Stop
from explorer.history.moment import SlotKey, moment_at
from explorer.history.run import look_inside
from explorer.scenarios import load_scenario
from explorer.scenarios.runner import run_of as run_of_scenario
from explorer.selectors.gpa_map import CLUSTERS, select_gpa_map
from explorer.selectors.lane_parts import MARKS
from explorer.selectors.slot_table import ROWS, select_slot_table

MARKS_PER_FRAME = 1500
"""Product row 28."""
H = 0x7F00_0000_0000


def problems_of(view):
    """Return what is wrong with a map as a drawing."""
    segments = view.segments
    for a, b in itertools.pairwise(segments):
        if a.x1 > b.x0 + 1e-6:
            yield "segments overlap", a, b
    for segment in segments:
        if not segment.x0 < segment.x1 <= view.width + 1e-6:
            yield "a segment has no width or leaves the plot", segment
    for window in view.windows:
        if not 0 <= window.x0 < window.x1 <= view.width or window.first_gfn >= window.end_gfn:
            yield "no window", window
    for a, b in itertools.pairwise(view.windows):
        if a.x1 > b.x0 or a.end_gfn > b.first_gfn:
            yield "windows overlap", a, b
    for lane in view.lanes:
        for bar in lane.bars:
            if not -1e-6 <= bar.x0 <= bar.x1 <= view.width + 3 or not 0 <= bar.y0 < bar.y1 <= 1:
                yield "a bar leaves its lane", lane.name, bar
        filled = sorted((b for b in lane.bars if b.style not in ("new_uncommitted", "was_here")), key=lambda b: b.x0)
        for a, b in itertools.combinations(filled, 2):
            if a.x0 + 2.5 < b.x1 and b.x0 + 2.5 < a.x1 and a.y0 < b.y1 and b.y0 < a.y1:
                yield "bars overlap", lane.name, a, b
        for a, b in itertools.pairwise(lane.marks):
            if b.x - a.x < 20:
                yield "marks overlap", lane.name, a, b
        if any(not -1 <= mark.x <= view.width + 1 for mark in lane.marks):
            yield "a mark leaves the plot", lane.name
    positions = [x for x, _ in view.ticks]
    if positions != sorted(positions):
        yield "ticks out of order", view.ticks


def size_of(view):
    lanes = sum(
        len(lane.bars) + len(lane.marks) + len(lane.labels) + sum(len(b.dividers) for b in lane.bars)
        for lane in view.lanes
    )
    return len(view.segments) + sum(len(s.dividers) for s in view.segments) + lanes + len(view.ticks)


@settings(max_examples=40)
@given(random_runs(10), st.sampled_from(["collapsed", "equal", "linear"]), st.sampled_from([300.0, 982.0]))
def test_nothing_on_the_map_overlaps_and_nothing_leaves_it(run, scale, width):
    for moment in moments(run):
        view = select_gpa_map(moment, scale=scale, width=width)
        assert list(problems_of(view)) == []
        assert size_of(view) <= MARKS_PER_FRAME
        assert bool(view.notice) == (not view.windows)


@pytest.mark.parametrize("name", ["first-look", "watches-lost", "rejected-is-not-free"])
def test_the_stories_are_drawn_cleanly_at_every_step(name):
    scenario = load_scenario(name)
    run = run_of_scenario(scenario).then(scenario.next)

    for op, cell in [(len(run) - 2, 0), *((len(run) - 1, at) for at in range(len(run.detail(len(run) - 1).cells)))]:
        view = select_gpa_map(moment_at(run, Stop(op, cell)), owners=scenario.owners)
        assert list(problems_of(view)) == []


@settings(max_examples=40)
@given(random_runs(10))
def test_the_segments_are_the_slots_and_the_holes_between_them(run):
    moment = end_of(run)
    as_id = moment.focus.as_id if moment.focus is not None else 0
    slots = run.end.slots(as_id)

    view = select_gpa_map(moment)

    assert sum(1 for s in view.segments if s.kind != "gap") <= len(slots)
    assert {s.slot for s in view.segments if s.kind == "slot"} <= {SlotKey(as_id, slot.id) for slot in slots}
    holes = sum(1 for a, b in itertools.pairwise(slots) if a.end_gfn < b.base_gfn)
    assert sum(1 for s in view.segments if s.kind == "gap") == holes
    assert sum(s.focused for s in view.segments) <= 1


def many_slots(n, npages=4):
    # memslot_perf_test: slots of 16 KiB, up to 32,763 and slot 0 (kernel-reference 12)
    return Run.new(
        "v6_12",
        VmConfig(),
        (
            SetMemoryRegion(
                slot=at, guest_phys_addr=at * (npages + 1) << 12, memory_size=npages << 12, userspace_addr=H
            )
            for at in range(n)
        ),
    )


def test_all_the_slots_a_vm_can_have_are_drawn_with_few_marks():
    run = many_slots(32_764)
    assert {outcome.errno for outcome in run.outcomes} == {None}
    moment = end_of(run)

    for focus in (None, SlotKey(0, 0), SlotKey(0, 20_000)):
        view = select_gpa_map(moment_at(run, run.last_stop, focus=focus))
        assert list(problems_of(view)) == []
        assert size_of(view) <= MARKS_PER_FRAME
        assert len([s for s in view.segments if s.kind != "gap"]) <= CLUSTERS
    everything = select_gpa_map(moment, window=(0, 32_764 * 5))
    assert size_of(everything) <= MARKS_PER_FRAME
    table = select_slot_table(moment)
    assert len([row for row in table.rows if row.kind == "slot"]) == ROWS
    assert table.caption.startswith("32,764 slots")
    assert table.notice == "shown are 200 of 32764, around the slot in focus"


def test_the_largest_slot_is_drawn_and_one_watched_page_in_it_is_seen():
    # kernel-reference 8: 2^31 - 1 pages are the most; product row 35.
    huge = f"set_region slot=1 gpa=0 size={(1 << 31) - 1 << 12:#x} hva=0x10000000000"
    run = run_of("v6_12", huge, "attach kind=kvmgt", "track gfn=0x40000001")
    assert [outcome.errno for outcome in run.outcomes] == [None] * 3

    view = select_gpa_map(end_of(run))

    assert list(problems_of(view)) == []
    assert size_of(view) < 100
    (watches,) = (lane for lane in view.lanes if lane.name == "Watches")
    assert [mark.kind for mark in watches.marks] == ["external"]
    (frames,) = (lane for lane in view.lanes if lane.name == "2 MiB pages")
    assert [bar.style for bar in frames.bars].count("huge_no") >= 1
    (row,) = select_slot_table(end_of(run)).rows
    assert (row.last, row.watches) == ("0x7ffffffefff", "1")


def test_many_watches_are_drawn_as_few_marks():
    lines = [SLOT, "attach kind=log", *(f"track gfn={0xD0000 + n:#x}" for n in range(32))]

    view = select_gpa_map(end_of(run_of("v6_12", *lines)))

    (watches,) = (lane for lane in view.lanes if lane.name == "Watches")
    assert 0 < len(watches.marks) <= MARKS
    assert list(problems_of(view)) == []


def words(view):
    return " | ".join(
        text
        for lane in view.lanes
        for text in (*(bar.label for bar in lane.bars), *(label.text for label in lane.labels))
        if text
    )


def test_a_refused_move_is_drawn_as_before_during_and_after():
    view = select_gpa_map(end_of(run_of("v6_12", *KVMGT, MOVE)))

    assert [lane.name for lane in view.lanes] == ["Before", "During", "After"]
    assert "asked for, refused: nothing was built here" in words(view)
    assert "slot 10, back" in words(view)


def test_watches_that_kvmgt_dropped_are_not_drawn_as_released():
    view = select_gpa_map(end_of(run_of("v6_1", *KVMGT, MOVE)))

    (watches,) = (lane for lane in view.lanes if lane.name == "Watches")
    assert "3 released, 2 dropped by KVMGT" in words(view)
    assert Counter(mark.kind for mark in watches.marks) == {"released": 3, "lost": 2}
    assert sum("dropped by KVMGT’s own callback" in mark.hover for mark in watches.marks) == 2


def test_a_composed_move_is_dotted_where_it_would_go():
    run = run_of("v6_12", *WATCHED)
    ghost = look_inside(run.end, parse_command(MOVE), len(run))

    view = select_gpa_map(moment_at(run, run.last_stop, ghost=ghost))

    assert [bar.style for bar in view.lanes[0].bars] == ["slot", "new_uncommitted"]
    (shown, there) = view.windows
    assert shown.first_gfn <= 0xD0000 < shown.end_gfn <= there.first_gfn <= 0xD0200 < there.end_gfn


def test_a_vm_without_slots_says_so():
    view = select_gpa_map(moment_at(run_of("v6_12"), Stop(-1, 0)))

    assert (view.segments, view.lanes) == ((), ())
    assert view.notice


def test_a_name_from_outside_is_text_in_the_hover():
    view = select_gpa_map(end_of(run_of("v6_12", SLOT)), owners={10: "<b>RAM</b><a href='x'>"})

    (segment,) = (s for s in view.segments if s.kind == "slot")
    assert segment.hover.count("<b>") == 1
    assert "<a" not in segment.hover
    assert "RAM" in segment.hover


def test_what_is_in_the_way_is_marked_in_both_pictures_and_the_place_asked_for_is_shown():
    run = Run.new(
        "v6_12",
        VmConfig(),
        [
            SetMemoryRegion(slot=1, guest_phys_addr=0x100000, memory_size=0x100000),
            SetMemoryRegion(slot=2, guest_phys_addr=0x400000, memory_size=0x100000),
            SetMemoryRegion(slot=3, guest_phys_addr=0x180000, memory_size=0x100000),
        ],
    )

    view = select_gpa_map(moment_at(run, run.last_stop))

    marked = [(s.slot.slot_id, s.size) for s in view.segments if s.in_the_way]
    assert marked == [(1, "in the way")]
    (window,), (lane, *_) = view.windows, view.lanes
    ((x0, x1, words),) = lane.frames
    assert (x0, x1) == (window.at(0x180), window.at(0x200))
    assert words == "slot 1 has 0x100000 to 0x1fffff; 512 KiB of it are asked for, 0x180000 to 0x1fffff"
    asked = next(bar for bar in lane.bars if bar.refused)
    assert (asked.x0, asked.x1) == (window.at(0x180), window.at(0x280))
    assert list(problems_of(view)) == []


def test_nothing_is_marked_once_another_slot_is_looked_at():
    run = Run.new(
        "v6_12",
        VmConfig(),
        [
            SetMemoryRegion(slot=1, guest_phys_addr=0x100000, memory_size=0x100000),
            SetMemoryRegion(slot=3, guest_phys_addr=0x180000, memory_size=0x100000),
        ],
    )

    view = select_gpa_map(moment_at(run, run.last_stop, focus=SlotKey(0, 1)))

    assert not any(segment.in_the_way for segment in view.segments)
    assert view.lanes[0].frames == ()


def test_what_is_in_the_way_of_the_composed_call_is_marked_before_it_is_applied():
    run = run_of("v6_12", SLOT, "set_region slot=11 gpa=0xd0100000 size=0x20000 hva=0x100000100000")
    ghost = look_inside(run.end, parse_command(SLOT.replace("0xd0000000", "0xd0110000")), len(run))

    view = select_gpa_map(moment_at(run, run.last_stop, ghost=ghost))

    assert [s.slot.slot_id for s in view.segments if s.in_the_way] == [11]
    ((x0, x1, words),) = view.lanes[0].frames
    window = next(w for w in view.windows if w.first_gfn <= 0xD0110 < w.end_gfn)
    assert (x0, x1) == (window.at(0xD0110), window.at(0xD0120))
    assert words.startswith("slot 11 has")
    assert list(problems_of(view)) == []


def test_a_stretch_that_was_chosen_is_marked_on_the_line_and_the_detail_opens_from_it() -> None:
    run = run_of("v6_12", *WATCHED)
    moment = moment_at(run, run.last_stop)
    follows = select_gpa_map(moment)
    slot = next(segment for segment in follows.segments if segment.focused)
    half = (slot.first_gfn + slot.end_gfn) // 2

    chosen = select_gpa_map(moment, window=(slot.first_gfn, half))

    assert follows.brush is None
    assert follows.funnel == (slot.x0, slot.x1)
    assert chosen.brush == chosen.funnel == (slot.x0, (slot.x0 + slot.x1) / 2)
    assert [(w.first_gfn, w.end_gfn) for w in chosen.windows] == [(slot.first_gfn, half)]
    beyond = select_gpa_map(moment, window=(moment.kvm.config.max_gfn() - 3, moment.kvm.config.max_gfn() + 1))
    assert beyond.brush is not None
    assert beyond.brush[0] == follows.segments[-1].x1


def host_lane(view):
    """Return the lane of host memory."""
    return next(lane for lane in view.lanes if lane.name == "Host memory")


def test_two_slots_that_share_host_memory_meet_in_one_stretch_of_it() -> None:
    run = run_of(
        "v6_12",
        f"set_region slot=1 gpa=0x100000 size=0x20000 hva={H:#x}",
        f"set_region slot=2 gpa=0x140000 size=0x20000 hva={H + 0x10000:#x}",
        f"set_region slot=3 gpa=0x180000 size=0x20000 hva={H + 0x900000:#x}",
    )
    lane = host_lane(select_gpa_map(moment_at(run, run.last_stop), window=(0x100, 0x1A0)))

    assert lane.sub == "shared by slots"
    assert [bar.hover.split("<br>")[0] for bar in lane.bars] == [
        "<b>host memory of slots 1, 2</b>",
        "<b>host memory of slot 3</b>",
    ]
    shared = [ribbon for ribbon in lane.ribbons if ribbon.bottom0 == lane.bars[0].x0]
    assert len(shared) == 2
    assert len(lane.ribbons) == 3
    assert f"hva {H:#x} to {H + 0x30000 - 1:#x}" in lane.bars[0].hover


def test_a_slot_says_who_else_uses_its_host_memory_even_if_that_is_not_on_the_map() -> None:
    run = run_of(
        "v6_12",
        f"set_region slot=1 gpa=0x100000 size=0x20000 hva={H:#x}",
        f"set_region slot=2 gpa=0x80000000 size=0x20000 hva={H:#x}",
    )
    lane = host_lane(select_gpa_map(moment_at(run, run.last_stop), window=(0x100, 0x120)))

    (bar,) = lane.bars
    assert bar.label == f"{H:#x}: slot 1, slot 2"
    assert "shared: slot 1, slot 2" in bar.hover


def test_a_move_leaves_host_memory_where_it_is() -> None:
    run = run_of("v6_12", SLOT, MOVE)
    moment = moment_at(run, Stop(len(run) - 1, 5))
    lane = host_lane(select_gpa_map(moment))

    assert lane.sub == "same hva"
    assert [ribbon.dotted for ribbon in lane.ribbons] == [False, True]
    assert len({(ribbon.bottom0, ribbon.bottom1) for ribbon in lane.ribbons}) == len(lane.bars) == 1


def test_where_the_slot_of_the_operation_is_not_shown_the_axis_still_names_gfns() -> None:
    run = run_of("v6_12", SLOT, f"set_region slot=1 gpa=0x100000 size=0x20000 hva={H:#x}", MOVE)
    view = select_gpa_map(moment_at(run, run.last_stop), window=(0xF0, 0x130))

    assert [text for _, text in view.ticks] == ["0xf0", "0x100", "0x120", "0x130"]
