"""What a page sends to be read: a log in pieces, one failing line, a place, or the names of a layout.

A log is read beside the message loop, so that the page is answered meanwhile. The page waits until it is told that
the reading has ended, whatever came of it.
"""

from __future__ import annotations

import asyncio
import gc
from functools import partial
from typing import TYPE_CHECKING, Any

from explorer.app import logs, looks
from explorer.app import state as actions
from explorer.app.imports import read_log
from explorer.app.naming import holds_tree, name_layout
from explorer.app.one_line import failing_line, show_line
from explorer.app.places import pasted_place
from explorer.explain.words import size_text

if TYPE_CHECKING:
    from collections.abc import Callable

    from explorer.app.state import AppState
    from explorer.history import Run
    from explorer.trace import ImportedLog

__all__ = ["Uploads"]


class Uploads:
    """One page's uploads.

    Parameters
    ----------
    say
        Sends a message to the page.
    change
        Makes the next state by an action and shows it; an error becomes a notice. Returns the state.
    limit_bytes
        What a page may send, and what the importer reads once it is unpacked.
    """

    def __init__(
        self, say: Callable[[dict[str, Any]], None], change: Callable[..., AppState], *, limit_bytes: int
    ) -> None:
        """Start with nothing on its way."""
        self._say = say
        self._change = change
        self._limit_bytes = limit_bytes
        self._pieces = bytearray()

    def take(self, message: dict[str, Any], piece: bytes) -> None:
        """Take the next piece of a log; the last one starts the import."""
        at, size, name = int(message["at"]), int(message["size"]), str(message["name"])[:200]
        if at == 0:
            self._pieces.clear()
        if at != len(self._pieces) or size > self._limit_bytes:
            self._pieces.clear()
            self.end()
            self._change(
                actions.tell_error, f"{name} was not taken: a page takes logs up to {size_text(self._limit_bytes)}."
            )
            return
        self._pieces += piece
        if len(self._pieces) < size:
            self._say({"t": "taken", "at": len(self._pieces)})
            return
        data = bytes(self._pieces)
        self._pieces.clear()
        self._read(data, name)

    def end(self) -> None:
        """Tell the page that it need not wait for a log any longer; what came of it follows."""
        self._say({"t": "read"})

    def _read(self, data: bytes, name: str) -> None:
        at_once = _at_once(data, name, self._limit_bytes)
        if at_once is not None:
            action, tab = at_once
            self.end()
            notice = self._change(action).notice
            if tab and (notice is None or notice.kind != "error"):
                self._say({"t": "tab", "name": tab})
            return

        read = partial(read_log, data, name=name, limit_bytes=self._limit_bytes)
        gc.disable()  # of what is read nothing is garbage, and looking for some is a tenth of the time
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:  # no loop: in a test, or a terminal
            self.end()
            self._change(lambda state: logs.show_log(state, *read()))
            gc.enable()
            return
        loop.run_in_executor(None, read).add_done_callback(self._show)

    def _show(self, done: asyncio.Future[tuple[ImportedLog, Run]]) -> None:
        self.end()
        self._change(lambda state: logs.show_log(state, *done.result()))
        # A long run is a hundred thousand objects that stay. Looking through them would hold up a step now and then.
        gc.collect()
        gc.freeze()
        gc.enable()


def _at_once(data: bytes, name: str, limit_bytes: int) -> tuple[Callable[[AppState], AppState], str] | None:
    """Return what the names of a layout, a place or one failing line ask for, and the tab that shows it, if any.

    None is returned for what has to be read as a log.
    """
    if holds_tree(data, limit_bytes=limit_bytes):
        return lambda state: name_layout(state, data, name, limit_bytes), ""
    place = pasted_place(data)
    if place is not None:
        return lambda state: looks.go_to(state, place), ""
    line = failing_line(data)
    return None if line is None else (partial(show_line, line=line), "guards")
