"""The hand-off: a fate for every field, and which slot object stands where at each step. Product rows 39 and 41."""

import itertools

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

from explorer.engine.events import ArrayFreed
from explorer.engine.profile import get_profile
from explorer.engine.uapi import KVM_MEM_LOG_DIRTY_PAGES, KvmMrChange
from explorer.history import Stop
from explorer.history.moment import moment_at
from explorer.selectors.arrays import select_arrays
from explorer.selectors.hand_off import FIELDS, fate_of, select_hand_off
from explorer.selectors.phases import select_phases

PAIRS = list(itertools.product((False, True), repeat=2))
FATES = {"kept", "changed", "handed over", "from zero", "freed", "new", "none"}
ARCH = ("arch.rmap", "arch.lpage_info", "gfn_write_track")
IDENTITY = ("id, as_id", "npages", "userspace_addr")


@pytest.mark.parametrize("profile", ALL_PROFILES)
@pytest.mark.parametrize("change", KvmMrChange)
def test_every_field_has_a_fate_in_every_change(profile, change):
    fates = {
        (field, logs): fate_of(field, change, get_profile(profile), logs=logs) for field in FIELDS for logs in PAIRS
    }

    assert set(fates.values()) <= FATES
    # Product 1.5 and kernel-reference 4.6, 4.7 and 7.4
    for (field, logs), fate in fates.items():
        match change:
            case KvmMrChange.NOOP:
                assert fate == "kept"
            case KvmMrChange.MOVE if field in IDENTITY:
                assert fate == "kept"
            case KvmMrChange.MOVE if field == "base_gfn":
                assert fate == "changed"
            case KvmMrChange.MOVE if field in ARCH:
                assert fate == ("handed over" if profile == "pre_edd4" else "from zero")
            case KvmMrChange.FLAGS_ONLY if field in ARCH:
                assert fate == "handed over"
            case KvmMrChange.FLAGS_ONLY if field in (*IDENTITY, "base_gfn"):
                assert fate == "kept"
            case KvmMrChange.MOVE | KvmMrChange.FLAGS_ONLY if field == "flags":
                assert fate == ("kept" if logs[0] == logs[1] else "changed")
            case KvmMrChange.MOVE | KvmMrChange.FLAGS_ONLY:
                bitmap = {(1, 1): "handed over", (1, 0): "freed", (0, 1): "from zero", (0, 0): "none"}
                assert fate == bitmap[logs]
            case KvmMrChange.CREATE:
                assert fate == ("none" if field == "dirty_bitmap" and not logs[1] else "new")
            case KvmMrChange.DELETE:
                assert fate == ("none" if field == "dirty_bitmap" and not logs[0] else "freed")
            case _:
                pytest.fail(f"{field} of a {change.value} was not judged")


@settings(max_examples=60)
@given(random_runs(15))
def test_the_fate_told_is_the_fate_met(run):
    for at in range(len(run)):
        detail = run.detail(at)
        moment = end_of(run.up_to(at + 1))
        view = select_hand_off(moment)
        if view is None or detail.step.errno is not None:
            continue
        old, new = moment.old, moment.kvm.slot(moment.call.slot, moment.call.as_id)
        fates = {row.field: row.fate for row in view.rows}
        assert set(fates) == set(FIELDS)
        for field, name in (("dirty_bitmap", "dirty_bitmap"), *((f, f.removeprefix("arch.")) for f in ARCH)):
            before = None if old is None else getattr(old if name == "dirty_bitmap" else old.arch, name)
            after = None if new is None else getattr(new if name == "dirty_bitmap" else new.arch, name)
            match fates[field]:
                case "handed over" | "kept":
                    assert before == after
                case "from zero" | "new":
                    assert after is not None
                    assert after != before
                    assert before is None or before not in moment.kvm.heap
                case "freed":
                    assert before is not None
                    assert before not in moment.kvm.heap
                case "none":
                    assert (before, after) == (None, None)
        if old is not None and new is not None:
            assert (fates["base_gfn"] == "changed") == (old.base_gfn != new.base_gfn)
            assert (fates["flags"] == "changed") == bool((old.flags ^ new.flags) & KVM_MEM_LOG_DIRTY_PAGES)


