"""What is sent to the page: every stop once, panels that look alike once, and nothing of a state that is gone."""

from __future__ import annotations

import json
from typing import Any

import pytest

from explorer.app import dashboard, machines, telling
from explorer.app import state as actions
from explorer.app.dashboard import App
from explorer.app.frames import FrameBuilder
from explorer.app.state import initial_state
from explorer.history import Stop

HELLO = {"t": "hello", "link": {}, "width": 1920, "map": 1160, "theme": "light"}


class Page:
    """What a page would have received."""

    def __init__(self, app: App, monkeypatch: pytest.MonkeyPatch) -> None:
        self.app = app
        self.heard: list[dict[str, Any]] = []
        monkeypatch.setattr(app.stage, "send", lambda content, buffers=None: self.heard.append(content))  # noqa: ARG005

    def says(self, message: dict[str, Any], *buffers: bytes) -> list[dict[str, Any]]:
        """Say something to Python and return the answers."""
        self.heard.clear()
        self.app._on_message(message, [memoryview(b) for b in buffers])
        return list(self.heard)


@pytest.fixture
def page(monkeypatch: pytest.MonkeyPatch) -> Page:
    return Page(App(), monkeypatch)


def test_a_page_that_says_hello_is_told_where_it_is(page: Page) -> None:
    (plan,) = page.says(HELLO)

    assert plan["t"] == "plan"
    assert plan["at"] == [11, 0]
    assert plan["question"]
    assert set(plan["first"]["frames"]) == {"11:0"}


def test_a_piece_is_sent_once(page: Page) -> None:
    (plan,) = page.says(HELLO)
    (answer,) = page.says({"t": "want", "rev": plan["rev"], "stops": [[10, 3]]})
    again = page.says({"t": "want", "rev": plan["rev"], "stops": [[10, 3]]})

    assert set(answer["pieces"]).isdisjoint(plan["first"]["pieces"])
    assert again[0]["pieces"] == {}
    assert again[0]["frames"] == answer["frames"]


def test_the_slots_come_while_their_tab_is_open(page: Page) -> None:
    (plan,) = page.says(HELLO)
    asks = {"t": "want", "rev": plan["rev"], "stops": [[10, 3]]}
    assert "table" not in page.says(asks)[0]["frames"]["10:3"]["p"]

    page.says({"t": "tab", "name": "table"})
    (answer,) = page.says(asks)

    frame = answer["frames"]["10:3"]
    assert "slot 10" in answer["pieces"][frame["p"]["table"]]
    page.says({"t": "tab", "name": "guards"})
    assert "table" not in page.says(asks)[0]["frames"]["10:3"]["p"]


def test_several_stops_come_one_by_one_and_all_of_them(page: Page) -> None:
    (plan,) = page.says(HELLO)
    wanted = [[op, 10**6] for op in (10, 9, 8, 7)]

    answers = page.says({"t": "want", "rev": plan["rev"], "stops": wanted, "ahead": True})

    assert [len(answer["frames"]) for answer in answers] == [1, 1, 1, 1]
    assert [next(iter(answer["frames"])).split(":")[0] for answer in answers] == ["10", "9", "8", "7"]


def test_a_state_that_is_gone_is_not_sent(page: Page) -> None:
    (plan,) = page.says(HELLO)
    page.says({"t": "answer", "n": 3})

    assert page.says({"t": "want", "rev": plan["rev"], "stops": [[10, 0]]}) == []


def test_an_upload_arrives_in_pieces_and_a_gap_is_refused(page: Page) -> None:
    page.says(HELLO)
    line = (
        b"ioctl(5, KVM_SET_USER_MEMORY_REGION, {slot=0, flags=0, guest_phys_addr=0, memory_size=0x100000,"
        b" userspace_addr=0x7f0000000000}) = 0\n"
    )
    first, second = line[:40], line[40:]
    upload = {"t": "upload", "name": "two.log", "size": len(line)}

    assert page.says({**upload, "at": 0}, first) == [{"t": "taken", "at": 40}]
    read, plan = page.says({**upload, "at": 40}, second)
    assert read == {"t": "read"}
    assert plan["ops"] == 1

    page.says({**upload, "at": 0}, first)
    read, refused = page.says({**upload, "at": 60}, second)
    assert read == {"t": "read"}
    assert refused["notice"]["kind"] == "error"
    assert page.app.state.run.outcomes[0].errno is None


def test_a_failure_of_our_own_is_a_sentence_and_changes_nothing(page: Page, monkeypatch: pytest.MonkeyPatch) -> None:
    page.says(HELLO)
    before = page.app.state
    monkeypatch.setattr(dashboard._log, "exception", lambda *_: None)

    def broken(_state: object) -> None:
        raise ZeroDivisionError

    page.heard.clear()
    page.app.dispatch(broken)

    assert page.app.state.run == before.run
    assert page.heard[-1]["notice"]["text"].startswith("The explorer itself failed here")


