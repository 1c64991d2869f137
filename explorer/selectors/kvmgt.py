"""KVMGT from inside: what the guest's page table of the GPU says, what the GPU uses, and who watches the table."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple

from explorer.engine.lookup import gfn_to_memslot
from explorer.engine.state import Kvmgt
from explorer.engine.types import PAGE_SHIFT, Hva
from explorer.explain.words import hex_text, plural
from explorer.selectors.gpu_tables import ENTRY_BYTES, count_of, entries_of, guest_words, table_at
from explorer.selectors.gpu_watch import Keeper, Place, because_of, keepers_of, places_of
from explorer.selectors.gpu_writes import Chain, Written, chain_of, writes_to

if TYPE_CHECKING:
    from explorer.engine.state import Kvm
    from explorer.engine.types import Gfn
    from explorer.history import Run, Stop
    from explorer.selectors.gpu_tables import GpuEntry, GpuTable

__all__ = ["MOST_ROWS", "EntryRow", "HostPage", "KvmgtView", "TableChoice", "select_kvmgt"]

MOST_ROWS = 6
"""Entries drawn; wrong ones come first."""
_MOST_TABLES = 6

NextWrite = Literal["seen", "waits", "missed", "no slot"]
_AND_SO: dict[NextWrite, tuple[str, str]] = {
    "seen": ("and sees every write to its table", "though writes to the table are seen"),
    "waits": ("and a write to the table waits for the call", "and a write to the table waits for the call"),
    "missed": ("but the next write to the table will be missed", "and nobody is told of the next write"),
    "no slot": ("so KVM watches no page of it", "and its table is in no slot: KVM watches no page of it"),
}
"""What becomes of the next write to the table: if no entry is wrong, and if one is."""


class EntryRow(NamedTuple):
    """One entry: what the guest wrote, and what the GPU uses."""

    number: int
    guest: str
    note: str
    """What the guest's entry named when it was shadowed, if that differs."""
    write: Literal["", "seen", "missed"]
    """What became of the guest's last write to it."""
    write_op: int | None
    means: int | None
    """Which of the host pages the guest's entry leads to."""
    uses: int
    """Which one the GPU uses."""
    shadow: str
    wrong: bool


class HostPage(NamedTuple):
    """A page of the VMM's memory, or the scratch page."""

    text: str
    hover: str
    scratch: bool = False


class TableChoice(NamedTuple):
    """A shadowed table that can be looked at."""

    user: int
    gfn: int
    text: str
    chosen: bool


class KvmgtView(NamedTuple):
    """Everything the tab shows; `notice` alone where there is nothing to show yet."""

    notice: str = ""
    way: str = ""
    """What fills the tab."""
    verdict: str = ""
    and_so: str = ""
    loud: bool = False
    because: str = ""
    writes: str = ""
    tables: tuple[TableChoice, ...] = ()
    table_now: str = ""
    table_then: str = ""
    base: str = ""
    """What the numbers of host pages count from."""
    rows: tuple[EntryRow, ...] = ()
    hosts: tuple[HostPage, ...] = ()
    hidden: str = ""
    keepers: tuple[Keeper, ...] = ()
    places: tuple[Place, ...] = ()
    chains: tuple[Chain, ...] = ()


def select_kvmgt(run: Run, stop: Stop, chosen: tuple[int, int] | None = None) -> KvmgtView:
    """Return the view at a stop, of the table `chosen` by (user, gfn), else of the one with most wrong entries."""
    kvm = run.kvm_at(stop)
    vgpus = [(user, t) for user, t in kvm.trackers.items() if isinstance(t, Kvmgt) and t.attached]
    if not vgpus:
        return _nobody(kvm)
    tables = [table_at(run, stop, kvm, user, gfn, spt) for user, vgpu in vgpus for gfn, spt in vgpu.spts.items()]
    if not tables:
        return KvmgtView(
            "KVMGT is attached and shadows no page table of the GPU yet.",
            "Compose Track with the page of a table: KVMGT then shadows its entries. Write stores an entry: page "
            "address plus 1, at 8 times its number in the table.",
        )
    entries = {(t.user, t.gfn): entries_of(kvm, t) for t in tables}
    wrong = {key: sum(e.wrong for e in found) for key, found in entries.items()}
    table = next((t for t in tables if (t.user, t.gfn) == chosen), None) or max(
        tables, key=lambda t: (wrong[t.user, t.gfn], -t.gfn)
    )
    choices = tuple(
        TableChoice(
            t.user,
            t.gfn,
            f"{hex_text(t.gfn)}: {wrong[t.user, t.gfn]} of {n} wrong" if n else f"{hex_text(t.gfn)}: empty",
            t == table,
        )
        for t in tables[:_MOST_TABLES]
        for n in (len(entries[t.user, t.gfn]),)
    )
    return _view(run, stop, kvm, table, entries[table.user, table.gfn], choices)


def _nobody(kvm: Kvm) -> KvmgtView:
    if kvm.profile.external_api_needs_config and not kvm.config.external_write_tracking:
        return KvmgtView(
            "This KVM is built without external write tracking, so KVMGT cannot attach.",
            "Switch external tracking on in the bar above, then press K.",
        )
    return KvmgtView(
        "No KVMGT is attached. Its view of the guest appears here: the guest’s page tables of the GPU, the three "
        "tables that say whether they are watched, and the host pages that the GPU really uses.",
        "Press K to attach KVMGT, then Track a page; or tell the story “KVMGT from inside”.",
    )


