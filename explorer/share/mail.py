"""A run as Markdown that can be pasted into a reply on a mailing list: 72 columns, readable as it stands.

Every outcome is the engine's; for a refusal it names the check, the function it stands in, and the operands.
"""

from __future__ import annotations

import ast
import re
import textwrap
from importlib import resources
from typing import TYPE_CHECKING

from explorer.engine.commands import (
    Advance,
    AttachTracker,
    Begin,
    ClearDirtyLog,
    CreateGuestMemfd,
    CreateIrqchip,
    CreateVcpu,
    DetachTracker,
    GetDirtyLog,
    GuestRead,
    GuestWrite,
    SetMemoryRegion,
    SetMemoryRegion2,
    SetTssAddr,
    ShadowTables,
    TrackGfn,
    UntrackGfn,
    format_command,
)
from explorer.explain.words import plural
from explorer.share.text import dirty_of, errno_name, header

if TYPE_CHECKING:
    from collections.abc import Iterator

    from explorer.engine.commands import Command
    from explorer.history import Run
    from explorer.share.text import Told

__all__ = ["write"]

_WIDTH = 72
_MOST_RUNS = 6
_MODULES: tuple[tuple[tuple[type[Command], ...], tuple[str, ...]], ...] = (
    ((SetMemoryRegion, Begin, Advance), ("guards", "memslots", "metadata")),
    ((SetMemoryRegion2, CreateGuestMemfd), ("guest_memfd",)),
    ((GetDirtyLog, ClearDirtyLog), ("dirty_log",)),
    ((AttachTracker, DetachTracker, TrackGfn, UntrackGfn), ("page_track", "trackers")),
    ((GuestWrite, GuestRead), ("guest", "fault")),
    ((ShadowTables,), ("shadow",)),
    ((SetTssAddr, CreateVcpu, CreateIrqchip), ("vcpu",)),
)
"""Which modules of the engine a command goes through, for what they leave out."""
_SPECIAL = re.compile(r"([`*<>\[\]]|(?<!\w)_|_(?!\w))")


def write(told: Told) -> Iterator[str]:
    """Iterate over the lines."""
    title, *machine = header(told)
    yield from _wrapped(_escaped(title), "## ", "## ")
    yield ""
    yield from _wrapped(_escaped(" ".join(machine)))
    yield ""
    yield from _remarks(told, -1)
    for index, command in enumerate(told.run.commands):
        number = f"{index + 1}. "
        margin = " " * len(number)
        yield from _wrapped(_escaped(told.note(index)) or _kind(told.run, index), number, margin)
        yield ""
        code = margin + "    "
        yield from _wrapped(format_command(command), code, code + "  ")
        yield from _wrapped(f"= {_outcome(told.run, index)}", code, code + "  ")
        yield ""
        yield from _remarks(told, index, margin)
    yield from _wrapped("Not modelled, so it says nothing about:")
    yield ""
    for module, text in _left_out(told.run):
        yield from _wrapped(_escaped(f"{module}: {text}"), "- ", "  ")


def _remarks(told: Told, index: int, margin: str = "") -> Iterator[str]:
    for remark in told.remarks_on(index):
        yield from _wrapped(_escaped(remark), margin, margin)
        yield ""


def _wrapped(text: str, first: str = "", rest: str = "") -> list[str]:
    """Return a text in lines of at most 72 columns; a word that is longer is cut."""
    return textwrap.wrap(text, _WIDTH, initial_indent=first, subsequent_indent=rest, break_on_hyphens=False) or [
        first.rstrip()
    ]


def _escaped(text: str) -> str:
    """Return a text that Markdown takes as it stands."""
    return _SPECIAL.sub(r"\\\1", text)


def _kind(run: Run, index: int) -> str:
    change = run.outcomes[index].change
    words = {
        "CREATE": "A slot is created.",
        "DELETE": "A slot is deleted.",
        "MOVE": "A slot is moved.",
        "FLAGS_ONLY": "The flags of a slot change.",
        "NOOP": "Nothing changes.",
    }
    if run.outcomes[index].errno is not None:
        return "A call that is refused:"
    return words.get(change.value, "") if change is not None else "Then:"


def _outcome(run: Run, index: int) -> str:
    """Return the result, and for a refusal the check that fired with what it compared."""
    outcome = run.outcomes[index]
    if outcome.errno is None:
        dirty = dirty_of(run, index) if isinstance(run.commands[index], GetDirtyLog) else None
        if dirty is not None:
            pages = ", ".join(str(a) if b == a + 1 else f"{a}-{b - 1}" for a, b in dirty[:_MOST_RUNS])
            more = " and more" if len(dirty) > _MOST_RUNS else ""
            count = plural(sum(b - a for a, b in dirty), "dirty page")
            return f"0, {count}{f': {pages}{more}' if dirty else ''}"
        return f"0 ({outcome.change.value})" if outcome.change is not None else "0"
    text = f"-{errno_name(outcome.errno)}"
    fired = next((result for result in run.detail(index).step.results if not result.passed), None)
    if fired is None:
        return text
    return f"{text}: {fired.guard.function}(), {fired.guard.name}: {fired.operands}".encode(
        "ascii", "backslashreplace"
    ).decode()


def _left_out(run: Run) -> Iterator[tuple[str, str]]:
    """Iterate over what the engine's modules that the run went through say they leave out."""
    kinds = {type(command) for command in run.commands}
    names = [name for classes, modules in _MODULES if kinds & set(classes) for name in modules]
    for name in dict.fromkeys(names):
        source = resources.files("explorer.engine").joinpath(f"{name}.py").read_text(encoding="utf-8")
        text = ast.get_docstring(ast.parse(source)) or ""  # of the file: a compiled module has none
        found = re.search(r"Not modelled: (.*?)(?=\s*Read next|\Z)", text, re.DOTALL)
        if found is not None:
            yield name, " ".join(found[1].split()).replace("``", "")
