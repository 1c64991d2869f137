"""One sequence under every kernel: where they part, what changes between two, and only a window of a long run."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given, settings
from runs import ALL_PROFILES, KVMGT, MOVE, REFUSES_A_MOVE, SLOT, random_runs, run_of

from explorer.engine.commands import parse_command
from explorer.engine.profile import PROFILES
from explorer.history.rerun import Reruns
from explorer.history.run import look_inside
from explorer.selectors.eras import COLUMNS, EraChange, era_settings, select_eras

REFUSED = "\N{MINUS SIGN}EINVAL"
OLD, NEW = "guest_write gpa=0xd0003000", "guest_write gpa=0xd0203000"
STORY = (*KVMGT, OLD, MOVE, OLD, NEW)
"""KVMGT watches 0xd0003; a write before the MOVE, and one to the old and the new place after it."""


def eras(profile, *lines, op=None, **options):
    run = run_of(profile, *lines)
    return select_eras(run, len(run) - 1 if op is None else op, **options)


def row(view, profile):
    return next(row for row in view.rows if row.profile == profile)


def texts(view, profile):
    return [cell.text for cell in row(view, profile).cells]


def test_kernels_part_at_the_move_and_the_guest_notices():
    """kernel-reference 4.6: refused from 6.6 on with a tracker attached; where it moves, the old gfn has no slot."""
    view = eras("v6_12", *STORY)

    assert view.first == 6
    assert [column.parts for column in view.columns].index(True) == [c.title for c in view.columns].index("MOVE")
    for profile in ALL_PROFILES:
        expected = [REFUSED, "seen", "MMIO exit"] if profile in REFUSES_A_MOVE else ["0 moved", "MMIO exit", "memory"]
        assert texts(view, profile)[-3:] == expected, profile


def test_each_kernel_says_where_it_leaves_the_page_s_and_how_often():
    view = eras("v6_12", *STORY)

    assert {r.profile: (r.first, r.differing) for r in view.rows} == {
        profile: (None, 0) if profile in REFUSES_A_MOVE else (6, 3) for profile in ALL_PROFILES
    }
    marked = [(cell.op, cell.first) for cell in row(view, "v6_1").cells if cell.differs]
    assert marked == [(6, True), (7, False), (8, False)]


def test_who_would_break_if_the_move_were_forbidden_is_a_list():
    view = eras("v6_12", *STORY, pair=("v6_1", "v6_6"))

    assert view.pair == ("6.1", "6.6")
    assert view.changed == 3
    assert view.changes == (
        EraChange(6, "MOVE", "0 moved", REFUSED),
        EraChange(7, "Write", "MMIO exit", "seen"),
        EraChange(8, "Write", "memory", "MMIO exit"),
    )
    assert [r.profile for r in view.rows if r.picked] == ["v6_1", "v6_6"]


def test_without_a_choice_the_page_s_kernel_is_compared_with_one_that_differs():
    assert eras("v6_12", *STORY).pair == ("6.12", "6.6 as posted")
    assert eras("v6_1", *STORY).pair == ("6.1", "6.6")


def test_the_composed_operation_stands_at_the_end_and_counts():
    run = run_of("v6_1", *KVMGT)
    ghost = look_inside(run.end, parse_command(MOVE), len(run))

    view = select_eras(run, len(run) - 1, ghost)

    assert view.columns[-1].composed
    assert view.first == len(run)
    assert texts(view, "v6_12")[-1] == REFUSED
    assert select_eras(run, len(run) - 1).first is None


def test_neighbours_that_are_alike_everywhere_are_one_column():
    lines = [f"set_region slot={n} gpa={n << 20:#x} size=0x1000 hva=0x7f0000000000" for n in range(5)]

    view = eras("v6_12", *lines, "attach kind=kvmgt")

    assert [(c.title, c.detail, c.first, c.last) for c in view.columns] == [
        ("Create", "5 calls", 0, 4),
        ("Attach", "KVMGT", 5, 5),
    ]


def test_slots_beyond_the_limit_of_an_old_kernel_are_a_difference():
    """include/linux/kvm_host.h: 509 user slots before v5.12."""
    lines = [f"set_region slot={n} gpa={n << 20:#x} size=0x1000 hva=0x7f0000000000" for n in (0, 508, 509)]

    view = eras("v6_12", *lines)

    assert view.first == 2
    assert {r.profile for r in view.rows if r.differing} == {"pre_edd4", "v5_10"}


def test_a_long_run_is_shown_around_the_cursor_and_counted_as_a_whole():
    view = eras("v6_12", *(SLOT, "attach kind=kvmgt", MOVE, SLOT, "detach") * 60, op=150)

    assert len(view.columns) == COLUMNS
    assert view.columns[0].first <= 150 <= view.columns[-1].last
    assert any(column.now and column.first == 150 for column in view.columns)
    assert view.hidden_before == view.columns[0].first
    assert view.hidden_after == 299 - view.columns[-1].last
    assert row(view, "v6_1").differing > 60


def test_what_was_not_replayed_yet_is_shown_as_such():
    run = run_of("v6_12", *STORY)
    reruns = Reruns()
    reruns.follow(run.commands)
    reruns.work(era_settings(run), 6)

    view = select_eras(run, 4, None, reruns)

    assert (view.reached, view.ops) == (6, 9)
    assert view.first is None, "the difference is beyond what was replayed"
    assert [cell.kind for cell in row(view, "v6_1").cells if cell.op >= 6] == ["pending"] * 3


def test_an_empty_run_has_nothing_to_show():
    view = eras("v6_12")

    assert (view.columns, view.first, view.changed) == ((), None, 0)


@settings(max_examples=40)
@given(random_runs(20))
def test_the_ribbon_says_what_every_kernel_really_answers(run):
    view = select_eras(run, len(run) - 1)

    assert view.columns[0].first == view.hidden_before
    assert all(after.first == before.last + 1 for before, after in pairwise(view.columns))
    for name, shown in zip(PROFILES, view.rows, strict=True):
        there = run.on(name, run.start.config)
        for column, cell in zip(view.columns, shown.cells, strict=True):
            errnos = {there.outcomes[at].errno for at in range(column.first, column.last + 1)}
            assert (cell.kind == "refused") == (errnos != {None})
        unlike = [at for at in range(len(run)) if there.outcomes[at][:2] != run.outcomes[at][:2]]
        assert shown.differing >= len(unlike)
        assert shown.first is None or not unlike or shown.first <= unlike[0]
