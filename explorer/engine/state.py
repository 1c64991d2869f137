"""One VM at one moment: frozen, hashable, cheap to keep.

A `Kvm` is a snapshot. The engine edits a private working copy (`explorer.engine.draft.KvmDraft`) and
publishes it as the next `Kvm`, as KVM itself edits a memslot set that no reader can reach and then
publishes it by one pointer.

Metadata arrays are objects with an identity: a slot holds an `ArrayId` (the kernel's pointer) and
`Kvm.heap` holds the contents. Two slots with the same id share an array, an id without contents has
been freed; that is how ``old`` and its INVALID copy can share what a MOVE later frees.

Models struct kvm, kvm_memslots, kvm_memory_slot (include/linux/kvm_host.h), kvm_arch_memory_slot and
the MMU fields of kvm_arch (arch/x86/include/asm/kvm_host.h).
Not modelled: per-vCPU caches, last_used_slot (a cache), the SP quota, more than one vCPU, direct shadow
pages (only the entries in them), what is in a guest_memfd. Read next: `capabilities`, `commands`, `events`, then
`draft`.
"""

from __future__ import annotations

import re
from dataclasses import fields
from typing import TYPE_CHECKING, Literal, NamedTuple

from explorer.engine.config import VmConfig
from explorer.engine.profile import KernelProfile, get_profile
from explorer.engine.sortedmap import SortedMap
from explorer.engine.types import (
    PAGE_SHIFT,
    ArrayId,
    AsId,
    ExplorerError,
    Gfn,
    Hva,
    SlotId,
    gfn_to_gpa,
)
from explorer.engine.uapi import (
    KVM_MEM_GUEST_MEMFD,
    KVM_MEM_LOG_DIRTY_PAGES,
    KVM_MEM_READONLY,
    KVM_MEMSLOT_INVALID,
    flags_text,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from explorer.engine.memslots import PendingUpdate
    from explorer.engine.runset import RunSet

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


# -- metadata arrays -------------------------------------------------------------------------------


class RmapArrays(NamedTuple):
    """The three reverse-map arrays of a slot (``arch.rmap``); lengths only."""

    lengths: tuple[int, int, int]
    """Entries at 4 KiB, 2 MiB and 1 GiB."""

    @property
    def size_bytes(self) -> int:
        """Bytes: one 8-byte head per entry."""
        one, two, three = self.lengths
        return 8 * (one + two + three)


class LpageLevel(NamedTuple):
    """``arch.lpage_info[level - 2]``: one ``disallow_lpage`` counter per huge frame, stored sparsely."""

    n: int
    """Entries."""
    head: int
    """1 if the first entry starts marked, because ``base_gfn`` is not aligned to the level."""
    tail: int
    """1 if the last entry starts marked, because the end is not aligned."""
    all: int
    """1 if every entry starts marked, because gfn and host address are aligned differently."""
    added: SortedMap[int, int]
    """What add and remove did to an entry since, by index; no zeros."""

    def mark(self, index: int) -> int:
        """Return what entry `index` started with: 1 if a huge page there could never fit, else 0."""
        return 1 if self.all or (index == 0 and self.head) or (index == self.n - 1 and self.tail) else 0

    def value(self, index: int) -> int:
        """Return ``disallow_lpage`` of entry `index`; non-zero forbids a huge page."""
        return self.mark(index) + self.added.get(index, 0)


class LpageInfo(NamedTuple):
    """``arch.lpage_info``: the counters for 2 MiB and for 1 GiB frames."""

    levels: tuple[LpageLevel, LpageLevel]

    @property
    def size_bytes(self) -> int:
        """Bytes: 4 per entry."""
        two, three = self.levels
        return 4 * (two.n + three.n)


class WriteTrack(NamedTuple):
    """``arch.gfn_write_track`` (``gfn_track[KVM_PAGE_TRACK_WRITE]`` before v6.6), stored sparsely."""

    n: int
    """Entries: one per page of the slot."""
    counts: SortedMap[int, int]
    """16-bit counts by index in the slot; no zeros."""

    @property
    def size_bytes(self) -> int:
        """Bytes: 2 per page."""
        return 2 * self.n


class DirtyBitmap(NamedTuple):
    """``dirty_bitmap``: page indices written since the last report, as runs."""

    npages: int
    dirty: RunSet

    @property
    def half_bytes(self) -> int:
        """Bytes of the live half: whole 64-bit words."""
        return (self.npages + 63) // 64 * 8

    @property
    def size_bytes(self) -> int:
        """Bytes allocated: the live half and the scratch half for GET and CLEAR."""
        return 2 * self.half_bytes


MetadataArray = RmapArrays | LpageInfo | WriteTrack | DirtyBitmap


# -- slots and sets --------------------------------------------------------------------------------


class KvmArchMemorySlot(NamedTuple):
    """``struct kvm_arch_memory_slot``: pointers to the three kinds of array, copied by value."""

    rmap: ArrayId | None = None
    lpage_info: ArrayId | None = None
    gfn_write_track: ArrayId | None = None


class GmemPart(NamedTuple):
    """``gmem.file`` and ``gmem.pgoff`` of a slot: which part of which guest_memfd backs it."""

    fd: int
    """Descriptor of the file."""
    pgoff: int
    """First page; as many follow as the slot has."""


class KvmMemorySlot(NamedTuple):
    """``struct kvm_memory_slot``: guest pages ``[base_gfn, base_gfn + npages)`` and what backs them."""

    id: SlotId
    as_id: AsId
    base_gfn: Gfn
    npages: int
    userspace_addr: Hva
    flags: int
    dirty_bitmap: ArrayId | None
    arch: KvmArchMemorySlot
    gmem: GmemPart | None = None
    """None also when the file was closed, or for the INVALID copy, which does not get it."""

    @property
    def end_gfn(self) -> Gfn:
        """First gfn behind the slot."""
        return Gfn(self.base_gfn + self.npages)

    @property
    def invalid(self) -> bool:
        """Whether this is the copy readers must not use."""
        return bool(self.flags & KVM_MEMSLOT_INVALID)

    def with_flags(self, flags: int) -> KvmMemorySlot:
        """Return a copy with other flags, as kvm_copy_memslot() copies: without `gmem`. Faster than `_replace`."""
        slot_id, as_id, base_gfn, npages, userspace_addr, _, dirty_bitmap, arch, _ = self
        return tuple.__new__(
            KvmMemorySlot, (slot_id, as_id, base_gfn, npages, userspace_addr, flags, dirty_bitmap, arch, None)
        )

    def with_arch(self, arch: KvmArchMemorySlot) -> KvmMemorySlot:
        """Return the slot with other arrays."""
        slot_id, as_id, base_gfn, npages, userspace_addr, flags, dirty_bitmap, _, gmem = self
        return tuple.__new__(
            KvmMemorySlot, (slot_id, as_id, base_gfn, npages, userspace_addr, flags, dirty_bitmap, arch, gmem)
        )

    def brief(self) -> str:
        """Return the slot in the words of `Kvm.brief`."""
        return f"[{self.base_gfn:#x}+{self.npages:#x}]#{self.id} {flags_text(self.flags)}"


class KvmMemslots(NamedTuple):
    """``struct kvm_memslots``: one of the two sets of an address space.

    Slots live in `id_hash`; the two trees hold ids, which are unique in a set.
    """

    node_idx: int
    generation: int
    id_hash: SortedMap[SlotId, KvmMemorySlot]
    """Slot by id."""
    gfn_tree: SortedMap[Gfn, SlotId]
    """Slot id by base_gfn."""
    hva_tree: SortedMap[tuple[int, Hva, SlotId], None]
    """Keys (size class, userspace_addr, id); see `explorer.engine.lookup.slots_in_hva_range`."""

    def slots(self) -> Iterator[KvmMemorySlot]:
        """Iterate over the slots in the order of base_gfn."""
        for slot_id in self.gfn_tree.values():
            yield self.id_hash[slot_id]


class AddressSpace(NamedTuple):
    """Both sets of one address space and which of them readers see."""

    sets: tuple[KvmMemslots, KvmMemslots]
    active_idx: int

    @property
    def active(self) -> KvmMemslots:
        """The published set."""
        return self.sets[self.active_idx]

    @property
    def inactive(self) -> KvmMemslots:
        """The set the updater may edit."""
        return self.sets[1 - self.active_idx]


# -- guest_memfd -----------------------------------------------------------------------------------


class GmemBinding(NamedTuple):
    """What a guest_memfd knows of a part that a slot has taken."""

    npages: int
    as_id: AsId
    slot: SlotId


class GuestMemfd(NamedTuple):
    """``struct kvm_gmem`` and its file: memory for the guest that the VMM need not be able to reach."""

    size: int
    """Bytes."""
    flags: int
    bindings: SortedMap[int, GmemBinding] = SortedMap()
    """By first page; parts do not overlap."""


# -- page tracking ---------------------------------------------------------------------------------


class TrackerNote(NamedTuple):
    """One callback a tracker received."""

    callback: str
    """``track_write``, ``track_flush_slot`` or ``track_remove_region``."""
    gfn: int
    """First gfn; for a write, the gfn written to."""
    npages: int
    """Pages of the region; 1 for a write."""
    slot: int | None = None
    as_id: int | None = None
    gpa: int | None = None
    """Of a write: where, how many bytes, and what."""
    nbytes: int | None = None
    value: int | None = None


class LogTracker(NamedTuple):
    """An external tracker that only logs its callbacks, as the recordings' module does."""

    attached: bool = False
    log: SortedMap[int, TrackerNote] = SortedMap()
    """Notes since the last read, numbered from 0."""

    def notes(self) -> tuple[TrackerNote, ...]:
        """Return the notes since the last read, oldest first."""
        return tuple(self.log.values())

    def with_note(self, note: TrackerNote) -> LogTracker:
        """Return the tracker with one note more."""
        return LogTracker(self.attached, self.log.set(len(self.log), note))


class ShadowEntry(NamedTuple):
    """One entry that the GPU really uses: where it leads, whatever the guest's own entry says by now."""

    gfn: Gfn
    """Guest page that the guest's entry named when it was shadowed."""
    hva: Hva
    """Host page that was pinned for it."""


class Spt(NamedTuple):
    """``struct intel_vgpu_ppgtt_spt``: KVMGT's shadow of one guest page table of the GPU."""

    entries: SortedMap[int, ShadowEntry] = SortedMap()
    """By index; every other entry leads to a scratch page."""
    post_shadow_bitmap: SortedMap[int, None] = SortedMap()
    """Entries that were half written and are shadowed when the guest next submits work."""


class GvtDma(NamedTuple):
    """``struct gvt_dma``: a guest page that is pinned for the GPU."""

    hva: Hva
    ref: int
    """How many shadow entries lead to it."""


class Kvmgt(NamedTuple):
    """A vGPU of KVMGT: what it asked KVM to watch, what it believes it watches, and what its GPU uses.

    The tables can disagree: `protect_table` is emptied by region callbacks, the others are not.
    """

    attached: bool = False
    protect_table: SortedMap[Gfn, None] = SortedMap()
    """``ptable``: gfns KVM was asked to intercept and KVMGT has not let go."""
    page_track_tree: SortedMap[Gfn, bool] = SortedMap()
    """``page_track_tree``: shadowed guest table pages with their ``tracked`` flag."""
    spts: SortedMap[Gfn, Spt] = SortedMap()
    """Shadow page tables, by the gfn of the guest's table."""
    gfn_cache: SortedMap[Gfn, GvtDma] = SortedMap()
    """Pinned pages by gfn. A page that is pinned is not looked up again."""


Tracker = LogTracker | Kvmgt


class ShadowPage(NamedTuple):
    """``struct kvm_mmu_page`` that shadows a guest page table (an indirect shadow page)."""

    gfn: Gfn
    """Guest page that holds the table."""
    level: int
    """1 maps pages; above that the page's gfn is write-tracked."""
    as_id: AsId
    """Address space it belongs to (``role.smm``)."""
    mmu_valid_gen: int
    """0 or 1; a page with another value than the VM's is obsolete."""


class VcpuSetup(NamedTuple):
    """What the set-up of vCPUs did to the VM, as far as it touches memslots (fields of ``kvm->arch``)."""

    vcpus: tuple[int, ...] = ()
    """Ids in the order of creation."""
    irqchip: bool = False
    identity_map_addr: int = 0
    """0 until set or first used; then a guest physical address."""
    identity_map_done: bool = False
    apic_access_page_done: bool = False


class VcpuState(NamedTuple):
    """How the vCPU runs, as far as its memory accesses hang on it."""

    mode: Literal["real", "prot", "long"] = "prot"
    """Only ``long`` has paging: else an address of the guest is a guest physical one."""
    cr3: int = 0
    """Guest physical address of the top-level page table."""
    code: int | None = None
    """Where the instructions are that the vCPU runs; None if their fetch is not told."""


# -- what maps and what is mapped ------------------------------------------------------------------


class Spte(NamedTuple):
    """A present leaf entry of a table KVM made, or a run of equal ones in a direct table."""

    gfn: Gfn
    """First gfn it maps."""
    span: int
    """Entries: pages in a direct table, where a huge one counts all its pages; 1 in an indirect one."""
    level: int
    writable: bool
    """Whether the processor lets the guest write."""
    mmu_writable: bool
    """Whether KVM may make it writable again without asking slot and trackers."""
    dirty: bool
    """The D bit, which PML watches."""


SpteKey = tuple[int, int]
"""Owner and position: see `explorer.engine.spte`."""


class Sptes(NamedTuple):
    """Every leaf entry of the VM."""

    entries: SortedMap[SpteKey, Spte] = SortedMap()
    rmap: SortedMap[tuple[int, int, int, int], None] = SortedMap()
    """Reverse map of indirect entries: (as_id, gfn, owner, index)."""


class HostMemory(NamedTuple):
    """The VMM's memory: what its own page tables map writable, and what was stored there."""

    present: SortedMap[int, None] = SortedMap()
    """Host pages that were written to: the address shifted by the size of a host page."""
    words: SortedMap[int, int] = SortedMap()
    """Eight bytes each by address divided by 8; memory starts zeroed."""


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
        # `apply` is built on this module; the slots of a line arrive by calls, as those of any VM.
        from explorer.engine.apply import apply  # noqa: PLC0415
        from explorer.engine.commands import CreateGuestMemfd, SetMemoryRegion, SetMemoryRegion2  # noqa: PLC0415

        kvm = new_vm(profile, config)
        for part in text.split(";"):
            header = _SPACE.fullmatch(part.strip())
            if header is None:
                raise ExplorerError(f"{part.strip()!r} is no address space; expected as0 gen=4: [0x100+0x200]#1 rw,log")
            as_id = int(header["as"])
            if as_id >= len(kvm.memslots):
                raise ExplorerError(
                    f"{part.strip()[:20]!r}: the VM has no address space {as_id}; one with SMM has 0 and 1"
                )
            for item in re.split(r"\s+(?=\[)", header["slots"].strip()) if header["slots"].strip() else ():
                found = _SLOT.fullmatch(item)
                if found is None:
                    raise ExplorerError(f"{item!r} is no slot; expected [0x100+0x200]#1 rw,log")
                gpa = gfn_to_gpa(Gfn(int(found["base"], 16)))
                size = int(found["n"], 16) << PAGE_SHIFT
                words = found["flags"].split(",")
                call = SetMemoryRegion(
                    slot=int(found["id"]),
                    as_id=as_id,
                    flags=(KVM_MEM_READONLY if "ro" in words else 0)
                    | (KVM_MEM_LOG_DIRTY_PAGES if "log" in words else 0),
                    guest_phys_addr=gpa,
                    memory_size=size,
                    userspace_addr=0x7F00_0000_0000 + gpa,
                )
                if words[-1].startswith("gmem"):
                    fd = len(kvm.guest_memfds)
                    kvm = apply(kvm, CreateGuestMemfd(fd=fd, size=size, flags=int(words[-1] == "gmem-only"))).kvm
                    given = {f.name: getattr(call, f.name) for f in fields(call)} | {"flags": KVM_MEM_GUEST_MEMFD}
                    call = SetMemoryRegion2(**given, guest_memfd=fd)
                step = apply(kvm, call)
                if step.errno is not None:
                    raise ExplorerError(f"{item!r} cannot exist beside the others: {step.errno.name}")
                kvm = step.kvm
            space = kvm.memslots[as_id]
            sets = list(space.sets)
            sets[space.active_idx] = space.active._replace(generation=int(header["gen"]))
            spaces = list(kvm.memslots)
            spaces[as_id] = AddressSpace((sets[0], sets[1]), space.active_idx)
            kvm = kvm._replace(memslots=tuple(spaces))
        return kvm


_SPACE = re.compile(r"as(?P<as>[01]) gen=(?P<gen>-?\d+):(?P<slots>.*)")
_SLOT = re.compile(
    r"\[(?P<base>0x[0-9a-f]+)\+(?P<n>0x[0-9a-f]+)\]#(?P<id>\d+) (?P<flags>r[ow](?:,log)?(?:,gmem(?:-only)?)?)"
)


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
