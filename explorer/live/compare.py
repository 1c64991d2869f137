"""A run on the machine's KVM, each answer beside the model's.

Read next: `host`.
"""

from __future__ import annotations

from collections import Counter
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from explorer.live.bare import BareOp, bare

if TYPE_CHECKING:
    from collections.abc import Generator

    from explorer.history import Run
    from explorer.live.device import Device

__all__ = ["LiveReport", "LiveRow", "perform", "perform_all"]


class LiveRow(NamedTuple):
    """One operation: what the model says and what the kernel did."""

    op: BareOp
    errno: str | None
    """Name of the errno that the kernel returned; None for success, and for what was left out."""
    dirty: tuple[tuple[int, int], ...] | None
    agrees: bool | None
    """None if it was left out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveReport:
    """What came of a run."""

    rows: tuple[LiveRow, ...]

    @property
    def compared(self) -> int:
        """How many operations were performed and compared."""
        return sum(row.agrees is not None for row in self.rows)

    @property
    def disagreements(self) -> tuple[LiveRow, ...]:
        """The operations whose answer is not the model's, in order."""
        return tuple(row for row in self.rows if row.agrees is False)

    @property
    def left_out(self) -> dict[str, int]:
        """How many operations were left out, by reason, the most frequent first."""
        return dict(Counter(row.op.left_out for row in self.rows if row.agrees is None).most_common())


def perform(run: Run, device: Device) -> Generator[LiveRow, None, None]:
    """Iterate over the operations of a run while they are performed on a new VM.

    Parameters
    ----------
    run
        Its kernel and machine should be the ones of the device, as `look_at_host` gives them.

    Raises
    ------
    DeviceError
        If the device fails in the middle.
    ExplorerError
        If the run does not begin with a new VM.
    """
    ops = bare(run, device.limits)
    calls = [op.call for op in ops if op.call is not None]
    with closing(device.perform(calls, vm_type=run.start.config.vm_type)) as answers:
        for op in ops:
            if op.call is None:
                yield LiveRow(op, None, None, None)
                continue
            answer = next(answers)
            expected = None if op.errno is None else op.errno.name
            yield LiveRow(op, answer.errno, answer.dirty, (answer.errno, answer.dirty) == (expected, op.dirty))
        next(answers, None)


def perform_all(run: Run, device: Device) -> LiveReport:
    """Perform a run to its end and return the report."""
    return LiveReport(rows=tuple(perform(run, device)))
