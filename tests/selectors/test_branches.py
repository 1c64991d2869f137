"""What leaves the timeline: another kernel's answer to the same MOVE, and what was set aside."""

import pytest
from runs import DELETE, KVMGT, LOG_ON, LOGGER, MOVE, SLOT, TABLES, WATCHED, end_of, run_of

from explorer.figures.timeline import timeline_panel
from explorer.selectors.branches import elsewhere, set_aside
from explorer.selectors.timeline import select_timeline


def branch(profile, *lines):
    run = run_of(profile, *lines)
    return elsewhere(run, run.detail(len(run) - 1))


@pytest.mark.parametrize(
    ("profile", "lines", "words", "result", "loss", "kept"),
    [
        # kernel-reference 4.6: from 6.6 on a MOVE is refused while a tracker is registered, and its counts stay.
        ("v6_1", LOGGER, "the same call on 6.12:", "−EINVAL", "", "2 watches kept"),
        # 6.5: before that KVMGT's own callback takes its watches away; a tracker that only listens loses them (5.7).
        ("v6_12", LOGGER, "the same call on 6.1:", "0", "2 watches lost", ""),
        ("v6_12", KVMGT, "the same call on 6.1:", "0", "KVMGT drops 2 watches", ""),
        # 10.2: as posted, the test is inverted.
        ("v6_6_posted", WATCHED, "the same call on 6.12:", "0", "", "no watch lost"),
    ],
)
def test_a_move_that_another_kernel_answers_otherwise_leaves_the_line(profile, lines, words, result, loss, kept):
    found = branch(profile, *lines, MOVE)

    assert (found.words, found.result, found.loss, found.kept) == (words, result, loss, kept)
    assert found.after == len(lines)


@pytest.mark.parametrize(
    "lines",
    [(*WATCHED, MOVE), (SLOT, DELETE), (SLOT, LOG_ON), KVMGT],
    ids=["nobody is attached", "a deletion", "flags", "no region call"],
)
def test_where_every_kernel_agrees_nothing_leaves_the_line(lines):
    assert branch("v6_12", *lines) is None


def test_a_kernel_that_answered_an_earlier_call_otherwise_is_not_asked():
    # The first MOVE is refused on 6.12 and 6.6; 6.1 lets it through, so there the second one is another call.
    assert branch("v6_12", *LOGGER, MOVE, "detach", MOVE) is None


def test_what_was_set_aside_leaves_where_both_part():
    earlier = run_of("v6_12", *LOGGER, MOVE, DELETE)
    run = run_of("v6_12", *LOGGER, DELETE)

    found = set_aside(earlier, run)

    assert found.after == len(LOGGER) - 1
    assert (found.words, found.result) == ("set aside: MOVE slot 10 and 1 more", "−EINVAL")


@pytest.mark.parametrize(
    "earlier",
    [run_of("v6_12", *LOGGER), run_of("v6_1", *LOGGER, MOVE), run_of("v6_12", TABLES, SLOT)],
    ids=["nothing was set aside", "another kernel", "nothing in common"],
)
def test_what_is_no_branch_of_the_run_does_not_leave_it(earlier):
    assert set_aside(earlier, run_of("v6_12", *LOGGER, DELETE)) is None


def test_a_branch_is_on_the_line_behind_its_operation_and_leads_there():
    run = run_of("v6_12", *KVMGT, MOVE)
    moment = end_of(run)

    panel = str(timeline_panel(select_timeline(run, moment, elsewhere(run, moment.op))))

    assert "'data-era': 'v6_1:5'" in panel
    assert "the same call on 6.1: 0 KVMGT drops 2 watches; go there" in panel
    assert "tl-branch" not in str(timeline_panel(select_timeline(run, moment)))
