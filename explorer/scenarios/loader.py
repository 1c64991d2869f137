"""Reads scenario files: TOML, one idea each.

::

    id      = "first-look"
    title   = "First look"
    teaches = "What a MOVE does to the pages that are watched for writes."
    look    = "What to look for when it opens, one or two short sentences."
    source  = "where the layout and the expectation come from"
    profile = "v6_12"
    layout  = "q72-pc-3584M"  # library/layouts: steps and owners that come first
    next    = "set_region ..."  # composed, not applied, when the scenario opens
    then    = "What to look for once `next` is applied."  # nothing, if it is left out
    at      = "13.6"            # where it opens instead of the end of its steps; beyond them `next` is applied
    beat    = 1                 # its place in the guided story, if it is part of it
    like    = "other-scenario"  # layout, steps, config, owners, profile, next and source, unless given here

    [config]
    tdp = false

    [owners]                 # what backs a slot, for labels
    10 = "slot 10"

    [[step]]
    say    = "Userspace creates a slot."
    do     = "set_region slot=10 gpa=0xd0000000 size=0x20000 hva=0x100000000000"
    expect = { errno = 0, brief = "as0 gen=2: [0xd0000+0x20]#10 rw" }

    [[step]]                 # 100 slots, one behind the other
    say    = "Many more."
    do     = "set_region slot=11 gpa=0x100000000 size=0x1000 hva=0x100000020000"
    repeat = 100
    stride = { slot = 1, gpa = 0x1000, hva = 0x1000 }

Files in ``library/`` are package data: stories, and in ``library/machines/`` layouts to start from. A scenario never
describes its picture.
"""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass, fields
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Any

from explorer.engine.commands import Command, CommandError, parse_command
from explorer.engine.config import VmConfig
from explorer.engine.profile import KernelProfile, get_profile
from explorer.engine.types import Errno, ExplorerError
from explorer.history import Stop

if TYPE_CHECKING:
    from importlib.resources.abc import Traversable

__all__ = [
    "Scenario",
    "ScenarioError",
    "ScenarioStep",
    "guided",
    "load_scenario",
    "machine_names",
    "parse_scenario",
    "scenario_names",
]


class ScenarioError(ExplorerError):
    """A scenario file is wrong; the message says which file and key, and what could stand there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScenarioStep:
    """One step of a scenario."""

    say: str
    """A sentence a newcomer understands."""
    do: Command
    errno: str | None = None
    """Name of the expected errno, or None for success."""
    brief: str | None = None
    """Expected `Kvm.brief`, or None if the scenario does not say."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """A run with its sentences."""

    id: str
    title: str
    teaches: str
    look: str
    """What to look for when it opens."""
    source: str
    profile: KernelProfile
    config: VmConfig
    owners: dict[int, str]
    """What backs each slot, by slot id."""
    steps: tuple[ScenarioStep, ...]
    next: Command | None
    """The operation that is composed when the scenario opens, or None."""
    at: Stop | None = None
    """Where it opens, if not at the end of its steps; beyond them `next` has been applied."""
    then: str = ""
    """What to look for once `next` has been applied; empty if the story has said all."""
    beat: int | None = None
    """Its place in the guided story, from 1."""


def scenario_names() -> tuple[str, ...]:
    """Return the ids of the scenarios that come with the package, in the order they teach."""
    return tuple(_files())


def machine_names() -> tuple[str, ...]:
    """Return the ids of the layouts to start from that come with the package."""
    return tuple(f"machine-{name}" for name in _files("machines"))


@cache
def guided() -> tuple[Scenario, ...]:
    """Return the scenarios of the guided story, beat by beat."""
    beats = [scenario for scenario in map(load_scenario, scenario_names()) if scenario.beat is not None]
    return tuple(sorted(beats, key=lambda scenario: scenario.beat or 0))


@cache
def _files(*folder: str) -> dict[str, Traversable]:
    """Return the library's files by name: ``20-watches-lost.toml`` is the scenario ``watches-lost``."""
    library = resources.files("explorer.scenarios").joinpath("library", *folder)
    found = sorted((entry for entry in library.iterdir() if entry.name.endswith(".toml")), key=lambda e: e.name)
    return {entry.name.removesuffix(".toml").partition("-")[2]: entry for entry in found}


