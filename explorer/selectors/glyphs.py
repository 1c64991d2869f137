"""The glyph and the title of an operation, wherever operations stand in a line."""

from __future__ import annotations

from typing import TYPE_CHECKING

from explorer.engine.commands import (
    AttachTracker,
    DetachTracker,
    GuestWrite,
    SetMemoryRegion,
    ShadowTables,
    TrackGfn,
    UntrackGfn,
)
from explorer.engine.uapi import KvmMrChange

if TYPE_CHECKING:
    from explorer.engine.commands import Command
    from explorer.history import Outcome

__all__ = ["CHANGE_TITLES", "glyph_of"]

CHANGE_TITLES = {
    KvmMrChange.CREATE: "Create",
    KvmMrChange.DELETE: "Delete",
    KvmMrChange.MOVE: "MOVE",
    KvmMrChange.FLAGS_ONLY: "Flags",
    KvmMrChange.NOOP: "No-op",
    None: "Refused",
}


_CHANGES = {
    KvmMrChange.CREATE: "create",
    KvmMrChange.DELETE: "delete",
    KvmMrChange.MOVE: "move",
    KvmMrChange.FLAGS_ONLY: "flags",
    KvmMrChange.NOOP: "no_op",
    None: "other",
}


def glyph_of(command: Command, outcome: Outcome) -> str:
    """Return the name of an operation's glyph."""
    if outcome.errno is not None:
        return "rejected"
    match command:
        case SetMemoryRegion():
            return _CHANGES[outcome.change]
        case AttachTracker():
            return "attach"
        case DetachTracker():
            return "detach"
        case TrackGfn():
            return "external"
        case UntrackGfn():
            return "released"
        case ShadowTables():
            return "tables"
        case GuestWrite():
            return "write"
        case _:
            return "other"
