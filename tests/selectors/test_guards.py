"""The ladder of checks and the bill of a refusal: kernel-reference 4.2, 4.6 and 11.3, product rows 4, 45, 46."""

import pytest
from hypothesis import given, settings
from runs import (
    ALL_PROFILES,
    DELETE,
    KVMGT,
    LOG_ON,
    LOGGER,
    MOVE,
    QUIRK_OFF,
    REFUSES_A_MOVE,
    SLOT,
    WATCHED,
    at_word,
    end_of,
    moments,
    random_runs,
    run_of,
)

from explorer.engine.guards import ladder_of
from explorer.engine.profile import get_profile
from explorer.engine.uapi import KvmMrChange
from explorer.history import Stop
from explorer.history.moment import moment_at
from explorer.selectors.guards import select_guards

BEYOND = "set_region slot=10 gpa=0x40000000000000 size=0x20000 hva=0x100000000000"
BITMAP = "memory for the dirty bitmap"
EVERYWHERE = pytest.mark.parametrize("profile", ALL_PROFILES)
ARGUMENTS = ["flags", "size_aligned", "gpa_aligned", "hva_aligned", "hva_user_range", "as_id", "gpa_no_wrap", "npages"]
EXISTING = ["same_hva", "same_size", "same_readonly"]
FROM_6_8 = {"v6_12": ["same_guest_memfd"], "v7_3": ["same_guest_memfd"]}
"""kernel-reference 4.2, M2, since there is a second flag that may not change."""
# kernel-reference 4.2 from check 2 on, and the table of 4.6: what arch prepare asks of a MOVE, by kernel
FIRST = {
    "pre_edd4": ["vm_alive", "user_slot_id"],
    "v5_10": ["vm_alive", "user_slot_id"],
    "v6_1": ["vm_alive", "user_slot_id"],
    "v6_6": ["vm_alive", "user_slot_id"],
    "v6_12": ["vm_alive", "region_flags", "user_slot_id"],
    "v7_3": ["vm_alive", "region_flags", "user_slot_id"],
}
PREPARE_A_MOVE = {
    "pre_edd4": [],
    "v5_10": ["array_memory"],
    "v6_1": ["max_gfn", "array_memory"],
    "v6_6": ["external_user", "max_gfn", "array_memory"],
    "v6_12": ["external_user", "max_gfn", "array_memory"],
    "v7_3": ["external_user", "max_gfn", "array_memory"],
}


@pytest.mark.parametrize("profile", PREPARE_A_MOVE)
def test_the_checks_of_a_move_stand_in_kernel_order(profile):
    names = [guard.name for guard in ladder_of(get_profile(profile)).of(KvmMrChange.MOVE)]

    existing = EXISTING + FROM_6_8.get(profile, [])
    assert names == [*FIRST[profile], *ARGUMENTS, *existing, "overlap", "bitmap_memory", *PREPARE_A_MOVE[profile]]


@settings(max_examples=60)
@given(random_runs(15))
def test_checks_pass_then_one_may_fire_and_the_rest_is_not_reached(run):
    for moment in moments(run):
        view = select_guards(moment)
        if view is None:
            continue
        rungs = view.free + view.late
        outcomes = [rung.outcome for rung in rungs if not rung.is_kind]
        assert [rung.number for rung in rungs] == list(range(1, len(rungs) + 1))
        order = ["passed", "fired", "not reached"]
        assert outcomes == sorted(outcomes, key=order.index)
        assert outcomes.count("fired") <= 1
        assert (view.fired is not None) == ("fired" in outcomes)
        assert all(bool(rung.errno) == (rung.outcome == "fired") for rung in rungs)
        assert all(rung.function for rung in rungs)
        assert len(rungs) - len(outcomes) <= 1
        if moment.at_end:
            refused = moment.op.step.refused_by
            assert (view.fired.title if view.fired else None) == (refused.title if refused else None)
            asked = sum(r.checks for r in rungs if r.outcome != "not reached")
            # Memory for a bitmap is asked for even if none is needed; such a check is not shown.
            asked_in_silence = BITMAP in {r.guard.title for r in moment.op.step.results} - {r.title for r in rungs}
            assert asked == len(moment.op.step.results) - asked_in_silence


