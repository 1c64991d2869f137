"""Places that are pasted or being typed: the answer before anything on the page moves."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from explorer.app.looks import go_to
from explorer.engine.types import ExplorerError
from explorer.explain.quantity import parse_place, parse_room

if TYPE_CHECKING:
    from explorer.app.state import AppState

__all__ = ["Found", "find", "pasted_place"]

_LONGEST = 80


class Found(NamedTuple):
    """What going to a place would tell."""

    text: str
    error: bool


def find(state: AppState, text: str) -> Found:
    """Return what `go_to` would say of a place; the state stays as it is."""
    if not text.strip():
        return Found("", error=False)
    said = go_to(replace(state, notice=None), text[:_LONGEST]).notice
    return Found(said.text, error=said.kind == "error") if said is not None else Found("", error=False)


def pasted_place(data: bytes) -> str | None:
    """Return pasted text if it is a place, such as an address or ``gap>=16M <4G``; None for anything else."""
    text = data[: _LONGEST + 1].decode("utf-8", "replace").strip()
    if not text or len(data) > _LONGEST or "\n" in text:
        return None
    try:
        if parse_room(text) is None:
            parse_place(text)
    except ExplorerError:
        return None
    return text
