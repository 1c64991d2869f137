"""The tabs KVMGT, Compare and Calls: drawn for the stop the page is at, by message, and only while one of them is open.

Rule: a step of the page never waits for them. What the page already shows is not sent again.
"""

from __future__ import annotations

import json
from dataclasses import replace
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

from explorer.engine.types import ExplorerError
from explorer.figures.calls import calls_panel
from explorer.figures.compare import compare_panel
from explorer.figures.kvmgt import kvmgt_panel
from explorer.selectors.calls import select_calls
from explorer.selectors.compare import select_compare
from explorer.selectors.kvmgt import select_kvmgt

if TYPE_CHECKING:
    from explorer.app.state import AppState
    from explorer.figures.dom import Node

__all__ = ["LATE_TABS", "LateTab", "choose_table"]

LATE_TABS = ("kvmgt", "compare", "calls")


class LateTab:
    """Which of the tabs is open, and what the page has of it."""

    def __init__(self) -> None:
        """Start with all closed."""
        self.name = ""
        self._sent = ""

    def open(self, name: str) -> None:
        """Open a tab by its name; any other name closes the one that is open."""
        self.name = name if name in LATE_TABS else ""
        self._sent = ""

    def message(self, state: AppState) -> dict[str, Any]:
        """Return what the page should show at the state's stop; without a panel if it already does."""
        panel = _panel(self.name, state)
        digest = blake2b(json.dumps(panel).encode(), digest_size=9).hexdigest()
        fresh = {} if digest == self._sent else {"panel": panel}
        self._sent = digest
        return {"t": "late", "tab": self.name, "rev": state.revision, "at": list(state.stop), **fresh}


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
