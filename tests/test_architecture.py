"""The shape of the package, read from its source: who may import whom, how large, how cited.

The rules are those of the project's style guide; they hold for packages that do not exist yet, too.
"""

from __future__ import annotations

import ast
import itertools
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

from explorer.engine.profile import PROFILES
from explorer.explain.sources import FUNCTIONS, name_in

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "explorer"
ENGINE = PACKAGE / "engine"

LAYERS = [
    # Bottom to top. A part imports from layers below its own; parts of one layer do not know each other.
    {"compiled"},
    {"engine"},
    {"history"},
    {"conform", "scenarios", "trace", "checker", "live"},
    {"explain"},
    {"selectors"},
    {"figures"},
    {"show", "share"},
    {"app"},
    {"cli"},
    {"__main__"},
]
ONLY = {"engine": set(), "conform": {"engine"}, "trace": {"engine"}}
"""Parts that import even less than their layer allows."""
DISPLAY = {"plotly", "ipywidgets", "anywidget", "traitlets", "IPython", "numpy", "jupyterlab", "voila"}
MAY_DISPLAY = {
    "figures": {"plotly"},
    "show": {"plotly"},
    "share": {"plotly"},
    "app": DISPLAY,
    "cli": {"voila", "jupyterlab"},
}
WORLD = {"time", "datetime", "random", "secrets", "logging", "os", "socket", "subprocess", "threading"}
"""What a pure function has no use for."""

LINES = 300
LONGER = {
    # Engine files above the limit, each with the reason why it is better whole.
    "profile": "one table: a field a behaviour, its source, and what each kernel has",
    "commands": "one class a command, and the grammar that reads all of them",
    "events": "one class an event, and the union that closes the list",
    "guards": "one table: a row a check, in the order in which the kernel asks",
    "memslots": "one call: its phases in the order in which they run, and the tables that are its control flow",
    "sortedmap": "one data structure: its operations share how a node is split, shrunk and walked",
}


