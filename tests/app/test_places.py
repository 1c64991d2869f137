"""Places that are typed or pasted: answered without moving, told from logs, and never in the way of the question."""

from __future__ import annotations

import pytest

from explorer.app import looks, machines
from explorer.app import state as actions
from explorer.app.places import find, pasted_place
from explorer.app.state import AppState, initial_state


@pytest.fixture
def opening() -> AppState:
    return initial_state()


@pytest.mark.parametrize(
    ("text", "told"),
    [
        # Slot 10 of the layout: 32 pages at gfn 0xd0000, host address 0x100000000000; slot 2 is the flash, read-only.
        ("0xd0003abc", "0xd0003abc lies in slot 10, at host address 0x100000003abc."),
        ("gfn:0xd0003", "0xd0003000 lies in slot 10, at host address 0x100000003000."),
        ("0xfffc0000", "; the guest may only read it."),
        ("0xb0000", "gfn 0xb0 lies in a hole: no slot backs it."),
        ("slot 10", "Slot 10 has 0xd0000000 to 0xd001ffff, 128 KiB, at host address 0x100000000000."),
        ("hva:0x100000000000", "Slot 10 has 0xd0000000"),
        ("0xd0003", "It was read as an address; for the page of that number write gfn:0xd0003."),
    ],
)
def test_a_place_is_answered_with_what_backs_it(opening: AppState, text: str, told: str) -> None:
    answer = find(opening, text)
    assert told in answer.text
    assert not answer.error

    went = looks.go_to(opening, text)
    assert went.notice is not None
    assert went.notice.text == answer.text
    assert not went.question, "the question has its own picture"


def test_while_the_call_runs_readers_find_the_slot_invalid(opening: AppState) -> None:
    moved = actions.apply_composed(opening)

    inside = actions.step_to(moved, moved.stop._replace(cell=4))

    assert find(inside, "0xd0003000").text.endswith("; readers find it INVALID now.")


@pytest.mark.parametrize("text", ["", "   ", "0x", "gap", "slot", "a..b", "nonsense", "9" * 5000])
def test_what_is_no_place_yet_moves_nothing(opening: AppState, text: str) -> None:
    answer = find(opening, text)

    assert answer.error is bool(text.strip())
    assert bool(answer.text) is bool(text.strip())


@pytest.mark.parametrize(
    ("pasted", "place"),
    [
        (b" 0xd0003000\n", "0xd0003000"),
        (b"gap>=16M <4G", "gap>=16M <4G"),
        (b"slot 4", "slot 4"),
        (b"", None),
        (b"0x1000\n0x2000\n", None),
        (b"\xff\xfe", None),
        (b"ioctl(3, KVM_CREATE_VM, 0) = 4", None),
        (b"9" * 10_000, None),
    ],
)
def test_only_a_place_is_taken_for_one(pasted: bytes, place: str | None) -> None:
    assert pasted_place(pasted) == place


def test_another_machine_and_another_look_leave_the_question(opening: AppState) -> None:
    assert opening.question

    assert not machines.set_machine(opening, opening.machine._replace(profile="v6_1")).question
    assert not looks.set_scale(opening, "linear").question
    assert looks.set_scale(opening, opening.view.scale).question
    assert looks.fitted(opening, width=1366, map_width=1102, theme="dark").question
