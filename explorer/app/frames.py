"""A stop of a run as the stage receives it: each panel a piece of JSON, sent once however often it returns.

A frame names its panels by digest; panels that look the same at several stops are one piece. The stage
keeps the pieces it has, so a step back costs nothing and a step ahead only what is new. `pieces` says for how long.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from explorer.app.pieces import BUDGET, Pieces
from explorer.app.preflight import preflight
from explorer.explain.ledger import ledger_of, watches_of
from explorer.explain.words import plural
from explorer.explain.xray import changes_at
from explorer.figures.arrays import ARRAYS_NARROW, ARRAYS_WIDE, ArraysSize, arrays_spec
from explorer.figures.dom import Node, el
from explorer.figures.gpa_map import NARROW, WIDE, MapSize, gpa_map_spec
from explorer.figures.guards import guards_panel
from explorer.figures.hand_off import effects_panel, hand_off_panel
from explorer.figures.ledger import ledger_panel
from explorer.figures.phases import phases_panel
from explorer.figures.rail import rail_panel
from explorer.figures.slide import caption_panel, slide_panel
from explorer.figures.slot_table import slot_table_panel
from explorer.figures.story import answer_caption, beat_panel, because_line, legend_panel, look_line, question_panel
from explorer.figures.terms import glossary_panel, with_terms
from explorer.figures.theme import theme_named
from explorer.figures.timeline import timeline_panel
from explorer.history.moment import moment_at
from explorer.selectors.arrays import select_arrays
from explorer.selectors.beats import select_beat
from explorer.selectors.branches import elsewhere, set_aside
from explorer.selectors.effects import select_effects
from explorer.selectors.gpa_map import select_gpa_map
from explorer.selectors.guards import select_guards
from explorer.selectors.hand_off import never_was, select_hand_off
from explorer.selectors.phases import select_phases
from explorer.selectors.rail import select_rail
from explorer.selectors.slide import select_slide
from explorer.selectors.slot_table import select_slot_table
from explorer.selectors.time_bar import select_time_bar
from explorer.selectors.timeline import select_timeline
from explorer.selectors.xray import select_xray

if TYPE_CHECKING:
    from explorer.app.state import AppState, View
    from explorer.engine.profile import KernelProfile
    from explorer.explain.changes import Change
    from explorer.history import Run, Stop
    from explorer.history.moment import Moment, SlotKey
    from explorer.selectors.branches import Branch
    from explorer.selectors.gpa_map import GpaMapView

__all__ = ["Frame", "FrameBuilder"]


_SLOTS = "table"
"""Tab, and panel, that shows every slot."""
_WITH_TERMS = ("fields", "guards", _SLOTS)
"""Panels in which words of the glossary are marked."""
_SMALL_PLOT = 800
"""Width of the map, in pixels, below which the page is a notebook's cell."""


class Frame(NamedTuple):
    """One stop: digests of its panels, and what is too small to share."""

    key: str
    """``op:cell``."""
    panels: dict[str, str]
    """Digest by panel name."""
    cells: int
    """Steps of the stop's operation."""
    speech: str
    """One sentence for a screen reader."""
    stops_play: bool
    """Whether play pauses here: a refusal. Where an invariant breaks, the marks say."""


class _KeptTable(NamedTuple):
    """A slot table and what it was made of."""

    shows: tuple[object, ...]
    focus: SlotKey | None
    panel: Node


