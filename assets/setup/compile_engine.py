"""Compile the engine's busiest files with mypyc: ``.venv/bin/python assets/setup/compile_engine.py [first]``.

It takes half a minute, needs a C compiler and Python's headers, and is never needed: `explorer.compiled` says what
becomes of the result. Nothing is done if the engine is compiled as it is now; with ``first``, nothing either if it was
compiled, or could not be, as it was before.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from explorer.compiled import COMPILED, folder_of_twins, has_twins, shelf_of_twins  # noqa: E402 - after the path is set

_NO_COMPILER = """\
The engine is not compiled: {missing} is missing. Nothing needs it; logs are read nearly twice as fast with it.
  On Debian:  apt-get install gcc python3-dev   (as root), then: make fast"""
_FAILED = """\
The engine could not be compiled; it runs as it is. What the compiler said:
{said}"""
_EDITED = "The engine was edited since it was compiled and runs as it is; make fast compiles it anew."
_LINES_SAID = 15


def compile_engine(*, first: bool) -> None:
    """Make the twins of the engine as it is now, if they are not there; say so if they cannot be made."""
    folder = folder_of_twins()
    if has_twins(folder) or (first and folder.is_dir()):
        return
    if first and any(map(has_twins, shelf_of_twins().glob("*"))):
        print(_EDITED)
        return
    missing = _missing()
    if missing:
        print(_NO_COMPILER.format(missing=missing))
        folder.mkdir(parents=True, exist_ok=True)  # an empty folder: it was tried
        return
    print("compiling the engine (once, half a minute)", flush=True)
    shelf_of_twins().mkdir(exist_ok=True)
    # Made beside its place, so that the last step is a renaming: nobody ever sees half of it.
    with tempfile.TemporaryDirectory(dir=shelf_of_twins(), prefix="making-") as making:
        said = _make_in(Path(making))
        if said is not None:
            print(_FAILED.format(said=said))
            folder.mkdir(exist_ok=True)
            return
        _put(Path(making) / "explorer/engine", folder)


def _make_in(room: Path) -> str | None:
    """Compile a copy of the engine where it lies; return the end of what was said if that failed."""
    shutil.copytree(ROOT / "explorer/engine", room / "explorer/engine", ignore=shutil.ignore_patterns("__pycache__"))
    (room / "explorer/__init__.py").touch()  # the real one names the whole project
    done = subprocess.run(
        [sys.executable, __file__, "in", str(room)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    return "\n".join(done.stdout.splitlines()[-_LINES_SAID:]) if done.returncode else None


def _put(made: Path, folder: Path) -> None:
    """Move what was made to where it is looked for, and throw away what was made of older files."""
    for path in made.glob("*.py"):
        path.unlink()  # sources are not looked for there
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()
    try:
        made.rename(folder)
    except OSError:
        if not folder.is_dir():  # else somebody else was quicker, with the same files
            raise
    for other in shelf_of_twins().iterdir():
        if other != folder and not other.name.startswith("making-"):
            shutil.rmtree(other, ignore_errors=True)


def _missing() -> str | None:
    compiler = shlex.split(sysconfig.get_config_var("CC") or "cc")[0]
    if shutil.which(compiler) is None:
        return f"a C compiler ({compiler})"
    header = Path(sysconfig.get_path("include")) / "Python.h"
    return None if header.is_file() else f"a header of Python ({header.name})"


def _compile_in(room: str) -> None:
    """Compile the copy in `room` where it lies. In a process of its own: it is told where it is by the folder."""
    from mypyc.build import mypycify  # noqa: PLC0415 - only here
    from setuptools import setup  # noqa: PLC0415

    os.chdir(room)
    files = [f"explorer/engine/{name}.py" for name in COMPILED]
    extensions = mypycify(
        ["--follow-imports=silent", *files],
        opt_level="1",  # as quick as 2 or 3 for what these files do, and compiled in a third less time
        debug_level="0",
        group_name="explorer.engine.compiled",
    )
    setup(name="explorer", packages=[], ext_modules=extensions, script_args=["build_ext", "--inplace"])


if __name__ == "__main__":
    if sys.argv[1:2] == ["in"]:
        _compile_in(sys.argv[2])
    else:
        compile_engine(first="first" in sys.argv)
