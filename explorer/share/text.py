"""The formats a run can be exported in, and what all of them share.

Rule: titles and notes come from outside. They go into comments and letters as one line of plain ASCII, in which no
comment, string or line can end.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, NamedTuple, Protocol

from explorer.engine.events import DirtyLogRead
from explorer.engine.types import PAGE_SHIFT, PAGE_SIZE, ExplorerError
from explorer.engine.uapi import KVM_MEM_MAX_NR_PAGES
from explorer.explain.words import plural

if TYPE_CHECKING:
    from collections.abc import Iterator

    from explorer.engine.types import Errno
    from explorer.history import Run, Stop
    from explorer.live import BareOp

__all__ = [
    "FORMATS",
    "Format",
    "Told",
    "dirty_of",
    "errno_name",
    "export",
    "header",
    "largest_slot",
    "plain",
    "why_other",
]

_MOST_STEPS = 20_000
_LONGEST_NOTE = 400
_TYPOGRAPHY = str.maketrans({"\u2018": "'", "\u2019": "'", "\u201c": '"', "\u201d": '"', "\u2013": "-", "\u2014": "-"})


class Told(NamedTuple):
    """A run with what people say about it."""

    run: Run
    title: str = ""
    notes: tuple[str, ...] = ()
    """A sentence for each operation, as far as there are any."""
    remarks: tuple[tuple[Stop, str], ...] = ()
    """What a reader wrote at stops of the run, in order."""

    def note(self, index: int) -> str:
        """Return the note on an operation as plain text, or an empty one."""
        return plain(self.notes[index]) if 0 <= index < len(self.notes) else ""

    def remarks_on(self, index: int) -> Iterator[str]:
        """Iterate over the remarks on an operation, -1 for the start, as plain text with the place in front."""
        for stop, text in self.remarks:
            if stop.op == index:
                place = f"{index + 1}.{stop.cell + 1}" if index >= 0 else "the start"
                yield f"Note at {place}: {plain(text)}"


class Writer(Protocol):
    """What a module of a format has."""

    def write(self, told: Told) -> Iterator[str]:
        """Iterate over the lines."""


class Format(NamedTuple):
    """One format."""

    name: str
    title: str
    suffix: str
    """Of a file's name."""
    module: str
    whole: bool = True
    """Whether a run of any length can be written."""


FORMATS = {
    row.name: row
    for row in (
        Format("strace", "strace-like log", ".log", "strace"),
        Format("python", "Python script", ".py", "script", whole=False),
        Format("markdown", "Markdown for a mail", ".md", "mail", whole=False),
        Format("selftest", "KVM selftest skeleton", ".selftest.c", "selftest", whole=False),
        Format("c", "C reproducer", ".c", "reproducer", whole=False),
    )
}
"""Every format by name."""


def export(told: Told, name: str) -> str:
    """Return a run as a text of one format.

    Raises
    ------
    ExplorerError
        If there is no such format, the run is too long for it, or it does not begin with a new VM.
    """
    found = FORMATS.get(name)
    if found is None:
        raise ExplorerError(f"there is no format {name!r}; there are {', '.join(FORMATS)}")
    if not found.whole and len(told.run) > _MOST_STEPS:
        raise ExplorerError(
            f"{plural(len(told.run), 'operation')} are too many for a {found.title}, which takes {_MOST_STEPS:,};"
            " export fewer, or all of them as strace"
        )
    writer: Writer = import_module(f"explorer.share.{found.module}")
    return "\n".join(writer.write(told)) + "\n"


def plain(text: str) -> str:
    """Return a text from outside as one line of ASCII that ends no comment and begins none."""
    line = " ".join(text.split()).translate(_TYPOGRAPHY).encode("ascii", "replace").decode()
    line = "".join(char if char.isprintable() else "?" for char in line)
    for pair in ("*/", "/*", "??"):
        while pair in line:
            line = line.replace(pair, f"{pair[0]} {pair[1]}")
    return (line if len(line) <= _LONGEST_NOTE else line[:_LONGEST_NOTE] + " ...").rstrip("\\")


def header(told: Told) -> tuple[str, ...]:
    """Return what is known of a run, a line each: title, profile, machine."""
    kvm = told.run.start
    config, profile = kvm.config, kvm.profile
    paging = "shadow paging" if not config.tdp else "TDP MMU" if config.tdp_mmu_enabled else "TDP, older MMU"
    tracking = "built in" if config.external_write_tracking else "not built in"
    return (
        plain(told.title) or "A run of memory slot operations",
        f"Model: profile {profile.name} (Linux {profile.title}), {paging}, {config.processor},",
        f"{plural(len(kvm.memslots), 'address space')}, external write tracking {tracking}.",
    )


def largest_slot(ops: tuple[BareOp, ...]) -> int:
    """Return the bytes of the largest slot that any kernel could make of the calls: bitmaps are as long as that."""
    sizes = (op.call.memory[1] for op in ops if op.call is not None)
    return max(
        (size for size in sizes if size % PAGE_SIZE == 0 and size >> PAGE_SHIFT <= KVM_MEM_MAX_NR_PAGES), default=0
    )


def dirty_of(run: Run, index: int) -> tuple[tuple[int, int], ...] | None:
    """Return the runs of pages that an operation reported dirty, half-open, or None if it read no log."""
    events = run.detail(index).step.events
    return next((event.runs for event in events if isinstance(event, DirtyLogRead)), None)


def errno_name(errno: Errno | None) -> str:
    """Return an errno's name, ``0`` for none."""
    return "0" if errno is None else errno.name


def why_other(op: BareOp) -> str:
    """Return that the whole run says something else than the bare one, or an empty text."""
    if op.at < 0 or op.call is None or op.in_run is op.errno:
        return ""
    return f"in the whole run, with what is left out here: {errno_name(op.in_run)}"
