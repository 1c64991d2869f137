"""A state as an address: machine, operations and place, packed small enough to paste.

A story of the library is ``story``, its name, and ``at``, the place as the timeline numbers it; ``applied`` says that
its own operation stands behind that place. Any other run is packed: ``v`` is the version of the form, and operations
are the project's one-line commands, deflated and written in URL-safe base64. An address that cannot be read is
refused with a sentence, never half applied.
"""

from __future__ import annotations

import base64
import binascii
import zlib
from typing import TYPE_CHECKING, NamedTuple

from explorer.engine.commands import format_command
from explorer.engine.config import VmConfig
from explorer.engine.profile import PROFILES
from explorer.engine.types import ExplorerError
from explorer.history import Stop
from explorer.history.machine import Machine

if TYPE_CHECKING:
    from explorer.engine.commands import Command

__all__ = ["Link", "LinkError", "StoryLink", "pack", "pack_story", "place_of", "unpack", "unpack_story"]

VERSION = "1"
_LONGEST = 200_000
"""Bytes of text an address may unfold to; more is refused before it is unfolded."""
_LONG_RUN = 400


class LinkError(ExplorerError):
    """An address does not describe a state."""


class Link(NamedTuple):
    """What an address describes."""

    machine: Machine
    commands: tuple[str, ...]
    stop: Stop
    title: str


class StoryLink(NamedTuple):
    """A story of the library and a place in it."""

    name: str
    stop: Stop | None
    """None where the story opens."""
    applied: bool
    """Whether the story's own operation stands in the run, although the place is before it."""


def pack_story(name: str, stop: Stop, *, applied: bool = False) -> dict[str, str]:
    """Return the parameters of an address of a story; ``at`` is the place."""
    return {"story": name, "at": _place(stop)} | ({"applied": "1"} if applied else {})


def unpack_story(parameters: dict[str, str]) -> StoryLink | None:
    """Return the story an address names; None if it names none.

    Raises
    ------
    LinkError
        If ``at`` is no place.
    """
    name = parameters.get("story")
    if name is None or "v" in parameters:
        return None
    return StoryLink(name[:80], place_of(parameters["at"]) if "at" in parameters else None, "applied" in parameters)


def _place(stop: Stop) -> str:
    return f"{stop.op + 1}.{stop.cell + 1}"


def pack(*, machine: Machine, commands: tuple[Command, ...], stop: Stop, title: str) -> dict[str, str]:
    """Return the parameters of an address; empty for a run too long for one."""
    if len(commands) > _LONG_RUN:
        return {}
    config = machine.config
    switches = "".join(
        letter
        for letter, on in (
            ("t", config.tdp),
            ("m", config.tdp_mmu),
            ("e", config.external_write_tracking),
            ("s", config.smm),
            ("z", machine.zap_slot_only),
        )
        if on
    )
    text = "\n".join(format_command(command) for command in commands)
    packed = base64.urlsafe_b64encode(zlib.compress(text.encode(), 9)).decode().rstrip("=")
    return {
        "v": VERSION,
        "k": machine.profile,
        "c": f"{switches}{config.host_phys_bits}",
        "o": packed,
        "at": _place(stop),
        "n": title,
    }


def unpack(parameters: dict[str, str]) -> Link | None:
    """Return what an address describes; None for a plain address.

    Raises
    ------
    LinkError
        If a parameter cannot be read; the message names it.
    """
    if "v" not in parameters:
        return None
    if parameters["v"] != VERSION:
        raise LinkError(f"it is of form {parameters['v'][:8]!r}, this explorer reads {VERSION}")
    profile = parameters.get("k", "")
    if profile not in PROFILES:
        raise LinkError(f"k={profile[:20]!r} is no kernel profile; there are {', '.join(PROFILES)}")
    return Link(
        _machine(profile, parameters.get("c", "")),
        _commands(parameters.get("o", "")),
        place_of(parameters.get("at", "")),
        parameters.get("n", "")[:80],
    )


def _machine(profile: str, text: str) -> Machine:
    switches, bits = text.rstrip("0123456789"), text[len(text.rstrip("0123456789")) :]
    if set(switches) - set("tmesz") or not bits:
        raise LinkError(f"c={text[:20]!r} is no configuration")
    config = VmConfig(
        tdp="t" in switches,
        tdp_mmu="m" in switches,
        external_write_tracking="e" in switches,
        smm="s" in switches,
        host_phys_bits=int(bits),
    )
    return Machine(profile, config, "z" in switches)


def _commands(packed: str) -> tuple[str, ...]:
    try:
        raw = base64.b64decode(packed + "=" * (-len(packed) % 4), altchars=b"-_", validate=True)
        unfolder = zlib.decompressobj()
        text = unfolder.decompress(raw, _LONGEST)
        if unfolder.unconsumed_tail:
            raise LinkError("o= unfolds to more than an address may hold")
        if not unfolder.eof:
            raise LinkError("o= ends early; was the address cut off?")
        return tuple(line for line in text.decode().split("\n") if line)
    except (binascii.Error, zlib.error, UnicodeDecodeError, ValueError) as error:
        raise LinkError("o= is damaged; was the address cut off?") from error


def place_of(text: str) -> Stop:
    """Return the stop a text names, as the timeline numbers it.

    Raises
    ------
    LinkError
        If it names none.
    """
    op, dot, cell = text.partition(".")
    try:
        return Stop(int(op) - 1, int(cell) - 1 if dot else 0)
    except ValueError:
        raise LinkError(f"at={text[:20]!r} is no place in a run; expected such as 12.3") from None
