"""What a person may type into any field of any operation: it is read, or it is refused in a sentence."""

from __future__ import annotations

import pytest

from explorer.app import looks
from explorer.app import state as actions
from explorer.app.compose import KINDS, OTHER_KINDS, fields_of
from explorer.app.preflight import preflight
from explorer.app.state import AppState, initial_state

ALL_KINDS = tuple(kind for kind, _ in (*KINDS, *OTHER_KINDS))
FIELDS = [(kind, name) for kind in ALL_KINDS for name in fields_of(kind)]
NUMBERS = ["0", "1", "7", "4096", "0x1000", "0X1000", "0xd0001000", "3G-16M", "16M", "1_000", "+5", "0b101", "0o17"]
HUGE = [str(2**31), str(2**63), str(2**64 - 1), str(2**64), "0x" + "f" * 40, "9" * 5000, "1e9", "999999G"]
BELOW_ZERO = ["-1", "-0x1000", "-16M", "16M-3G"]
NONSENSE = ["", " ", "nonsense", "0x", "0xzz", "1.5", "1,2", "=", "slot=3", "\n", "\x00", "☃", "<img src=x>", "0..1"]
FULL_WIDTH = "\uff11\uff12"
"""Digits to Python, not to the kernel."""
LONG = [FULL_WIDTH, "a" * 10_000, "1 " * 5_000, "-" * 5_000, "1+" * 5_000 + "1"]
LONGEST_SENTENCE = 400


@pytest.fixture(scope="module")
def moved() -> AppState:
    return actions.apply_composed(initial_state())


@pytest.mark.parametrize(("kind", "name"), FIELDS)
def test_whatever_is_typed_into_a_field_is_read_or_refused_in_a_sentence(moved: AppState, kind: str, name: str) -> None:
    chosen = actions.choose(moved, kind)
    for text in (*NUMBERS, *HUGE, *BELOW_ZERO, *NONSENSE, *LONG):
        typed = actions.edit(chosen, name, text)
        said = preflight(typed.compose, typed.run.end, typed.ghost, hidden=False)
        applied = actions.apply_composed(typed)

        told = applied.notice.text if applied.notice else ""
        assert 0 < len(said.text) < LONGEST_SENTENCE, text
        assert len(told) < LONGEST_SENTENCE, text
        if typed.ghost is None:
            assert said.error, text
            assert applied.notice is not None, text
            assert applied.notice.kind == "error", text
            assert applied.run is moved.run, text
        else:
            assert len(applied.run) > len(moved.run), text


@pytest.mark.parametrize("text", [*NUMBERS, *HUGE, *BELOW_ZERO, *NONSENSE, *LONG])
def test_whatever_is_asked_for_as_a_place_is_found_or_refused_in_a_sentence(moved: AppState, text: str) -> None:
    for prefix in ("", "gfn:", "slot ", "hva:", "room for ", "0x1000.."):
        went = looks.go_to(moved, prefix + text)

        assert went.run is moved.run
        assert went.stop == moved.stop
        if went.view == moved.view:
            assert went.notice is not None
            assert 0 < len(went.notice.text) < LONGEST_SENTENCE
