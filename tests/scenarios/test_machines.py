"""The layouts to start from: each runs, and those of a real VMM are what its log ends with."""

from itertools import pairwise

import pytest
from logs import TRACES

from explorer.engine.types import PAGE_SHIFT
from explorer.scenarios import load_scenario, machine_names
from explorer.scenarios.runner import run_of, unmet
from explorer.trace.replay import Replay
from explorer.trace.source import file_source

MACHINES = machine_names()


@pytest.mark.parametrize("name", MACHINES)
def test_a_machine_is_built_without_a_refusal(name):
    scenario = load_scenario(name)
    run = run_of(scenario)

    assert scenario.id == name
    assert scenario.title.startswith("Machine: ")
    assert scenario.teaches
    assert scenario.source
    assert unmet(scenario) == ()
    assert all(outcome.errno is None for outcome in run.outcomes)


@pytest.mark.parametrize(
    ("name", "log"), [("machine-pc", "q72-pc-3584M"), ("machine-hot-plug", "q72-pc-dimm")], ids=str
)
def test_a_real_layout_is_the_one_its_log_ends_with(name, log):
    replay = Replay(file_source(TRACES / log / "qemu-trace.log.gz"))
    for _ in replay.rows():
        pass
    kvm = run_of(load_scenario(name)).end
    ours = [
        (s.as_id, s.id, s.base_gfn << PAGE_SHIFT, s.npages << PAGE_SHIFT, s.userspace_addr, s.flags)
        for s in kvm.slots()
    ]

    assert tuple(ours) == replay.summary().final_layout[0]


def test_many_slots_come_from_one_step_that_strides():
    kvm = run_of(load_scenario("machine-many")).end
    slots = kvm.slots()

    assert len(slots) == 240
    assert [slot.id for slot in slots] == list(range(240))
    assert {b.base_gfn - a.base_gfn for a, b in pairwise(slots)} == {17}
    assert all(slot.npages == 16 for slot in slots)


def test_the_second_address_space_shows_the_same_ram_and_its_own_smram():
    kvm = run_of(load_scenario("machine-smm")).end
    normal, smm = kvm.slots(0), kvm.slots(1)

    assert [s.userspace_addr for s in smm if s.id != 1] == [s.userspace_addr for s in normal]
    assert [s.base_gfn for s in smm if s.id == 1] == [0xA0]
    assert not any(s.base_gfn <= 0xA0 < s.end_gfn for s in normal)


def test_a_terabyte_is_accounted_in_full():
    kvm = run_of(load_scenario("machine-terabyte")).end

    assert kvm.nr_memslot_pages << PAGE_SHIFT == 1 << 40
