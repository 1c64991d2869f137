"""The tabs KVMGT, Compare, Calls and Over time: drawn for the page's stop, by message, and only while one is open.

Rule: a step of the page never waits for them. What the page already shows is not sent again.
"""

from __future__ import annotations

import json
from dataclasses import replace
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, NamedTuple

from explorer.engine.types import ExplorerError
from explorer.figures.calls import calls_panel
from explorer.figures.compare import compare_panel
from explorer.figures.kvmgt import kvmgt_panel
from explorer.figures.over_time import CHART, chart_places, over_time_head, over_time_spec, over_time_table
from explorer.figures.theme import theme_named
from explorer.selectors.calls import select_calls
from explorer.selectors.compare import select_compare
from explorer.selectors.kvmgt import select_kvmgt
from explorer.selectors.over_time import moved_to, select_over_time
from explorer.selectors.time_words import Naming

if TYPE_CHECKING:
    from explorer.app.state import AppState
    from explorer.figures.dom import Node
    from explorer.history import Run
    from explorer.selectors.over_time import TimeView

__all__ = ["LATE_TABS", "OVER_TIME", "LateTab", "choose_space", "choose_table"]

OVER_TIME = "over-time"
LATE_TABS = ("kvmgt", "compare", OVER_TIME, "calls")
_LEAST_ROOM, _MOST_ROOM = (240, 120), (6000, 4000)


class _Drawn(NamedTuple):
    """Slots over time as they were drawn last, and what they were made of."""

    run: Run
    made_of: tuple[object, ...]
    view: TimeView
    parts: dict[str, Any]


class LateTab:
    """Which of the tabs is open, and what the page has of it."""

    def __init__(self) -> None:
        """Start with all closed."""
        self.name = ""
        self.room: tuple[int, int] | None = None
        """Width and height in pixels that the page has for the chart of slots over time, once it has said so."""
        self._sent: dict[str, tuple[Any, str]] = {}
        self._drawn: _Drawn | None = None

    def open(self, name: str) -> None:
        """Open a tab by its name; any other name closes the one that is open."""
        self.name = name if name in LATE_TABS else ""
        self._sent = {}

    def take_room(self, width: float, height: float) -> None:
        """Hear how large the chart of slots over time can be."""
        low, high = _LEAST_ROOM, _MOST_ROOM
        self.room = (int(min(max(width, low[0]), high[0])), int(min(max(height, low[1]), high[1])))

    def message(self, state: AppState) -> dict[str, Any]:
        """Return what the page should show at the state's stop; without what it already shows."""
        made = self._over_time(state) if self.name == OVER_TIME else {"panel": _panel(self.name, state)}
        fresh = {name: part for name, part in made.items() if self._is_fresh(name, part)}
        return {"t": "late", "tab": self.name, "rev": state.revision, "at": list(state.stop), **fresh}

    def _is_fresh(self, name: str, part: Any) -> bool:
        sent, digest_sent = self._sent.get(name, (None, ""))
        if sent is part:
            return False
        digest = blake2b(json.dumps(part).encode(), digest_size=9).hexdigest()
        self._sent[name] = (part, digest)
        return digest != digest_sent

    def _over_time(self, state: AppState) -> dict[str, Any]:
        """Return head, chart and words; a step inside the same window makes only the head anew."""
        room = self.room or (970, 560)
        names = Naming(state.owners, state.backings)
        made_of = (state.view.space, room, names, state.recorded, state.view.theme)
        kept = self._drawn
        if kept is not None and kept.run is state.run and kept.made_of == made_of:
            view = moved_to(kept.view, state.run, state.stop)
            if view is not None:
                self._drawn = kept._replace(view=view)
                return {"panel": over_time_head(view), **(kept.parts if self.room else {})}
        view = select_over_time(
            state.run,
            state.stop,
            as_id=state.view.space,
            room=(room[0] - CHART.left - CHART.right, room[1] - CHART.top - CHART.foot),
            naming=names,
            log=state.recorded,
        )
        spec = over_time_spec(view, theme_named(state.view.theme), cursor=False)
        parts = {"chart": {**spec, **chart_places(view), "says": view.sentence}, "words": over_time_table(view)}
        self._drawn = _Drawn(state.run, made_of, view, parts)
        # The page knows how much room is left for the chart once it has the head.
        return {"panel": over_time_head(view), **(parts if self.room else {})}


def _panel(name: str, state: AppState) -> Node:
    if name == "kvmgt":
        return kvmgt_panel(select_kvmgt(state.run, state.stop, state.view.gpu_table))
    if name == "calls":
        return calls_panel(select_calls(state.run, state.stop))
    return compare_panel(select_compare(state.run, state.stop.op, state.ghost if state.at_end else None))


def choose_table(state: AppState, key: str) -> AppState:
    """Look at another page table of the GPU.

    Parameters
    ----------
    state
        The state before.
    key
        Tracker and page, such as ``0:851984``.
    """
    user, _, gfn = key.partition(":")
    if not (user.isdecimal() and gfn.isdecimal()):
        raise ExplorerError(f"{key[:20]!r} is no table of the GPU; expected a tracker and a page, such as 0:851984")
    return replace(state, view=state.view._replace(gpu_table=(int(user), int(gfn))))


def choose_space(state: AppState, key: str) -> AppState:
    """Look at the slots of another address space over time."""
    spaces = len(state.run.start.memslots)
    if not (key.isdecimal() and int(key) < spaces):
        raise ExplorerError(f"{key[:20]!r} is no address space of this VM; expected a number below {spaces}")
    return replace(state, view=state.view._replace(space=int(key)))
