"""The kernel functions the engine says it enters are those a real kernel entered, in the same order.

The recordings hold the kernel's own function graph of single operations. A function that the compiler inlined
shows in none of them; so both sides are compared in the functions that the engine knows and that kernel shows.
"""

import gzip
import json
import re

import pytest
from pack_recordings import RECORDINGS
from story import H, Story, story

from explorer.engine.commands import GetDirtyLog
from explorer.engine.events import Called
from explorer.engine.profile import profile_of_release

ENGINE = RECORDINGS.parents[1] / "explorer" / "engine"
KNOWN = set(re.findall(r'\.enter\("(\w+)"\)', "".join(path.read_text() for path in ENGINE.glob("*.py"))))
NEWEST_NAME = {
    "__kvm_set_memory_region": "kvm_set_memory_region",
    "kvm_slot_page_track_add_page": "__kvm_write_track_add_gfn",
    "kvm_slot_page_track_remove_page": "__kvm_write_track_remove_gfn",
}
TREES = sorted(RECORDINGS.rglob("call_trees.json.gz"))


def slot_1(vm: Story) -> Story:
    return vm.slot(1, gfn=0x100, npages=16)


OPERATIONS = {
    # label in the recording: what comes before it here, and the operation
    "create": (lambda vm: vm, lambda vm: vm.do(vm.region(1, gfn=0x100, npages=16))),
    "create_dirty": (lambda vm: vm, lambda vm: vm.do(vm.region(1, gfn=0x100, npages=16, flags=1))),
    "create_readonly": (lambda vm: vm, lambda vm: vm.do(vm.region(1, gfn=0x100, npages=16, flags=2))),
    "move_accepted": (slot_1, lambda vm: vm.move(1, to_gfn=0x200)),
    "move_with_external_tracker": (lambda vm: slot_1(vm).attach(), lambda vm: vm.move(1, to_gfn=0x200)),
    "move_after_detach": (lambda vm: slot_1(vm).attach().detach(), lambda vm: vm.move(1, to_gfn=0x200)),
    "delete": (slot_1, lambda vm: vm.delete(1)),
    "delete_with_external_tracker": (lambda vm: slot_1(vm).attach(), lambda vm: vm.delete(1)),
    "flags_only_dirty_on": (slot_1, lambda vm: vm.set_flags(1, 1)),
    "flags_only_dirty_off": (lambda vm: slot_1(vm).set_flags(1, 1), lambda vm: vm.set_flags(1, 0)),
    "noop": (slot_1, lambda vm: vm.set_flags(1, 0)),
    "err_gpa_misaligned": (lambda vm: vm, lambda vm: vm.do("set_region slot=1 gpa=0x1001 size=0x1000")),
    "err_flags": (lambda vm: vm, lambda vm: vm.do("set_region slot=1 gpa=0 size=0x1000 flags=8")),
    "err_overlap": (lambda vm: vm, lambda vm: vm.do(vm.region(1, gfn=0x5000, npages=1))),
    "err_resize": (slot_1, lambda vm: vm.do(vm.region(1, gfn=0x100, npages=15))),
    "err_delete_nonexistent": (lambda vm: vm, lambda vm: vm.delete(1)),
    "err_create_beyond_max_gfn": (lambda vm: vm, lambda vm: vm.do(vm.region(2, gfn=1 << 40, npages=16, hva=H))),
    # On 5.10 the CREATE before this one succeeded, so the MOVE meets that slot.
    "err_move_beyond_max_gfn": (
        lambda vm: slot_1(vm).do(vm.region(2, gfn=1 << 40, npages=16, hva=H)),
        lambda vm: vm.move(1, to_gfn=1 << 40),
    ),
    "err_slot_id": (lambda vm: vm, lambda vm: vm.do("set_region slot=32764 gpa=0 size=0x1000")),
    "err_as_id": (lambda vm: vm, lambda vm: vm.do("set_region slot=1 as=2 gpa=0 size=0x1000")),
    "get_dirty_log": (lambda vm: slot_1(vm).set_flags(1, 1), lambda vm: vm.do(GetDirtyLog(slot=1))),
    "tracker_register": (slot_1, lambda vm: vm.attach()),
    "tracker_track_gfn": (lambda vm: slot_1(vm).attach(), lambda vm: vm.track(0x101)),
    "tracker_untrack_gfn": (lambda vm: slot_1(vm).attach().track(0x101), lambda vm: vm.untrack(0x101)),
    "tracker_unregister": (lambda vm: slot_1(vm).attach(), lambda vm: vm.detach()),
}


def entered(tree) -> list[str]:
    """Return the functions of a call tree in the order in which they were entered, by their newest names."""
    return [name for node in tree for name in (NEWEST_NAME.get(node["fn"], node["fn"]), *entered(node["children"]))]


@pytest.mark.parametrize("label", OPERATIONS)
@pytest.mark.parametrize("path", TREES, ids=lambda path: "-".join(path.parts[-4:-2]))
def test_the_engine_enters_the_functions_a_real_kernel_entered(path, label):
    kernel, variant = path.parts[-4:-2]
    trees = json.loads(gzip.decompress(path.read_bytes()))
    shown = {name for tree in trees for name in entered(tree["tree"])}
    (recorded,) = (tree for tree in trees if tree["label"] == label)
    before, operation = OPERATIONS[label]
    # kvm.tdp_mmu was off on 5.10 in all recordings, as their configurations say.
    machine = {"tdp": not variant.endswith(("npt0", "ept0")), "tdp_mmu": kernel != "5.10" and "mmu0" not in variant}
    vm = story(profile=profile_of_release(kernel).name, **machine)

    operation(before(vm.slot(0, gfn=0x5000, npages=1)))

    assert vm.errno_name == recorded["errno"]
    assert [e.function for e in vm.events(Called) if e.function in shown] == [
        name for name in entered(recorded["tree"]) if name in KNOWN
    ]


def test_enough_functions_are_compared():
    (path,) = (path for path in TREES if path.parts[-4:-2] == ("7.3", "npt1"))
    trees = json.loads(gzip.decompress(path.read_bytes()))

    assert len({name for tree in trees for name in entered(tree["tree"])} & KNOWN) > 15
