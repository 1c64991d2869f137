"""A log for a page: the commands of its busiest VM, what they do, and what was left out.

Everything here is plain data. Text from the log is handed on as it is; whoever shows it escapes it.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from explorer.trace.divergence import compare_profiles
from explorer.trace.preview import PreviewTable
from explorer.trace.replay import Replay
from explorer.trace.source import bytes_source

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from explorer.engine.apply import Step
    from explorer.engine.commands import Command
    from explorer.engine.config import VmConfig
    from explorer.engine.profile import KernelProfile
    from explorer.engine.state import Kvm
    from explorer.trace.divergence import Divergence
    from explorer.trace.lift import Row
    from explorer.trace.preview import Preview
    from explorer.trace.records import Gap
    from explorer.trace.source import Source

__all__ = ["ImportedLog", "import_log"]

_TOOLS = {
    "qemu": "QEMU trace",
    "strace": "strace log",
    "ftrace": "ftrace log",
    "perf": "perf log",
    "json": "list of calls",
}
_MOST_COMPARED = 5000
_FURTHER = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportedLog:
    """One log, ready to become a run."""

    name: str
    format: str
    """``qemu``, ``strace``, ``ftrace``, ``perf`` or ``json``."""
    profile: KernelProfile
    config: VmConfig
    """The machine as far as the log shows it."""
    vm: int | None
    """The VM with the most operations; None if the log has no operation."""
    vms: int
    commands: tuple[Command, ...]
    """All calls on that VM in order, with those that the log does not show but that must have been made."""
    lines: tuple[int, ...]
    """Line of the log of each command; a supplied one has the line of the call that proves it."""
    created: int
    """This and the next counts are accepted calls on that VM, by kind."""
    deleted: int
    moved: int
    flags_only: int
    no_op: int
    refused: int
    """Calls on that VM that the engine refuses."""
    operations: int
    """Of all VMs."""
    used: int
    """Lines of the log that were used."""
    gaps: tuple[Gap, ...]
    """Lines that were not used, with reason and text."""
    compared: int
    """Calls whose result the log shows, of all VMs."""
    disagreements: int
    """Of all VMs."""
    first_disagreement: Row | None
    divergence: Divergence | None
    """Where results differ: how each kernel does up to a while after the first one that does."""
    preview: Preview
    """What the lines became."""
    assumptions: tuple[str, ...]
    stopped: str | None

    def summary_sentence(self) -> str:
        """Return in one sentence what was read, what it does and whether the kernel agrees."""
        if self.vm is None:
            return f"{self.name}: no memory slot call in this {_TOOLS[self.format]}; {self._unused()}."
        kinds = (
            (self.created, "created"),
            (self.deleted, "deleted"),
            (self.moved, "moved"),
            (self.flags_only, "flags only"),
            (self.no_op, "without effect"),
            (self.refused, "refused"),
        )
        return (
            f"{self.name}: {_TOOLS[self.format]} with {self.operations} memory slot call"
            f"{'' if self.operations == 1 else 's'} on {self.vms} VM"
            f"{'' if self.vms == 1 else 's'}; VM {self.vm}: {', '.join(f'{n} {word}' for n, word in kinds if n)}."
            f" {self._unused()}."
            f" {self._agreement()}."
        )

    def _agreement(self) -> str:
        n = self.disagreements
        return f"{n} result{' differs' if n == 1 else 's differ'}" if n else "Every recorded result agrees"

    def _unused(self) -> str:
        return f"{len(self.gaps)} line{'' if len(self.gaps) == 1 else 's'} not used"


def import_log(
    source: bytes | Iterable[bytes],
    *,
    name: str,
    limit_bytes: int,
    profile: KernelProfile | None = None,
    watch: Callable[[int, Command, Kvm, Step | None], None] | None = None,
) -> ImportedLog:
    """Read a log for a page.

    Parameters
    ----------
    source
        The log, plain or gzipped, at once or in parts.
    name
        What to call it in messages, such as the name of the uploaded file.
    limit_bytes
        Most bytes to read, packed and unpacked.
    profile
        Kernel to replay on, instead of the default one.
    watch
        Called with each command as it is run: the VM it is for, the command, the VM's state before it, and what
        the engine made of it; None instead of that for a call that the log does not show.

    Raises
    ------
    TraceError
        If it is no log that can be read, or larger than the limit.
    """
    kept = bytes_source(name, source, limit_bytes=limit_bytes)
    replay = Replay(kept, profile)
    table = PreviewTable()
    count = 0
    gaps: list[Gap] = []
    replay.gaps = gaps
    commands: dict[int, list[tuple[int, Command]]] = {}
    kinds: dict[int, Counter[str | None]] = {}
    machines = replay.lift.machines
    for record, row in replay.entries():
        if row is None:
            table.add(record, None, count)
            continue
        count += 1
        table.add(record, row, count)
        own, machine = commands.setdefault(row.vm, []), machines[row.vm]
        own.extend((row.line, command) for command in machine.supplied)
        command = machine.command
        assert command is not None, "a row is of a call that was run"
        own.append((row.line, command))
        if watch is not None:
            for supplied in machine.supplied:
                watch(row.vm, supplied, machine.before, None)
            watch(row.vm, command, machine.before, machine.step)
        kinds.setdefault(row.vm, Counter())["REFUSED" if row.errno is not None else row.kind] += 1
    vm = max(machines, key=lambda index: machines[index].operations, default=None)
    pairs = commands.get(vm, []) if vm is not None else []
    counts = kinds.get(vm, Counter()) if vm is not None else Counter()
    summary = replay.summary()
    return ImportedLog(
        name=name,
        format=replay.format,
        profile=replay.profile,
        config=replay.config,
        vm=vm,
        vms=summary.vms,
        commands=tuple(command for _, command in pairs),
        lines=tuple(line for line, _ in pairs),
        created=counts["CREATE"],
        deleted=counts["DELETE"],
        moved=counts["MOVE"],
        flags_only=counts["FLAGS_ONLY"],
        no_op=counts["NOOP"],
        refused=counts["REFUSED"],
        operations=summary.operations,
        used=summary.used,
        gaps=tuple(gaps),
        compared=replay.compared,
        disagreements=summary.disagreements,
        first_disagreement=summary.first_disagreements[0] if summary.first_disagreements else None,
        divergence=_divergence(kept, summary.first_disagreements),
        preview=table.preview(),
        assumptions=summary.assumptions,
        stopped=summary.stopped,
    )


def _divergence(source: Source, differ: tuple[Row, ...]) -> Divergence | None:
    if not differ:
        return None
    return compare_profiles(source, limit=min(differ[0].number + _FURTHER, _MOST_COMPARED))
