"""The stories of the library: each file runs, and each does what its text says under its kernel."""

import gzip
import json
import re
from importlib import resources

import pytest
from logs import TRACES
from pack_recordings import RECORDINGS

from explorer.engine.commands import SetMemoryRegion
from explorer.engine.events import GuestWriteServed, MappingsZapped, TrackerNotified
from explorer.engine.state import Kvmgt, WriteTrack
from explorer.history import Stop
from explorer.history.moment import SlotKey, moment_at
from explorer.scenarios import load_scenario, scenario_names
from explorer.scenarios.runner import run_of, unmet
from explorer.trace.replay import Replay
from explorer.trace.source import file_source

LIBRARY = resources.files("explorer.scenarios") / "library"
NAMES = scenario_names()
WATCHED_BY_ALL = {0xD0003: 1, 0xD0010: 2, 0xD0011: 1, 0xD0012: 1}


def story(name):
    """Return a story's scenario, its run, and that run with the composed operation applied."""
    scenario = load_scenario(name)
    run = run_of(scenario)
    assert scenario.next is not None
    return scenario, run, run.then(scenario.next)


def counts(kvm, slot_id=10):
    slot = kvm.slot(slot_id)
    array = kvm.heap[slot.arch.gfn_write_track]
    assert isinstance(array, WriteTrack)
    return {slot.base_gfn + index: n for index, n in array.counts.items()}


def events(run, kind):
    return [event for event in run.detail(len(run) - 1).step.events if isinstance(event, kind)]


# -- the files -------------------------------------------------------------------------------------


