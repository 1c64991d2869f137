"""The dashboard: state, controls and stage tied together. What the page says becomes one action."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from dataclasses import replace
from functools import cached_property, partial
from time import monotonic
from typing import TYPE_CHECKING, Any

from IPython.display import display

from explorer.app import addresses, kernels, looks, machines, telling
from explorer.app import state as actions
from explorer.app.controls import Controls
from explorer.app.frames import FrameBuilder, preflight_panel
from explorer.app.kernels import KernelsTab
from explorer.app.late_tabs import OVER_TIME, LateTab, choose_space, choose_table
from explorer.app.marks import TimelineMarks, go_to_first
from explorer.app.notes import in_address, of_address
from explorer.app.onward import Performed, file_of, formats, perform_here
from explorer.app.places import find
from explorer.app.stage import Stage, plotly_script
from explorer.app.state import AppState, initial_state
from explorer.engine.profile import PROFILES
from explorer.engine.types import ExplorerError
from explorer.explain.origins import chain_of, name_of, value_named, values_at
from explorer.explain.words import plural
from explorer.figures.claims import claims_panel
from explorer.figures.dom import el
from explorer.figures.origins import why_panel
from explorer.history import Run, Stop
from explorer.history.moment import SlotKey, moment_at

if TYPE_CHECKING:
    from collections.abc import Callable

    from explorer.app.uploads import Uploads

__all__ = ["App"]

UPLOAD_LIMIT = 64 << 20
"""Bytes of a log a page may send, and bytes the importer reads once it is unpacked."""

_log = logging.getLogger(__name__)

_FAILED = "The explorer itself failed here and changed nothing. The log of its kernel says where."
_PLAYED = (actions.apply_composed, actions.apply_fields, telling.answer)
"""Actions whose operation the page plays, step by step, instead of showing its end."""
_PAUSE_SECONDS = 0.002
"""Between two frames that nobody asked for yet."""
_KERNELS_AFTER = 0.03
"""Seconds after which the Kernels tab follows: the pictures of a step come first."""
_TELL_EVERY = 0.5
"""Seconds between two looks at what the Kernels tab has so far."""
_CHECKS_AFTER = 0.2
"""Seconds of rest after which invariants are evaluated along the run."""
_CHECKS_PAUSE = 0.01
"""Between two turns of that work."""
_MOST_WANTED = 24
"""Stops a page may ask for in one message."""


class App:
    """One visitor's dashboard.

    Parameters
    ----------
    scenario
        Scenario to open with.
    """

    def __init__(self, scenario: str = "first-look") -> None:
        """Build the controls; nothing is drawn until the page says how large it is."""
        self.state: AppState = initial_state(scenario)
        self.stage = Stage(self._on_message)
        self.stage.add_class("mx-stage")
        self._builder = FrameBuilder()
        self._controls = Controls(self.dispatch)
        self._ahead: deque[Stop] = deque()
        """Stops whose frames are sent when nothing else is to do."""
        self._kernels = KernelsTab()
        self._kernels_open = False
        self._kernels_turn = 0
        """Goes up when the tab has something else to show, so that older work ends."""
        self._late = LateTab()
        self._marks = TimelineMarks()
        self._marks_turn = 0
        self._told: dict[str, Any] = {}
        """What the page was last told of what surrounds the pictures."""
        self._performed: tuple[Run, Performed] | None = None
        """What came of the run that was last performed on the machine's own KVM."""
        self.widget = self._controls.place(self.stage)
        self._controls.show(self.state)

    @cached_property
    def _uploads(self) -> Uploads:
        """Where logs arrive. Most visitors bring none, and for the others the page was there sooner."""
        from explorer.app.uploads import Uploads  # noqa: PLC0415 - with it come all readers of logs

        return Uploads(self.stage.say, self._change, limit_bytes=UPLOAD_LIMIT)

    def _ipython_display_(self) -> None:
        """Show the dashboard as a notebook's output."""
        display(self.widget)  # type: ignore[no-untyped-call, unused-ignore]

    # -- state -----------------------------------------------------------------------------------

    def dispatch(self, action: Callable[..., AppState], *arguments: Any) -> None:
        """Make the next state and show it; an error becomes a notice and changes nothing else."""
        self._change(action, *arguments)

    def _change(self, action: Callable[..., AppState], *arguments: Any, mode: str = "") -> AppState:
        """Make the next state; `mode` is how the page takes it: ``jump``, ``play`` into it, or ``follow`` on."""
        before = self.state
        try:
            self.state = action(before, *arguments)
        except ExplorerError as error:
            self.state = actions.tell_error(before, str(error))
        except Exception:  # noqa: BLE001 - a person sees a sentence, never a traceback; the log has it
            _log.exception("an action failed")
            self.state = actions.tell_error(before, _FAILED)
        try:
            self._show_change(before, mode or ("play" if action in _PLAYED else "jump"))
        except Exception:  # noqa: BLE001 - a state that cannot be shown is left, or no key would be answered any more
            _log.exception("a state could not be shown")
            self.state = actions.redraw(replace(actions.tell_error(before, _FAILED), revision=self.state.revision))
            self._show_change(before, "jump")
        return self.state

    def _show_change(self, before: AppState, mode: str) -> None:
        self._controls.show(self.state)
        self._builder.use(self.state)
        if self.state.revision == before.revision:
            self._say_around()
        else:
            self._send_plan(mode)
            if mode == "play" and self.state.run is not before.run and self.state.run.outcomes[-1].errno is not None:
                self.stage.say({"t": "tab", "name": "guards", "from": "handoff"})  # what the refusal cost stands there
        self._show_kernels()
        self._show_marks()

    def _send_plan(self, mode: str = "jump") -> None:
        """Tell the page that pictures changed: how many stops there are, and the first of them."""
        state = self.state
        stop = Stop(state.stop.op, 0) if mode == "play" else state.stop
        self._told = self._around()
        self.stage.say(
            {
                "t": "plan",
                **self._told,
                "rev": state.revision,
                "at": list(stop),
                "mode": mode,
                "ops": len(state.run),
                "ghost": state.ghost is not None,
                "limit": UPLOAD_LIMIT,
                "first": self._builder.message([stop]),
            }
        )

    def _say_around(self) -> None:
        """Tell the page what is new of what surrounds the pictures: at most stops it is little."""
        now = self._around()
        self.stage.say(
            {"t": "around"} | {key: value for key, value in now.items() if self._told.get(key, ...) != value}
        )
        self._told = now

    def _around(self) -> dict[str, Any]:
        """Return what surrounds the pictures: notice, preflight, address, question."""
        state = self.state
        notice = state.notice
        return {
            "notice": notice and notice._asdict(),
            "preflight": preflight_panel(state),
            "link": self._address(),
            "marks": self._marks.message(state),
            "question": state.question,
            "earlier": _way_back(state),
            "formats": formats(),
            "device": self._badge(),
        }

    def _address(self) -> dict[str, str]:
        link = addresses.to_link(self.state)
        return link | in_address(self.state.notes) if link or self.state.question else link

    def _badge(self) -> list[str] | None:
        """Return what the badge of the device says; nothing once another run is shown."""
        if self._performed is None or self._performed[0] is not self.state.run:
            return None
        return [self._performed[1].badge, self._performed[1].tone]

    # -- messages of the page --------------------------------------------------------------------

    def _on_message(self, message: dict[str, Any], buffers: list[memoryview]) -> None:
        try:
            self._hear(message, buffers)
        except Exception:  # noqa: BLE001 - a person sees a sentence, never a page that waits for ever
            _log.exception("a message of the page could not be answered")
            if message.get("t") == "upload":
                self._uploads.end()
            # A page that waits for a picture it will not get goes back to the stop Python is at.
            self._change(_tell_no_picture if message.get("t") == "want" else actions.tell_error, _FAILED)

    def _hear(self, message: dict[str, Any], buffers: list[memoryview]) -> None:
        match message.get("t"):
            case "ping":
                self.stage.say({"t": "pong"})
            case "plotly":
                self.stage.say({"t": "plotly"}, [plotly_script()])
            case "hello":
                self._hello(message)
            case "size":
                self._fit(message)
            case "want":
                self._give(message)
            case "at":
                if message.get("rev", self.state.revision) == self.state.revision:  # else: in pictures that are gone
                    self._follow(Stop(int(message["op"]), int(message["cell"])))
            case "upload":
                self._uploads.take(message, bytes(buffers[0]) if buffers else b"")
            case "key":
                self._key(str(message.get("key")))
            case "why":
                self._why(Stop(int(message["op"]), int(message["cell"])), message)
            case "thread":
                self.stage.say({"t": "thread", "panel": claims_panel()})
            case "tab":
                self._open_tab(str(message.get("name")))
            case "room":
                self._late.take_room(float(message["width"]), float(message["height"]))
                if self._late.name == OVER_TIME:
                    self._show_late(self._kernels_turn)
            case "perform":
                self._perform(self.state.run)
            case "export":
                self._export(str(message.get("format")))
            case "find":
                found = find(self.state, str(message.get("text")))
                self.stage.say({"t": "found", "text": found.text, "error": found.error})
            case _:
                self._act(message)

    def _act(self, message: dict[str, Any]) -> None:
        """Do what a message of the page asks for as one action on the state."""
        match message.get("t"):
            case "apply" if "fields" in message:
                self._change(actions.apply_fields, tuple(str(text) for text in message["fields"]))
            case "apply":
                self._change(actions.apply_composed)
            case "answer":
                self._change(telling.answer, int(message["n"]))
            case "slot":
                as_id, _, slot_id = str(message["key"]).partition(":")
                self._change(looks.look_at, SlotKey(int(as_id), int(slot_id)))
            case "claim":
                self._change(telling.show_claim, str(message["key"]))
            case "beat":
                self._change(telling.turn, int(message["by"]))
            case "story":
                self._change(telling.tell, str(message["key"]))
            case "fit":
                self._change(looks.fit)
            case "zoom":
                first, end = (int(gfn) for gfn in message["shown"])
                self._change(looks.zoom, int(message["gfn"]), float(message["factor"]), (first, end))
            case "pan":
                first, end = (int(gfn) for gfn in message["shown"])
                self._change(looks.pan, int(message["by"]), (first, end))
            case "brush":
                self._change(looks.brush, int(message["first"]), int(message["end"]))
            case "matrix" | "era" | "pick" | "test" as kind:
                self._change(kernels.action_of(kind, str(message["key"])))
            case "gpu":
                self._change(choose_table, str(message["key"]))
            case "space":
                self._change(choose_space, str(message["key"]))
            case "note":
                self._change(addresses.write_note, Stop(int(message["op"]), int(message["cell"])), str(message["text"]))
            case "first":
                self._go_to_first()
            case "dismiss":
                self._change(actions.dismiss)
            case "earlier":
                self._change(actions.restore_earlier)

    def _hello(self, message: dict[str, Any]) -> None:
        """Answer a page that has just loaded: its size, its theme, and the state its address asks for."""
        self._builder.forget_sent()
        self._kernels_open = False  # the page says which tab it opens
        self._late.open("")
        parameters = message.get("link")
        if isinstance(parameters, dict) and parameters and not message.get("again"):
            words = {str(k): str(v) for k, v in parameters.items()}
            self.state = addresses.from_link(self.state, words)
            self._take_notes(words)
        self.state = _fitted(self.state, message)
        self._controls.show(self.state)
        self._builder.use(self.state)
        self._send_plan("follow" if message.get("again") else "jump")
        self._show_marks()

    def _take_notes(self, parameters: dict[str, str]) -> None:
        """Take the notes of an address; an address that was refused as a whole has none."""
        said = self.state.notice
        if said is None or said.kind != "error":
            try:
                self.state = of_address(self.state, parameters)
            except ExplorerError as error:
                self.state = actions.tell_error(self.state, str(error))

    def _fit(self, message: dict[str, Any]) -> None:
        fitted = _fitted(self.state, message)
        if fitted.view != self.state.view:
            self.state = fitted
            self._builder.use(fitted)
            self._send_plan("follow")
            self._show_kernels()

    def _give(self, message: dict[str, Any]) -> None:
        """Send the frames a page asks for, unless they are of a state that is gone.

        Where a person goes comes at once, and what was asked for ahead of the stop they leave is not wanted any more.
        Where they may go next waits until nothing else is to do.
        """
        stops = [Stop(int(op), int(cell)) for op, cell in message.get("stops", [])][:_MOST_WANTED]
        if message.get("rev") != self.state.revision or not stops:
            return
        if not message.get("ahead"):
            self._ahead.clear()
            self._send_frames(stops)
            return
        waiting = bool(self._ahead)
        self._ahead = deque([*stops, *(stop for stop in self._ahead if stop not in stops)])
        if not waiting:
            self._look_ahead(self.state.revision)

    def _send_frames(self, stops: list[Stop]) -> None:
        self._builder.use(self.state)
        self.stage.say(self._builder.message([self._known(stop) for stop in stops]))

    def _look_ahead(self, revision: int) -> None:
        """Send the next frame that may be wanted, then let the page's other messages through."""
        if revision != self.state.revision:
            self._ahead.clear()
        if not self._ahead:
            return
        self._send_frames([self._ahead.popleft()])
        try:
            asyncio.get_running_loop().call_later(_PAUSE_SECONDS, self._look_ahead, revision)
        except RuntimeError:  # no loop: in a test, or a terminal
            self._look_ahead(revision)

    def _why(self, stop: Stop, message: dict[str, Any]) -> None:
        """Answer why a value is what it is at a stop."""
        state = self.state
        run = state.run_ahead() if stop.op >= len(state.run) else state.run
        moment = moment_at(run, stop, focus=state.view.focus)
        value = value_named(moment, str(message.get("key", "")))
        if value is None:
            self.stage.say({"t": "why", "panel": el("p", "No operation has made a value yet.")})
            return
        others = tuple((other.key, name_of(other, moment)) for other in values_at(moment))
        panel = why_panel(chain_of(run, moment, value), others, whole=bool(message.get("all")))
        self.stage.say({"t": "why", "panel": panel})

    def _known(self, stop: Stop) -> Stop:
        ahead = self.state.run_ahead() if stop.op >= len(self.state.run) else self.state.run
        return ahead.clamp(stop)

    def _follow(self, stop: Stop) -> None:
        """Follow the page's cursor; beyond the end it applies the composed operation."""
        self._builder.visit(stop)
        if stop != self.state.stop:
            self._change(actions.step_to, stop, mode="follow")

    def _key(self, key: str) -> None:
        match key:
            case "k":
                self._change(actions.set_tracker, "none" if self.state.tracker == "kvmgt" else "kvmgt")
            case "v":
                names = list(PROFILES)
                at = names.index(self.state.machine.profile)
                self._change(machines.set_profile, names[(at + 1) % len(names)])
            case "i":
                self._change(kernels.flip_test)
            case "u":
                self._change(looks.undo_view)

    # -- marks of the timeline -------------------------------------------------------------------

    def _go_to_first(self) -> None:
        self._change(go_to_first, self._marks)
        if self._marks.checks.first is not None:
            self.stage.say({"t": "go", "at": list(self.state.stop)})

    def _show_marks(self) -> None:
        """Evaluate invariants once the page rests; who steps on is not held up."""
        self._marks_turn += 1
        try:
            asyncio.get_running_loop().call_later(_CHECKS_AFTER, self._work_on_marks, self._marks_turn)
        except RuntimeError:
            return  # no loop, and so no page that rests: in a test, or a terminal

    def _work_on_marks(self, turn: int) -> None:
        if turn != self._marks_turn:
            return
        try:
            self._marks.use(self.state)
            more = self._marks.work()
            self._say_marks()
        except Exception:  # noqa: BLE001 - a person loses marks, not the page; the log says why
            _log.exception("the invariants could not be evaluated")
            return
        if more:
            self._later(_CHECKS_PAUSE, self._work_on_marks, turn)

    def _say_marks(self) -> None:
        fresh = self._marks.fresh(self.state)
        if fresh is not None:
            self._told["marks"] = fresh
            self.stage.say({"t": "marks", "marks": fresh})

    # -- the Kernels tab -------------------------------------------------------------------------

    def _open_tab(self, name: str) -> None:
        """Compute every kernel's answers while their tab is open, and not otherwise."""
        self._kernels_open = name == "kernels"
        self._late.open(name)
        self._builder.open_tab(name)
        if self._kernels_open:
            self._kernels.forget_sent()
        if self._kernels_open or self._late.name:
            self._change(kernels.leave_question)

    def _show_kernels(self) -> None:
        self._kernels_turn += 1
        if self._kernels_open:
            self._later(_KERNELS_AFTER, self._work_on_kernels, self._kernels_turn, monotonic())
        if self._late.name:
            self._later(_KERNELS_AFTER, self._show_late, self._kernels_turn)

    def _show_late(self, turn: int) -> None:
        """Show the open one of those tabs for the stop the page is at, unless the page has moved on."""
        if turn != self._kernels_turn or not self._late.name:
            return
        try:
            self.stage.say(self._late.message(self.state))
        except Exception:  # noqa: BLE001 - a person sees a sentence, never a traceback; the log has it
            _log.exception("the tab %s failed", self._late.name)
            self._late.open("")
            self._change(actions.tell_error, _FAILED)

    def _work_on_kernels(self, turn: int, told: float, *, window: bool = False) -> None:
        """Replay a piece and go on later; say what there is once the window is complete, and now and then."""
        if turn != self._kernels_turn or not self._kernels_open:
            return
        try:
            self._kernels.use(self.state)
            near, done = self._kernels.work()
            if done or near > window or monotonic() - told > _TELL_EVERY:
                self.stage.say(self._kernels.message(done=done))
                told = monotonic()
        except Exception:  # noqa: BLE001 - a person sees a sentence, never a traceback; the log has it
            _log.exception("the Kernels tab failed")
            self._kernels_open = False
            self._change(actions.tell_error, _FAILED)
            return
        if not done:
            self._later(_PAUSE_SECONDS, partial(self._work_on_kernels, turn, told, window=near))

    @staticmethod
    def _later(seconds: float, call: Callable[..., None], *arguments: Any) -> None:
        try:
            asyncio.get_running_loop().call_later(seconds, call, *arguments)
        except RuntimeError:  # no loop: in a test, or a terminal
            call(*arguments)

    # -- onward ----------------------------------------------------------------------------------

    def _perform(self, run: Run) -> None:
        """Perform the run on the machine's own KVM beside the message loop, after the page has asked for it."""

        def show(performed: Performed) -> None:
            self._performed = (run, performed)
            self._told["device"] = self._badge()
            self.stage.say({"t": "device", "panel": performed.panel, "badge": self._told["device"]})

        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            show(perform_here(run))
            return
        loop.run_in_executor(None, perform_here, run).add_done_callback(lambda done: show(done.result()))

    def _export(self, name: str) -> None:
        """Send the run as a file, which the page saves."""
        try:
            file, text = file_of(self.state, name)
        except ExplorerError as error:
            self._change(actions.tell_error, str(error))
            return
        self.stage.say({"t": "file", "name": file}, [text.encode()])


def _tell_no_picture(state: AppState, text: str) -> AppState:
    return actions.redraw(actions.tell_error(state, text))


def _way_back(state: AppState) -> str:
    """Return the words of the button that leads to the run before, for the notice that came with this one."""
    if state.earlier is None or state.notice is None or not state.notice.back:
        return ""
    return f"Back to {state.earlier.title}, {plural(len(state.earlier.run), 'operation')}"


def _fitted(state: AppState, message: dict[str, Any]) -> AppState:
    """Take the page's size and theme into the view."""
    return looks.fitted(
        state,
        width=float(message.get("width") or 0),
        map_width=float(message.get("map") or 0),
        map_height=float(message.get("talk") or 0),
        theme=str(message.get("theme") or "light"),
    )
