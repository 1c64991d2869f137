"""Make the project's own environment, .venv: ``python3 assets/setup/environment.py run|test``.

Packages come with pinned versions and hashes from requirements.txt (to use it) or requirements-test.txt (to
work on it). Nothing is done when nothing changed. Needs only Python 3.11 or newer.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import venv
from pathlib import Path

from chromium import install_chromium, install_packages

ROOT = Path(__file__).resolve().parents[2]
VENV = ROOT / ".venv"
VENV_PYTHON = VENV / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
COMPILE_ENGINE = ROOT / "assets/setup/compile_engine.py"
LOCKS = {"run": "requirements.txt", "test": "requirements-test.txt"}
_NO_ENSUREPIP = """\
This Python cannot make an environment: its ensurepip is missing.
  On Debian:  apt-get install python3-venv   (as root)"""
_NO_INSTALL = """\
The packages of {lock} could not be installed; pip says why above.
  No network?  A second try goes on where this one ended: make {what}"""


def main(what: str) -> None:
    """Make sure the environment has what `what` needs."""
    _install(what)
    _compile()
    if what == "run":
        subprocess.run([str(VENV_PYTHON), str(COMPILE_ENGINE), "first"], stdin=subprocess.DEVNULL, check=False)


def _install(what: str) -> None:
    if _is_installed(what) or _is_installed("test"):  # what tests need is more than what running needs
        return
    lock = ROOT / LOCKS[what]
    python = _python()
    pip = [str(python), "-m", "pip", "--disable-pip-version-check", "install", "--quiet", "--quiet", "--no-input"]
    print(f"installing the packages of {lock.name} into .venv (once)", flush=True)
    steps = (
        [*pip, "--require-hashes", "--only-binary", ":all:", "-r", str(lock)],
        [*pip, "--no-deps", "--no-build-isolation", "--editable", str(ROOT)],
    )
    for step in steps:
        if subprocess.run(step, stdin=subprocess.DEVNULL, check=False).returncode:
            raise SystemExit(_NO_INSTALL.format(lock=lock.name, what=what))
    _stamp(what).write_text(_wanted(what))


def _is_installed(what: str) -> bool:
    return _stamp(what).is_file() and _stamp(what).read_text() == _wanted(what)


def _wanted(what: str) -> str:
    return hashlib.sha256((ROOT / LOCKS[what]).read_bytes() + (ROOT / "pyproject.toml").read_bytes()).hexdigest()


def _compile() -> None:
    """Compile the project as pip compiles what it installs; else every visitor's kernel may do so, for 0.2 s."""
    compile_all = [str(VENV_PYTHON), "-m", "compileall", "-q", str(ROOT / "explorer")]
    subprocess.run(compile_all, stdin=subprocess.DEVNULL, check=False)  # where that fails, kernels start later


def _stamp(what: str) -> Path:
    return VENV / f".installed-{what}"


def _python() -> Path:
    """Return the environment's Python, making the environment if there is none or if its Python is gone."""
    python = VENV_PYTHON
    probe = [str(python), "-m", "pip", "--version"]
    if python.exists() and subprocess.run(probe, stdout=subprocess.DEVNULL, check=False).returncode == 0:
        return python
    if not _has_ensurepip() and not (install_packages("python3-venv") and _has_ensurepip()):
        raise SystemExit(_NO_ENSUREPIP)
    print("making .venv", flush=True)
    venv.create(VENV, clear=True, with_pip=True, symlinks=os.name != "nt")
    return python


def _has_ensurepip() -> bool:
    probe = [sys.executable, "-c", "import ensurepip, venv"]
    return subprocess.run(probe, stderr=subprocess.DEVNULL, check=False).returncode == 0


if __name__ == "__main__":
    main(sys.argv[1])
    if sys.argv[1] == "test":
        install_chromium()
