"""Make ``assets/recordings`` from a folder of raw recordings: ``python tests/pack_recordings.py FOLDER``.

The files keep their folders and names; line files become ``.jsonl.gz``. Packing is deterministic (no
name and no time in the gzip header), so packing the same recordings again changes nothing.
"""

from __future__ import annotations

import gzip
import sys
from pathlib import Path

RECORDINGS = Path(__file__).parents[1] / "assets" / "recordings"


def pack(source: Path, target: Path) -> int:
    """Copy every recording below `source` to `target` and return how many bytes they take there."""
    total = 0
    for path in sorted(source.rglob("*")):
        name = packed_name(path)
        if name is None:
            continue
        text = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        packed = target / path.parent.relative_to(source) / name
        packed.parent.mkdir(parents=True, exist_ok=True)
        packed.write_bytes(compress(text) if name.endswith(".gz") else text)
        total += packed.stat().st_size
    return total


def packed_name(path: Path) -> str | None:
    """Return the name a raw file gets, or None if the project does not keep it."""
    if path.name.endswith((".jsonl", ".jsonl.gz")):
        return path.name.removesuffix(".gz") + ".gz"
    if path.name.endswith((".json", "call_trees.json.gz")):
        return path.name
    return None


def compress(text: bytes) -> bytes:
    """Return what ``gzip -9 -n`` would make of `text`."""
    return gzip.compress(text, compresslevel=9, mtime=0)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(f"usage: {sys.argv[0]} FOLDER")
    print(f"{pack(Path(sys.argv[1]), RECORDINGS):,} bytes in {RECORDINGS}")  # noqa: T201