class FrameBuilder:
    """Builds frames for one state and remembers which pieces were sent.

    Parameters
    ----------
    budget
        Characters of pieces that are kept, here and on the page.
    """

    def __init__(self, budget: int = BUDGET) -> None:
        """Start with nothing built and nothing sent."""
        self._state: AppState | None = None
        self._frames: dict[Stop, Frame] = {}
        self._pieces = Pieces(budget)
        self._kept_table: _KeptTable | None = None
        self._tab = ""
        self._glossaries: dict[str, str] = {}
        self._branches: dict[int, Branch | None] = {}
        """What leaves the timeline at an operation, or, by -1, where the past was changed."""
        self.sent: set[str] = set()

    def use(self, state: AppState) -> None:
        """Build for this state from now on; frames of another revision are forgotten."""
        if self._state is None or self._state.revision != state.revision:
            self._frames.clear()
            self._branches.clear()
            self._kept_table = None
        self._state = state

    def open_tab(self, name: str) -> None:
        """Build the frames of now on for this tab: of a large VM the slots are most of a frame."""
        if (name == _SLOTS) != (self._tab == _SLOTS):
            self._frames.clear()
        self._tab = name

    def forget_sent(self) -> None:
        """Send everything again: a page was loaded anew."""
        self.sent.clear()

    def frame(self, stop: Stop) -> Frame:
        """Return the frame of a stop; stops beyond the end are those of the composed operation."""
        found = self._frames.get(stop)
        if found is None:
            found = self._frames[stop] = self._build(stop)
        return found

    def visit(self, stop: Stop) -> None:
        """Hear that a person looks at a stop: what is shown is the last to be forgotten."""
        found = self._frames.get(stop)
        if found is not None:
            self._pieces.use(found.panels.values())

    def message(self, stops: list[Stop]) -> dict[str, Any]:
        """Return the message that brings frames and the pieces the stage does not have yet, and says which go."""
        frames, pieces = {}, {}
        for stop in stops:
            frame = self.frame(stop)
            self._pieces.use(frame.panels.values())
            frames[frame.key] = {"p": frame.panels, "n": frame.cells, "s": frame.speech, "h": frame.stops_play}
            for digest in frame.panels.values():
                if digest not in self.sent:
                    self.sent.add(digest)
                    pieces[digest] = self._pieces[digest]
        assert self._state is not None, "a builder is used for a state first"
        message = {"t": "frames", "rev": self._state.revision, "frames": frames, "pieces": pieces}
        gone = self._forget_oldest()
        return message | {"gone": gone} if gone else message

    def _forget_oldest(self) -> list[str]:
        gone = self._pieces.forget_oldest()
        if gone:
            lost = set(gone)
            self.sent -= lost
            self._frames = {s: frame for s, frame in self._frames.items() if lost.isdisjoint(frame.panels.values())}
        return gone

    # -- building --------------------------------------------------------------------------------

    def _build(self, stop: Stop) -> Frame:
        state = self._state
        assert state is not None, "a builder is used for a state first"
        ahead = stop.op >= len(state.run) and state.ghost is not None
        run = state.run_ahead() if ahead else state.run
        shows_ghost = not ahead and stop == run.last_stop
        moment = moment_at(run, stop, focus=state.view.focus, ghost=state.ghost if shows_ghost else None)
        question = state.question and shows_ghost
        map_view = select_gpa_map(
            moment,
            width=state.view.plot_width,
            scale=state.view.scale,
            owners=state.owner_names(moment.kvm),
            window=state.view.window,
            host_lane=not state.view.narrow,
            newcomer=question,
        )
        changes = changes_at(moment)
        panels = self._panels(state, moment, map_view, changes, question=question)
        timeline = timeline_panel(select_timeline(run, moment, None if question else self._branch(run, moment)))
        # Broken properties are told by `explorer.app.marks`, with the operation that broke them.
        rail = select_rail(run, moment, state.view.page, properties=False, changes=changes)
        panels["timeline"] = timeline
        profile = moment.kvm.profile
        panels["rail"] = with_terms(legend_panel(rail.newcomer, state.about) if question else rail_panel(rail), profile)
        beat = select_beat(state.source, profile, done=state.told(run))
        panels["because"] = because_line(rail.because, None if question else beat)
        if beat is not None and not question:
            panels["rail"] = el("div", beat_panel(beat), panels["rail"])
            if stop == state.opened_at and beat.look and not beat.other_kernel:
                panels["because"] = look_line(beat)
        answered = state.answered
        asked = answered is not None and answered.op == moment.stop.op
        caption = answer_caption(answered.guess, answered.right, moment) if answered is not None and asked else ""
        told = _opening_sentence(moment) if question else caption
        panels["head"] = _head(map_view, told)
        if state.view.map_height:
            slide = select_slide(moment, rail, beat, len(run), told)
            panels |= {"slide": slide_panel(slide), "caption": caption_panel(slide)}
        for name in _WITH_TERMS:
            if name in panels:
                panels[name] = with_terms(panels[name], profile)
        names = {name: self._pieces.add(panel) for name, panel in panels.items() if panel is not None}
        names["words"] = self._words(profile)
        cells = len(moment.op.cells) if moment.op is not None else 1
        refused = moment.op is not None and moment.op.cells[moment.stop.cell].refused
        return Frame(f"{moment.stop.op}:{moment.stop.cell}", names, cells, f"{rail.verdict}. {rail.newcomer}", refused)

    def _branch(self, run: Run, moment: Moment) -> Branch | None:
        """Return what leaves the timeline: what a person set aside, else another kernel's answer to the MOVE shown."""
        state, kept = self._state, self._branches
        assert state is not None, "a builder is used for a state first"
        if -1 not in kept:
            earlier = state.earlier if state.earlier is not None and state.earlier.source == state.source else None
            kept[-1] = set_aside(earlier.run, state.run) if earlier is not None else None
        op = moment.op
        if kept[-1] is not None or op is None:
            return kept[-1]
        if op.number not in kept:
            kept[op.number] = elsewhere(run, op)
        return kept[op.number]

    def _panels(
        self,
        state: AppState,
        moment: Moment,
        map_view: GpaMapView,
        changes: tuple[Change, ...],
        *,
        question: bool,
    ) -> dict[str, Any]:
        view, theme = state.view, theme_named(state.view.theme)
        strip, hand_off, arrays = select_phases(moment), None, None
        if not never_was(moment):
            hand_off, arrays = select_hand_off(moment), select_arrays(moment)
        guards = select_guards(moment)
        size = _map_size(view)
        panels: dict[str, Any] = {
            "map": gpa_map_spec(map_view, theme, size)
            | {"windows": [[w.x0, w.x1, w.first_gfn, w.end_gfn] for w in map_view.windows]}
            | {"line": {"left": size.left, "top": size.bar_top, "bottom": size.bar_top + size.bar}}
            | {"parts": [[s.x0, s.x1, s.first_gfn, s.end_gfn] for s in map_view.segments]},
            "strip": phases_panel(strip) if strip is not None else _no_strip(moment),
            "fields": hand_off_panel(hand_off) if hand_off is not None else _no_hand_off(moment),
            # A slot that is new had no watches to account for.
            "ledger": ledger_panel(ledger_of(moment) if moment.old is not None else None),
            "guards": guards_panel(guards, select_xray(moment, changes), select_time_bar(moment))
            if guards is not None
            else _no_guards(),
            "note-handoff": _hand_off_note(hand_off.summary, hand_off.changed) if hand_off else el("span", ""),
            "note-guards": el("span", guards.summary if guards else ""),
            "note-table": el("span", ""),
        }
        if self._tab == _SLOTS:
            panels[_SLOTS] = self._table(state, moment)
        if arrays is not None:
            panels["arrays"] = arrays_spec(arrays, theme, _arrays_size(view))
        if question:
            panels["question"] = question_panel(moment)
        return panels

    def _table(self, state: AppState, moment: Moment) -> Node:
        """Return the slot table; most steps leave everything it shows as it was."""
        kvm, focus = moment.kvm, moment.focus
        active = tuple(kvm.active(as_id) for as_id in range(len(kvm.memslots)))
        shows = (*active, kvm.heap, kvm.active_mmu_pages, kvm.trackers)
        kept = self._kept_table
        if kept is None or kept.focus != focus or any(a is not b for a, b in zip(kept.shows, shows, strict=True)):
            panel = slot_table_panel(select_slot_table(moment, state.owner_names(moment.kvm)))
            kept = self._kept_table = _KeptTable(shows, focus, panel)
        return kept.panel

    def _words(self, profile: KernelProfile) -> str:
        """Return the digest of the glossary, which is the same at every stop on a kernel."""
        if self._glossaries.get(profile.name) not in self._pieces:
            self._glossaries[profile.name] = self._pieces.add(glossary_panel(profile))
        return self._glossaries[profile.name]


