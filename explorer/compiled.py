"""The compiled twins of the engine's busiest files: an accelerator, and never needed.

``make fast`` has mypyc make them (`assets/setup/compile_engine.py`), and `explorer` lets them stand in for the files.
Rule: only a twin that was made of exactly the engine that lies here does; after any edit the files run.
``EXPLORER_PURE=1`` does without.
"""

from __future__ import annotations

import hashlib
import os
import sys
from pathlib import Path

__all__ = ["COMPILED", "folder_of_twins", "has_twins", "is_compiled", "shelf_of_twins", "twins"]

COMPILED = (
    "sortedmap",
    "draft",
    "locks",
    "lookup",
    "region_call",
    "guard",
    "guards",
    "gmem_guards",
    "swap",
    "memslots",
    "metadata",
    "mmu",
    "apply",
)
"""The modules of `explorer.engine` that every region call runs through; what only holds data gains nothing."""

_ENGINE = Path(__file__).parent / "engine"


def shelf_of_twins() -> Path:
    """Return the folder in which this environment keeps twins, if it has any."""
    return Path(sys.prefix) / "explorer-compiled"


def folder_of_twins(engine: Path = _ENGINE) -> Path:
    """Return the folder in which the twins of an engine's files as they are now lie, or would lie."""
    digest = hashlib.sha256()
    for path in sorted(engine.glob("*.py")):
        digest.update(b"%s\0%s\0" % (path.name.encode(), path.read_bytes()))
    return shelf_of_twins() / digest.hexdigest()[:16]


def twins() -> list[str]:
    """Return where to look for a module of the engine before its source: one folder, or none."""
    if os.environ.get("EXPLORER_PURE") or not shelf_of_twins().is_dir():
        return []
    folder = folder_of_twins()
    return [str(folder)] if has_twins(folder) else []


def has_twins(folder: Path) -> bool:
    """Return whether a folder holds twins; one in which they could not be made is empty."""
    return any(folder.glob("*__mypyc.*"))


def is_compiled() -> bool:
    """Return whether this process runs the twins."""
    return any(Path(folder).parent == shelf_of_twins() for folder in sys.modules["explorer.engine"].__path__)
