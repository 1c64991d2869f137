"""A refused region call seen through: the check that fired, what it compared, the slot in the way, what would work.

Nothing is told that the engine did not compute: the call is run on a copy of the VM, the checks are those of the
profile's ladder (`explorer.engine.guards`), the changes are those of `changes`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple

from explorer.engine.apply import apply
from explorer.engine.commands import SetMemoryRegion, SetMemoryRegion2
from explorer.engine.guards import ladder_for
from explorer.engine.guest_memfd import bound_to
from explorer.engine.lookup import slots_in_gfn_range
from explorer.engine.types import PAGE_SHIFT, PAGE_SIZE
from explorer.engine.uapi import flags_text
from explorer.explain.changes import changes_that_work
from explorer.explain.edits import end_of, start_of
from explorer.explain.sources import name_in
from explorer.explain.words import errno_text, hex_text, plural, size_text
from explorer.history.moment import attempted_change

if TYPE_CHECKING:
    from explorer.engine.guard import Guard, GuardResult
    from explorer.engine.state import Kvm, KvmMemorySlot
    from explorer.engine.types import Errno
    from explorer.engine.uapi import KvmMrChange
    from explorer.explain.changes import Change
    from explorer.history.moment import Moment

__all__ = [
    "Check",
    "InTheWay",
    "Operand",
    "XRay",
    "changes_at",
    "in_the_way_of",
    "in_the_way_of_next",
    "named",
    "slots_in_the_way",
    "why_nothing_works",
    "xray_of",
]

_SLOTS_NAMED = 4


class Operand(NamedTuple):
    """An argument of the call, as a number and in words."""

    name: str
    """Field of the region, as the ioctl calls it."""
    value: int
    words: str

    @property
    def hex(self) -> str:
        """The number in hexadecimal."""
        return hex_text(self.value)


class Check(NamedTuple):
    """A check that answers with the same errno."""

    name: str
    title: str
    """What must hold."""
    function: str
    """Kernel function it stands in, under its name in the profile's tree."""
    outcome: Literal["passed", "fired", "not reached"]


class InTheWay(NamedTuple):
    """A slot that has what the call asks for."""

    slot: KvmMemorySlot
    first_gfn: int
    """First page that both want."""
    end_gfn: int
    """First page behind those."""

    @property
    def words(self) -> str:
        """Which slot it is, where it lies, and how much of it is asked for."""
        slot = self.slot
        where = f"slot {slot.id}" + (f" of address space {slot.as_id}" if slot.as_id else "")
        both = size_text((self.end_gfn - self.first_gfn) << PAGE_SHIFT)
        shared = _range(self.first_gfn, self.end_gfn)
        return f"{where} has {_range(slot.base_gfn, slot.end_gfn)}; {both} of it are asked for, {shared}"


class XRay(NamedTuple):
    """Why one region call was refused, and what would work."""

    call: SetMemoryRegion
    profile: str
    """Title of the kernel."""
    errno: Errno
    guard: Guard
    number: int
    """Position of the check that fired among all that the kernel asks of such a call, from 1."""
    checks: int
    """How many those are."""
    function: str
    """Kernel function it stands in, under its name in the profile's tree."""
    operands: str
    """What it compared."""
    arguments: tuple[Operand, ...]
    same_errno: tuple[Check, ...]
    """All checks of such a call that answer with this errno, in kernel order; the one that fired too."""
    change: KvmMrChange | None
    """What the call tried to be, if that can be told."""
    cost: str
    """What the call had done before it was refused."""
    in_the_way: tuple[InTheWay, ...]
    changes: tuple[Change, ...]
    nothing_works: str
    """Why there is no change, or empty."""

    @property
    def sentence(self) -> str:
        """Which check refused the call, on which kernel, and what it compared."""
        return (
            f"{self.function}() of {self.profile} refuses the call with {errno_text(self.errno)}:"
            f" the check “{self.guard.title}” fails, {self.operands}."
        )


def xray_of(kvm: Kvm, call: SetMemoryRegion) -> XRay | None:
    """Return why a call is refused on a VM at rest; None if it is accepted."""
    step = apply(kvm, call)
    guard = step.refused_by
    if guard is None or step.errno is None:
        return None
    profile, change = kvm.profile, step.change or attempted_change(kvm, call)
    asked = {result.guard.name: result for result in step.results}
    ladder = ladder_for(profile, call).of(change)
    names = [rung.name for rung in ladder]
    same = tuple(
        Check(rung.name, rung.title, name_in(rung.function, profile) or rung.function, _outcome(rung, guard, asked))
        for rung in ladder
        if rung.errno is guard.errno
    )
    changes = changes_that_work(kvm, call)
    return XRay(
        call=call,
        profile=profile.title,
        errno=step.errno,
        guard=guard,
        number=names.index(guard.name) + 1,
        checks=len(ladder),
        function=name_in(guard.function, profile) or guard.function,
        operands=asked[guard.name].operands,
        arguments=_arguments(call),
        same_errno=same,
        change=change,
        cost=_cost(kvm, step.kvm, call),
        in_the_way=slots_in_the_way(kvm, call, guard.name),
        changes=changes,
        nothing_works="" if changes else why_nothing_works(guard),
    )


