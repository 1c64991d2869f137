"""The calls of an operation beside the recorded ones: what is matched, what is not, and what is said of it.

The judge is what the kernel's tracer recorded; counts in claims are counted here in the recording itself.
"""

from __future__ import annotations

from time import perf_counter

import pytest
from runs import ALL_PROFILES

from explorer.conform.call_trees import KINDS, graphs_of, recorded_files
from explorer.engine.events import Called
from explorer.history import Run, Stop
from explorer.selectors.calls import CallRow, CallRun, CallsView, select_calls
from explorer.show import play, tell

SLOT = "set_region slot=1 gpa=0x100000 size=0x10000 hva=0x7f0000000000"
MOVE = "set_region slot=1 gpa=0x200000 size=0x10000 hva=0x7f0000000000"
OTHER = "set_region slot=2 gpa=0x400000 size=0x10000 hva=0x7f0000000000"
DELETE = "set_region slot=1 gpa=0x100000 size=0 hva=0x7f0000000000"


def at_the_end(text: str, profile: str = "v6_12", **config: bool) -> CallsView:
    run = play(text, profile=profile, **config)
    return select_calls(run, run.last_stop)


def flat(view: CallsView) -> list[CallRow]:
    return [row for each in view.rows for row in (each.rows if isinstance(each, CallRun) else (each,))]


def graph(kernel: str, variant: str, label: str) -> list[str]:
    (path,) = (path for path in recorded_files() if path.parts[-4:-2] == (kernel, variant))
    (found,) = (graph for graph in graphs_of(path) if graph.label == label)
    return [call.function for call in found.calls]


def test_a_move_like_the_recorded_one_has_every_call_in_its_order() -> None:
    run = play(f"{SLOT}\n{MOVE}", profile="v6_12", tdp=True)
    called = sum(isinstance(event, Called) for event in run.detail(1).step.events)

    view = select_calls(run, run.last_stop)

    shown = [row.recorded.function for row in flat(view) if row.recorded is not None]
    assert view.chip == "recorded on 6.12, npt1"
    assert shown == graph("6.12", "npt1", "move_accepted")
    both = [row for row in flat(view) if row.mark == "both"]
    inlined, left_out = called - len(both), len(shown) - len(both)
    assert view.claim == (
        f"All {called} calls of the model: {len(both)} in this order in what 6.12 recorded, {inlined} inlined there;"
        f" {left_out} more that the model leaves out"
    )
    assert all(row.model.function == row.recorded.function for row in both if row.model and row.recorded)
    assert view.why == "recorded: a MOVE; in a VM like this one"


def test_every_call_of_the_model_has_its_line_in_its_order_and_its_step() -> None:
    run = play(f"{SLOT}\n{MOVE}", profile="v7_3")
    op = run.detail(1)

    view = select_calls(run, Stop(1, 4))

    ours = [row.model.function for row in flat(view) if row.model is not None]
    assert ours == [event.function for cell in op.cells for event in cell.events if isinstance(event, Called)]
    steps = [row.step for row in flat(view) if row.step]
    assert steps == ["check", "copy", "stage", "swap", "zap", "allocate", "stage", "swap", "free old", "return 0"]
    assert {row.now for row in flat(view) if row.step == "zap"} == {True}
    of_the_zap = [row.model.function for row in flat(view) if row.now and row.model is not None]
    assert of_the_zap == [event.function for event in op.cells[4].events if isinstance(event, Called)]


def test_a_refused_move_is_beside_a_refused_one() -> None:
    view = at_the_end(f"{SLOT}\nattach user=0 kind=log\n{MOVE}", "v6_12")

    assert "−EINVAL" in view.why
    assert "a MOVE with a tracker attached" in view.why
    assert [row.step for row in flat(view) if row.step][-3:] == ["refuse", "roll back", "return"]
    assert "kvm_page_track_create_memslot" not in [row.recorded.function for row in flat(view) if row.recorded]


def test_what_the_compiler_inlined_is_said_to_be_inlined_and_not_to_be_missing() -> None:
    rows = {row.model.function: row for row in flat(at_the_end(f"{SLOT}\n{DELETE}", "v6_12")) if row.model is not None}

    assert rows["kvm_invalidate_memslot"].mark == "inlined"
    assert rows["kvm_activate_memslot"].mark == "inlined", "other graphs of 6.12 show it, those of a DELETE do not"
    assert rows["kvm_activate_memslot"].note == "in the model, not shown by 6.12"
    assert rows["kvm_swap_active_memslots"].mark == "both"


def test_names_are_those_of_the_kernel() -> None:
    view = at_the_end(f"{SLOT}\n{MOVE}", "v5_10")

    rows = [row for row in flat(view) if row.model is not None]
    assert view.chip.startswith("recorded on 5.10")
    assert [row.model.function for row in rows if row.mark == "both" and row.model][1] == "__kvm_set_memory_region"
    assert sum(row.model.function == "install_new_memslots" for row in rows if row.mark == "both" and row.model) == 2
    (part,) = (row for row in rows if "kvm_prepare_memory_region" in row.note)
    assert (part.mark, part.model.function if part.model else "") == ("part", "kvm_set_memslot")


def test_what_the_model_leaves_out_comes_with_what_its_files_say() -> None:
    view = at_the_end(f"{SLOT}\n{MOVE}", "v6_12", tdp=True)

    notes = {row.recorded.function: row.note for row in flat(view) if row.mark == "left out" and row.recorded}
    assert notes["sev_guest_memory_reclaimed"] == "not modelled: memory reclaim for SEV (memslots.py)"
    assert notes["kvm_make_all_cpus_request"] == "not modelled: kicks of vCPUs (swap.py)"


