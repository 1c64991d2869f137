"""The project's own JSON lines: written, read, refused."""

import json
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from logs import TRACES, replay

from explorer.cli import main
from explorer.engine.apply import apply
from explorer.engine.commands import EnableCap, GetDirtyLog, SetMemoryRegion, TrackGfn
from explorer.engine.config import VmConfig
from explorer.engine.profile import PROFILES
from explorer.engine.state import new_vm
from explorer.trace.jsonl import calls_as_json, snapshot_as_json
from explorer.trace.records import TraceError

DOCUMENT = (Path(__file__).parents[2] / "assets" / "docs" / "json-logs.md").read_text(encoding="utf-8")
HEAD = '{"memslot-explorer": "calls", "version": 1}'
SNAPSHOT = '{"memslot-explorer": "snapshot", "version": 1}'
REGION = st.builds(
    SetMemoryRegion,
    slot=st.integers(0, 4),
    flags=st.sampled_from([0, 0, 1, 2]),
    guest_phys_addr=st.integers(0, 40).map(lambda n: n << 16),
    memory_size=st.integers(0, 4).map(lambda n: n << 16),
    userspace_addr=st.integers(0, 9).map(lambda n: 0x7F0000000000 + (n << 16)),
)
OTHER = st.one_of(
    st.builds(GetDirtyLog, slot=st.integers(0, 4)),
    st.builds(EnableCap, cap=st.sampled_from([168, 213, 7]), arg=st.integers(0, 3)),
    st.builds(TrackGfn, gfn=st.integers(0, 99)),
)


def perform(commands, profile="v6_12"):
    """Return the VM after some commands, and each with its errno."""
    kvm = new_vm(profile, VmConfig(processor="pvm", smm=False))
    calls = []
    for command in commands:
        step = apply(kvm, command)
        kvm = step.kvm
        calls.append((command, None if step.errno is None else step.errno.name))
    return kvm, calls


@given(st.lists(st.one_of(REGION, OTHER), max_size=30), st.sampled_from(sorted(PROFILES)))
def test_calls_that_are_written_are_read_as_they_were(commands, profile):
    kvm, calls = perform(commands, profile)

    found = replay(*calls_as_json(new_vm(profile, kvm.config), calls))

    assert found.agrees == [True] * len(commands)
    assert found.errnos == [errno for _, errno in calls]
    assert found.summary.profile == profile
    assert found.reasons == []


@given(st.lists(REGION, min_size=1, max_size=30))
def test_a_snapshot_that_is_written_leads_to_the_same_slots(commands):
    kvm, _ = perform(commands)

    found = replay(*snapshot_as_json(kvm))

    places = {(s.id, s.base_gfn << 12, s.npages << 12, s.userspace_addr, s.flags) for s in kvm.slots()}
    layout = found.summary.final_layout[0] if found.rows else ()
    assert {row[1:] for row in layout} == places
    assert set(found.agrees) <= {True}
    assert len(found.reasons) == len(kvm.memslots)


def test_the_output_of_a_replay_is_a_log_with_the_same_rows(capsys):
    path = TRACES / "own-fails" / "strace.log.gz"
    main(["replay", "--json", str(path)])
    first = capsys.readouterr().out.splitlines()

    found = replay(*first)

    rows = [json.loads(line) for line in first[:-1]]
    assert [(row.kind, row.errno, row.recorded_errno, row.live_slots) for row in found.rows] == [
        (row["kind"], row["errno"], row["recorded_errno"], row["live_slots"]) for row in rows
    ]
    assert set(found.agrees) == {True}
    assert found.reasons == []


@pytest.mark.parametrize("number", range(2))
def test_the_examples_of_the_document_are_read(number):
    example = re.findall(r"```json\n(.*?)```", DOCUMENT, re.DOTALL)[number].splitlines()

    found = replay(*example)

    assert len(found.rows) == [4, 2][number]
    assert found.agrees == [True] * len(found.rows)
    assert found.reasons == [[], ["a generation; it is not restored, a replay counts from its own start"]][number]


def test_the_recipe_of_the_document_is_python_and_prints_the_keys_that_are_read():
    (recipe,) = re.findall(r"```python\n(.*?)```", DOCUMENT, re.DOTALL)

    compile(recipe, "memslots.py", "exec")

    for key in ("memslot-explorer", "version", "as_id", "slot", "base_gfn", "npages", "userspace_addr", "flags"):
        assert f'"{key}"' in recipe