@cache
def load_scenario(name: str) -> Scenario:
    """Return the scenario called `name`.

    Raises
    ------
    ScenarioError
        If there is none, or its file is wrong.
    """
    files = _files() | {f"machine-{key}": file for key, file in _files("machines").items()}
    if name not in files:
        raise ScenarioError(f"no scenario is called {name!r}; there are {', '.join(files)}")
    return parse_scenario(files[name].read_text(encoding="utf-8"), where=files[name].name)


def parse_scenario(text: str, *, where: str = "scenario") -> Scenario:
    """Return the scenario a TOML text describes.

    Raises
    ------
    ScenarioError
        If a key is missing, unknown or has a value that cannot be.
    """
    data = _like(where, _toml(text, where))
    _check_keys(where, data, _REQUIRED | _OPTIONAL, _REQUIRED)
    layout: dict[str, Any] = {"source": "", "owners": {}, "step": []}
    if "layout" in data:
        layout |= _layout(where, data["layout"])
    return Scenario(
        id=data["id"],
        title=data["title"],
        teaches=data["teaches"],
        look=data["look"],
        source=f"{layout['source']} {data['source']}".strip(),
        profile=_profile(where, data["profile"]),
        config=_config(where, data.get("config", {})),
        owners=_owners(where, layout["owners"] | data.get("owners", {})),
        steps=tuple(
            step
            for at, given in enumerate([*layout["step"], *data["step"]], 1)
            for step in _steps(f"{where}: step {at}", given)
        ),
        next=_command(f"{where}: next", data["next"]) if "next" in data else None,
        at=_place(where, data["at"]) if "at" in data else None,
        then=data.get("then", ""),
        beat=data.get("beat"),
    )


_REQUIRED: dict[str, type] = {
    "id": str,
    "title": str,
    "teaches": str,
    "look": str,
    "source": str,
    "profile": str,
    "step": list,
}
_OPTIONAL: dict[str, type] = {
    "layout": str,
    "config": dict,
    "owners": dict,
    "next": str,
    "then": str,
    "at": str,
    "beat": int,
    "like": str,
}
_INHERITED = ("layout", "config", "owners", "profile", "source", "step", "next")
_LAYOUT: dict[str, type] = {"source": str, "step": list}
_STEP: dict[str, type] = {"say": str, "do": str}
_MOST_REPEATS = 32_764
_TYPES = {str: "a text", list: "a list of tables, [[step]]", dict: "a table", int: "a number"}


