"""What each line of a log became: an operation, a help to understand others, or nothing, and why.

Rule: a row for every line that is not empty, so that nothing is lost in silence; a table of them is bounded, its
counts are not.

Read next: `divergence`.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Literal, NamedTuple

from explorer.trace.records import Context, Gap, MmuEvent, RegionCall

if TYPE_CHECKING:
    from collections.abc import Iterator

    from explorer.trace.lift import Row
    from explorer.trace.records import Record
    from explorer.trace.replay import Replay

__all__ = ["BECAME", "Became", "Preview", "PreviewRow", "PreviewTable", "preview_of", "preview_rows"]

Became = Literal["operation", "doubtful", "used", "skipped"]
BECAME: tuple[Became, ...] = ("operation", "doubtful", "used", "skipped")

_FIRST = 40
_OF_EACH = 40


class PreviewRow(NamedTuple):
    """One record of a log, or in a table a run of lines that were skipped for one reason."""

    line: int
    """The one that shows the arguments, from 1."""
    lines: int
    """How many; a call in two halves has two, which need not follow each other."""
    became: Became
    operation: int | None
    """Number of the operation, from 0, or None."""
    why: str
    """What it is, what it was used for, why it was skipped or why it is doubtful."""


class Preview(NamedTuple):
    """A bounded table of rows, and the counts of all of them."""

    rows: tuple[PreviewRow, ...]
    """In the order of the log: the first ones, and the first of each kind."""
    lines: dict[Became, int]
    """Lines by what they became."""
    hidden: int
    """Rows that the table leaves out."""


def preview_rows(replay: Replay) -> Iterator[PreviewRow]:
    """Replay a log and iterate over what its lines became; the summary is complete after the last row."""
    operations = 0
    for record, row in replay.entries():
        if row is not None:
            operations += 1
        yield preview_row(record, row, operations)


def preview_row(record: Record, row: Row | None, operations: int) -> PreviewRow:
    """Return what a record became; `operations` is how many there are up to here."""
    if row is not None:
        lines = record.lines if isinstance(record, RegionCall) else 1
        doubt = _doubt(row)
        return PreviewRow(record.line, lines, "doubtful" if doubt else "operation", row.number, doubt or _what(row))
    if isinstance(record, MmuEvent):
        at = operations if record.during else operations - 1
        when = f"{'during' if record.during else 'after'} operation {at}" if at >= 0 else "before the first operation"
        return PreviewRow(record.line, 1, "used", None, f"{record.kind} event {when}: {record.name}")
    if isinstance(record, Context):
        return PreviewRow(record.line, record.lines, "used", None, f"tells VMs apart: {record.what}")
    return PreviewRow(record.line, 1, "skipped", None, record.reason if isinstance(record, Gap) else "")


def _what(row: Row) -> str:
    return _asked(row) + ("" if row.errno is None else f", refused with {row.errno}")


def _asked(row: Row) -> str:
    if row.op != "set_region":
        return row.op
    vm = f"VM {row.vm}, " if row.vm else ""
    space = f"{row.as_id}:" if row.as_id else ""
    return f"{vm}{row.kind or 'a call'} slot {space}{row.slot}"


def _doubt(row: Row) -> str | None:
    """Return why an operation is doubtful, or None."""
    if row.agrees is False:
        recorded = "success" if row.recorded_ret == 0 else row.recorded_errno
        found = "success" if row.errno is None else f"{row.errno} ({row.guard})"
        return f"{_asked(row)}: the log says {recorded}, the model {found}" + (f"; {row.note}" if row.note else "")
    if row.note is not None:
        return f"{_asked(row)}: {row.note}"
    return f"{_asked(row)}: the log shows no result" if row.recorded_ret is None else None


class PreviewTable:
    """Takes rows one by one and keeps a bounded choice of them."""

    def __init__(self) -> None:
        """Start empty."""
        self._rows: list[PreviewRow] = []
        self._lines: Counter[Became] = Counter()
        self._seen: Counter[Became] = Counter()
        self._count = 0
        self._run: PreviewRow | None = None
        """The last row, if its line was skipped: the next one may go on with it."""
        self._run_is_kept = False

    def add(self, record: Record, row: Row | None, operations: int) -> None:
        """Take a record; most are only counted."""
        if isinstance(record, Gap) and self._goes_on(record):
            return
        self._run = None
        self._count += 1
        plain = row is not None and row.agrees is True and row.note is None
        if plain and self._count > _FIRST and self._seen["operation"] >= _OF_EACH:  # the usual case, a million times
            self._lines["operation"] += record.lines if isinstance(record, RegionCall) else 1
            return
        made = preview_row(record, row, operations)
        self._lines[made.became] += made.lines
        self._seen[made.became] += 1
        kept = self._count <= _FIRST or self._seen[made.became] <= _OF_EACH
        if kept:
            self._rows.append(made)
        if made.became == "skipped":
            self._run, self._run_is_kept = made, kept

    def _goes_on(self, gap: Gap) -> bool:
        """Add a line to the run of lines before it that were skipped for the same reason; return whether it could."""
        run = self._run
        if run is None or run.why != gap.reason or run.line + run.lines != gap.line:
            return False
        self._run = run._replace(lines=run.lines + 1)
        self._lines["skipped"] += 1
        if self._run_is_kept:
            self._rows[-1] = self._run
        return True

    def preview(self) -> Preview:
        """Return the table as it is."""
        lines = {became: self._lines[became] for became in BECAME}
        return Preview(tuple(self._rows), lines, self._count - len(self._rows))


def preview_of(replay: Replay) -> Preview:
    """Replay a log and return the bounded table; the replay's summary is complete then."""
    table = PreviewTable()
    operations = 0
    for record, row in replay.entries():
        if row is not None:
            operations += 1
        table.add(record, row, operations)
    return table.preview()
