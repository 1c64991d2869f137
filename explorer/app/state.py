"""What the dashboard shows, as one frozen value, and every change of it as a pure function.

Rule: a click becomes an action, an action is a function from a state to the next one, and nothing else changes
anything. Bad input changes nothing but the notice. Here are the actions on the run; those on the view are in
`looks`, other kernels in `machines`, stories and claims in `telling`, logs in `logs`, addresses and notes in
`addresses`.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal, NamedTuple

from explorer.app.compose import Compose, commands_of, compose_for
from explorer.app.owners import owners_of
from explorer.engine.commands import AttachTracker, Command, DetachTracker, SetMemoryRegion
from explorer.engine.state import Kvmgt
from explorer.engine.types import PAGE_SHIFT, ExplorerError
from explorer.explain.words import plural
from explorer.history.machine import Machine
from explorer.history.moment import moment_at
from explorer.history.run import look_inside
from explorer.scenarios import load_scenario, scenario_names
from explorer.scenarios.runner import run_of

if TYPE_CHECKING:
    from explorer.app.notes import Note
    from explorer.engine.state import Kvm, KvmMemorySlot
    from explorer.history import OpDetail, Run, Stop
    from explorer.history.moment import SlotKey
    from explorer.scenarios import Scenario
    from explorer.selectors.time_words import Recorded
    from explorer.trace.tree import Backing

__all__ = ["AppState", "Notice", "View", "initial_state"]

TrackerKind = Literal["none", "log", "kvmgt"]
Scale = Literal["collapsed", "equal", "linear"]


NARROW_BELOW = 1720
"""Width of the page, in pixels, from which the rail has a place of its own."""


class View(NamedTuple):
    """How the state is looked at; nothing here changes the model."""

    scale: Scale = "collapsed"
    focus: SlotKey | None = None
    window: tuple[int, int] | None = None
    """Gfns of the detail if a person chose them."""
    page: int | None = None
    """A gfn a person went to, to know what becomes of an access to it."""
    theme: str = "light"
    narrow: bool = False
    plot_width: float = 982
    map_height: float = 0
    """Height of the map, in pixels, in the layout of a talk; 0 in the usual one, where it is given."""
    pair: tuple[str, str] | None = None
    """Two kernels whose results are compared, by profile, if a person chose them."""
    gpu_table: tuple[int, int] | None = None
    """Page table of the GPU that is looked at, by tracker and gfn, if a person chose one."""
    space: int = 0
    """Address space whose slots are shown over time."""


class Notice(NamedTuple):
    """A sentence for the person: what went wrong, or what a change did."""

    text: str
    kind: Literal["error", "info"] = "info"
    detail: tuple[str, ...] = ()
    """Further lines, such as those of a log that were not used."""
    heading: str = "Lines not used"
    """What the further lines are."""
    stays: bool = False
    """Whether it waits to be dismissed; other remarks go with the next step."""
    table: tuple[tuple[str, str, str], ...] = ()
    """Lines of a log: number, what the line became, and why."""
    table_note: str = ""
    """What the table counts and what it leaves out."""
    go: tuple[str, int] | None = None
    """A button's words, and the operation it leads to."""
    back: bool = False
    """Whether it came with another run, or another past; a button leads back to what was there before."""


class Walk(NamedTuple):
    """A walk through kernels or settings: the machine it began on, and what its last step said."""

    machine: Machine
    run: Run
    said: Notice


