"""The ladder of checks one call met, and the bill of a refusal: what it had already cost."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple

from explorer.engine.events import (
    ArrayAllocated,
    KernelWarned,
    MappingsZapped,
    ReadersDrained,
    TrackerForgot,
    TrackerNotified,
)
from explorer.engine.guards import ladder_for
from explorer.engine.uapi import KVM_MEM_LOG_DIRTY_PAGES
from explorer.explain.ledger import ledger_of
from explorer.explain.sources import name_in
from explorer.explain.words import count_text, errno_text, hex_text, pages_text, plural
from explorer.history.moment import invalidates

if TYPE_CHECKING:
    from explorer.engine.guard import Guard, GuardResult
    from explorer.engine.profile import KernelProfile
    from explorer.explain.ledger import Ledger
    from explorer.history import OpDetail
    from explorer.history.moment import Moment

__all__ = ["BillRow", "GuardsView", "Rung", "select_guards"]

Outcome = Literal["passed", "fired", "not reached"]
_PAIRS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("VM alive, flags of this ioctl", ("vm_alive", "region_flags", "region2_exists")),
    ("size, gpa, hva page-aligned", ("size_aligned", "gpa_aligned", "hva_aligned", "hva_user_range")),
    ("address space, no wrap, size", ("as_id", "gpa_no_wrap", "npages")),
    ("there is a slot to delete", ("slot_exists", "pages_accounted")),
    ("part of the file on pages, no wrap", ("gmem_offset_aligned", "gmem_no_wrap")),
    ("hva, size, READONLY kept", ("same_hva", "same_size", "same_readonly", "same_guest_memfd")),
    ("a guest_memfd of this VM, long enough", ("gmem_fd", "gmem_file", "gmem_size")),
)
_LATE = ("bitmap_memory", "external_user", "max_gfn", "array_memory")
_AFTER_THE_KIND = ("slot_exists", "total_no_wrap", "overlap", *_LATE)
"""The first of these is asked when the kernel knows what kind of change the call is."""


class Rung(NamedTuple):
    """One or more neighbouring checks; a check that fired has a rung of its own."""

    number: int
    """Position from 1; rungs count what a reader sees."""
    title: str
    operands: str
    outcome: Outcome
    errno: str
    """Such as ``−EINVAL``, if it fired."""
    function: str
    is_kind: bool
    """Whether it is no check but the classification of the call."""
    checks: int = 1
    """How many checks of the kernel stand behind it; 0 for the classification."""


class BillRow(NamedTuple):
    """One thing a refused call did before it was refused."""

    what: str
    before: str
    after: str
    note: str
    mark: str = ""
    """Role of a glyph beside the words; empty for none."""
    paid: bool = True
    """Whether it stays spent; False for what was rolled back or kept."""


class GuardsView(NamedTuple):
    """Everything the guards tab shows besides the strip of steps."""

    free: tuple[Rung, ...]
    """Checks that cost nothing when they refuse."""
    late: tuple[Rung, ...]
    """Checks asked after the slot was hidden and zapped."""
    divider: str
    """What separates the two; empty if the call has no late checks."""
    summary: str
    bill_title: str
    bill: tuple[BillRow, ...]
    fired: Rung | None


def select_guards(moment: Moment) -> GuardsView | None:
    """Return the ladder of the region call a moment is in, as far as the moment has come."""
    op, call = moment.op, moment.call
    if op is None or call is None:
        return None
    asked = _asked(moment)
    ladder = tuple(
        guard for guard in ladder_for(moment.kvm.profile, call).of(moment.change) if _concerns(guard, asked, moment)
    )
    rungs = _rungs(ladder, asked, moment)
    late_from = next((at for at, rung in enumerate(rungs) if rung.title in _late_titles(ladder)), len(rungs))
    hidden = invalidates(moment.change)
    free, late = (rungs[:late_from], rungs[late_from:]) if hidden else (rungs, ())
    asked_for = sum(rung.checks for rung in rungs)
    fired = next((rung for rung in rungs if rung.outcome == "fired"), None)
    return GuardsView(
        free=free,
        late=late,
        divider="from here on a “no” is not free: slot hidden, mappings zapped" if late else "",
        summary=f"{plural(asked_for, 'check')} in kernel order",
        bill_title=_bill_title(fired, late),
        bill=_bill(moment),
        fired=fired,
    )


def _asked(moment: Moment) -> dict[str, GuardResult]:
    """Return the results of the checks asked so far."""
    op = moment.op
    if op is None:
        return {}
    pending = moment.kvm.pending
    results = op.step.results if moment.at_end or pending is None else pending.results
    return {result.guard.name: result for result in results}


def _concerns(guard: Guard, asked: dict[str, GuardResult], moment: Moment) -> bool:
    """Return whether a call can meet a check at all: memory for a bitmap is asked for if a new one is needed."""
    if guard.name != "bitmap_memory" or moment.call is None:
        return True
    logs_already = moment.old is not None and moment.old.dirty_bitmap is not None
    needed = moment.call.flags & KVM_MEM_LOG_DIRTY_PAGES and not logs_already
    return bool(needed) or (guard.name in asked and not asked[guard.name].passed)


def _late_titles(ladder: tuple[Guard, ...]) -> set[str]:
    return {guard.title for guard in ladder if guard.name in _LATE}


def _rungs(ladder: tuple[Guard, ...], asked: dict[str, GuardResult], moment: Moment) -> tuple[Rung, ...]:
    rungs: list[Rung] = []
    names = [guard.name for guard in ladder]
    at = 0
    kind_shown = False
    while at < len(ladder):
        if not kind_shown and names[at] in _AFTER_THE_KIND:
            kind = _kind_rung(moment, len(rungs) + 1)
            kind_shown = True
            if kind is not None:
                rungs.append(kind)
        title, members = _group(ladder, at)
        if any(g.name in asked and not asked[g.name].passed for g in members):
            title, members = ladder[at].title, (ladder[at],)  # one of them fired: each on its own rung
        rungs.append(_rung(len(rungs) + 1, title, members, asked, moment.kvm.profile))
        at += len(members)
    kind = None if kind_shown else _kind_rung(moment, len(rungs) + 1)
    return (*rungs, kind) if kind is not None else tuple(rungs)


def _group(ladder: tuple[Guard, ...], at: int) -> tuple[str, tuple[Guard, ...]]:
    """Return the checks that share a rung with the one at `at`: a row for what a reader asks as one thing."""
    name = ladder[at].name
    for title, group in _PAIRS:
        if name in group:
            members = [ladder[at]]
            for guard in ladder[at + 1 :]:
                if guard.name not in group:
                    break
                members.append(guard)
            return title if len(members) > 1 else ladder[at].title, tuple(members)
    return ladder[at].title, (ladder[at],)


def _rung(
    number: int, title: str, members: tuple[Guard, ...], asked: dict[str, GuardResult], profile: KernelProfile
) -> Rung:
    def where(guard: Guard) -> str:
        return name_in(guard.function, profile) or guard.function

    results = [asked[guard.name] for guard in members if guard.name in asked]
    if not results:
        return Rung(number, title, "", "not reached", "", where(members[0]), False, len(members))
    failed = next((result for result in results if not result.passed), None)
    if failed is not None:
        return Rung(number, title, failed.operands, "fired", errno_text(failed.guard.errno), where(failed.guard), False)
    operands = results[0].operands if len(members) == 1 else "all"
    return Rung(number, title, operands, "passed", "", where(members[-1]), False, len(members))


def _kind_rung(moment: Moment, number: int) -> Rung | None:
    change, call = moment.change, moment.call
    if change is None or call is None:
        return None
    reached = moment.op is not None and moment.op.step.change is not None
    words = {
        "CREATE": ("no such slot: a CREATE", f"slot {call.slot}"),
        "MOVE": ("base_gfn differs: a MOVE", hex_text(call.guest_phys_addr >> 12)),
        "DELETE": ("size 0: a DELETE", f"slot {call.slot}"),
        "FLAGS_ONLY": ("only flags differ", hex_text(call.flags)),
        "NOOP": ("nothing differs: returns 0 here", ""),
    }
    title, operands = words[change.value]
    return Rung(
        number,
        title,
        operands if reached else "",
        "passed" if reached else "not reached",
        "",
        name_in("kvm_set_memory_region", moment.kvm.profile) or "",
        True,
        0,
    )


# -- the bill --------------------------------------------------------------------------------------


def _bill_title(fired: Rung | None, late: tuple[Rung, ...]) -> str:
    if fired is None:
        return "What the call did"
    return "Paid, and not given back" if fired in late else "Refused for free"


def _bill(moment: Moment) -> tuple[BillRow, ...]:
    """Return what the call has done so far, spent things first; nothing for a call refused early."""
    op, call = moment.op, moment.call
    if op is None or call is None or call.as_id >= len(moment.kvm.memslots):
        return ()
    before, now, events = op.before, moment.kvm, moment.events
    generation = (before.active(call.as_id).generation, _plain(now.active(call.as_id).generation, moment))
    waits = sum(isinstance(event, ReadersDrained) for event in events)
    rows = [
        BillRow(
            "Memslot generation",
            count_text(generation[0]),
            count_text(generation[1]),
            f"+{generation[1] - generation[0]}, {_swaps(waits)}" if waits else "untouched",
        ),
        BillRow("Waits for all readers (SRCU)", "", count_text(waits), "spent" if waits else "none"),
    ]
    zapped = [event for event in events if isinstance(event, MappingsZapped)]
    rows.append(
        BillRow(
            "Shadow pages, whole VM",
            count_text(before.indirect_shadow_pages),
            count_text(now.indirect_shadow_pages),
            "guest faults them in again"
            if zapped and before.indirect_shadow_pages
            else ("all mappings zapped" if zapped[0].scope == "all" else "the slot’s mappings zapped")
            if zapped
            else "untouched",
        )
    )
    ledger = ledger_of(moment)
    if ledger is not None:
        own = (
            ledger.count("held", "shadow paging")
            + ledger.count("released", "shadow paging")
            + ledger.count("lost", "shadow paging")
        )
        left = ledger.count("held", "shadow paging")
        # Where the slot stays, the guest's page tables are still there to be shadowed.
        gone = "come back with the faults" if moment.op is not None and moment.op.step.errno is not None else "released"
        rows.append(
            BillRow(
                "Watches of shadow paging",
                count_text(own),
                count_text(left),
                gone if left < own else "kept",
                "internal",
            )
        )
        rows += _losses_of_the_tracker(ledger, op)
    for event in events:
        if isinstance(event, TrackerNotified):
            rows.append(
                BillRow(
                    f"Tracker {event.user}: {event.callback}",
                    "",
                    "told",
                    f"{pages_text(event.npages)} from {hex_text(event.gfn)}",
                    "attach",
                )
            )
        elif isinstance(event, TrackerForgot):
            rows.append(
                BillRow("KVMGT’s protected pages", "", f"\N{MINUS SIGN}{len(event.gfns)}", "not restored", "lost")
            )
        elif isinstance(event, KernelWarned):
            rows.append(BillRow("Kernel warning", "", event.function, event.what, "lost"))
    rows += _kept_rows(moment)
    return tuple(rows)


def _losses_of_the_tracker(ledger: Ledger, op: OpDetail) -> list[BillRow]:
    """Return the watches that go with the old arrays: of an accepted call, and of a tracker that does not drop them."""
    lost, asked = ledger.count("lost", "tracker"), sum(watch.by == "tracker" for watch in ledger.watches)
    if op.step.errno is not None or not (lost or (asked and ledger.will_be_lost)):
        return []
    note = "lost with arrays A" if lost else "will be lost with arrays A"
    left = count_text(ledger.count("held", "tracker"))
    return [BillRow("Watches of the tracker", count_text(asked), left, note, "lost")]


def _plain(generation: int, moment: Moment) -> int:
    bit = moment.kvm.profile.generation_in_progress_bit
    return generation & ~(1 << bit) if bit else generation


def _swaps(waits: int) -> str:
    return {1: "one swap", 2: "two swaps", 3: "three swaps"}.get(waits, f"{waits} swaps")


def _kept_rows(moment: Moment) -> list[BillRow]:
    op, old, call = moment.op, moment.old, moment.call
    if op is None or old is None or call is None or op.step.errno is None:
        return []
    now = moment.kvm.slot(old.id, old.as_id)
    base = hex_text(now.base_gfn) if now is not None else "gone"
    hidden = now is not None and now.invalid
    rows = [
        BillRow(
            f"Slot {old.id}, base_gfn",
            hex_text(old.base_gfn),
            base,
            "INVALID to readers" if hidden else "old object back in both sets",
            paid=False,
        )
    ]
    ledger = ledger_of(moment)
    if ledger is not None:
        trackers = sum(1 for w in ledger.watches if w.by == "tracker")
        left = ledger.count("held", "tracker")
        note = "arrays A were never freed" if left == trackers else "taken away, and not put back"
        spent = left < trackers
        rows.append(
            BillRow("Watches of the tracker", count_text(trackers), count_text(left), note, "external", paid=spent)
        )
    if moment.target is not None and moment.change is not None and moment.change.value == "MOVE":
        short = op.step.refused_by is not None and op.step.refused_by.name == "array_memory"
        note = "freed again as far as there were any" if short else "never allocated"
        rows.append(BillRow("Arrays B", "", "", note, paid=False))
        if any(isinstance(e, ArrayAllocated) and e.kind == "dirty_bitmap" for e in moment.events):
            rows.append(BillRow("Dirty bitmap for the new slot", "", "", "allocated, and freed again", paid=False))
    return rows
