"""The house: what lies where, and files that must agree with each other."""

from __future__ import annotations

import doctest
import json
import re
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement

import explorer

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
FIXED = {"pyproject.toml", "notebooks", "explorer", "assets", "tests", "environment.yml"}
BESIDE = {"README.md", "CHANGELOG.md", "LICENSE", "Makefile", "requirements.txt", "requirements-test.txt"}


def tracked() -> list[str]:
    """Return what git knows of, or what lies there where the sources came without git."""
    done = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False)  # noqa: S607
    if done.returncode == 0:
        return done.stdout.splitlines()
    return [path.relative_to(ROOT).as_posix() for path in ROOT.rglob("*") if path.is_file()]


def text_files() -> list[Path]:
    binary = {".gz", ".png", ".gif", ".ico"}
    return [ROOT / name for name in tracked() if Path(name).suffix not in binary and (ROOT / name).is_file()]


def test_the_top_level_is_the_fixed_one() -> None:
    names = {name.split("/")[0] for name in tracked()}
    visible = {name for name in names if not name.startswith(".")}

    assert visible >= FIXED
    assert visible <= FIXED | BESIDE


def test_the_conda_environment_asks_for_what_the_package_asks_for() -> None:
    environment = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
    *packages, pip = environment["dependencies"]

    assert sorted(pip["pip"]) == sorted([*PROJECT["dependencies"], "--editable ."])
    assert f"python{PROJECT['requires-python']}" in packages


def pins(name: str) -> dict[str, str]:
    text = (ROOT / name).read_text(encoding="utf-8")
    return {found[1].lower(): found[2] for found in re.finditer(r"^([\w.-]+)==([^\s;\\]+)", text, re.MULTILINE)}


@pytest.mark.parametrize(("name", "extras"), [("requirements.txt", []), ("requirements-test.txt", ["test"])])
def test_every_dependency_is_pinned_to_a_version_the_package_accepts(name: str, extras: list[str]) -> None:
    wanted = PROJECT["dependencies"] + [line for extra in extras for line in PROJECT["optional-dependencies"][extra]]

    for requirement in map(Requirement, wanted):
        assert requirement.specifier.contains(pins(name)[requirement.name.lower()]), requirement


@pytest.mark.parametrize("name", ["requirements.txt", "requirements-test.txt"])
def test_every_pin_has_a_hash(name: str) -> None:
    blocks = re.split(r"^(?=[\w.-]+==)", (ROOT / name).read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]

    assert len(blocks) >= len(pins(name)) > 50
    assert [block.split()[0] for block in blocks if "--hash=sha256:" not in block] == []


def test_tests_run_on_the_versions_that_users_get() -> None:
    users, tests = pins("requirements.txt"), pins("requirements-test.txt")

    assert {name: tests.get(name) for name in users} == users


def test_the_version_is_told_once() -> None:
    assert explorer.__version__ == PROJECT["version"]
    assert f"## {PROJECT['version']}" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_no_file_names_a_package_registry_or_a_path_of_somebodys_machine() -> None:
    # Put together here, so that this file does not find itself.
    hosts = [
        "pypi" + ".org",
        "pythonhosted" + ".org",
        "npmjs" + ".com",
        "npmjs" + ".org",
        "unpkg" + ".com",
        "jsd" + "elivr",
    ]
    paths = ["/work" + "/main", "/work" + "/shared", "/ro" + "ot/", "/home" + "/user"]

    found = [
        (path.name, word)
        for path in text_files()
        for word in hosts + paths
        if word in path.read_text(encoding="utf-8", errors="replace")
    ]
    assert found == []


def test_the_readmes_story_is_true() -> None:
    result = doctest.testfile(
        str(ROOT / "README.md"), module_relative=False, optionflags=doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS
    )

    assert result.attempted >= 8
    assert result.failed == 0


@pytest.mark.parametrize("name", ["README.md", "CHANGELOG.md", "assets/docs/fidelity.md", "assets/traces/README.md"])
def test_links_to_files_lead_somewhere(name: str) -> None:
    path = ROOT / name
    links = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)|src=\"([^\":]+)\"", path.read_text(encoding="utf-8"))

    assert [link for pair in links for link in pair if link and not (path.parent / link).exists()] == []


def test_decisions_have_a_context_a_decision_and_consequences() -> None:
    records = sorted((ROOT / "assets/docs/adr").glob("*.md"))

    assert len(records) >= 4
    for number, path in enumerate(records, 1):
        assert path.name.startswith(f"{number:04}-")
        headings = re.findall(r"^## (.+)$", path.read_text(encoding="utf-8"), re.MULTILINE)
        assert headings == ["Context", "Decision", "Consequences"], path.name


def test_notebooks_are_valid_json_with_a_newline_at_the_end() -> None:
    for path in (ROOT / "notebooks").glob("*.ipynb"):
        text = path.read_text(encoding="utf-8")
        assert json.loads(text)["nbformat"] == 4
        assert text.endswith("}\n")
