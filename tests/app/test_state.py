"""The dashboard's state: every change is a function, bad input changes nothing but the notice, nothing is lost."""

from __future__ import annotations

import gzip
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from runs import random_runs

from explorer.app import addresses, logs, looks, machines, telling
from explorer.app import state as actions
from explorer.app.imports import read_log
from explorer.app.link import LinkError, unpack
from explorer.app.preflight import preflight
from explorer.app.state import AppState, initial_state
from explorer.engine.commands import parse_command
from explorer.engine.types import PAGE_SHIFT, Errno
from explorer.engine.uapi import KvmMrChange
from explorer.history import Stop
from explorer.history.machine import Machine
from explorer.history.moment import SlotKey
from explorer.scenarios import scenario_names

LOGS = Path(__file__).parents[2] / "assets/traces"


@pytest.fixture
def opening() -> AppState:
    return initial_state()


def shown(state: AppState) -> tuple[object, ...]:
    """Return what a person would call the state: machine, run, place and composition, not the notice."""
    return state.machine, state.run, state.stop, state.compose


# -- the opening -----------------------------------------------------------------------------------


def test_it_opens_on_a_question_whose_answer_the_engine_knows(opening: AppState) -> None:
    # kernel-reference 5.6: the zap takes every count away before the arrays change.
    assert opening.question
    assert telling.truth(opening) == 3

    told = telling.answer(opening, 3)
    assert told.answered is not None
    assert told.answered.right
    assert not told.question
    assert told.run.outcomes[-1].change is KvmMrChange.MOVE


def test_a_wrong_answer_plays_the_same_operation(opening: AppState) -> None:
    right, wrong = telling.answer(opening, 3), telling.answer(opening, 1)

    assert wrong.answered is not None
    assert not wrong.answered.right
    assert shown(wrong) == shown(right)


# -- branches --------------------------------------------------------------------------------------


def test_an_operation_put_into_the_past_sets_the_later_ones_aside_and_they_can_be_had_back(opening: AppState) -> None:
    moved = telling.answer(opening, 3)
    past = actions.step_to(moved, moved.run.end_of(10))

    branch = actions.apply_composed(actions.edit(actions.choose(past, "delete"), "slot", "9"))

    assert len(branch.run) == 12
    assert branch.notice is not None
    assert "2 later operations set aside" in branch.notice.text

    back = actions.restore_earlier(branch)
    assert back.run == moved.run
    assert actions.restore_earlier(back).run == branch.run


def test_stepping_beyond_the_end_applies_what_is_composed(opening: AppState) -> None:
    beyond = actions.step_to(opening, Stop(len(opening.run), 4))

    assert beyond.stop == Stop(len(opening.run), 4)
    assert beyond.run == actions.apply_composed(opening).run


def test_who_moved_and_then_attaches_a_tracker_has_the_next_move_composed(opening: AppState) -> None:
    moved = actions.apply_composed(opening)
    base = moved.run.end.slot(10).base_gfn

    attached = actions.set_tracker(moved, "kvmgt")
    assert attached.compose.text("base") == hex((base + 1) << PAGE_SHIFT)

    # kernel-reference 4.6: from 6.6 on a MOVE is refused while a tracker is registered.
    assert actions.apply_composed(attached).run.outcomes[-1].errno is Errno.EINVAL
    detached = actions.set_tracker(attached, "none")
    assert actions.apply_composed(detached).run.outcomes[-1].errno is None


def test_another_kernel_runs_the_same_operations_and_counts_what_differs(opening: AppState) -> None:
    refused = actions.apply_composed(actions.set_tracker(opening, "kvmgt"))
    assert refused.run.outcomes[-1].errno is not None

    # kernel-reference 4.6: the check came with 6.6, and was inverted as it was posted.
    older = machines.set_profile(refused, "v6_1")
    assert older.run.commands == refused.run.commands
    assert older.run.outcomes[-1].errno is None
    assert older.notice is not None
    assert older.notice.text == (
        "On 6.1, 1 of 14 operations differs from 6.12: operation 14, MOVE of slot 10, −EINVAL there, 0 here."
    )
    assert older.stop == older.run.last_stop


