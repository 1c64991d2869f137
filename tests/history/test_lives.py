"""Lives of slots: at every moment they are the slots the engine has, whichever operations there were."""

from hypothesis import example, given, settings
from hypothesis import strategies as st
from runs import MOVE, SLOT, random_runs, run_of

from explorer.engine.uapi import KvmMrChange
from explorer.history.lives import NEVER, NOTHING

INTEL = {"processor": "intel", "tdp": True, "unrestricted_guest": False}
AWAY = "set_region slot=10 gpa=0 size=0"
ELSEWHERE = "set_region slot=4 gpa=0xe0000000 size=0x20000 hva=0x100000000000"


def there_after(lives, op):
    """Return the slots that live at the end of an operation."""
    pairs = zip(lives.lives, lives.ends, strict=True)
    return sorted(tuple(life)[:6] for life, end in pairs if life.first <= op < end)


def slots_after(run, op):
    kvm = run.kvm_before(op + 1)
    return sorted(
        (as_id, s.id, s.base_gfn, s.npages, s.userspace_addr, s.flags)
        for as_id in range(len(kvm.memslots))
        for s in kvm.slots(as_id)
    )


@settings(max_examples=120)
@given(random_runs(30))
@example(run_of("v6_12", "create_irqchip", "create_vcpu", "set_tss_addr addr=0xfffbd000", "create_vcpu id=1", **INTEL))
@example(run_of("v6_12", SLOT, f"begin {MOVE}", *["advance"] * 12))
def test_what_lives_after_an_operation_are_the_slots_there_are(run):
    for op in range(-1, len(run)):
        assert there_after(run.lives, op) == slots_after(run, op)


@settings(max_examples=60)
@given(random_runs(30), st.integers(0, 30))
def test_a_run_that_goes_on_has_the_lives_of_one_made_at_once(run, n):
    shorter = run.up_to(min(n, len(run)))
    assert shorter.lives.ops == len(shorter)

    assert shorter.then(*run.commands[len(shorter) :]).lives == run.lives


def test_a_move_ends_one_life_and_begins_the_next():
    lives = run_of("v6_12", SLOT, MOVE).lives

    old, new = lives.lives
    assert (old.first, lives.ends[0], old.before) == (0, 1, NOTHING)
    assert (new.first, lives.ends[1], new.before) == (1, NEVER, 0)
    assert lives.of(KvmMrChange.MOVE) == (1,)


def test_host_memory_that_was_deleted_and_is_created_elsewhere_is_known_again():
    lives = run_of("v6_12", SLOT, AWAY, ELSEWHERE, "set_region slot=4 gpa=0 size=0", ELSEWHERE).lives

    assert [life.before for life in lives.lives] == [NOTHING, 0, NOTHING], "the last one is where it was"


def test_host_memory_that_is_still_in_use_elsewhere_was_not_recreated():
    lives = run_of("v6_12", SLOT, ELSEWHERE).lives

    assert [life.before for life in lives.lives] == [NOTHING, NOTHING]


def test_a_slot_that_a_refused_move_hid_for_a_while_lives_on():
    lives = run_of("v6_12", SLOT, "attach kind=log", MOVE).lives

    assert (len(lives.lives), lives.ends, lives.refused) == (1, (NEVER,), (2,))
