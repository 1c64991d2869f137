"""One call for each view: runs from text or from the library, and what the dashboard shows of them.

::

    run = play("set_region slot=0 gpa=0 size=2M hva=0x7f0000000000", profile="v6_1")
    map_of(run)               # a plotly figure
    guards_of(run, "1.1")     # a table; print() gives it as text

A place in a run is written as the timeline numbers it: ``"17.6"`` is step 6 of operation 17, ``"17"`` its
end, and without one it is the end of the run.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import plotly.graph_objects as go

from explorer.engine.commands import CommandError, parse_command
from explorer.engine.config import VmConfig
from explorer.engine.profile import get_profile
from explorer.engine.types import ExplorerError
from explorer.explain.ledger import ledger_of
from explorer.explain.xray import changes_at
from explorer.figures.arrays import arrays_spec
from explorer.figures.calls import calls_panel
from explorer.figures.compare import compare_panel
from explorer.figures.dom import el, to_html, to_text
from explorer.figures.eras import eras_panel
from explorer.figures.gpa_map import gpa_map_spec
from explorer.figures.guards import guards_panel
from explorer.figures.hand_off import effects_panel, hand_off_panel
from explorer.figures.kvmgt import kvmgt_panel
from explorer.figures.ledger import ledger_panel
from explorer.figures.matrix import matrix_panel, no_matrix_panel
from explorer.figures.over_time import over_time_spec
from explorer.figures.phases import phases_panel
from explorer.figures.rail import rail_panel
from explorer.figures.slot_table import slot_table_panel
from explorer.figures.story import guide_panel
from explorer.figures.theme import stylesheet, theme_named
from explorer.history import Run, Stop
from explorer.history.moment import moment_at
from explorer.scenarios import guided, load_scenario
from explorer.scenarios.runner import run_of
from explorer.selectors.arrays import select_arrays
from explorer.selectors.calls import select_calls
from explorer.selectors.compare import select_compare
from explorer.selectors.configurations import call_at
from explorer.selectors.effects import select_effects
from explorer.selectors.eras import select_eras
from explorer.selectors.gpa_map import select_gpa_map
from explorer.selectors.guards import select_guards
from explorer.selectors.hand_off import never_was, select_hand_off
from explorer.selectors.kvmgt import select_kvmgt
from explorer.selectors.matrix import select_matrix
from explorer.selectors.over_time import select_over_time
from explorer.selectors.phases import select_phases
from explorer.selectors.rail import select_rail
from explorer.selectors.slot_table import select_slot_table
from explorer.selectors.time_bar import select_time_bar
from explorer.selectors.xray import select_xray

if TYPE_CHECKING:
    from explorer.figures.dom import Node
    from explorer.history.moment import Moment

__all__ = [
    "Panel",
    "PlaceError",
    "arrays_of",
    "because",
    "calls_of",
    "effects_of",
    "gpu_tables_of",
    "guards_of",
    "guide",
    "hand_off_of",
    "kernels_of",
    "ledger_of_move",
    "map_of",
    "over_time_of",
    "phases_of",
    "play",
    "routes_of",
    "slots_of",
    "tell",
    "verdicts_of",
]


class PlaceError(ExplorerError):
    """A text is no place in a run."""


class Panel:
    """A table or a paragraph of the dashboard: HTML in a notebook, text in a terminal."""

    def __init__(self, tree: Node) -> None:
        """Keep the tree; it is written when it is shown."""
        self._tree = tree

    def _repr_html_(self) -> str:
        """Return the panel with the page's styles; everything from outside is escaped."""
        return f'<style>{stylesheet()}</style><div class="mx-frame is-alone">{to_html(self._tree)}</div>'

    def __str__(self) -> str:
        """Return the words, a line for each row or paragraph."""
        return to_text(self._tree)

    __repr__ = __str__


# -- runs ------------------------------------------------------------------------------------------


