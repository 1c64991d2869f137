"""The page's script: files that are read one by one and run as one."""

from __future__ import annotations

from pathlib import Path

from explorer.app import stage

STATIC = Path(stage.__file__).parent / "static"


def test_every_file_of_the_script_is_in_it_once() -> None:
    assert sorted(stage._PARTS) == sorted(path.stem for path in STATIC.glob("*.js"))
    for path in STATIC.glob("*.js"):
        assert stage.Stage._esm.count(path.read_text(encoding="utf-8")) == 1