def test_a_walk_through_kernels_compares_with_the_one_it_began_on(opening: AppState) -> None:
    refused = actions.apply_composed(actions.set_tracker(opening, "kvmgt"))

    older = machines.set_profile(machines.set_profile(refused, "v5_10"), "v6_1")
    assert older.notice is not None
    assert "1 of 14 operations differs from 6.12: operation 14" in older.notice.text
    back = machines.set_profile(older, "v6_12")
    assert back.notice is not None
    assert back.notice.text == "6.12 again, the machine this comparison began with."

    looked = actions.step_to(older, Stop(13, 0))
    anew = machines.set_profile(looked, "v5_10")
    assert anew.notice is not None
    assert anew.notice.text == "On 5.10, all 14 operations return what they return on 6.1."


def test_another_setting_says_what_differs_from_the_one_before(opening: AppState) -> None:
    config = replace(opening.machine.config, external_write_tracking=False)
    attached = actions.set_tracker(opening, "kvmgt")

    bare = machines.set_machine(attached, attached.machine._replace(config=config))

    assert bare.notice is not None
    assert bare.notice.text.startswith(
        "On 6.12 set up so, 1 of 13 operations differs from the setting before: operation 13, Attach KVMGT, 0 there,"
    )
    # kernel-reference 4.6: who cannot attach cannot be the reason for a refusal.
    assert bare.notice.text.endswith("The composed MOVE of slot 10, −EINVAL there, 0 here.")


def test_only_the_notice_that_came_with_another_run_leads_back(opening: AppState) -> None:
    made = actions.append(telling.answer(opening, 3), parse_command("track gfn=0xd0005"))

    story = telling.tell(made, "inverted-check")
    assert story.notice is not None
    assert story.notice.back
    assert actions.restore_earlier(story).run == made.run

    elsewhere = machines.set_profile(story, "v6_1")
    assert elsewhere.notice is not None
    assert not elsewhere.notice.back
    assert telling.tell(telling.answer(opening, 3), "inverted-check").notice is None, "a story has nothing of one's own"


# -- bad input -------------------------------------------------------------------------------------

TEXTS = st.text(max_size=30) | st.sampled_from(["", "-1", "0x", "1e9", "slot", "slot x", "a..b", "hva:", "9" * 5000])


@given(st.sampled_from(["slot", "base", "size", "hva", "flags"]), TEXTS)
def test_whatever_is_typed_into_a_field_the_run_stays(field: str, text: str) -> None:
    composing = actions.choose(initial_state(), "move")

    typed = actions.edit(composing, field, text)
    lines = preflight(typed.compose, typed.run.end, typed.ghost, hidden=False)

    assert (typed.run, typed.stop, typed.machine) == (composing.run, composing.stop, composing.machine)
    assert typed.compose.text(field) == text
    assert lines.text
    assert len(lines.text) < 400


@given(TEXTS)
def test_whatever_is_typed_as_a_place_leads_there_or_says_why_not(text: str) -> None:
    before = initial_state()

    after = looks.go_to(before, text)

    assert shown(after) == shown(before)
    if after.view == before.view:
        assert after.notice is not None
        assert after.notice.text


def test_a_composition_that_cannot_be_read_is_not_applied(opening: AppState) -> None:
    broken = actions.edit(actions.choose(opening, "create"), "size", "many")

    refused = actions.apply_composed(broken)

    assert refused.run == opening.run
    assert refused.notice is not None
    assert refused.notice.kind == "error"
    assert "size: cannot read 'many'" in refused.notice.text


def test_a_tracker_cannot_attach_where_kvm_was_built_without(opening: AppState) -> None:
    bare = machines.set_machine(
        opening, Machine("v6_12", opening.machine.config.__class__(external_write_tracking=False))
    )

    tried = actions.set_tracker(bare, "kvmgt")

    assert tried.notice is not None
    assert tried.notice.kind == "error"
    assert tried.tracker == "none"


# -- addresses -------------------------------------------------------------------------------------


@given(random_runs(most=12), st.integers(-1, 20), st.integers(0, 12))
def test_an_address_brings_back_machine_operations_and_place(run: object, op: int, cell: int) -> None:
    start = run.start  # type: ignore[attr-defined]
    machine = Machine(start.profile.name, start.config)
    opening = initial_state()
    told = machines.set_machine(opening, machine)
    told = actions.append(actions.step_to(told, Stop(-1, 0)), *run.commands)  # type: ignore[attr-defined]
    told = actions.step_to(told, told.run.clamp(Stop(op, cell)))

    again = addresses.from_link(initial_state(), addresses.to_link(told))

    assert (again.machine, again.run, again.stop) == (told.machine, told.run, told.stop)


