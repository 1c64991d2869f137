"""The claims of the thread: each that the model can show opens a state in which the stated fact is so.

What the facts are is told by kernel-reference 6.5, 6.6, 10 and 11.3; they are asserted from the engine's state.
"""

import re

import pytest

from explorer.app import state as actions
from explorer.app import telling
from explorer.engine.commands import AttachTracker, GuestWrite
from explorer.engine.events import (
    ArrayAllocated,
    ArrayFreed,
    GuestWriteServed,
    MappingsZapped,
    TrackerForgot,
    TrackerNotified,
    WriteUntracked,
)
from explorer.engine.invariants import get_invariant
from explorer.engine.state import WriteTrack
from explorer.explain.claims import CLAIMS, claim_named
from explorer.scenarios import load_scenario

SHOWN = [claim for claim in CLAIMS if claim.shown is not None]


def shown(name):
    """Return the state a claim opens, its last operation, and what happened in the step it stops at."""
    state = telling.show_claim(actions.initial_state(), name)
    op = state.run.detail(state.stop.op)
    return state, op, op.cells[state.stop.cell].events


def of(event_type, events, **fields):
    return [e for e in events if isinstance(e, event_type) and all(getattr(e, k) == v for k, v in fields.items())]


def counts(kvm, slot_id=10):
    slot = kvm.slot(slot_id)
    array = kvm.heap[slot.arch.gfn_write_track]
    assert isinstance(array, WriteTrack)
    return {slot.base_gfn + index: n for index, n in array.counts.items()}


# -- the list --------------------------------------------------------------------------------------


def test_a_claim_is_shown_exactly_if_it_is_no_opinion():
    assert [c.name for c in CLAIMS if (c.shown is None) != (c.kind == "opinion")] == []
    assert [c.name for c in CLAIMS if c.kind != "proved" and not c.rests_on] == []


def test_names_are_unique_and_messages_are_those_of_the_archive():
    assert len({claim.name for claim in CLAIMS}) == len(CLAIMS)
    for claim in CLAIMS:
        assert re.fullmatch(r"[\w+.-]+@[\w.-]+", claim.message)
        assert re.fullmatch(r"https://lore\.kernel\.org/r/[\w%.@-]+", claim.url)


def test_every_fact_has_its_test():
    tests = [name for name in globals() if name.startswith("test_fact_")]

    assert sorted(tests) == sorted(f"test_fact_{claim.name.replace('-', '_')}" for claim in SHOWN)


@pytest.mark.parametrize("claim", SHOWN, ids=lambda claim: claim.name)
def test_a_claim_opens_its_state_and_the_way_back_is_kept(claim):
    before = actions.initial_state()

    opened = telling.show_claim(before, claim.name)

    op, cell = claim.shown.at.split(".")
    assert (opened.stop.op + 1, opened.stop.cell + 1) == (int(op), int(cell))
    assert opened.stop.op == len(opened.run) - 1
    assert claim.basis.holds(opened.kvm.profile)
    assert opened.notice.text.startswith(claim.words)
    assert actions.restore_earlier(opened).run == before.run


@pytest.mark.parametrize("name", ["nothing", "wish"])
def test_a_claim_that_cannot_be_shown_is_told_and_changes_nothing(name):
    before = actions.initial_state()

    after = telling.show_claim(before, name)

    assert "can be shown" in after.notice.text
    assert (after.run, after.stop) == (before.run, before.stop)


# -- the facts -------------------------------------------------------------------------------------


def test_fact_speculative_flush():
    state, op, _ = shown("speculative-flush")
    events = op.step.events

    assert op.step.refused_by.name == "max_gfn"
    assert of(TrackerNotified, events, callback="track_flush_slot")
    assert of(TrackerForgot, events)[0].gfns == (0xD0003, 0xD0010)
    assert state.kvm.slot(10) == op.before.slot(10)
    assert counts(op.before) != {}
    assert counts(state.kvm) == {}