@EVERYWHERE
def test_a_move_that_nothing_refuses_passes_every_check(profile):
    view = select_guards(end_of(run_of(profile, *WATCHED, MOVE, external_write_tracking=False)))

    assert {rung.outcome for rung in view.free + view.late} == {"passed"}
    assert (view.bill_title, view.fired) == ("What the call did", None)


@EVERYWHERE
def test_the_number_of_checks_is_that_of_the_ladder(profile):
    ladder = ladder_of(get_profile(profile)).of(KvmMrChange.MOVE)

    view = select_guards(end_of(run_of(profile, *WATCHED, MOVE)))

    assert view.summary == f"{len(ladder) - 1} checks in kernel order"  # no bitmap is needed, so none is asked for
    assert sum(rung.checks for rung in view.free + view.late) == len(ladder) - 1


@EVERYWHERE
@pytest.mark.parametrize(
    ("lines", "kind", "before"),
    [
        ((SLOT,), "no such slot: a CREATE", "pages of the VM do not wrap"),
        ((*WATCHED, MOVE), "base_gfn differs: a MOVE", "no overlap with another slot"),
        ((*WATCHED, DELETE), "size 0: a DELETE", "there is a slot to delete"),
        ((*WATCHED, LOG_ON), "only flags differ", "memory for the dirty bitmap"),
        ((SLOT, SLOT), "nothing differs: returns 0 here", None),
    ],
    ids=["create", "move", "delete", "flags", "no-op"],
)
def test_the_kind_of_change_is_told_where_the_kernel_knows_it(profile, lines, kind, before):
    view = select_guards(end_of(run_of(profile, *lines, external_write_tracking=False)))

    titles = [rung.title for rung in view.free + view.late]
    at = titles.index(kind)
    if before == "pages of the VM do not wrap" and profile in ("pre_edd4", "v5_10"):
        before = "no overlap with another slot"  # the pages of a VM are added up from v5.17 on
    assert titles[at + 1 : at + 2] == ([] if before is None else [before])


@pytest.mark.parametrize("profile", REFUSES_A_MOVE)
def test_with_kvmgt_the_first_late_check_fires(profile):
    view = select_guards(end_of(run_of(profile, *KVMGT, MOVE)))

    assert [(rung.title, rung.outcome) for rung in view.late] == [
        ("no external page tracker", "fired"),
        ("end gfn within reach", "not reached"),
        ("memory for new arrays", "not reached"),
    ]
    assert (view.fired.errno, view.fired.operands, view.fired.function) == (
        "−EINVAL",
        "1 attached",
        "kvm_arch_prepare_memory_region",
    )
    assert "a “no” is not free" in view.divider


def test_checks_fire_one_by_one_as_the_call_goes_on():
    run = run_of("v6_12", *KVMGT, MOVE)

    late = [[r.outcome for r in select_guards(m).late] for m in moments(run) if m.stop.op == 5]

    assert late == [["not reached"] * 3] * 5 + [["fired", "not reached", "not reached"]] * 3