@pytest.mark.parametrize("name", scenario_names())
def test_the_address_of_a_story_brings_back_what_was_applied_wherever_the_cursor_stands(name: str) -> None:
    told = telling.tell(initial_state(), name)
    for state in (told, actions.apply_composed(told) if told.ghost is not None else told):
        for stop in (Stop(-1, 0), Stop(0, 0), Stop(len(told.run) - 1, 0), state.run.last_stop):
            here = actions.step_to(replace(state, question=False), state.run.clamp(stop))

            again = addresses.from_link(initial_state(), addresses.to_link(here))

            assert (again.run.commands, again.stop) == (here.run.commands, here.stop)


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"v": "9"}, "form '9'"),
        ({"k": "v99"}, "v6_12"),
        ({"c": "?"}, "no configuration"),
        ({"o": "!!!"}, "damaged"),
        ({"o": ""}, "ends early"),
        ({"at": "here"}, "no place in a run"),
    ],
)
def test_a_damaged_address_names_the_part_and_changes_nothing(
    opening: AppState, changed: dict[str, str], words: str
) -> None:
    link = addresses.to_link(actions.set_tracker(opening, "log")) | changed

    with pytest.raises(LinkError, match=words):
        unpack(link)
    opened = addresses.from_link(opening, link)
    assert shown(opened) == shown(opening)
    assert opened.notice is not None
    assert opened.notice.kind == "error"


@given(st.integers(1, 200))
def test_an_address_that_was_cut_off_is_never_half_a_run(left: int) -> None:
    link = addresses.to_link(actions.set_tracker(initial_state(), "log"))
    cut = link["o"][: min(left, len(link["o"]) - 1)]

    with pytest.raises(LinkError):
        unpack(link | {"o": cut})


# -- logs ------------------------------------------------------------------------------------------


def test_a_log_becomes_the_run_and_what_was_there_can_be_had_back(opening: AppState) -> None:
    log, run = read_log((LOGS / "own-moves/strace.log.gz").read_bytes(), name="moves.log", limit_bytes=1 << 24)

    shown_log = logs.show_log(opening, log, run)

    assert shown_log.run.commands == log.commands
    assert shown_log.title == "moves.log"
    assert shown_log.notice is not None
    assert "moved" in shown_log.notice.text
    assert actions.restore_earlier(shown_log).run == opening.run


def test_very_many_unused_lines_are_told_by_reason(opening: AppState) -> None:
    text = gzip.decompress((LOGS / "own-moves/strace.log.gz").read_bytes()) + b"ioctl(9, TIOCGWINSZ, 0) = 0\n" * 5000
    log, run = read_log(text, name="noise.log", limit_bytes=1 << 24)

    notice = logs.show_log(opening, log, run).notice

    assert notice is not None
    assert len(notice.detail) <= 202
    assert any(line.startswith("5,000 lines, the first is 217: ") for line in notice.detail)


# -- looking ---------------------------------------------------------------------------------------


def test_a_slot_in_focus_stays_until_something_new_happens(opening: AppState) -> None:
    looked = looks.go_to(opening, "slot 4")
    assert looked.view.focus == SlotKey(0, 4)

    assert actions.step_to(looked, Stop(3, 0)).view.focus == SlotKey(0, 4)
    assert actions.apply_composed(looked).view.focus is None


@given(st.integers(0, 1 << 40), st.floats(0.01, 100), st.integers(0, 1 << 39), st.integers(4, 1 << 39))
def test_zooming_and_panning_stay_in_the_guests_address_space(gfn: int, factor: float, first: int, span: int) -> None:
    state = initial_state()
    end = state.kvm.config.max_gfn() + 1
    window = (min(first, end - 4), min(first + span, end))

    for changed in (looks.zoom(state, min(gfn, end - 1), factor, window), looks.pan(state, gfn, window)):
        assert changed.view.window is not None
        start, stop = changed.view.window
        assert 0 <= start < stop <= end


