"""The recorded function graphs, and the same operations on the engine.

The recordings hold the kernel's own function graph of single operations. A function that the compiler inlined shows in
none of them, so both sides are compared in the functions that the engine knows and that kernel shows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from story import H, Story, story

from explorer.conform.call_trees import machine_of, recorded_files
from explorer.engine.commands import GetDirtyLog
from explorer.engine.events import Called
from explorer.engine.profile import profile_of_release

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

TREES = recorded_files()


def where(path: Path) -> tuple[str, str]:
    """Return kernel and variant of a file."""
    return path.parts[-4], path.parts[-3]


def played(path: Path, label: str) -> Story:
    """Return the story of a recorded operation on the engine; its last command is the operation."""
    before, operation = OPERATIONS[label]
    on = machine_of(path)
    profile = profile_of_release(where(path)[0])
    assert profile is not None, path
    processor = "intel" if on.intel else "amd"
    vm = story(profile=profile.name, tdp=on.tdp, tdp_mmu=on.tdp_mmu, pml=on.pml, processor=processor)
    if "mapped" not in label and label != "get_dirty_log":
        vm.slot(0, gfn=0x5000, npages=1)
    return operation(before(vm))


def entered(vm: Story) -> list[str]:
    """Return the functions that the last command entered."""
    return [event.function for event in vm.events(Called)]


def slot_1(vm: Story) -> Story:
    return vm.slot(1, gfn=0x100, npages=16)


def mapped(vm: Story, flags: int = 0, levels: int = 2) -> Story:
    """Slot 0 of 32 pages, of which the guest has written to one; without TDP its tables lie there, too.

    The recordings do not say how the guest ran; how many tables it had is what the graph of their zap shows.
    """
    vm.slot(0, gfn=0, npages=32, flags=flags)
    return vm.do(f"shadow_tables gfn=1 levels={levels}").do("guest_write gpa=0x8000")


def quirk_off(vm: Story) -> Story:
    """The same and a slot of 4 MiB, in a VM in which a slot is zapped alone, if the kernel can do that."""
    vm.do("enable_cap cap=DISABLE_QUIRKS2 arg=0x80")
    return mapped(vm, levels=3).slot(1, gfn=0x400, npages=1024).do("guest_write gpa=0x400000")


OPERATIONS: dict[str, tuple[Callable[[Story], Story], Callable[[Story], Story]]] = {
    # label in the recording: what comes before it here, and the operation
    "create": (lambda vm: vm, lambda vm: vm.do(vm.region(1, gfn=0x100, npages=16))),
    "create_2m_aligned": (lambda vm: vm, lambda vm: vm.do(vm.region(1, gfn=0x200, npages=1024))),
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
    "get_dirty_log": (lambda vm: mapped(vm, flags=1), lambda vm: vm.do(GetDirtyLog(slot=0))),
    "flags_only_dirty_on_mapped": (mapped, lambda vm: vm.set_flags(0, 1)),
    "move_mapped": (lambda vm: mapped(vm, flags=1), lambda vm: vm.move(0, to_gfn=0x100)),
    "delete_mapped": (mapped, lambda vm: vm.delete(0)),
    "move_mapped_with_external_tracker": (lambda vm: mapped(vm.attach()), lambda vm: vm.move(0, to_gfn=0x100)),
    "move_quirk_off_mapped": (quirk_off, lambda vm: vm.move(1, to_gfn=0x800)),
    "delete_quirk_off_mapped": (lambda vm: quirk_off(vm).move(1, to_gfn=0x800), lambda vm: vm.delete(0)),
    "tracker_register": (slot_1, lambda vm: vm.attach()),
    "tracker_track_gfn": (lambda vm: slot_1(vm).attach(), lambda vm: vm.track(0x101)),
    "tracker_untrack_gfn": (lambda vm: slot_1(vm).attach().track(0x101), lambda vm: vm.untrack(0x101)),
    "tracker_unregister": (lambda vm: slot_1(vm).attach(), lambda vm: vm.detach()),
}
