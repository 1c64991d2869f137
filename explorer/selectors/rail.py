"""The right rail: the verdict, the sentence for each reader, the source, and what the verdict rests on."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

from explorer.engine.apply import apply
from explorer.engine.events import ArrayAllocated
from explorer.engine.invariants import INVARIANTS
from explorer.engine.mmu import zaps_all
from explorer.engine.page_track import SHADOW_PAGING
from explorer.engine.state import Kvmgt, LogTracker
from explorer.engine.types import PAGE_SHIFT
from explorer.engine.uapi import KvmMrChange
from explorer.explain.costs import cost_of
from explorer.explain.ledger import ledger_of
from explorer.explain.origins import watch_origins
from explorer.explain.sentences import sentences_of
from explorer.explain.sources import Source, source_of
from explorer.explain.words import hex_text, plural
from explorer.explain.write_tracking import counts_of_the_vm
from explorer.explain.xray import changes_at, in_the_way_of, why_nothing_works
from explorer.selectors.probe import WORDS, select_probes
from explorer.selectors.verdict import verdict_of

if TYPE_CHECKING:
    from explorer.engine.invariants import Violation
    from explorer.engine.state import Kvm
    from explorer.explain.changes import Change
    from explorer.history import Run, Stop
    from explorer.history.moment import Moment
    from explorer.selectors.verdict import Icon

__all__ = ["RailCell", "RailView", "Section", "select_rail"]

RECORDED = {"v5_10": "5.10", "v6_1": "6.1", "v6_12": "6.12", "v6_18": "6.18", "v7_3": "7.3"}
_CHAIN = 5
_LONG_RUN = 400
_MOST_IN_THE_WAY = 4
_FEW_SLOTS = 64
"""Slots up to which every property is checked at the end of every operation."""


class RailCell(NamedTuple):
    """Words of a row, with what they mean."""

    text: str
    glyph: str = ""
    role: str = ""
    """Colour role; the words say the same."""
    number: bool = False
    why: str = ""
    """Key of the value the words are, for `explorer.explain.origins`; empty if it cannot be asked about."""
    stop: Stop | None = None
    """Where the words lead."""


class Section(NamedTuple):
    """A titled part of the rail: a paragraph, a table or a list."""

    title: str
    text: str = ""
    header: tuple[str, ...] = ()
    rows: tuple[tuple[RailCell, ...], ...] = ()
    note: str = ""


class RailView(NamedTuple):
    """Everything the rail shows."""

    icon: Icon
    errno: str
    """Written in the octagon; empty otherwise."""
    verdict: str
    subtitle: str
    subtitle_role: str
    newcomer: str
    developer: str
    source: Source | None
    provenance: str
    because: str
    """One line for narrow screens."""
    sections: tuple[Section, ...]


def select_rail(
    run: Run,
    moment: Moment,
    page: int | None = None,
    *,
    properties: bool = True,
    changes: tuple[Change, ...] | None = None,
) -> RailView:
    """Return the rail at a moment of a run.

    Parameters
    ----------
    run, moment
        The run and the stop in it.
    page
        A gfn that somebody wants to know about.
    properties
        Whether the properties that do not hold are told here.
    changes
        What would work instead of a refused call, if somebody has asked `changes_at` already.
    """
    words = sentences_of(moment)
    changes = changes_at(moment) if changes is None else changes
    return RailView(
        *verdict_of(moment),
        words.newcomer,
        words.developer,
        source_of(words.function, moment.kvm.profile) if words.function else None,
        _provenance(moment.kvm),
        words.newcomer + _first_change(changes),
        (*_sections(run, moment, changes, properties=properties), *_if_touched(moment, page), *_counts(moment)),
    )


def _provenance(kvm: Kvm) -> str:
    """Say whether what is shown was recorded on a real kernel, and on which."""
    kernel = RECORDED.get(kvm.profile.name)
    if kernel is None:
        return "model, not recorded"
    if any(isinstance(tracker, Kvmgt) and tracker.attached for tracker in kvm.trackers.values()):
        return "model: KVMGT was not recorded"
    return f"model, checked on {kernel}"


# -- sections --------------------------------------------------------------------------------------


def _sections(run: Run, moment: Moment, changes: tuple[Change, ...], *, properties: bool) -> list[Section]:
    op = moment.op
    broken = _broken(moment.kvm) if properties and moment.at_end else None
    if op is None or moment.call is None:
        return [section for section in (_trackers(moment), broken) if section is not None]
    if op.step.errno is not None:
        return [*_refused_sections(run, moment, changes), *([broken] if broken is not None else [])]
    found = [_beliefs(moment), _chain(run, moment), _rests_on(moment), broken]
    return [section for section in found if section is not None]


def _if_touched(moment: Moment, page: int | None) -> tuple[Section, ...]:
    """Say what a guest access would meet now; each is run on a copy. After a refusal everything is as it was."""
    if page is None and moment.at_end and moment.op is not None and moment.op.step.errno is not None:
        return ()
    rows = tuple(
        (RailCell(hex_text(probe.gfn)), RailCell(WORDS[probe.read]), RailCell(WORDS[probe.write]))
        for probe in select_probes(moment, page)
    )
    # `select_probes` leaves out a guest in 64-bit mode, the only one PVM runs on the processor.
    note = "PVM emulates all but 64-bit code" if moment.kvm.config.processor == "pvm" else ""
    return (
        (Section("If the guest touched it now", header=("gfn", "read", "write"), rows=rows, note=note),) if rows else ()
    )


def _counts(moment: Moment) -> tuple[Section, ...]:
    """Say why slots have no write-track counts, or, where they get them and outside region calls, why they have."""
    if moment.op is None or moment.op.step.errno is not None:
        return ()
    counts = counts_of_the_vm(moment.kvm)
    step = moment.op.cells[moment.stop.cell].events
    made = any(isinstance(event, ArrayAllocated) and event.kind == "gfn_write_track" for event in step)
    nobody = moment.call is None and not moment.kvm.active().id_hash
    if nobody or (counts.exist and moment.call is not None and not made):
        return ()
    return (Section("Write-track counts", counts.sentence),)


def _broken(kvm: Kvm) -> Section | None:
    """List the properties that do not hold here, each with how often, and what is known to break it."""
    if sum(len(kvm.active(as_id).id_hash) for as_id in range(len(kvm.memslots))) > _FEW_SLOTS:
        return None
    broken = [(each, found) for each in INVARIANTS if (found := each.check(kvm))]
    rows = tuple((RailCell(each.name, "violation", "lost"), RailCell(_where(found))) for each, found in broken)
    known = {each.otherwise for each, _ in broken if not each.holds(kvm.profile)}
    note = f"Known on {kvm.profile.title}: {'; '.join(sorted(known))}." if known else ""
    return Section("Broken properties", rows=rows, note=note) if rows else None


def _where(found: tuple[Violation, ...]) -> str:
    gfn = next((violation.gfn for violation in found if violation.gfn is not None), None)
    return plural(len(found), "place") + (f", {hex_text(gfn)}" if gfn is not None else "")


def _trackers(moment: Moment) -> Section | None:
    rows = []
    for user, tracker in moment.kvm.trackers.items():
        kind = "KVMGT" if isinstance(tracker, Kvmgt) else "logs only"
        state = "attached" if tracker.attached else "detached"
        holds = (
            f"{plural(len(tracker.protect_table), 'page')} in its own table"
            if isinstance(tracker, Kvmgt)
            else (f"{plural(len(tracker.notes()), 'callback')} logged" if isinstance(tracker, LogTracker) else "")
        )
        rows.append(
            (
                RailCell(f"tracker {user}", "attach" if tracker.attached else "detach"),
                RailCell(f"{kind}, {state}"),
                RailCell(holds),
            )
        )
    return Section("Trackers", header=("who", "what", "holds"), rows=tuple(rows)) if rows else None


def _beliefs(moment: Moment) -> Section | None:
    """Set side by side what each tracker believes of a page and what the arrays hold."""
    ledger = ledger_of(moment)
    op = moment.op
    if ledger is None or not ledger.watches or op is None or moment.change is not KvmMrChange.MOVE:
        return None
    rows = []
    held: Counter[int] = Counter(w.gfn for w in ledger.watches if w.fate == "held")
    keeps = moment.kvm.profile.move_keeps_arch_metadata
    for gfn in sorted({w.gfn for w in ledger.watches})[:6]:
        mine = [w for w in ledger.watches if w.gfn == gfn]
        tracker = any(w.by == "tracker" for w in mine)
        believes = _believes(moment.kvm, gfn) if tracker else "none"
        settled = [word for word in ("lost", "dropped", "released") if any(w.fate == word for w in mine)]
        fate = (
            ", ".join(settled)
            if all(w.fate in settled for w in mine)
            else settled[0]
            if settled and settled[0] != "released"
            else "will be lost"
            if ledger.will_be_lost_own or (tracker and ledger.will_be_lost)
            else "will be dropped"
            if tracker and ledger.will_be_dropped
            else "kept"
            if keeps
            else "will be released"
        )
        bad = "lost" in fate or "dropped" in fate
        rows.append(
            (
                RailCell(hex_text(gfn)),
                RailCell(believes, "external" if believes.startswith("watching") else ""),
                RailCell(str(held[gfn]), number=True, why=f"count:{gfn - moment.old.base_gfn}" if moment.old else ""),
                *(() if keeps else (RailCell("0", number=True),)),
                RailCell(
                    fate,
                    "lost" if bad else "released" if fate == "released" else "",
                    "lost" if bad else "internal" if fate == "released" else "",
                ),
            )
        )
    arrays = ("in A",) if keeps else ("in A", "in B")
    return Section("Who believes what, page by page", header=("gfn", "tracker", *arrays, "then"), rows=tuple(rows))


def _believes(kvm: Kvm, gfn: int) -> str:
    for tracker in kvm.trackers.values():
        if isinstance(tracker, Kvmgt):
            protects = gfn in tracker.protect_table
            shadows = tracker.page_track_tree.get(gfn)  # type: ignore[call-overload]
            return "watching" if protects else "flag says tracked" if shadows else "none"
    return "watching"


def _chain(run: Run, moment: Moment) -> Section | None:
    """List the operations that made and took the watches of the slot, newest last; each leads there."""
    if moment.op is None or moment.old is None or len(run) > _LONG_RUN:
        return None
    rows = [
        (
            RailCell(origin.place, number=True, stop=origin.stop),
            RailCell(origin.what),
            RailCell(f"+{origin.change}", "internal" if origin.by == SHADOW_PAGING else "external")
            if origin.change > 0
            else RailCell(f"\N{MINUS SIGN}{-origin.change}", "released" if origin.by else "lost"),
        )
        for origin in watch_origins(run, moment.stop, moment.old)[:_CHAIN]
    ]
    return Section("Where the watches came from", rows=tuple(reversed(rows))) if rows else None


def _rests_on(moment: Moment) -> Section | None:
    ledger = ledger_of(moment)
    if ledger is None or not ledger.before or moment.change is not KvmMrChange.MOVE:
        return None
    parts = []
    own = ledger.count("released", "shadow paging")
    if own:
        zap = "every mapping is zapped" if zaps_all(moment.kvm) else "the slot’s shadow pages are zapped"
        parts.append(f"{own} released: harmless **only because** {zap} before the slot changes place.")
    dropped = ledger.dropped
    if dropped:
        parts.append(
            f"{dropped} taken away by KVMGT’s own callback: harmful, its protection is gone"
            f" and its {'flag still says' if dropped == 1 else 'flags still say'} tracked."
        )
    lost = ledger.lost + ledger.will_be_lost
    if lost and ledger.losers == "the external tracker":
        parts.append(
            f"{lost} lost: harmful, the tracker still counts on {'it' if lost == 1 else 'them'}"
            " and nobody asks again at the new place."
        )
    elif lost:
        parts.append(
            f"{lost} lost: harmful, the zap left the shadow pages {'it stands' if lost == 1 else 'they stand'} for,"
            " which will give them back to arrays that never had them."
        )
    if moment.kvm.profile.move_keeps_arch_metadata and moment.at_end and ledger.kept:
        parts.append(
            f"{ledger.kept} carried over by index: harmful, the array is the old one and the pages are others."
        )
    return Section("Rests on", " ".join(parts)) if parts else None


def _refused_sections(run: Run, moment: Moment, changes: tuple[Change, ...]) -> list[Section]:
    op = moment.op
    assert op is not None, "a refusal is inside an operation"
    found = [section for section in (_in_the_way(moment), _what_works(run, moment, changes)) if section is not None]
    late = any(cell.word == "zap" for cell in op.cells)
    if late:
        found.append(
            Section(
                "The same errno, for free",
                "The checks above the dashed line answer before anything is touched: generation +0, no zap.",
            )
        )
        swaps = [at for at, cell in enumerate(op.cells, 1) if cell.swaps]
        found.append(
            Section(
                "What the guest could see",
                f"During steps {swaps[0]} to {swaps[-1] - 1} a fault in slot {moment.call.slot if moment.call else ''}"
                " retries, an emulated access exits as MMIO.",
            )
        )
    return found


def _in_the_way(moment: Moment) -> Section | None:
    """Name the slots that have pages the call asks for."""
    ways = in_the_way_of(moment)
    if not ways:
        return None
    rows = tuple(
        (
            RailCell(f"slot {way.slot.id}", "slot"),
            RailCell(_bytes_text(way.slot.base_gfn, way.slot.end_gfn)),
            RailCell(_bytes_text(way.first_gfn, way.end_gfn), "rejected"),
        )
        for way in ways[:_MOST_IN_THE_WAY]
    )
    more = len(ways) - len(rows)
    note = f"and {plural(more, 'slot')} more" if more else ""
    return Section("In the way", header=("who", "has", "of it asked for"), rows=rows, note=note)


def _bytes_text(first_gfn: int, end_gfn: int) -> str:
    return f"{hex_text(first_gfn << PAGE_SHIFT)} to {hex_text((end_gfn << PAGE_SHIFT) - 1)}"


def _what_works(run: Run, moment: Moment, changes: tuple[Change, ...]) -> Section | None:
    """List the smallest changes with which the engine accepts the call, and what it returns then."""
    op, call = moment.op, moment.call
    if op is None or call is None or op.step.refused_by is None:
        return None
    guard = op.step.refused_by
    rows = [_row_of_change(_words(change), change.cost) for change in changes]
    if guard.name == "external_user" and len(run) <= _LONG_RUN:
        other = run.up_to(moment.stop.op).on("v6_1", op.before.config)
        step = apply(other.end, call, record=False)
        if step.errno is None:
            rows.append(_row_of_change("the same call on 6.1", cost_of(other.end, (call,)).words))
    if not rows:
        return Section("What would work", text=f"Nothing: {why_nothing_works(guard)}.")
    return Section("What would work", rows=tuple(rows), note="each line was run in the model")


def _row_of_change(words: str, cost: str) -> tuple[RailCell, ...]:
    """Return a change with what the call then returns; one that harms watches does not look like one that does not."""
    return (
        RailCell(words[0].upper() + words[1:], "lost" if cost else "check"),
        RailCell(f"returns 0, but {cost}" if cost else "returns 0", role="lost" if cost else ""),
    )


def _first_change(changes: tuple[Change, ...]) -> str:
    """Return the smallest change that works, for a screen on which the list is hidden."""
    return f" Would work: {_words(changes[0])}{changes[0].but}." if changes else ""


def _words(change: Change) -> str:
    return change.words + (", and nothing changes" if change.does is KvmMrChange.NOOP else "")
