"""One failing line is pasted: which slot is in the way, and what would work? One action, with a log or without."""

from __future__ import annotations

import gzip
import re
from typing import TYPE_CHECKING

import pytest
from hands import Hands
from playwright.sync_api import expect
from screen import PATIENCE_SECONDS, ROOT

if TYPE_CHECKING:
    from collections.abc import Callable

    from screen import Screen

pytestmark = pytest.mark.browser

LINE = (
    "ioctl(9, KVM_SET_USER_MEMORY_REGION, {slot=4, flags=0, guest_phys_addr=0xc0000, memory_size=131072,"
    " userspace_addr=0x7f0000000000}) = -1 EEXIST (File exists)"
)
BOOT = ROOT / "assets/traces/q72-pc-pam/strace.log.gz"
EDGES = """() => [document.querySelector('.tl-node.is-now svg').getBoundingClientRect().right,
    document.querySelector('.tl-track').getBoundingClientRect().left]"""
SIZES = pytest.mark.parametrize("size", [(1920, 1080), (1366, 768)], ids=["wide", "narrow"])


def paste(screen: Screen, text: str) -> Screen:
    """Put text into the one box there is, and press its key."""
    screen.page.locator(".mx-import textarea").fill(text)
    screen.page.get_by_role("button", name="Replay").click()
    return screen


def in_the_way_by_hand(log: str) -> set[int]:
    """Return which slots the log leaves in 0xc0000 to 0xdffff, read with nothing but its lines."""
    slots: dict[int, range] = {}
    call = r"slot=(\d+), flags=[^,]*, guest_phys_addr=(\w+), memory_size=(\d+), .*\) += 0"
    for slot, gpa, size in re.findall(call, log):
        slots[int(slot)] = range(int(gpa, 16), int(gpa, 16) + int(size))
    return {slot for slot, at in slots.items() if at and at.start < 0xE0000 and at.stop > 0xC0000}


def answer(screen: Screen) -> str:
    """Return what can be read without another key: the rail, or the line that stands for it on a narrow screen."""
    rail = screen.page.locator(".mx-rail")
    return screen.rail if rail.is_visible() else screen.text(".mx-because")


@SIZES
def test_after_a_pasted_boot_log_one_action_names_the_slot_and_what_would_work(
    screens: Callable[..., Screen], address: str, size: tuple[int, int]
) -> None:
    boot = gzip.decompress(BOOT.read_bytes()).decode()
    (slot,) = in_the_way_by_hand(boot)
    screen = paste(screens(address, size=size), boot).until_read(".mx-bar", "Every recorded result agrees.")
    calls = int(screen.text(".mx-time-body").split(" of ")[1].split()[0])

    hands = Hands(screen)
    hands.paste(LINE).until_at(calls, 1)

    assert hands.actions <= 1
    screen.until_read(".mx-bar", "The line stands behind the last call of pasted text.")
    assert f"Slot {slot} is in the way." in answer(screen)
    assert re.search(r"would work:? base 0xa0000", answer(screen), re.IGNORECASE)
    expect(screen.page.get_by_role("tab", name="Guards")).to_have_attribute("aria-selected", "true")
    fired = screen.page.locator(".mx-panel-guards .is-fired")
    expect(fired).to_contain_text("no overlap with another slot", timeout=PATIENCE_SECONDS * 1000)
    expect(fired).to_be_in_viewport()
    assert "in the way" in screen.map_words
    assert f"slot {slot}" in screen.map_words
    assert "asked for, refused: nothing was built here" in screen.map_words
    octagon, steps = screen.page.evaluate(EDGES)
    assert octagon <= steps + 5, "the steps leave the octagon and its cross to be seen"


@SIZES
def test_without_a_log_the_same_line_tells_what_it_assumes(
    screens: Callable[..., Screen], address: str, size: tuple[int, int]
) -> None:
    screen = paste(screens(address, size=size), LINE).until_at(1, 1)

    screen.until_read(".mx-bar", "nothing is known of the VM. Another slot has some of 0xc0000 to 0xdffff.")
    assert "Which one, and how far it reaches, is not known" in screen.text(".mx-bar")
    assert "in the way" in answer(screen)
    assert re.search(r"would work:? base", answer(screen), re.IGNORECASE)
    expect(screen.page.locator(".mx-panel-guards .is-fired")).to_be_in_viewport()
    assert "in the way" in screen.map_words


def test_what_would_work_does_when_it_is_typed(screen: Screen) -> None:
    paste(screen, LINE).until_at(1, 1)
    base = re.search(r"Base (0x[0-9a-f]+), down by", screen.rail)
    assert base is not None

    screen.fill("base", base[1]).until_read(".mx-preflight", "Accepted.")


def test_a_line_that_may_have_several_reasons_lists_them(screen: Screen) -> None:
    paste(screen, LINE.replace("EEXIST", "EINVAL")).until_at(1, 1)

    screen.until_read(".mx-bar", "The line alone cannot decide: other reasons are listed.")
    screen.page.locator(".mx-bar summary").click()
    screen.until_read(".mx-bar li", "Slot 4 exists already, with another host address.")


def test_a_line_that_no_vm_explains_says_so_and_the_state_stays(screen: Screen) -> None:
    screen.press("3").until_at(12, 9)

    paste(screen, LINE.replace("EEXIST", "EBUSY"))

    screen.until_read(".mx-bar.is-error", "The model does not return EBUSY for this call on any VM that was tried")
    assert screen.at == (12, 9)


def test_one_step_leads_back_to_the_boot_log(screen: Screen) -> None:
    screen.page.locator(".mx-import input[type=file]").set_input_files(BOOT)
    screen.until_read(".mx-bar", "Every recorded result agrees.")
    was = screen.at
    paste(screen, LINE).until_read(".mx-bar", "The line stands behind the last call of strace.log.gz.")

    screen.page.get_by_role("button", name="Back to strace.log.gz").click()

    screen.until_at(*was)
