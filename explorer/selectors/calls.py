"""The kernel functions of one operation: those the model enters, beside those a real kernel was recorded to enter.

The recording is of another VM on another day: the same change with the same outcome, on a machine as near as there
is. So what is said is said of the order of calls, and whatever has no partner gets its own mark: never a match that
is none.
"""

from __future__ import annotations

from collections import Counter
from functools import lru_cache
from itertools import groupby
from typing import TYPE_CHECKING, Literal, NamedTuple

from explorer.conform.call_trees import (
    INLINED,
    INLINED_IN,
    KINDS,
    Graph,
    Kind,
    Machine,
    align,
    entered_functions,
    machine_of,
    nearest,
    newest_name,
    recorded_files,
    shown_by,
)
from explorer.engine.commands import SetMemoryRegion, verb_of
from explorer.engine.events import Called
from explorer.engine.mmu import zaps_all
from explorer.engine.profile import profile_of_release
from explorer.engine.state import Kvmgt
from explorer.engine.uapi import KVM_MEM_GUEST_MEMFD, KVM_MEM_LOG_DIRTY_PAGES, KVM_MEM_READONLY, KvmMrChange
from explorer.explain.left_out import why_left_out
from explorer.explain.sources import FUNCTIONS, name_in, release_of, source_of
from explorer.explain.words import count_text, errno_text, plural
from explorer.selectors.phases import step_word

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from explorer.engine.profile import KernelProfile
    from explorer.history import OpDetail, Run, Stop

__all__ = ["CallRow", "CallRun", "CallsView", "ModelCall", "Recorded", "recording_like", "select_calls"]

Mark = Literal["both", "inlined", "part", "more", "unseen", "left out", "again"]

_REPEATS = 12
"""Calls of one function within a step that get a line each; a zap of many pages repeats the same few."""
_FOLDED = 4
"""Calls without a partner in a row from which on they stand behind one line."""
_SUMS = {"part": "in other functions of the model", "not": "not modelled", "of": "of the rest", "once": "once more"}
"""First words of a note, and what is said where notes are counted."""
_CHANGES: dict[KvmMrChange | None, str] = {
    KvmMrChange.CREATE: "CREATE",
    KvmMrChange.DELETE: "DELETE",
    KvmMrChange.MOVE: "MOVE",
    KvmMrChange.FLAGS_ONLY: "change of flags",
}
_KVMGT_FILES = "drivers/gpu/"


class ModelCall(NamedTuple):
    """A function the model enters."""

    function: str
    """Its name in the kernel of the run."""
    file: str
    """Last part of the file's path; empty where that kernel has no such function."""
    title: str
    url: str


class Recorded(NamedTuple):
    """A function a real kernel was recorded to enter."""

    function: str
    depth: int
    share: str
    """Part of the whole operation's time until it returned."""
    width: str
    """The same as a CSS length."""


class CallRow(NamedTuple):
    """One line: a function of the model, of the recording, or of both."""

    mark: Mark
    word: str
    """The mark in words."""
    model: ModelCall | None
    recorded: Recorded | None
    note: str = ""
    """What is said of a function that has no partner."""
    step: str = ""
    """The step that begins with this line."""
    now: bool = False
    """Whether the line belongs to the step of the stop."""


class CallRun(NamedTuple):
    """Lines without a partner that are folded into one."""

    mark: Mark
    word: str
    title: str
    depth: int
    """How far in the first of them stands."""
    note: str
    """What is said of them, counted."""
    rows: tuple[CallRow, ...]
    now: bool


class CallsView(NamedTuple):
    """Both sides; `notice` alone where no operation is."""

    notice: str = ""
    where: str = ""
    claim: str = ""
    """What the two come to."""
    why: str = ""
    """What it rests on."""
    chip: str = ""
    """Where the right side is from."""
    recorded: bool = False
    missing: str = ""
    """Why there is no right side."""
    heads: tuple[str, str] = ("", "")
    rows: tuple[CallRow | CallRun, ...] = ()


