"""Reads scenario files: TOML, one idea each.

::

    id      = "first-look"
    title   = "First look"
    teaches = "What a MOVE does to the pages that are watched for writes."
    source  = "where the layout and the expectation come from"
    profile = "v6_12"
    layout  = "q72-pc-3584M"  # library/layouts: steps and owners that come first
    next    = "set_region ..."  # composed, not applied, when the scenario opens

    [config]
    tdp = false

    [owners]                 # what backs a slot, for labels
    10 = "slot 10"

    [[step]]
    say    = "Userspace creates a slot."
    do     = "set_region slot=10 gpa=0xd0000000 size=0x20000 hva=0x100000000000"
    expect = { errno = 0, brief = "as0 gen=2: [0xd0000+0x20]#10 rw" }

Files in ``library/`` are package data. A scenario never describes its picture.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, fields
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from explorer.engine.commands import Command, CommandError, parse_command
from explorer.engine.config import VmConfig
from explorer.engine.profile import KernelProfile, get_profile
from explorer.engine.types import ExplorerError

if TYPE_CHECKING:
    from importlib.resources.abc import Traversable

__all__ = ["Scenario", "ScenarioError", "ScenarioStep", "load_scenario", "parse_scenario", "scenario_names"]


class ScenarioError(ExplorerError):
    """A scenario file is wrong; the message says which key, and what could stand there."""


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
    source: str
    profile: KernelProfile
    config: VmConfig
    owners: dict[int, str]
    """What backs each slot, by slot id."""
    steps: tuple[ScenarioStep, ...]
    next: Command | None
    """The operation that is composed when the scenario opens, or None."""


def scenario_names() -> tuple[str, ...]:
    """Return the ids of the scenarios that come with the package, in the order they teach."""
    return tuple(_files())


def _files() -> dict[str, Traversable]:
    """Return the library's files by id: ``20-watches-lost.toml`` is the scenario ``watches-lost``."""
    library = resources.files("explorer.scenarios") / "library"
    found = sorted((entry for entry in library.iterdir() if entry.name.endswith(".toml")), key=lambda e: e.name)
    return {entry.name.removesuffix(".toml").partition("-")[2]: entry for entry in found}


def load_scenario(name: str) -> Scenario:
    """Return the scenario called `name`.

    Raises
    ------
    ScenarioError
        If there is none, or its file is wrong.
    """
    files = _files()
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
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ScenarioError(f"{where}: not TOML: {error}") from error
    missing = [key for key in ("id", "title", "teaches", "source", "profile", "step") if key not in data]
    if missing:
        raise ScenarioError(f"{where}: {', '.join(missing)} missing")
    unknown = set(data) - {"id", "title", "teaches", "source", "profile", "layout", "config", "owners", "step", "next"}
    if unknown:
        raise ScenarioError(f"{where}: unknown key {', '.join(sorted(unknown))}")
    layout = _layout(where, data["layout"]) if "layout" in data else {"source": "", "owners": {}, "step": []}
    return Scenario(
        id=data["id"],
        title=data["title"],
        teaches=data["teaches"],
        source=f"{layout['source']} {data['source']}".strip(),
        profile=get_profile(data["profile"]),
        config=_config(where, data.get("config", {})),
        owners={int(slot): str(name) for slot, name in (layout["owners"] | data.get("owners", {})).items()},
        steps=tuple(_step(f"{where}: step {at}", step) for at, step in enumerate([*layout["step"], *data["step"]], 1)),
        next=_command(f"{where}: next", data["next"]) if "next" in data else None,
    )


def _layout(where: str, name: str) -> dict[str, Any]:
    found = resources.files("explorer.scenarios") / "library" / "layouts" / f"{Path(name).name}.toml"
    if not found.is_file():
        raise ScenarioError(f"{where}: there is no layout {name!r}")
    layout = tomllib.loads(found.read_text(encoding="utf-8"))
    return {**layout, "source": f"Layout: {layout['source']}."}


def _config(where: str, given: dict[str, Any]) -> VmConfig:
    known = {f.name for f in fields(VmConfig)}
    if set(given) - known:
        raise ScenarioError(
            f"{where}: config has {', '.join(sorted(set(given) - known))}; it takes {', '.join(sorted(known))}"
        )
    return VmConfig(**given)


def _step(where: str, given: dict[str, Any]) -> ScenarioStep:
    if not {"say", "do"} <= given.keys():
        raise ScenarioError(f"{where}: a step needs say and do")
    expect = given.get("expect", {})
    errno = expect.get("errno", 0)
    return ScenarioStep(
        say=given["say"],
        do=_command(where, given["do"]),
        errno=None if errno == 0 else str(errno),
        brief=expect.get("brief"),
    )


def _command(where: str, line: str) -> Command:
    try:
        return parse_command(line)
    except CommandError as error:
        raise ScenarioError(f"{where}: {error}") from error