@pytest.mark.parametrize(
    ("text", "at"),
    [
        # The holes of the layout q72-pc-3584M with slot 10: 0xa0000-0xbffff, 0xc0000000-0xcfffffff,
        # 0xd0020000-0xfcffffff, 0xfe000000-0xfffbffff, and above 0x120000000.
        ("gap>=128K", 0xA0000),
        ("gap>=16M <4G", 0xC000_0000),
        ("gap>=16M >0xd0000000 <4G", 0xD002_0000),
        ("gap>=300M <4G", 0xD002_0000),
        ("gap>=1G", 0x1_2000_0000),
    ],
)
def test_room_for_a_slot_is_found_and_shown(opening: AppState, text: str, at: int) -> None:
    found = looks.go_to(opening, text)
    assert found.notice is not None
    assert f"fit at {at:#x}:" in found.notice.text
    assert found.view.window is not None
    first, end = found.view.window
    assert first <= at >> PAGE_SHIFT < end
    assert found.run == opening.run


def test_no_room_is_said_and_nothing_moves(opening: AppState) -> None:
    none = looks.go_to(opening, "gap>=1G <1G")
    assert none.notice is not None
    assert none.notice.kind == "error"
    assert none.view == opening.view


# -- undoing how it is looked at -------------------------------------------------------------------


def test_undo_takes_back_zoom_scale_and_focus_one_by_one_and_no_operation(opening: AppState) -> None:
    moved = telling.answer(opening, 3)
    seen = [moved]
    seen.append(looks.zoom(seen[-1], 0xD0200, 0.5, (0xD0000, 0xD0400)))
    seen.append(looks.set_scale(seen[-1], "linear"))
    seen.append(looks.look_at(seen[-1], SlotKey(0, 4)))

    state = seen[-1]
    for before in reversed(seen[:-1]):
        state = looks.undo_view(state)
        assert state.view == before.view
        assert shown(state) == shown(moved)

    left = looks.undo_view(state)
    assert left.view == moved.view
    assert left.notice is not None
    assert "operations are not undone" in left.notice.text


def test_an_operation_between_two_looks_stays_and_the_page_keeps_its_size(opening: AppState) -> None:
    moved = telling.answer(opening, 3)
    zoomed = looks.zoom(moved, 0xD0200, 0.5, (0xD0000, 0xD0400))
    longer = actions.set_tracker(zoomed, "log")
    smaller = looks.fitted(longer, width=1366, map_width=1102, theme="dark")

    undone = looks.undo_view(smaller)

    assert undone.run == longer.run
    assert (undone.view.narrow, undone.view.theme) == (True, "dark")
    assert undone.view.window == moved.view.window


def test_so_many_looks_are_kept_and_what_changes_nothing_is_none(opening: AppState) -> None:
    state = looks.fit(opening)
    assert state.views == ()

    for turn in range(120):
        state = looks.set_scale(state, "linear" if turn % 2 else "equal")
    assert len(state.views) == 50


@given(first=st.integers(-(1 << 60), 1 << 60), end=st.integers(-(1 << 60), 1 << 60))
def test_a_stretch_that_is_brushed_has_four_pages_or_more_and_stays_in_the_address_space(first: int, end: int) -> None:
    state = initial_state()

    start, stop = looks.brush(state, first, end).view.window or (0, 0)

    assert 0 <= start <= stop - 4
    assert stop <= state.kvm.config.max_gfn() + 1
    inside = 0 <= first <= end - 4 and end <= state.kvm.config.max_gfn() + 1
    assert not inside or (start, stop) == (first, end)


def test_a_tracker_that_comes_in_the_past_finds_the_move_that_was_made_there() -> None:
    story = telling.tell(initial_state(), "inverted-check")
    asked = story.compose.text("base")
    refused = actions.apply_composed(story)
    assert refused.run.outcomes[-1].errno is Errno.EINVAL

    attached = actions.set_tracker(actions.step_to(refused, story.stop), "kvmgt")

    assert attached.compose.shown
    assert attached.compose.text("base") == asked
    assert actions.apply_composed(attached).run.outcomes[-1].errno is None  # the posted test is inverted


def test_a_tracker_that_comes_after_the_move_finds_one_that_goes_a_page_on() -> None:
    moved = actions.apply_composed(initial_state())
    there = moved.run.end.slot(10)
    assert there is not None

    attached = actions.set_tracker(moved, "kvmgt")

    assert attached.compose.shown
    assert int(attached.compose.text("base"), 16) == (there.base_gfn + 1) << 12