class _Entry(NamedTuple):
    """A call of the model, and the step it is made in."""

    cell: int
    function: str


_WORDS: dict[Mark, str] = {
    "both": "both",
    "inlined": "inlined",
    "part": "a part",
    "more": "more",
    "unseen": "not seen",
    "left out": "left out",
    "again": "again",
}


def select_calls(run: Run, at: Stop) -> CallsView:
    """Return the calls of the operation at a stop beside the recorded ones of the nearest operation."""
    at = run.clamp(at)
    if at.op < 0:
        return CallsView("The kernel functions of an operation appear here, beside those of a real kernel. Go to one.")
    op = run.detail(at.op)
    where = f"operation {at.op + 1} of {len(run)}"
    entries, set_aside = _entries(op)
    if not entries:
        return CallsView(f"The model enters no kernel function in {where}, {verb_of(op.command)}.")
    if len(op.cells) > 1:
        where += f", step {at.cell + 1} of {len(op.cells)}: {step_word(op, at.cell)}"
    profile = op.before.profile
    number = len(entries) + sum(set_aside.values())
    graph, missing = recording_like(op)
    pairs = _aligned(tuple(entry.function for entry in entries), graph.functions) if graph is not None else ()
    if graph is None or not pairs:
        rows = [_alone(entry, profile) for entry in entries]
        return CallsView(
            where=where,
            claim=f"{plural(number, 'call')} in the model, and no recording beside them",
            chip="not recorded",
            missing=missing or f"The operation of {graph.kernel if graph else profile.title} has no call in common.",
            heads=(f"The model enters, on {profile.title}", ""),
            rows=tuple(_by_steps(op, at.cell, zip(entries, rows, strict=True), set_aside)),
        )
    merged = list(_merged(op, graph, entries, pairs))
    return CallsView(
        where=where,
        claim=_claim(graph, [row.mark for _, row in merged], sum(set_aside.values())),
        why=_rests_on(op, graph),
        chip=f"recorded on {graph.kernel}, {graph.variant}",
        recorded=True,
        heads=(f"The model enters, on {profile.title}", f"{graph.kernel} entered"),
        rows=tuple(_folded(_by_steps(op, at.cell, merged, set_aside))),
    )


def _entries(op: OpDetail) -> tuple[list[_Entry], Counter[int]]:
    """Return the calls of an operation, and by step how many repetitions get no line of their own."""
    entries: list[_Entry] = []
    seen: Counter[_Entry] = Counter()
    set_aside: Counter[int] = Counter()
    for at, cell in enumerate(op.cells):
        for event in cell.events:
            if isinstance(event, Called):
                entry = _Entry(at, event.function)
                seen[entry] += 1
                if seen[entry] > _REPEATS:
                    set_aside[at] += 1
                else:
                    entries.append(entry)
    return entries, set_aside


@lru_cache(maxsize=64)
def _aligned(ours: tuple[str, ...], recorded: tuple[str, ...]) -> tuple[tuple[int, int], ...]:
    return align(ours, recorded)


# -- choosing the recording ------------------------------------------------------------------------


def recording_like(op: OpDetail) -> tuple[Graph | None, str]:
    """Return the recorded operation that is most like one, or None and a sentence that says why there is none."""
    profile = op.before.profile
    kernels = list(dict.fromkeys(path.parts[-4] for path in recorded_files()))
    backing = {found.name: kernel for kernel in kernels if (found := profile_of_release(kernel)) is not None}
    if profile.name not in backing:
        if not kernels:
            return None, "The recordings are not installed beside the package."
        near = " and ".join(_neighbours(kernels, release_of(profile)))
        return None, (
            f"No function graph was recorded on {profile.title}. Nearest among the kernels that were: {near}; choose"
            " one above to see this operation beside it."
        )
    kernel, errno = backing[profile.name], op.step.errno
    graph = nearest(kernel, _kind(op), _machine(op), errno.name if errno is not None else None)
    return graph, "" if graph is not None else f"On {kernel} function graphs were recorded, but {_none_like(op)}."


