"""Questions about kernels and patches: what a test decides, who differs, from where on, and whose script breaks.

Numbered and counted as in `test_questions_of_calls`. Expected answers come from the engine without the page: the same
commands, kernel by kernel.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from answers import opening
from hands import Hands

from explorer.engine.profile import PROFILES
from explorer.scenarios import load_scenario

if TYPE_CHECKING:
    from screen import Screen

pytestmark = pytest.mark.browser

REFUSED = "\N{MINUS SIGN}EINVAL"
INVERTED, WATCHES = "inverted-check", "watches-lost"
DRAWN = """() => { const m = document.querySelector('.mx').dataset; return m.tab === 'kernels' && m.state === 'ready'
    && m.kernels === m.rev }"""


@pytest.fixture
def hands(screen: Screen) -> Hands:
    return Hands(screen)


def open_tab(hands: Hands) -> Screen:
    """Press the tab's key and wait until everything of the state that is shown was replayed."""
    screen = hands.press("4")
    screen.page.wait_for_function(DRAWN)
    return screen


def results(story: str, profile: str) -> list[str]:
    """Return how each operation of a story ends on a kernel, the composed one at the end."""
    vm = opening(profile, until=story)
    composed = load_scenario(story).next
    assert composed is not None
    vm.do(composed)
    return [step.errno.name if step.errno is not None else "0" for _, _, step in vm.steps]


def test_question_10_did_this_predicate_change_mean_what_i_think(hands: Hands) -> None:
    # kernel-reference 4.6: as posted the test answers the opposite, so nobody attached is enough for a refusal.
    merged, posted = (results("first-look", profile)[-1] for profile in ("v6_6", "v6_6_posted"))
    assert (merged, posted) == ("0", "EINVAL")

    open_tab(hands)
    screen = hands.press("i").until_read(".mx-preflight", f"Refused with {REFUSED}")

    assert hands.actions <= 2
    screen.until_read(".tests .is-chosen", "as posted")
    assert "The composed MOVE of slot 10, 0 there, −EINVAL here." in screen.text(".mx-bars")
    screen.page.locator(".tests .test", has_text="as merged").click()
    screen.until_read(".tests .is-chosen", "as merged").until_read(".mx-preflight", "Accepted")


def test_question_11_which_kernels_behave_differently_for_this_sequence(hands: Hands) -> None:
    here = results("first-look", "v6_12")
    others = {profile.title for profile in PROFILES.values() if results("first-look", profile.name) != here}

    screen = open_tab(hands)

    assert hands.actions <= 1
    ends = dict(zip(screen.texts(".eras tbody th"), screen.texts(".eras tbody .end"), strict=True))
    assert ends.keys() == {profile.title for profile in PROFILES.values()}
    assert {name for name, end in ends.items() if "differ" in end} == others


def test_question_12_the_first_step_at_which_two_kernels_diverge(hands: Hands) -> None:
    here = results(INVERTED, "v6_6_posted")
    runs = [results(INVERTED, name) for name in PROFILES]
    first = min(at for run in runs for at, pair in enumerate(zip(here, run, strict=True)) if pair[0] != pair[1])
    hands.screen.tell("The posted check was inverted")
    hands.screen.press("Enter").until_at(len(here) - 1, 7).press("Home").until_at(-1, 0)

    screen = open_tab(hands).until_read(".first-difference", f"First difference: operation {first + 1}")
    hands.press("j").until_at(first, 7)

    assert hands.actions <= 2
    screen.until_read(".eras thead .parts.is-now", "MOVE")


def test_question_13_whose_script_breaks_if_i_forbid_this(hands: Hands) -> None:
    before, after = results(WATCHES, "v5_10"), results(WATCHES, "v6_12")
    broken = [(at, *pair) for at, pair in enumerate(zip(before, after, strict=True), 1) if pair[0] != pair[1]]
    assert broken == [(17, "0", "EINVAL")], "the MOVE that has always worked is forbidden"
    hands.screen.tell("What happens to the watches")

    screen = open_tab(hands)
    hands.click(screen.page.get_by_role("button", name="5.10: compare its results"))
    hands.click(screen.page.get_by_role("button", name="6.12: compare its results"))
    screen.until_read(".changes", "From 5.10 to 6.12: 1 result changes")

    assert hands.actions <= 3
    assert f"17 MOVE: 0 moved → {REFUSED}" in screen.text(".changes")