class Answer(NamedTuple):
    """What a newcomer predicted."""

    guess: int
    right: bool
    op: int
    """The operation it was about."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AppState:
    """Everything the dashboard shows."""

    machine: Machine
    run: Run
    stop: Stop
    title: str
    owners: tuple[tuple[int, str], ...] = ()
    backings: tuple[Backing, ...] = ()
    """Host memory with a name, from a memory tree of QEMU."""
    recorded: Recorded | None = None
    """How the results of the log that the run is from compare with the model's."""
    compose: Compose
    ghost: OpDetail | None = None
    """The composed operation run on a copy of the end of the run; None while it cannot be read."""
    view: View = View()  # noqa: RUF009 - a NamedTuple cannot be changed
    question: bool = False
    """Whether the opening question waits for its answer."""
    answered: Answer | None = None
    notice: Notice | None = None
    walk: Walk | None = None
    """Through which kernels a person goes; it ends with any other action, which takes its notice away."""
    earlier: AppState | None = None
    """The state before the past was changed or another run was shown, so that nothing is lost."""
    source: str = ""
    """Where the run comes from: a scenario's id, the name of a log, or empty."""
    opened_at: Stop | None = None
    """Where a story opens."""
    about: str = ""
    """Where layout and numbers come from, in a sentence."""
    notes: tuple[Note, ...] = ()
    """What a person wrote at stops of this run, in order."""
    views: tuple[View, ...] = ()
    """How the run was looked at before, for undoing; operations do not enter it."""
    revision: int = field(default=0)
    """Goes up whenever pictures that were drawn are no longer true."""

    def owner_names(self, kvm: Kvm) -> dict[int, str]:
        """Return what backs each slot of a VM, by slot id; a slot that nothing names is not in it."""
        return dict(self.owners) | (owners_of(kvm, self.backings) if self.backings else {})

    @property
    def kvm(self) -> Kvm:
        """The VM at the stop."""
        return self.run.kvm_at(self.stop)

    @property
    def base(self) -> Kvm:
        """The VM that a composed operation is applied to: as the operation at the stop leaves it."""
        op = self.stop.op
        if op < 0:
            return self.run.start
        return self.run.end if op >= len(self.run) - 1 else self.run.detail(op).step.kvm

    @property
    def later(self) -> int:
        """Operations after the stop, which a composed operation sets aside."""
        return max(len(self.run) - self.stop.op - 1, 0)

    def composed_here(self) -> OpDetail | None:
        """Return the composed operation run on a copy of where it is applied; None while it cannot be read."""
        if not self.later or not self.compose.shown:
            return self.ghost
        commands = commands_of(self.compose, self.base)
        if isinstance(commands, ExplorerError) or not commands:
            return None
        return look_inside(self.base, commands[0], self.stop.op + 1)

    @property
    def tracker(self) -> TrackerKind:
        """Which external tracker is attached at the stop."""
        kinds = [isinstance(t, Kvmgt) for t in self.kvm.trackers.values() if t.attached]
        return "none" if not kinds else "kvmgt" if any(kinds) else "log"

    @property
    def at_end(self) -> bool:
        """Whether the stop is the end of the run."""
        return self.stop == self.run.last_stop

    def told(self, run: Run) -> bool:
        """Return whether a run has the story's own operation; a question that was left is done with, too."""
        if self.source not in scenario_names():
            return False
        scenario = load_scenario(self.source)
        steps = len(scenario.steps)
        if _asks(scenario) and not self.question:
            return True
        return scenario.at is None and scenario.next is not None and scenario.next in run.commands[steps:]

    def run_ahead(self) -> Run:
        """Return the run with the composed operation at its end, if there is one."""
        return self.run.then(self.ghost.command) if self.ghost is not None else self.run


def _asks(scenario: Scenario) -> bool:
    """Return whether a scenario opens on a question."""
    return scenario.id == "first-look"


def initial_state(scenario: str = "first-look") -> AppState:
    """Return the state a new visitor sees: the newcomer's story, paused at its question."""
    return load(scenario, view=View())


def load(name: str, *, view: View, stop: Stop | None = None, applied: bool = False) -> AppState:
    """Return the state of a scenario, paused where it opens or at `stop`.

    A stop beyond the scenario's steps is inside its composed operation, which has then been applied; with `applied` it
    has been so wherever the stop is.
    """
    scenario = load_scenario(name)
    run = run_of(scenario)
    stop = stop or scenario.at or run.last_stop
    applied = (applied or stop.op >= len(run)) and scenario.next is not None
    if applied and scenario.next is not None:
        run = run.then(scenario.next)
    fresh = replace(Compose.fresh("create", run.end, None), shown=False)
    compose = compose_for(scenario.next) if scenario.next is not None else fresh
    state = AppState(
        machine=Machine(scenario.profile.name, scenario.config),
        run=run,
        stop=run.clamp(stop),
        title=scenario.title,
        owners=tuple(scenario.owners.items()),
        compose=replace(compose, shown=compose.shown and not applied),
        view=view._replace(focus=None, window=None, page=None),
        question=_asks(scenario) and not applied and stop == run.last_stop,
        source=scenario.id,
        opened_at=run.clamp(scenario.at or run_of(scenario).last_stop),
        about=scenario.source,
    )
    return with_ghost(state)


# -- changes ---------------------------------------------------------------------------------------


def with_ghost(state: AppState) -> AppState:
    """Run the composed operation on a copy of the end of the run."""
    commands = commands_of(state.compose, state.run.end) if state.compose.shown else ()
    if commands and not isinstance(commands, ExplorerError):
        ghost = look_inside(state.run.end, commands[0], len(state.run))
        return replace(state, ghost=ghost, revision=state.revision + 1)
    return replace(state, ghost=None, revision=state.revision + 1)


def step_to(state: AppState, stop: Stop) -> AppState:
    """Move to a stop; one beyond the end applies the composed operation."""
    if stop.op >= len(state.run) and state.ghost is not None:
        applied = apply_composed(replace(state, stop=state.run.last_stop))
        return replace(applied, stop=applied.run.clamp(stop))
    said = state.notice
    read = said is not None and said.kind == "info" and not said.stays
    return replace(state, stop=state.run.clamp(stop), notice=None if read else said)


