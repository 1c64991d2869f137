"""Writes ``assets/docs/fidelity.md``: what is modelled, what is not, and what backs it. Run by ``make fidelity``."""

from __future__ import annotations

import ast
import re
import sys
from collections import defaultdict
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from call_trees import OPERATIONS, TREES, where  # noqa: E402 - after the path is set

from explorer.conform import conform  # noqa: E402
from explorer.conform.call_trees import INLINED_IN, entered_functions, graphs_of, shown_by  # noqa: E402
from explorer.engine.profile import PROFILES, SOURCES, profile_of_release  # noqa: E402
from explorer.explain.left_out import why_left_out  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Iterator

    from explorer.conform import Report

PAGE = ROOT / "assets/docs/fidelity.md"
RECORDINGS = ROOT / "assets/recordings"
REASONS = {
    "without the tracker module": "the recording machine could not load the module",
    "host_read": "nothing that is modelled wrote the byte that was read",
}


ABSENT = {
    "Memory attributes (KVM_SET_MEMORY_ATTRIBUTES, from 6.8 on)": (
        "no recorded operation sets one, so nothing could judge a model of the call, of the mark for frames of mixed"
        " pages in `disallow_lpage` (bit 31), which stays clear here, and of faults on private pages. What stands"
        " beside it is modelled: what KVM_CAP_MEMORY_ATTRIBUTES answers, slots on guest_memfd, and VMs that may have"
        " private memory, in which every page is shared as long as nobody makes the call"
    ),
}
"""What a kernel that is modelled has and the engine has no object for at all, with the reason."""


def main() -> None:
    """Write the page."""
    PAGE.parent.mkdir(parents=True, exist_ok=True)
    PAGE.write_text(page(), encoding="utf-8")


def page() -> str:
    """Return the page."""
    return "\n".join(_lines()) + "\n"


def _lines() -> Iterator[str]:
    yield "# What is modelled, and what backs it"
    yield ""
    yield "Written by `make fidelity`; do not edit. The engine is written from the kernel's sources and held against"
    yield "recordings of real kernels ([how they were made](../recordings/README.md)). An operation of a recording is"
    yield "*matched* if every value that was recorded for it is reproduced: return value, errno, and what was read back"
    yield "from the kernel's memory. It is *not modelled*, never called matched, if the engine has no object for it."
    yield ""
    yield from _recorded()
    yield from _unmodelled()
    yield from _graphs()
    yield from _profiles()
    yield from _absent()
    yield from _left_out()


@cache
def _reports() -> dict[Path, Report]:
    """Return what came of every folder of recordings."""
    return {folder: conform([folder]) for folder in sorted({path.parent for path in RECORDINGS.rglob("*.jsonl.gz")})}


def _recorded() -> Iterator[str]:
    yield "## Recorded operations"
    yield ""
    yield "| kernel | configuration | scenarios | operations | matched | mismatched | not modelled |"
    yield "| --- | --- | ---: | ---: | ---: | ---: | ---: |"
    total = [0] * 5
    for folder, report in _reports().items():
        counts = [report.scenarios, report.operations, report.matched, report.mismatched, report.unmodelled]
        total = [a + b for a, b in zip(total, counts, strict=True)]
        kernel, _, variant = folder.relative_to(RECORDINGS).as_posix().partition("/")
        yield f"| {kernel} | {variant or 'shadow paging'} | " + " | ".join(f"{n:,}" for n in counts) + " |"
    yield "| all | | " + " | ".join(f"{n:,}" for n in total) + " |"
    yield ""


def _unmodelled() -> Iterator[str]:
    yield "## Recorded and not modelled"
    yield ""
    yield "| operation or value | times | why |"
    yield "| --- | ---: | --- |"
    times: dict[str, int] = defaultdict(int)
    for report in _reports().values():
        for (_, what), count in report.unmodelled_by.items():
            times[what] += count
    for what, count in sorted(times.items(), key=lambda item: (-item[1], item[0])):
        yield f"| {what} | {count:,} | {_reason(what)} |"
    yield ""


def _reason(what: str) -> str:
    found = next((why for name, why in REASONS.items() if what.endswith(name)), None) or REASONS.get(what)
    assert found is not None, f"no reason is given why {what!r} is not modelled"
    return found


