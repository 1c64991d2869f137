"""What the dashboard shows, as one frozen value, and every change of it as a pure function.

Rule: a click becomes an action, an action becomes the next state through `reduce`, and nothing else
changes anything. Bad input changes nothing but the notice.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal, NamedTuple

from explorer.app.compose import Compose, commands_of, compose_for
from explorer.app.imports import (
    divergence_words,
    first_difference,
    owners_of,
    preview_note,
    preview_table,
)
from explorer.app.link import pack, pack_story, place_of, unpack, unpack_story
from explorer.app.notes import Note, written
from explorer.engine.commands import AttachTracker, Command, DetachTracker, format_command, parse_command
from explorer.engine.lookup import gfn_to_memslot, slots_in_hva_range
from explorer.engine.profile import PROFILES, get_profile
from explorer.engine.state import Kvmgt
from explorer.engine.types import PAGE_SHIFT, ExplorerError
from explorer.explain.backing import backing_words, slot_words
from explorer.explain.claims import claim_named
from explorer.explain.ledger import watches_of
from explorer.explain.quantity import Room, parse_place, parse_quantity, parse_room
from explorer.explain.words import hex_text, plural, size_text
from explorer.history import OpDetail, Run, Stop
from explorer.history.machine import Machine
from explorer.history.moment import SlotKey, moment_at
from explorer.history.run import look_inside
from explorer.scenarios import guided, load_scenario, scenario_names
from explorer.scenarios.runner import run_of
from explorer.selectors.slot_table import holes

if TYPE_CHECKING:
    from explorer.engine.state import Kvm, KvmMemorySlot
    from explorer.scenarios import Scenario
    from explorer.trace import ImportedLog
    from explorer.trace.tree import Backing

__all__ = ["AppState", "Notice", "View", "initial_state"]

TrackerKind = Literal["none", "log", "kvmgt"]
Scale = Literal["collapsed", "equal", "linear"]


_LINES_TOLD = 200
"""Unused lines of a log that are told one by one."""
_KINDS_OF_CLAIM = {
    "proved": "proved in the model",
    "conditional": "conditional, L says on what",
    "opinion": "not modelled",
}
_VIEWS_KEPT = 50
"""Changes of the view that can be undone."""
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
    compose: Compose
    ghost: OpDetail | None = None
    """The composed operation run on a copy of the end of the run; None while it cannot be read."""
    view: View = View()  # noqa: RUF009 - a NamedTuple cannot be changed
    question: bool = False
    """Whether the opening question waits for its answer."""
    answered: Answer | None = None
    notice: Notice | None = None
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


def load(name: str, *, view: View, stop: Stop | None = None) -> AppState:
    """Return the state of a scenario, paused where it opens or at `stop`.

    A stop beyond the scenario's steps is inside its composed operation, which has then been applied.
    """
    scenario = load_scenario(name)
    run = run_of(scenario)
    stop = stop or scenario.at or run.last_stop
    applied = stop.op >= len(run) and scenario.next is not None
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


def choose(state: AppState, kind: str) -> AppState:
    """Compose another kind of operation, with fields filled from the slot in focus."""
    slot = _focused_slot(state)
    return with_ghost(replace(state, compose=Compose.fresh(kind, state.kvm, slot), question=False, notice=None))


def edit(state: AppState, name: str, text: str) -> AppState:
    """Change a field of the composed operation."""
    return with_ghost(replace(state, compose=state.compose.with_field(name, text), question=False))


def set_machine(state: AppState, machine: Machine) -> AppState:
    """Run the same operations on another kernel or machine, and say how many results differ."""
    run = Run(machine.start(), state.run.commands)
    differ = sum(a != b for a, b in zip(state.run.outcomes, run.outcomes, strict=True))
    total = len(run)
    text = f"{differ} of {plural(total, 'operation')} now differ{'s' if differ == 1 else ''}" if total else ""
    if state.ghost is not None:
        composed = look_inside(run.end, state.ghost.command, total).step
        if (composed.errno, composed.change) != (state.ghost.step.errno, state.ghost.step.change):
            text += ", and so does the composed one"
    notice = Notice(f"{text} on {PROFILES[machine.profile].title}.") if text else None
    at_its_end = state.stop == state.run.end_of(state.stop.op)
    stop = run.end_of(state.stop.op) if at_its_end else run.clamp(state.stop)
    return with_ghost(replace(state, machine=machine, run=run, stop=stop, notice=notice, question=False))


def set_profile(state: AppState, name: str) -> AppState:
    """Choose another kernel."""
    get_profile(name)
    return set_machine(state, state.machine._replace(profile=name))


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
                f"No tracker can attach: {errno.name}, KVM was built without external write tracking.", "error"
            ),
        )
    return after


def go_to(state: AppState, text: str) -> AppState:
    """Bring a place into the detail: an address, a page, a slot, a host address or a range."""
    try:
        wanted = parse_room(text)
        if wanted is not None:
            return _go_to_room(state, wanted)
        place = parse_place(text)
    except ExplorerError as error:
        return replace(state, notice=Notice(str(error), "error"))
    kvm = state.kvm
    if place.as_id >= len(kvm.memslots):
        return replace(state, notice=Notice(f"There is no address space {place.as_id}.", "error"))
    slots = kvm.active(place.as_id)
    if place.kind == "slot":
        slot = kvm.slot(place.start, place.as_id)
        if slot is None:
            return replace(state, notice=Notice(f"There is no slot {place.start} at this moment.", "error"))
        return replace(look_at(state, SlotKey(slot.as_id, slot.id)), notice=Notice(slot_words(slot)))
    if place.kind == "hva":
        found = list(slots_in_hva_range(slots, place.start, max(place.end, place.start + 1)))
        if not found:
            return replace(state, notice=Notice(f"No slot is backed by host address {hex_text(place.start)}.", "error"))
        also = f" Slots {', '.join(str(s.id) for s in found)} share this host memory." if len(found) > 1 else ""
        shown = look_at(state, SlotKey(found[0].as_id, found[0].id))
        return replace(shown, notice=Notice(slot_words(found[0]) + also))
    if place.start > kvm.config.max_gfn():
        return replace(
            state,
            notice=Notice(
                f"gfn {hex_text(place.start)} is beyond the last one, {hex_text(kvm.config.max_gfn())}.", "error"
            ),
        )
    slot = gfn_to_memslot(slots, place.start)
    room = max(place.end - place.start, 32)
    window = (max(place.start - room // 4, 0), place.end + room // 4)
    focus = SlotKey(slot.as_id, slot.id) if slot is not None else state.view.focus
    said = f"gfn {hex_text(place.start)} lies in a hole: no slot backs it."
    address = parse_quantity(text) if text.strip().lower().startswith("0x") and ".." not in text else -1
    if slot is not None:
        said = backing_words(slot, max(address, place.start << PAGE_SHIFT))
    if address >= 0 and gfn_to_memslot(slots, address) is not None:
        said += f" It was read as an address; for the page of that number write gfn:{text.strip()}."
    asked = place.start if place.end == place.start + 1 else None
    return replace(_look(state, focus=focus, window=window, page=asked), notice=Notice(said))


def _go_to_room(state: AppState, room: Room) -> AppState:
    """Bring the lowest hole that has the room into the detail."""
    key = moment_at(state.run, state.stop, focus=state.view.focus).focus
    as_id = key.as_id if key is not None and key.as_id < len(state.kvm.memslots) else 0
    first, end = -(-room.start >> PAGE_SHIFT), room.end >> PAGE_SHIFT
    pages = -(-room.size >> PAGE_SHIFT)
    fitting = [hole for hole in holes(state.kvm, as_id) if min(hole.end, end) - max(hole.start, first) >= pages]
    asked = size_text(pages << PAGE_SHIFT)
    if not fitting:
        return replace(state, notice=Notice(f"No hole has room for {asked} there.", "error"))
    hole = fitting[0]
    start = max(hole.start, first)
    margin = max(pages // 4, 8)
    window = (max(start - margin, 0), min(start + pages, hole.end) + margin)
    between = " and ".join(f"slot {slot.id}" for slot in (hole.below, hole.above) if slot is not None)
    text = (
        f"{asked} fit at {hex_text(start << PAGE_SHIFT)}: a hole of {size_text((hole.end - hole.start) << PAGE_SHIFT)}"
        f"{' beside ' + between if between else ''}. {plural(len(fitting), 'hole')} in all would do."
    )
    return replace(_look(state, focus=key, window=window), notice=Notice(text))


def look_at(state: AppState, key: SlotKey) -> AppState:
    """Bring a slot into focus."""
    return replace(_look(state, focus=key, window=None, page=None), notice=None)


def fit(state: AppState) -> AppState:
    """Forget the chosen window and focus: show what the operation is about."""
    return replace(_look(state, focus=None, window=None, page=None), notice=None)


def zoom(state: AppState, gfn: int, factor: float, shown: tuple[int, int]) -> AppState:
    """Show more or fewer pages around a gfn; one page and the whole space are the limits."""
    limit = state.kvm.config.max_gfn() + 1
    span = min(max(round((shown[1] - shown[0]) * factor), 4), limit)
    share = (gfn - shown[0]) / max(shown[1] - shown[0], 1)
    start = min(max(round(gfn - span * share), 0), limit - span)
    return _look(state, window=(start, start + span))


def pan(state: AppState, by: int, shown: tuple[int, int]) -> AppState:
    """Show the pages `by` further up; the ends of the space stop it."""
    span = shown[1] - shown[0]
    start = min(max(shown[0] + by, 0), state.kvm.config.max_gfn() + 1 - span)
    return _look(state, window=(start, start + span))


def brush(state: AppState, first: int, end: int) -> AppState:
    """Show a stretch of the line of all memory in the detail: four pages at least, the whole space at most."""
    limit = state.kvm.config.max_gfn() + 1
    first = min(max(first, 0), limit - 4)
    return _look(state, window=(first, min(max(end, first + 4), limit)))


def set_scale(state: AppState, scale: Scale) -> AppState:
    """Draw the overview collapsed, equal or linear."""
    return _look(state, scale=scale)


def _look(state: AppState, **changes: object) -> AppState:
    """Look at the run in another way, and remember how it was looked at; the opening question has no such view."""
    view = state.view._replace(**changes)  # type: ignore[arg-type]
    if view == state.view:
        return redraw(state)
    views = (*state.views, state.view)[-_VIEWS_KEPT:]
    return redraw(replace(state, view=view, views=views, question=False))


def undo_view(state: AppState) -> AppState:
    """Look at the run as before the last zoom, focus or change of scale; operations stay as they are."""
    if not state.views:
        return replace(state, notice=Notice("No zoom, focus or scale is left to undo; operations are not undone here."))
    last = state.views[-1]
    view = state.view._replace(scale=last.scale, focus=last.focus, window=last.window, page=last.page)
    return redraw(replace(state, view=view, views=state.views[:-1], notice=None))


def write_note(state: AppState, stop: Stop, text: str) -> AppState:
    """Write a note at a stop of the run; an empty one takes the note that is there away."""
    if not -1 <= stop.op < len(state.run):
        return replace(state, notice=Notice("A note needs a stop of the run: apply the operation first.", "error"))
    notes = written(state.notes, state.run.clamp(stop), text)
    said = None
    if notes and not to_link(state) and not state.question:
        said = Notice("This run is too long for an address: export it to keep the note.", stays=True)
    return replace(state, notes=notes, notice=said)


def fitted(state: AppState, *, width: float, map_width: float, theme: str, map_height: float = 0) -> AppState:
    """Take the page's size in pixels and its theme into the view; a height of the map means the layout of a talk."""
    narrow = (width or NARROW_BELOW) < NARROW_BELOW
    plot = max((map_width or (1102 if narrow else 1160)) - (138 if narrow else 178), 300.0)
    view = state.view._replace(narrow=narrow, plot_width=round(plot), theme=theme, map_height=round(map_height))
    return redraw(replace(state, view=view)) if view != state.view else state


