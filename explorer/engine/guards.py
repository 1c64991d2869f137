"""The ladder of checks a region call must pass, in kernel order, as one table: a row a check.

Models the checks of virt/kvm/kvm_main.c: kvm_vm_ioctl_set_memory_region(), kvm_set_memory_region(), and of
arch/x86/kvm/x86.c: kvm_arch_prepare_memory_region().
Not modelled: a fault while the argument is copied (EFAULT), small allocations that fail, the TDX shared bit.
Read next: `gmem_guards`.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Literal

from explorer.engine import gmem_guards
from explorer.engine.commands import SetMemoryRegion, SetMemoryRegion2
from explorer.engine.gmem_guards import check_memory_region_flags
from explorer.engine.guard import Guard, Ladder, multiple
from explorer.engine.lookup import overlapping_slot
from explorer.engine.metadata import bitmap_sizes, fits_in_memory, metadata_sizes
from explorer.engine.page_track import kvm_page_track_has_external_user
from explorer.engine.types import PAGE_SHIFT, PAGE_SIZE, U64_MAX, Errno, SlotId
from explorer.engine.uapi import (
    KVM_MEM_GUEST_MEMFD,
    KVM_MEM_LOG_DIRTY_PAGES,
    KVM_MEM_MAX_NR_PAGES,
    KVM_MEM_READONLY,
    TASK_SIZE_MAX,
    KvmMrChange,
)

if TYPE_CHECKING:
    from explorer.engine.draft import KvmDraft
    from explorer.engine.profile import KernelProfile
    from explorer.engine.region_call import RegionUpdate

__all__ = ["ladder_for", "ladder_of"]

CREATE, DELETE, MOVE, FLAGS_ONLY = (
    KvmMrChange.CREATE,
    KvmMrChange.DELETE,
    KvmMrChange.MOVE,
    KvmMrChange.FLAGS_ONLY,
)


def _end(update: RegionUpdate) -> int:
    return (update.call.guest_phys_addr >> PAGE_SHIFT) + update.npages


_VM_ALIVE = Guard(
    name="vm_alive",
    title="the VM was not marked dead",
    function="kvm_vm_ioctl",
    errno=Errno.EIO,
    passes=lambda kvm, _: not kvm.vm_bugged,
    operands=lambda kvm, _: "KVM_BUG marked it dead" if kvm.vm_bugged else "alive",
)
_REGION_FLAGS = Guard(
    name="region_flags",
    title="only flags the plain region ioctl knows",
    function="kvm_vm_ioctl",
    errno=Errno.EINVAL,
    passes=lambda _, u: not u.call.flags & ~(KVM_MEM_LOG_DIRTY_PAGES | KVM_MEM_READONLY),
    operands=lambda _, u: f"{u.call.flags:#x}, known {KVM_MEM_LOG_DIRTY_PAGES | KVM_MEM_READONLY:#x}",
    behaviour=lambda profile: profile.region_flags_checked_first,
)
_USER_SLOT_ID = Guard(
    name="user_slot_id",
    title="slot id in userspace’s range",
    function="kvm_vm_ioctl_set_memory_region",
    errno=Errno.EINVAL,
    passes=lambda kvm, u: u.call.slot < kvm.profile.user_mem_slots or u.internal,
    operands=lambda kvm, u: (
        f"{u.call.slot} {'<' if u.call.slot < kvm.profile.user_mem_slots else '>='} {kvm.profile.user_mem_slots}"
    ),
)


_FLAGS = Guard(
    name="flags",
    title="only known flags",
    function="check_memory_region_flags",
    errno=Errno.EINVAL,
    passes=lambda kvm, u: not u.call.flags & ~check_memory_region_flags(kvm, u.call.flags),
    operands=lambda kvm, u: f"{u.call.flags:#x}, known {check_memory_region_flags(kvm, u.call.flags):#x}",
)
_SIZE_ALIGNED = Guard(
    name="size_aligned",
    title="size in whole pages",
    function="kvm_set_memory_region",
    errno=Errno.EINVAL,
    passes=lambda _, u: not u.call.memory_size & (PAGE_SIZE - 1),
    operands=lambda _, u: f"size {multiple(u.call.memory_size)}",
)
_GPA_ALIGNED = Guard(
    name="gpa_aligned",
    title="guest address on a page",
    function="kvm_set_memory_region",
    errno=Errno.EINVAL,
    passes=lambda _, u: not u.call.guest_phys_addr & (PAGE_SIZE - 1),
    operands=lambda _, u: f"gpa {multiple(u.call.guest_phys_addr)}",
)
_HVA_ALIGNED = Guard(
    name="hva_aligned",
    title="host address on a page",
    function="kvm_set_memory_region",
    errno=Errno.EINVAL,
    passes=lambda kvm, u: not u.call.userspace_addr & (PAGE_SIZE - 1) or not u.checks_hva(kvm.profile),
    operands=lambda _, u: f"hva {multiple(u.call.userspace_addr)}",
)
_HVA_USER_RANGE = Guard(
    name="hva_user_range",
    title="host range belongs to userspace",
    function="kvm_set_memory_region",
    errno=Errno.EINVAL,
    passes=lambda kvm, u: u.call.userspace_addr + u.call.memory_size <= TASK_SIZE_MAX or not u.checks_hva(kvm.profile),
    operands=lambda _, u: (
        f"hva end {u.call.userspace_addr + u.call.memory_size:#x}, userspace ends at {TASK_SIZE_MAX:#x}"
    ),
)


_AS_ID = Guard(
    name="as_id",
    title="address space and id exist",
    function="kvm_set_memory_region",
    errno=Errno.EINVAL,
    passes=lambda kvm, u: u.call.as_id < len(kvm.memslots),
    operands=lambda kvm, u: (
        f"address space {u.call.as_id}, there {'is' if len(kvm.memslots) == 1 else 'are'} {len(kvm.memslots)}"
    ),
)
_GPA_NO_WRAP = Guard(
    name="gpa_no_wrap",
    title="range does not wrap",
    function="kvm_set_memory_region",
    errno=Errno.EINVAL,
    passes=lambda _, u: u.call.guest_phys_addr + u.call.memory_size <= U64_MAX,
    operands=lambda _, u: f"gpa + size = {u.call.guest_phys_addr + u.call.memory_size:#x}, most is {U64_MAX:#x}",
)
_NPAGES = Guard(
    name="npages",
    title="at most 2^31 - 1 pages",
    function="kvm_set_memory_region",
    errno=Errno.EINVAL,
    passes=lambda _, u: u.npages <= KVM_MEM_MAX_NR_PAGES,
    operands=lambda _, u: f"{u.npages} pages, most are {KVM_MEM_MAX_NR_PAGES}",
)
_SLOT_EXISTS = Guard(
    name="slot_exists",
    title="there is a slot to delete",
    function="kvm_set_memory_region",
    errno=Errno.EINVAL,
    passes=lambda _, u: u.old is not None,
    operands=lambda _, u: (
        f"size 0, slot {u.call.slot} {'exists' if u.old else 'does not exist'} in address space {u.call.as_id}"
    ),
)
_PAGES_ACCOUNTED = Guard(
    name="pages_accounted",
    title="the VM has as many pages as the slot",
    function="kvm_set_memory_region",
    errno=Errno.EIO,
    passes=lambda kvm, u: u.old is None or kvm.nr_memslot_pages >= u.old.npages,
    operands=lambda kvm, u: f"VM has {kvm.nr_memslot_pages}, slot {u.old.npages if u.old else 0}",
    behaviour=lambda profile: profile.pages_of_vm_are_checked,
)
_TOTAL_NO_WRAP = Guard(
    name="total_no_wrap",
    title="pages of the VM do not wrap",
    function="kvm_set_memory_region",
    errno=Errno.EINVAL,
    passes=lambda kvm, u: kvm.nr_memslot_pages + u.npages <= U64_MAX,
    operands=lambda kvm, u: f"{kvm.nr_memslot_pages} + {u.npages} pages",
    behaviour=lambda profile: profile.pages_of_vm_are_checked,
)


_SAME_HVA = Guard(
    name="same_hva",
    title="host address unchanged",
    function="kvm_set_memory_region",
    errno=Errno.EINVAL,
    passes=lambda _, u: u.old is not None and u.call.userspace_addr == u.old.userspace_addr,
    operands=lambda _, u: f"hva {u.call.userspace_addr:#x}, slot has {u.old.userspace_addr if u.old else 0:#x}",
)
_SAME_SIZE = Guard(
    name="same_size",
    title="size unchanged",
    function="kvm_set_memory_region",
    errno=Errno.EINVAL,
    passes=lambda _, u: u.old is not None and u.npages == u.old.npages,
    operands=lambda _, u: f"{u.npages} pages, slot has {u.old.npages if u.old else 0}",
)
_SAME_READONLY = Guard(
    name="same_readonly",
    title="READONLY unchanged",
    function="kvm_set_memory_region",
    errno=Errno.EINVAL,
    passes=lambda _, u: u.old is not None and not (u.call.flags ^ u.old.flags) & KVM_MEM_READONLY,
    operands=lambda _, u: (
        f"READONLY {'on' if u.call.flags & KVM_MEM_READONLY else 'off'},"
        f" slot has it {'on' if u.old and u.old.flags & KVM_MEM_READONLY else 'off'}"
    ),
)


def _overlap_operands(kvm: KvmDraft, update: RegionUpdate) -> str:
    start = update.call.guest_phys_addr >> PAGE_SHIFT
    other = overlapping_slot(kvm.active(update.call.as_id), update.call.slot, start, _end(update))
    if other is None:
        return "no other slot"
    return f"gfns [{start:#x}, {_end(update):#x}) touch slot {other.id} at [{other.base_gfn:#x}, {other.end_gfn:#x})"


_OVERLAP = Guard(
    name="overlap",
    title="no overlap with another slot",
    function="kvm_check_memslot_overlap",
    errno=Errno.EEXIST,
    passes=lambda kvm, u: (
        overlapping_slot(kvm.active(u.call.as_id), SlotId(u.call.slot), u.call.guest_phys_addr >> PAGE_SHIFT, _end(u))
        is None
    ),
    operands=_overlap_operands,
)


def _external_user_operands(kvm: KvmDraft, _: RegionUpdate) -> str:
    if not kvm.config.external_write_tracking:
        return "not built in, so always none"
    n = len(kvm.track_notifiers)
    text = f"{n or 'none'} attached"
    return f"inverted as posted: {text}" if kvm.profile.has_external_user_inverted else text


_EXTERNAL_USER = Guard(
    name="external_user",
    title="no external page tracker",
    function="kvm_arch_prepare_memory_region",
    errno=Errno.EINVAL,
    passes=lambda kvm, _: not kvm_page_track_has_external_user(kvm),
    operands=_external_user_operands,
    behaviour=lambda profile: profile.move_refused_for_external_user,
)
_MAX_GFN = Guard(
    name="max_gfn",
    title="end gfn within reach",
    function="kvm_arch_prepare_memory_region",
    errno=Errno.EINVAL,
    passes=lambda kvm, u: _end(u) - 1 <= kvm.config.max_gfn(),
    operands=lambda kvm, u: f"last gfn {_end(u) - 1:#x}, most is {kvm.config.max_gfn():#x}",
    behaviour=lambda profile: profile.prepare_checks_max_gfn,
)
_BITMAP_MEMORY = Guard(
    name="bitmap_memory",
    title="memory for the dirty bitmap",
    function="kvm_alloc_dirty_bitmap",
    errno=Errno.ENOMEM,
    passes=lambda kvm, u: kvm.config.host_memory is None or fits_in_memory(kvm, bitmap_sizes(u.old, u.new)),
    operands=lambda kvm, u: _memory_operands(kvm, bitmap_sizes(u.old, u.new)),
)
_ARRAY_MEMORY = Guard(
    name="array_memory",
    title="memory for new arrays",
    function="kvm_alloc_memslot_metadata",
    errno=Errno.ENOMEM,
    passes=lambda kvm, u: kvm.config.host_memory is None or fits_in_memory(kvm, metadata_sizes(kvm, u.new)),
    operands=lambda kvm, u: _memory_operands(kvm, metadata_sizes(kvm, u.new)),
)


def _memory_operands(kvm: KvmDraft, sizes: tuple[int, ...]) -> str:
    if not sizes:
        return "none needed"
    have = "no limit set" if kvm.config.host_memory is None else f"{kvm.config.host_memory - kvm.heap_bytes:,} left"
    return f"{sum(sizes):,} bytes needed, {have}"


def ladder_for(profile: KernelProfile, call: SetMemoryRegion) -> Ladder:
    """Return the checks that a call can meet on a profile."""
    if not isinstance(call, SetMemoryRegion2):
        return ladder_of(profile)
    return ladder_of(profile, "gmem" if call.flags & KVM_MEM_GUEST_MEMFD else "region2")


@cache
def ladder_of(profile: KernelProfile, kind: Literal["region", "region2", "gmem"] = "region") -> Ladder:
    """Return the checks a profile has, in its order, for one of the two ioctls or for the second with guest_memfd."""
    gmem = kind == "gmem"

    def part(*guards: Guard) -> tuple[Guard, ...]:
        return tuple(guard for guard in guards if guard.behaviour(profile))

    return Ladder(
        ioctl=part(_VM_ALIVE, _REGION_FLAGS if kind == "region" else gmem_guards.REGION2_EXISTS, _USER_SLOT_ID),
        arguments=part(
            _FLAGS,
            _SIZE_ALIGNED,
            _GPA_ALIGNED,
            _HVA_ALIGNED,
            _HVA_USER_RANGE,
            *((gmem_guards.GMEM_OFFSET_ALIGNED, gmem_guards.GMEM_NO_WRAP) if gmem else ()),
            _AS_ID,
            _GPA_NO_WRAP,
            _NPAGES,
        ),
        delete=part(_SLOT_EXISTS, _PAGES_ACCOUNTED),
        create=part(_TOTAL_NO_WRAP),
        existing=part(
            *((gmem_guards.GMEM_IMMUTABLE,) if gmem else ()),
            _SAME_HVA,
            _SAME_SIZE,
            _SAME_READONLY,
            gmem_guards.SAME_GUEST_MEMFD,
        ),
        place=part(_OVERLAP),
        bitmap=part(_BITMAP_MEMORY),
        # A kernel in which a MOVE keeps the arrays allocates none for it.
        prepare_move=part(_EXTERNAL_USER, _MAX_GFN, *(() if profile.move_keeps_arch_metadata else (_ARRAY_MEMORY,))),
        prepare_create=part(_MAX_GFN, _ARRAY_MEMORY),
        gmem=part(gmem_guards.GMEM_FD, gmem_guards.GMEM_FILE, gmem_guards.GMEM_SIZE, gmem_guards.GMEM_FREE)
        if gmem
        else (),
        gmem_commit=part(gmem_guards.GMEM_STILL_FREE) if gmem else (),
    )
