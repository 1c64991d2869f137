"""What the picture of slots over time says: counts of a run, an operation in a sentence, a life in a few lines."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from explorer.engine.commands import SetMemoryRegion
from explorer.engine.types import PAGE_SHIFT
from explorer.engine.uapi import KvmMrChange
from explorer.explain.sentences import op_words
from explorer.explain.words import errno_text, hex_text, pages_text, size_text
from explorer.history.lives import NOTHING
from explorer.selectors.style import flags_words

if TYPE_CHECKING:
    from explorer.history import Run
    from explorer.history.lives import Life
    from explorer.trace.tree import Backing

__all__ = [
    "Count",
    "Naming",
    "Recorded",
    "began_words",
    "counts_of",
    "ended_words",
    "is_recreated",
    "life_hover",
    "now_words",
    "refused_hover",
]

_MOST_LISTED = 6


class Count(NamedTuple):
    """How often something happens in a run."""

    word: str
    number: str
    note: str = ""
    loud: bool = False
    """Whether it is a refusal or a difference, and there is one."""


class Recorded(NamedTuple):
    """How the results of a log compare with the model's, as its import has counted them."""

    compared: int
    """Calls whose result the log shows."""
    differ: int
    vms: int
    """VMs of the log; the counts are of all of them."""
    kernel: str
    """Kernel it was replayed on."""


class Naming(NamedTuple):
    """Who owns a slot, if somebody said so."""

    by_slot: tuple[tuple[int, str], ...] = ()
    by_host_memory: tuple[Backing, ...] = ()

    def owner(self, life: Life) -> str:
        """Return the owner's name, or nothing."""
        if life.as_id == 0:
            for backing in self.by_host_memory:
                if backing.start <= life.userspace_addr < backing.end:
                    return backing.owner
        return dict(self.by_slot).get(life.slot, "") if life.as_id == 0 else ""


def counts_of(run: Run, log: Recorded | None) -> tuple[Count, ...]:
    """Return how often what happens in a run; zeros are kept, they answer questions, too."""
    lives = run.lives

    def count(change: KvmMrChange) -> int:
        return len(lives.of(change))

    moved, refused = count(KvmMrChange.MOVE), len(lives.refused)
    elsewhere = sum(1 for life in lives.lives if is_recreated(run, life))
    never = "this VMM never moves" if log is not None else "no slot is moved"
    return (
        Count("created", f"{count(KvmMrChange.CREATE):,}", f"{elsewhere:,} recreated elsewhere"),
        Count("deleted", f"{count(KvmMrChange.DELETE):,}"),
        Count("moved", f"{moved:,}", "" if moved else never),
        Count("flags", f"{count(KvmMrChange.FLAGS_ONLY):,}"),
        Count("no effect", f"{count(KvmMrChange.NOOP):,}"),
        Count("refused", f"{refused:,}", loud=bool(refused)),
        Count("live at the end", f"{len(lives.live):,}"),
        _results(log),
    )


def _results(log: Recorded | None) -> Count:
    if log is None:
        return Count("results that agree", "–", "nothing was recorded")
    of = "" if log.vms == 1 else f", {log.vms} VMs"
    return Count(
        "results that agree",
        f"{log.compared - log.differ:,} of {log.compared:,}",
        f"replayed as on {log.kernel}{of}",
        loud=bool(log.differ),
    )


def is_recreated(run: Run, life: Life) -> bool:
    """Return whether a slot was created with host memory that a deleted one had at another place."""
    return life.before != NOTHING and life.first >= 0 and run.outcomes[life.first].change is KvmMrChange.CREATE


def now_words(run: Run, op: int) -> str:
    """Return what an operation did, with its number in front."""
    if op < 0:
        return "Before the first operation."
    command, outcome = run.commands[op], run.outcomes[op]
    if not isinstance(command, SetMemoryRegion):
        title, detail = op_words(command)
        answer = f": {errno_text(outcome.errno)}" if outcome.errno is not None else ""
        return f"{op + 1:,}  {title} {detail}".rstrip() + answer
    size = size_text(command.memory_size)
    place = hex_text(command.guest_phys_addr)
    slot = f"slot {command.slot}" + (f" of address space {command.as_id}" if command.as_id else "")
    if outcome.errno is not None:
        asked = f"{size} at {place}" if command.memory_size else "DELETE"
        return f"{op + 1:,}  {slot} refused, {errno_text(outcome.errno)}: {asked}"
    said = {
        KvmMrChange.CREATE: f"created at {place}, {size}",
        KvmMrChange.DELETE: "deleted",
        KvmMrChange.MOVE: f"moved to {place}",
        KvmMrChange.FLAGS_ONLY: f"flags now {flags_words(command.flags)}",
        KvmMrChange.NOOP: "stays as it is",
        None: "",
    }[outcome.change]
    return f"{op + 1:,}  {slot} {said}".rstrip()


def refused_hover(run: Run, ops: tuple[int, ...]) -> str:
    """Return what a pointer over refused calls reads."""
    head = "refused" if len(ops) == 1 else f"{len(ops)} refused"
    lines = [now_words(run, op) for op in ops[:_MOST_LISTED]]
    more = [f"and {len(ops) - _MOST_LISTED} more"] if len(ops) > _MOST_LISTED else []
    return "<br>".join([f"<b>{head}</b>", *lines, *more])


def life_hover(run: Run, naming: Naming, number: int) -> str:
    """Return what a pointer over a bar reads, a fact a line."""
    life, end = run.lives.lives[number], run.lives.ends[number]
    owner = naming.owner(life).replace("<", "<\N{WORD JOINER}")
    lines = [
        f"<b>slot {life.slot}</b>" + (f" {owner}" if owner else ""),
        f"gpa {hex_text(life.base_gfn << PAGE_SHIFT)} to {hex_text((life.end_gfn << PAGE_SHIFT) - 1)}",
        f"{size_text(life.npages << PAGE_SHIFT)}, {pages_text(life.npages)}",
        f"hva {hex_text(life.userspace_addr)}",
        f"flags {flags_words(life.flags)}",
        f"{began_words(run, life)}, {ended_words(run, end)}",
    ]
    if is_recreated(run, life):
        old = run.lives.lives[life.before]
        until = run.lives.ends[life.before] + 1
        lines.append(f"its host memory was at {hex_text(old.base_gfn << PAGE_SHIFT)} until {until:,}")
    return "<br>".join(lines)


def began_words(run: Run, life: Life) -> str:
    """Return what made a slot as it is."""
    if life.first < 0:
        return "there from the start"
    words = {KvmMrChange.MOVE: "moved here by", KvmMrChange.FLAGS_ONLY: "these flags from"}
    change = run.outcomes[life.first].change
    word = words.get(change, "created by") if change is not None else "made by"
    return f"{word} operation {life.first + 1:,}"


def ended_words(run: Run, end: int) -> str:
    """Return what took it away."""
    if end >= len(run):
        return "lives at the end"
    words = {KvmMrChange.MOVE: "moved away by", KvmMrChange.FLAGS_ONLY: "other flags from"}
    change = run.outcomes[end].change
    word = words.get(change, "deleted by") if change is not None else "changed by"
    return f"{word} {end + 1:,}"
