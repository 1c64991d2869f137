"""The stage: one widget that draws a run in the browser, step by step, without a round trip.

It carries messages and nothing else; what they mean is in `explorer.app.dashboard`. The page asks for
plotly's script by message only where it cannot load it as a file.
"""

from __future__ import annotations

from importlib import resources
from typing import TYPE_CHECKING, Any

import anywidget

from explorer.figures.theme import stylesheet

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Stage", "plotly_script"]

_STATIC = resources.files("explorer.app") / "static"
_PARTS = (
    *("dom", "figures", "session"),
    *("page", "talk", "sheets", "notes", "logs", "bars", "late", "moving", "drawing", "hands"),
    "stage",
)
"""Files of the page's script in the order of reading. They are one script: a widget's module can import no file."""


def plotly_script() -> bytes:
    """Return plotly's script, as the installed plotly package has it."""
    return (resources.files("plotly") / "package_data" / "plotly.min.js").read_bytes()


class Stage(anywidget.AnyWidget):  # type: ignore[misc, unused-ignore]
    """The drawing surface; ``on_message`` receives what the page says."""

    _esm = "\n".join((_STATIC / f"{part}.js").read_text(encoding="utf-8") for part in _PARTS)
    _css = stylesheet()

    def __init__(self, on_message: Callable[[dict[str, Any], list[memoryview]], None], **kwargs: Any) -> None:
        """Create the widget; `on_message` is called with each message of the page and its bytes."""
        super().__init__(**kwargs)
        self.on_msg(lambda _widget, content, buffers: on_message(content, buffers))

    def say(self, message: dict[str, Any], buffers: list[bytes] | None = None) -> None:
        """Send a message to the page."""
        self.send(message, buffers=buffers)