def _neighbours(kernels: list[str], release: str) -> list[str]:
    """Return the newest recorded kernel up to a release, and the oldest after it."""
    ordered = sorted(kernels, key=_number)
    older = [kernel for kernel in ordered if _number(kernel) <= _number(release)]
    return [*older[-1:], *ordered[len(older) : len(older) + 1]]


def _number(release: str) -> tuple[int, ...]:
    return tuple(map(int, release.split(".")))


def _none_like(op: OpDetail) -> str:
    guard = op.step.refused_by
    if guard is not None:
        what = _CHANGES.get(op.step.change, "call")
        function = name_in(guard.function, op.before.profile) or guard.function
        return f"of no {what} that was refused by this check, {guard.name} in `{function}()`"
    if op.step.errno is not None:
        return f"of no {verb_of(op.command)} that returned {errno_text(op.step.errno)}"
    return f"of no {verb_of(op.command)}"


def _kind(op: OpDetail) -> Kind:
    before, command, change = op.before, op.command, op.step.change
    guard = op.step.refused_by
    region = command if isinstance(command, SetMemoryRegion) else None
    flags = region.flags & (KVM_MEM_LOG_DIRTY_PAGES | KVM_MEM_READONLY) if region is not None else 0
    return Kind(
        "",
        SetMemoryRegion if region is not None else type(command),
        change,
        (guard.name,) if guard is not None else (),
        tracker=bool(before.track_notifiers),
        mapped=bool(before.sptes.entries or before.active_mmu_pages),
        quirk_off=not zaps_all(before),
        flags=flags,
        starts_log=change is KvmMrChange.FLAGS_ONLY and bool(flags & KVM_MEM_LOG_DIRTY_PAGES),
    )


def _machine(op: OpDetail) -> Machine:
    config = op.before.config
    return Machine(config.tdp, config.tdp_mmu_enabled, config.processor == "intel", config.pml_enabled)


def _rests_on(op: OpDetail, graph: Graph) -> str:
    """Return what was recorded, and in what it differs from what the page shows."""
    kind, mine, on, here = KINDS[graph.label], _kind(op), machine_of(graph.path), _machine(op)
    what = kind.title
    if kind.tracker and kind.command is SetMemoryRegion:
        what += " with a tracker attached"
    if kind.mapped:
        what += " after a guest had run"
    if graph.errno is not None:
        what += f", \N{MINUS SIGN}{graph.errno}"
    differs = [
        (on.tdp != here.tdp, "nested paging" if on.tdp else "shadow paging"),
        (on.tdp and here.tdp and on.tdp_mmu != here.tdp_mmu, "the TDP MMU" if on.tdp_mmu else "the older MMU"),
        (kind.tracker != mine.tracker, "a tracker" if kind.tracker else "no tracker"),
        (kind.tracker and mine.tracker and _has_kvmgt(op), "a small module in the place of KVMGT"),
        (kind.mapped != mine.mapped, "a guest had run" if kind.mapped else "nothing was mapped"),
        (_on_guest_memfd(op), "no guest_memfd"),
        (kind.quirk_off != mine.quirk_off, "the slot zapped alone" if kind.quirk_off else "the whole VM zapped"),
    ]
    there = ", ".join(words for differ, words in differs if differ)
    return f"recorded: {what}" + (f"; unlike here: {there}" if there else "; in a VM like this one")


def _on_guest_memfd(op: OpDetail) -> bool:
    return isinstance(op.command, SetMemoryRegion) and bool(op.command.flags & KVM_MEM_GUEST_MEMFD)


def _has_kvmgt(op: OpDetail) -> bool:
    return any(isinstance(tracker, Kvmgt) and tracker.attached for tracker in op.before.trackers.values())


# -- lines -----------------------------------------------------------------------------------------


