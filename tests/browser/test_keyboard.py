"""The two runs the tool exists for, driven by the keyboard alone: a MOVE that is accepted, a MOVE that is refused."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from explorer.engine.profile import PROFILES

if TYPE_CHECKING:
    from collections.abc import Callable

    from screen import Screen

pytestmark = pytest.mark.browser

LOGS = Path(__file__).parents[2] / "assets/traces"


def choose_by_keyboard(screen: Screen, cls: str, beginning: str) -> None:
    """Tab to a drop-down, open it, and go down or up to a choice.

    To type the beginning would be quicker, but a browser on a busy machine takes one word for several.
    """
    for _ in range(60):
        screen.press("Tab")
        if screen.page.evaluate("c => document.activeElement.closest(c) !== null", f".mx-{cls}"):
            break
    here, there = screen.page.evaluate(
        """beginning => {
          const { options, selectedIndex } = document.activeElement;
          const labels = [...options].map(option => option.label.replaceAll("\\u00a0", " "));
          return [selectedIndex, labels.findIndex(label => label.startsWith(beginning))];
        }""",
        beginning,
    )
    assert there >= 0, f"no choice begins with {beginning!r}"
    revision = screen.revision
    arrow = "ArrowDown" if there > here else "ArrowUp"
    screen.press("Space").page.wait_for_selector("select:open", state="attached")
    screen.press(*[arrow] * abs(there - here), "Enter").until_drawn_anew(revision)
    screen.press("Escape")


def test_a_newcomer_predicts_and_is_told_the_truth(screen: Screen) -> None:
    assert "Three pages of this one are watched for writes." in screen.text(".mx-map-head")
    assert "Hidden until you have answered" in screen.text(".mx-preflight")

    screen.press("3").until_at(12, 9)

    assert screen.text(".mx-map-head").startswith("You said so. Gone, and on this setup that is harmless.")
    assert "MOVE allowed" in screen.rail


def test_another_prediction_is_told_the_truth_and_then_what_was_said(screen: Screen) -> None:
    screen.press("1").until_at(12, 9)

    told = screen.text(".mx-map-head")
    assert told.startswith("Gone, and on this setup that is harmless.")
    assert told.endswith("You said: they follow.")


def test_the_opening_says_what_enter_does(screen: Screen) -> None:
    assert screen.text(".question > p") == "Press 1, 2 or 3, or click. Enter makes the move without an answer."

    screen.press("Enter").until_at(12, 9)

    assert "You said" not in screen.text(".mx-map-head")
    assert "MOVE allowed" in screen.rail


def test_an_accepted_move_is_stepped_through_its_phases(screen: Screen) -> None:
    choose_by_keyboard(screen, "story", "What")
    screen.until_at(15, 0).press("Enter").until_at(16, 9)
    screen.press("Home").until_at(-1, 0).press("End").until_at(16, 9)

    screen.press("Shift+ArrowLeft", "Shift+ArrowLeft", "Shift+ArrowLeft", "Shift+ArrowLeft").until_at(16, 5)

    assert "slot 10, INVALID" in screen.map_words
    assert "none: 32 zeros" in screen.map_words
    assert "write_track B owner new, all zero 32 × 0" in " ".join(
        screen.page.locator(".mx-arrays .mx-words text").all_text_contents()
    )
    assert "2 will be lost at step 9" in screen.text(".mx-ledger")

    screen.press("Shift+ArrowRight", "Shift+ArrowRight").until_at(16, 7)
    assert "slot 10" in screen.map_words

    screen.press("Shift+ArrowRight").until_at(16, 8)
    assert "2 lost" in screen.text(".mx-ledger")
    assert "freed" in screen.page.locator(".mx-arrays .mx-words text").all_text_contents()
    lost = [row for row in screen.texts(".mx-rail tr") if "lost" in row]
    assert [row.split()[0] for row in lost] == ["0xd0003", "0xd0010"]


def test_the_window_in_which_readers_see_invalid_is_steps_4_to_7(screen: Screen) -> None:
    screen.press("3").until_at(12, 9)

    assert screen.texts(".mx-strip .band") == ["OLD slot", "INVALID: guest faults retry", "NEW slot"]
    seen = {}
    for cell in range(9, -1, -1):
        screen.until_at(12, cell)
        seen[cell + 1] = "slot 10, INVALID" in screen.map_words
        screen.press("Shift+ArrowLeft")

    assert [step for step, invalid in sorted(seen.items()) if invalid] == [4, 5, 6, 7]


def test_a_move_is_refused_because_kvmgt_is_attached(screen: Screen) -> None:
    screen.press("k").until_at(12, 0)
    assert "KVMGT" in screen.text(".tl-node.is-now")

    screen.press("Enter").until_at(13, 7)
    screen.press("2").until_read(".mx-panel-guards", "FIRED")

    assert "MOVE refused and it was not free" in screen.rail
    fired = screen.text(".ladder .is-fired")
    assert "no external page tracker" in fired
    assert "FIRED −EINVAL" in fired
    assert "1 attached, in kvm_arch_prepare_memory_region()" in fired
    bill = {row[0]: row for row in (text.split(" ") for text in screen.texts(".bill tbody tr"))}
    assert bill["Memslot"][2:4] == ["22", "26"]
    assert bill["Shadow"][4:6] == ["4", "0"]
    assert "Slot 10, base_gfn 0xd0000 0xd0000 old object back in both sets" in screen.texts(".bill tbody tr")
    assert "asked for, refused: nothing was built here" in screen.map_words


def test_under_the_posted_patch_the_verdicts_invert(screen: Screen) -> None:
    screen.press("k").until_at(12, 0).press("Enter").until_at(13, 7)
    choose_by_keyboard(screen, "chip-kernel", "6.6 as")

    screen.until_at(13, 9)
    assert "MOVE allowed" in screen.rail
    differs = (
        "On 6.6 as posted, 1 of 14 operations differs from 6.12: operation 14, MOVE of slot 10, −EINVAL there, 0 here."
    )
    assert differs in screen.text(".mx-bars")

    choose_by_keyboard(screen, "story", "The posted")
    screen.press("Enter").until_at(12, 7)
    assert "MOVE refused" in screen.rail
    screen.press("2").until_read(".mx-panel-guards", "FIRED")
    assert "none attached" in screen.text(".ladder .is-fired")


def test_v_walks_through_the_kernels(screen: Screen) -> None:
    names = [screen.page.locator(".mx-chip-kernel select").input_value()]
    for _ in PROFILES:
        revision = screen.revision
        screen.press("v").until_drawn_anew(revision)
        names.append(screen.page.locator(".mx-chip-kernel select").input_value())

    assert names[0] == names[-1]
    assert len(set(names)) == len(PROFILES)


def test_every_key_of_the_list_of_keys_does_something(screen: Screen) -> None:
    screen.press("?")
    assert screen.page.locator(".mx-help").is_visible()
    screen.press("Escape")
    assert not screen.page.locator(".mx-help").is_visible()

    screen.press("3").until_at(12, 9).press("3").until_read(".mx-panel-table", "slot 10")
    screen.press("g")
    assert screen.page.evaluate("() => document.activeElement.closest('.mx-goto') !== null")
    revision = screen.revision
    screen.page.keyboard.type("slot 4")
    screen.press("Enter").until_drawn_anew(revision)
    assert "slot 4" in " ".join(screen.map_words)

    screen.press("Escape")
    revision = screen.revision
    screen.press("f").until_drawn_anew(revision)
    assert "slot 10" in screen.map_words
    screen.press("Shift+ArrowLeft").until_at(12, 8)
    before = screen.text(".mx-map-head")
    revision = screen.revision
    screen.press("+").until_drawn_anew(revision)
    assert screen.text(".mx-map-head") != before

    screen.press("t")
    screen.page.wait_for_selector('.mx-frame[data-theme="dark"]')


@pytest.mark.parametrize(("size", "key", "pane"), [((1366, 768), "b", ".mx-rail"), ((900, 768), "c", ".mx-compose")])
def test_a_drawer_opens_and_closes_by_key(
    screens: Callable[..., Screen], address: str, size: tuple[int, int], key: str, pane: str
) -> None:
    screen = screens(address, size=size)
    assert not screen.page.locator(pane).is_visible()

    screen.press(key)
    screen.page.locator(pane).wait_for()

    screen.press("Escape")
    screen.page.locator(pane).wait_for(state="hidden")


def test_what_looks_like_a_key_at_the_end_of_a_line_can_be_pressed(
    screens: Callable[..., Screen], address: str
) -> None:
    screen = screens(address, size=(1366, 768))
    screen.press("3").until_at(12, 9)

    screen.page.get_by_role("button", name="the “because” drawer (B)").click()
    screen.page.locator(".mx-rail").wait_for()
    screen.press("Escape").press("PageDown").until_read(".mx-because", "Beat 2 of 9")
    screen.page.locator(".mx-because").get_by_role("button", name="next beat (PgDn)").click()
    screen.until_read(".mx-because", "Beat 3 of 9")

    screen.press("4")
    kernel = screen.page.locator(".mx-chip-kernel select").input_value()
    revision = screen.revision
    screen.page.get_by_role("button", name="turn the test round (I)").click()
    screen.until_drawn_anew(revision)
    assert screen.page.locator(".mx-chip-kernel select").input_value() != kernel


def test_the_list_of_keys_is_read_and_its_keys_wait(screen: Screen) -> None:
    screen.press("?").until_focus_in(".mx-help")
    tracker = screen.page.locator(".mx-chip-tracker select")
    before, revision = tracker.input_value(), screen.revision

    screen.press("k", "PageDown", "Escape").until_focus_in(".mx-time")
    assert (tracker.input_value(), screen.revision) == (before, revision)
    screen.press("k").until_drawn_anew(revision)
    assert tracker.input_value() != before


def test_a_drop_down_that_is_shut_leaves_the_page_its_keys(screen: Screen) -> None:
    screen.tell("Rejected is not free").press("Enter").until_at(16, 7)
    kernel = screen.page.locator(".mx-chip-kernel select")
    kernel.focus()

    screen.press("5")  # no kernel's name: the tab
    screen.page.locator(".mx[data-tab=kvmgt]").wait_for(state="attached")
    assert kernel.input_value() == "6.12"
    screen.press("PageDown").until_read(".mx-rail", "Beat 6 of 9")
    kernel.focus()
    revision = screen.revision
    screen.press("ArrowUp").until_drawn_anew(revision)
    assert kernel.input_value() != "6.12", "the arrows are the drop-down's"


def test_who_chose_with_the_mouse_steps_on_with_the_arrows(screen: Screen) -> None:
    screen.press("3").until_at(12, 9)
    kernel = screen.page.locator(".mx-chip-kernel select")
    kernel.click()
    screen.page.wait_for_selector("select:open", state="attached")
    revision = screen.revision
    # A headless browser's list has no pointer; that it was opened with one is what counts.
    kernel.evaluate(
        "(s, label) => { s.selectedIndex = [...s.options].findIndex((o) => o.label === label);"
        " s.dispatchEvent(new Event('change', { bubbles: true })); }",
        "6.1",
    )
    screen.until_drawn_anew(revision).until_focus_in(".mx-time")

    screen.press("ArrowLeft").until_at(11, 0)
    assert kernel.input_value() == "6.1"


def test_after_enter_in_a_field_the_keys_step_again(screen: Screen) -> None:
    screen.press("3").until_at(12, 9)
    screen.page.get_by_role("button", name="Delete").click()
    screen.until_focus_in(".mx-fields")

    screen.press("Enter").until_at(13, 9).until_focus_in(".mx-time")
    screen.press("2")
    screen.page.locator(".mx[data-tab=guards]").wait_for(state="attached")


def test_motion_ends_at_once_when_a_key_is_pressed(screens: Callable[..., Screen], address: str) -> None:
    screen = screens(address, reduced_motion="no-preference")
    screen.press("3")
    screen.page.wait_for_selector('.mx[data-playing=yes][data-op="12"]', state="attached")

    screen.press("Shift+ArrowLeft").until_at(12, 8)


def test_who_chooses_an_operation_applies_it_with_enter(screen: Screen) -> None:
    screen.press("3").until_at(12, 9)

    screen.press("Enter").until_read(".mx-bar", "Nothing is composed: choose an operation, or change a field.")
    assert screen.at == (12, 9)

    screen.page.get_by_role("button", name="Track", exact=True).click()
    screen.until_focus_in(".mx-fields")
    screen.page.keyboard.press("Enter")
    screen.until_at(13, 0)
    assert screen.text(".tl-node.is-now").startswith("Track")


def test_later_operations_that_a_branch_sets_aside_are_offered_until_dismissed(screen: Screen) -> None:
    screen.press("3").until_at(12, 9).press("ArrowLeft").until_at(11, 0)
    screen.page.get_by_role("button", name="Delete", exact=True).click()
    screen.until_focus_in(".mx-fields")
    screen.press("Enter")

    screen.until_read(".mx-bar", "1 later operation set aside")
    screen.press("Escape", "Shift+ArrowLeft", "Shift+ArrowLeft")
    screen.page.get_by_role("button", name="Back to First look, 13 operations").click()
    screen.until_read(".mx-time-body", "MOVE")


def test_at_rest_the_pictures_are_plotlys(screen: Screen) -> None:
    screen.press("3").until_at(12, 9)

    screen.page.wait_for_selector(".mx[data-pen=plotly]", state="attached")

    for figure in (".mx-map-figure", ".mx-arrays"):
        assert screen.page.locator(f"{figure} .mx-plot .main-svg .scatterlayer path").count() > 5
        assert not screen.page.locator(f"{figure} .mx-sketch").is_visible()


def test_a_key_held_down_passes_what_lies_between_and_ends_where_it_was_let_go(screen: Screen) -> None:
    """The page of a log has no picture in store: keys come faster than Python draws."""
    screen.page.locator(".mx-import input[type=file]").set_input_files(LOGS / "own-walk-4/strace.log.gz")
    screen.page.wait_for_function("() => document.querySelector('.mx-bars').innerText.includes('Replayed')")
    screen.ready().press("Home").until_at(-1, 0)
    screen.page.evaluate(
        """() => {
          const root = document.querySelector(".mx");
          window.__seen = [];
          new MutationObserver(() => window.__seen.push(Number(root.dataset.op)))
            .observe(root, { attributes: true, attributeFilter: ["data-op"] });
        }"""
    )

    screen.page.keyboard.down("ArrowRight")
    for _ in range(119):
        screen.page.keyboard.down("ArrowRight")  # repeats, as long as the key is not up
    screen.page.keyboard.up("ArrowRight")

    screen.page.wait_for_selector('.mx[data-state=ready][data-op="119"]', state="attached")
    seen = screen.page.evaluate("window.__seen")
    assert seen == sorted(seen), "never back"
    assert seen[-1] == 119
