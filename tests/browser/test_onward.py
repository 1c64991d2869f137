"""From the page to the machine's own KVM and into a file."""

from __future__ import annotations

from pathlib import Path

import pytest

from explorer.live import Device, DeviceError
from explorer.share import FORMATS

pytestmark = pytest.mark.browser
SIZES = [(1920, 1080), (1366, 768)]


def device_is_there() -> bool:
    try:
        Device().close()
    except DeviceError:
        return False
    return True


@pytest.mark.parametrize("size", SIZES)
def test_a_run_is_performed_after_one_confirmation_and_the_badge_is_of_that_run(screens, address, size):
    screen = screens(address, size=size).tell("What happens to the watches")
    badge = screen.page.get_by_role("button", name="perform on the machine")
    assert badge.inner_text() == "Model only"

    badge.click()
    assert screen.page.locator(".mx-device").inner_text() == ""
    screen.page.get_by_role("button", name="Perform this run").click()

    if device_is_there():
        screen.until_read(".mx-device", "11 compared, 0 disagreements")
        assert badge.inner_text().endswith(": 11 agree, 5 not compared")
        assert screen.texts(".device-rows tr.is-left-out td:last-child") == ["not compared"] * 5
    else:
        screen.until_read(".mx-device", "Model only:")
        assert badge.inner_text() == "Model only"
    screen.press("Escape", "ArrowLeft").until_at(14, 0)
    assert not screen.page.locator(".mx-sheet >> visible=true").count()
    screen.choose("chip-kernel", "6.18")
    assert badge.inner_text() == "Model only"


@pytest.mark.parametrize("size", SIZES)
def test_every_format_is_a_file_that_the_browser_saves(screens, address, size):
    screen = screens(address, size=size).tell("What happens to the watches")

    for row in FORMATS.values():
        screen.page.get_by_role("button", name="export the run").click()
        with screen.page.expect_download() as waiting:
            screen.page.get_by_role("button", name=row.title, exact=True).click()
        assert waiting.value.suggested_filename == f"watches-lost{row.suffix}"
        assert "set_region slot=10" in Path(waiting.value.path()).read_text() or row.name == "strace"
