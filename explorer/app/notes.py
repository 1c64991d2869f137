"""Notes of a person, bound to stops of the run, and their place in the address.

A note is one line of text. It is text wherever it is shown: a text node on the page, escaped in an export.
"""

from __future__ import annotations

import base64
import binascii
import zlib
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from explorer.app.link import LinkError
from explorer.explain.words import plural
from explorer.history import Stop

if TYPE_CHECKING:
    from explorer.app.state import AppState

__all__ = ["LONGEST", "MOST", "Note", "NotesError", "in_address", "of_address", "written"]

LONGEST = 200
"""Characters of a note."""
MOST = 40
"""Notes of a run."""
_UNFOLDED = 4 * LONGEST * MOST + 32 * MOST


class Note(NamedTuple):
    """What somebody wrote at a stop; notes order as time does."""

    stop: Stop
    text: str


class NotesError(LinkError):
    """A note cannot be taken."""


def written(notes: tuple[Note, ...], stop: Stop, text: str) -> tuple[Note, ...]:
    """Return notes with one more, in the order of their stops; one at the same stop goes, and an empty one is none.

    Raises
    ------
    NotesError
        If there are too many.
    """
    others = [note for note in notes if note.stop != stop]
    line = _one_line(text)
    if line and len(others) >= MOST:
        raise NotesError(f"There are {MOST} notes already, and an address holds no more: remove one first.")
    return tuple(sorted([*others, Note(stop, line)] if line else others))


def _one_line(text: str) -> str:
    line = " ".join("".join(char if char.isprintable() else " " for char in text).split())
    return line[:LONGEST].rstrip()


# -- in an address ---------------------------------------------------------------------------------


def in_address(notes: tuple[Note, ...]) -> dict[str, str]:
    """Return the parameter that holds notes; none if there are none."""
    if not notes:
        return {}
    lines = "\n".join(f"{note.stop.op + 1}.{note.stop.cell + 1} {note.text}" for note in notes)
    return {"m": base64.urlsafe_b64encode(zlib.compress(lines.encode(), 9)).decode().rstrip("=")}


def of_address(state: AppState, parameters: dict[str, str]) -> AppState:
    """Return the state with the notes of an address; those beyond its run are left out, and it says so.

    Raises
    ------
    NotesError
        If they cannot be read.
    """
    if "m" not in parameters:
        return state
    notes: tuple[Note, ...] = ()
    for line in _lines(parameters["m"]):
        place, _, text = line.partition(" ")
        op, dot, cell = place.partition(".")
        if not (dot and op.isascii() and op.isdecimal() and cell.isascii() and cell.isdecimal() and len(place) < 16):
            raise NotesError(f"The notes of this address cannot be read: {place[:16]!r} is no place such as 12.3.")
        notes = written(notes, Stop(int(op) - 1, max(int(cell) - 1, 0)), text)
    kept = tuple(note for note in notes if note.stop.op < len(state.run))
    if len(kept) < len(notes):
        raise NotesError(
            f"{plural(len(notes) - len(kept), 'note')} of this address are bound to operations that its run"
            " does not have; no note was taken."
        )
    return replace(state, notes=kept)


def _lines(packed: str) -> list[str]:
    try:
        raw = base64.b64decode(packed + "=" * (-len(packed) % 4), altchars=b"-_", validate=True)
        unfolder = zlib.decompressobj()
        text = unfolder.decompress(raw, _UNFOLDED)
        if unfolder.unconsumed_tail or not unfolder.eof:
            raise NotesError("The notes of this address are too long or cut off; none was taken.")
        return text.decode().splitlines()
    except (binascii.Error, zlib.error, UnicodeDecodeError, ValueError) as error:
        raise NotesError("The notes of this address are damaged; was it cut off?") from error
