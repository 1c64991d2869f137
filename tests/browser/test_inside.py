"""The tabs KVMGT and Compare in a browser."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from screen import Screen

pytestmark = pytest.mark.browser

STORY = "KVMGT from inside"
LAST = 24
"""Number, from 0, of the story's composed write."""
SIZES = [(1920, 1080), (1366, 768)]
PARTS = ".mx-panel-{} :is(h2, h3, small, th, td, b, span, code, button, p, .gpu-entry, .gpu-host, .link-box, .room)"
CLIPPED = """selector => [...document.querySelectorAll(selector)]
    .filter(e => !e.matches('.sr') && getComputedStyle(e).overflowX !== 'visible' && e.clientWidth > 1
        && e.scrollWidth > e.clientWidth + 1)
    .map(e => e.innerText)"""
OVERLAPS = """selector => {
    const boxes = [...document.querySelectorAll(selector)].map(e => [e, e.getBoundingClientRect()]);
    return boxes.filter(([a, p]) => boxes.some(([b, q]) => a !== b && p.left < q.right - 1 && q.left < p.right - 1
        && p.top < q.bottom - 1 && q.top < p.bottom - 1)).map(([a]) => a.innerText) }"""


def open_tab(screen: Screen, name: str) -> Screen:
    """Press a tab's key and wait until it is drawn for what the page shows."""
    screen.press({"kvmgt": "5", "compare": "6"}[name])
    return until_drawn(screen, name)


def until_drawn(screen: Screen, name: str) -> Screen:
    screen.page.wait_for_function(
        "name => { const m = document.querySelector('.mx'); const d = m.dataset; return d.state === 'ready'"
        " && d.late === `${name} ${d.rev} ${d.op}:${d.cell}` }",
        arg=name,
    )
    return screen


def told(screen: Screen) -> Screen:
    """Tell the story to its end: the guest's last write is applied."""
    screen.tell(STORY)
    return screen.press("Enter").until_at(LAST, 0)


def test_after_an_accepted_move_the_tab_says_which_entries_are_wrong(screen: Screen) -> None:
    told(screen)
    open_tab(screen, "kvmgt")

    assert "3 of 6 entries wrong" in screen.text(".kvmgt .late-head")
    assert screen.texts(".gpu-entry.is-wrong > span:first-child") == [
        "stale: wrong page",
        "stale: page was given up",
        "missing: scratch page",
    ]
    assert screen.page.locator(".gpu-lines.is-shadow .is-wrong").count() == 3
    dashes = screen.page.locator(".gpu-lines .is-wrong path").first.evaluate("e => getComputedStyle(e).strokeDasharray")
    assert dashes != "none"
    assert "1 guest write to the table seen, 6 missed" in screen.text(".chains h3")


def test_each_step_of_the_story_is_followed(screen: Screen) -> None:
    screen.tell(STORY)
    open_tab(screen, "kvmgt").until_read(".late-head", "2 of 5 entries wrong")

    screen.press("ArrowLeft")
    until_drawn(screen.until_at(22, 0), "kvmgt").until_read(".late-head", "2 of 5 entries wrong")
    screen.page.locator(".wrote.is-seen").first.click()
    until_drawn(screen.until_at(17, 0), "kvmgt").until_read(".late-head", "The GPU uses what the guest means")
    assert screen.page.locator(".gpu-entry.is-wrong").count() == 0


def test_an_empty_tab_is_filled_by_the_key_it_names(screen: Screen) -> None:
    open_tab(screen, "kvmgt").until_read(".kvmgt", "Press K to attach KVMGT")

    screen.press("k")

    screen.until_read(".kvmgt", "KVMGT is attached and shadows no page table")


def test_where_the_move_is_refused_no_entry_is_wrong_and_where_it_is_not_they_are(screen: Screen) -> None:
    told(screen)
    open_tab(screen, "kvmgt").until_read(".late-head", "3 of 6 entries wrong")

    screen.choose("chip-kernel", "6.12")
    until_drawn(screen, "kvmgt").until_read(".late-head", "The GPU uses what the guest means")
    screen.choose("chip-kernel", "6.6 without the test")
    until_drawn(screen, "kvmgt").until_read(".late-head", "3 of 6 entries wrong")
    assert "its protect table still has 0xd0010" in screen.text(".kvmgt .finding")


def test_a_missed_write_is_reached_by_the_keyboard_alone(screen: Screen) -> None:
    told(screen)
    open_tab(screen, "kvmgt")
    for _ in range(60):
        screen.press("Tab")
        if screen.page.evaluate("() => document.activeElement.matches('.wrote')"):
            break
    label = screen.page.evaluate("() => document.activeElement.getAttribute('aria-label')")
    assert label == "entry 0: the guest’s last write, operation 20, missed"
    assert screen.page.evaluate("() => getComputedStyle(document.activeElement).outlineWidth") == "3px"

    screen.press("Enter").until_at(19, 0)


@pytest.mark.parametrize("name", ["kvmgt", "compare"])
def test_the_address_opens_the_tab(screens: Callable[..., Screen], screen: Screen, name: str) -> None:
    told(screen)
    open_tab(screen, name)
    assert f"tab={name}" in screen.page.url

    other = screens(screen.page.url)

    until_drawn(other, name)
    assert screen.text(f".mx-panel-{name}") == other.text(f".mx-panel-{name}")


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("size", SIZES, ids=["1920", "1366"])
def test_nothing_is_clipped_and_nothing_lies_on_something_else(
    screens: Callable[..., Screen], address: str, size: tuple[int, int], theme: str
) -> None:
    screen = screens(address, size=size, color_scheme=theme)
    told(screen)
    for name in ("kvmgt", "compare"):
        open_tab(screen, name)
        assert screen.page.evaluate(CLIPPED, PARTS.format(name)) == []
        for boxes in (".gpu-entry", ".gpu-host", ".link-box", ".routes td", ".late-head > *"):
            assert screen.page.evaluate(OVERLAPS, f".mx-panel-{name} {boxes}") == []
        high, room = screen.page.locator(f".mx-panel-{name}").evaluate("e => [e.scrollHeight, e.clientHeight]")
        assert high <= room, f"{name}: {high - room} pixels more than there is room"


def test_stepping_draws_neither_tab_while_they_are_closed(screen: Screen) -> None:
    open_tab(screen, "kvmgt")
    screen.press("1").until_read(".mx-tab[aria-selected=true]", "Hand-off")
    before = screen.page.inner_html(".mx-panel-kvmgt")

    revision = screen.revision
    screen.press("k").until_drawn_anew(revision)
    screen.press("Home").until_at(-1, 0)

    assert screen.page.inner_html(".mx-panel-kvmgt") == before
