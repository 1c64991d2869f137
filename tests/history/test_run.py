"""Runs: every moment is what the engine makes of the commands, however one comes to it. Product rows 1, 5, 19, 20."""

from hypothesis import given, settings
from hypothesis import strategies as st
from runs import ALL_PROFILES, COMMAND, KVMGT, MOVE, SLOT, TABLES, WATCHED, random_runs, run_of

from explorer.engine.apply import apply
from explorer.engine.commands import Advance, Begin, SetMemoryRegion, parse_command
from explorer.engine.config import VmConfig
from explorer.engine.state import new_vm
from explorer.history import Run, Stop


def states_of(run):
    """Apply the commands one by one and keep every state, without a `Run`."""
    states = [run.start]
    for command in run.commands:
        states.append(apply(states[-1], command).kvm)
    return states


@settings(max_examples=60)
@given(random_runs(40))
def test_stepping_back_gives_the_very_states_that_stepping_forward_gave(run):
    forward = states_of(run)

    backward = [run.kvm_before(at) for at in range(len(run), -1, -1)]

    assert backward == forward[::-1]
    assert run.end == forward[-1]


@settings(max_examples=60)
@given(random_runs(12), st.randoms(use_true_random=False))
def test_a_look_inside_ends_where_the_operation_ends_and_leaves_nothing_out(run, shuffle):
    order, states = list(range(len(run))), states_of(run)
    shuffle.shuffle(order)

    for at in order:
        inside, step = run.detail(at), apply(states[at], run.commands[at])
        assert inside.before == run.kvm_before(at) == states[at]
        assert inside.cells[-1].kvm == step.kvm == run.kvm_before(at + 1)
        assert tuple(event for cell in inside.cells for event in cell.events) == step.events
        refused_by = None if step.refused_by is None else step.refused_by.name
        assert run.outcomes[at] == (step.errno, step.change, refused_by)


@settings(max_examples=60)
@given(random_runs(12))
def test_the_steps_inside_are_states_another_cpu_could_see(run):
    for at, command in enumerate(run.commands):
        if not isinstance(command, SetMemoryRegion):
            continue
        kvm, seen = apply(run.kvm_before(at), Begin(call=command)).kvm, []
        while kvm.pending is not None:
            kvm = apply(kvm, Advance()).kvm
            seen.append(kvm._replace(pending=None))

        steps = [cell.kvm._replace(pending=None) for cell in run.detail(at).cells]

        places = iter(seen)
        assert all(step in places for step in steps), "the steps are some of the states, in their order"


def test_an_operation_looked_into_long_ago_looks_the_same_again():
    run = run_of("v6_12", *(SLOT, MOVE) * 60)
    first = [run.detail(at) for at in range(len(run))]

    again = [run.detail(at) for at in range(len(run))]

    assert len(run) == 120
    assert again == first


def test_a_move_has_ten_steps_named_after_what_the_kernel_does():
    inside = run_of("v6_12", *WATCHED, MOVE).detail(2)

    assert [cell.word for cell in inside.cells] == [
        "check",
        "copy",
        "stage",
        "swap",
        "zap",
        "allocate",
        "stage",
        "swap",
        "free old",
        "return",
    ]
    assert [cell.swaps for cell in inside.cells] == [0, 0, 0, 1, 0, 0, 0, 1, 0, 0]  # kernel-reference 3.3: two


def test_a_refused_move_ends_with_the_old_slot_put_back():
    inside = run_of("v6_12", *KVMGT, MOVE).detail(5)

    assert [cell.word for cell in inside.cells][5:] == ["allocate", "roll back", "return"]
    assert [at for at, cell in enumerate(inside.cells) if cell.refused] == [5]
    assert sum(cell.swaps for cell in inside.cells) == 2


@settings(max_examples=40)
@given(random_runs(10), st.lists(COMMAND, max_size=8))
def test_a_longer_run_equals_one_made_at_once_and_leaves_the_shorter_as_it_was(run, more):
    before = (len(run), run.end, run.last_stop)

    longer = run.then(*more)

    at_once = Run(run.start, (*run.commands, *more))
    assert longer == at_once
    assert hash(longer) == hash(at_once)
    assert (longer.end, longer.outcomes, longer.last_stop) == (at_once.end, at_once.outcomes, at_once.last_stop)
    assert (len(run), run.end, run.last_stop) == before


@settings(max_examples=40)
@given(random_runs(20), st.integers(0, 25))
def test_a_branch_shares_its_beginning(run, n):
    branch = run.up_to(n)

    assert branch.commands == run.commands[:n]
    assert branch.end == run.kvm_before(min(n, len(run)))


def test_the_same_commands_on_another_kernel_begin_with_a_new_vm_of_it():
    run = run_of("v6_1", *KVMGT, MOVE)

    other = run.on("v6_12", VmConfig(tdp=True))

    assert other.start == new_vm("v6_12", VmConfig(tdp=True))
    assert other.commands == run.commands
    assert [run.outcomes[-1].errno, other.outcomes[-1].errno.name] == [None, "EINVAL"]
    assert other.outcomes[-1].refused_by == "external_user"


def test_runs_of_different_kernels_are_different():
    assert len({(profile, run_of(profile, SLOT).start.profile.name) for profile in ALL_PROFILES}) == len(ALL_PROFILES)
    assert run_of("v6_1", SLOT) != run_of("v6_12", SLOT)
    assert run_of("v6_12", SLOT) != run_of("v6_12", SLOT, TABLES)


def test_a_stop_outside_a_run_is_brought_back_to_the_nearest_one():
    run = run_of("v6_12", SLOT, MOVE)
    end = Stop(1, 9)

    assert run.last_stop == run.end_of(1) == end
    assert [run.clamp(stop) for stop in (Stop(-5, 3), Stop(0, 99), Stop(0, -2), Stop(1, 4), Stop(7, 0))] == [
        Stop(-1, 0),
        Stop(0, 5),
        Stop(0, 0),
        Stop(1, 4),
        end,
    ]
    assert run_of("v6_12").last_stop == Stop(-1, 0)


def test_stops_order_as_time_does():
    run = run_of("v6_12", SLOT, TABLES, MOVE)
    stops = [Stop(-1, 0)] + [Stop(op, cell) for op in range(3) for cell in range(len(run.detail(op).cells))]

    assert stops == sorted(stops)
    assert [run.kvm_at(stop) for stop in (stops[0], stops[-1])] == [run.start, run.end]


def test_a_refused_call_is_an_operation_that_changes_nothing():
    run = run_of("v6_12", SLOT, "set_region slot=10 gpa=0xd0000000 size=0x1001 hva=0x100000000000")

    assert run.outcomes[1][1:] == (None, "size_aligned")
    assert run.outcomes[1].errno.name == "EINVAL"
    assert run.end == run.kvm_before(1)


def test_commands_are_kept_as_they_were_given():
    lines = (SLOT, TABLES, MOVE)

    assert run_of("v6_12", *lines).commands == tuple(parse_command(line) for line in lines)


def test_two_branches_of_one_run_each_look_into_their_own_operation():
    run = run_of("v6_12", SLOT)
    moved, shadowed = run.then(parse_command(MOVE)), run.then(parse_command(TABLES))

    assert len(moved.detail(1).cells) == 10
    assert shadowed.detail(1).command == parse_command(TABLES)
    assert len(run) == 1
