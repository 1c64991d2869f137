"""The VM that a single line does not show: the smallest one in which the model refuses the call as the kernel did.

One line says what was asked and which errno came back, and nothing of the slots there were. So small VMs are tried in
the engine, smallest first: none, one slot, a slot and a tracker. One that gives the recorded errno is a possible
reason, told with what had to be assumed; several reasons are all told, for the line alone cannot decide.

Not tried: VMs that need more than that, and errnos that come from before KVM looks at a region.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from explorer.engine.apply import apply
from explorer.engine.commands import AttachTracker, CreateGuestMemfd, SetMemoryRegion, SetMemoryRegion2
from explorer.engine.config import VmConfig
from explorer.engine.profile import PROFILES
from explorer.engine.runset import RunSet
from explorer.engine.state import DirtyBitmap, new_vm
from explorer.engine.types import PAGE_SHIFT, PAGE_SIZE, SlotId
from explorer.engine.uapi import KVM_MEM_GUEST_MEMFD, KVM_MEM_LOG_DIRTY_PAGES, KVM_MEM_READONLY, KVM_X86_SW_PROTECTED_VM
from explorer.explain.edits import end_of
from explorer.explain.words import hex_text

if TYPE_CHECKING:
    from collections.abc import Iterator

    from explorer.engine.commands import Command
    from explorer.engine.profile import KernelProfile
    from explorer.engine.state import Kvm

__all__ = ["BARE", "Supposed", "supposed_vms"]

BARE = VmConfig(tdp=True, external_write_tracking=False)
"""The machine of a line by itself: two-dimensional paging, SMM, no external page trackers."""
_FEWEST_BITS = 32
_OTHER_HVA = 1 << 30


class Supposed(NamedTuple):
    """A VM in which the call is refused as recorded."""

    kvm: Kvm
    """Before the call."""
    start: Kvm
    """Before the assumed calls."""
    commands: tuple[Command, ...]
    """The assumed calls that lead from there to it."""
    assumptions: tuple[str, ...]
    guard: str
    """The check that refuses the call there."""


class _Guess(NamedTuple):
    """A VM to try."""

    assumption: str
    commands: tuple[Command, ...] = ()
    config: VmConfig | None = None
    """Another machine; None for the one at hand."""


def supposed_vms(
    call: SetMemoryRegion, errno: str, profile: KernelProfile, *, start: Kvm | None = None, other_kernels: bool = True
) -> tuple[Supposed, ...]:
    """Return VMs in which a call is refused with `errno`, the smallest first, one for each check.

    Parameters
    ----------
    call
        The call of the line.
    errno
        Name of what the kernel returned.
    profile
        Kernel to try them on.
    start
        The VM after a log; None if nothing is known of it.
    other_kernels
        Whether to try other releases, too, for checks that this one does not have.
    """
    found: dict[str, Supposed] = {}
    kernels = [profile]
    if start is None and other_kernels:
        kernels += [other for other in reversed(PROFILES.values()) if other.kind == "release" and other is not profile]
    for kernel in kernels:
        for guess in _guesses(call, start):
            first = _start(start, guess, kernel)
            supposed = _tried(call, errno, first, guess) if first is not None else None
            if supposed is None or supposed.guard in found:
                continue
            if kernel is not profile:
                words = f"The kernel is one like {kernel.title} and not {profile.title}."
                supposed = supposed._replace(assumptions=(words, *supposed.assumptions))
            found[supposed.guard] = supposed
    return tuple(found.values())


def _start(start: Kvm | None, guess: _Guess, kernel: KernelProfile) -> Kvm | None:
    """Return the VM that a guess starts from: none at all, the one after the log, or that one on another machine."""
    if start is None:
        return new_vm(kernel, guess.config or BARE)
    if guess.config is None:
        return start
    kvm = new_vm(start.profile, replace(start.config, external_write_tracking=True))
    for as_id in range(len(start.memslots)):
        for slot in start.slots(as_id):
            again = SetMemoryRegion(
                slot=slot.id,
                as_id=as_id,
                flags=slot.flags,
                guest_phys_addr=slot.base_gfn << PAGE_SHIFT,
                memory_size=slot.npages << PAGE_SHIFT,
                userspace_addr=slot.userspace_addr,
            )
            step = apply(kvm, again, record=False)
            if step.errno is not None:
                return None
            kvm = step.kvm
    return kvm


def _tried(call: SetMemoryRegion, errno: str, start: Kvm, guess: _Guess) -> Supposed | None:
    kvm = start
    for command in guess.commands:
        step = apply(kvm, command, record=False)
        if step.errno is not None:
            return None
        kvm = step.kvm
    step = apply(kvm, call, record=False)
    if step.errno is None or step.refused_by is None or step.errno.name != errno:
        return None
    guard = step.refused_by.name
    told = guess.assumption or _EMPTY.get(guard, "").format(slot=call.slot, as_id=call.as_id)
    return Supposed(kvm, start, guess.commands, (told,) if told else (), guard)


_EMPTY = {
    "slot_exists": "There is no slot {slot} in address space {as_id}.",
    "max_gfn": "The host has 46 physical address bits.",
    "flags": "The VM is a plain one, without private memory.",
    "gmem_file": "The descriptor is no guest_memfd of this VM.",
}
"""What the errno of a call says of a VM without slots; for all other checks the arguments alone decide."""


def _guesses(call: SetMemoryRegion, start: Kvm | None) -> Iterator[_Guess]:
    """Iterate over VMs to try, the simplest first."""
    bare = start is None
    yield _Guess("")
    if call.flags & KVM_MEM_GUEST_MEMFD:
        yield from _with_files(call, bare=bare)
    if bare and call.as_id:
        yield from _of_the_machine(call)
    own = SetMemoryRegion(slot=call.slot, as_id=call.as_id, guest_phys_addr=0, memory_size=0)
    if not bare:
        words = "An external page tracker such as KVMGT is attached, which the log does not show."
        yield _Guess(words, (AttachTracker(kind="kvmgt"),), replace(BARE, external_write_tracking=True))
        yield _Guess(f"Slot {call.slot}, which the log has, was deleted meanwhile.", (own,))
    if call.memory_size >= PAGE_SIZE:
        other = _free_id(call, start)
        yield from _with_a_slot(call, other)
        if not bare:
            another = next(_with_a_slot(call, other))
            yield another._replace(commands=(own, *another.commands))
    if bare and not call.as_id:
        yield from _of_the_machine(call)
    if not bare:
        return
    bitmap = DirtyBitmap(call.memory_size >> PAGE_SHIFT, RunSet()).size_bytes
    if call.flags & KVM_MEM_LOG_DIRTY_PAGES:
        words = "The kernel had no memory left for the dirty bitmap of the slot."
        yield _Guess(words, (), replace(BARE, host_memory=0))
    words = "The kernel had no memory left for the arrays of the slot."
    yield _Guess(words, (), replace(BARE, host_memory=bitmap if call.flags & KVM_MEM_LOG_DIRTY_PAGES else 0))


def _free_id(call: SetMemoryRegion, start: Kvm | None) -> int:
    """Return the id of a slot that stands for one that is not known."""
    known = start.active(call.as_id).id_hash if start is not None and call.as_id < len(start.memslots) else ()
    return next(i for i in range(len(known) + 2) if i != call.slot and SlotId(i) not in known)


def _of_the_machine(call: SetMemoryRegion) -> Iterator[_Guess]:
    """Assume a machine that has less: one address space, fewer address bits."""
    if call.as_id:
        yield _Guess("The VM has one address space: KVM was built without SMM.", (), replace(BARE, smm=False))
    bits = ((end_of(call) - 1) << PAGE_SHIFT).bit_length() - 1 if call.memory_size else 0
    if _FEWEST_BITS <= bits < BARE.host_phys_bits:
        words = f"The processor has at most {bits} physical address bits, so guest memory ends below this slot."
        yield _Guess(words, (), replace(BARE, host_phys_bits=bits))


def _with_a_slot(call: SetMemoryRegion, other: int) -> Iterator[_Guess]:
    """Assume one slot: of another id where the call wants to be, or of the same id and not quite the same."""
    plain = SetMemoryRegion(
        slot=call.slot,
        as_id=call.as_id,
        guest_phys_addr=call.guest_phys_addr,
        memory_size=call.memory_size,
        userspace_addr=call.userspace_addr,
    )
    last = hex_text(call.guest_phys_addr + call.memory_size - 1)
    yield _Guess(
        f"Another slot has some of {hex_text(call.guest_phys_addr)} to {last}. Which one, and how far it reaches, is"
        f" not known: slot {other} over exactly this range stands for it. Slot {call.slot} does not exist.",
        (replace(plain, slot=other),),
    )
    exists = f"Slot {call.slot} exists already"
    size = call.memory_size + PAGE_SIZE
    yield _Guess(
        f"{exists}, with another size. Which one is not known: {hex_text(size)} stands for it.",
        (replace(plain, memory_size=size),),
    )
    hva = call.userspace_addr ^ _OTHER_HVA
    yield _Guess(
        f"{exists}, with another host address. Which one is not known: {hex_text(hva)} stands for it.",
        (replace(plain, userspace_addr=hva),),
    )
    without = "without" if call.flags & KVM_MEM_READONLY else "with"
    flags = (call.flags ^ KVM_MEM_READONLY) & KVM_MEM_READONLY
    yield _Guess(f"{exists}, {without} READONLY.", (replace(plain, flags=flags),))
    below = call.guest_phys_addr >= call.memory_size
    elsewhere = call.guest_phys_addr + (-call.memory_size if below else call.memory_size)
    yield _Guess(
        f"{exists} at another base, so that this is a MOVE, and an external page tracker such as KVMGT is attached.",
        (replace(plain, guest_phys_addr=elsewhere, flags=call.flags & KVM_MEM_READONLY), AttachTracker(kind="kvmgt")),
        replace(BARE, external_write_tracking=True),
    )
    yield _Guess(f"{exists}; one that exists cannot be put on a guest_memfd.", (plain,))


def _with_files(call: SetMemoryRegion, *, bare: bool) -> Iterator[_Guess]:
    """Assume a guest_memfd behind the descriptor: long enough, too short, or taken by another slot."""
    if not isinstance(call, SetMemoryRegion2):
        return
    protected = replace(BARE, vm_type=KVM_X86_SW_PROTECTED_VM, sw_protected_vm=True)
    for config in (None, protected) if bare else (None,):
        end = (call.guest_memfd_offset + call.memory_size + PAGE_SIZE - 1) & -PAGE_SIZE
        file = CreateGuestMemfd(fd=call.guest_memfd, size=max(end, PAGE_SIZE))
        other = replace(call, slot=0 if call.slot else 1, guest_phys_addr=call.guest_phys_addr + call.memory_size)
        yield _Guess("The descriptor is no guest_memfd of this VM.", (), config)
        short = replace(file, size=max(end - PAGE_SIZE, PAGE_SIZE))
        yield _Guess("The guest_memfd is too short; how long it is is not known.", (short,), config)
        taken = "Another slot has this part of the guest_memfd; which one is not known."
        yield _Guess(taken, (file, other), config)
