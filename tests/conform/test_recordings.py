"""The project's own recordings of real kernels: the engine reproduces every value of them that it models."""

import dataclasses
import gzip
import itertools
import json

import fidelity
import pytest
from pack_recordings import RECORDINGS, compress, packed_name

from explorer.conform import conform
from explorer.conform.player import Player
from explorer.conform.recording import read_scenarios
from explorer.engine.invariants import violations
from explorer.engine.profile import get_profile

FOLDERS = sorted({path.parent for path in RECORDINGS.rglob("*.jsonl.gz")})


def recording(name):
    return RECORDINGS / f"{name}.jsonl.gz"


def lines_of(path):
    return [json.loads(line) for line in gzip.decompress(path.read_bytes()).splitlines()]


UNMODELLED = {
    # a machine on which the recorder could not load its module
    "t_dump without the tracker module",
}


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.relative_to(RECORDINGS).as_posix())
def test_the_engine_reproduces_a_kernel(folder):
    scenarios = [scenario for path in sorted(folder.glob("*.jsonl.gz")) for scenario in lines_of(path)]

    report = conform([folder])

    assert report.mismatches == []
    assert report.scenarios == len(scenarios)
    assert report.operations == sum(len(s["ops"]) + (s.get("final_slots") is not None) for s in scenarios)
    assert report.matched + report.unmodelled == report.operations
    assert {what for _, what in report.unmodelled_by} <= UNMODELLED
    assert report.unmodelled <= 2


def test_there_are_recordings_of_every_recorded_kernel_and_variant():
    variants = {(folder.parent.name, folder.name) for folder in FOLDERS if folder.parent != RECORDINGS}

    everywhere = {"npt0", "npt1", "intel-ept0", "intel-ept1", "intel-ept1-ug0", "intel-ept1-pml0"}
    assert variants >= set(itertools.product(("5.10", "6.1", "6.12", "7.3"), everywhere))
    assert ("6.12", "intel-ept1-pa46") in variants
    assert RECORDINGS / "host-6.18-pvm" in FOLDERS


# -- the comparison notices ------------------------------------------------------------------------

TRACKER_SCENARIOS = {"attach_track_move", "attach_before_slot_then_move", "two_users"}


@pytest.mark.parametrize(
    ("kernel", "profile", "scenarios"),
    [
        ("6.12", "v6_1", TRACKER_SCENARIOS),
        ("6.1", "v6_12", TRACKER_SCENARIOS),
        ("6.12", "v6_6_nocheck", TRACKER_SCENARIOS),
        ("6.12", "v6_6_posted", TRACKER_SCENARIOS),
        ("6.1", "v6_6_posted", {"attach_track_move"}),
        ("6.1", "pre_edd4", {"generation_numbers"}),
    ],
)
def test_a_recording_under_the_wrong_profile_is_noticed(kernel, profile, scenarios):
    report = conform([recording(f"{kernel}/npt1/tracker")], get_profile(profile))

    assert not report.agrees
    assert {mismatch.scenario for mismatch in report.mismatches} >= scenarios


@pytest.mark.parametrize("kernel", ["5.10", "6.1", "6.12", "7.3"])
def test_the_posted_test_is_noticed_without_any_tracker(kernel):
    """Kernel-reference 10.2: a selftest that moves a region showed that the posted test was inverted."""
    report = conform([recording(f"{kernel}/npt1/handwritten")], get_profile("v6_6_posted"))

    first = next(m for m in report.mismatches if m.scenario == "move_basic")
    assert (first.field, first.expected, first.got, first.guard) == ("errno", None, "EINVAL", "external_user")