@pytest.mark.parametrize(
    ("line", "title", "errno"),
    [
        # kernel-reference 11.5
        ("set_region slot=11 gpa=0xd0000000 size=0x1000", "no overlap with another slot", "−EEXIST"),
        ("set_region slot=10 gpa=0xd0000000 size=0x10000 hva=0x100000000000", "size unchanged", "−EINVAL"),
        ("set_region slot=10 gpa=0xd0000000 size=0x20000 hva=0x200000000000", "host address unchanged", "−EINVAL"),
        ("set_region slot=10 gpa=0xd0000000 size=0x20000 hva=0x100000000000 flags=ro", "READONLY unchanged", "−EINVAL"),
        ("set_region slot=9 gpa=0 size=0", "there is a slot to delete", "−EINVAL"),
        ("set_region slot=32764 gpa=0 size=0x1000", "slot id in userspace’s range", "−EINVAL"),
        ("set_region slot=1 as=2 gpa=0 size=0x1000", "address space and id exist", "−EINVAL"),
        ("set_region slot=1 gpa=0x1001 size=0x1000", "guest address on a page", "−EINVAL"),
        ("set_region slot=1 gpa=0 size=0x1800", "size in whole pages", "−EINVAL"),
        ("set_region slot=1 gpa=0 size=0x1000 flags=8", "only flags the plain region ioctl knows", "−EINVAL"),
        ("set_region slot=1 gpa=0 size=0x80000000000", "at most 2^31 - 1 pages", "−EINVAL"),
    ],
)
def test_an_early_refusal_is_free_and_named(line, title, errno):
    view = select_guards(end_of(run_of("v6_12", SLOT, line)))

    assert (view.fired.title, view.fired.errno) == (title, errno)
    assert view.fired not in view.late
    assert view.bill_title == "Refused for free"
    spent = [row.note for row in view.bill[:2]]
    assert spent == ([] if "as=2" in line else ["untouched", "none"])  # there are no sets of that space to look at


@pytest.mark.parametrize("profile", REFUSES_A_MOVE)
def test_the_bill_of_a_refused_move(profile):
    # kernel-reference 4.6: two swaps, a full zap, internal counts gone; external counts and arrays kept.
    run = run_of(profile, *KVMGT, MOVE)
    view = select_guards(end_of(run))
    bill = {row.what: (row.before, row.after, row.note, row.paid) for row in view.bill}

    assert view.bill_title == "Paid, and not given back"
    assert bill == {
        "Memslot generation": ("2", "6", "+4, two swaps", True),
        "Waits for all readers (SRCU)": ("", "2", "spent", True),
        "Shadow pages, whole VM": ("4", "0", "guest faults them in again", True),
        "Watches of shadow paging": ("3", "0", "come back with the faults", True),
        "Slot 10, base_gfn": ("0xd0000", "0xd0000", "old object back in both sets", False),
        "Watches of the tracker": ("2", "2", "arrays A were never freed", False),
        "Arrays B": ("", "", "never allocated", False),
    }


def test_the_bill_of_a_move_that_loses_a_trackers_watches():
    # kernel-reference 6.6: without the check the counts of 6.6 go with the old slot's arrays, and nobody is told.
    run = run_of("v6_6_nocheck", *KVMGT, MOVE)

    def watches(stop):
        rows = [row for row in select_guards(moment_at(run, stop)).bill if row.what == "Watches of the tracker"]
        return [(row.before, row.after, row.note) for row in rows]

    last = run.last_stop
    assert watches(Stop(last.op, 0)) == [("2", "2", "will be lost with arrays A")]
    assert watches(last) == [("2", "0", "lost with arrays A")]
    dropped = run_of("v6_1", *KVMGT, MOVE)  # told by the flush callback, KVMGT gives them back itself
    assert "Watches of the tracker" not in {row.what for row in select_guards(end_of(dropped)).bill}


def test_on_6_1_a_refusal_costs_kvmgt_its_watches():
    # kernel-reference 4.6, last paragraph, and 11.3 T4c
    view = select_guards(end_of(run_of("v6_1", *KVMGT, BEYOND)))
    bill = {row.what: row for row in view.bill}

    assert view.fired.title == "end gfn within reach"
    assert bill["Watches of the tracker"][1:4] == ("2", "0", "taken away, and not put back")
    assert bill["Watches of the tracker"].paid
    assert bill["KVMGT’s protected pages"][2:4] == ("−2", "not restored")
    assert bill["Tracker 0: track_flush_slot"].after == "told"


