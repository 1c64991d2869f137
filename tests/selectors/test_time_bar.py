"""Where the time of a call went, as a kernel's own tracer recorded it."""

import gzip
import json
from pathlib import Path

import pytest
from runs import DELETE, KVMGT, LOG_ON, MOVE, SLOT, WATCHED, end_of, run_of

from explorer.selectors.time_bar import select_time_bar

TREES = Path(__file__).parents[2] / "assets/recordings/6.12/npt0/trace/call_trees.json.gz"
CALLERS = ("__kvm_set_memory_region", "kvm_set_memslot")


def bar(profile, *lines, **config):
    return select_time_bar(end_of(run_of(profile, *lines, **config)))


def test_the_bar_of_a_late_refusal_is_that_of_the_recorded_one():
    # The judge is the recording itself: 6.12 with shadow paging, a MOVE refused because of a tracker, something mapped.
    trees = json.loads(gzip.decompress(TREES.read_bytes()))
    (root,) = next(tree["tree"] for tree in trees if tree["label"] == "move_mapped_with_external_tracker")
    inside = root["children"]
    while not any(node["fn"] == "kvm_arch_flush_shadow_memslot" for node in inside):
        inside = next(
            node["children"] for node in inside if node["fn"] in ("__kvm_set_memory_region", "kvm_set_memslot")
        )
    us = {node["fn"]: node["us"] for node in inside}

    found = bar("v6_12", *KVMGT, MOVE)

    assert found.chip == "recorded on 6.12, npt0"
    assert [part.role for part in found.parts] == ["swap", "zap", "check", "swap", "rest"]
    widths = [float(part.width.removesuffix("%")) for part in found.parts]
    assert sum(widths) == pytest.approx(100, abs=0.01)
    assert widths[1] == pytest.approx(100 * us["kvm_arch_flush_shadow_memslot"] / root["us"], abs=0.01)
    assert found.check == f"the check itself: {us['kvm_arch_prepare_memory_region']:.1f} µs"


def test_beside_it_stands_what_the_same_kernel_took_to_refuse_for_free():
    assert bar("v6_12", *KVMGT, MOVE).early == "−EEXIST, found early: 48 µs in all"
    assert bar("v6_12", *WATCHED, MOVE).early == ""


def test_an_accepted_move_has_no_check_in_its_bar_but_new_and_freed_arrays():
    found = bar("v6_1", *WATCHED, MOVE)

    assert [part.told.partition(",")[0] for part in found.parts] == [
        *("swap", "zap", "allocate", "swap", "free old", "the rest"),
    ]
    assert found.check == ""


@pytest.mark.parametrize(
    ("profile", "lines", "config"),
    [
        ("v6_12", (SLOT,), {}),
        ("v6_12", (SLOT, LOG_ON), {}),
        ("v6_12", (SLOT, SLOT.replace("slot=10", "slot=11")), {}),
        ("v6_6", (*WATCHED, MOVE), {}),
        ("v7_3", (*KVMGT, MOVE), {}),
    ],
    ids=["CREATE", "flags", "refused for free", "no graph of 6.6", "7.3 was recorded with nested paging only"],
)
def test_no_bar_is_drawn_of_what_was_not_recorded(profile, lines, config):
    assert bar(profile, *lines, **config) is None


def test_a_deletion_prepares_nothing():
    assert "prepare" in [part.told.partition(",")[0] for part in bar("v6_12", *WATCHED, DELETE).parts]
