"""Notes of a person: bound to stops, in order, text and nothing else, kept in the address and in the letter."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from explorer.app import addresses, telling
from explorer.app import state as actions
from explorer.app.notes import LONGEST, MOST, Note, NotesError, in_address, of_address, written
from explorer.app.onward import file_of
from explorer.app.state import AppState, initial_state
from explorer.engine.commands import parse_command
from explorer.history import Stop


@pytest.fixture
def moved() -> AppState:
    return telling.answer(initial_state(), 3)


def noted(state: AppState, *notes: tuple[int, int, str]) -> AppState:
    for op, cell, text in notes:
        state = addresses.write_note(state, Stop(op, cell), text)
    return state


def test_notes_are_in_the_order_of_their_stops(moved: AppState) -> None:
    state = noted(moved, (12, 9, "over"), (-1, 0, "empty VM"), (12, 3, "INVALID from here"))

    assert [note.text for note in state.notes] == ["empty VM", "INVALID from here", "over"]


def test_a_second_note_at_a_stop_takes_the_place_of_the_first_and_an_empty_one_removes_it(moved: AppState) -> None:
    state = noted(moved, (12, 3, "one"), (12, 3, "two"))
    assert state.notes == (Note(Stop(12, 3), "two"),)

    assert noted(state, (12, 3, "  ")).notes == ()


def test_a_note_needs_a_stop_of_the_run(moved: AppState) -> None:
    state = noted(moved, (len(moved.run), 0, "not there yet"))

    assert state.notes == ()
    assert state.notice is not None
    assert "apply the operation first" in state.notice.text


def test_there_are_so_many_notes_and_no_more() -> None:
    full = tuple(Note(Stop(op, 0), "x") for op in range(MOST))

    with pytest.raises(NotesError, match="40 notes already"):
        written(full, Stop(MOST, 0), "one more")
    assert written(full, Stop(3, 0), "another word")[3].text == "another word"


@given(st.text(max_size=3 * LONGEST))
def test_whatever_is_typed_it_is_one_printable_line_and_comes_back_from_the_address(text: str) -> None:
    notes = written((), Stop(0, 0), text)
    assert all(note.text.isprintable() and 0 < len(note.text) <= LONGEST for note in notes)

    state = initial_state()
    assert of_address(state, in_address(notes)).notes == notes


def test_an_address_keeps_notes_with_the_run_and_an_older_one_has_none(moved: AppState) -> None:
    state = noted(moved, (12, 3, "readers see INVALID"), (4, 0, "<b>&"))
    older = addresses.to_link(state)
    address = older | in_address(state.notes)

    opened = of_address(addresses.from_link(initial_state(), address), address)
    assert opened.run == state.run
    assert opened.notes == state.notes
    assert of_address(addresses.from_link(initial_state(), older), older).notes == ()


@pytest.mark.parametrize(
    ("packed", "reason"),
    [
        ("%%%", "damaged"),
        (in_address((Note(Stop(0, 0), "x" * 90),))["m"][:-8], "cut off"),
        (in_address((Note(Stop(99, 0), "x"),))["m"], "operations that its run does not have"),
    ],
)
def test_notes_that_cannot_be_read_are_refused_in_words_and_change_nothing(packed: str, reason: str) -> None:
    with pytest.raises(NotesError, match=reason):
        of_address(initial_state(), {"m": packed})


def test_a_branch_keeps_the_notes_of_its_past_and_the_others_come_back_with_theirs(moved: AppState) -> None:
    state = noted(moved, (4, 0, "early"), (12, 3, "late"))
    branch = actions.append(actions.step_to(state, Stop(6, 0)), parse_command("attach user=0"))

    assert [note.text for note in branch.notes] == ["early"]
    assert [note.text for note in actions.restore_earlier(branch).notes] == ["early", "late"]


def test_the_letter_has_the_notes_in_order(moved: AppState) -> None:
    _, text = file_of(noted(moved, (12, 3, "*INVALID* <now>"), (4, 0, "early")), "markdown")

    assert text.index("Note at 5.1: early") < text.index(r"Note at 13.4: \*INVALID\* \<now\>")
