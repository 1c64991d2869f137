"""The guided story of the thread, beat by beat: each opens from cold, says what to look for, and makes its point.

The points are asserted from the engine's state; what they should be is told by the kernel (kernel-reference 5.6,
6.5, 6.6, 10 and 11.3), not by what the page shows.
"""

from itertools import product

import pytest

from explorer.app import addresses, telling
from explorer.app import state as actions
from explorer.engine.commands import (
    AttachTracker,
    DetachTracker,
    GuestWrite,
    ShadowTables,
    TrackGfn,
    UntrackGfn,
    parse_command,
)
from explorer.engine.events import (
    ArrayAllocated,
    ArrayFreed,
    GuestWriteServed,
    KernelWarned,
    MappingsZapped,
    MemslotsPublished,
    TrackerNotified,
    WriteUntracked,
)
from explorer.engine.invariants import INVARIANTS, violations
from explorer.engine.state import WriteTrack
from explorer.history import Stop
from explorer.scenarios import guided, load_scenario, scenario_names
from explorer.scenarios.runner import run_of

BEATS = tuple(scenario.id for scenario in guided())
EVERY = pytest.mark.parametrize("name", BEATS)


def told(name, profile=None):
    """Return the run of a beat with its composed operation applied, on its own kernel or on another."""
    scenario = load_scenario(name)
    run = run_of(scenario).then(scenario.next)
    return run.on(profile, scenario.config) if profile else run


def cells(run):
    return run.detail(len(run) - 1).cells


def step_of(run, event_type, **fields):
    """Return the number of the step of the last operation in which an event happens."""
    found = [
        number
        for number, cell in enumerate(cells(run), 1)
        for event in cell.events
        if isinstance(event, event_type) and all(getattr(event, name) == value for name, value in fields.items())
    ]
    assert found, f"no {event_type.__name__} in the last operation"
    return found[0]


def counts(kvm, slot_id=10):
    slot = kvm.slot(slot_id)
    array = kvm.heap[slot.arch.gfn_write_track]
    assert isinstance(array, WriteTrack)
    return {slot.base_gfn + index: n for index, n in array.counts.items()}


# -- all of them -----------------------------------------------------------------------------------


def test_the_beats_are_numbered_without_a_gap():
    assert [load_scenario(name).beat for name in BEATS] == list(range(1, 10))


@pytest.mark.parametrize("name", scenario_names())
def test_a_story_says_what_to_look_for_in_one_or_two_sentences_that_fit_a_line(name):
    scenario = load_scenario(name)

    for look in filter(None, (scenario.look, scenario.then)):
        assert look[0].isupper()
        assert look[-1] in ".?"
        assert len(look) <= 130


@pytest.mark.parametrize("name", scenario_names())
def test_a_story_opens_from_cold_by_its_address(name):
    scenario = load_scenario(name)

    opened = addresses.from_link(actions.initial_state(), {"story": name})

    assert (opened.title, opened.machine.profile) == (scenario.title, scenario.profile.name)
    assert opened.stop == (scenario.at or run_of(scenario).last_stop)
    assert opened.notice is None


@EVERY
def test_every_step_of_a_beat_has_an_address(name):
    run = told(name)
    opening = actions.initial_state()

    for cell in range(len(run.detail(len(run) - 1).cells)):
        address = {"story": name, "at": f"{len(run)}.{cell + 1}"}
        opened = addresses.from_link(opening, address)
        assert (opened.stop, opened.run) == (Stop(len(run) - 1, cell), run)
        assert addresses.to_link(opened) == address


def test_a_run_of_ones_own_gets_an_address_of_its_own():
    changed = actions.set_tracker(actions.load("inside-the-move", view=actions.View()), "kvmgt")

    link = addresses.to_link(changed)

    assert "story" not in link
    assert addresses.from_link(actions.initial_state(), link).run == changed.run


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ({"story": "nowhere"}, "no scenario is called 'nowhere'"),
        ({"story": "first-look", "at": "soon"}, "at='soon' is no place in a run"),
    ],
)
def test_an_address_that_cannot_be_is_told_and_changes_nothing(address, words):
    before = actions.initial_state()

    after = addresses.from_link(before, address)

    assert words in after.notice.text
    assert (after.run, after.stop, after.source) == (before.run, before.stop, before.source)