ACCESS = [
    # A behaviour or a machine that is not the recorded one, and scenarios that show it.
    ("5.10/intel-ept1/tracker", {"prefetch_completes_window": True}, {}, {"shadow_root_allocates_track_late"}),
    ("6.1/npt1-tdp_mmu0/tracker", {"prefetch_completes_window": False}, {}, {"shadow_root_allocates_track_late"}),
    ("6.12/npt1/intel", {"splits_huge_pages_early": False}, {}, set()),  # a fault splits them then, to the same end
    ("5.10/intel-ept1/tracker", {"small_mappings_after_logging": "zapped"}, {}, {"shadow_pages_then_flags_only"}),
    ("6.1/npt1/tracker", {"walk_of_tracked_table_is_emulated": True}, {}, {"shadow_pages_and_external_tracker"}),
    ("6.12/npt1/tracker", {"walk_of_tracked_table_is_emulated": False}, {}, {"shadow_pages_and_external_tracker"}),
    ("6.12/npt1/intel", {}, {"tdp_mmu": False}, {"dirty_2m", "dirty_4k"}),
    ("6.12/intel-ept0/intel", {}, {"tdp": True}, {"dirty_4k", "dirty_long_mode"}),
    ("7.3/npt1/intel", {}, {"host_huge_pages": False}, {"dirty_2m"}),
    ("6.12/npt1/handwritten", {}, {"vmm_memory_start": 0}, {"guest_hole_and_bad_hva"}),
    ("5.10/intel-ept1/intel", {"apic_page_needs_apicv": True}, {}, {"apic_page_guest_access"}),
    ("6.1/intel-ept0/intel", {"apic_page_needs_apicv": False}, {}, {"apic_page_guest_access"}),
    ("6.12/intel-ept1/tracker", {"emulation_refused_in_vectoring": True}, {}, {"delete_with_shadow_pages"}),
    ("7.3/intel-ept1/tracker", {"emulation_refused_in_vectoring": False}, {}, {"delete_with_shadow_pages"}),
    ("7.3/npt1/tracker", {"amd_expedites_mmio": False}, {}, {"delete_with_shadow_pages"}),
    ("6.12/npt1/tracker", {}, {"processor": "intel"}, {"delete_with_shadow_pages"}),
    ("host-6.18-pvm/handwritten", {}, {"processor": "amd"}, {"guest_hole_and_bad_hva"}),
]


@pytest.mark.parametrize(("name", "behaviour", "machine", "scenarios"), ACCESS)
def test_a_guest_that_is_served_otherwise_is_noticed(name, behaviour, machine, scenarios):
    noticed = set()
    for scenario in read_scenarios(recording(name)):
        profile = dataclasses.replace(scenario.profile, **behaviour)
        altered = dataclasses.replace(scenario, profile=profile, config=dataclasses.replace(scenario.config, **machine))
        if any(outcome.differences for outcome in Player(altered).play()):
            noticed.add(scenario.name)

    assert noticed >= scenarios
    assert bool(noticed) is bool(scenarios)


# -- what is claimed of states holds in the kernels' own stories -----------------------------------


@pytest.mark.parametrize("kernel", ["5.10", "6.1", "6.12", "7.3"])
@pytest.mark.parametrize("variant", ["npt0", "npt1", "intel-ept1-ug0"])
def test_what_is_claimed_holds_in_every_recorded_state_but_where_a_tracker_misbehaves(kernel, variant):
    broken = set()
    for path in sorted((RECORDINGS / kernel / variant).glob("*.jsonl.gz")):
        if path.name in ("random.jsonl.gz", "tracker_random.jsonl.gz"):
            continue  # 500 scenarios each, too slow here; the property tests draw such sequences themselves
        for scenario in read_scenarios(path):
            player = Player(scenario)
            for _ in player.play():
                if violations(player._kvm):
                    broken.add(scenario.name)

    assert broken <= {"untrack_below_zero", "track_without_attach_bugs_the_vm"}


# -- the packed files ------------------------------------------------------------------------------


@pytest.mark.parametrize("path", sorted(RECORDINGS.rglob("*.gz")), ids=lambda p: p.relative_to(RECORDINGS).as_posix())
def test_a_packed_file_holds_neither_name_nor_time(path):
    """RFC 1952: byte 3 are the flags (a name would be bit 3), bytes 4 to 7 the time."""
    header = path.read_bytes()[:8]

    assert (header[3], header[4:8]) == (0, bytes(4))
    assert packed_name(path) == path.name


def test_packing_the_same_text_twice_gives_the_same_bytes():
    text = gzip.decompress(recording("6.12/npt1/tracker").read_bytes())

    assert compress(text) == compress(text)
    assert gzip.decompress(compress(text)) == text


def test_a_recording_that_is_stored_once_names_one_that_is_there():
    same = json.loads((RECORDINGS / "identical.json").read_text())

    assert same
    for name, original in same.items():
        assert not (RECORDINGS / f"{name}.gz").exists()
        assert (RECORDINGS / f"{original}.gz").exists()


def test_the_fidelity_page_says_what_holds_now():
    # Every number of the page is counted here again; a changed one is a changed meaning, told in the commit.
    assert fidelity.PAGE.read_text(encoding="utf-8") == fidelity.page(), "write it anew with `make fidelity`"
