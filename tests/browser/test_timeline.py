"""The timeline by keys alone: violations, play that stops at them, notes, and undoing a look."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from test_keyboard import choose_by_keyboard

if TYPE_CHECKING:
    from screen import Screen

pytestmark = pytest.mark.browser


def moved_before_the_patch(screen: Screen) -> Screen:
    """MOVE the slot that KVMGT watches, on 6.1: its table and its flags disagree (kernel-reference 6.5)."""
    choose_by_keyboard(screen, "story", "Before")
    screen.press("Enter").until_at(16, 9)
    screen.page.wait_for_selector(".tl-node.is-broken", state="attached")
    return screen


def write(screen: Screen, text: str) -> None:
    screen.press("n").until_focus_in(".mx-note")
    screen.page.keyboard.type(text)
    screen.page.keyboard.press("Enter")
    screen.page.wait_for_selector('.mx-sheet[aria-label="Notes"]', state="hidden")


def marked(screen: Screen, mark: str) -> list[str]:
    return screen.page.eval_on_selector_all(f".tl-node:has({mark})", "nodes => nodes.map(node => node.dataset.op)")


def until_marked(screen: Screen, mark: str, times: int) -> None:
    """Wait until so many operations have a mark; marks are laid on the timeline after it is drawn."""
    screen.page.wait_for_function(
        "([mark, times]) => document.querySelectorAll(`.tl-node:has(${mark})`).length === times", arg=[mark, times]
    )


def test_the_operation_that_breaks_an_invariant_is_marked_and_the_rail_says_which(screen: Screen) -> None:
    moved_before_the_patch(screen)

    assert marked(screen, ".tl-violation") == ["16"]
    assert screen.text(".tl-violation") == "violation"
    assert "Broken here: I12" in screen.rail
    assert "Known of 6.1" in screen.rail
    screen.press("Shift+ArrowLeft").until_at(16, 8)
    assert "Broken here" not in screen.rail, "properties of states at rest say nothing inside the call"


def test_a_key_goes_to_the_first_violation(screen: Screen) -> None:
    moved_before_the_patch(screen)
    screen.press("Home").until_at(-1, 0).press("!").until_at(16, 9)

    screen.until_read(".mx-bars", "The first violation on v6_1: operation 17, MOVE of slot 10")


def test_where_the_move_is_refused_nothing_is_broken_and_the_key_says_so(screen: Screen) -> None:
    moved_before_the_patch(screen)
    choose_by_keyboard(screen, "chip-kernel", "6.12")
    screen.until_at(16, 7)

    screen.press("!").until_read(".mx-bars", "No invariant is broken on v6_12")
    assert marked(screen, ".tl-violation") == []
    assert screen.at == (16, 7)


def test_play_has_a_speed_and_stops_at_a_violation_until_told_to_go_on(screen: Screen) -> None:
    assert screen.root.get_attribute("data-playing") == "no"
    moved_before_the_patch(screen)
    screen.press("k").until_at(17, 0).press("ArrowLeft", "ArrowLeft").until_at(15, 0)

    screen.press("]", "]", "]")
    assert screen.root.get_attribute("data-speed") == "4"
    screen.press("Space").until_at(16, 9)

    # On through the detaching, into the MOVE that is composed behind it.
    screen.press("Space").until_at(18, 9)
    screen.press("[", "[", "[", "[", "[", "[")
    assert screen.root.get_attribute("data-speed") == "0.25"


def test_play_ends_at_the_end_and_a_step_beyond_it_stays_there(screen: Screen) -> None:
    screen.press("]", "]", "]", "Space").until_at(12, 9)
    assert screen.root.get_attribute("data-playing") == "no"

    screen.press("Shift+ArrowRight", "ArrowRight", "Shift+ArrowRight").ready()
    assert screen.at == (12, 9)
    screen.press("Shift+ArrowLeft").until_at(12, 8)


def test_play_stops_where_a_check_refuses(screen: Screen) -> None:
    choose_by_keyboard(screen, "story", "Rejected")
    screen.press("Enter").until_at(16, 7).press("ArrowLeft").until_at(15, 0)

    screen.press("]", "]", "Space").until_at(16, 5)

    assert screen.page.locator(".tl-cell.is-refused.is-now").count() == 1


def test_a_note_is_text_bound_to_its_stop_and_comes_back_with_the_address(screen: Screen) -> None:
    moved_before_the_patch(screen)
    text = '<img src=x onerror="boom()"> & so on'
    write(screen, text)
    screen.press("ArrowLeft").until_at(15, 0)
    write(screen, "the guest wrote")

    until_marked(screen, ".tl-note", 2)
    assert marked(screen, ".tl-note") == ["15", "16"]
    screen.until_read(".mx-rail", "the guest wrote")
    assert text not in screen.rail

    screen.page.wait_for_function("() => location.search.includes('m=')")
    screen.page.reload()
    screen.until_at(15, 0)
    until_marked(screen, ".tl-note", 2)
    assert marked(screen, ".tl-note") == ["15", "16"]
    screen.press("n").until_focus_in(".mx-note").press("Tab", "Tab", "Tab", "Tab", "Enter").until_at(16, 9)
    screen.until_read(".mx-rail", text)
    assert screen.page.locator(".mx-told img").count() == 0


def test_a_note_is_changed_and_removed_at_its_stop_and_escape_leaves_it(screen: Screen) -> None:
    screen.press("3").until_at(12, 9)
    write(screen, "one")
    screen.page.wait_for_selector(".tl-note", state="attached")

    screen.press("n").until_focus_in(".mx-note").press("Escape")
    screen.page.wait_for_selector('.mx-sheet[aria-label="Notes"]', state="hidden")
    assert "one" in screen.rail

    screen.press("n").until_focus_in(".mx-note").press("Control+a", "Delete", "Enter")
    screen.page.wait_for_selector(".tl-note", state="detached")


def test_u_takes_back_a_zoom_and_no_operation(screen: Screen) -> None:
    screen.press("3").until_at(12, 9).press("Shift+ArrowLeft").until_at(12, 8)
    before = screen.text(".mx-map-head")
    revision = screen.revision
    screen.press("+").until_drawn_anew(revision)
    assert screen.text(".mx-map-head") != before

    revision = screen.revision
    screen.press("u").until_drawn_anew(revision)
    assert screen.text(".mx-map-head") == before
    assert screen.at == (12, 8)

    screen.press("u").until_read(".mx-bars", "operations are not undone here")


def test_only_what_a_step_changes_is_shown_and_a_step_without_a_change_says_so(screen: Screen) -> None:
    screen.press("3").until_at(12, 9)
    rows = ".fields tbody tr:visible"
    assert screen.page.locator(rows).count() > 5

    screen.press("o")
    screen.page.locator(".mx-unchanged").wait_for()
    assert screen.page.locator(rows).count() == 0

    screen.press("Shift+ArrowLeft").until_at(12, 8)
    screen.page.locator(rows).first.wait_for()
    assert not screen.page.locator(".mx-unchanged").is_visible()
    n = screen.page.locator(rows).count()
    assert f"{n} field{'s' if n > 1 else ''} changed" in screen.text(".mx-tabnote")

    screen.press("o")
    screen.page.wait_for_selector('.mx-only[aria-pressed="false"]')
    assert screen.page.locator(rows).count() > 5


def test_the_list_of_keys_has_them_all(screen: Screen) -> None:
    screen.press("?")

    keys = screen.texts(".mx-help dt")
    assert {"[ ]", "!", "N", "O", "U", "Space"} <= set(keys)
