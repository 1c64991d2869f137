"""Make ``assets/traces`` from a folder of original logs: ``python tests/pack_traces.py FOLDER``.

Every file is compressed alike, without name or time, so that packing again changes nothing.
"""

import gzip
import shutil
import sys
from pathlib import Path

ASSETS = Path(__file__).parent.parent / "assets" / "traces"
LOGS = (
    *("qemu-trace.log*", "dst-qemu-trace.log*", "strace.log*", "dst-strace.log*", "strace.[0-9]*"),
    *("ftrace.log*", "perf-*.log*"),
)
TRUTHS = ("truth-*.json", "dst-truth-*.json", "mtree-*.txt", "dst-mtree-*.txt")
OF_EVENTS = ("ftrace.log", "perf-")
"""Logs that do not name the errnos, or not the arguments: what the VMM says of itself is packed with them."""


def pack(originals: Path, assets: Path) -> int:
    """Copy what tests and pages need of each scenario that has a log we read; return how many files."""
    count = 0
    for scenario in sorted(path for path in originals.iterdir() if path.is_dir()):
        logs = [path for pattern in LOGS for path in scenario.glob(pattern)]
        if not logs:
            continue
        target = assets / scenario.name
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir(parents=True)
        truths = [path for pattern in TRUTHS for path in scenario.glob(pattern)]
        if any(path.name.startswith(OF_EVENTS) for path in logs):
            truths += scenario.glob("truth.jsonl*")
        for path in sorted({*logs, *truths, scenario / f"{scenario.name}.json"}):
            content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
            packed = gzip.compress(content, compresslevel=9, mtime=0)
            (target / f"{path.name.removesuffix('.gz')}.gz").write_bytes(packed)
            count += 1
    return count


if __name__ == "__main__":
    print(f"{pack(Path(sys.argv[1]), ASSETS)} files in {ASSETS}")  # noqa: T201 - a script