def _graphs() -> Iterator[str]:
    yield "## Recorded function graphs"
    yield ""
    known = entered_functions()
    yield "The kernel's tracer recorded which functions single operations entered; the engine says which it enters. For"
    yield "every operation below both sequences are equal in the functions that the engine has events for and that"
    yield "kernel shows, with one exception: with TDP a real kernel also zaps direct shadow pages by"
    yield "`__kvm_mmu_prepare_zap_page()`, of which the engine has the entries only. A function that the compiler"
    yield "inlined shows in no graph, and some only in others:"
    for function, changes in INLINED_IN.items():
        yield f"`{function}()` not in those of {' and '.join(sorted(change.name for change in changes))}."
    yield "The tab Calls shows both sequences side by side."
    yield ""
    yield "| kernel | configuration | operations | compared | functions shown | of them events of the engine |"
    yield "| --- | --- | ---: | ---: | ---: | ---: |"
    for path in TREES:
        shown, labels = shown_by(path), [graph.label for graph in graphs_of(path)]
        compared = sum(label in OPERATIONS for label in labels)
        counts = (len(labels), compared, len(shown), len(shown & known))
        yield f"| {' | '.join(where(path))} | {' | '.join(map(str, counts))} |"
    yield ""
    yield from _without_graph()
    yield "Left out: what the graphs show and the engine has no event for, with what the engine's files say of it, and"
    yield "the kernels that show it."
    yield ""
    kernels: dict[str, list[str]] = defaultdict(list)
    for path in TREES:
        for name in sorted(shown_by(path) - known):
            kernel = where(path)[0]
            kernels[name] += [kernel] if kernel not in kernels[name] else []
    groups: dict[str, list[str]] = defaultdict(list)
    for name in sorted(kernels):
        groups[_said(name)].append(f"`{name}` ({', '.join(kernels[name])})")
    for said, names in sorted(groups.items()):
        yield f"- {said}: {', '.join(names)}"
    yield ""
    never = sorted(known - {name for path in TREES for name in shown_by(path)})
    yield "Events that no graph backs, because the compiler inlined the function or no recorded operation comes there:"
    yield ", ".join(f"`{name}`" for name in never) + "."
    yield ""


def _said(function: str) -> str:
    said = why_left_out(function)
    match said.how if said is not None else None:
        case "part":
            return f"done in `{said.words}()` (`{said.file}`)"
        case "not modelled":
            return f"not modelled, {said.words} (`{said.file}`)"
        case "module":
            return f"of {said.words}"
        case _:
            return "of which no file of the engine speaks"


def _without_graph() -> Iterator[str]:
    traced = {where(path) for path in TREES}
    folders = sorted({path.parent.relative_to(RECORDINGS).parts for path in RECORDINGS.rglob("*.jsonl.gz")})
    untraced = [" ".join(folder) for folder in folders if folder not in traced]
    backed = {profile_of_release(kernel).name for kernel, _ in traced}
    unbacked = ", ".join(f"`{name}`" for name in PROFILES if name not in backed)
    yield f"No function graph was recorded on {', '.join(untraced)}; no graph backs the profiles {unbacked}."
    yield ""


def _absent() -> Iterator[str]:
    yield "## Not modelled at all"
    yield ""
    for what, why in ABSENT.items():
        yield f"- {what}: {why}."
    yield ""


def _profiles() -> Iterator[str]:
    names = list(PROFILES)
    yield "## Kernels and how they differ"
    yield ""
    for profile in PROFILES.values():
        yield f"- `{profile.name}` ({profile.title}, {profile.kind}): {profile.summary}"
    yield ""
    yield f"| behaviour | {' | '.join(f'`{name}`' for name in names)} | from |"
    yield f"| --- | {' | '.join('---' for _ in names)} | --- |"
    for field, behaviour in SOURCES.items():
        values = [_value(getattr(PROFILES[name], field)) for name in names]
        source = f"[{behaviour.source}]({behaviour.url})" if behaviour.url else behaviour.source
        yield f"| {behaviour.meaning} | {' | '.join(values)} | {source} |"
    yield ""


def _value(value: object) -> str:
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)


def _left_out() -> Iterator[str]:
    yield "## What each file leaves out"
    yield ""
    yield "From the first lines of the engine's files."
    yield ""
    for path in sorted((ROOT / "explorer/engine").glob("*.py")):
        text = " ".join((ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "").split())
        found = re.search(r"Not modelled: (.+?)(?: Read next:| Used by |$)", text)
        if found:
            yield f"- `{path.name}`: {found[1].rstrip('. ').replace('``', '`')}."


if __name__ == "__main__":
    main()
