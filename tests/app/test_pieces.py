"""What is kept of pictures: never more than the budget, and always what the page is asked to show."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from explorer.app.frames import FrameBuilder
from explorer.app.pieces import Pieces
from explorer.app.state import initial_state
from explorer.history import Stop

ROOM = 500_000
"""Characters; a stop of a story takes some 40,000."""


class Mirror:
    """A page that keeps what it is sent and lets go what it is told to."""

    def __init__(self) -> None:
        self.pieces: dict[str, str] = {}
        self.frames: dict[str, dict[str, str]] = {}

    def take(self, message: dict[str, Any]) -> None:
        gone = set(message.get("gone", ()))
        self.pieces = {digest: text for digest, text in self.pieces.items() if digest not in gone}
        self.frames = {key: panels for key, panels in self.frames.items() if gone.isdisjoint(panels.values())}
        self.pieces |= message["pieces"]
        self.frames |= {key: frame["p"] for key, frame in message["frames"].items()}

    @property
    def size(self) -> int:
        return sum(map(len, self.pieces.values()))


def test_what_was_not_used_for_longest_goes_first() -> None:
    pieces = Pieces(budget=40)
    first, second, third = (pieces.add(letter * 10) for letter in "abc")
    pieces.use([first])

    assert pieces.forget_oldest() == []
    fourth = pieces.add("d" * 10)
    assert pieces.forget_oldest() == [second, third]
    assert first in pieces
    assert fourth in pieces
    assert pieces.size == 2 * len('"aaaaaaaaaa"')


def test_equal_pieces_are_one() -> None:
    pieces = Pieces(budget=40)
    assert pieces.add(["a"]) == pieces.add(["a"])
    assert pieces.size == len('["a"]')


@pytest.fixture(scope="module")
def builder_of_stops() -> tuple[FrameBuilder, list[Stop]]:
    state = initial_state("first-look")
    builder = FrameBuilder(budget=ROOM)
    builder.use(state)
    return builder, [Stop(op, cell) for op in range(len(state.run)) for cell in range(builder.frame(Stop(op, 0)).cells)]


@settings(max_examples=15)  # each builds some hundred pictures
@given(walk=st.lists(st.integers(min_value=0), min_size=30, max_size=60), ahead=st.booleans())
def test_a_page_has_all_of_every_stop_it_goes_to_and_never_more_than_the_budget(
    builder_of_stops: tuple[FrameBuilder, list[Stop]], walk: list[int], *, ahead: bool
) -> None:
    builder, stops = builder_of_stops
    builder.forget_sent()
    page = Mirror()
    for number in walk:
        stop = stops[number % len(stops)]
        key = f"{stop.op}:{stop.cell}"
        if key in page.frames:
            builder.visit(stop)
        else:
            page.take(builder.message([stop]))
        assert set(page.frames[key].values()) <= set(page.pieces)
        if ahead and stop != stops[-1]:
            page.take(builder.message([stops[stops.index(stop) + 1]]))
            assert set(page.frames[key].values()) <= set(page.pieces), "what is shown is the last to go"
        assert page.size <= ROOM


def test_a_step_back_sends_again_what_went(builder_of_stops: tuple[FrameBuilder, list[Stop]]) -> None:
    builder, stops = builder_of_stops
    builder.forget_sent()
    page = Mirror()
    first = builder.message([stops[0]])
    page.take(first)
    for stop in stops:
        page.take(builder.message([stop]))

    (key,) = first["frames"]
    assert key not in page.frames
    again = builder.message([stops[0]])
    page.take(again)
    assert again["frames"] == first["frames"]
    assert {digest: page.pieces[digest] for digest in first["pieces"]} == first["pieces"]


def test_the_words_of_a_kernel_come_again_after_they_went() -> None:
    states = [initial_state(name) for name in ("first-look", "watches-lost")]
    states = [replace(state, revision=number) for number, state in enumerate(states * 2)]
    assert states[0].machine.profile != states[1].machine.profile
    builder, page = FrameBuilder(budget=ROOM), Mirror()
    for state in states:
        builder.use(state)
        page.frames.clear()  # as a page does when the pictures change
        for op in range(len(state.run)):
            page.take(builder.message([Stop(op, 0)]))
            assert page.frames[f"{op}:0"]["words"] in page.pieces
