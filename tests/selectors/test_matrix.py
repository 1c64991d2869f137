"""The verdict matrix. Judge: what is known of the test as posted and as merged, and kernel-reference 4.6.

| external write tracking | KVMGT | intended | as posted |
|---|---|---|---|
| not built in | cannot be | allowed | allowed |
| built in | no | allowed | −EINVAL |
| built in | yes | −EINVAL | allowed |
"""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from runs import DELETE, KVMGT, LOGGER, MOVE, REFUSES_A_MOVE, SLOT, WATCHED, random_runs, run_of

from explorer.engine.commands import SetMemoryRegion, parse_command
from explorer.engine.config import VmConfig
from explorer.history import Run
from explorer.history.machine import machine_of
from explorer.history.rerun import Reruns
from explorer.history.run import look_inside
from explorer.selectors.configurations import COLUMNS, ROWS, Call, built, call_at, commands_before
from explorer.selectors.matrix import select_matrix

REFUSED = "\N{MINUS SIGN}EINVAL"
BEFORE_6_6 = ("pre_edd4", "v5_10", "v6_1")


def matrix(profile, *lines, **config):
    run = run_of(profile, *lines, **config)
    call = call_at(run, len(run) - 1, None)
    assert call is not None
    return select_matrix(run, call)


def cells(view):
    return {(c.profile, c.built_in, c.attached): c for row in view.rows for c in row.cells}


def results(view, profile):
    """Return result or ``cannot be`` in the four columns."""
    return [cell.result or cell.word for row in view.rows if row.profile == profile for cell in row.cells]


@pytest.mark.parametrize("lines", [(*WATCHED, MOVE), (*KVMGT, MOVE), (*LOGGER, MOVE)], ids=["nobody", "KVMGT", "log"])
def test_the_posted_test_is_upside_down_in_two_of_three_configurations(lines):
    view = matrix("v6_12", *lines)

    assert results(view, "v6_6") == ["0", "cannot be", "0", REFUSED]
    assert results(view, "v6_6_posted") == ["0", "cannot be", REFUSED, "0"]
    assert view.finding == "As posted, 2 of 3 answers are not the intended ones"
    posted = next(row for row in view.rows if row.profile == "v6_6_posted")
    assert [cell.differs for cell in posted.cells] == [False, False, True, True]
    assert posted.loud
    assert sum(row.loud for row in view.rows) == 1


def test_a_build_without_tracking_cannot_show_the_mistake():
    view = matrix("v6_6_posted", *WATCHED, MOVE)

    assert view.shows == (
        "not built in, `kvm_page_track_has_external_user()` is a constant false: such a build cannot show it",
    )


@pytest.mark.parametrize("profile", ROWS)
def test_each_kernel_refuses_a_move_where_it_should(profile):
    view = cells(matrix("v6_12", *KVMGT, MOVE))

    assert (view[profile, True, True].result == REFUSED) == (profile in REFUSES_A_MOVE)
    assert (view[profile, True, False].result == REFUSED) == (profile == "v6_6_posted")
    # Before 6.6 the interface for external trackers does not hang on the build option.
    assert (view[profile, False, True].mark == "impossible") == (profile not in BEFORE_6_6)
    assert view[profile, False, False].result == "0"


def test_a_refused_move_is_not_free_and_a_bad_argument_is():
    late = cells(matrix("v6_12", *KVMGT, MOVE))["v6_12", True, True]
    early = cells(matrix("v6_12", SLOT, "set_region slot=10 gpa=0x1001 size=0x20000 hva=0x100000000000"))

    assert late.cost == "gen +4, zap all"
    assert {(cell.result, cell.cost) for cell in early.values() if cell.mark != "impossible"} == {(REFUSED, "free")}