def dismiss(state: AppState) -> AppState:
    """Take the notice away."""
    return replace(state, notice=None)


def tell_error(state: AppState, text: str) -> AppState:
    """Say what went wrong; nothing else changes."""
    return replace(state, notice=Notice(text, "error"))


def tell(state: AppState, scenario: str, stop: Stop | None = None) -> AppState:
    """Tell another story, from where it opens or from `stop`; the run before it is kept."""
    told = load(scenario, view=state.view, stop=stop)
    return replace(told, earlier=state, revision=state.revision + 1)


def show_claim(state: AppState, name: str) -> AppState:
    """Open the state that shows a claim of the thread; the run before it is kept."""
    claim = claim_named(name)
    if claim is None or claim.shown is None:
        return replace(state, notice=Notice(f"No claim called {name[:40]!r} can be shown.", "error"))
    shown = claim.shown
    scenario = load_scenario(shown.story)
    machine = Machine(shown.profile or scenario.profile.name, scenario.config)
    last = parse_command(shown.do) if shown.do else scenario.next
    commands = [step.do for step in scenario.steps] + ([last] if last is not None else [])
    run = Run(machine.start(), commands)
    opened = load(shown.story, view=state.view, stop=run.last_stop)
    told = replace(
        opened,
        machine=machine,
        run=run,
        stop=run.clamp(place_of(shown.at)),
        source="" if shown.do else opened.source,
        earlier=state,
        notice=Notice(f"{claim.words} ({_KINDS_OF_CLAIM[claim.kind]})", stays=True),
        revision=state.revision + 1,
    )
    return with_ghost(told)


