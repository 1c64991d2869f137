"""A log in the page: a table of its lines, the first one that differs, names from QEMU's memory tree."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from screen import ROOT

if TYPE_CHECKING:
    from screen import Screen

pytestmark = pytest.mark.browser

LOGS = ROOT / "assets/traces/q72-pc-firmware"


def send(screen: Screen, name: str, content: bytes) -> None:
    chooser = screen.page.locator(".mx-import input[type=file]")
    chooser.set_input_files({"name": name, "mimeType": "text/plain", "buffer": content})


def region(slot: int, gpa: int, result: str) -> str:
    fields = f"slot={slot}, flags=0, guest_phys_addr={gpa:#x}, memory_size=4096, userspace_addr=0x7f0000000000"
    return f"ioctl(5, KVM_SET_USER_MEMORY_REGION, {{{fields}}}) = {result}"


def test_a_log_shows_what_its_lines_became_and_a_tree_names_its_slots(screen: Screen) -> None:
    send(screen, "vmm.log", (LOGS / "strace.log.gz").read_bytes())
    screen.until_read(".mx-bar", "strace log with 35 memory slot calls")

    screen.page.locator(".mx-lines summary").click()
    screen.until_read(".mx-lines table", "another KVM call: KVM_GET_API_VERSION")
    screen.until_read(".mx-lines p", "35 operations")
    screen.page.locator(".mx-lines summary").click()
    assert not any("vga.vram" in word for word in screen.map_words)

    send(screen, "tree.txt", (LOGS / "mtree-end.txt.gz").read_bytes())
    screen.until_read(".mx-bar", "9 slots named: pc.bios, pc.ram, vga.vram.")
    screen.until_read(".mx-frame", "vga.vram")


def test_the_first_line_that_differs_is_one_click_away(screen: Screen) -> None:
    calls = [(0, 0, "0"), (600, 1 << 30, "-1 EINVAL (Invalid argument)"), (1, 1 << 31, "0")]
    lines = ["ioctl(3, KVM_CREATE_VM, 0) = 5", *(region(*call) for call in calls), "<b class=evil>x</b>", ""]
    send(screen, "diff.log", "\n".join(lines).encode())
    screen.until_read(".mx-bar.is-error", "Line 3 is the first that differs: CREATE of slot 600, recorded EINVAL")

    screen.page.get_by_role("button", name="Go to line 3").click()

    screen.until_at(1, 5)
    assert screen.page.locator("b.evil").count() == 0