def play(text: str = "", *, profile: str = "v6_12", **config: bool | int | str) -> Run:
    """Return the run of operations in their one-line form.

    Parameters
    ----------
    text
        An operation on each line, such as ``track gfn=0xc0003``; empty lines and ``# remarks`` are left out.
    profile
        Name of a kernel profile.
    config
        Fields of `VmConfig`, such as ``tdp=True``.

    Raises
    ------
    ExplorerError
        If a line, the profile or a field cannot be read; the message names the line.
    """
    commands = []
    for number, line in enumerate(text.splitlines(), 1):
        words = line.partition("#")[0].strip()
        if words:
            try:
                commands.append(parse_command(words))
            except CommandError as error:
                raise CommandError(f"line {number}: {error}") from error
    try:
        machine = VmConfig(**config)  # type: ignore[arg-type]  # a wrong name or value is told below
    except TypeError as error:
        raise ExplorerError(f"{error}; fields are {', '.join(VmConfig.__dataclass_fields__)}") from error
    return Run.new(profile, machine, commands)


def tell(story: str, *, profile: str = "") -> Run:
    """Return the run of a scenario of the library, with its composed operation applied.

    Parameters
    ----------
    story
        Id of a scenario; `explorer.scenarios.scenario_names` lists them.
    profile
        Kernel profile to tell it on instead of its own.

    Raises
    ------
    ExplorerError
        If there is no such scenario or profile.
    """
    scenario = load_scenario(story)
    run = run_of(scenario)
    if scenario.next is not None:
        run = run.then(scenario.next)
    return run.on(profile, scenario.config) if profile else run


def guide() -> Panel:
    """Return the guided story as text: what each beat asks you to look for, what it teaches, and its address."""
    return Panel(guide_panel(tuple((beat.title, beat.look, beat.teaches, f"?story={beat.id}") for beat in guided())))


def _moment(run: Run, at: str) -> Moment:
    if not at:
        return moment_at(run, run.last_stop)
    op, dot, cell = at.partition(".")
    try:
        stop = run.clamp(Stop(int(op) - 1, int(cell) - 1)) if dot else run.end_of(int(op) - 1)
    except (ValueError, IndexError):
        stop = None
    if stop is None or (dot and (stop.op + 1, stop.cell + 1) != (int(op), int(cell))):
        raise PlaceError(f"{at!r} is no place in this run of {len(run)} operations; write such as '3' or '3.2'")
    return moment_at(run, stop)


# -- views -----------------------------------------------------------------------------------------


def map_of(
    run: Run, at: str = "", *, width: int = 780, window: tuple[int, int] | None = None, theme: str = "light"
) -> go.Figure:
    """Return the map of guest memory as a plotly figure.

    Parameters
    ----------
    run, at
        The place in a run.
    width
        Width of the plot in pixels, names of lanes not counted.
    window
        Gfns ``[start, end)`` to show in the detail instead of what the operation is about.
    theme
        ``light``, ``dark`` or ``hc``, for high contrast.
    """
    view = select_gpa_map(_moment(run, at), width=width, window=window)
    return _figure(gpa_map_spec(view, theme_named(theme)))


def arrays_of(run: Run, at: str = "", *, theme: str = "light") -> go.Figure | None:
    """Return the write-track arrays of the slot and their lifetimes; None where no slot has any."""
    view = select_arrays(_moment(run, at))
    return None if view is None else _figure(arrays_spec(view, theme_named(theme)))


def over_time_of(
    run: Run, at: str = "", *, as_id: int = 0, room: tuple[int, int] = (940, 560), theme: str = "light"
) -> go.Figure:
    """Return the slots of an address space over time, a bar a life, as a plotly figure.

    Parameters
    ----------
    run, at
        The place in a run; of a long run the operations around it are shown.
    as_id
        Address space.
    room
        Width and height of the chart in pixels, names of the axes not counted.
    theme
        ``light``, ``dark`` or ``hc``, for high contrast.
    """
    view = select_over_time(run, _moment(run, at).stop, as_id=as_id, room=room)
    return _figure(over_time_spec(view, theme_named(theme)))


def _figure(spec: dict[str, object]) -> go.Figure:
    return go.Figure(spec)