def turn(state: AppState, by: int) -> AppState:
    """Tell the beat of the guided story `by` further on; from elsewhere it begins, and at its ends nothing happens."""
    beats = guided()
    here = next((at for at, scenario in enumerate(beats) if scenario.id == state.source), None)
    there = 0 if here is None else here + by
    return tell(state, beats[there].id) if 0 <= there < len(beats) else state


def redraw(state: AppState) -> AppState:
    """Say that pictures drawn before are no longer true."""
    return replace(state, revision=state.revision + 1)


def answer(state: AppState, guess: int) -> AppState:
    """Take the newcomer's prediction and apply the operation; the engine knows the truth."""
    right = guess == truth(state)
    applied = apply_composed(state)
    return replace(applied, answered=Answer(guess, right, applied.stop.op))


def truth(state: AppState) -> int:
    """Return which answer is right, from the composed operation: 1 follow, 2 stay behind, 3 gone."""
    ghost = state.ghost
    if ghost is None:
        return 0
    focus = _focused_slot(state)
    before = watches_of(ghost.before, focus)
    after_slot = ghost.step.kvm.slot(focus.id, focus.as_id) if focus is not None else None
    after = watches_of(ghost.step.kvm, after_slot)
    if not after:
        return 3
    return 2 if {w.gfn for w in after} == {w.gfn for w in before} else 1