def test_an_allowed_move_says_what_it_does_to_the_watches():
    """kernel-reference 5.6, 6.5: a logging tracker's are lost, KVMGT on 6.1 takes its own away when it is flushed."""
    logged, kvmgt = cells(matrix("v6_1", *LOGGER, MOVE)), cells(matrix("v6_1", *KVMGT, MOVE))

    assert logged["v6_1", True, True].word == "2 watches lost"
    assert kvmgt["v6_1", True, True].word == "2 watches dropped by KVMGT"
    assert kvmgt["v6_6_nocheck", True, True].word == "2 watches lost"
    assert logged["pre_edd4", True, True].word == "2 watches astray"
    assert logged["v6_1", True, False].word == "moved", "with the tracker left out nothing is lost"


def test_a_call_that_never_meets_the_test_gets_the_intended_answer_everywhere():
    view = matrix("v6_6_posted", *KVMGT, DELETE)

    assert view.title == "One DELETE, every configuration"
    assert view.finding == "As posted, all 3 answers are the intended ones: only a MOVE meets the test"
    assert not any(cell.differs for cell in cells(view).values())


def test_paging_is_named_where_it_changes_a_result():
    """arch/x86/kvm/x86.c: with TDP a slot must end within the host's address width; shadow paging has 52 bits."""
    far = f"set_region slot=10 gpa={1 << 40:#x} size=0x20000 hva=0x100000000000"
    view = cells(matrix("v6_12", SLOT, far, host_phys_bits=39))

    assert view["v6_12", True, False].result == "0"
    assert view["v6_12", True, False].variants == (f"TDP on: {REFUSED}",)
    assert view["v5_10", True, False].variants == (), "5.10 does not check the end gfn"


def test_the_page_s_own_configuration_is_marked_once():
    for lines, attached in ((WATCHED, False), (KVMGT, True)):
        here = [key for key, cell in cells(matrix("v7_3", *lines, MOVE)).items() if cell.here]
        assert here == [("v7_3", True, attached)]


def test_the_call_is_the_cursor_s_or_the_composed_one_or_the_last_before():
    run = run_of("v6_12", SLOT, "attach kind=kvmgt", MOVE, "guest_write gpa=0")
    ghost = look_inside(run.end, parse_command(DELETE), len(run))

    assert call_at(run, 2, None) == Call(2, run.commands[2], "operation 3 of 4")
    assert call_at(run, 3, None) == Call(2, run.commands[2], "operation 3, the last region call before operation 4")
    assert call_at(run, 3, ghost) == Call(4, ghost.command, "composed, not applied yet")
    assert call_at(run, 1, ghost).op == 0
    assert call_at(run, -1, None) is None


def test_what_was_not_replayed_yet_is_shown_as_such():
    run = run_of("v6_12", *WATCHED, MOVE)
    reruns = Reruns()
    reruns.follow(run.commands)
    view = select_matrix(run, call_at(run, 2, None), reruns)

    assert view.pending == len(ROWS) * len(COLUMNS)
    assert {cell.mark for cell in cells(view).values()} == {"pending"}
    assert view.finding == ""


@settings(max_examples=25)
@given(random_runs(10))
def test_a_cell_is_what_the_run_it_stands_for_really_comes_to(run):
    ops = [at for at, command in enumerate(run.commands) if isinstance(command, SetMemoryRegion)]
    call = call_at(run, ops[-1], None)
    view = select_matrix(run, call)

    for (profile, built_in, attached), cell in cells(view).items():
        if cell.mark == "impossible":
            continue
        machine = built(machine_of(run.start).on(profile), built_in=built_in)
        before = commands_before(run, call, machine, attached=attached)
        there = Run(machine.start(), (*before, call.command))
        errno = there.outcomes[-1].errno
        assert cell.result == ("0" if errno is None else f"\N{MINUS SIGN}{errno.name}")
        assert any(t.attached for t in there.end.trackers.values()) == attached


def test_the_config_of_the_run_is_kept_but_for_what_a_column_says():
    view = matrix("v6_12", *WATCHED, MOVE, host_phys_bits=40, external_write_tracking=False)

    assert [key for key, cell in cells(view).items() if cell.here] == [("v6_12", False, False)]
    assert built(machine_of(run_of("v6_12", host_phys_bits=40).start), built_in=False).config == VmConfig(
        host_phys_bits=40, external_write_tracking=False
    )
