"""Words on broken invariants: which, where, through what, on which kernel; and how much was looked at."""

from __future__ import annotations

from runs import KVMGT, MOVE, SLOT, WATCHED, run_of

from explorer.engine.invariants import INVARIANTS, STEP_INVARIANTS, get_invariant
from explorer.figures.dom import to_text
from explorer.figures.invariants import broken_panel, violation_mark
from explorer.history.checks import Checks
from explorer.history.moment import moment_at
from explorer.selectors.invariants import first_sentence, near_of, select_invariants
from explorer.selectors.timeline import select_timeline

AT = len(KVMGT)


def looked_at(run, until=None):
    checks = Checks()
    checks.follow(run)
    near = range(-1, until) if until is not None else ()
    while checks.work(near, far=until is None):
        pass
    return checks


def test_a_broken_invariant_names_place_operation_function_and_kernel():
    run = run_of("v6_6_nocheck", *KVMGT, MOVE, "guest_write gpa=0xd0003000")
    view = select_invariants(run, looked_at(run), AT)

    (mark,) = view.marks
    assert (mark.op, mark.word) == (AT, "violation")
    assert f"“{get_invariant(11).name}” (I11)" in mark.text
    broken = dict(view.broken)
    (here,), (later,) = broken[AT], broken[AT + 1]
    # The slot left gfn 0xd0003, which the table still has: from 6.6 on only a DELETE empties it (kernel-reference 6.5).
    assert here.sentence.startswith("gfn 0xd0003: a slot expected, none found.")
    assert here.since == f"broken by operation {AT + 1}, MOVE of slot 10 by __kvm_set_memory_region()"
    assert here.why.startswith("Known of 6.6 without the test: a MOVE with KVMGT attached")
    assert (here.now, later.now) == (True, False)
    assert later.since == here.since


def test_a_broken_property_of_a_step_is_named_with_what_was_expected():
    run = run_of("v6_6_posted", SLOT, "attach kind=log", MOVE)
    view = select_invariants(run, looked_at(run), 2)

    ((_, (of_step,)),) = view.broken
    assert (of_step.number, of_step.now) == (22, True)
    assert of_step.sentence == "The whole VM: EINVAL expected, success found."
    assert of_step.why == "Known of 6.6 as posted: the kernel asks the opposite of what is meant."
    assert "“a MOVE beside an external tracker fails” (I22)" in view.marks[0].text


def test_where_the_kernel_has_no_such_check_the_count_of_invariants_is_without_it():
    # kernel-reference 9, I22: not claimed of 6.1.
    run = run_of("v6_1", *WATCHED, "attach kind=kvmgt", MOVE)
    view = select_invariants(run, looked_at(run), 3)
    n = len(INVARIANTS) + len(STEP_INVARIANTS) - 1

    assert (view.marks, view.broken) == ((), ())
    assert view.status == f"{n} of {n} invariants hold after operation 4 on 6.1."


def test_the_first_violation_is_called_that_only_when_everything_before_was_looked_at():
    run = run_of("v6_1", *KVMGT, MOVE, *("guest_write gpa=0x100000",) * 40)
    checks = Checks()
    checks.follow(run)
    while checks.first is None:
        assert checks.work(())

    assert first_sentence(run, checks).startswith("The earliest violation found so far (0 of 46 operations")
    assert first_sentence(run, looked_at(run)).startswith(
        f"The first violation on v6_1: operation {AT + 1}, MOVE of slot 10 by __kvm_set_memory_region() breaks"
    )


def test_a_run_without_violation_says_how_far_that_is_known():
    run = run_of("v6_12", *KVMGT, MOVE)

    assert first_sentence(run, looked_at(run)) == (
        f"No invariant is broken on v6_12: {len(INVARIANTS)} of states and {len(STEP_INVARIANTS)} of steps hold"
        " after each of 6 operations."
    )
    assert first_sentence(run, looked_at(run, until=2)).endswith(
        "hold after the first 2 operations of 6; later ones are not all looked at."
    )


def test_what_was_not_looked_at_is_said():
    run = run_of("v6_12", SLOT)
    checks = Checks()
    checks.follow(run)

    assert select_invariants(run, checks, 0).status == "Invariants are not evaluated here yet."
    n = len(INVARIANTS) + len(STEP_INVARIANTS)
    assert select_invariants(run, looked_at(run), 0).status == f"{n} of {n} invariants hold after operation 1 on 6.12."


def test_what_can_be_in_sight_is_looked_at_first_and_the_operation_before_it_with_it():
    run = run_of("v6_12", *(SLOT, MOVE) * 100)
    near = near_of(run, 100)

    assert near[0] == 100
    nodes = select_timeline(run, moment_at(run, run.end_of(100))).nodes
    shown = [at for node in nodes for at in (node.first, node.last)]
    assert set(shown) | {min(shown) - 1} <= set(near)
    assert len(near) == len(set(near))


def test_mark_and_panel_say_it_in_words():
    run = run_of("v6_1", *KVMGT, MOVE)
    view = select_invariants(run, looked_at(run), AT)

    assert to_text(violation_mark(view.marks[0])).strip() == "violation"
    text = to_text(broken_panel(dict(view.broken)[AT]))
    assert text.startswith("Broken here: I12")
    assert get_invariant(12).name in text
