"""A slide: what a talk shows of a moment is the rail's verdict and the numbers of bill and effects. Product 5.3."""

from __future__ import annotations

from typing import TYPE_CHECKING

from runs import KVMGT, LOGGER, MOVE, SLOT, run_of

from explorer.history.moment import moment_at
from explorer.selectors.beats import select_beat
from explorer.selectors.rail import select_rail
from explorer.selectors.slide import MOST_ROWS, SlideView, select_slide

if TYPE_CHECKING:
    from explorer.history import Run, Stop


def slide_of(run: Run, stop: Stop | None = None, story: str = "", caption: str = "") -> SlideView:
    moment = moment_at(run, stop or run.last_stop)
    beat = select_beat(story, moment.kvm.profile)
    return select_slide(moment, select_rail(run, moment), beat, len(run), caption)


def test_a_refusal_says_its_errno_and_what_it_had_cost() -> None:
    slide = slide_of(run_of("v6_12", *KVMGT, MOVE), story="rejected-is-not-free")

    assert (slide.icon, slide.headline, slide.subtitle) == ("octagon", "−EINVAL", "refused, and it was not free")
    assert [row.what for row in slide.rows if row.paid] == [
        "Memslot generation",
        "Waits for all readers (SRCU)",
        "Shadow pages, whole VM",
    ]
    assert [(row.what, row.before, row.after) for row in slide.rows if not row.paid] == [
        ("Watches of the tracker", "2", "2")
    ]
    assert (slide.place, slide.beat) == ("step 8 of 8", "Beat 5 of 9")


def test_an_accepted_call_leaves_the_numbers_to_the_ledger() -> None:
    slide = slide_of(run_of("v6_1", *LOGGER, MOVE))

    assert (slide.icon, slide.headline) == ("check", "MOVE allowed")
    assert slide.rows == ()
    assert slide.place == "step 10 of 10"
    assert slide.beat == ""


def test_an_operation_without_steps_shows_what_it_changed() -> None:
    run = run_of("v6_1", *LOGGER)
    slide = slide_of(run)

    assert 0 < len(slide.rows) <= MOST_ROWS
    assert all(row.before != row.after for row in slide.rows)
    assert slide.place == f"operation {len(run)} of {len(run)}"


def test_a_sentence_of_the_story_stands_in_place_of_the_rails() -> None:
    run = run_of("v6_12", SLOT)

    assert slide_of(run, caption="Say what becomes of them.").caption == "Say what becomes of them."
    assert slide_of(run).caption == select_rail(run, moment_at(run, run.last_stop)).newcomer
