"""The kernel functions the engine says it enters are those a real kernel entered, in the same order."""

import pytest
from call_trees import KNOWN, OPERATIONS, TREES, entered, graphs_of, played, shown_by, where


def left_out(path, label):
    """Functions a real kernel enters more often: with TDP it zaps direct shadow pages, of which we have the entries."""
    _, variant = where(path)
    shadow_paging = variant in ("npt0", "intel-ept0")
    return set() if shadow_paging or "mapped" not in label else {"__kvm_mmu_prepare_zap_page"}


def name(path):
    return "-".join(where(path))


@pytest.mark.parametrize("label", OPERATIONS)
@pytest.mark.parametrize("path", TREES, ids=name)
def test_the_engine_enters_the_functions_a_real_kernel_entered(path, label):
    (recorded,) = (graph for graph in graphs_of(path) if graph.label == label)
    real = [function for function in recorded.functions if function in KNOWN]

    vm = played(path, label)

    ours = [function for function in entered(vm) if function in shown_by(path)]
    assert vm.errno_name == recorded.errno
    assert ours == [function for function in real if function not in left_out(path, label)]


@pytest.mark.parametrize("path", TREES, ids=name)
def test_every_recorded_operation_is_compared(path):
    assert {graph.label for graph in graphs_of(path)} == set(OPERATIONS)


def test_enough_functions_are_compared():
    (path,) = (path for path in TREES if where(path) == ("7.3", "npt1"))

    assert len(shown_by(path) & KNOWN) > 15
