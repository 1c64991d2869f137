"""What an operation without steps changed, told value by value."""

from __future__ import annotations

from hypothesis import given
from runs import LOGGER, MOVE, SLOT, TABLES, moments, random_runs, run_of

from explorer.engine.state import WriteTrack
from explorer.history.moment import moment_at
from explorer.selectors.effects import MOST, Effect, select_effects


def effects(profile, *lines):
    run = run_of(profile, *lines)
    return select_effects(moment_at(run, run.last_stop))


def test_shadowing_four_levels_counts_the_upper_three_and_not_the_last():
    # kernel-reference 5.2: account_shadowed() write-tracks page tables above level 1.
    view = effects("v6_12", SLOT, TABLES)

    assert [row.what for row in view.rows if row.what.startswith("count")] == [
        f"count of gfn {gfn}, for shadow paging" for gfn in ("0xd0010", "0xd0011", "0xd0012")
    ]
    assert [row.what[-1] for row in view.rows if row.what.startswith("shadow page")] == ["4", "3", "2", "1"]


def test_a_second_watch_of_a_page_raises_its_count_under_the_kernels_own_name():
    row = effects("v6_1", SLOT, TABLES, "attach kind=log", "track gfn=0xd0010").rows[-1]
    assert row == Effect("count of gfn 0xd0010, for tracker 0", "1", "2", "kvm_slot_page_track_add_page")

    row = effects("v6_12", SLOT, TABLES, "attach kind=log", "track gfn=0xd0010").rows[-1]
    assert row.function == "__kvm_write_track_add_gfn"


def test_a_caught_write_is_heard_by_the_tracker():
    view = effects("v6_12", *LOGGER, "guest_write gpa=0xd0003000 bytes=8")

    assert [(row.what, row.after) for row in view.rows] == [
        ("tracker 0 hears track_write", "gfn 0xd0003"),
        ("guest write to 0xd0003000", "emulated"),
    ]


def test_a_region_call_has_a_view_of_its_own_and_a_start_has_none():
    assert effects("v6_12", SLOT, MOVE) is None
    assert select_effects(moment_at(run_of("v6_12"), run_of("v6_12").last_stop)) is None


def test_what_does_not_fit_is_counted():
    # KVMGT gives its pages back when it goes: intel_vgpu_unregister_page_track(), kernel-reference 6.
    big = "set_region slot=10 gpa=0xd0000000 size=0x80000 hva=0x100000000000"
    tracked = [f"track gfn={0xD0000 + n:#x}" for n in range(MOST + 10)]

    view = effects("v6_12", big, "attach kind=kvmgt", *tracked, "detach user=0")

    assert len(view.rows) == MOST
    assert view.more >= 10


@given(random_runs())
def test_the_counts_told_are_those_of_the_arrays(run):
    for moment in moments(run):
        view = select_effects(moment)
        if view is None or view.more:
            continue
        told = {
            int(row.what.split()[3].rstrip(","), 16): int(row.after)
            for row in view.rows
            if row.what.startswith("count of gfn ")
        }
        for gfn, count in told.items():
            assert count in counts_of(moment.kvm, gfn), hex(gfn)


def counts_of(kvm, gfn):
    """Return the write-track counts of a page, one for each address space whose slot has any."""
    found = set()
    for slot in kvm.slots():
        array = kvm.heap.get(slot.arch.gfn_write_track) if slot.arch.gfn_write_track is not None else None
        if isinstance(array, WriteTrack) and slot.base_gfn <= gfn < slot.end_gfn:
            found.add(dict(array.counts.items()).get(gfn - slot.base_gfn, 0))
    return found