def _outcome(rung: Guard, fired: Guard, asked: dict[str, GuardResult]) -> Literal["passed", "fired", "not reached"]:
    if rung.name == fired.name:
        return "fired"
    return "passed" if rung.name in asked else "not reached"


def _arguments(call: SetMemoryRegion) -> tuple[Operand, ...]:
    npages, rest = divmod(call.memory_size, PAGE_SIZE)
    pages = plural(npages, "page") + (f" and {plural(rest, 'byte')}" if rest else "")
    size = f"{size_text(call.memory_size)}, {pages}" if call.memory_size else "0: a DELETE"
    found = [
        Operand("slot", call.slot | call.as_id << 16, f"slot {call.slot} of address space {call.as_id}"),
        Operand("flags", call.flags, _flags(call.flags)),
        Operand("guest_phys_addr", call.guest_phys_addr, _place(call.guest_phys_addr, "gfn")),
        Operand("memory_size", call.memory_size, size),
        Operand("userspace_addr", call.userspace_addr, _place(call.userspace_addr, "host page")),
    ]
    if isinstance(call, SetMemoryRegion2):
        fd = call.guest_memfd
        found.append(Operand("guest_memfd", fd, f"descriptor {fd}" if fd >> 31 == 0 else "none"))
        found.append(Operand("guest_memfd_offset", call.guest_memfd_offset, size_text(call.guest_memfd_offset)))
    return tuple(found)


def _flags(flags: int) -> str:
    rest = flags & ~0x7
    return flags_text(flags & 0x7) + (f" and {hex_text(rest)}, which are no flags" if rest else "")


def _place(address: int, what: str) -> str:
    page, rest = divmod(address, PAGE_SIZE)
    return f"{what} {hex_text(page)}" + (f" and {plural(rest, 'byte')}" if rest else "")


def _range(first_gfn: int, end_gfn: int) -> str:
    return f"{hex_text(first_gfn << PAGE_SHIFT)} to {hex_text((end_gfn << PAGE_SHIFT) - 1)}"


def _cost(before: Kvm, after: Kvm, call: SetMemoryRegion) -> str:
    if call.as_id >= len(before.memslots):
        return "nothing was touched"
    steps = after.active(call.as_id).generation - before.active(call.as_id).generation
    if not steps:
        return "nothing was touched"
    return f"the slot was hidden and its mappings zapped first; the generation went up by {steps}"


def why_nothing_works(guard: Guard) -> str:
    """Return why no change of a call helps where a check fired and none was found."""
    if guard.name == "vm_alive":
        return "no call on this VM works any more: KVM marked it dead, and only a new VM helps"
    if guard.name in ("bitmap_memory", "array_memory"):
        return "no change of the arguments helps: the kernel has no memory for it"
    return "no change was found with which the model accepts the call"


def slots_in_the_way(kvm: Kvm, call: SetMemoryRegion, guard: str) -> tuple[InTheWay, ...]:
    """Return the slots that have pages which a refused call asks for, lowest first; none for other checks."""
    if guard == "overlap":
        first, end = start_of(call), end_of(call)
        return tuple(
            InTheWay(slot, max(first, slot.base_gfn), min(end, slot.end_gfn))
            for slot in slots_in_gfn_range(kvm.active(call.as_id), first, end)
            if slot.id != call.slot
        )
    if guard == "gmem_overlap" and isinstance(call, SetMemoryRegion2):
        first = call.guest_memfd_offset >> PAGE_SHIFT
        holder = bound_to(kvm.guest_memfds[call.guest_memfd], first, call.memory_size >> PAGE_SHIFT)
        slot = kvm.slot(holder.slot, holder.as_id) if holder is not None else None
        return (InTheWay(slot, slot.base_gfn, slot.end_gfn),) if slot is not None else ()
    return ()


def changes_at(moment: Moment) -> tuple[Change, ...]:
    """Return the smallest changes with which the call a moment is in would be accepted; none unless it was refused."""
    op, call = moment.op, moment.call
    if op is None or call is None or op.step.refused_by is None:
        return ()
    return changes_that_work(op.before, call)


def named(ways: tuple[InTheWay, ...]) -> str:
    """Return which slots are in the way, as the beginning of a sentence that ends with “in the way”."""
    ids = [str(way.slot.id) for way in ways]
    if len(ids) == 1:
        return f"Slot {ids[0]} is"
    told, more = ids[:_SLOTS_NAMED], len(ids) - _SLOTS_NAMED
    if more > 0:
        return f"Slots {', '.join(told)} and {more} more are"
    return f"Slots {', '.join(told[:-1])} and {told[-1]} are"


def in_the_way_of(moment: Moment) -> tuple[InTheWay, ...]:
    """Return the slots in the way of the region call a moment is in; none unless it was refused for them."""
    op, call = moment.op, moment.call
    if op is None or call is None or op.step.refused_by is None:
        return ()
    return slots_in_the_way(op.before, call, op.step.refused_by.name)


def in_the_way_of_next(moment: Moment) -> tuple[InTheWay, ...]:
    """Return the slots in the way of the composed region call; none unless it would be refused for them."""
    ghost = moment.ghost
    if ghost is None or not moment.at_end or not isinstance(ghost.command, SetMemoryRegion):
        return ()
    guard = ghost.step.refused_by
    return () if guard is None else slots_in_the_way(ghost.before, ghost.command, guard.name)
