"""Which mutants of the engine there are: each differs from it by one thing that a rule takes away or turns round.

Rules, applied to the syntax tree of a file, never to its text:

- a guard's predicate is negated; a guard's row is taken out of the ladder;
- a phase is taken out of a table of `memslots`;
- a statement is left out that does something: a call, a counter, a field of the state. What only tells a reader
  what happened is no such statement;
- a function that answers yes or no answers the opposite.

Run by `mutation`.
"""

from __future__ import annotations

import ast
import copy
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

ENGINE = Path(__file__).parents[1] / "explorer/engine"
TELLS = {"emit", "enter", "append", "_note_replaced", "assert_never"}
"""Calls that make an event, or are never made, and change nothing."""
GUARDS = ("guards", "gmem_guards")
DOES = (
    *(
        "region_call",
        "swap",
        "memslots",
        "mmu",
        "page_track",
        "trackers",
        "kvmgt",
        "gtt",
        "dirty_log",
        "metadata",
        "guest_memfd",
        "spte",
    ),
    *("draft", "vcpu", "lapic", "tdp_walk"),
)
ANSWERS = ("page_track", "mmu", "metadata", "lookup", "fault", "hostmem", "dirty_log", "guest_memfd", "lapic")


class Change(NamedTuple):
    """What is different: one field of one node."""

    node: ast.AST
    field: str
    value: object


Rule = Callable[[ast.Module], Iterator[tuple[str, Change]]]


class Mutant(NamedTuple):
    """One changed module."""

    id: str
    """File, place and rule; the same until that place changes."""
    module: str
    """Full name of the module that is replaced."""
    original: ast.Module
    change: Change

    def tree(self) -> ast.Module:
        """Return the syntax tree of the changed module."""
        memo: dict[int, Any] = {}
        changed = copy.deepcopy(self.original, memo)
        setattr(memo[id(self.change.node)], self.change.field, self.change.value)
        return ast.fix_missing_locations(changed)


def mutants() -> list[Mutant]:
    """Return all mutants, in the order of files and lines; ids are unique."""
    found = [mutant for name in GUARDS for mutant in _of(name, _inverted_guards)]
    found += [*_of("guards", _without_rows), *_of("memslots", _without_phases)]
    for name in DOES:
        found += _of(name, _without_statements)
    for name in ANSWERS:
        found += _of(name, _opposite_answers)
    return _numbered(found)


def _of(name: str, rule: Rule) -> list[Mutant]:
    tree = ast.parse((ENGINE / f"{name}.py").read_text(encoding="utf-8"))
    return [Mutant(f"{name}: {what}", f"explorer.engine.{name}", tree, change) for what, change in rule(tree)]


def _numbered(found: list[Mutant]) -> list[Mutant]:
    seen: Counter[str] = Counter()
    numbered = []
    for mutant in found:
        seen[mutant.id] += 1
        nth = seen[mutant.id]
        numbered.append(mutant if nth == 1 else mutant._replace(id=f"{mutant.id} ({nth})"))
    return numbered


# -- looking at a tree -----------------------------------------------------------------------------


def _negated(expression: ast.expr) -> ast.expr:
    return ast.UnaryOp(ast.Not(), expression)


def _without(elements: list[ast.AST], at: int) -> list[object]:
    return [element for place, element in enumerate(elements) if place != at]


def _text(node: ast.AST, most: int = 70) -> str:
    text = " ".join(ast.unparse(node).split())
    return text if len(text) <= most else text[: most - 2] + ".."


def _last_name(node: ast.expr) -> str:
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


def _keyword(call: ast.Call, name: str) -> ast.keyword | None:
    return next((keyword for keyword in call.keywords if keyword.arg == name), None)


# -- rules -----------------------------------------------------------------------------------------


def _inverted_guards(tree: ast.Module) -> Iterator[tuple[str, Change]]:
    for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call) and _last_name(node.func) == "Guard"):
        name, passes = _keyword(call, "name"), _keyword(call, "passes")
        assert name is not None, "a guard has a name"
        assert passes is not None, "a guard has a predicate"
        assert isinstance(passes.value, ast.Lambda), "a predicate is a lambda"
        yield f"invert {ast.literal_eval(name.value)}", Change(passes.value, "body", _negated(passes.value.body))


def _without_rows(tree: ast.Module) -> Iterator[tuple[str, Change]]:
    ladder = next(node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) and node.name == "ladder_of")
    for part in (node for node in ast.walk(ladder) if isinstance(node, ast.keyword) and node.arg):
        for call in (node for node in ast.walk(part.value) if isinstance(node, ast.Call)):
            for at, row in enumerate(call.args if _last_name(call.func) == "part" else ()):
                yield f"no {_text(row)} among {part.arg}", Change(call, "args", _without(call.args, at))


def _without_phases(tree: ast.Module) -> Iterator[tuple[str, Change]]:
    for node in tree.body:
        target = node.targets[0] if isinstance(node, ast.Assign) else getattr(node, "target", None)
        if not isinstance(target, ast.Name) or target.id not in ("_INVALIDATE", "_PUBLISH", "ROLL_BACK", "TABLES"):
            continue
        tables = {target.id: node.value}
        if isinstance(node.value, ast.Dict):
            tables = {_last_name(k): v for k, v in zip(node.value.keys, node.value.values, strict=True)}
        for name, table in tables.items():
            for at, row in enumerate(table.elts):
                what = ast.literal_eval(row.args[0]) if isinstance(row, ast.Call) else _text(row)
                yield f"{name} without {what}", Change(table, "elts", _without(table.elts, at))


def _without_statements(tree: ast.Module) -> Iterator[tuple[str, Change]]:
    for function in (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)):
        if function.name in ("__init__", "freeze", "emit", "enter", "thaw"):
            continue
        for holder in ast.walk(function):
            for field in ("body", "orelse"):
                body = getattr(holder, field, None)
                for at, statement in enumerate(body if isinstance(body, list) else ()):
                    if _does_something(statement):
                        kept = [ast.Pass() if place == at else s for place, s in enumerate(body)]
                        yield f"{function.name}() without {_text(statement)}", Change(holder, field, kept)


def _does_something(statement: ast.stmt) -> bool:
    match statement:
        case ast.Expr(value=ast.Call(func=func)):
            return _last_name(func) not in TELLS
        case ast.AugAssign(target=ast.Attribute()):
            return True
        case ast.Assign(targets=[ast.Attribute()]):
            return True
        case _:
            return False


def _opposite_answers(tree: ast.Module) -> Iterator[tuple[str, Change]]:
    for function in (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)):
        if not isinstance(function.returns, ast.Name) or function.returns.id != "bool":
            continue
        for answer in (node for node in ast.walk(function) if isinstance(node, ast.Return) and node.value is not None):
            if isinstance(answer.value, ast.Constant):
                opposite: ast.expr = ast.Constant(not answer.value.value)
            else:
                opposite = _negated(answer.value)
            yield f"{function.name}() not {_text(answer.value)}", Change(answer, "value", opposite)
