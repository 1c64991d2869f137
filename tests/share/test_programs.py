"""The exports that run: C reproducer, Python script, selftest skeleton, on the machine's own KVM."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from random_calls import random_run

from explorer.engine.commands import parse_command
from explorer.history import Run
from explorer.live import bare
from explorer.share import Told, export

HERE = Path(__file__).parent
REPRODUCERS = 20
STRICT = ("-Wall", "-Wextra", "-Werror")
LINE = re.compile(r" *(\d+) (agrees|DIFFERS) (\w+)(?:, the model says (\w+))?")


def built(gcc: str, text: str, folder: Path, *flags: object) -> Path:
    source, program = folder / "run.c", folder / "run"
    source.write_text(text)
    subprocess.run([gcc, *map(str, flags), "-o", program, source], check=True)
    return program


def outcomes_of(run: Run) -> list[tuple[int, str, str]]:
    """Return what a program should print where the model is right."""
    return [
        (op.at + 1, "agrees", "0" if op.errno is None else op.errno.name) for op in bare(run) if op.call is not None
    ]


def said(output: str) -> list[tuple[int, str, str]]:
    return [(int(m[1]), m[2], m[3]) for m in map(LINE.match, output.splitlines()[:-1]) if m]


@pytest.mark.kvm
@pytest.mark.parametrize("seed", range(REPRODUCERS))
def test_a_reproducer_compiles_without_a_warning_and_prints_the_model_s_outcomes(seed, host, gcc, tmp_path):
    run = random_run(seed, host.profile.name, host.config)
    program = built(gcc, export(Told(run, f"run {seed}"), "c"), tmp_path, *STRICT)

    done = subprocess.run([program], capture_output=True, text=True, check=False)

    assert said(done.stdout) == outcomes_of(run)
    assert done.stdout.splitlines()[-1] == f"{len(run)} operations, 0 differ from the model"
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.kvm
@pytest.mark.parametrize("seed", range(3))
def test_a_script_prints_the_model_s_outcomes(seed, host, tmp_path):
    run = random_run(seed, host.profile.name, host.config)
    script = tmp_path / "run.py"
    script.write_text(export(Told(run), "python"))

    done = subprocess.run([sys.executable, "-I", "-W", "error", script], capture_output=True, text=True, check=False)

    assert said(done.stdout) == outcomes_of(run)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.kvm
@pytest.mark.parametrize("seed", range(5))
def test_a_skeleton_holds_on_this_kernel(seed, host, gcc, tmp_path):
    run = random_run(seed, host.profile.name, host.config)
    (tmp_path / "test_util.h").write_text("")
    (tmp_path / "kvm_util.h").write_text((HERE / "kvm_util.h").read_text())
    text = export(Told(run), "selftest")
    program = built(gcc, text, tmp_path, "-Wall", "-Werror", "-I", tmp_path)

    done = subprocess.run([program], capture_output=True, text=True, check=False)

    assert text.count("EXPECT(") == len(run) + 1  # and its definition
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.kvm
@pytest.mark.parametrize("name", ["c", "python", "selftest"])
def test_an_outcome_that_is_not_the_model_s_is_told(name, host, gcc, tmp_path):
    if host.profile.user_mem_slots == 509:
        pytest.skip("this kernel has 509 slots, as the profile that should be wrong")
    lines = ["set_region slot=1 gpa=0 size=0x1000", "set_region slot=509 gpa=0x1000 size=0x1000"]
    text = export(Told(Run.new("v5_10", host.config, map(parse_command, lines))), name)
    if name == "python":
        (tmp_path / "run.py").write_text(text)
        program = [sys.executable, "-I", tmp_path / "run.py"]
    else:
        (tmp_path / "test_util.h").write_text("")
        (tmp_path / "kvm_util.h").write_text((HERE / "kvm_util.h").read_text())
        program = [built(gcc, text, tmp_path, "-I", tmp_path)]

    done = subprocess.run(program, capture_output=True, text=True, check=False)

    if name == "selftest":
        assert done.returncode == 254
        assert "slot=509 gpa=0x1000 size=0x1000: ret 0" in done.stderr
    else:
        assert done.returncode == 1
        assert said(done.stdout) == [(1, "agrees", "0"), (2, "DIFFERS", "0")]
        assert "DIFFERS 0, the model says EINVAL" in done.stdout


@pytest.mark.kvm
@pytest.mark.parametrize("name", ["c", "python"])
def test_dirty_pages_that_are_not_the_model_s_are_told(name, host, gcc, tmp_path):
    lines = [
        "enable_cap cap=168 arg=3",
        "set_region slot=1 gpa=0 size=0x46000 flags=log",
        "clear_dirty_log slot=1 first=0 num=64",
        "get_dirty_log slot=1",
    ]
    text = export(Told(Run.new(host.profile.name, host.config, map(parse_command, lines))), name)
    wrong = text.replace("{ 64, 70 }", "{ 64, 69 }").replace("(64, 70)", "(64, 69)")
    assert wrong != text
    if name == "python":
        (tmp_path / "run.py").write_text(wrong)
        program = [sys.executable, "-I", tmp_path / "run.py"]
    else:
        program = [built(gcc, wrong, tmp_path, *STRICT)]

    done = subprocess.run(program, capture_output=True, text=True, check=False)

    assert done.returncode == 1
    assert [line[1] for line in said(done.stdout)] == ["agrees", "agrees", "agrees", "DIFFERS"]


@pytest.mark.parametrize("name", ["c", "python"])
def test_without_a_device_it_refuses_politely(name, gcc, tmp_path):
    run = random_run(1, "v6_18", Run.new("v6_18", None).start.config)
    text = export(Told(run), name).replace('"/dev/kvm"', '"/no/kvm"')
    if name == "python":
        (tmp_path / "run.py").write_text(text)
        program = [sys.executable, "-I", tmp_path / "run.py"]
    else:
        program = [built(gcc, text, tmp_path, *STRICT)]

    done = subprocess.run(program, capture_output=True, text=True, check=False)

    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "No VM can be made on /dev/kvm here (No such file or directory); nothing was done.\n"


def test_a_tracker_is_a_comment_and_so_is_what_it_changes():
    lines = ["set_region slot=1 gpa=0 size=0x1000", "attach user=0", "set_region slot=1 gpa=0x1000 size=0x1000"]
    run = Run.new("v6_6", None, map(parse_command, lines))

    for name, start in (("c", "/*"), ("selftest", "/*"), ("python", "#")):
        lines = [line.strip() for line in export(Told(run), name).splitlines()]
        assert any(line.startswith(f"{start} 2. attach user=0: left out, page trackers") for line in lines)
        assert any(line.startswith(f"{start} in the whole run, with what is left out here: EINVAL") for line in lines)
