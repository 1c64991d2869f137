"""Where a run goes from the page: to the machine's own KVM, and into a file.

Both take a while and change no state, so they run beside the message loop and come back as a message.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from explorer.engine.commands import format_command
from explorer.engine.types import ExplorerError
from explorer.explain.words import plural
from explorer.figures.dom import Node, el
from explorer.live import Device, HostKernel, Limits, LiveReport, LiveRow, look_at_host, perform_all
from explorer.scenarios import load_scenario, scenario_names
from explorer.share import FORMATS, Told, export

if TYPE_CHECKING:
    from explorer.app.state import AppState
    from explorer.history import Run

__all__ = ["Performed", "file_of", "formats", "perform_here"]

_LIMITS = Limits(operations=5_000, slots=1024, seconds=10)
"""Less than the command line takes: somebody waits in front of the page."""
_MOST_ROWS = 400


class Performed(NamedTuple):
    """What came of a run on the machine's own KVM, for the page."""

    badge: str
    tone: str
    """``agrees``, ``differs``, or ``absent`` if there is no device."""
    panel: Node


def perform_here(run: Run) -> Performed:
    """Perform a run on the machine's own KVM; a device that is not there is a sentence."""
    try:
        with Device(_LIMITS) as device:
            host = look_at_host(device)
            report = perform_all(host.here(run), device)
    except ExplorerError as error:
        return Performed("Model only", "absent", el("p", f"Model only: {error}."))
    wrong = len(report.disagreements)
    badge = f"{wrong} differ" if wrong else f"{report.compared} agree"
    left_out = len(report.rows) - report.compared
    badge += f", {left_out} not compared" if left_out else ""
    panel = _panel(run, host, report)
    return Performed(f"Linux {_short(host.release)}: {badge}", "differs" if wrong else "agrees", panel)


def _short(release: str) -> str:
    found = re.match(r"\d+\.\d+(?:\.\d+)?", release)
    return found[0] if found else release


def _panel(run: Run, host: HostKernel, report: LiveReport) -> Node:
    shown, wrong = report.rows[:_MOST_ROWS], report.disagreements
    later = [row for row in wrong if row.op.at >= _MOST_ROWS][:_MOST_ROWS]
    left_out = [el("li", f"{plural(n, 'operation')} not compared: {why}") for why, n in report.left_out.items()]
    more = len(report.rows) - len(shown) - len(later)
    other = run.start.profile
    return el(
        "div",
        el("p", el("b", f"{report.compared} compared, {plural(len(wrong), 'disagreement')}.")),
        el(
            "p",
            f"Linux {host.release}, beside profile {host.profile.name}"
            + ("." if host.profile is other else f"; the page shows {other.name}."),
            f" {host.why}",
        ),
        el("ul", *left_out) if left_out else None,
        el(
            "table",
            el("thead", el("tr", *(el("th", word, scope="col") for word in ("", "operation", "kernel", "model", "")))),
            el("tbody", *(_row(row) for row in (*shown, *later))),
        ),
        el("p", f"{plural(more, 'operation')} more, not listed.") if more else None,
        cls="device-rows",
    )


def _row(row: LiveRow) -> Node:
    model = "0" if row.op.errno is None else row.op.errno.name
    words = {True: ("0" if row.errno is None else row.errno, model, "agrees"), None: ("", "", "not compared")}
    here, model, verdict = words.get(row.agrees, ("0" if row.errno is None else row.errno, model, "differs"))
    if row.agrees is False and here == model:
        verdict = "differs: dirty pages"
    return el(
        "tr",
        el("td", str(row.op.at + 1) if row.op.at >= 0 else ""),
        el("td", el("code", format_command(row.op.command))),
        el("td", here),
        el("td", model),
        el("td", verdict),
        cls={True: "is-same", False: "is-other", None: "is-left-out"}[row.agrees],
    )


def formats() -> list[list[str]]:
    """Return name and title of each format a run can be exported in."""
    return [[row.name, row.title] for row in FORMATS.values()]


def file_of(state: AppState, name: str) -> tuple[str, str]:
    """Return the name of a file and its content: the run in one of the formats.

    Raises
    ------
    ExplorerError
        If it cannot be written in that format.
    """
    text = export(Told(state.run, state.title, _notes(state), state.notes), name)
    stem = re.sub(r"[^A-Za-z0-9]+", "-", state.source or state.title).strip("-").lower()[:40] or "run"
    return stem + FORMATS[name].suffix, text


def _notes(state: AppState) -> tuple[str, ...]:
    """Return what a story of the library says about the operations that are still its own."""
    if state.source not in scenario_names():
        return ()
    steps = load_scenario(state.source).steps
    notes = []
    for step, command in zip(steps, state.run.commands, strict=False):
        if step.do != command:
            break
        notes.append(step.say)
    return tuple(notes)