def apply_composed(state: AppState) -> AppState:
    """Apply the composed operation after the stop; later operations are set aside, not lost."""
    if not state.compose.shown:
        return replace(state, notice=Notice("Nothing is composed: choose an operation, or change a field."))
    commands = commands_of(state.compose, state.run.kvm_before(state.stop.op + 1))
    if isinstance(commands, ExplorerError):
        return replace(state, notice=Notice(str(commands), "error"))
    return append(state, *commands, hide_ghost=True)


def apply_fields(state: AppState, texts: tuple[str, ...]) -> AppState:
    """Apply the operation as its fields read on the page: all of them, whether or not one was changed."""
    names = [name for name, _ in state.compose.fields]
    if len(texts) != len(names):
        return apply_composed(state)
    read = replace(state.compose, fields=tuple(zip(names, texts, strict=True)), shown=True)
    return apply_composed(replace(state, compose=read))


def append(state: AppState, *commands: Command, hide_ghost: bool = False) -> AppState:
    """Put operations after the stop and go to their end."""
    n = state.stop.op + 1
    earlier = state.earlier
    base = state.run
    notice = None
    if n < len(state.run):
        earlier = state
        base = state.run.up_to(n)
        notice = Notice(
            f"A branch from operation {n}: {plural(len(state.run) - n, 'later operation')} set aside.",
            stays=True,
            back=True,
        )
    run = base.then(*commands)
    compose = replace(state.compose, shown=False) if hide_ghost else state.compose
    return with_ghost(
        replace(
            state,
            run=run,
            stop=run.last_stop,
            compose=compose,
            view=state.view._replace(focus=None, window=None, page=None),  # what the new operations are about
            question=False,
            earlier=earlier,
            notice=notice,
            notes=tuple(note for note in state.notes if note.stop.op < n),
        )
    )


def restore_earlier(state: AppState) -> AppState:
    """Go back to the run before the past was changed; the one left behind is kept in its turn."""
    if state.earlier is None:
        return state
    left = replace(state, earlier=None)
    return replace(state.earlier, earlier=left, notice=None, view=state.view, revision=state.revision + 1)


def focused_slot(state: AppState) -> KvmMemorySlot | None:
    """Return the slot in focus, or None."""
    focus = moment_at(state.run, state.stop, focus=state.view.focus, ghost=state.ghost).focus
    return (
        state.kvm.slot(focus.slot_id, focus.as_id)
        if focus is not None and focus.as_id < len(state.kvm.memslots)
        else None
    )


def choose(state: AppState, kind: str) -> AppState:
    """Compose another kind of operation, with fields filled from the slot in focus."""
    slot = focused_slot(state)
    return with_ghost(replace(state, compose=Compose.fresh(kind, state.kvm, slot), question=False, notice=None))


def edit(state: AppState, name: str, text: str) -> AppState:
    """Change a field of the composed operation."""
    return with_ghost(replace(state, compose=state.compose.with_field(name, text), question=False))


def set_tracker(state: AppState, kind: TrackerKind) -> AppState:
    """Attach or detach an external tracker after the stop."""
    if kind == state.tracker:
        return state
    commands: list[Command] = [DetachTracker(user=u) for u, t in state.kvm.trackers.items() if t.attached]
    if kind != "none":
        commands.append(AttachTracker(user=0, kind=kind))
    after = append(state, *commands)
    errno = after.run.outcomes[-1].errno
    if errno is not None:
        return replace(
            after,
            notice=Notice(
                f"No tracker can attach: {errno.name}, KVM was built without external write tracking.",
                "error",
                back=after.notice is not None and after.notice.back,
            ),
        )
    if after.compose.shown or after.compose.kind != "move":
        return after
    # What a tracker changes is the outcome of a MOVE: the one that was applied before is composed again, or, where the
    # slot is there already, one that goes a page on.
    again = replace(after.compose, shown=True)
    if not _moves(again, after.run.end):
        again = Compose.fresh("move", after.kvm, focused_slot(state))
    return with_ghost(replace(after, compose=again))


def _moves(compose: Compose, kvm: Kvm) -> bool:
    """Return whether the fields ask for another place than their slot has."""
    commands = commands_of(compose, kvm)
    if isinstance(commands, ExplorerError) or not isinstance(commands[0], SetMemoryRegion):
        return False
    call = commands[0]
    slot = kvm.slot(call.slot, call.as_id)
    return slot is not None and call.guest_phys_addr != slot.base_gfn << PAGE_SHIFT


def dismiss(state: AppState) -> AppState:
    """Take the notice away."""
    return replace(state, notice=None)


def tell_error(state: AppState, text: str) -> AppState:
    """Say what went wrong; nothing else changes."""
    return replace(state, notice=Notice(text, "error"))


def redraw(state: AppState) -> AppState:
    """Say that pictures drawn before are no longer true."""
    return replace(state, revision=state.revision + 1)
