"""The tabs KVMGT, Compare, Calls and Over time: nothing while they are closed, and for the stop the page is at."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from explorer.app.dashboard import App
from explorer.app.imports import read_log
from explorer.app.late_tabs import LATE_TABS, OVER_TIME, LateTab, choose_space, choose_table
from explorer.app.logs import show_log
from explorer.app.state import initial_state, load
from explorer.engine.types import ExplorerError
from explorer.figures.dom import to_text

HELLO = {"t": "hello", "link": {}, "width": 1920, "map": 1160, "theme": "light"}


class Page:
    """What a page would have received."""

    def __init__(self, app: App, monkeypatch: pytest.MonkeyPatch) -> None:
        self.app = app
        self.heard: list[dict[str, Any]] = []
        monkeypatch.setattr(app.stage, "send", lambda content, buffers=None: self.heard.append(content))  # noqa: ARG005

    def says(self, **message: Any) -> list[dict[str, Any]]:
        """Say something to Python and return what it answers about a late tab."""
        self.heard.clear()
        self.app._on_message(message, [])
        return [heard for heard in self.heard if heard["t"] == "late"]


@pytest.fixture
def page(monkeypatch: pytest.MonkeyPatch) -> Page:
    page = Page(App("kvmgt-from-inside"), monkeypatch)
    page.says(**HELLO)
    return page


def test_nothing_is_drawn_while_the_tabs_are_closed(page: Page) -> None:
    assert page.says(t="at", op=18, cell=0) == []
    assert page.says(t="tab", name="guards") == []
    assert page.says(t="apply") == []


def test_an_open_tab_follows_the_page_and_sends_a_panel_only_if_it_changed(page: Page) -> None:
    (opened,) = page.says(t="tab", name="kvmgt")
    assert "2 of 5 entries wrong" in to_text(opened["panel"])

    (applied,) = page.says(t="apply")
    assert "3 of 6 entries wrong" in to_text(applied["panel"])
    assert applied["at"] == [24, 0]

    (back,) = page.says(t="at", op=2, cell=0)
    (further_back,) = page.says(t="at", op=1, cell=0)
    assert "No KVMGT is attached" in to_text(back["panel"])
    assert "panel" not in further_back, "it says the same"


def test_the_last_tab_asked_for_is_the_one_that_is_drawn(page: Page) -> None:
    page.says(t="tab", name="kvmgt")

    (heard,) = page.says(t="tab", name="compare")

    assert heard["tab"] == "compare"
    assert "The same layout in the end" in to_text(heard["panel"])
    assert page.says(t="tab", name="handoff") == []
    assert page.says(t="at", op=18, cell=0) == []


def test_the_calls_follow_the_step_and_the_kernel_of_the_page(monkeypatch: pytest.MonkeyPatch) -> None:
    page = Page(App("rejected-is-not-free"), monkeypatch)
    page.says(**HELLO)
    page.says(t="apply")

    (opened,) = page.says(t="tab", name="calls")
    (stepped,) = page.says(t="at", op=16, cell=2)

    assert "recorded on 6.12, npt0" in to_text(opened["panel"])
    assert "step 3 of 8: stage" in to_text(stepped["panel"])
    assert "▸ stage, now" in to_text(stepped["panel"])


def test_opening_a_tab_puts_the_question_aside(monkeypatch: pytest.MonkeyPatch) -> None:
    page = Page(App(), monkeypatch)
    page.says(**HELLO)

    (heard,) = page.says(t="tab", name="compare")

    assert not page.app.state.question
    assert "composed, not applied yet" in to_text(heard["panel"])


def test_a_page_that_is_loaded_anew_gets_the_panel_again(page: Page) -> None:
    page.says(t="tab", name="kvmgt")

    assert page.says(**HELLO, again=True) == []
    assert "panel" in page.says(t="tab", name="kvmgt")[0]


def test_another_table_is_looked_at_and_nonsense_is_a_sentence(page: Page) -> None:
    page.says(t="tab", name="kvmgt")
    page.says(t="gpu", key=f"0:{0xD0010}")
    assert page.app.state.view.gpu_table == (0, 0xD0010)

    page.says(t="gpu", key="nonsense")
    assert page.app.state.notice is not None
    assert "no table of the GPU" in page.app.state.notice.text

    for bad in ("", ":", "0:", "-1:5", "0:0x10", "²:1"):
        with pytest.raises(ExplorerError, match="expected a tracker and a page"):
            choose_table(initial_state(), bad)


def test_a_failure_in_a_tab_is_a_sentence(page: Page, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_tab: LateTab, _state: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(LateTab, "message", broken)
    monkeypatch.setattr("explorer.app.dashboard._log.exception", lambda *_: None)

    page.says(t="tab", name="kvmgt")

    assert page.heard[-1]["notice"]["text"].startswith("The explorer itself failed here")


def test_the_story_s_tabs_can_be_drawn_at_every_stop() -> None:
    state = load("kvmgt-from-inside", view=initial_state().view)
    for name in LATE_TABS:
        tab = LateTab()
        tab.open(name)
        for op in range(len(state.run)):
            assert tab.message(state)["tab"] == name
            state = replace(state, stop=state.run.end_of(op))


def test_slots_over_time_wait_for_the_room_there_is_and_then_come_once(page: Page) -> None:
    (opened,) = page.says(t="tab", name=OVER_TIME)
    assert "Slots over time" in to_text(opened["panel"])
    assert "chart" not in opened, "the page does not know yet how large it can be"

    (drawn,) = page.says(t="room", width=1000, height=500)
    assert (drawn["chart"]["layout"]["width"], drawn["chart"]["layout"]["height"]) == (1000, 500)
    assert "created by operation 1" in to_text(drawn["words"])
    assert "panel" not in drawn, "the head is there"

    (stepped,) = page.says(t="at", op=2, cell=0)
    assert to_text(stepped["panel"]).splitlines()[-1].startswith("3 ")
    assert not {"chart", "words"} & stepped.keys(), "a step moves the cursor, which is the page's"
    (wider,) = page.says(t="room", width=1200, height=500)
    assert wider["chart"]["layout"]["width"] == 1200


def test_a_new_operation_and_another_theme_draw_the_chart_anew(page: Page) -> None:
    page.says(t="tab", name=OVER_TIME)
    page.says(t="room", width=1000, height=500)

    assert "chart" in page.says(t="apply")[0]
    assert "chart" in page.says(t="size", width=1920, map=1160, theme="dark")[0]


def test_room_that_nobody_has_is_taken_for_the_nearest_that_somebody_has(page: Page) -> None:
    page.says(t="tab", name=OVER_TIME)

    (drawn,) = page.says(t="room", width=-5, height=1e9)

    assert (drawn["chart"]["layout"]["width"], drawn["chart"]["layout"]["height"]) == (240, 4000)
    page.says(t="tab", name="guards")
    assert page.says(t="room", width=1000, height=500) == [], "the tab is closed"


def test_the_address_space_shown_over_time_can_be_chosen(page: Page) -> None:
    page.says(t="tab", name=OVER_TIME)

    page.says(t="space", key="0")
    assert page.app.state.view.space == 0

    for bad in ("", "9", "-1", "x", "²"):
        page.says(t="space", key=bad)
        assert page.app.state.notice is not None
        assert "is no address space of this VM" in page.app.state.notice.text
        with pytest.raises(ExplorerError, match="expected a number below"):
            choose_space(initial_state(), bad)


def test_the_results_of_a_log_are_counted_where_the_log_is_shown_and_nowhere_else() -> None:
    log = (Path(__file__).parents[2] / "assets/traces/own-fails/strace.log.gz").read_bytes()
    shown = show_log(initial_state(), *read_log(log, name="a log", limit_bytes=1 << 20))
    tab = LateTab()
    tab.open(OVER_TIME)

    text = to_text(tab.message(shown)["panel"])
    assert "29 of 29 replayed as on 6.18" in text
    assert "21" in text.splitlines()[-2]
    assert "nothing was recorded" in to_text(tab.message(load("first-look", view=shown.view))["panel"])
