"""Numbers as people type them: hex, decimal, units, sums; and places to go to.

::

    0xc0000     4096     2M     3G-16M     gfn:0x100     slot 4     hva:0x7f0000000000     0xc0000..0x100000
    gap>=16M <4G

Addresses are bytes unless a word says otherwise. Bad input is explained, never guessed.
"""

from __future__ import annotations

import re
from typing import Literal, NamedTuple

from explorer.engine.types import PAGE_SHIFT, U64_MAX, ExplorerError

__all__ = ["GRAMMAR", "Place", "QuantityError", "Room", "parse_place", "parse_quantity", "parse_room"]

GRAMMAR = (
    "write an address such as 0xc0000, 2M or 3G-16M, a page as gfn:0x100, slot 4, hva:0x7f0000000000, a range a..b,"
    " or gap>=16M <4G for room"
)
_UNITS = {"": 0, "k": 10, "m": 20, "g": 30, "t": 40, "p": 50}
_TERM = re.compile(r"\s*([+-]?)\s*(0x[0-9a-f_]+|[0-9][0-9_]*)\s*([kmgtp]?)(?:i?b)?\s*", re.IGNORECASE)
_ROOM = re.compile(r"gap\s*>?=?\s*([^<>=]+)((?:[<>]=?[^<>=]+)*)", re.IGNORECASE)
_BOUND = re.compile(r"([<>])=?([^<>=]+)")
_PLACE = re.compile(r"(gfn|gpa|hva|slot|as)\s*[:# ]\s*(.+)", re.IGNORECASE)


class QuantityError(ExplorerError):
    """Text is no number or place; the message says what was read and what could stand there."""


class Place(NamedTuple):
    """Somewhere to go: a slot, a host address, or a range of guest pages."""

    kind: Literal["gfn", "hva", "slot"]
    start: int
    """First gfn, host address in bytes, or slot id."""
    end: int
    """First gfn behind a range; the start again for a single place."""
    as_id: int = 0


class Room(NamedTuple):
    """What a hole must have for something to fit: so many bytes between two addresses."""

    size: int
    start: int = 0
    """First address allowed."""
    end: int = U64_MAX + 1
    """First address not allowed."""


def parse_quantity(text: str, *, what: str = "value") -> int:
    """Return the number a text stands for: terms with units, added and subtracted.

    Raises
    ------
    QuantityError
        If the text is empty or no number, or the result does not fit 64 unsigned bits.
    """
    cleaned = text.strip()
    if not cleaned:
        raise QuantityError(f"{what} is empty; write a number such as 0x1000, 4096 or 2M")
    total, at = 0, 0
    while at < len(cleaned):
        term = _TERM.match(cleaned, at)
        if term is None or (at and not term[1]):
            shown = cleaned[at : at + 20]
            raise QuantityError(f"{what}: cannot read {shown!r}; write a number such as 0x1000, 4096, 2M or 3G-16M")
        try:
            value = (
                int(term[2].replace("_", ""), 0 if term[2].lower().startswith("0x") else 10) << _UNITS[term[3].lower()]
            )
        except ValueError:
            raise QuantityError(f"{what}: {term[2][:20]!r} is no number; write 0x1000 or 4096") from None
        total += -value if term[1] == "-" else value
        at = term.end()
    if total < 0:
        raise QuantityError(f"{what} is below 0; write a number from 0 to {U64_MAX:#x}")
    if total > U64_MAX:
        raise QuantityError(f"{what} does not fit 64 bits; write a number up to {U64_MAX:#x}")
    return total


def parse_place(text: str) -> Place:
    """Return where a text leads.

    Raises
    ------
    QuantityError
        If the text is no place; the message holds the grammar.
    """
    cleaned = text.strip()
    if not cleaned:
        raise QuantityError(GRAMMAR)
    found = _PLACE.fullmatch(cleaned)
    kind, rest = (found[1].lower(), found[2]) if found else ("gpa", cleaned)
    try:
        if kind == "slot":
            as_id, _, slot = rest.rpartition(":")
            number = parse_quantity(slot, what="slot")
            return Place("slot", number, number, parse_quantity(as_id, what="address space") if as_id else 0)
        first, dots, last = rest.partition("..")
        start = parse_quantity(first, what=kind)
        end = parse_quantity(last, what=kind) if dots else start
    except QuantityError as error:
        raise QuantityError(f"{error}; {GRAMMAR}") from error
    if end < start:
        raise QuantityError(f"the range ends before it starts; {GRAMMAR}")
    if kind == "hva":
        return Place("hva", start, end)
    if kind == "gpa":
        start, end = start >> PAGE_SHIFT, end >> PAGE_SHIFT
    return Place("gfn", start, end + (0 if dots and end > start else 1))


def parse_room(text: str) -> Room | None:
    """Return the room a text such as ``gap>=16M <4G`` asks for; None if it asks for none.

    Raises
    ------
    QuantityError
        If it begins so and cannot be read on.
    """
    cleaned = text.strip()
    if not cleaned.lower().startswith("gap"):
        return None
    found = _ROOM.fullmatch(cleaned)
    if found is None:
        raise QuantityError(
            f"cannot read {cleaned[:30]!r}; write gap>=16M, or gap>=16M >1M <4G for room between the two"
        )
    room = Room(parse_quantity(found[1], what="gap"))
    for sign, bound in _BOUND.findall(found[2]):
        value = parse_quantity(bound, what="address")
        room = room._replace(end=value) if sign == "<" else room._replace(start=value)
    if not room.size:
        raise QuantityError("a gap of 0 bytes is everywhere; write a size such as gap>=4K")
    return room
