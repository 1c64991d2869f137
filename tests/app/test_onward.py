"""Where a run goes from the page: what the badge and the rows say, and what the file is called and holds."""

from __future__ import annotations

import pytest
from runs import run_of

from explorer.app import state as actions
from explorer.app import telling
from explorer.app.onward import file_of, formats, perform_here
from explorer.app.state import initial_state
from explorer.engine.commands import parse_command
from explorer.engine.types import ExplorerError
from explorer.figures.dom import to_text
from explorer.live import Device, DeviceError
from explorer.share import FORMATS

WATCHES = ("set_region slot=1 gpa=0 size=0x1000", "attach user=0", "set_region slot=1 gpa=0x1000 size=0x1000")


@pytest.fixture
def _device():
    try:
        Device().close()
    except DeviceError as error:
        pytest.skip(str(error))


@pytest.mark.kvm
@pytest.mark.usefixtures("_device")
def test_the_badge_counts_and_the_rows_say_what_was_not_compared():
    performed = perform_here(run_of("v6_1", *WATCHES))

    assert performed.tone == "agrees"
    assert performed.badge.endswith(": 2 agree, 1 not compared")
    text = to_text(performed.panel)
    assert "1 operation not compared: page trackers are inside the kernel" in text
    assert "the page shows v6_1" in text


@pytest.mark.kvm
@pytest.mark.usefixtures("_device")
def test_the_rows_of_a_long_run_end_with_how_many_are_not_listed():
    performed = perform_here(run_of("v6_18", *WATCHES[:1] * 500))

    assert to_text(performed.panel).rstrip().endswith("100 operations more, not listed.")


def test_a_story_s_file_has_its_name_and_its_sentences():
    name, text = file_of(telling.tell(initial_state(), "watches-lost"), "c")

    assert name == "watches-lost.c"
    assert "/* A small slot that we will move: 32 pages. */" in text


def test_sentences_end_where_the_run_is_no_longer_the_story():
    state = telling.tell(initial_state(), "watches-lost")
    longer = actions.append(state, parse_command("get_dirty_log slot=4"))

    _, text = file_of(longer, "markdown")

    assert "16. A write of the guest to that page is caught" in text
    assert "17. Then:" in text


def test_every_format_is_offered_and_no_other_is_written():
    assert [name for name, _ in formats()] == list(FORMATS)
    with pytest.raises(ExplorerError, match="there is no format"):
        file_of(initial_state(), "exe")
