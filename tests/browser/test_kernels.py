"""The Kernels tab in a browser: what a KVM developer asks of it, in the number of actions that are allowed.

Each test counts its actions: one key or one click is one. The start is the opened explorer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from explorer.engine.profile import PROFILES

if TYPE_CHECKING:
    from collections.abc import Callable

    from screen import Screen

pytestmark = [pytest.mark.browser, pytest.mark.xdist_group("browser")]

REFUSED = "\N{MINUS SIGN}EINVAL"
SIZES = [(1920, 1080), (1366, 768)]
CLIPPED = """() => [...document.querySelectorAll('.mx-panel-kernels :is(th, td, .cell, small, h2, p, button, b)')]
    .filter(e => getComputedStyle(e).overflowX !== 'visible' && e.scrollWidth > e.clientWidth + 1 && e.clientWidth > 1)
    .map(e => e.innerText)"""
OVERLAPS = """() => {
    const boxes = [...document.querySelectorAll('.mx-panel-kernels .cell')].map(e => [e, e.getBoundingClientRect()]);
    return boxes.filter(([a, p]) => boxes.some(([b, q]) => a !== b && p.left < q.right - 1 && q.left < p.right - 1
        && p.top < q.bottom - 1 && q.top < p.bottom - 1)).map(([a]) => a.innerText) }"""


def open_tab(screen: Screen) -> Screen:
    """Press the tab's key and wait until everything of the state that is shown was replayed."""
    screen.press("4")
    screen.page.wait_for_function(
        "() => { const m = document.querySelector('.mx'); return m.dataset.tab === 'kernels'"
        " && m.dataset.state === 'ready' && m.dataset.kernels === m.dataset.rev }"
    )
    return screen


def row(screen: Screen, kernel: str) -> list[str]:
    """Return what the cells of a kernel say in the matrix."""
    return screen.texts(f".matrix tbody tr:has(th b:text-is('{kernel}')) td")


def test_the_table_of_the_inverted_test_is_read_without_a_further_action(screen: Screen) -> None:
    open_tab(screen)  # 1

    assert row(screen, "6.6 as merged") == [
        "0 moved gen +4, zap all",
        "cannot be \N{MINUS SIGN}ENODEV",
        "0 moved gen +4, zap all",
        f"{REFUSED} gen +4, zap all",
    ]
    assert row(screen, "6.6 as posted") == [
        "0 moved gen +4, zap all",
        "cannot be \N{MINUS SIGN}ENODEV",
        f"{REFUSED} ≠ intended",
        "0 moved ≠ intended",
    ]
    assert "As posted, 2 of 3 answers are not the intended ones" in screen.text(".finding")


def test_question_10_did_this_predicate_change_mean_what_i_think(screen: Screen) -> None:
    open_tab(screen)  # 1

    screen.press("i").until_read(".mx-preflight", f"Refused with {REFUSED}")  # 2

    screen.until_read(".tests .is-chosen", "as posted")
    assert "and so does the composed one on 6.6 as posted" in screen.text(".mx-bars")
    screen.page.locator(".tests .test", has_text="as merged").click()
    screen.until_read(".tests .is-chosen", "as merged").until_read(".mx-preflight", "Accepted")


def test_question_11_which_kernels_behave_differently_for_this_sequence(screen: Screen) -> None:
    open_tab(screen)  # 1

    ends = dict(zip(screen.texts(".eras tbody th"), screen.texts(".eras tbody .end"), strict=True))
    assert len(ends) == len(PROFILES)
    assert {name for name, end in ends.items() if "differ" in end} == {"6.6 as posted"}


def test_question_12_the_first_step_at_which_two_kernels_diverge(screen: Screen) -> None:
    screen.tell("The posted check was inverted")
    screen.press("Enter").until_at(12, 7)
    screen.press("Home").until_at(-1, 0)

    open_tab(screen)  # 1
    screen.until_read(".first-difference", "First difference: operation 13")
    screen.press("j").until_at(12, 7)  # 2

    screen.until_read(".eras thead .parts.is-now", "MOVE")


def test_question_13_whose_script_breaks_if_i_forbid_this(screen: Screen) -> None:
    screen.tell("What happens to the watches")

    open_tab(screen)  # 1
    screen.page.get_by_role("button", name="5.10: compare its results").click()  # 2
    screen.page.get_by_role("button", name="6.12: compare its results").click()  # 3

    screen.until_read(".changes", "From 5.10 to 6.12: 1 result changes")
    assert f"17 MOVE: 0 moved → {REFUSED}" in screen.text(".changes")


def test_a_cell_is_reached_and_opened_by_the_keyboard_alone(screen: Screen) -> None:
    open_tab(screen)
    for _ in range(60):
        screen.press("Tab")
        if screen.page.evaluate("() => document.activeElement.matches('.matrix td button')"):
            break
    assert "where the page is" in (screen.page.evaluate("() => document.activeElement.getAttribute('aria-label')"))
    outline = screen.page.evaluate("() => getComputedStyle(document.activeElement).outlineWidth")
    assert outline == "3px"

    screen.press("ArrowRight")
    revision = screen.revision
    screen.press("Enter").until_drawn_anew(revision)

    assert screen.at == (13, 7)
    assert "MOVE refused and it was not free" in screen.rail
    assert "KVMGT attaches before the call" in screen.text(".mx-bars")
    screen.page.wait_for_function("() => document.activeElement.matches('.matrix .is-here')")


def test_a_step_in_the_ribbon_goes_to_another_kernel_and_its_operation(screen: Screen) -> None:
    screen.tell("What happens to the watches")
    open_tab(screen)

    screen.page.locator("[data-era='v6_12:16']").click()

    screen.until_at(16, 7)
    assert screen.page.locator(".mx-chip-kernel select").input_value() == "6.12"
    screen.until_read(".eras tr.is-here", "6.12")


def test_the_address_opens_the_tab(screens: Callable[..., Screen], screen: Screen) -> None:
    open_tab(screen)
    assert "tab=kernels" in screen.page.url

    other = screens(screen.page.url)

    other.until_read(".kernels-matrix", "6.6 as posted")


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("size", SIZES, ids=["1920", "1366"])
def test_nothing_is_clipped_and_nothing_lies_on_something_else(
    screens: Callable[..., Screen], address: str, size: tuple[int, int], theme: str
) -> None:
    screen = screens(address, size=size, color_scheme=theme)
    for story in ("First look", "What happens to the watches", "Zapping all became optional"):
        if story != "First look":
            screen.tell(story)
        open_tab(screen)
        assert screen.page.evaluate(CLIPPED) == []
        assert screen.page.evaluate(OVERLAPS) == []
        panel = screen.page.locator(".mx-panel-kernels")
        high, room = panel.evaluate("e => [e.scrollHeight, e.clientHeight]")
        assert high <= room, f"{story}: {high - room} pixels more than there is room"


def test_stepping_asks_for_no_kernel_while_the_tab_is_closed(screen: Screen) -> None:
    open_tab(screen)
    screen.press("1").until_read(".mx-tab[aria-selected=true]", "Hand-off")
    before = screen.page.inner_html(".mx-panel-kernels")

    revision = screen.revision
    screen.press("v").until_drawn_anew(revision)
    screen.press("Home").until_at(-1, 0)

    assert screen.page.inner_html(".mx-panel-kernels") == before