def test_shares_are_of_the_whole_operation() -> None:
    recorded = [row.recorded for row in flat(at_the_end(SLOT, "v6_1")) if row.recorded is not None]

    assert (recorded[0].depth, recorded[0].share) == (0, "100 %")
    assert all(call.share.endswith("%") for call in recorded)


@pytest.mark.parametrize("profile", ["pre_edd4", "v6_6", "v6_6_posted", "v6_6_nocheck", "v6_12_quirk_posted", "v6_18"])
def test_a_kernel_without_recordings_shows_the_model_alone_and_says_so(profile: str) -> None:
    view = at_the_end(f"{SLOT}\n{MOVE}", profile)

    assert (view.recorded, view.chip) == (False, "not recorded")
    assert view.missing.startswith("No function graph was recorded on")
    assert {row.recorded for row in flat(view)} == {None}
    assert not {row.mark for row in flat(view)} & {"both", "inlined"}


def test_the_nearest_recorded_kernels_are_named() -> None:
    assert "were: 6.1 and 6.12;" in at_the_end(SLOT, "v6_6").missing
    assert "were: 6.12 and 7.3;" in at_the_end(SLOT, "v6_18").missing


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("set_region slot=1 gpa=0x1000 size=0x1001 hva=0", "no call that was refused by this check, size_aligned"),
        (
            f"{SLOT}\n{OTHER}\n{OTHER.replace('0x400000', '0x104000')}",
            "no MOVE that was refused by this check, overlap in `kvm_check_memslot_overlap()`",
        ),
        ("set_region slot=0 gpa=0 size=0x10000 hva=0x7f0000000000\nguest_write gpa=0x1000", "of no guest_write"),
        ("get_dirty_log slot=1", "of no get_dirty_log that returned −ENOENT"),
    ],
)
def test_a_kind_of_operation_that_was_never_recorded_has_no_right_side(text: str, words: str) -> None:
    view = at_the_end(text, "v6_12")

    assert not view.recorded
    assert view.missing.startswith("On 6.12 function graphs were recorded, but ")
    assert words in view.missing


def test_where_nothing_is_entered_there_is_a_sentence() -> None:
    run = play("host_touch hva=0x7f0000000000 size=0x1000")

    assert "enters no kernel function" in select_calls(run, run.last_stop).notice
    assert "Go to one" in select_calls(run, Stop(-1, 0)).notice


def test_a_difference_between_the_vms_is_told() -> None:
    assert "unlike here: nested paging" in at_the_end(f"{SLOT}\n{MOVE}", "v7_3").why
    assert "nothing was mapped" not in at_the_end(f"{SLOT}\n{MOVE}", "v7_3").why
    kvmgt = at_the_end(f"{SLOT}\nattach user=0 kind=kvmgt\n{MOVE}", "v6_1")
    assert "a small module in the place of KVMGT" in kvmgt.why
    (row,) = (r for r in flat(kvmgt) if r.model is not None and r.model.function == "kvmgt_page_track_flush_slot")
    assert (row.mark, row.note) == ("unseen", "of KVMGT, for which a small module stood in")


def test_more_calls_than_recorded_are_not_claimed_to_be_recorded() -> None:
    run = tell("watches-lost")
    view = select_calls(run, run.last_stop)

    marks = [row.mark for row in flat(view)]
    both, aside = marks.count("both"), marks.count("inlined") + marks.count("part")
    lone = marks.count("more") + marks.count("unseen") - 1  # one step enters nothing
    assert lone > 0
    assert view.claim.startswith(f"{both + aside} of the model’s {both + aside + lone} calls: ")


def test_what_is_long_is_folded_and_says_how_many() -> None:
    view = select_calls(run := tell("watches-lost"), run.last_stop)

    folds = [row for row in view.rows if isinstance(row, CallRun)]
    assert folds
    assert all(fold.title.startswith(f"{len(fold.rows)} calls") and len(fold.rows) > 3 for fold in folds)


def test_a_zap_of_many_pages_stays_short() -> None:
    shadowed = "\n".join(f"shadow_tables gfn={gfn:#x} levels=3" for gfn in range(0x1000, 0x1200, 4))
    slot = "set_region slot=0 gpa=0 size=0x4000000 hva=0x7f0000000000"
    run = play(f"{slot}\n{shadowed}\nset_region slot=0 gpa=0 size=0 hva=0x7f0000000000", profile="v6_1")

    view = select_calls(run, run.last_stop)

    assert len(flat(view)) < 200
    (again,) = (row.note for row in flat(view) if "of these again" in row.note)
    lines = sum(row.model is not None for row in flat(view))
    called = sum(isinstance(event, Called) for event in run.detail(len(run) - 1).step.events)
    assert again == f"and {called - lines:,} calls of these again"


@pytest.mark.parametrize("profile", ALL_PROFILES)
def test_the_order_of_both_sides_is_never_changed(profile: str) -> None:
    run: Run = tell("watches-lost").on(profile, tell("watches-lost").start.config)
    for op in range(len(run)):
        view = select_calls(run, run.end_of(op))
        if view.recorded:
            _, kernel, variant = view.chip.replace(",", "").rsplit(" ", 2)
            shown = [row.recorded.function for row in flat(view) if row.recorded is not None]
            assert shown in [graph(kernel, variant, label) for label in KINDS]


def test_a_step_is_drawn_at_once_when_the_recording_was_read() -> None:
    run = tell("watches-lost")
    select_calls(run, run.last_stop)

    began = perf_counter()
    for cell in range(5):
        select_calls(run, Stop(len(run) - 1, cell))

    assert (perf_counter() - began) / 5 < 0.05