def modules(folder: Path = PACKAGE) -> list[Path]:
    return sorted(path for path in folder.rglob("*.py"))


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def part_of(path: Path) -> str:
    """Return the part a file belongs to: a package, or a module beside the packages."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports_of(path: Path) -> list[str]:
    """Return the full name of everything a file imports, for type checkers or inside functions, too."""
    found = []
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name_of(path)}:{node.lineno}: imports are absolute"
            found += [f"{node.module}.{alias.name}" for alias in node.names]
    return found


def parts_imported(path: Path) -> set[str]:
    own = (name.split(".")[1] for name in imports_of(path) if name.startswith("explorer."))
    return {part for part in own if not part.startswith("__")} - {part_of(path)}


LAYER_OF = {part: at for at, layer in enumerate(LAYERS) for part in layer}


@pytest.mark.parametrize("path", modules(), ids=name_of)
def test_imports_go_downwards(path):
    part = part_of(path)
    if part == "__init__":
        return  # the public names may come from anywhere
    assert part in LAYER_OF, f"{part} is a new part of the package; give it a place in LAYERS"

    allowed = ONLY.get(part, {other for other, layer in LAYER_OF.items() if layer < LAYER_OF[part]})

    assert parts_imported(path) <= allowed


@pytest.mark.parametrize("path", modules(), ids=name_of)
def test_only_what_is_shown_imports_what_shows(path):
    libraries = {name.split(".")[0] for name in imports_of(path)}

    assert libraries & DISPLAY <= MAY_DISPLAY.get(part_of(path), set())


@pytest.mark.parametrize("path", modules(ENGINE), ids=name_of)
def test_the_engine_has_no_clock_no_chance_and_no_log(path):
    assert not {name.split(".")[0] for name in imports_of(path)} & WORLD


def test_the_engine_runs_where_nothing_but_python_is_installed():
    names = [f"explorer.engine.{path.stem}" for path in modules(ENGINE) if path.stem != "__init__"]
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r}); import {', '.join(names)}; print(*sys.modules)"

    loaded = subprocess.run([sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, check=True).stdout

    own = {name.split(".")[1] for name in loaded.split() if name.startswith("explorer.")}
    assert own == {"compiled", "engine"}


@pytest.mark.parametrize("path", modules(ENGINE), ids=name_of)
def test_an_engine_file_can_be_read_in_one_go(path):
    lines = len(path.read_text(encoding="utf-8").splitlines())

    assert lines <= LINES or path.stem in LONGER, f"{lines} lines; split it, or give a reason in LONGER"
    assert lines > LINES or path.stem not in LONGER, f"{lines} lines; its entry in LONGER is no longer needed"


@pytest.mark.parametrize("path", [path for path in modules(ENGINE) if path.stem != "__init__"], ids=name_of)
def test_an_engine_module_says_what_it_leaves_out(path):
    assert "Not modelled:" in (ast.get_docstring(tree_of(path)) or "")


def test_the_reading_order_of_the_engine_names_every_module():
    order = re.findall(r"`(\w+)`", ast.get_docstring(tree_of(ENGINE / "__init__.py")))
    containers = {"sortedmap", "runset", "__init__"}  # how state is kept, not what it means

    assert sorted(order) == sorted({path.stem for path in modules(ENGINE)} - containers)


def test_every_file_says_which_one_to_read_next():
    order = re.findall(r"`(\w+)`", ast.get_docstring(tree_of(ENGINE / "__init__.py")))
    followers = {
        name: re.findall(r"Read next: `(\w+)`\.", ast.get_docstring(tree_of(ENGINE / f"{name}.py")))
        for name in order[:-1]
    }

    assert followers == {name: [follower] for name, follower in itertools.pairwise(order)}


# -- citations -------------------------------------------------------------------------------------

KERNEL_NAME = re.compile(
    r"_*(kvm_|mmu_|update_gfn_|mark_page_dirty|intel_vgpu_|intel_gvt_|id_to_memslot$|gfn_to_index$|gfn_to_memslot$)"
)
FILE = r"(?:virt|arch|include|drivers)/[\w./]+\.[ch]"
FUNCTION = r"\w+\(\)"
ENTRY = re.compile(rf"{FILE}: {FUNCTION}")
PROFILE_NAME = re.compile(r"\b(?:v\d+_\d+\w*|pre_edd4)\b")


def functions(folder: Path) -> list[tuple[Path, ast.FunctionDef]]:
    return [
        (path, node)
        for path in modules(folder)
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.FunctionDef)
    ]


def references_of(node: ast.FunctionDef) -> str | None:
    """Return the References section of a docstring on one line, or None."""
    docstring = ast.get_docstring(node) or ""
    _, heading, section = docstring.partition("References\n----------\n")
    return " ".join(section.split()) if heading else None


CITED = [(path, node) for path, node in functions(ENGINE) if references_of(node) is not None]
MODELS = [(path, node) for path, node in functions(ENGINE) if KERNEL_NAME.match(node.name)]


def label(value: object) -> str:
    return value.name if isinstance(value, ast.FunctionDef) else value.stem if isinstance(value, Path) else str(value)


def kernels_of(words: str) -> list[str]:
    """Return the profiles that the words in the brackets of a citation name, up to their first semicolon."""
    named, known = words.partition(";")[0].strip(), list(PROFILES)
    if named == "all profiles":
        return known
    if named.startswith("up to "):
        return known[: known.index(named.removeprefix("up to ")) + 1]
    if " to " in named:
        first, last = named.split(" to ")
        return known[known.index(first) : known.index(last) + 1]
    return [known[known.index(name)] for name in named.split(", ")]


def functions_by_kernel(node: ast.FunctionDef) -> dict[str, set[str]]:
    """Return the kernel functions a docstring cites, for each profile it cites them of."""
    cited: dict[str, set[str]] = {name: set() for name in PROFILES}
    for chunk, words in re.findall(r"([^\[\]]*)\[([^\[\]]+)\]", references_of(node) or ""):
        for name in kernels_of(words):
            cited[name].update(function.removesuffix("()") for function in re.findall(FUNCTION, chunk))
    return cited


def functions_passed(node: ast.FunctionDef) -> set[str]:
    """Return the kernel functions a function of the engine says it passes, under their newest names."""
    calls = [call for call in ast.walk(node) if isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute)]
    return {
        call.args[0].value for call in calls if call.func.attr == "enter" and isinstance(call.args[0], ast.Constant)
    }


@pytest.mark.parametrize(("path", "node"), CITED, ids=label)
def test_a_cited_function_has_that_name_in_the_kernels_it_is_cited_of(path, node):
    """The table of names is checked against recorded call trees, so a docstring that agrees with it is right."""
    known = {name_in(function, profile) for function in FUNCTIONS for profile in PROFILES.values()}

    for name, cited in functions_by_kernel(node).items():
        there = {name_in(function, PROFILES[name]) for function in FUNCTIONS}
        assert cited & known <= there, f"{name_of(path)}:{node.lineno}: not so called in {name}"


@pytest.mark.parametrize(("path", "node"), CITED, ids=label)
def test_a_function_that_is_cited_and_passed_is_cited_under_its_older_names_as_well(path, node):
    cited = functions_by_kernel(node)
    newest = functions_passed(node) & set().union(*cited.values()) & set(FUNCTIONS)

    for name, profile in PROFILES.items():
        names = {name_in(function, profile) for function in newest} - {None}
        assert names <= cited[name] | newest, f"{name_of(path)}:{node.lineno}: the screen says {names} on {name}"


@pytest.mark.parametrize(("path", "node"), CITED, ids=label)
def test_a_citation_names_file_function_and_kernels(path, node):
    text = references_of(node)

    where = f"{name_of(path)}:{node.lineno}: not of the form 'file: function() [kernels]': {text!r}"
    assert len(ENTRY.findall(text)) == len(re.findall(rf"{FILE}", text)) > 0, where
    assert ENTRY.match(text), where
    assert re.search(r"\[[^\[\]]+\]$", text), where
    assert all(kernels_of(words) for words in re.findall(r"\[([^\[\]]+)\]", text)), where
    assert set(PROFILE_NAME.findall(text)) <= set(PROFILES)


@pytest.mark.parametrize(("path", "node"), MODELS, ids=label)
def test_a_function_with_a_kernel_name_cites_that_function(path, node):
    text = references_of(node)

    assert text is not None, f"{name_of(path)}:{node.lineno}: {node.name} has no References section"
    assert f"{node.name.lstrip('_')}()" in text


def test_there_are_citations_to_check():
    assert len(CITED) > 60
    assert len(MODELS) > 30


def test_the_engine_asks_for_behaviours_and_never_for_a_profile_s_name():
    """Style guide, section 4: the engine asks for the behaviour, never for the profile's name or version."""
    words = {"name", "title", "kind", "links", "summary"}

    for path in modules(ENGINE):
        for node in ast.walk(tree_of(path)):
            if path.stem != "profile" and isinstance(node, ast.Attribute) and node.attr in words:
                assert not ast.unparse(node.value).endswith("profile"), f"{name_of(path)}:{node.lineno}"


def test_every_behaviour_is_asked_for_somewhere_in_the_engine():
    from explorer.engine.profile import SOURCES  # noqa: PLC0415

    text = "".join(path.read_text(encoding="utf-8") for path in modules(ENGINE) if path.stem != "profile")

    assert [name for name in SOURCES if f".{name}" not in text] == []
