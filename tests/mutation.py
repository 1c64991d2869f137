"""Do the recordings, the invariants and the tests notice when the engine is wrong? Run by ``make mutants``.

Every mutant of `mutants` is judged in a process of its own, by the quickest judge first, until one notices: a
recorded value that is not reproduced, a property that does not hold, a story that ends otherwise, a random run.
A mutant that nobody notices is a *survivor*; each has its reason in ``mutation_survivors.toml``, and the script
fails if one is missing there or is listed without need.
"""

from __future__ import annotations

import argparse
import importlib.abc
import importlib.util
import json
import os
import resource
import signal
import subprocess
import sys
import time
import tomllib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from mutants import Mutant, mutants  # noqa: E402 - after the path is set

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType

RECORDINGS = ROOT / "assets/recordings"
SURVIVORS = ROOT / "tests/mutation_survivors.toml"
SECONDS = {
    "recordings": 20,
    "own stories": 60,
    "invariants": 60,
    "stories": 400,
    "all recordings": 90,
    "random runs": 500,
}
"""Processor time after which a judge has noticed that the engine comes to no end: some ten times the usual."""
MEMORY = 4 << 30
"""Bytes after which it has noticed, too."""
TESTS = ROOT / "tests/engine"
INVARIANTS = ("test_invariants.py", "test_equivalences.py")
RANDOM = ("test_interleaved.py", "test_against_a_naive_list.py")
SLOW = "as_many_slots"
OWN = {
    "gmem_guards": ("test_guest_memfd.py",),
    "guards": ("test_guards.py", "test_errnos.py", "test_guest_memfd.py"),
    "region_call": ("test_phases.py", "test_apply.py", "test_interleaved.py"),
    "swap": ("test_phases.py", "test_generations.py", "test_apply.py", "test_zap.py"),
    "memslots": ("test_phases.py", "test_apply.py", "test_metadata.py", "test_generations.py", "test_guest_memfd.py"),
    "mmu": ("test_zap.py", "test_page_track.py", "test_apply.py", "test_paging.py"),
    "page_track": ("test_page_track.py", "test_apply.py", "test_fault.py"),
    "trackers": ("test_page_track.py", "test_kvmgt.py", "test_gtt.py"),
    "kvmgt": ("test_kvmgt.py", "test_gtt.py"),
    "gtt": ("test_gtt.py",),
    "dirty_log": ("test_dirty_log.py", "test_fault.py", "test_selftests.py"),
    "metadata": ("test_metadata.py", "test_phases.py", "test_guest_memfd.py"),
    "guest_memfd": ("test_guest_memfd.py",),
    "spte": ("test_fault.py", "test_paging.py", "test_selftests.py"),
    "fault": ("test_fault.py", "test_paging.py"),
    "hostmem": ("test_fault.py", "test_paging.py"),
    "lookup": ("test_lookup.py", "test_zap.py"),
    "draft": ("test_metadata.py", "test_page_track.py"),
    "vcpu": ("test_internal_slots.py", "test_capabilities.py", "test_lapic.py"),
    "lapic": ("test_lapic.py",),
    "tdp_walk": ("test_tdp_walk.py", "test_paging.py"),
}
"""Stories of a module, which are most likely to notice and so are told first."""


class Verdict(NamedTuple):
    """What became of one mutant."""

    mutant: str
    judge: str | None
    """Who noticed first; None for a survivor."""
    detail: str
    seconds: float


# -- in the process of one mutant ------------------------------------------------------------------


