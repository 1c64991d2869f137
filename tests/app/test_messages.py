"""What the page says, in any order: each message is answered, and both sides agree on what is drawn."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest

from explorer.app.dashboard import App
from explorer.history import Stop
from explorer.scenarios import scenario_names

PAGE = {"width": 1920, "map": 1160, "theme": "light"}
END = 10**6


class Page:
    """The other end of the line: it says what a page says and keeps what it hears."""

    def __init__(self) -> None:
        self.app = App()
        self.heard: list[dict[str, Any]] = []
        self.app.stage.say = lambda message, _buffers=None: self.heard.append(message)  # type: ignore[method-assign]
        self.say(t="hello", link={}, **PAGE)

    def say(self, **message: Any) -> None:
        self.app._on_message(message, [])

    def last(self, kind: str) -> dict[str, Any]:
        return next(message for message in reversed(self.heard) if message["t"] == kind)

    def told(self, key: str) -> Any:
        """Return what the page knows of what surrounds the pictures: it is told only what is new."""
        return next(message[key] for message in reversed(self.heard) if key in message)

    @property
    def revision(self) -> int:
        return int(self.last("plan")["rev"])

    def anything(self, chance: Random) -> dict[str, Any]:
        """Return what a page may say next."""
        stop = {"op": chance.randint(-1, len(self.app.state.run)), "cell": chance.choice([0, 1, 5, END])}
        size = PAGE | {"width": chance.choice([1920, 1366]), "theme": chance.choice(["light", "dark", "hc"])}
        return chance.choice(
            [
                {"t": "key", "key": chance.choice("kviu")},
                {"t": "at", "rev": chance.choice([self.revision, self.revision - 1]), **stop},
                {"t": "why", "key": "", **stop},
                {"t": "beat", "by": chance.choice([1, -1])},
                {"t": "story", "key": chance.choice(scenario_names())},
                {"t": "tab", "name": chance.choice(["handoff", "kernels", "kvmgt", "compare"])},
                {"t": "zoom", "gfn": chance.randint(0, END), "factor": chance.choice([0.5, 2]), "shown": [0, END]},
                {"t": "size", **size},
                {"t": "hello", "again": True, **size},
                {"t": "apply"},
                {"t": "fit"},
                {"t": "first"},
                {"t": "note", "text": "seen", **stop},
                {"t": "earlier"},
            ]
        )


@pytest.mark.parametrize("seed", range(6))
def test_whatever_a_page_says_its_next_step_is_drawn(seed: int) -> None:
    chance, page = Random(seed), Page()  # noqa: S311 - not for secrets
    for _ in range(40):
        message = page.anything(chance)
        page.say(**message)

        state = page.app.state
        said = state.notice.text if state.notice else ""
        assert "itself failed" not in said, message
        assert page.revision == state.revision, message
        assert state.stop == state.run.clamp(state.stop), message
        asked = Stop(chance.randint(-1, len(state.run) - 1), 0)
        page.say(t="want", rev=page.revision, stops=[list(asked)])
        assert f"{asked.op}:{asked.cell}" in page.last("frames")["frames"], message


def test_a_place_in_pictures_that_are_gone_moves_nothing() -> None:
    page = Page()
    page.say(t="story", key="inverted-check")
    opened = page.app.state.stop

    page.say(t="at", rev=page.revision - 1, op=0, cell=0)
    assert page.app.state.stop == opened

    page.say(t="at", rev=page.revision, op=0, cell=0)
    assert page.app.state.stop == Stop(0, 0)


def test_a_place_beyond_the_last_step_is_the_last_step() -> None:
    page = Page()
    page.say(t="at", rev=page.revision, op=12, cell=END)

    assert page.app.state.stop == page.app.state.run.last_stop == Stop(12, 9)


def test_a_message_that_is_none_is_told_and_changes_nothing() -> None:
    page = Page()
    before = page.app.state.run
    for message in ({"t": "at", "rev": 1}, {"t": "zoom", "gfn": "here"}, {"t": "note", "op": "x"}):
        page.say(**message | ({"rev": page.revision} if "rev" in message else {}))

        assert "The explorer itself failed here and changed nothing." in page.told("notice")["text"]
        assert page.app.state.run is before


def test_what_surrounds_the_pictures_is_told_once() -> None:
    page = Page()
    assert {"notice", "preflight", "marks", "formats", "link"} <= set(page.last("plan"))

    page.say(t="at", rev=page.revision, op=3, cell=END)
    page.say(t="at", rev=page.revision, op=3, cell=END - 1)
    assert set(page.last("around")) <= {"t", "link", "marks"}, "the same stop: nothing else can have changed"

    page.say(t="zoom", gfn="here")
    assert page.last("around")["notice"]["text"].startswith("The explorer itself failed here")
    page.say(t="at", rev=page.revision, op=2, cell=0)
    assert "notice" not in page.last("around"), "it stands there already"
    page.say(t="dismiss")
    assert page.last("around")["notice"] is None


def test_a_page_that_comes_back_is_told_everything_again() -> None:
    page = Page()
    page.say(t="zoom", gfn="here")

    page.say(t="hello", again=True, **PAGE)

    assert set(page.last("plan")) >= {
        "notice",
        "preflight",
        "marks",
        "formats",
        "link",
        "device",
        "question",
        "earlier",
    }
    assert page.last("plan")["notice"]["text"].startswith("The explorer itself failed here")


def test_a_picture_that_cannot_be_made_leaves_the_page_where_it_was() -> None:
    page = Page()
    page.say(t="at", rev=page.revision, op=4, cell=0)
    asked_at = page.revision
    page.say(t="want", rev=asked_at, stops=[["none", 0]])

    plan = page.last("plan")
    assert plan["notice"]["text"].startswith("The explorer itself failed here")
    assert plan["rev"] > asked_at, "what the page waits for is forgotten with the revision"
    assert plan["at"] == [4, 0]
    assert set(plan["first"]["frames"]) == {"4:0"}