def test_every_frame_of_every_stop_is_plain_json() -> None:
    builder = FrameBuilder()
    builder.open_tab("table")
    state = actions.apply_composed(actions.set_tracker(initial_state(), "kvmgt"))
    builder.use(state)

    for op in range(-1, len(state.run)):
        cells = len(state.run.detail(op).cells) if op >= 0 else 1
        message = builder.message([Stop(op, cell) for cell in range(cells)])
        assert json.loads(json.dumps(message))["rev"] == state.revision
        for text in message["pieces"].values():
            json.loads(text)


def test_what_a_refusal_cost_is_opened_with_it_in_the_place_of_the_hand_off(page: Page) -> None:
    page.says(HELLO)
    page.says({"t": "key", "key": "k"})

    heard = page.says({"t": "apply"})
    assert heard[-1] == {"t": "tab", "name": "guards", "from": "handoff"}

    page.app.dispatch(machines.set_profile, "v6_1")
    accepted = page.says({"t": "apply", "fields": ["10", "0xd0002000", "0x20000", "0x100000000000", "0"]})
    assert page.app.state.run.outcomes[-1].errno is None
    assert not [message for message in accepted if message["t"] == "tab"]


def test_what_is_typed_into_the_go_to_box_is_answered_and_pasted_places_lead_there(page: Page) -> None:
    page.says(HELLO)
    before = page.app.state

    (found,) = page.says({"t": "find", "text": "gap>=16M <4G"})
    assert found["text"].startswith("16 MiB fit at 0xc0000000")
    assert not found["error"]
    assert page.app.state is before

    page.says({"t": "upload", "name": "pasted text", "size": 10, "at": 0}, b"0xd0003000")
    assert page.app.state.view.page == 0xD0003


def look(page: Page) -> str:
    """Return what the card of the story in the rail asks to look for."""
    frame = page.app._builder.frame(page.app.state.stop)
    return str(page.app._builder._pieces[frame.panels["rail"]])


def test_what_a_story_asks_to_look_for_goes_with_its_operation(page: Page) -> None:
    page.says(HELLO)
    page.app.dispatch(telling.answer, 3)
    assert "Beat 1 of 9" in look(page)
    assert "beat-look" not in look(page)

    page.app.dispatch(telling.tell, "before-the-patch")
    assert "Press Enter. Look at the tracker" in look(page)
    page.app.dispatch(actions.apply_composed)
    assert "Press Enter" not in look(page)
    assert "Look at the tracker’s pages" in look(page)

    page.app.dispatch(telling.tell, "inside-the-move")
    assert "Go step by step" in look(page), "it opens inside its operation"


def test_a_task_stays_until_its_operation_is_done(page: Page) -> None:
    page.says(HELLO)
    page.app.dispatch(telling.tell, "your-turn")
    page.app.dispatch(actions.set_tracker, "none")
    assert "make it miss the composed write" in look(page)

    page.app.dispatch(actions.choose, "guest_write")
    page.app.dispatch(actions.edit, "gpa", "0xd0003000")
    page.app.dispatch(actions.apply_composed)
    assert "beat-look" not in look(page)


def test_what_was_set_aside_is_on_the_timeline_and_leads_back(page: Page) -> None:
    page.says(HELLO)
    page.app.dispatch(telling.answer, 3)
    page.app.dispatch(actions.step_to, Stop(10, 0))
    page.app.dispatch(actions.set_tracker, "kvmgt")

    frame = page.app._builder.frame(page.app.state.stop)
    line = str(page.app._builder._pieces[frame.panels["timeline"]])
    assert "set aside: Page tables" in line
    assert '"data-earlier"' in line

    page.says({"t": "earlier"})
    assert page.app.state.tracker == "none"
    assert len(page.app.state.run) == 13


def test_a_create_that_was_refused_at_once_has_nothing_to_hand_over() -> None:
    state = actions.choose(initial_state(), "create")
    first = actions.apply_composed(state)
    slot = first.run.end.slot(11)
    assert slot is not None
    again = actions.choose(first, "create")
    for name, text in (("slot", "12"), ("base", hex(slot.base_gfn << 12)), ("size", "0x20000")):
        again = actions.edit(again, name, text)
    refused = actions.apply_composed(again)
    assert refused.run.outcomes[-1].refused_by == "overlap"

    builder = FrameBuilder()
    builder.use(refused)
    message = builder.message([refused.run.last_stop])
    (frame,) = message["frames"].values()

    assert "Refused before a slot was made: nothing changes hands." in message["pieces"][frame["p"]["fields"]]
    assert "arrays" not in frame["p"]
