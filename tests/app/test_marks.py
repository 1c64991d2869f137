"""Marks on the timeline: what is told of broken invariants and notes, and the way to the first violation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from explorer.app import addresses, machines, telling
from explorer.app import state as actions
from explorer.app.dashboard import App
from explorer.app.marks import TimelineMarks, go_to_first
from explorer.app.notes import in_address
from explorer.app.state import AppState, initial_state
from explorer.engine.commands import parse_command
from explorer.figures.dom import to_text
from explorer.history import Stop

if TYPE_CHECKING:
    from collections.abc import Callable


def moved_on(profile: str) -> AppState:
    """Return the state after KVMGT's slot was moved, on a kernel."""
    state = telling.tell(initial_state(), "before-the-patch")
    return actions.apply_composed(machines.set_profile(state, profile))


def evaluated(state: AppState) -> TimelineMarks:
    marks = TimelineMarks()
    marks.use(state)
    while marks.work():
        pass
    return marks


def test_the_message_has_the_mark_and_what_the_rail_says_at_each_stop_after_it() -> None:
    state = moved_on("v6_1")
    longer = actions.append(state, parse_command("guest_write gpa=0x100000"))

    message = evaluated(longer).message(longer)

    assert [op for op, _, _ in message["broken"]] == [16]
    told = {int(op): to_text(message["panels"][at]) for op, at in message["told"].items()}
    assert set(told) == {16, 17}
    assert told[16].startswith("Broken here: I12")
    assert told[17].startswith("Still broken: I12")


def test_what_is_not_evaluated_yet_is_no_mark_and_is_said() -> None:
    state = moved_on("v6_1")

    message = TimelineMarks().message(state)

    assert message["broken"] == []
    assert to_text(message["status"]) == "Invariants are not evaluated here yet."


def test_the_way_to_the_first_violation_is_found_and_known_to_be_that_without_anything_evaluated_before() -> None:
    state = actions.step_to(moved_on("v6_1"), Stop(2, 0))

    there = go_to_first(state, TimelineMarks())

    assert there.stop == state.run.end_of(16)
    assert there.run is state.run
    assert there.notice is not None
    assert there.notice.text.startswith("The first violation on v6_1: operation 17, MOVE of slot 10")


def test_where_nothing_is_broken_the_place_stays_and_a_sentence_says_so() -> None:
    state = actions.step_to(moved_on("v6_12"), Stop(2, 0))

    there = go_to_first(state, evaluated(state))

    assert there.stop == state.stop
    assert there.notice is not None
    assert there.notice.text.startswith("No invariant is broken on v6_12")


def test_a_message_is_sent_again_only_if_it_says_something_new() -> None:
    state = moved_on("v6_1")
    marks = evaluated(state)

    assert marks.fresh(state) is not None
    assert marks.fresh(state) is None
    noted = addresses.write_note(state, Stop(3, 0), "here")
    fresh = marks.fresh(noted)
    assert fresh is not None
    assert fresh["notes"] == [[3, 0, "here"]]


# -- as the page asks ------------------------------------------------------------------------------


@pytest.fixture
def ask(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[dict[str, Any]]]:
    app = App()
    said: list[dict[str, Any]] = []
    monkeypatch.setattr(app.stage, "say", lambda message, buffers=None: said.append(message))  # noqa: ARG005

    def asks(**message: Any) -> list[dict[str, Any]]:
        said.clear()
        app._on_message(message, [])
        return list(said)

    return asks


def test_a_note_of_the_page_comes_back_with_the_address_that_holds_it(
    ask: Callable[..., list[dict[str, Any]]],
) -> None:
    ask(t="hello", link={}, width=1920, map=1160, theme="light")

    (around,) = ask(t="note", op=3, cell=0, text="  <b>mine</b>\n ")

    assert around["marks"]["notes"] == [[3, 0, "<b>mine</b>"]]
    (plan,) = ask(t="hello", link=around["link"], width=1920, map=1160, theme="light")
    assert plan["marks"]["notes"] == [[3, 0, "<b>mine</b>"]]


def test_damaged_notes_leave_the_run_of_the_address_alone(ask: Callable[..., list[dict[str, Any]]]) -> None:
    moved = moved_on("v6_1")
    link = addresses.to_link(moved) | {"m": "AAAA"}

    (plan,) = ask(t="hello", link=link, width=1920, map=1160, theme="light")

    assert plan["ops"] == len(moved.run)
    assert "notes of this address are damaged" in plan["notice"]["text"]
    assert in_address(()) == {}


def test_the_key_of_the_first_violation_moves_the_page_there(ask: Callable[..., list[dict[str, Any]]]) -> None:
    moved = moved_on("v6_1")
    ask(t="hello", link=addresses.to_link(moved), width=1920, map=1160, theme="light")
    ask(t="at", op=1, cell=0)

    around, go = ask(t="first")

    assert around["notice"]["text"].startswith("The first violation on v6_1: operation 17, MOVE of slot 10")
    assert go == {"t": "go", "at": list(moved.run.end_of(16))}