def _merged(
    op: OpDetail, graph: Graph, entries: list[_Entry], pairs: tuple[tuple[int, int], ...]
) -> Iterator[tuple[_Entry | None, CallRow]]:
    """Give the lines of both sides in one order; what a matched function calls stays below it."""
    whole = sum(call.us for call in graph.calls if not call.depth)
    ours = theirs = 0
    for mine, real in (*pairs, (len(entries), len(graph.calls))):
        floor = graph.calls[theirs - 1].depth if theirs else -1
        if real < len(graph.calls):
            floor = min(floor, graph.calls[real].depth)
        below = theirs
        while below < real and graph.calls[below].depth > floor:
            below += 1
        for at in range(theirs, below):
            yield None, _real_alone(graph, at, whole)
        for entry in entries[ours:mine]:
            yield entry, _ours_alone(op, graph, entry)
        for at in range(below, real):
            yield None, _real_alone(graph, at, whole)
        if mine < len(entries):
            call = graph.calls[real]
            known = _model_call(entries[mine].function, op.before.profile)._replace(function=call.function)
            yield entries[mine], CallRow("both", _WORDS["both"], known, _recorded(graph, real, whole))
        ours, theirs = mine + 1, real + 1


def _model_call(function: str, profile: KernelProfile) -> ModelCall:
    source = source_of(function, profile)
    if source is None:
        return ModelCall(name_in(function, profile) or function, "", f"no function of {profile.title} by itself", "")
    file = source.file.rsplit("/", 1)[-1]
    return ModelCall(source.function, file, f"{source.file} in {source.version}", source.url)


def _recorded(graph: Graph, at: int, whole: float) -> Recorded:
    call = graph.calls[at]
    part = call.us / whole if whole else 0
    share = f"{round(100 * part)} %" if part >= 0.005 else "< 1 %"
    return Recorded(call.function, call.depth, share, f"{100 * part:.1f}%")


def _alone(entry: _Entry, profile: KernelProfile) -> CallRow:
    return CallRow("unseen", "", _model_call(entry.function, profile), None)


def _ours_alone(op: OpDetail, graph: Graph, entry: _Entry) -> CallRow:
    profile, function, kernel = op.before.profile, entry.function, graph.kernel
    model = _model_call(function, profile)
    if function in graph.functions:
        return _row("more", model, "more often here than in this recording")
    if _is_a_part(function, profile):
        return _row("part", model, f"on {kernel} a part of this function; later `{function}()`")
    if op.step.change in INLINED_IN.get(function, ()) or (
        function in INLINED[kernel] and function not in shown_by(graph.path)
    ):
        return _row("inlined", model, f"in the model, not shown by {kernel}")
    if FUNCTIONS.get(function, "").startswith(_KVMGT_FILES):
        return _row("unseen", model, "of KVMGT, for which a small module stood in")
    elsewhere = function in shown_by(graph.path)
    return _row("unseen", model, "not in this recording" if elsewhere else f"in no graph of {kernel}")


def _row(mark: Mark, model: ModelCall, note: str) -> CallRow:
    return CallRow(mark, _WORDS[mark], model, None, note)


def _is_a_part(function: str, profile: KernelProfile) -> bool:
    """Return whether a kernel had one function for this one and others."""
    name = name_in(function, profile)
    if name is None or name == function or newest_name(name) == function:
        return False
    return any(other != function and name_in(other, profile) == name for other in FUNCTIONS)


def _real_alone(graph: Graph, at: int, whole: float) -> CallRow:
    call = graph.calls[at]
    if call.newest in entered_functions():
        direct = call.newest == "__kvm_mmu_prepare_zap_page" and machine_of(graph.path).tdp
        note = "of a direct shadow page: the model has its entries alone (mmu.py)" if direct else "once more than here"
        return CallRow("again", _WORDS["again"], None, _recorded(graph, at, whole), note)
    said = why_left_out(call.function)
    match said.how if said is not None else None:
        case "part":
            assert said is not None
            note = f"part of `{said.words}()` ({said.file})"
        case "not modelled":
            assert said is not None
            note = f"not modelled: {said.words} ({said.file})"
        case "module":
            note = "of the module that stood in for KVMGT"
        case _:
            note = "the model has no such part"
    return CallRow("left out", _WORDS["left out"], None, _recorded(graph, at, whole), note)


