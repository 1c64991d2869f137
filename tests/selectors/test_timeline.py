"""The timeline: every operation once, in order, with its outcome."""

from functools import partial

from hypothesis import given, settings
from runs import KVMGT, MOVE, SLOT, moments, random_runs, run_of

from explorer.engine.commands import parse_command
from explorer.history import Run, Stop
from explorer.history.moment import moment_at
from explorer.history.run import look_inside
from explorer.selectors.timeline import NEIGHBOURS, STRETCH, TimelineView, select_timeline


def line_at(run: Run, op: int) -> TimelineView:
    return select_timeline(run, moment_at(run, Stop(op, 0)))


@settings(max_examples=50)
@given(random_runs(20))
def test_every_operation_is_on_the_line_once_and_in_order(run):
    for moment in moments(run):
        view = select_timeline(run, moment)
        shown = [at for node in view.nodes for at in range(node.first, node.last + 1)]
        assert shown == list(range(len(run)))
        assert view.ops == len(run)
        for node in view.nodes:
            outcomes = {run.outcomes[at].errno for at in range(node.first, node.last + 1)}
            assert bool(node.errno) == (outcomes != {None})
            assert (node.glyph == "rejected") == bool(node.errno)
            assert node.title
        now = [node for node in view.nodes if node.tense == "now"]
        assert [node.first for node in now if node.first == node.last] == ([moment.stop.op] if now else [])
        if moment.stop.op >= 0:
            assert view.nodes[view.open_after].first <= moment.stop.op <= view.nodes[view.open_after].last


def test_a_long_run_is_shown_around_the_cursor():
    run = run_of("v6_12", *(SLOT, MOVE) * 500)

    for at in (0, 1, NEIGHBOURS, 500, 999):
        view = select_timeline(run, moment_at(run, Stop(at, 0)))

        shown = [op for node in view.nodes for op in range(node.first, node.last + 1)]
        assert shown == list(range(view.hidden_before, 1000 - view.hidden_after))
        assert shown[0] <= max(at - NEIGHBOURS, 0)
        assert shown[-1] >= min(at + NEIGHBOURS, 999)
        assert len(shown) <= 2 * NEIGHBOURS + STRETCH


def test_the_line_stands_still_while_the_cursor_moves_through_a_stretch():
    run = run_of("v6_12", *(SLOT, MOVE) * 500)

    lines = {(view.hidden_before, view.hidden_after) for view in map(partial(line_at, run), range(480, 504))}

    assert len(lines) == 1
    assert line_at(run, 504).hidden_before == line_at(run, 503).hidden_before + STRETCH


def test_slots_made_one_after_another_are_one_stack():
    lines = [f"set_region slot={n} gpa={n << 20:#x} size=0x1000 hva=0x7f0000000000" for n in range(5)]
    run = run_of("v6_12", *lines, "attach kind=kvmgt")

    view = select_timeline(run, moment_at(run, run.last_stop))

    assert [(node.title, node.detail) for node in view.nodes] == [("Create", "5 slots"), ("Attach", "KVMGT")]


def test_a_composed_operation_stands_at_the_end_as_a_question():
    run = run_of("v6_12", *KVMGT)
    ghost = look_inside(run.end, parse_command(MOVE), len(run))

    view = select_timeline(run, moment_at(run, run.last_stop, ghost=ghost))

    assert (view.nodes[-1].title, view.nodes[-1].ghost, view.nodes[-1].errno) == ("MOVE?", True, "")
    assert not any(cell.refused for cell in view.cells), "where it is refused is not marked before it is applied"
    assert len(view.cells) == len(ghost.cells)


def test_the_window_of_the_invalid_slot_is_marked():
    run = run_of("v6_12", *KVMGT, MOVE)

    assert select_timeline(run, moment_at(run, run.last_stop)).invalid == (3, 5)


def test_an_empty_run_has_an_empty_line():
    run = Run(run_of("v6_12").start)
    view = select_timeline(run, moment_at(run, run.last_stop))

    assert (view.nodes, view.sub, view.cells) == ((), "none yet", ())