def _focused_slot(state: AppState) -> KvmMemorySlot | None:
    focus = moment_at(state.run, state.stop, focus=state.view.focus, ghost=state.ghost).focus
    return (
        state.kvm.slot(focus.slot_id, focus.as_id)
        if focus is not None and focus.as_id < len(state.kvm.memslots)
        else None
    )


# -- logs and links --------------------------------------------------------------------------------


def show_log(state: AppState, log: ImportedLog, run: Run) -> AppState:
    """Show the run of an imported log, at its end; a log without an operation changes nothing."""
    detail = _unused_lines(log)
    if not len(run):
        notice = Notice(log.summary_sentence(), "error", detail, table=preview_table(log), table_note=preview_note(log))
        return replace(state, notice=notice)
    return with_ghost(
        replace(
            state,
            machine=Machine(log.profile.name, log.config),
            run=run,
            stop=run.last_stop,
            title=log.name,
            owners=(),
            backings=(),
            compose=replace(Compose.fresh("move", run.end, _newest_slot(run.end)), shown=False),
            question=False,
            answered=None,
            earlier=state,
            view=state.view._replace(focus=None, window=None, page=None),
            notice=Notice(
                f"{log.summary_sentence()} {divergence_words(log) or _replayed_on(log)}",
                "error" if log.disagreements else "info",
                detail,
                stays=True,
                table=preview_table(log),
                table_note=preview_note(log),
                go=first_difference(log),
            ),
            source="",
            about="",
            notes=(),
            views=(),
        )
    )