def test_the_objects_of_a_move_stand_where_the_kernel_has_them():
    # kernel-reference 4.5 and 4.9: set 1 gets INVALID and is published, set 0 keeps old for a roll-back.
    run = run_of("v6_12", "set_region slot=3 gpa=0 size=0x1000 hva=0x7f0000000000", SLOT, MOVE)
    told = [[c.where for c in select_hand_off(m).columns] for m in moments(run) if m.stop.op == 2]

    assert told == [
        ["in both sets", "not yet", "in no set"],
        ["in both sets", "in no set", "in no set"],
        ["in set 0, readers see it", "in set 1, inactive", "in no set"],
        ["in set 0, inactive", "in set 1, readers see it", "in no set"],
        ["in set 0, inactive", "in set 1, readers see it", "in no set"],
        ["in set 0, inactive", "in set 1, readers see it", "in no set"],
        ["in no set", "in set 1, readers see it", "in set 0, inactive"],
        ["in no set", "freed", "in both sets"],
        ["freed", "freed", "in both sets"],
        ["freed", "freed", "in both sets"],
    ]


def bands(run):
    return [(band.content, band.first, band.last) for band in select_phases(end_of(run)).bands]


@pytest.mark.parametrize("profile", ALL_PROFILES)
def test_readers_see_old_then_invalid_then_new(profile):
    run = run_of(profile, *WATCHED, MOVE, external_write_tracking=False)

    assert bands(run) == [("old", 0, 2), ("INVALID", 3, 6), ("new", 7, 9)]


def test_readers_never_see_the_new_slot_of_a_refused_move():
    assert bands(run_of("v6_12", *KVMGT, MOVE)) == [("old", 0, 2), ("INVALID", 3, 5), ("old", 6, 7)]


def test_readers_see_a_slot_come_and_go_and_no_invalid_one_when_only_flags_change():
    assert [content for content, _, _ in bands(run_of("v6_12", SLOT))] == ["none", "new"]
    assert [content for content, _, _ in bands(run_of("v6_12", SLOT, DELETE))] == ["old", "INVALID", "none"]
    assert [content for content, _, _ in bands(run_of("v6_12", SLOT, LOG_ON))] == ["old", "new"]


@settings(max_examples=40)
@given(random_runs(12))
def test_the_strip_shows_one_active_set_and_bands_without_a_gap(run):
    for moment in moments(run):
        strip = select_phases(moment)
        if strip is None:
            continue
        assert [sum(box.active for box in cell.boxes) for cell in strip.cells] == [1] * len(strip.cells)
        ends = [-1, *(band.last for band in strip.bands)]
        assert [band.first for band in strip.bands] == [end + 1 for end in ends[:-1]]
        assert ends[-1] == len(strip.cells) - 1
        assert [cell.tense for cell in strip.cells].count("now") == 1
        assert all(a.content != b.content for a, b in itertools.pairwise(strip.bands))


def test_each_swap_says_how_far_the_generation_went():
    strip = select_phases(end_of(run_of("v6_12", SLOT, MOVE)))

    assert [cell.note for cell in strip.cells] == ["", "", "", "+2", "", "", "", "+2", "", ""]
    assert strip.generations == ("gen 4", "gen 6")  # the set left behind keeps its old one


def test_arrays_that_are_not_there_have_no_fate():
    # kernel-reference 3.4: with the TDP MMU and no tracker there are neither rmaps nor counts.
    view = select_hand_off(end_of(run_of("v6_12", SLOT, MOVE, tdp=True)))

    fates = {row.field: row.fate for row in view.rows}
    assert (fates["arch.rmap"], fates["gfn_write_track"], fates["arch.lpage_info"]) == ("none", "none", "from zero")


def test_arrays_that_are_not_there_say_what_they_wait_for():
    arrays = select_arrays(end_of(run_of("v6_12", SLOT, MOVE, tdp=True))).arrays

    assert [(a.name, a.state, a.reason) for a in arrays] == [
        ("write_track A", "off", "TDP is on: made for the first tracker or shadow root"),
        ("write_track B", "off", ""),
    ]


