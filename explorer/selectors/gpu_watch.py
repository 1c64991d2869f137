"""Who says that a page table of the GPU is watched: KVM's counts, and three tables of KVMGT that can disagree."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple

from explorer.engine.lookup import gfn_to_memslot
from explorer.engine.state import Kvmgt
from explorer.explain.words import hex_text, plural
from explorer.selectors.gpu_tables import count_of

if TYPE_CHECKING:
    from explorer.engine.state import Kvm
    from explorer.history import Run
    from explorer.selectors.gpu_tables import GpuTable

__all__ = ["Keeper", "Place", "because_of", "keepers_of", "places_of"]


class Keeper(NamedTuple):
    """One of the tables that say whether the page is watched."""

    keeper: str
    says: str
    holds: bool


class Place(NamedTuple):
    """A piece of guest memory with the table's page in it."""

    style: Literal["slot", "hole", "invalid"]
    label: str
    first: str
    end: str
    at: float
    """Where the page is, from 0 to 1."""
    mark: str
    role: Literal["external", "lost"]


def keepers_of(kvm: Kvm, table: GpuTable, wrong: int) -> tuple[Keeper, ...]:
    """Return what each table says of the guest's table, and whether that holds; `wrong` entries do not."""
    vgpu = kvm.trackers[table.user]
    assert isinstance(vgpu, Kvmgt), "a table belongs to a vGPU"
    gfn, name = table.gfn, hex_text(table.gfn)
    count, listed, tracked = count_of(kvm, gfn), gfn in vgpu.protect_table, vgpu.page_track_tree.get(gfn, False)
    watched = bool(count)
    rows = [Keeper(f"KVM: count of {name}", "no slot" if count is None else str(count), holds=True)]
    if table.now is not None and table.now != gfn:
        rows.append(Keeper(f"KVM: count of {hex_text(table.now)}", str(count_of(kvm, table.now)), holds=True))
    return (
        *rows,
        Keeper("KVMGT: protect table", f"has {name}" if listed else f"without {name}", watched or not listed),
        Keeper("KVMGT: page_track_tree", "tracked" if tracked else "not tracked", (watched and listed) or not tracked),
        Keeper("KVMGT: shadow entries", plural(len(table.spt.entries), "page") + " in use", not wrong),
    )


def because_of(kvm: Kvm, table: GpuTable) -> str:
    """Return why writes to the table are seen or not, with the functions of this kernel."""
    vgpu, title = kvm.trackers[table.user], kvm.profile.title
    assert isinstance(vgpu, Kvmgt), "a table belongs to a vGPU"
    listed, tracked = table.gfn in vgpu.protect_table, vgpu.page_track_tree.get(table.gfn, False)
    name = hex_text(table.gfn)
    if listed and count_of(kvm, table.gfn) and table.now == table.gfn:
        return f"Each reported write makes `ppgtt_write_protection_handler()` read its entry again. [{title}]"
    if listed:
        return (
            f"Nobody told KVMGT: its protect table still has {name}, while the count went with the old array. The "
            "`tracked` flag makes `intel_vgpu_enable_page_track()` return early, and the protect table would make "
            f"`intel_gvt_page_track_add()` do so, too. [{title}]"
        )
    hook = f"kvmgt_page_{kvm.profile.region_hook}"
    if tracked:
        return (
            f"`{hook}()` emptied the protect table and left the `tracked` flag, so "
            f"`intel_vgpu_enable_page_track({name})` returns early and never asks KVM again. [{title}]"
        )
    return f"KVMGT does not ask KVM for {name}. [{title}]"


def places_of(run: Run, kvm: Kvm, table: GpuTable) -> tuple[Place, ...]:
    """Return the room around the page that KVMGT believes it watches, and around the guest's table now."""
    before = run.kvm_before(table.made) if table.made >= 0 else kvm
    old = gfn_to_memslot(before.active(), table.gfn)
    gfns = [gfn for gfn in (table.gfn, table.now) if gfn is not None]
    found = {}
    for gfn in gfns:
        slot = gfn_to_memslot(kvm.active(), gfn)
        room = slot or old
        if room is None:
            continue
        count = count_of(kvm, gfn)
        says = "no slot" if count is None else f"count {count}"
        if gfn == table.gfn:
            vgpu = kvm.trackers[table.user]
            tracked = isinstance(vgpu, Kvmgt) and vgpu.page_track_tree.get(gfn, False)
            says = f"{says}, tree says {'tracked' if tracked else 'not tracked'}"
        else:
            says = f"{says}, the table is here now"
        found[gfn] = Place(
            "hole" if slot is None else "invalid" if slot.invalid else "slot",
            "was here: now a hole" if slot is None else f"slot {slot.id}{', INVALID' if slot.invalid else ''}",
            hex_text(room.base_gfn),
            hex_text(room.end_gfn),
            (gfn - room.base_gfn + 0.5) / room.npages,
            f"{hex_text(gfn)}: {says}",
            "external" if count else "lost",
        )
    return tuple(found[gfn] for gfn in sorted(found))
