"""Random walks: the same seed walks the same way, and every walk can be replayed."""

import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from explorer.engine.apply import apply
from explorer.engine.config import VmConfig
from explorer.engine.profile import PROFILES
from explorer.engine.state import new_vm
from explorer.engine.types import ExplorerError
from explorer.history import Run
from explorer.scenarios import random_walk
from explorer.scenarios.walk import MOST_OPERATIONS


@given(seed=st.integers(0, 2**64 - 1), profile=st.sampled_from(sorted(PROFILES)), tdp=st.booleans())
@settings(max_examples=40)
def test_a_walk_is_as_long_as_asked_for_and_its_seed_gives_it_again(seed, profile, tdp):
    kvm = new_vm(profile, VmConfig(tdp=tdp))
    walked = random_walk(kvm, seed=seed, operations=40)

    assert len(walked) == 40
    assert random_walk(kvm, seed=seed, operations=40) == walked
    assert random_walk(kvm, seed=seed, operations=10) == walked[:10]
    assert len(Run(kvm, walked)) == 40


def test_a_walk_meets_most_of_what_can_happen():
    kvm = new_vm("v6_12", VmConfig(tdp=False))
    run = Run(kvm, random_walk(kvm, seed=1, operations=400))
    met = {outcome.change.value for outcome in run.outcomes if outcome.change is not None}
    errnos = {outcome.errno.name for outcome in run.outcomes if outcome.errno is not None}

    assert met == {"CREATE", "DELETE", "MOVE", "FLAGS_ONLY"}
    assert {"EINVAL", "EEXIST"} <= errnos
    assert sum(outcome.errno is None for outcome in run.outcomes) > len(run) / 2


@pytest.mark.parametrize("profile", ["v5_10", "v6_1", "v6_12", "v7_3"])
def test_a_snapshot_that_is_kept_after_each_operation_of_a_walk_takes_less_than_2_kib(profile):
    kvm = new_vm(profile, VmConfig(tdp=False))
    walked = random_walk(kvm, seed=1, operations=MOST_OPERATIONS)
    kept = []

    tracemalloc.start()
    for command in walked:
        kvm = apply(kvm, command, record=False).kvm
        kept.append(kvm)
    size, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert size / len(kept) < 2048


@pytest.mark.parametrize("operations", [0, -1, MOST_OPERATIONS + 1])
def test_a_walk_of_no_or_too_many_operations_is_not_begun(operations):
    with pytest.raises(ExplorerError, match="1 to 1000"):
        random_walk(new_vm("v6_12", VmConfig()), seed=1, operations=operations)
