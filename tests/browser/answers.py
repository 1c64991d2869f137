"""What the questions of the tests are answered by besides the page: layouts read by hand, runs through the engine."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from ordered_checks import Call, Slot, Vm
from story import Story

from explorer.engine.commands import format_command
from explorer.engine.profile import get_profile
from explorer.engine.state import new_vm
from explorer.scenarios import load_scenario

if TYPE_CHECKING:
    from explorer.engine.config import VmConfig

__all__ = ["PAGE", "Told", "call_of", "opening", "region_of", "slots_by_hand", "vm_of"]

PAGE = 4096
_CALL = re.compile(r"slot=(\d+), flags=\w+, guest_phys_addr=(\w+), memory_size=(\w+), userspace_addr=(\w+)\}")


class Told(NamedTuple):
    """A region as its text gives it, in bytes."""

    slot: int
    gpa: int
    size: int
    hva: int

    @property
    def end(self) -> int:
        return self.gpa + self.size


def region_of(line: str) -> Told:
    """Return the region of one line of strace."""
    found = _CALL.search(line)
    assert found is not None, line
    return Told(*(int(text, 0) for text in found.groups()))


def slots_by_hand(story: str = "first-look") -> list[Told]:
    """Return the slots a story has made, read off its lines; none of them is ever moved or deleted."""
    lines = [format_command(step.do) for step in load_scenario(story).steps]
    calls = [re.findall(r"(slot|gpa|size|hva)=(\w+)", line) for line in lines if line.startswith("set_region ")]
    return sorted((Told(**{name: int(text, 0) for name, text in call}) for call in calls), key=lambda told: told.gpa)


def vm_of(slots: list[Told], version: tuple[int, int], **known: int) -> Vm:
    """Return a VM as `ordered_checks` asks for it."""
    held = tuple(Slot(0, told.slot, told.gpa // PAGE, told.size // PAGE, told.hva, 0) for told in slots)
    return Vm(version=version, slots=held, spaces=2, max_gfn=(1 << 40) - 1, **known)


def call_of(told: Told, **changed: int) -> Call:
    """Return a call as `ordered_checks` asks for it."""
    fields = told._replace(**changed)
    return Call(slot=fields.slot, as_id=0, flags=0, gpa=fields.gpa, size=fields.size, hva=fields.hva)


def opening(profile: str = "v6_12", *, until: str = "first-look", config: VmConfig | None = None) -> Story:
    """Return a VM that the engine takes through the steps of a story, up to where the page opens."""
    scenario = load_scenario(until)
    vm = Story(new_vm(get_profile(profile), config or scenario.config))
    for step in scenario.steps:
        vm.do(step.do)
    return vm