def test_file_names_give_a_unique_order_and_the_id():
    files = sorted(entry.name for entry in LIBRARY.iterdir() if entry.name.endswith(".toml"))
    numbers = [name.partition("-")[0] for name in files]

    assert len(files) >= 6
    assert numbers == sorted(set(numbers), key=int)
    assert all(re.fullmatch(r"\d\d-[a-z0-9-]+\.toml", name) for name in files)
    assert [load_scenario(name).id for name in NAMES] == [name[3:-5] for name in files] == list(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_story_is_whole(name):
    scenario = load_scenario(name)

    assert unmet(scenario) == ()
    assert scenario.next is not None
    texts = [scenario.title, scenario.teaches, scenario.source, *(step.say for step in scenario.steps)]
    assert all(text == text.strip() and text[0].isupper() for text in texts)
    assert all(step.say.endswith(".") for step in scenario.steps)
    assert scenario.teaches.endswith(".")
    assert scenario.source.endswith(".")


def test_the_titles_can_be_told_apart_by_their_first_letter():
    # The page's list of stories is chosen from by typing, and each letter typed opens what it fits.
    titles = [load_scenario(name).title for name in NAMES]

    assert len({title[0] for title in titles}) == len(titles)


def test_an_unmet_expectation_is_told():
    scenario = load_scenario("first-look")
    step = scenario.steps[0]
    wrong = type(step)(say=step.say, do=step.do, errno="EINVAL", brief="as0 gen=0:")
    kwargs = {name: getattr(scenario, name) for name in type(scenario).__slots__}

    told = unmet(type(scenario)(**kwargs | {"steps": (wrong,)}))

    assert told == (
        "first-look step 1: errno is 0, expected EINVAL",
        "first-look step 1: brief is 'as0 gen=2: [0x0+0xa0]#0 rw', expected 'as0 gen=0:'",
    )


# -- the layout ------------------------------------------------------------------------------------


@pytest.mark.parametrize("log", ["qemu-trace.log.gz", "strace.log.gz"])
def test_the_layout_is_the_one_at_the_end_of_the_recorded_log(log):
    source, live = file_source(TRACES / "q72-pc-3584M" / log), {}
    for row in Replay(source).rows():
        live.pop(row.slot, None)
        if row.size:
            live[row.slot] = (row.gpa >> 12, row.size >> 12, row.hva, row.flags)
    source.close()

    layout = run_of(load_scenario("first-look")).kvm_before(10)

    assert len(live) == 10
    assert {s.id: (s.base_gfn, s.npages, s.userspace_addr, s.flags) for s in layout.slots()} == live


def test_the_host_addresses_of_the_layout_are_those_qemu_gave():
    truth = json.loads(gzip.decompress((TRACES / "q72-pc-3584M" / "truth-end.json.gz").read_bytes()))["gpa2hva"]

    layout = run_of(load_scenario("first-look")).kvm_before(10)

    assert {hex(s.base_gfn << 12): hex(s.userspace_addr) for s in layout.slots()} == truth


# -- what each teaches -----------------------------------------------------------------------------


def test_first_look_the_move_is_accepted_and_the_watches_go_back():
    _, before, after = story("first-look")

    assert counts(before.end) == {0xD0010: 1, 0xD0011: 1, 0xD0012: 1}
    assert after.outcomes[-1].errno is None
    assert after.end.slot(10).base_gfn == 0xD0001
    assert counts(after.end) == {}


def test_first_look_has_the_watches_that_a_real_kernel_recorded():
    lines = gzip.decompress((RECORDINGS / "6.12" / "npt0" / "tracker.jsonl.gz").read_bytes()).splitlines()
    (recorded,) = (s for s in map(json.loads, lines) if s["name"] == "shadow_pages_then_move")
    dump = next(op["data"]["gfn_write_track"] for op in recorded["ops"] if op["op"] == "t_slot" and _sum(op) == 3)
    table = dict(dump["nonzero"])
    top = min(table)

    _, run, _ = story("first-look")

    assert counts(run.end) == {0xD0010 + gfn - top: n for gfn, n in table.items()}


def _sum(op):
    return op["data"].get("gfn_write_track", {}).get("sum")


def test_watches_lost_the_tracker_is_told_and_its_watches_are_lost():
    _, before, after = story("watches-lost")
    write = before.detail(len(before) - 1).step.events

    assert [e.outcome for e in write if isinstance(e, GuestWriteServed)] == ["emulated"]
    assert [e.callback for e in write if isinstance(e, TrackerNotified)] == ["track_write"]
    assert counts(before.end) == WATCHED_BY_ALL
    assert after.outcomes[-1].errno is None
    assert [e.callback for e in events(after, TrackerNotified)] == ["track_flush_slot"]
    assert counts(after.end) == {}


def test_before_the_patch_kvmgt_goes_on_without_its_watches():
    _, before, after = story("before-the-patch")
    vgpu = after.end.trackers[0]
    assert isinstance(vgpu, Kvmgt)

    assert counts(before.end) == WATCHED_BY_ALL
    assert after.outcomes[-1].errno is None
    assert counts(after.end) == {}
    # kernel-reference 6.5: the table is emptied, the flags are not.
    assert (list(vgpu.protect_table), dict(vgpu.page_track_tree.items())) == ([], {0xD0003: True, 0xD0010: True})
    again = after.then(before.commands[-3])  # KVMGT asks for the page once more, and believes it has it
    assert (again.outcomes[-1].errno, counts(again.end)) == (None, {})


def test_rejected_is_not_free_einval_after_two_swaps_and_a_zap():
    _, before, after = story("rejected-is-not-free")
    step = after.detail(len(after) - 1).step

    assert (step.errno.name, step.refused_by.name) == ("EINVAL", "external_user")
    assert step.refused_by.function == "kvm_arch_prepare_memory_region"
    assert after.end.active().generation - before.end.active().generation == 4
    assert [e.scope for e in events(after, MappingsZapped)] == ["all"]
    assert counts(after.end) == {0xD0003: 1, 0xD0010: 1}
    assert events(after, TrackerNotified) == []
    assert after.end.trackers == before.end.trackers


def test_inverted_check_the_verdicts_are_the_wrong_way_round():
    scenario, before, after = story("inverted-check")

    assert after.outcomes[-1].errno.name == "EINVAL"
    attached = load_scenario("before-the-patch").steps[-4].do
    assert before.then(attached, scenario.next).outcomes[-1].errno is None
    unbuilt = before.on("v6_6_posted", type(scenario.config)(tdp=False, external_write_tracking=False))
    assert unbuilt.then(scenario.next).outcomes[-1].errno is None  # the stub: product 1.1


def test_zap_is_optional_only_the_slot_is_zapped():
    _, before, after = story("zap-is-optional")

    assert before.outcomes[-2].errno is None
    assert after.outcomes[-1].errno is None
    assert [(e.scope, e.shadow_pages) for e in events(after, MappingsZapped)] == [("slot", 4)]
    assert counts(after.end) == {}


@pytest.mark.parametrize("profile", ["v6_1", "v6_6_nocheck"])
def test_kvmgt_from_inside_the_gpu_goes_on_with_the_old_entries(profile):
    run = story("kvmgt-from-inside")[2].on(profile, load_scenario("kvmgt-from-inside").config)
    vgpu = run.end.trackers[0]
    assert isinstance(vgpu, Kvmgt)

    # kernel-reference 6.6: the MOVE is accepted, no write to the table at its new place is intercepted, the shadow
    # entries still lead to the host pages that were pinned at the old one.
    assert {outcome.errno for outcome in run.outcomes} == {None}
    assert counts(run.end) == {}
    assert {n: e.gfn for n, e in vgpu.spts[0xD0010].entries.items()} == {n: 0xD0014 + n for n in range(5)}
    assert [e.outcome for e in events(run, GuestWriteServed)] == ["ram"]
    assert events(run, TrackerNotified) == []


@pytest.mark.parametrize("name", [name for name in NAMES if isinstance(load_scenario(name).next, SetMemoryRegion)])
def test_a_story_opens_where_its_composed_operation_can_be_drawn(name):
    scenario, run, after = story(name)
    moment = moment_at(after, Stop(len(run), 0))
    assert moment.op.command == scenario.next
    if not isinstance(scenario.next, SetMemoryRegion):
        assert moment.focus == SlotKey(0, 10)
        return

    start = scenario.next.guest_phys_addr >> 12
    assert (moment.old.id, moment.old.npages, moment.target) == (10, 32, (start, start + 32))