def test_the_beats_are_turned_like_pages_and_the_ends_hold():
    state = actions.initial_state()
    names = []
    for _ in range(len(BEATS) + 1):
        names.append(state.source)
        state = telling.turn(state, 1)

    assert names == [*BEATS, BEATS[-1]]
    assert telling.turn(actions.initial_state(), -1).source == BEATS[0]


# -- one by one ------------------------------------------------------------------------------------


def test_1_the_question_has_three_watches_and_its_answer_is_gone():
    opening = actions.initial_state()

    assert opening.question
    assert sum(counts(opening.kvm).values()) == 3
    assert telling.truth(opening) == 3


def test_2_inside_the_move_the_new_array_is_empty_and_the_old_one_is_freed_last():
    run = told("inside-the-move")
    old = run.detail(len(run) - 1).before.slot(10).arch.gfn_write_track
    made = step_of(run, ArrayAllocated, kind="gfn_write_track")

    assert len(cells(run)) >= 8
    assert load_scenario("inside-the-move").at == Stop(len(run) - 1, made - 1)
    assert cells(run)[made - 1].kvm.pending.new.arch.gfn_write_track != old
    assert counts(run.end) == {}
    assert step_of(run, ArrayFreed, array=old) > [n for n, c in enumerate(cells(run), 1) if c.swaps][-1]


def test_3_nobody_noticed_because_the_zap_returns_every_watch_before_the_new_array_exists():
    run = told("why-nobody-noticed")
    zap = step_of(run, MappingsZapped, scope="all")

    assert load_scenario("why-nobody-noticed").at == Stop(len(run) - 1, zap - 1)
    assert len([e for e in cells(run)[zap - 1].events if isinstance(e, WriteUntracked)]) == 3
    assert zap < step_of(run, ArrayAllocated, kind="gfn_write_track")
    assert step_of(run, ArrayFreed, kind="gfn_write_track", held=0) > zap


def test_4_with_kvmgt_attached_the_same_move_leaves_guest_writes_unseen():
    run = told("before-the-patch")
    write = load_scenario("before-the-patch").steps[-1].do
    moved = GuestWrite(gpa=write.gpa + (run.end.slot(10).base_gfn - 0xD0000 << 12), nbytes=8)

    seen = run.detail(len(run) - 2).step.events
    missed = run.then(moved).detail(len(run)).step.events

    assert run.outcomes[-1].errno is None
    assert [e.outcome for e in seen if isinstance(e, GuestWriteServed)] == ["emulated"]
    assert [e.callback for e in seen if isinstance(e, TrackerNotified)] == ["track_write"]
    assert [e.outcome for e in missed if isinstance(e, GuestWriteServed)] == ["ram"]
    assert not [e for e in missed if isinstance(e, TrackerNotified)]
    assert dict(run.end.trackers[0].page_track_tree.items())[0xD0003]  # KVMGT believes it is told


def test_5_the_refusal_comes_after_a_window_two_swaps_and_a_zap():
    run = told("rejected-is-not-free")
    refused = next(n for n, cell in enumerate(cells(run), 1) if cell.refused)
    swaps = [n for n, cell in enumerate(cells(run), 1) for e in cell.events if isinstance(e, MemslotsPublished)]

    assert run.outcomes[-1].errno.name == "EINVAL"
    assert len(swaps) == 2
    assert swaps[0] < step_of(run, MappingsZapped, scope="all") < refused < swaps[1]
    assert cells(run)[swaps[0] - 1].kvm.slot(10).invalid
    assert cells(run)[-1].kvm.slot(10) == run.detail(len(run) - 1).before.slot(10)


