"""One VM at one moment: frozen, hashable, cheap to keep.

A `Kvm` is a snapshot. The engine edits a private working copy (`explorer.engine.draft.KvmDraft`) and
publishes it as the next `Kvm`, as KVM itself edits a memslot set that no reader can reach and then
publishes it by one pointer. Its parts are described in `slot_state`, `tracker_state` and `paging_state`; all can
be imported from here.

Models struct kvm (include/linux/kvm_host.h) and the MMU fields of kvm_arch (arch/x86/include/asm/kvm_host.h).
Not modelled: the SP quota. Read next: `capabilities`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from explorer.engine.config import VmConfig
from explorer.engine.paging_state import HostMemory, ShadowPage, Spte, SpteKey, Sptes, VcpuState
from explorer.engine.profile import KernelProfile, get_profile
from explorer.engine.slot_state import (
    AddressSpace,
    DirtyBitmap,
    GmemBinding,
    GmemPart,
    GuestMemfd,
    KvmArchMemorySlot,
    KvmMemorySlot,
    KvmMemslots,
    LpageInfo,
    LpageLevel,
    MetadataArray,
    RmapArrays,
    WriteTrack,
)
from explorer.engine.sortedmap import SortedMap
from explorer.engine.tracker_state import GvtDma, Kvmgt, LogTracker, ShadowEntry, Spt, Tracker, TrackerNote
from explorer.engine.types import (
    ArrayId,
    AsId,
    Gfn,
    SlotId,
)

if TYPE_CHECKING:
    from explorer.engine.region_call import PendingUpdate

__all__ = [
    "AddressSpace",
    "DirtyBitmap",
    "GmemBinding",
    "GmemPart",
    "GuestMemfd",
    "GvtDma",
    "HostMemory",
    "Kvm",
    "KvmArchMemorySlot",
    "KvmMemorySlot",
    "KvmMemslots",
    "Kvmgt",
    "LogTracker",
    "LpageInfo",
    "LpageLevel",
    "MetadataArray",
    "RmapArrays",
    "ShadowEntry",
    "ShadowPage",
    "Spt",
    "Spte",
    "SpteKey",
    "Sptes",
    "Tracker",
    "TrackerNote",
    "VcpuSetup",
    "VcpuState",
    "WriteTrack",
    "new_vm",
]


class VcpuSetup(NamedTuple):
    """What the set-up of vCPUs did to the VM, as far as it touches memslots (fields of ``kvm->arch``)."""

    vcpus: tuple[int, ...] = ()
    """Ids in the order of creation."""
    irqchip: bool = False
    identity_map_addr: int = 0
    """0 until set or first used; then a guest physical address."""
    identity_map_done: bool = False
    apic_access_page_done: bool = False


# -- the VM ----------------------------------------------------------------------------------------


class Kvm(NamedTuple):
    """``struct kvm`` and what hangs on it. Immutable; `explorer.engine.apply` makes the next one."""

    profile: KernelProfile
    config: VmConfig
    memslots: tuple[AddressSpace, ...]
    """Shape ``(nr_memslot_as_ids,)``, by address space id."""
    heap: SortedMap[ArrayId, MetadataArray]
    """Contents of every allocated array."""
    next_array: int
    """Id of the next array."""
    heap_bytes: int
    """Bytes that all allocated arrays take."""
    nr_memslot_pages: int
    """Pages of all slots of all address spaces."""
    nr_memslots_dirty_logging: int
    setup: VcpuSetup
    manual_dirty_log_protect: int
    disabled_quirks: int
    vm_bugged: bool
    """Whether KVM_BUG marked the VM dead; every later ioctl fails with EIO."""
    shadow_root_allocated: bool
    external_write_tracking_enabled: bool
    track_notifiers: tuple[int, ...]
    """Trackers on the notifier list, in calling order: the last to register is called first."""
    trackers: SortedMap[int, Tracker]
    """Every tracker that was ever attached, by user number."""
    mmu_valid_gen: int
    active_mmu_pages: SortedMap[int, ShadowPage]
    """Valid indirect shadow pages by age; the least key is the oldest."""
    mmu_page_hash: SortedMap[tuple[Gfn, int, AsId], int]
    """Key of each shadow page by (gfn, level, address space)."""
    next_mmu_page: int
    indirect_shadow_pages: int
    guest_memfds: SortedMap[int, GuestMemfd]
    """Files made for this VM, by descriptor."""
    sptes: Sptes
    vcpu: VcpuState
    host: HostMemory
    pending: PendingUpdate | None
    """The region call that is in progress, or None at rest."""

    def active(self, as_id: int = 0) -> KvmMemslots:
        """Return the set readers of `as_id` see."""
        return self.memslots[as_id].active

    def slots(self, as_id: int = 0) -> tuple[KvmMemorySlot, ...]:
        """Return the published slots of `as_id`, by base_gfn."""
        return tuple(self.active(as_id).slots())

    def slot(self, slot_id: int, as_id: int = 0) -> KvmMemorySlot | None:
        """Return the published slot with this id, INVALID ones too, or None."""
        return self.active(as_id).id_hash.get(SlotId(slot_id))

    def brief(self) -> str:
        """Return the VM in one line, such as ``as0 gen=4: [0x100+0x200]#1 rw,log``.

        Address spaces are separated by ``;`` and one that never had a slot is left out, but for the first.
        """
        parts = []
        for as_id, space in enumerate(self.memslots):
            active = space.active
            if as_id and not active.id_hash and active.generation == _first_generation(self.profile, as_id):
                continue
            listed = " ".join(slot.brief() for slot in active.slots())
            parts.append(f"as{as_id} gen={active.generation}:" + (f" {listed}" if listed else ""))
        return "; ".join(parts)

    @staticmethod
    def from_brief(text: str, *, profile: KernelProfile | str = "v6_12", config: VmConfig | None = None) -> Kvm:
        """Return the VM that `Kvm.brief` describes.

        Host addresses are not part of the line: a slot at guest address ``g`` is backed at
        ``0x7f0000000000 + g``, and one on guest_memfd gets a file of its own. Slots arrive by CREATE calls, then
        the generations are set.

        Raises
        ------
        ExplorerError
            If the line does not follow the grammar or the slots cannot exist together.
        """
        # It is built on `apply`, which is built on this module: the slots of a line arrive by calls.
        from explorer.engine.brief import read_brief  # noqa: PLC0415

        return read_brief(text, new_vm(profile, config))


def _first_generation(profile: KernelProfile, as_id: int) -> int:
    factor = profile.generation_step_factor
    return profile.generation_start + as_id * factor


def new_vm(profile: KernelProfile | str = "v6_12", config: VmConfig | None = None) -> Kvm:
    """Return a VM as KVM_CREATE_VM makes it: both sets of each address space are empty.

    References
    ----------
    virt/kvm/kvm_main.c: kvm_create_vm() [all profiles]
    """
    if isinstance(profile, str):
        profile = get_profile(profile)
    config = config or VmConfig()
    spaces = tuple(
        AddressSpace(
            (
                KvmMemslots(0, _first_generation(profile, as_id), SortedMap(), SortedMap(), SortedMap()),
                KvmMemslots(1, _first_generation(profile, as_id), SortedMap(), SortedMap(), SortedMap()),
            ),
            0,
        )
        for as_id in range(config.nr_memslot_as_ids(profile))
    )
    return Kvm(
        profile=profile,
        config=config,
        memslots=spaces,
        heap=SortedMap(),
        next_array=1,
        heap_bytes=0,
        nr_memslot_pages=0,
        nr_memslots_dirty_logging=0,
        setup=VcpuSetup(),
        manual_dirty_log_protect=0,
        disabled_quirks=0,
        vm_bugged=False,
        shadow_root_allocated=False,
        external_write_tracking_enabled=False,
        track_notifiers=(),
        trackers=SortedMap(),
        mmu_valid_gen=0,
        active_mmu_pages=SortedMap(),
        mmu_page_hash=SortedMap(),
        next_mmu_page=1,
        indirect_shadow_pages=0,
        guest_memfds=SortedMap(),
        sptes=Sptes(),
        vcpu=VcpuState(),
        host=HostMemory(),
        pending=None,
    )
