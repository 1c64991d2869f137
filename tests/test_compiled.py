"""The compiled engine and the files it was made of are one engine: whatever they are asked, they say the same."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from explorer.compiled import COMPILED, folder_of_twins, is_compiled, twins

ROOT = Path(__file__).parents[1]

compiled = pytest.mark.skipif(
    not is_compiled(), reason="the engine is not compiled here: no C compiler, or edited since (make fast)"
)


def said(*arguments: str, files: bool = False, root: Path = ROOT) -> str:
    """Return what this Python prints, on the compiled engine or on the files."""
    environment = {name: value for name, value in os.environ.items() if name != "EXPLORER_PURE"}
    environment |= {"PYTHONPATH": str(root), "PYTHONDONTWRITEBYTECODE": "1"} | ({"EXPLORER_PURE": "1"} if files else {})
    done = subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, env=environment, cwd=root, check=False
    )
    assert done.returncode in {0, 1}, done.stderr
    return done.stdout


WHERE = "import explorer.engine.swap as module; print(module.__file__)"


@compiled
def test_the_compiled_engine_runs_unless_it_is_asked_not_to() -> None:
    assert said("-c", WHERE).rstrip().endswith((".so", ".pyd"))
    assert said("-c", WHERE, files=True).rstrip().endswith("swap.py")


@compiled
def test_an_edited_engine_runs_as_it_was_edited(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "explorer", tmp_path / "explorer", ignore=shutil.ignore_patterns("__pycache__"))
    assert said("-c", WHERE, root=tmp_path).rstrip().endswith((".so", ".pyd"))

    # Not a file that is compiled: what those do depends on the others, too.
    with (tmp_path / "explorer/engine/uapi.py").open("a", encoding="utf-8") as file:
        file.write("\n# edited\n")

    assert said("-c", WHERE, root=tmp_path).rstrip() == str(tmp_path / "explorer/engine/swap.py")


def test_where_it_could_not_be_compiled_the_files_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    monkeypatch.delenv("EXPLORER_PURE", raising=False)
    folder = folder_of_twins()
    folder.mkdir(parents=True)
    assert twins() == []

    (folder / "compiled__mypyc.so").touch()

    assert twins() == [str(folder)]


def test_what_is_compiled_is_there() -> None:
    assert {path.stem for path in (ROOT / "explorer/engine").glob("*.py")} >= set(COMPILED)


EVERYTHING = """
from explorer import tell
from explorer.engine.apply import walk
from explorer.engine.commands import SetMemoryRegion
from explorer.scenarios import scenario_names

def told(step):
    asked = [(result.guard.name, result.passed, result.operands) for result in step.results]
    return step.events, step.errno, step.change, asked, step.kvm

for name in scenario_names():
    run = tell(name)
    for index, command in enumerate(run.commands):
        print(name, index, *told(run.detail(index).step))
        if isinstance(command, SetMemoryRegion) and run.kvm_before(index).pending is None:
            for phase in walk(run.kvm_before(index), command)[1]:
                at = phase.kvm.pending and phase.kvm.pending.at
                print(phase.phase.name, at, phase.events, phase.kvm._replace(pending=None))
"""
"""Every event, every check asked and every state of every story."""


@compiled
@pytest.mark.parametrize(
    "arguments",
    [
        ("-m", "explorer", "conform", "assets/recordings", "--json"),
        ("-m", "explorer", "replay", "assets/traces/big-q100/qemu-trace.log.gz", "--json"),
        ("-c", EVERYTHING),
    ],
    ids=["recordings", "a log", "stories"],
)
def test_both_say_the_same_of(arguments: tuple[str, ...]) -> None:
    by_files = said(*arguments, files=True)

    assert by_files
    assert said(*arguments) == by_files