def phases_of(run: Run, at: str = "") -> Panel:
    """Return the steps of a region call, what each set holds in each, and what readers see."""
    view = select_phases(_moment(run, at))
    return Panel(phases_panel(view) if view is not None else _none("This operation is no region call."))


def hand_off_of(run: Run, at: str = "") -> Panel:
    """Return old slot, INVALID copy and new slot side by side, with the fate of each field."""
    moment = _moment(run, at)
    if never_was(moment):
        return Panel(_none("Refused before a slot was made: nothing changes hands."))
    view = select_hand_off(moment)
    return Panel(hand_off_panel(view) if view is not None else _none("This operation is no region call."))


def effects_of(run: Run, at: str = "") -> Panel:
    """Return what an operation that is no region call changed, value by value."""
    view = select_effects(_moment(run, at))
    return Panel(effects_panel(view) if view is not None else _none("A region call: see hand_off_of()."))


def ledger_of_move(run: Run, at: str = "") -> Panel:
    """Return how many watches there were, were released, were kept and are lost."""
    ledger = ledger_of(_moment(run, at))
    return Panel(ledger_panel(ledger) if ledger is not None else _none("No slot that existed changes here."))


def guards_of(run: Run, at: str = "") -> Panel:
    """Return the checks of a region call in kernel order, and what a late refusal cost or where an early one stands."""
    moment = _moment(run, at)
    view = select_guards(moment)
    if view is None:
        return Panel(_none("This operation is no region call."))
    return Panel(guards_panel(view, select_xray(moment, changes_at(moment)), select_time_bar(moment)))


def slots_of(run: Run, at: str = "") -> Panel:
    """Return the table of slots and holes."""
    return Panel(slot_table_panel(select_slot_table(_moment(run, at), {})))


def verdicts_of(run: Run, at: str = "") -> Panel:
    """Return what a region call comes to under every kernel, built for trackers or not, with one attached or not."""
    call = call_at(run, _moment(run, at).stop.op, None)
    return Panel(matrix_panel(select_matrix(run, call)) if call is not None else no_matrix_panel())


def kernels_of(run: Run, at: str = "", *, compare: tuple[str, str] | None = None) -> Panel:
    """Return the operations around a place under every kernel, and where the kernels part.

    Parameters
    ----------
    run, at
        The place in a run.
    compare
        Names of two profiles whose results are compared; without it the run's kernel and one that differs.

    Raises
    ------
    ExplorerError
        If there is no such profile.
    """
    for name in compare or ():
        get_profile(name)
    return Panel(eras_panel(select_eras(run, _moment(run, at).stop.op, pair=compare)))


def gpu_tables_of(run: Run, at: str = "", *, table: tuple[int, int] | None = None) -> Panel:
    """Return KVMGT from inside: entries of the guest and of the GPU, and who watches the table.

    Parameters
    ----------
    run, at
        The place in a run.
    table
        Tracker and gfn of a page table of the GPU; without it the one with most wrong entries.
    """
    return Panel(kvmgt_panel(select_kvmgt(run, _moment(run, at).stop, table)))


def routes_of(run: Run, at: str = "") -> Panel:
    """Return a MOVE beside DELETE and CREATE to the same place, both run from the same VM."""
    return Panel(compare_panel(select_compare(run, _moment(run, at).stop.op)))


def calls_of(run: Run, at: str = "") -> Panel:
    """Return the kernel functions an operation enters, beside those a real kernel was recorded to enter.

    Parameters
    ----------
    run, at
        The place in a run; the operation it is in is shown, its step is marked.

    Returns
    -------
    Panel
        The two sequences in one order, with what the model leaves out and what the compiler inlined; the model's alone
        where no operation like this one was recorded on the run's kernel.
    """
    return Panel(calls_panel(select_calls(run, _moment(run, at).stop)))


def because(run: Run, at: str = "") -> Panel:
    """Return the verdict, why it is so, and the kernel function that decides."""
    return Panel(rail_panel(select_rail(run, _moment(run, at))))


def _none(text: str) -> Node:
    return el("p", text, cls="empty")
