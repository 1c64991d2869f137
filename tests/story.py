"""Tell a test as a story: a VM that is spoken to in sentences, built on `explorer.engine.apply` alone.

    vm = story("as0 gen=0:").slot(10, gfn=0xC0000, npages=0x200)
    vm.begin_move(10, to_gfn=0xBFFFF).run_through("publish")
    assert vm.lookup(0xC0000) == KVM_HVA_ERR_BAD

Verbs change the VM and return the story; nouns and questions look at it. `slot` insists on success, for a
story cannot go on without its slots; every other verb leaves its outcome in `errno`, `refused_by`, `events`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, TypeVar

from explorer.engine.apply import Step, apply
from explorer.engine.commands import (
    Advance,
    AttachTracker,
    Begin,
    Command,
    DetachTracker,
    GetDirtyLog,
    GuestRead,
    GuestWrite,
    SetMemoryRegion,
    ShadowTables,
    TrackGfn,
    UntrackGfn,
    parse_command,
)
from explorer.engine.config import VmConfig
from explorer.engine.events import DirtyLogRead, Event, GuestReadServed, GuestWriteServed
from explorer.engine.lookup import gfn_to_hva
from explorer.engine.spte import mapped_4k
from explorer.engine.state import Kvm, Kvmgt, KvmMemorySlot, LpageInfo, LpageLevel, WriteTrack, new_vm
from explorer.engine.types import PAGE_SHIFT, PG_LEVEL_1G, PG_LEVEL_2M, Errno, Gfn, Hva, Level, gfn_to_index

if TYPE_CHECKING:
    from explorer.engine.profile import KernelProfile

H = Hva(0x7F00_0000_0000)
"""Host address behind guest address 0 unless a story says otherwise; aligned to 1 GiB."""

E = TypeVar("E", bound=Event)


def story(brief: str | None = None, *, profile: KernelProfile | str = "v6_12", **config: object) -> Story:
    """Begin a story, with a new VM or one in the words of `Kvm.brief`; `config` are fields of `VmConfig`."""
    machine = VmConfig(**config)  # type: ignore[arg-type]
    return Story(new_vm(profile, machine) if brief is None else Kvm.from_brief(brief, profile=profile, config=machine))


class Story:
    """A VM and what the last command did to it."""

    def __init__(self, kvm: Kvm) -> None:
        self.kvm = kvm
        self.last = Step(kvm, (), None)
        self.told: list[Event] = []
        """Every event since the story began."""
        self.steps: list[tuple[Kvm, Command, Step]] = []
        """Every command since the story began, with the VM it met and what it did."""

    # -- verbs -----------------------------------------------------------------------------------

    def do(self, command: Command | str) -> Story:
        """Give any command, also in its one-line form."""
        given = parse_command(command) if isinstance(command, str) else command
        self.last = apply(self.kvm, given)
        self.steps.append((self.kvm, given, self.last))
        self.kvm = self.last.kvm
        self.told += self.last.events
        return self

    def slot(
        self, slot_id: int, *, gfn: int, npages: int, hva: int | None = None, flags: int = 0, as_id: int = 0
    ) -> Story:
        self.do(self.region(slot_id, gfn=gfn, npages=npages, hva=hva, flags=flags, as_id=as_id))
        assert self.errno is None, f"the story needs slot {slot_id}, but {self.errno!r}"
        return self

    def move(self, slot_id: int, *, to_gfn: int, flags: int | None = None, as_id: int = 0) -> Story:
        return self.do(self._changed(slot_id, as_id, gfn=to_gfn, flags=flags))

    def set_flags(self, slot_id: int, flags: int, *, as_id: int = 0) -> Story:
        return self.do(self._changed(slot_id, as_id, flags=flags))

    def delete(self, slot_id: int, *, as_id: int = 0) -> Story:
        return self.do(self.deletion(slot_id, as_id=as_id))

    def begin(self, call: SetMemoryRegion) -> Story:
        return self.do(Begin(call=call))

    def begin_move(self, slot_id: int, *, to_gfn: int, flags: int | None = None, as_id: int = 0) -> Story:
        return self.begin(self._changed(slot_id, as_id, gfn=to_gfn, flags=flags))

    def begin_delete(self, slot_id: int, *, as_id: int = 0) -> Story:
        return self.begin(self.deletion(slot_id, as_id=as_id))

    def run_through(self, phase: str) -> Story:
        """Run up to and with the next phase of this name; ``publish`` stands for ``publish_invalid``, too."""
        while self.kvm.pending is not None:
            ran = self.kvm.pending.phases[self.kvm.pending.at].name
            self.do(Advance())
            if ran == phase or ran.startswith(phase + "_"):
                return self
        raise AssertionError(f"the call returned without a phase {phase!r}")

    def finish(self) -> Story:
        while self.kvm.pending is not None:
            self.do(Advance())
        return self

    def attach(self, user: int = 0, *, kind: Literal["log", "kvmgt"] = "log") -> Story:
        return self.do(AttachTracker(user=user, kind=kind))

    def detach(self, user: int = 0) -> Story:
        return self.do(DetachTracker(user=user))

    def track(self, gfn: int, *, user: int = 0) -> Story:
        return self.do(TrackGfn(user=user, gfn=gfn))

    def untrack(self, gfn: int, *, user: int = 0) -> Story:
        return self.do(UntrackGfn(user=user, gfn=gfn))

    def shadow(self, gfn: int, *, levels: int = 4, as_id: int = 0) -> Story:
        """Let the guest run on page tables from `gfn` on, top level first."""
        return self.do(ShadowTables(gfn=gfn, levels=levels, as_id=as_id))

    # -- arguments -------------------------------------------------------------------------------

    def region(
        self, slot_id: int, *, gfn: int, npages: int, hva: int | None = None, flags: int = 0, as_id: int = 0
    ) -> SetMemoryRegion:
        return SetMemoryRegion(
            slot=slot_id,
            as_id=as_id,
            flags=flags,
            guest_phys_addr=gfn << PAGE_SHIFT,
            memory_size=npages << PAGE_SHIFT,
            userspace_addr=H + (gfn << PAGE_SHIFT) if hva is None else hva,
        )

    def deletion(self, slot_id: int, *, as_id: int = 0) -> SetMemoryRegion:
        return SetMemoryRegion(slot=slot_id, as_id=as_id, guest_phys_addr=0, memory_size=0)

    def _changed(
        self, slot_id: int, as_id: int, *, gfn: int | None = None, flags: int | None = None
    ) -> SetMemoryRegion:
        old = self[slot_id, as_id]
        return self.region(
            slot_id,
            gfn=old.base_gfn if gfn is None else gfn,
            npages=old.npages,
            hva=old.userspace_addr,
            flags=old.flags if flags is None else flags,
            as_id=as_id,
        )

    # -- the outcome of the last command ---------------------------------------------------------

    @property
    def errno(self) -> Errno | None:
        return self.last.errno

    @property
    def errno_name(self) -> str | None:
        return None if self.last.errno is None else self.last.errno.name

    @property
    def refused_by(self) -> str | None:
        return None if self.last.refused_by is None else self.last.refused_by.name

    def events(self, kind: type[E]) -> list[E]:
        """Return the events of one kind that the last command made."""
        return [event for event in self.last.events if isinstance(event, kind)]

    def all_events(self, kind: type[E]) -> list[E]:
        """Return the events of one kind since the story began."""
        return [event for event in self.told if isinstance(event, kind)]

    # -- questions -------------------------------------------------------------------------------

    def __getitem__(self, key: int | tuple[int, int]) -> KvmMemorySlot:
        """Return the slot readers find under an id, or under (id, address space)."""
        slot_id, as_id = key if isinstance(key, tuple) else (key, 0)
        slot = self.kvm.slot(slot_id, as_id)
        assert slot is not None, f"the story has no slot {slot_id} in address space {as_id}"
        return slot

    @property
    def brief(self) -> str:
        return self.kvm.brief()

    def lookup(self, gfn: int, *, as_id: int = 0, write: bool = False) -> Hva:
        return gfn_to_hva(self.kvm.active(as_id), gfn, write=write)

    def hva_of(self, slot_id: int, as_id: int = 0) -> Hva:
        return self[slot_id, as_id].userspace_addr

    def generation(self, as_id: int = 0) -> int:
        return self.kvm.active(as_id).generation

    def guest_writes(self, gfn: int, *, as_id: int = 0) -> str:
        """Let the guest store to a page and return what became of it."""
        self.do(GuestWrite(gpa=gfn << PAGE_SHIFT, as_id=as_id))
        (served,) = self.events(GuestWriteServed)
        return served.outcome

    def guest_reads(self, gfn: int, *, as_id: int = 0) -> str:
        """Let the guest load from a page and return what became of it."""
        self.do(GuestRead(gpa=gfn << PAGE_SHIFT, as_id=as_id))
        (served,) = self.events(GuestReadServed)
        return served.outcome

    def dirty(self, slot_id: int) -> list[int]:
        """Read the dirty log of a slot and return the pages it reports."""
        self.do(GetDirtyLog(slot=slot_id))
        (read,) = self.events(DirtyLogRead)
        return [page for run in read.runs for page in range(*run)]

    def mapped(self, slot_id: int) -> int:
        """Return how many small mappings the rmaps of a slot lead to."""
        return mapped_4k(self.kvm, self[slot_id])

    def counts(self, slot_id: int, as_id: int = 0) -> dict[int, int]:
        """Return the write-track counts above zero of a slot, by gfn."""
        slot = self[slot_id, as_id]
        track = self.kvm.heap.get(slot.arch.gfn_write_track) if slot.arch.gfn_write_track else None
        return {slot.base_gfn + i: n for i, n in track.counts.items()} if isinstance(track, WriteTrack) else {}

    def lpage(self, slot_id: int, level: Level, as_id: int = 0) -> list[int]:
        """Return every ``disallow_lpage`` of a slot at a level."""
        entry = self.lpage_level(slot_id, level, as_id)
        return [entry.value(index) for index in range(entry.n)]

    def lpage_level(self, slot_id: int, level: Level, as_id: int = 0) -> LpageLevel:
        info = self.kvm.heap[self[slot_id, as_id].arch.lpage_info]  # type: ignore[index]
        assert isinstance(info, LpageInfo)
        return info.levels[level - PG_LEVEL_2M]

    def ledger(self, slot_id: int) -> tuple[dict[int, int], list[int], list[int]]:
        """Return the counts and both levels of huge-page counters of a slot: a row of the worked example."""
        return self.counts(slot_id), self.lpage(slot_id, PG_LEVEL_2M), self.lpage(slot_id, PG_LEVEL_1G)

    def vgpu(self, user: int = 0) -> Kvmgt:
        tracker = self.kvm.trackers[user]
        assert isinstance(tracker, Kvmgt)
        return tracker

    def gpu_uses(self, table: int, index: int, *, user: int = 0) -> Hva | None:
        """Return the host page that an entry of a vGPU's shadow table leads to; None for scratch."""
        entry = self.vgpu(user).spts[Gfn(table)].entries.get(index)
        return None if entry is None else entry.hva

    def past_the_end(self, slot_id: int, level: Level) -> list[Gfn]:
        """Return the gfns of a slot whose index at a level is past the end of the counters."""
        slot, n = self[slot_id], self.lpage_level(slot_id, level).n
        return [g for g in map(Gfn, range(slot.base_gfn, slot.end_gfn)) if gfn_to_index(g, slot.base_gfn, level) >= n]