def test_6_a_slot_that_nobody_watches_is_refused_too_and_before_the_patch_nothing_is_harmed():
    after, before = told("abi-worry"), told("abi-worry", "v6_1")
    opening = before.detail(len(before) - 1).before

    assert counts(opening) == {}
    assert (after.outcomes[-1].errno.name, after.outcomes[-1].refused_by) == ("EINVAL", "external_user")
    assert before.outcomes[-1].errno is None
    assert before.end.trackers == opening.trackers
    assert counts(before.end, 9) == counts(opening, 9) == {0x8000: 1}


@pytest.mark.parametrize("profile", ["v6_6_posted", "v6_6"])
@pytest.mark.parametrize("built_in", [True, False])
@pytest.mark.parametrize("attached", [True, False])
def test_7_as_posted_two_of_three_verdicts_are_wrong(profile, built_in, attached):
    scenario = load_scenario("inverted-check")
    config = type(scenario.config)(tdp=False, external_write_tracking=built_in)
    run = run_of(scenario).on(profile, config)
    if attached:
        run = run.then(AttachTracker(kind="kvmgt"))
    if attached and not built_in:
        assert run.outcomes[-1].errno.name == "ENODEV"  # cannot be attached: no such cell
        return

    refused = run.then(scenario.next).outcomes[-1].errno is not None

    assert refused == (built_in and attached if profile == "v6_6" else built_in and not attached)


def test_8_as_first_queued_the_quirk_breaks_a_property_and_with_its_fix_none():
    queued, fixed = told("never-trust-a-because"), told("never-trust-a-because", "v6_12")

    broken = [v for each in INVARIANTS for v in each.check(queued.end)]

    assert {v.invariant for v in broken} == {"no SPTE maps through an INVALID or dead slot"}
    assert step_of(queued, ArrayFreed, kind="gfn_write_track", held=3)
    assert violations(fixed.end) == ()
    assert [e.scope for e in fixed.detail(len(fixed) - 1).step.events if isinstance(e, MappingsZapped)] == ["slot"]
    assert step_of(fixed, ArrayFreed, kind="gfn_write_track", held=0)


def test_8_what_survives_is_given_back_to_arrays_that_never_had_it():
    # kernel-reference 5.6 (i): the next zap of everything finds no slot at the old gfns.
    gone = told("never-trust-a-because").then(parse_command("enable_cap cap=213 arg=0"))
    kvm = gone.end._replace(disabled_quirks=0)
    again = type(gone)(kvm, [parse_command("set_region slot=10 gpa=0 size=0")])

    warned = [e for e in again.detail(0).step.events if isinstance(e, KernelWarned)]

    assert {e.function for e in warned} == {"unaccount_shadowed"}


def _misses(run, write):
    step = run.then(write).detail(len(run)).step
    served = any(isinstance(e, GuestWriteServed) and e.outcome == "ram" for e in step.events)
    believes = 0xD0003 in run.end.trackers[0].page_track_tree and run.end.trackers[0].attached
    return served and believes


def test_9_your_turn_can_be_won_with_two_calls_and_not_with_one():
    scenario = load_scenario("your-turn")
    run = run_of(scenario)
    region = "set_region slot=10 gpa={gpa} size={size} hva=0x100000000000"
    calls = [
        *(parse_command(region.format(gpa=gpa, size=size)) for gpa, size in (("0xd0200000", "0x20000"), ("0", "0"))),
        *(parse_command(region.format(gpa="0xd0000000", size=size)) for size in ("0x20000", "0x20000 flags=log")),
        AttachTracker(kind="kvmgt"),
        DetachTracker(user=0),
        TrackGfn(user=0, gfn=0xD0003),
        UntrackGfn(user=0, gfn=0xD0003),
        ShadowTables(gfn=0xD0010, levels=4),
    ]

    def wins(*commands):
        after = run.then(*commands)
        allowed = all(outcome.errno is None for outcome in after.outcomes)
        return allowed and _misses(after, scenario.next)

    assert not _misses(run, scenario.next)
    assert not any(wins(call) for call in calls)
    assert (calls[1], calls[2]) in [pair for pair in product(calls, repeat=2) if wins(*pair)]
