"""What is the same at the next stop stays on the page; what is drawn is what a page drawn from nothing shows."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from test_timeline import moved_before_the_patch

if TYPE_CHECKING:
    from screen import Screen

pytestmark = pytest.mark.browser

RENEWED = (".mx-time-body", ".mx-strip", ".mx-fields-panel", ".mx-ledger")
WORDS = ".mx-map-figure .mx-words"


def drawn(screen: Screen) -> dict[str, str]:
    """Return the document of each part that is renewed, and the words of the map in any order, once marks are laid."""
    screen.page.wait_for_selector(".tl-node.is-broken", state="attached")
    read = {part: screen.page.locator(part).first.inner_html() for part in RENEWED}
    words = screen.page.eval_on_selector_all(f"{WORDS} text", "nodes => nodes.map(node => node.outerHTML)")
    return read | {WORDS: "\n".join(sorted(words))}


def test_after_any_walk_the_page_shows_what_one_drawn_from_nothing_shows(screen: Screen) -> None:
    moved_before_the_patch(screen)
    for keys, stop in (
        (["Shift+ArrowLeft"] * 4, (16, 5)),
        (["ArrowLeft"] * 3, (13, 0)),
        (["Home", "ArrowRight", "ArrowRight"], (1, 5)),
        (["End", "ArrowLeft"] + ["Shift+ArrowRight"] * 3, (16, 2)),
    ):
        screen.press(*keys).until_at(*stop)
        walked = drawn(screen)
        screen.page.reload()
        screen.until_at(*stop)
        assert drawn(screen) == walked, stop


def test_a_step_leaves_the_rest_of_the_line_in_its_place(screen: Screen) -> None:
    moved_before_the_patch(screen)
    screen.press("ArrowLeft").until_at(15, 0)
    screen.page.evaluate("document.querySelectorAll('.tl-node').forEach(node => (node.seenBefore = true))")

    screen.press("ArrowLeft").until_at(14, 0)

    new = screen.page.eval_on_selector_all(
        ".tl-node", "nodes => nodes.filter(node => !node.seenBefore).map(node => Number(node.dataset.op))"
    )
    assert new == [], "where the cursor is, and where it was, are changed and not made anew"


def test_the_focus_goes_on_with_the_stop_through_what_is_renewed(screen: Screen) -> None:
    moved_before_the_patch(screen)
    screen.page.locator(".tl-cell.is-now").focus()

    for cell in (8, 7, 6):
        screen.press("Shift+ArrowLeft").until_at(16, cell)
        assert screen.page.evaluate("document.activeElement.matches('.tl-cell.is-now')")

    screen.page.locator(".tl-node[data-op='14']").focus()
    screen.press("Shift+ArrowLeft").until_at(16, 5)
    assert screen.page.evaluate("document.activeElement.dataset.op") == "14", "it stays on what it points at"


STEP_BACK = """
async () => {
  const root = document.querySelector(".mx");
  await new Promise((painted) => requestAnimationFrame(() => setTimeout(painted)));
  let frames = 0;
  requestAnimationFrame(() => (frames += 1));
  document.body.dispatchEvent(new KeyboardEvent("keydown", { key: "ArrowLeft", shiftKey: true, bubbles: true }));
  await null; // what the key set going in the page itself, and nothing that takes a frame or an answer
  return [Number(root.dataset.cell), frames];
}
"""


def test_a_stop_that_is_there_is_drawn_before_the_next_frame_begins(screen: Screen) -> None:
    moved_before_the_patch(screen)
    screen.press("Shift+ArrowLeft").until_at(16, 8)
    screen.press("Shift+ArrowRight").until_at(16, 9)
    screen.page.wait_for_selector(".mx[data-pen=plotly]")  # nothing else is drawn from here on

    assert screen.page.evaluate(STEP_BACK) == [8, 0]