class Replacement(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Lets one module be imported from a changed tree."""

    def __init__(self, mutant: Mutant) -> None:
        self._mutant = mutant

    def find_spec(self, fullname: str, _path: object, _target: object = None) -> object:
        return importlib.util.spec_from_loader(fullname, self) if fullname == self._mutant.module else None

    def exec_module(self, module: ModuleType) -> None:
        module.__file__ = str(ROOT / (self._mutant.module.replace(".", "/") + ".py"))
        exec(compile(self._mutant.tree(), module.__file__, "exec"), module.__dict__)  # noqa: S102 - our own source


def recorded_values(*variants: str) -> str | None:
    """Return the first recorded value that is not reproduced, or None. Trackers first: they see most."""
    from explorer.conform.player import Player  # noqa: PLC0415 - the engine as it is now, with the mutant in it
    from explorer.conform.recording import read_scenarios  # noqa: PLC0415

    for path in _files(variants):
        for scenario in read_scenarios(path):
            for outcome in Player(scenario).play():
                if outcome.differences:
                    return f"{path.relative_to(RECORDINGS).as_posix()} {scenario.name}: {outcome.differences[0].field}"
    return None


def _files(variants: tuple[str, ...]) -> list[Path]:
    """Return the recordings of some variants, the newest kernel first; of all for none."""
    kinds = ("tracker", "handwritten", "intel") + (() if variants else ("tracker_random", "random"))
    found = [path for kind in kinds for path in sorted(RECORDINGS.rglob(f"{kind}.jsonl.gz"), reverse=True)]
    return [path for path in found if not variants or path.parent.name in variants]


def failing_test(*arguments: str) -> str | None:
    """Return the first test that fails, or None."""
    import pytest  # noqa: PLC0415 - only where the recordings did not notice

    class First:
        name: str | None = None

        def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
            if report.failed and self.name is None:
                self.name = report.nodeid.split("/")[-1]

        def pytest_collectreport(self, report: pytest.CollectReport) -> None:
            if report.failed and self.name is None:
                self.name = f"collection of {report.nodeid}"

    first = First()
    options = ["-x", "-q", "-p", "no:cacheprovider", "-k", f"not {SLOW}"]
    code = pytest.main([*options, *arguments], plugins=[first])
    if first.name is None and code not in (0, 1):
        sys.exit(f"pytest ended with {code}: no judgement")
    return first.name


JUDGES: dict[str, Callable[[str], str | None]] = {
    "recordings": lambda _: recorded_values("npt0", "npt1"),
    "own stories": lambda module: failing_test(*(str(TESTS / name) for name in OWN[module])),
    "invariants": lambda _: failing_test(*(str(TESTS / name) for name in INVARIANTS)),
    "stories": lambda _: failing_test(str(TESTS), *(f"--ignore={TESTS / name}" for name in INVARIANTS + RANDOM)),
    "all recordings": lambda _: recorded_values(),
    "random runs": lambda _: failing_test(*(str(TESTS / name) for name in RANDOM)),
}
"""Quickest first. Each gets the module that is wrong."""


def judge(mutant: Mutant, judges: list[str]) -> tuple[str | None, str]:
    """Return who notices a mutant and by what, or (None, "")."""
    sys.meta_path.insert(0, Replacement(mutant))
    signal.signal(signal.SIGXCPU, _out_of_time)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    for name in judges:
        used = int(time.process_time())
        resource.setrlimit(resource.RLIMIT_CPU, (used + SECONDS[name], resource.RLIM_INFINITY))
        try:
            noticed = JUDGES[name](mutant.module.rpartition(".")[2])
        except Exception as error:  # noqa: BLE001 - whatever a wrong engine raises is a notice
            noticed = f"{type(error).__name__}: {error}"
        if noticed is not None:
            return name, noticed
    return None, ""


def _out_of_time(_signal: int, _frame: object) -> None:
    raise TimeoutError("no end in sight")


# -- in the process of the script ------------------------------------------------------------------


def verdict_of(mutant_id: str, judges: list[str]) -> Verdict:
    """Judge one mutant in a process of its own."""
    began = time.monotonic()
    command = [sys.executable, __file__, "--judge", mutant_id, "--judges", ",".join(judges)]
    environment = os.environ | {"HYPOTHESIS": "first", "PYTHONPATH": str(ROOT), "EXPLORER_PURE": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=ROOT, check=False)
    if "no judgement" in done.stderr:
        raise RuntimeError(done.stderr)
    if done.returncode:  # the limit's last word, or an engine that cannot be imported
        return Verdict(mutant_id, "import", done.stderr[-90:], time.monotonic() - began)
    name, detail = json.loads(done.stdout.splitlines()[-1])
    return Verdict(mutant_id, name, detail, time.monotonic() - began)


def table(verdicts: list[Verdict]) -> list[str]:
    """Return the verdicts as lines: mutant, judge, what it saw."""
    return [f"{v.judge or 'SURVIVED':<12} {v.seconds:6.1f} s  {v.mutant}  <- {v.detail[:90]}" for v in verdicts]


def complaints(verdicts: list[Verdict], reasons: dict[str, str], *, whole: bool = True) -> list[str]:
    """Return what is wrong: a survivor without a reason, or a reason that no survivor has any more."""
    survived = {v.mutant for v in verdicts if v.judge is None}
    unexplained = sorted(name for name in survived if not reasons.get(name))
    needless = sorted(reasons.keys() - survived) if whole else []
    told = [f"survived without a reason: {name}" for name in unexplained]
    return [*told, *(f"listed, but no survivor: {name}" for name in needless)]


def main() -> int:
    """Judge all mutants, or those whose id contains a word, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="judge the mutants whose id contains this")
    parser.add_argument("--list", action="store_true", help="only print the ids")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--judge", help=argparse.SUPPRESS)
    parser.add_argument("--judges", default=",".join(JUDGES), help=f"of {', '.join(JUDGES)}")
    options = parser.parse_args()
    judges = [name for name in options.judges.split(",") if name]
    known = {mutant.id: mutant for mutant in mutants()}
    if options.judge is not None:
        print(json.dumps(judge(known[options.judge], judges)))  # noqa: T201
        return 0
    chosen = [name for name in known if options.only in name]
    if options.list:
        print("\n".join(chosen), f"\n{len(chosen)} mutants")  # noqa: T201
        return 0
    verdicts = []
    with ThreadPoolExecutor(options.jobs) as pool:
        for verdict in pool.map(lambda name: verdict_of(name, judges), chosen):
            verdicts.append(verdict)
            print(*table([verdict]), flush=True)  # noqa: T201
    problems = complaints(verdicts, tomllib.loads(SURVIVORS.read_text(encoding="utf-8")), whole=not options.only)
    noticed = sum(v.judge is not None for v in verdicts)
    print(f"{noticed} of {len(verdicts)} mutants noticed", *problems, sep="\n")  # noqa: T201
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