# -- steps and folds -------------------------------------------------------------------------------


def _by_steps(
    op: OpDetail, now: int, lines: Iterable[tuple[_Entry | None, CallRow]], set_aside: Counter[int]
) -> Iterator[CallRow]:
    """Name the step at its first line; steps without a call and repetitions without a line get one of words."""
    several = len(op.cells) > 1
    cell = -1

    def begin(until: int) -> Iterator[CallRow]:
        nonlocal cell
        if cell >= 0 and set_aside[cell]:
            again = f"and {count_text(set_aside[cell])} calls of these again"
            yield CallRow("more", "", None, None, again, now=cell == now)
        for at in range(cell + 1, until):
            silent = "enters no function of its own"
            yield CallRow("unseen", "", None, None, silent, step_word(op, at), now=at == now)
        cell = until

    for entry, row in lines:
        first = entry is not None and entry.cell > cell
        if entry is not None and first:
            yield from begin(entry.cell)
        at = max(cell, 0)
        yield row._replace(step=step_word(op, at) if several and first else "", now=several and at == now)
    yield from begin(len(op.cells))


def _folded(rows: Iterator[CallRow]) -> Iterator[CallRow | CallRun]:
    """Put many lines of one side in a row behind one, unless a step begins among them."""
    for _, group in groupby(_numbered(rows), key=lambda item: item[0]):
        run = [row for _, row in group]
        if run[0].mark in ("left out", "again", "more") and len(run) >= _FOLDED:
            mark, first = run[0].mark, run[0].recorded
            depth = first.depth if first is not None else 0
            yield CallRun(mark, _WORDS[mark], _fold_title(run), depth, _fold_note(run), tuple(run), run[0].now)
        else:
            yield from run


def _numbered(rows: Iterator[CallRow]) -> Iterator[tuple[int, CallRow]]:
    """Give the lines numbers: those of one number, a run of either side within a step, can stand behind one."""
    number, last = 0, ""
    for row in rows:
        side = "real" if row.mark in ("left out", "again") else "more" if row.mark == "more" else ""
        if last == "more" and row.mark in ("inlined", "part"):
            side = "more"  # called by what is called once more
        if not side or side != last or row.step:
            number += 1
        last = side
        yield number, row


def _fold_title(rows: list[CallRow]) -> str:
    if rows[0].mark == "more":
        return f"{plural(len(rows), 'call')} again, more often than recorded"
    names = list(dict.fromkeys(row.recorded.function for row in rows if row.recorded is not None))
    return f"{plural(len(rows), 'call')}, from `{names[0]}`"


def _fold_note(rows: list[CallRow]) -> str:
    """Count what is said of functions that the model leaves out, by its first words."""
    said = Counter(_SUMS.get(row.note.partition(" ")[0], "") for row in rows if row.mark != "more")
    return ", ".join(f"{count_text(n)} {words}" for words, n in said.items() if words)


def _claim(graph: Graph, marks: list[Mark], set_aside: int) -> str:
    number = Counter(marks)
    both, inlined, part = number["both"], number["inlined"], number["part"]
    lone = number["more"] + number["unseen"] + set_aside
    found = both + inlined + part
    total = found + lone
    of_them = f"{count_text(found)} of the model’s {count_text(total)} calls"
    if not lone:
        of_them = f"All {count_text(total)} calls of the model" if total > 1 else "The one call of the model"
    order = f"in this order in what {graph.kernel} recorded"
    beside = [f"{inlined} inlined there"] * bool(inlined) + [f"{part} a part of others there"] * bool(part)
    parts = ", ".join([f"{both} {order}" if beside else order, *beside])
    left = number["left out"] + number["again"]
    return f"{of_them}: {parts}; {f'{count_text(left)} more that the model leaves out' if left else 'no others'}"
