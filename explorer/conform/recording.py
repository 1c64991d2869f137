"""Recordings of real kernels: one scenario a line, as ``assets/recordings/README.md`` describes them.

A recording says what it ran on; profile and configuration follow from that and from nothing else.
"""

from __future__ import annotations

import gzip
import json
import re
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from explorer.conform.fields import wrong_field, wrong_slots
from explorer.engine.config import VmConfig
from explorer.engine.profile import profile_of_release
from explorer.engine.types import ExplorerError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from explorer.engine.profile import KernelProfile

__all__ = ["RecordingError", "Scenario", "find_recordings", "read_scenarios"]

_EMULATED = {"qemu-tcg-svm", "bochs-vmx"}
_PROCESSORS: dict[str, Literal["amd", "intel", "pvm"]] = {"qemu-tcg-svm": "amd", "bochs-vmx": "intel"}
_EMULATED_MEMORY = 2 << 30
_EMULATED_PHYS_BITS = 40


class RecordingError(ExplorerError):
    """A file is no recording; the message says where it stops being one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """One recorded scenario."""

    file: str
    line: int
    name: str
    kernel: str
    profile: KernelProfile
    config: VmConfig
    arena_base: int
    """Host address that ``hva`` arguments are offsets to."""
    has_tracker_module: bool
    ops: tuple[dict[str, Any], ...]
    internal_ids: range
    """Slot ids of KVM's own slots; the recorder's host addresses of those are not comparable."""
    final_slots: dict[str, Any] | None
    vm_errno: str | None
    """Why there was no VM, or None."""


def find_recordings(paths: list[Path]) -> list[Path]:
    """Return the recording files among `paths`; folders are searched.

    Raises
    ------
    RecordingError
        If a path does not exist or a folder holds no recording.
    """
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            inside = sorted(p for p in path.rglob("*") if p.name.endswith((".jsonl", ".jsonl.gz")))
            if not inside:
                raise RecordingError(f"{path}: no .jsonl or .jsonl.gz file in this folder")
            found += inside
        elif path.is_file():
            found.append(path)
        else:
            raise RecordingError(f"{path}: no such file or folder")
    return found


def read_scenarios(path: Path, profile: KernelProfile | None = None) -> Iterator[Scenario]:
    """Iterate over the scenarios of a file; `profile` replaces the one that follows from the kernel.

    Raises
    ------
    RecordingError
        If a line is not a scenario.
    """
    opener = gzip.open if path.name.endswith(".gz") else open
    line_number = 0
    try:
        with opener(path, "rt", encoding="utf-8") as lines:
            for line_number, line in enumerate(lines, 1):
                if line.strip():
                    yield _scenario(path, line_number, json.loads(line), profile)
    except (OSError, EOFError, UnicodeDecodeError, ValueError, zlib.error) as error:
        raise RecordingError(f"{path}:{line_number}: not a recording: {error}") from error
    except RecursionError as error:
        raise RecordingError(f"{path}:{line_number}: not a recording: values are nested too deeply") from error


def _scenario(path: Path, line: int, data: Any, profile: KernelProfile | None) -> Scenario:
    where = f"{path}:{line}"
    if not isinstance(data, dict) or not {"name", "ops", "config"} <= data.keys():
        raise RecordingError(f"{where}: a scenario is an object with name, config and ops")
    if not isinstance(data["config"], dict):
        raise RecordingError(f"{where}: config is {type(data['config']).__name__}, expected an object")
    if not isinstance(data["ops"], list) or not all(isinstance(op, dict) and "op" in op for op in data["ops"]):
        raise RecordingError(f"{where}: ops is a list of objects, each with op")
    wrong = next((f"operation {n}: {what}" for n, op in enumerate(data["ops"]) if (what := wrong_field(op))), None)
    if wrong is None and data.get("final_slots") is not None:
        wrong = wrong_slots(data["final_slots"])
    if wrong is None and any(type(data["config"].get(key, 0)) is not int for key in ("arena_base", "vmtype")):
        wrong = "config has arena_base or vmtype that is no number"
    if wrong is not None:
        raise RecordingError(f"{where}: {wrong}")
    config = data["config"]
    kernel = str(data.get("kernel", ""))
    if profile is None:
        profile = _profile_of(where, kernel)
    run = config.get("run")
    emulated = run in _EMULATED
    processor = _PROCESSORS.get(str(run), "pvm")
    width = re.search(r"-pa(\d+)(?:/|$)", path.parent.as_posix() + "/")
    return Scenario(
        file=str(path),
        line=line,
        name=str(data["name"]),
        kernel=kernel,
        profile=profile,
        config=VmConfig(
            tdp=bool(config.get("npt", config.get("ept", False))),
            tdp_mmu=bool(config.get("tdp_mmu", False)),
            external_write_tracking=emulated,
            smm=emulated,
            vm_type=int(config.get("vmtype") or 0),
            processor=processor,
            unrestricted_guest=bool(config.get("unrestricted", True)),
            flexpriority=bool(config.get("flexpriority", True)),
            pml=bool(config.get("pml", False)),
            vmm_memory_start=int(config.get("arena_base", 0)),
            host_phys_bits=int(width[1]) if width else _EMULATED_PHYS_BITS,
            host_memory=_EMULATED_MEMORY if emulated else None,
        ),
        arena_base=int(config.get("arena_base", 0)),
        has_tracker_module=emulated,
        ops=tuple(data["ops"]),
        internal_ids=range(profile.user_mem_slots, profile.user_mem_slots + 3),
        final_slots=data.get("final_slots"),
        vm_errno=config.get("vm_errno"),
    )


def _profile_of(where: str, kernel: str) -> KernelProfile:
    found = profile_of_release(kernel)
    if found is None:
        raise RecordingError(f"{where}: kernel {kernel!r} has no profile; name one with --profile")
    return found