def _replayed_on(log: ImportedLog) -> str:
    return f"Replayed as on {PROFILES[log.profile.name].title}."


def _newest_slot(kvm: Kvm) -> KvmMemorySlot | None:
    last = kvm.active().id_hash.last()
    return kvm.slot(last[0]) if last is not None else None


def _unused_lines(log: ImportedLog) -> tuple[str, ...]:
    """Return why lines were not used: each of them, or, of very many, how many for each reason."""
    if len(log.gaps) <= _LINES_TOLD:
        return tuple(f"line {gap.line}: {gap.reason}" for gap in log.gaps)
    by_reason: dict[str, list[int]] = {}
    for gap in log.gaps:
        by_reason.setdefault(gap.reason, []).append(gap.line)
    told = [
        f"{plural(len(lines), 'line')}, the first is {lines[0]}: {reason}"
        for reason, lines in sorted(by_reason.items(), key=lambda item: -len(item[1]))
    ]
    rest = "explorer replay lists every line"
    return (
        *told[:_LINES_TOLD],
        f"and {len(told) - _LINES_TOLD} reasons more; {rest}" if len(told) > _LINES_TOLD else rest,
    )


def to_link(state: AppState) -> dict[str, str]:
    """Return the state as the parameters of an address: a story and a place, or machine, operations and place."""
    if _is_told(state):
        return pack_story(state.source, state.stop) if not state.question or state.earlier is not None else {}
    return pack(
        machine=state.machine,
        commands=tuple(format_command(c) for c in state.run.commands),
        stop=state.stop,
        title=state.title,
    )


def _is_told(state: AppState) -> bool:
    """Return whether the run is a story's, on the machine it is told on, with nothing of one's own."""
    if state.source not in scenario_names() or state.notes:  # a note needs the run it is bound to, whole
        return False
    scenario = load_scenario(state.source)
    steps = tuple(step.do for step in scenario.steps)
    whole = steps if scenario.next is None else (*steps, scenario.next)
    machine = Machine(scenario.profile.name, scenario.config)
    return state.machine == machine and state.run.commands in (steps, whole)


def from_link(state: AppState, parameters: dict[str, str]) -> AppState:
    """Return the state an address describes; a bad one changes nothing but the notice."""
    try:
        story = unpack_story(parameters)
        if story is not None:
            return load(story.name, view=state.view, stop=story.stop)
        link = unpack(parameters)
        if link is None:
            return state
        run = Run(link.machine.start(), (parse_command(line) for line in link.commands))
    except ExplorerError as error:
        return replace(state, notice=Notice(f"This address cannot be opened: {error}", "error"))
    return with_ghost(
        replace(
            state,
            machine=link.machine,
            run=run,
            stop=run.clamp(link.stop),
            title=link.title or state.title,
            compose=Compose(),
            question=False,
            answered=None,
            notice=None,
            notes=(),
            views=(),
        )
    )
