"""Bad input of every kind: a sentence that helps, nothing lost, and nothing from outside read as HTML."""

from __future__ import annotations

import gzip
from typing import TYPE_CHECKING

import pytest
from playwright.sync_api import expect
from screen import PATIENCE_SECONDS, ROOT

if TYPE_CHECKING:
    from pathlib import Path

    from screen import Screen

pytestmark = pytest.mark.browser

LOG = ROOT / "assets/traces/own-walk-good/strace.log.gz"
LIMIT = 64 << 20


@pytest.fixture
def moved(screen: Screen) -> Screen:
    """Return the dashboard after the newcomer's MOVE."""
    return screen.press("3").until_at(12, 9)


def test_a_field_that_cannot_be_right_says_why_and_changes_nothing(moved: Screen) -> None:
    moved.page.get_by_role("button", name="Move", exact=True).click()
    moved.until_read(".mx-preflight", "Accepted.").until_focus_in(".mx-fields")
    expect(moved.field("base")).to_have_value("0xd0002000", timeout=PATIENCE_SECONDS * 1000)
    for field, text, words in (
        ("base", "0xd0001001", "Would work: base 0xd0002000, rounded up to a page."),
        ("base", "0xfffffffffffff000", "fails: gpa + size = 0x1000000000001f000"),
        ("base", "0xzz", "base: cannot read 'xzz'; write a number such as 0x1000"),
        ("size", "", "size is empty; write a number"),
        ("size", "0x80000000000", "2147483648 pages, most are 2147483647"),
        ("size", "<img src=x>", "size: cannot read '<img src=x>'"),
        ("slot", "40000", "40000 >= 32764"),
        ("slot", "-1", "slot is below 0"),
        ("hva", "0xffff800000000000", "userspace ends at 0x7ffffffff000"),
        ("flags", "0x80", "0x80, known 0x3"),
    ):
        before = moved.field(field).input_value()
        moved.fill(field, text).until_read(".mx-preflight", words)
        moved.fill(field, before).until_read(".mx-preflight", "Accepted.")

    assert moved.at == (12, 9)
    assert moved.page.locator("img[src=x]").count() == 0

    moved.fill("base", "0xzz").press("Enter").until_read(".mx-bar.is-error", "base: cannot read 'xzz'")
    assert moved.at == (12, 9)


def test_a_place_that_is_none_says_what_could_stand_there(moved: Screen) -> None:
    for text, words in (
        ("slot 99", "There is no slot 99 at this moment."),
        ("<i>", "write an address such as 0xc0000"),
        ("0x2000..0x1000", "the range ends before it starts"),
        ("gfn:0xffffffffffff", "is beyond the last one"),
        ("hva:0x1000", "No slot is backed by host address 0x1000."),
    ):
        place = moved.page.locator(".mx-goto input")
        place.fill(text)
        place.press("Enter")
        moved.until_read(".mx-bar.is-error", words)

    assert "slot 10" in moved.map_words
    assert moved.at == (12, 9)


def send(screen: Screen, name: str, content: bytes | Path) -> None:
    """Choose a file in the import box, as a person does."""
    chooser = screen.page.locator(".mx-import input[type=file]")
    if isinstance(content, bytes):
        chooser.set_input_files({"name": name, "mimeType": "text/plain", "buffer": content})
    else:
        chooser.set_input_files(content)


def test_files_that_are_no_log_say_so_and_the_state_stays(moved: Screen) -> None:
    for name, content, words in (
        ("binary.log", bytes(range(256)) * 400, "binary.log: binary data and no log"),
        ("empty.log", b"", "empty.log"),
        ("prose.txt", b"There was nothing here of any use.\n" * 5, "The first line is: There was nothing here"),
        ("torn.gz", LOG.read_bytes()[:30], "torn.gz"),
    ):
        send(moved, name, content)
        moved.until_read(".mx-bar.is-error", words)
        assert moved.at == (12, 9), name
        assert "13 of 13" in moved.text(".mx-time-body"), name


def test_a_log_that_is_cut_off_is_replayed_up_to_the_cut_which_is_named(moved: Screen) -> None:
    whole = LOG.read_bytes()

    send(moved, "truncated.log.gz", whole[: len(whole) // 2])

    moved.until_read(".mx-bar", "truncated.log.gz: strace log with")
    moved.page.locator(".mx-bar summary").click()
    moved.until_read(".mx-bar li", "the file is cut off")
    moved.page.get_by_role("button", name="Back to First look, 13 operations").click()
    moved.until_at(12, 9)


def test_a_log_of_100_mb_is_not_taken_and_the_page_lives_on(moved: Screen, tmp_path: Path) -> None:
    large = tmp_path / "large.log"
    with large.open("wb") as file:
        file.truncate(100 << 20)

    send(moved, "large.log", large)

    moved.until_read(".mx-bar.is-error", "64 MiB")
    moved.press("Escape", "Shift+ArrowLeft").until_at(12, 8)


def test_html_in_a_log_is_text(moved: Screen) -> None:
    good = gzip.decompress(LOG.read_bytes()).decode()
    bad = '1 ioctl(3</dev/kvm>, <img src=x onerror="document.title=1">) = 0\n<script>document.title = 2</script>\n'
    title = moved.page.title()

    send(moved, "<b>log</b>.txt", (good + bad).encode())

    moved.until_read(".mx-bar", "<b>log</b>.txt")
    moved.page.locator(".mx-bar summary").click()
    moved.until_read(".mx-bar li", "line")
    assert moved.page.locator("img[src=x], .mx-bar b, .mx-top b b").count() == 0
    assert moved.page.title() == title


def test_pasted_lines_are_replayed_and_what_is_left_behind_can_be_had_back(moved: Screen) -> None:
    line = (
        "ioctl(5, KVM_SET_USER_MEMORY_REGION, {slot=0, flags=0, guest_phys_addr=%s, memory_size=0x100000,"
        " userspace_addr=0x7f0000000000}) = 0\n"
    )
    moved.page.locator(".mx-import textarea").fill(line % "0" + line % "0x200000")
    moved.page.get_by_role("button", name="Replay").click()

    moved.until_read(".mx-bar", "pasted text: strace log with 2 memory slot calls on 1 VM; VM 0: 1 created, 1 moved.")
    assert "MOVE allowed" in moved.rail

    moved.page.get_by_role("button", name="Back to First look, 13 operations").click()
    moved.until_at(12, 9)
    assert "13 of 13" in moved.text(".mx-time-body")