def test_fact_kvmgt_does_not_follow():
    state, op, _ = shown("kvmgt-does-not-follow")
    write = GuestWrite(gpa=0xD0203000, nbytes=8)  # where page 3 of the slot is now

    step = state.run.then(write).detail(len(state.run)).step

    assert op.step.errno is None
    assert state.kvm.trackers[0].page_track_tree[0xD0003]
    assert of(GuestWriteServed, step.events)[0].outcome == "ram"
    assert not of(TrackerNotified, step.events)


def test_fact_refused_while_attached():
    state, op, _ = shown("refused-while-attached")

    assert state.kvm.track_notifiers == (0,)
    assert (op.step.errno.name, op.step.refused_by.name) == ("EINVAL", "external_user")


def test_fact_abi_caveat():
    state, op, _ = shown("abi-caveat")
    before = state.run.on("v6_1", state.machine.config)

    assert op.step.errno.name == "EINVAL"
    assert counts(op.before) == {}
    assert before.outcomes[-1].errno is None
    assert before.end.trackers == op.before.trackers


def test_fact_move_was_broken():
    state, op, _ = shown("move-was-broken")

    assert op.step.errno is None
    assert state.kvm.slot(10).arch == op.before.slot(10).arch
    assert get_invariant(6).check(op.before) == get_invariant(7).check(op.before) == ()
    assert get_invariant(7).check(state.kvm) != ()


def test_fact_new_array_is_empty():
    state, op, events = shown("new-array-is-empty")
    made = of(ArrayAllocated, events, kind="gfn_write_track", slot=10)

    assert len(made) == 1
    assert list(state.kvm.heap[made[0].array].counts.items()) == []
    assert made[0].array != op.before.slot(10).arch.gfn_write_track


def test_fact_old_array_is_freed():
    state, op, events = shown("old-array-is-freed")

    assert of(ArrayFreed, events, array=op.before.slot(10).arch.gfn_write_track)
    assert state.kvm.slot(10).base_gfn == 0xD0001


def test_fact_not_tracked_any_more():
    state, op, _ = shown("not-tracked-any-more")

    assert counts(op.before) == {0xD0010: 1, 0xD0011: 1, 0xD0012: 1}
    assert counts(state.kvm) == {}


def test_fact_works_because_of_the_zap():
    state, op, events = shown("works-because-of-the-zap")
    after = [e for cell in op.cells[state.stop.cell + 1 :] for e in cell.events]

    assert of(MappingsZapped, events, scope="all")
    assert len(of(WriteUntracked, events)) == 3
    assert of(ArrayAllocated, after, kind="gfn_write_track")
    # Without its condition it does not hold: beat 8.
    scenario = load_scenario("never-trust-a-because")
    other = actions.load(scenario.id, view=state.view)
    assert of(ArrayFreed, other.run.detail(other.stop.op).step.events, kind="gfn_write_track")[0].held == 3


def test_fact_loss_is_benign():
    state, op, _ = shown("loss-is-benign")

    assert of(ArrayFreed, op.step.events, kind="gfn_write_track")[0].held == 0
    assert state.kvm.indirect_shadow_pages == 0
    # Without its condition it does not hold: a tracker that logs loses its watches on the same kernel's 6.1.
    logging = actions.load("watches-lost", view=state.view)
    moved = actions.apply_composed(logging).run
    assert of(ArrayFreed, moved.detail(len(moved) - 1).step.events, kind="gfn_write_track")[0].held == 2


def test_fact_selftests_break():
    state, op, _ = shown("selftests-break")
    attached = state.run.up_to(len(state.run) - 1).then(AttachTracker(kind="kvmgt"), op.command)

    assert state.kvm.track_notifiers == ()
    assert op.step.refused_by.name == "external_user"
    assert attached.outcomes[-1].errno is None


def test_fact_it_should_not():
    state, op, _ = shown("it-should-not")

    assert state.kvm.track_notifiers == ()
    assert op.step.errno is None
    posted = state.run.on("v6_6_posted", type(state.machine.config)(tdp=False, external_write_tracking=False))
    assert posted.outcomes[-1].errno is None
    assert claim_named("it-should-not").kind == "conditional"