def _toml(text: str, where: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except ValueError as error:  # TOMLDecodeError, and a number of more digits than Python reads
        raise ScenarioError(f"{where}: not TOML: {error}") from error
    except RecursionError:
        raise ScenarioError(f"{where}: not TOML that can be read: tables or lists nested too deeply") from None


def _like(where: str, data: dict[str, Any]) -> dict[str, Any]:
    """Fill in what a scenario takes from another one of the library, which takes nothing itself."""
    name = data.get("like")
    if name is None:
        return data
    files = _files()
    if not isinstance(name, str) or name not in files:
        raise ScenarioError(f"{where}: like: no scenario is called {name!r}; there are {', '.join(files)}")
    other = _toml(files[name].read_text(encoding="utf-8"), files[name].name)
    if "like" in other:
        raise ScenarioError(f"{where}: like: {name!r} is itself like another scenario; name that one")
    return {key: other[key] for key in _INHERITED if key in other} | data


def _place(where: str, text: str) -> Stop:
    found = re.fullmatch(r"([1-9]\d{0,8})\.([1-9]\d{0,8})", text, re.ASCII)
    if found is None:
        raise ScenarioError(f"{where}: at is {text[:40]!r}, expected an operation and a step of it, such as '13.6'")
    return Stop(int(found[1]) - 1, int(found[2]) - 1)


def _check_keys(where: str, given: dict[str, Any], known: dict[str, type], required: dict[str, type]) -> None:
    """Refuse a table that lacks a key, has one too many, or one of the wrong type."""
    missing = [key for key in required if key not in given]
    if missing:
        raise ScenarioError(f"{where}: {', '.join(missing)} missing; needed are {', '.join(required)}")
    unknown = sorted(set(given) - set(known))
    if unknown:
        raise ScenarioError(f"{where}: unknown key {', '.join(unknown)}; there are {', '.join(known)}")
    for key, kind in known.items():
        if key in given and not isinstance(given[key], kind):
            raise ScenarioError(f"{where}: {key} is {given[key]!r}, expected {_TYPES[kind]}")


def _profile(where: str, name: str) -> KernelProfile:
    try:
        return get_profile(name)
    except ExplorerError as error:
        raise ScenarioError(f"{where}: profile: {error}") from error


def _owners(where: str, given: dict[str, Any]) -> dict[int, str]:
    for slot, name in given.items():
        if not re.fullmatch(r"\d{1,9}", slot, re.ASCII) or not isinstance(name, str):
            raise ScenarioError(f"{where}: owners has {slot[:40]} = {name!r}, expected a slot id and a text")
    return {int(slot): name for slot, name in given.items()}


def _layout(where: str, name: str) -> dict[str, Any]:
    layouts = resources.files("explorer.scenarios") / "library" / "layouts"
    known = {entry.name.removesuffix(".toml"): entry for entry in layouts.iterdir()}
    if name not in known:
        raise ScenarioError(f"{where}: layout: there is no {name[:40]!r}; there are {', '.join(sorted(known))}")
    found = known[name]
    layout = _toml(found.read_text(encoding="utf-8"), found.name)
    _check_keys(found.name, layout, _LAYOUT | {"owners": dict}, _LAYOUT)
    return {**layout, "source": f"Layout: {layout['source']}."}


def _config(where: str, given: dict[str, Any]) -> VmConfig:
    default = VmConfig()
    kinds = {f.name: type(getattr(default, f.name)) for f in fields(VmConfig)} | {"host_memory": int}
    unknown = sorted(set(given) - set(kinds))
    if unknown:
        raise ScenarioError(f"{where}: config has {', '.join(unknown)}; it takes {', '.join(sorted(kinds))}")
    for key, value in given.items():
        if type(value) is not kinds[key]:
            raise ScenarioError(f"{where}: config: {key} is {value!r}, expected {kinds[key].__name__}")
    if given.get("processor", default.processor) not in _PROCESSORS:
        raise ScenarioError(f"{where}: config: processor is {given['processor']!r}, expected {', '.join(_PROCESSORS)}")
    try:
        return VmConfig(**given)
    except ExplorerError as error:
        raise ScenarioError(f"{where}: config: {error}") from error


_PROCESSORS = ("amd", "intel", "pvm")


def _steps(where: str, given: object) -> list[ScenarioStep]:
    """Return the steps a table stands for: itself, or as many as it says, each a stride further."""
    if not isinstance(given, dict):
        raise ScenarioError(f"{where}: expected a table with say and do")
    _check_keys(where, given, _STEP | {"expect": dict, "repeat": int, "stride": dict}, _STEP)
    times, stride = given.get("repeat", 1), given.get("stride", {})
    if not 1 <= times <= _MOST_REPEATS:
        raise ScenarioError(f"{where}: repeat is {times}, expected 1 to {_MOST_REPEATS}")
    return [_step(where, given | {"do": _strided(where, given["do"], stride, n)}) for n in range(times)]


def _strided(where: str, line: str, stride: dict[str, Any], times: int) -> str:
    """Return a command line with each argument of `stride` moved on `times` times."""
    for key, by in stride.items():
        found = re.search(rf"\b{re.escape(key)}=(\w+)", line)
        try:
            value = int(found[1], 0) if found is not None else None
        except ValueError:
            value = None
        if found is None or value is None or type(by) is not int:
            raise ScenarioError(f"{where}: stride: {key} = {by!r} needs a whole number, and a number for {key}= in do")
        line = f"{line[: found.start(1)]}{value + by * times:#x}{line[found.end(1) :]}"
    return line


def _step(where: str, given: dict[str, Any]) -> ScenarioStep:
    expect = given.get("expect", {})
    if set(expect) - {"errno", "brief"}:
        raise ScenarioError(f"{where}: expect has {', '.join(sorted(expect))}; it takes errno and brief")
    errno, brief = expect.get("errno", 0), expect.get("brief")
    if errno != 0 and (not isinstance(errno, str) or errno not in Errno.__members__):
        raise ScenarioError(f"{where}: expect: errno is {errno!r}, expected 0 or one of {', '.join(Errno.__members__)}")
    if brief is not None and not isinstance(brief, str):
        raise ScenarioError(f"{where}: expect: brief is {brief!r}, expected a text")
    return ScenarioStep(
        say=given["say"],
        do=_command(f"{where}: do", given["do"]),
        errno=None if errno == 0 else errno,
        brief=brief,
    )


def _command(where: str, line: str) -> Command:
    try:
        return parse_command(line)
    except CommandError as error:
        raise ScenarioError(f"{where}: {error}") from error
