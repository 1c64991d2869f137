"""The widgets around the stage: chips, the composed operation, story, scale, go-to. Each dispatches one action."""

from __future__ import annotations

from dataclasses import replace
from functools import cache, partial
from typing import TYPE_CHECKING, Any

import ipywidgets as widgets

from explorer.app import looks, machines, telling
from explorer.app import state as actions
from explorer.app.compose import KINDS, OTHER_KINDS, fields_of, hints
from explorer.engine.mmu import zaps_all
from explorer.engine.profile import PROFILES
from explorer.engine.uapi import KVM_X86_DEFAULT_VM
from explorer.scenarios import load_scenario, machine_names, scenario_names

if TYPE_CHECKING:
    from collections.abc import Callable

    from explorer.app.state import AppState

__all__ = ["Controls"]

_MOST_FIELDS = max(len(fields_of(kind)) for kind, _ in (*KINDS, *OTHER_KINDS))
_LABELS = {
    "kind": "tracker",
    "gmem_off": "offset",
    "first": "from page",
    "num": "pages",
    "arg": "argument",
    "operations": "length",
}
_TRACKERS = (("none", "none"), ("logs only", "log"), ("KVMGT", "kvmgt"))
_SCALES = (("linear", "linear"), ("equal", "equal"), ("gaps collapsed", "collapsed"))


_NO_OTHER = "none"
"""Value of the drop-down of the rarer operations while one with a button is composed."""
_ELSEWHERE = "elsewhere"
"""Value of the drop-down for a run that is no story of the library."""


