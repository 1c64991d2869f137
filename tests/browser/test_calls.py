"""The tab Calls in a browser: the model's calls beside the recorded ones, by step, and folds that open."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from states import moved_with_a_tracker, until_tab_drawn

if TYPE_CHECKING:
    from screen import Screen

pytestmark = pytest.mark.browser

IN_SIGHT = """() => { const list = document.querySelector('.call-lines').getBoundingClientRect();
    const line = document.querySelector('.call-lines li.is-now').getBoundingClientRect();
    return line.top >= list.top - 1 && line.bottom <= list.bottom + 1 }"""


def open_calls(screen: Screen) -> Screen:
    moved_with_a_tracker(screen)
    return until_tab_drawn(screen.press("8"), "calls")


def test_key_8_shows_the_calls_of_an_accepted_move_beside_the_recorded_ones(screen: Screen) -> None:
    open_calls(screen)

    assert "in this order in what 6.1 recorded" in screen.text(".calls .finding")
    assert screen.text(".calls .late-head .chip") == "recorded on 6.1, npt0"
    assert "tab=calls" in screen.page.url
    ours = screen.texts(".call.is-both .call-ours .code")
    assert ours == screen.texts(".call.is-both .call-theirs code")
    assert len(ours) > 20


def test_the_step_of_the_page_is_in_sight_and_what_was_unfolded_stays_open(screen: Screen) -> None:
    open_calls(screen)
    fold = screen.page.locator(".call-run details").first
    fold.locator("summary").press("Enter")
    assert fold.evaluate("e => e.open")
    focused = "() => document.activeElement.innerText"
    held = screen.page.evaluate(focused)

    for cell in range(8, -1, -1):
        until_tab_drawn(screen.press("Shift+ArrowLeft").until_at(16, cell), "calls")
        assert screen.page.evaluate(IN_SIGHT), f"step {cell + 1}"

    assert screen.page.evaluate(focused) == held, "the keyboard stays where it was"
    assert screen.text(".call-step b").startswith("▸ check")
    assert screen.page.locator(".call-run details").first.evaluate("e => e.open")


def test_a_kernel_that_was_not_recorded_shows_the_model_alone(screen: Screen) -> None:
    open_calls(screen)

    screen.choose("chip-kernel", "6.6")
    until_tab_drawn(screen, "calls")

    assert screen.text(".calls .chip") == "not recorded"
    assert "No function graph was recorded on 6.6" in screen.text(".calls-missing")
    assert screen.page.locator(".call-mark, .call-theirs").count() == 0
