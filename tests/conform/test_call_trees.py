"""The kernel functions the engine says it enters are those a real kernel entered, in the same order."""

import itertools

import pytest
from call_trees import OPERATIONS, TREES, entered, played, where
from hypothesis import given
from hypothesis import strategies as st

from explorer.conform.call_trees import (
    INLINED,
    INLINED_IN,
    KINDS,
    align,
    entered_functions,
    graphs_of,
    machine_of,
    nearest,
    newest_name,
    shown_by,
)
from explorer.engine.profile import profile_of_release
from explorer.explain.sources import FUNCTIONS, name_in

KNOWN = entered_functions()


def left_out(path, label):
    """Functions a real kernel enters more often: with TDP it zaps direct shadow pages, of which we have the entries."""
    _, variant = where(path)
    shadow_paging = variant in ("npt0", "intel-ept0")
    return set() if shadow_paging or not KINDS[label].mapped else {"__kvm_mmu_prepare_zap_page"}


def inlined(label):
    """Functions that graphs show elsewhere, and that the compiler put into their caller in this change."""
    return {function for function, changes in INLINED_IN.items() if KINDS[label].change in changes}


def name(path):
    return "-".join(where(path))


@pytest.mark.parametrize("label", OPERATIONS)
@pytest.mark.parametrize("path", TREES, ids=name)
def test_the_engine_enters_the_functions_a_real_kernel_entered(path, label):
    (recorded,) = (graph for graph in graphs_of(path) if graph.label == label)
    real = [function for function in recorded.functions if function in KNOWN]

    vm = played(path, label)

    ours = [function for function in entered(vm) if function in shown_by(path) - inlined(label)]
    assert vm.errno_name == recorded.errno
    assert ours == [function for function in real if function not in left_out(path, label)]


@pytest.mark.parametrize("path", TREES, ids=name)
def test_every_recorded_operation_is_compared(path):
    assert {graph.label for graph in graphs_of(path)} == set(OPERATIONS) == set(KINDS)


def test_enough_functions_are_compared():
    (path,) = (path for path in TREES if where(path) == ("7.3", "npt1"))

    assert len(shown_by(path) & KNOWN) > 15


def has_it_as_a_part(kernel, function):
    """Whether a kernel has one function for this one and another."""
    profile = profile_of_release(kernel)
    name = name_in(function, profile)
    others = {other for other in FUNCTIONS if other != function and name_in(other, profile) == name}
    return name != function and newest_name(name) != function and bool(others)


@pytest.mark.parametrize("kernel", INLINED)
def test_functions_are_called_inlined_that_a_recorded_operation_enters_and_no_graph_shows(kernel):
    hidden = {
        function
        for path in TREES
        if where(path)[0] == kernel
        for label in OPERATIONS
        for function in entered(played(path, label))
        if function not in shown_by(path)
    }

    assert INLINED[kernel] == {function for function in hidden if not has_it_as_a_part(kernel, function)}


@pytest.mark.parametrize("label", OPERATIONS)
@pytest.mark.parametrize("path", TREES, ids=name)
def test_the_table_of_kinds_says_what_the_recorded_operation_is(path, label):
    kind, vm = KINDS[label], played(path, label)
    before, command, step = vm.steps[-1]

    assert kind.command is type(command)
    assert step.errno is None or step.refused_by.name in kind.checks
    assert kind.change is step.change
    assert kind.tracker is bool(before.track_notifiers)
    # Without the capability there is nothing to switch off: on older kernels the same calls zap the whole VM.
    assert kind.quirk_off or not before.disabled_quirks


@pytest.mark.parametrize("label", OPERATIONS)
@pytest.mark.parametrize("path", TREES, ids=name)
def test_the_nearest_recording_of_a_recorded_operation_enters_the_same_functions(path, label):
    (recorded,) = (graph for graph in graphs_of(path) if graph.label == label)
    kernel, _ = where(path)
    refused = tuple(check for check in KINDS[label].checks if recorded.errno is not None)
    if label == "err_move_beyond_max_gfn" and kernel == "5.10":
        refused = ("overlap",)

    found = nearest(kernel, KINDS[label]._replace(checks=refused), machine_of(path), recorded.errno)

    known = entered_functions()
    assert found is not None
    assert [f for f in found.functions if f in known] == [f for f in recorded.functions if f in known]


words = st.lists(st.sampled_from("abcd"), max_size=12)


@given(words, words)
def test_pairs_are_of_one_function_and_in_both_orders_and_as_many_as_there_can_be(ours, recorded):
    pairs = align(ours, recorded)

    assert all(ours[n] == recorded[m] for n, m in pairs)
    assert all(a < c and b < d for (a, b), (c, d) in itertools.pairwise(pairs))
    assert len(pairs) == longest(tuple(ours), tuple(recorded))


def longest(one, other):
    """Say how long the longest common subsequence is, by its textbook recurrence, a row at a time."""
    row = [0] * (len(other) + 1)
    for letter in one:
        before = row
        row = [0]
        for at, against in enumerate(other):
            row.append(before[at] + 1 if letter == against else max(before[at + 1], row[at]))
    return row[-1]
