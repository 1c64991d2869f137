"""``explorer live [RUN]``: the machine's own KVM beside the model."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

from explorer.cli.runs import RUN_HELP, find_run
from explorer.engine.commands import format_command
from explorer.engine.profile import PROFILES, get_profile
from explorer.explain.words import plural
from explorer.live import Device, Limits, LiveReport, look_at_host, perform

if TYPE_CHECKING:
    from collections.abc import Iterator

    from explorer.cli.runs import NamedRun
    from explorer.live import HostKernel, LiveRow

__all__ = ["add_parser", "run"]

_ALL = set(PROFILES)
_SECONDS = 120.0
"""A log of a hundred thousand calls takes a slow machine half of it."""
_EPILOG = """\
A VM of its own is made and goes with the process. No guest runs, and memory behind slots is reserved, never touched.
What a bare VM cannot be asked (page trackers, guest accesses) is left out on both sides, counted and named.

exit status: 0 no answer differs from the model, 1 one does (without RUN: the suggested profile leaves one
observation unexplained), 2 no device that may be opened, or not a run

examples:
  explorer live                        which kernel this is, and which profile fits it
  explorer live watches-lost           a story of the library on this kernel
  explorer live qemu-trace.log --json  one object for each operation of a log, the summary last
"""


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the sub-command."""
    parser = commands.add_parser(
        "live",
        help="perform a run on this machine's /dev/kvm and compare",
        description="Perform a run on this machine's /dev/kvm, step by step, and compare each answer with the model's."
        " Without a run: report on the kernel, and suggest a profile for it.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("source", metavar="RUN", nargs="?", help=RUN_HELP)
    parser.add_argument("--profile", metavar="P", help="kernel profile to compare with, instead of the suggested one")
    parser.add_argument("--device", metavar="PATH", type=Path, default=Path("/dev/kvm"), help="default: %(default)s")
    parser.add_argument("--json", action="store_true", help="JSON on standard output")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Report, or perform and compare; return 0 if nothing differs, else 1."""
    profile = get_profile(args.profile) if args.profile else None
    named = find_run(args.source) if args.source else None
    with Device(Limits(seconds=_SECONDS), args.device) as device:
        host = look_at_host(device)
        if named is None:
            print(json.dumps(_host_as_json(host)) if args.json else "\n".join(_host_as_text(host)))
            return 1 if host.unexplained else 0
        here = host.here(named.run, profile)
        if not args.json:
            print(_heading(named, host, here.start.profile.name))
        rows = []
        for row in perform(here, device):
            rows.append(row)
            print(json.dumps(_row_as_json(row)) if args.json else _row_as_text(row))
    report = LiveReport(rows=tuple(rows))
    summary = _summary(report, host, here.start.profile.name)
    print(json.dumps({"summary": summary}) if args.json else "\n".join(_summary_as_text(report)))
    return 1 if report.disagreements else 0


# -- a run -----------------------------------------------------------------------------------------


def _heading(named: NamedRun, host: HostKernel, profile: str) -> str:
    told = named.run.start.profile.name
    own = f"; the run itself is of {told}" if told != profile else ""
    return f"{named.title}: on Linux {host.release}, beside profile {profile}{own}"


def _row_as_json(row: LiveRow) -> dict[str, object]:
    return {
        "index": row.op.at,
        "op": format_command(row.op.command),
        "ioctl": None if row.op.call is None else row.op.call.name,
        "agrees": row.agrees,
        "errno": row.errno,
        "model_errno": None if row.op.errno is None else row.op.errno.name,
        "dirty": row.dirty,
        "model_dirty": row.op.dirty,
        "change": row.op.change,
        "guard": row.op.refused_by,
        "left_out": row.op.left_out or None,
    }


def _row_as_text(row: LiveRow) -> str:
    number = "-" if row.op.at < 0 else str(row.op.at + 1)
    command = format_command(row.op.command)
    if row.agrees is None:
        return f"{number:>6}  not compared  {command}  ({row.op.left_out})"
    here = _answer(row.errno, row.dirty)
    if row.agrees:
        guard = f" ({row.op.refused_by})" if row.op.refused_by else ""
        return f"{number:>6}  agrees        {command}  = {here}{guard}"
    model = _answer(row.op.errno.name if row.op.errno else None, row.op.dirty)
    return f"{number:>6}  DIFFERS       {command}  = {here}, the model says {model}"


def _answer(errno: str | None, dirty: tuple[tuple[int, int], ...] | None) -> str:
    if errno is not None:
        return errno
    return "0" if dirty is None else f"0, {plural(sum(end - start for start, end in dirty), 'dirty page')}"


def _summary(report: LiveReport, host: HostKernel, profile: str) -> dict[str, object]:
    return {
        "release": host.release,
        "profile": profile,
        "suggested_profile": host.profile.name,
        "operations": len(report.rows),
        "compared": report.compared,
        "disagreements": len(report.disagreements),
        "left_out": report.left_out,
    }


def _summary_as_text(report: LiveReport) -> Iterator[str]:
    yield f"\n{plural(report.compared, 'operation')} compared, {plural(len(report.disagreements), 'disagreement')}"
    for reason, count in report.left_out.items():
        yield f"{count} not compared: {reason}"


# -- the kernel ------------------------------------------------------------------------------------


def _host_as_json(host: HostKernel) -> dict[str, object]:
    return {
        "release": host.release,
        "profile": host.profile.name,
        "why": host.why,
        "config": {name: getattr(host.config, name) for name in host.config.__dataclass_fields__},
        "capabilities": {"vm": host.answers.vm, "device": host.answers.device},
        "facts": [{"name": fact.name, "value": fact.value, "source": fact.source} for fact in host.facts],
        "evidence": [
            {"what": row.what, "seen": row.seen, "fits": row.fits, "explained": host.profile.name in row.fits}
            for row in host.evidence
        ],
        "unknown": host.unknown,
    }


def _host_as_text(host: HostKernel) -> Iterator[str]:
    yield f"kernel   Linux {host.release}"
    yield f"profile  {host.why}"
    yield f"machine  {_machine(host)}"
    yield "\nobserved, and the profiles that answer so on this machine"
    wide = max(len(row.what) for row in host.evidence)
    for row in host.evidence:
        here = "" if host.profile.name in row.fits else "  <== the profile does not"
        yield f"  {row.what:<{wide}}  {row.seen:<15}  {_fits(row.fits)}{here}"
    yield "\nread from files"
    for fact in host.facts:
        yield f"  {fact.name:<27}  {fact.value or 'unknown':<8}  {fact.source}"
    yield "\nopen"
    yield from (f"  {sentence}" for sentence in host.unknown)


def _fits(names: tuple[str, ...]) -> str:
    if not names:
        return "none"
    return "all" if set(names) >= _ALL else ", ".join(names)


def _machine(host: HostKernel) -> str:
    config = host.config
    paging = "shadow paging" if not config.tdp else "TDP, TDP MMU" if config.tdp_mmu else "TDP, older MMU"
    spaces = plural(config.nr_memslot_as_ids(host.profile), "address space")
    return f"{config.processor}, {paging}, {spaces}, {config.host_phys_bits} physical address bits"