def _head(view: GpaMapView, sentence: str) -> Node:
    """Return what stands over the map: a sentence of the story, or which addresses it shows."""
    if sentence:
        return el("h2", sentence, cls="map-question")
    address, _, frames = view.subtitle.partition(" · ")
    place = el("small", el("span", address), el("span", f" · {frames}" if frames else "", cls="wide-only"), cls="code")
    return el("h2", view.title, " ", place)


def _map_size(view: View) -> MapSize:
    if view.map_height:
        return NARROW._replace(height=max(view.map_height, NARROW.height))
    return NARROW if view.narrow else WIDE


def _arrays_size(view: View) -> ArraysSize:
    if not view.narrow:
        return ARRAYS_WIDE
    return ARRAYS_NARROW if view.plot_width > _SMALL_PLOT else ARRAYS_NARROW._replace(width=330)


def preflight_panel(state: AppState) -> Node:
    """Return the preflight lines of the composed operation."""
    lines = preflight(state.compose, state.base, state.composed_here(), hidden=state.question)
    cls = "preflight" + (" is-error" if lines.error else " is-refused" if lines.refused else "")
    return el(
        "div",
        el("h3", "Preflight: run on a copy"),
        el("p", el("b", lines.title)) if lines.title else None,
        el("p", lines.text),
        el("p", f"Applied here, it sets {plural(state.later, 'later operation')} aside.", cls="aside")
        if state.later and state.compose.shown
        else None,
        cls=cls,
        role="status",
    )