def test_dirty_log_calls_and_capabilities_are_operations():
    found = replay(
        HEAD,
        '{"do": "set_region slot=0 gpa=0 size=0x10000 hva=0x7f0000000000 flags=log", "errno": null}',
        '{"do": "get_dirty_log slot=0", "errno": null}',
        '{"do": "get_dirty_log slot=1", "errno": "ENOENT"}',
        '{"do": "clear_dirty_log slot=3 first=0 num=16", "errno": "ENOENT"}',
        '{"do": "enable_cap cap=MANUAL_DIRTY_LOG_PROTECT2 arg=1", "errno": null}',
        '{"do": "clear_dirty_log slot=0 first=0 num=16", "errno": null}',
    )

    assert found.agrees == [True] * 6
    assert [row.op for row in found.rows][1:5] == ["get_dirty_log", "get_dirty_log", "clear_dirty_log", "enable_cap"]


def test_several_vms_are_told_apart_by_their_numbers():
    line = '{{"vm": {}, "do": "set_region slot=0 gpa=0 size=0x1000 hva=0x7f0000000000", "errno": null}}'

    found = replay(HEAD, line.format(7), line.format(3))

    assert found.vms == [0, 1]
    assert found.agrees == [True, True]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("{", "no JSON object on one line"),
        ("[1]", "no JSON object on one line"),
        ('{"do": "fly"}', "no command: "),
        ('{"do": 7}', "no command: "),
        ('{"do": "begin set_region slot=0 gpa=0 size=0"}', "a step inside a call"),
        ('{"do": "set_region slot=70000 gpa=0 size=0"}', "a number that does not fit its field"),
        ('{"op": "set_region", "slot": 1}', "set_region without"),
        ('{"op": "dance"}', "no call that is known: dance"),
        ('{"do": "get_dirty_log slot=0", "errno": 5}', "the result is not understood"),
        ('{"do": "get_dirty_log slot=0", "ret": 3}', "the result is not understood"),
        ('{"vm": "x", "do": "get_dirty_log slot=0"}', "vm is not a number"),
        ("[" * 5000, "no JSON object on one line"),
    ],
)
def test_a_line_that_cannot_be_used_says_why(line, reason):
    found = replay(HEAD, line)

    assert found.rows == []
    assert found.reasons[0].startswith(reason)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ('{"slot": -1, "base_gfn": 0, "npages": 1, "userspace_addr": 0}', "slot -1: one of KVM's own"),
        ('{"slot": 1, "npages": 1}', "a slot without base_gfn, npages, userspace_addr"),
        ('{"slot": 1, "base_gfn": 0, "npages": 0, "userspace_addr": 0}', "a number that does not fit"),
        ('{"gfn": 7, "count": 1}', "a count of tracking"),
        ("{}", "no slot"),
    ],
)
def test_a_line_of_a_snapshot_that_cannot_be_used_says_why(line, reason):
    found = replay(SNAPSHOT, line)

    assert found.rows == []
    assert found.reasons[0].startswith(reason)


@pytest.mark.parametrize(
    ("head", "message"),
    [
        ('{"memslot-explorer": "calls", "version": 2}', "version 2 of the format; version 1 is read here"),
        ('{"memslot-explorer": "calls"}', "version None"),
        ('{"memslot-explorer": "dreams", "version": 1}', "it holds 'dreams'; there are calls and snapshot"),
        ('{"memslot-explorer": "calls", "version": 1, "profile": "v0"}', "no kernel profile is called 'v0'"),
        ('{"memslot-explorer": "calls", "version": 1, "profile": ["v6_1"]}', "no kernel profile is called"),
        ('{"memslot-explorer": "calls", "version": 1, "config": {"colour": 1}}', "config has no 'colour'"),
        ('{"memslot-explorer": "calls", "version": 1, "config": {"smm": "yes"}}', "config has smm = yes"),
        ('{"memslot-explorer": "calls", "version": 1, "config": {"processor": "arm"}}', "no processor 'arm'"),
        ('{"memslot-explorer": "calls", "version": 1, "config": {"host_phys_bits": 99}}', "host_phys_bits is 99"),
        ('{"memslot-explorer": "calls", "version": 1, "config": {"vm_type": 7}}', "vm_type is 7; there are 0 and 1"),
        ('{"memslot-explorer": "calls", "version": 1, "config": 7}', "config has no '7'"),
    ],
)
def test_a_head_that_asks_for_what_there_is_not_is_refused(head, message):
    with pytest.raises(TraceError, match=re.escape(message)):
        replay(head, '{"do": "get_dirty_log slot=0"}')


def test_the_machine_of_the_head_is_the_one_that_is_used():
    line = '{"do": "set_region slot=0 as=1 gpa=0 size=0x1000 hva=0x7f0000000000", "errno": null}'
    head = '{{"memslot-explorer": "calls", "version": 1, "config": {{"smm": {}}}}}'

    assert [replay(head.format(smm), line).agrees for smm in ("true", "false")] == [[True], [False]]