class Controls:
    """The widgets of one dashboard.

    Parameters
    ----------
    dispatch
        Called with an action and its arguments when a person changes a widget.
    """

    def __init__(self, dispatch: Callable[..., None]) -> None:
        """Build the widgets, empty until `show`."""
        self._dispatch = dispatch
        self._writing = False
        self._shared: dict[str, widgets.Widget] = {"layout": widgets.Layout()}
        self._chips = self._make_chips()
        self._fields, self._rows, self._remarks = self._make_fields()
        self._named: tuple[str, ...] = ()
        """What the fields on the page stand for."""
        self._kinds = {kind: self._make_kind(kind, label) for kind, label in KINDS}
        self._more = self._make("mx-more", widgets.Dropdown, options=_others(), description="other operations")
        self._hear(self._more, self._on_more)
        self._apply = self._make(
            "mx-apply", widgets.Button, description="Apply", tooltip="apply the composed operation"
        )
        self._apply.on_click(lambda _button: dispatch(actions.apply_composed))
        self._fit = self._make("mx-fit", widgets.Button, description="Fit", tooltip="fit the map to the operation")
        self._fit.on_click(lambda _button: dispatch(looks.fit))
        self._goto = self._make("mx-goto", widgets.Text, placeholder="address, slot, range", continuous_update=False)
        self._story = self._make("mx-story", widgets.Dropdown, options=_stories(), description="Story")
        self._scale = self._make("mx-scale", widgets.ToggleButtons, options=list(_SCALES), value="collapsed")
        self._hear(self._goto, self._on_goto)
        self._hear(self._story, self._on_story)
        self._hear(self._scale, lambda scale: dispatch(looks.set_scale, scale))

    def place(self, stage: widgets.Widget) -> widgets.Widget:
        """Return the whole page: the widgets, the stage, and the empty places where the stage puts its own."""
        box = self._box
        title = self._make("mx-title", widgets.Label, value="KVM memslots")
        top = box("mx-top", title, self._story, box("mx-chips", *self._chips.values()), self._goto)
        compose = box(
            "mx-compose",
            self._make("mx-h", widgets.Label, value="Next operation"),
            box("mx-ops", *self._kinds.values(), self._more),
            box("mx-fields", *self._rows),
            box("mx-preflight-slot"),
            self._apply,
            box("mx-import-slot"),
        )
        return box("mx-frame", box("mx-app", top, compose, box("mx-map-tools", self._scale, self._fit), stage))

    def show(self, state: AppState) -> None:
        """Write the state into the widgets without hearing them answer."""
        self._writing = True
        try:
            self._show_chips(state)
            self._show_compose(state)
            self._show_story(state)
            self._scale.value = state.view.scale
        finally:
            self._writing = False

    def _show_story(self, state: AppState) -> None:
        """Name the story; what comes from elsewhere, such as a log, stands behind the library's."""
        own = state.source in (*scenario_names(), *machine_names())
        options = _stories() if own else [*_stories(), (state.title, _ELSEWHERE)]
        if list(self._story.options) != options:
            self._story.options = options
        self._story.value = state.source if own else _ELSEWHERE

    def _show_chips(self, state: AppState) -> None:
        machine = state.machine
        self._chips["kernel"].value = machine.profile
        self._chips["tdp"].value = machine.config.tdp
        self._chips["external"].value = machine.config.external_write_tracking
        self._chips["tracker"].value = state.tracker
        zap = self._chips["zap"]
        zap.value = not zaps_all(state.kvm)
        in_the_run = zap.value and not machine.zap_slot_only
        zap.disabled = in_the_run or not PROFILES[machine.profile].slot_zap_quirk
        zap.tooltip = (
            "a VM of this type zaps only the slot"
            if in_the_run and machine.config.vm_type != KVM_X86_DEFAULT_VM
            else "an operation of this run switched it"
            if in_the_run
            else "userspace cannot ask for it before 6.12"
            if zap.disabled
            else "what a DELETE or MOVE zaps"
        )
        self._mark(self._chips["tracker"], "is-on", on=state.tracker != "none")

    def _show_compose(self, state: AppState) -> None:
        remarks = hints(state.compose, state.base)
        self._named = tuple(name for name, _ in state.compose.fields)
        for at, row in enumerate(self._rows):
            self._mark(row, "is-away", on=at >= len(self._named))
            if at < len(self._named):
                name = self._named[at]
                self._fields[at].description = _LABELS.get(name, name)
                self._fields[at].value = state.compose.text(name)
                self._remarks[at].value = remarks.get(name, "")
        for kind, button in self._kinds.items():
            self._mark(button, "is-chosen", on=kind == state.compose.kind)
        self._more.value = _NO_OTHER if state.compose.kind in self._kinds else state.compose.kind
        self._mark(self._more, "is-chosen", on=self._more.value != _NO_OTHER)
        self._mark(self._apply, "is-primary", on=not state.question and state.compose.shown)

    @staticmethod
    def _mark(widget: widgets.DOMWidget, cls: str, *, on: bool) -> None:
        (widget.add_class if on else widget.remove_class)(cls)

    # -- making and hearing ----------------------------------------------------------------------

    def _make(self, classes: str, kind: type[widgets.DOMWidget], **fields: Any) -> Any:
        """Make a widget for the stylesheet to dress.

        All share one layout, and those of a kind one style: each of these would be an object of its own to fetch
        when the page opens, a third of them all.
        """
        style = self._shared.get(kind.__name__)
        if style is not None:
            fields["style"] = style
        widget = kind(layout=self._shared["layout"], **fields)
        if hasattr(widget, "style"):
            self._shared[kind.__name__] = widget.style
        for name in classes.split():
            widget.add_class(name)
        return widget

    def _box(self, cls: str, *children: widgets.Widget) -> widgets.Box:
        box: widgets.Box = self._make(cls, widgets.Box, children=children)
        return box

    def _hear(self, widget: widgets.Widget, action: Callable[[Any], None]) -> None:
        def heard(change: dict[str, Any]) -> None:
            if not self._writing:
                action(change["new"])

        widget.observe(heard, "value")

    def _make_chips(self) -> dict[str, widgets.Dropdown]:
        choices: dict[str, tuple[str, list[tuple[str, Any]]]] = {
            "kernel": ("kernel", [(p.title, p.name) for p in PROFILES.values()]),
            "tdp": ("TDP", [("off", False), ("on", True)]),
            "external": ("external tracking", [("built in", True), ("off", False)]),
            "tracker": ("tracker", list(_TRACKERS)),
            "zap": ("zap", [("all", False), ("slot only", True)]),
        }
        chips = {}
        for name, (title, options) in choices.items():
            chip = self._make(f"mx-chip mx-chip-{name}", widgets.Dropdown, options=options, description=title)
            self._hear(chip, partial(self._on_chip, name))
            chips[name] = chip
        return chips

    def _on_chip(self, name: str, value: Any) -> None:
        def on_machine(state: AppState) -> AppState:
            machine = state.machine
            match name:
                case "tdp":
                    machine = machine._replace(config=replace(machine.config, tdp=value))
                case "external":
                    machine = machine._replace(config=replace(machine.config, external_write_tracking=value))
                case "zap":
                    machine = machine._replace(zap_slot_only=value)
            return machines.set_machine(state, machine)

        if name == "kernel":
            self._dispatch(machines.set_profile, value)
        elif name == "tracker":
            self._dispatch(actions.set_tracker, value)
        else:
            self._dispatch(on_machine)

    def _make_kind(self, kind: str, label: str) -> widgets.Button:
        button: widgets.Button = self._make(f"mx-op mx-op-{kind}", widgets.Button, description=label)
        button.on_click(lambda _button: self._dispatch(actions.choose, kind))
        return button

    def _make_fields(self) -> tuple[list[widgets.Text], list[widgets.Box], list[widgets.Label]]:
        fields, rows, remarks = [], [], []
        for at in range(_MOST_FIELDS):
            fields.append(self._make("mx-field", widgets.Text, continuous_update=True))
            remarks.append(self._make("mx-hint", widgets.Label))
            rows.append(self._box("mx-field-row", fields[at], remarks[at]))
            self._hear(fields[at], partial(self._on_field, at))
        return fields, rows, remarks

    def _on_field(self, at: int, text: str) -> None:
        self._dispatch(actions.edit, self._named[at], text)

    def _on_more(self, kind: str) -> None:
        if kind != _NO_OTHER:
            self._dispatch(actions.choose, kind)

    def _on_goto(self, text: str) -> None:
        if text.strip():
            self._dispatch(looks.go_to, text)

    def _on_story(self, name: str | None) -> None:
        if name and name != _ELSEWHERE:
            self._dispatch(telling.tell, name)


def _others() -> list[tuple[str, str]]:
    return [("other operations", _NO_OTHER), *((title, kind) for kind, title in OTHER_KINDS)]


@cache
def _stories() -> list[tuple[str, str]]:
    return [(load_scenario(name).title, name) for name in (*scenario_names(), *machine_names())]