def _opening_sentence(moment: Moment) -> str:
    focus = moment.focus
    slot = moment.kvm.slot(focus.slot_id, focus.as_id) if focus is not None else None
    n = len(watches_of(moment.kvm, slot))
    words = {0: "No page", 1: "One page", 2: "Two pages", 3: "Three pages"}.get(n, f"{n} pages")
    return f"A guest’s memory is made of slots. {words} of this one {'is' if n == 1 else 'are'} watched for writes."


def _hand_off_note(summary: str, changed: int | None) -> Node:
    if changed is None:
        return el("span", summary)
    here = f"{plural(changed, 'field')} changed" if changed else "no field changed"
    return el("span", el("span", f"{summary} · ", cls="wide-only"), here)


def _no_strip(moment: Moment) -> Node:
    text = (
        "No region call: it has no steps inside, and no slot changes hands."
        if moment.op is not None
        else "Steps appear here once a region call runs."
    )
    return el("div", el("p", text), cls="strip is-empty")


def _no_hand_off(moment: Moment) -> Node:
    if never_was(moment):
        return el("p", "Refused before a slot was made: nothing changes hands. The guards say why.", cls="empty")
    effects = select_effects(moment)
    if effects is not None and effects.rows:
        return effects_panel(effects)
    if effects is not None:
        return el("p", "This operation changed nothing that the model holds.", cls="empty")
    return el(
        "p",
        "Old slot, INVALID copy and new slot appear here, field by field, when a region call runs.",
        cls="empty",
    )


def _no_guards() -> Node:
    return el("p", "The checks of a region call appear here in kernel order, when one runs.", cls="empty")
