"""QEMU's memory tree: names for slots, and what does not fit."""

import gzip
import io
import json
import re

import pytest
from logs import TRACES, create_vm, region, replay

from explorer.engine.apply import apply
from explorer.engine.commands import SetMemoryRegion
from explorer.engine.state import new_vm
from explorer.engine.types import PAGE_SHIFT
from explorer.trace.records import TraceError
from explorer.trace.replay import Replay
from explorer.trace.source import Source, file_source
from explorer.trace.tree import is_tree, name_slots, read_tree

TREES = sorted(
    path
    for path in TRACES.glob("*/mtree-*.txt.gz")
    if (path.parent / "qemu-trace.log.gz").exists() and not path.parent.name.startswith("big-")
)
HEAD = ["FlatView #2", ' AS "memory", root: system', ' AS "cpu-memory-0", root: system', " Root memory region: system"]


def tree(*lines, head=True):
    return read_tree(Source("mtree.txt", io.BytesIO("\n".join([*(HEAD if head else []), *lines, ""]).encode())))


def vm(*slots):
    kvm = new_vm()
    for number, (gpa, size, hva) in enumerate(slots):
        step = apply(kvm, SetMemoryRegion(slot=number, guest_phys_addr=gpa, memory_size=size, userspace_addr=hva))
        assert step.errno is None
        kvm = step.kvm
    return kvm


RAM = "  0000000000000000-000000000009ffff (prio 0, ram): pc.ram KVM"
VGA = "  00000000000a0000-00000000000bffff (prio 1, i/o): vga-lowmem"
ROM = "  00000000000c0000-00000000000c9fff (prio 0, rom): pc.ram @00000000000c0000 KVM"


@pytest.mark.parametrize("path", TREES, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_every_recorded_tree_names_every_slot_of_its_moment(path):
    text = gzip.decompress(path.read_bytes()).decode()
    truth = path.parent / path.name.replace("mtree-", "truth-").replace(".txt", ".json")
    stopped = json.loads(gzip.decompress(truth.read_bytes()))["log_lines"]["stopped"][0]
    log = file_source(path.parent / "qemu-trace.log.gz")
    player = Replay(log)
    kvm = None
    for row in player.rows():
        if row.line > stopped:
            break
        kvm = player.lift.machines[row.vm].kvm
    log.close()
    source = file_source(path)

    naming = name_slots(kvm, read_tree(source))
    source.close()

    assert naming.mismatches == ()
    assert len(naming.owners) == len(kvm.slots())
    for (_, slot), found in naming.owners:
        first = f"{kvm.slot(slot).base_gfn << PAGE_SHIFT:016x}"
        assert re.search(
            rf"^  {first}-\w+ \(prio {found.prio}, {found.kind}\): {re.escape(found.owner)}\b.* KVM", text, re.MULTILINE
        )


def test_there_are_trees_to_read():
    assert len(TREES) > 40


def test_only_what_lies_in_a_slot_is_a_slot():
    found = tree(RAM, VGA, ROM)

    assert [(one.owner, one.is_slot, one.prio) for one in found.ranges] == [
        ("pc.ram", True, 0),
        ("vga-lowmem", False, 1),
        ("pc.ram", True, 0),
    ]
    assert (found.used, found.gaps, found.marked) == (7, (), True)


def test_a_slot_gets_the_name_of_its_range_and_the_memory_behind_it_too():
    kvm = vm((0, 0xA0000, 0x7F0000000000), (0xC0000, 0xA000, 0x7F00000C0000))

    naming = name_slots(kvm, tree(RAM, VGA, ROM))

    assert [(key, found.owner) for key, found in naming.owners] == [((0, 0), "pc.ram"), ((0, 1), "pc.ram")]
    assert naming.mismatches == ()
    assert naming.backings == ((0x7F0000000000, 0x7F00000CA000, "pc.ram"),)


def test_what_does_not_fit_is_listed_from_both_sides():
    kvm = vm((0, 0x80000, 0x7F0000000000), (0x100000, 0x1000, 0x7F1000000000))

    naming = name_slots(kvm, tree(RAM, ROM))

    assert naming.owners == ()
    assert naming.mismatches == (
        "line 5: pc.ram at 0x0..0xa0000: there lies slot 0 at 0x0..0x80000",
        "line 6: pc.ram at 0xc0000..0xca000: no slot lies there",
        "slot 0 at 0x0..0x80000 is not among the tree's ranges",
        "slot 1 at 0x100000..0x101000 is not among the tree's ranges",
    )


def test_a_qemu_that_marks_nothing_shows_slots_as_ram_and_rom():
    found = tree(RAM.removesuffix(" KVM"), VGA, ROM.removesuffix(" KVM"))

    assert not found.marked
    assert [one.is_slot for one in found.ranges] == [True, False, True]


def test_lines_of_the_monitor_around_it_are_told():
    found = tree(
        "QEMU 7.2.22 monitor - type 'help' for more information",
        "(qemu) info mtree -f",
        *HEAD,
        RAM,
        "what?",
        head=False,
    )

    assert [(gap.line, gap.reason) for gap in found.gaps] == [
        (1, "the monitor's own line"),
        (2, "the monitor's own line"),
        (8, "no line of a flat view"),
    ]


@pytest.mark.parametrize("text", ["", 'FlatView #0\n AS "I/O", root: io\n', "address-space: memory\n", "\0" * 10])
def test_a_text_without_the_guests_memory_is_refused_with_a_sentence(text):
    with pytest.raises(TraceError, match=r"^mtree\.txt: no flat view of the address space"):
        read_tree(Source("mtree.txt", io.BytesIO(text.encode())))


def test_a_tree_is_told_from_a_log():
    texts = ("\n".join([*HEAD, RAM]), create_vm(), region())

    assert [is_tree(Source("x", io.BytesIO(text.encode()))) for text in texts] == [True, False, False]
    with pytest.raises(TraceError, match="names slots and makes none; give it with a log"):
        replay(*HEAD, RAM)
    with pytest.raises(TraceError, match="without -f"):
        replay("address-space: memory", "  0000000000000000-ffffffffffffffff (prio 0, i/o): system")
