"""The Kernels tab in a browser; what a KVM developer asks of it is in `test_questions_of_kernels`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from screen import Screen

pytestmark = pytest.mark.browser

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
    open_tab(screen)

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


@pytest.mark.parametrize(("size", "theme"), zip(SIZES, ("light", "dark"), strict=True), ids=["1920", "1366"])
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