def test_a_bitmap_that_a_refused_move_asked_for_is_freed_again():
    # kernel-reference 4.6: allocated only if the request turned LOG_DIRTY on while old had none.
    plain = select_guards(end_of(run_of("v6_12", *KVMGT, MOVE)))
    logged = select_guards(end_of(run_of("v6_12", *KVMGT, MOVE + " flags=log")))

    assert "Dirty bitmap for the new slot" not in {row.what for row in plain.bill}
    assert ("Dirty bitmap for the new slot", "allocated, and freed again") in {(r.what, r.note) for r in logged.bill}


def test_with_the_quirk_off_and_no_shadow_page_only_the_slot_is_said_to_be_zapped():
    view = select_guards(end_of(run_of("v6_12", SLOT, QUIRK_OFF, MOVE)))

    assert ("Shadow pages, whole VM", "the slot’s mappings zapped") in {(row.what, row.note) for row in view.bill}


def test_memory_that_runs_out_after_the_zap_leaves_nothing_behind():
    run = run_of("v6_12", *LOGGER[:2], MOVE, host_memory=600)
    view = select_guards(end_of(run))

    assert run.outcomes[-1].errno.name == "ENOMEM"
    assert view.fired.title == "memory for new arrays"
    assert ("Arrays B", "freed again as far as there were any") in {(row.what, row.note) for row in view.bill}


@settings(max_examples=40)
@given(random_runs(12))
def test_the_bill_tells_the_generations_the_slots_have(run):
    for moment in moments(run):
        view = select_guards(moment)
        if view is None or not view.bill:
            continue
        as_id, row = moment.call.as_id, view.bill[0]
        now = moment.kvm.active(as_id).generation
        assert (row.before, row.after) == (f"{moment.op.before.active(as_id).generation:,}", f"{now:,}")


def test_functions_are_called_as_their_kernel_calls_them():
    view = select_guards(end_of(run_of("v6_1", SLOT, "set_region slot=1 gpa=0 size=0x1800")))

    assert view.fired.function == "__kvm_set_memory_region"
    assert select_guards(at_word(run_of("v7_3", SLOT), "check")).free[3].function == "kvm_set_memory_region"


def test_outside_a_region_call_there_is_no_ladder():
    assert select_guards(end_of(run_of("v6_12", *WATCHED))) is None


# -- guest_memfd -----------------------------------------------------------------------------------

FILE = "create_guest_memfd fd=3 size=0x20000"
ON_FILE = "set_region2 slot=10 gpa=0xd0000000 size=0x20000 hva=0x100000000000 flags=gmem gmem=3"


@pytest.mark.parametrize(
    ("profile", "function"), [("v6_18", "kvm_gmem_bind"), ("v7_3", "kvm_gmem_commit_memory_region")]
)
def test_a_slot_on_guest_memfd_has_rungs_of_its_own(profile, function):
    view = select_guards(end_of(run_of(profile, FILE, ON_FILE)))

    rungs = {rung.title: rung for rung in view.free}
    assert rungs["part of the file on pages, no wrap"].checks == 2
    assert rungs["a guest_memfd of this VM, long enough"].checks == 3
    assert rungs["no other slot has the part"].function == function
    assert {rung.outcome for rung in view.free} == {"passed"}


def test_the_rung_that_fired_says_who_has_the_part():
    second = ON_FILE.replace("slot=10 gpa=0xd0000000", "slot=11 gpa=0")

    view = select_guards(end_of(run_of("v7_3", FILE, ON_FILE, second)))

    assert (view.fired.title, view.fired.errno) == ("no other slot has the part", "−EEXIST")
    assert view.fired.operands == "slot 10 has some of pages [0x0, 0x20) of the file"


@pytest.mark.parametrize("line", [SLOT, SLOT.replace("set_region", "set_region2")])
def test_a_plain_slot_has_no_rung_of_a_file(line):
    view = select_guards(end_of(run_of("v7_3", line)))

    assert not [rung for rung in view.free if "file" in rung.title or "guest_memfd" in rung.title]