def _view(
    run: Run, stop: Stop, kvm: Kvm, table: GpuTable, entries: list[GpuEntry], choices: tuple[TableChoice, ...]
) -> KvmgtView:
    written = writes_to(run, table.home, table.user, table.made, stop) if table.home is not None else ()
    shown = sorted(sorted(entries, key=lambda e: not e.wrong)[:MOST_ROWS], key=lambda e: e.number)
    hosts, numbers, base = _hosts(kvm, table, shown)
    wrong = sum(e.wrong for e in entries)
    chains = _chains(run, kvm, table, shown)
    next_write = _next_write(kvm, table, chains)
    return KvmgtView(
        verdict=f"{wrong} of {len(entries)} {'entry' if len(entries) == 1 else 'entries'} wrong"
        if wrong
        else "The guest’s table is in no slot"
        if next_write == "no slot"
        else "The GPU uses what the guest means"
        if entries
        else "The guest’s table is empty",
        and_so=_AND_SO[next_write][bool(wrong)],
        loud=bool(wrong) or next_write in ("missed", "no slot"),
        because=because_of(kvm, table),
        writes=_writes(written),
        tables=choices,
        table_now="its table is in no slot now" if table.now is None else f"in page {hex_text(table.now)}",
        table_then=f"shadow of page {hex_text(table.gfn)}",
        base=base,
        rows=tuple(_row(e, numbers, written) for e in shown),
        hosts=hosts,
        hidden=f"{len(shown)} of {len(entries)} shown" if len(shown) < len(entries) else "",
        keepers=keepers_of(kvm, table, wrong),
        places=places_of(run, kvm, table),
        chains=chains,
    )


def _next_write(kvm: Kvm, table: GpuTable, chains: tuple[Chain, ...]) -> NextWrite:
    """Return what becomes of the guest's next write to the table, which a write of earlier does not tell."""
    slot = gfn_to_memslot(kvm.active(), table.now) if table.now is not None else None
    if slot is None or table.now is None:
        return "no slot"
    vgpu = kvm.trackers[table.user]
    if chains[-1].seen:
        return "seen"
    watched = count_of(kvm, table.now) and isinstance(vgpu, Kvmgt) and table.now in vgpu.protect_table
    return "waits" if slot.invalid and watched else "missed"


def _writes(written: tuple[Written, ...]) -> str:
    seen = sum(w.seen for w in written)
    if not written:
        return "no guest write to the table since it was shadowed"
    return f"{plural(seen, 'guest write')} to the table seen, {len(written) - seen} missed"


def _hosts(
    kvm: Kvm, table: GpuTable, entries: list[GpuEntry]
) -> tuple[tuple[HostPage, ...], dict[Hva | None, int], str]:
    """Return the host pages that entries lead to by address, the scratch page last; their places; what counts them."""
    pages = sorted({hva for e in entries for hva in (e.means, e.uses) if hva is not None})
    slot = gfn_to_memslot(kvm.active(), table.now) if table.now is not None else None
    start = slot.userspace_addr if slot is not None else None
    inside = slot is not None and all(0 <= hva - slot.userspace_addr < slot.npages << PAGE_SHIFT for hva in pages)
    listed = [
        HostPage(
            f"+{hva - start >> PAGE_SHIFT:#x}" if inside and start is not None else hex_text(hva),
            f"host address {hex_text(hva)}",
        )
        for hva in pages
    ]
    numbers: dict[Hva | None, int] = {hva: at for at, hva in enumerate(pages)}
    if any(e.uses is None for e in entries):
        numbers[None] = len(listed)
        listed.append(HostPage("scratch", "the page that a shadow entry without a target leads to", scratch=True))
    base = f"pages of slot {slot.id}’s memory" if inside and slot is not None else "host addresses"
    return tuple(listed), numbers, base


def _row(entry: GpuEntry, numbers: dict[Hva | None, int], written: tuple[Written, ...]) -> EntryRow:
    last = next((w for w in reversed(written) if w.number == entry.number), None)
    differs = entry.shadowed is not None and entry.shadowed != entry.page
    return EntryRow(
        entry.number,
        hex_text(entry.page) if entry.page is not None else "not present",
        f"was {hex_text(entry.shadowed)}" if differs and entry.shadowed is not None else "",
        "" if last is None else "seen" if last.seen else "missed",
        None if last is None else last.op,
        None if entry.means is None else numbers[entry.means],
        numbers[entry.uses],
        entry.word,
        entry.wrong,
    )


def _chains(run: Run, kvm: Kvm, table: GpuTable, shown: list[GpuEntry]) -> tuple[Chain, ...]:
    """Return what a write of an entry came to when the table was shadowed, and what it comes to now."""
    entry = next((e for e in shown if e.wrong), shown[0] if shown else None)
    at = (entry.number if entry is not None else 0) * ENTRY_BYTES
    chains = []
    if table.made >= 0 and table.home is not None:
        then = run.kvm_before(table.made + 1)
        chains.append(_chain(then, table, table.gfn, at, "then"))
    if table.now is not None:
        chains.append(_chain(kvm, table, table.now, at, "now"))
    return tuple(chains)


def _chain(kvm: Kvm, table: GpuTable, gfn: Gfn, at: int, when: str) -> Chain:
    value = guest_words(kvm, table.home).get(at // ENTRY_BYTES, 0)
    return chain_of(kvm, table.user, (gfn << PAGE_SHIFT) + at, value, when)