def test_a_refused_move_keeps_every_field():
    view = select_hand_off(end_of(run_of("v6_12", *KVMGT, MOVE)))

    assert {row.fate for row in view.rows} == {"kept", "none"}
    assert {row.fate for row in view.rows if row.field != "dirty_bitmap"} == {"kept"}


def test_arrays_live_until_the_kernel_frees_them():
    # kernel-reference 5.6: new arrays in prepare, old ones freed in the commit.
    lives = {
        life.name: (life.start, life.end) for life in select_hand_off(end_of(run_of("v6_12", *WATCHED, MOVE))).lifetimes
    }

    assert lives == {"arrays A": (0, 9), "INVALID copy": (2, 8), "new slot": (1, None), "arrays B": (6, None)}
    before = {life.name: life.end for life in select_hand_off(end_of(run_of("pre_edd4", *WATCHED, MOVE))).lifetimes}
    assert before["arrays A"] is None
    assert "arrays B" not in before


def test_the_old_array_is_shared_then_freed_and_the_new_one_starts_at_zero():
    run = run_of("v6_1", *LOGGER, MOVE)

    shared = select_arrays(at_word(run, "zap")).arrays
    built = select_arrays(at_word(run, "allocate")).arrays
    freed = select_arrays(end_of(run)).arrays

    assert [(a.name, a.state) for a in shared] == [("write_track A", "live"), ("write_track B", "absent")]
    assert shared[0].owner == "owner old, shared with INVALID"
    assert [(a.state, a.words) for a in built[1:]] == [("fresh", "32 × 0")]
    assert [a.state for a in freed] == ["freed", "fresh"]
    assert freed[0].words == "3 released; 2 lost"


def old_values(run, field):
    """Return what the column of the old slot shows of a field, step by step of the last operation."""
    op = len(run) - 1
    views = [select_hand_off(moment_at(run, Stop(op, cell))) for cell in range(len(run.detail(op).cells))]
    return [next(row.old.text for row in view.rows if row.field == field) for view in views]


@pytest.mark.parametrize(
    ("profile", "lines", "held"),
    [
        # kernel-reference 5.6, 6.6: shadow paging's three go back in the zap, and in 6.1 KVMGT's two; others stay.
        ("v6_1", KVMGT, "sum 0"),
        ("v6_1", LOGGER, "sum 2"),
        ("v6_6_nocheck", KVMGT, "sum 2"),
        ("v7_3", WATCHED, "sum 0"),
    ],
)
@pytest.mark.parametrize("call", [MOVE, DELETE])
def test_a_freed_array_shows_what_it_held_then_and_never_again_what_it_held_before(profile, lines, held, call):
    run = run_of(profile, *lines, call)
    told = old_values(run, "gfn_write_track")
    zap = next(at for at, cell in enumerate(run.detail(len(run) - 1).cells) if cell.word == "zap")

    assert set(told[:zap]) == {"sum 3" if lines == WATCHED else "sum 5"}
    assert set(told[zap:]) == {held}
    # The zap is the last to touch the frames of the old place, too.
    assert len(set(old_values(run, "arch.lpage_info")[zap:])) == 1


@settings(max_examples=30)
@given(random_runs(14))
def test_what_the_old_column_shows_in_the_end_is_what_the_array_was_freed_with(run):
    for op in range(len(run)):
        moment = moment_at(run, run.end_of(op))
        if moment.old is None or select_hand_off(moment) is None:
            continue
        for event in moment.events:
            if isinstance(event, ArrayFreed) and event.array == moment.old.arch.gfn_write_track:
                assert old_values(run.up_to(op + 1), "gfn_write_track")[-1] == f"sum {event.held}"


def test_in_the_freed_array_what_was_dropped_is_told_from_what_was_released():
    # kernel-reference 6.6: in 6.1 KVMGT's own callback takes its two watches back.
    run = run_of("v6_1", *KVMGT, MOVE)

    assert select_arrays(end_of(run)).arrays[0].words == "3 released; 2 dropped"


def test_outside_a_region_call_there_is_nothing_to_hand_over():
    assert select_hand_off(end_of(run_of("v6_12", *WATCHED))) is None
    assert select_phases(end_of(run_of("v6_12", *WATCHED))) is None
