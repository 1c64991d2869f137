"""Writes ``assets/docs/fidelity.md``: what is modelled, what is not, and what backs it. Run by ``make fidelity``."""

from __future__ import annotations

import ast
import re
import sys
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT)]

from explorer.conform import conform  # noqa: E402 - after the path is set
from explorer.engine.profile import PROFILES, SOURCES  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Iterator

    from explorer.conform import Report

PAGE = ROOT / "assets/docs/fidelity.md"
RECORDINGS = ROOT / "assets/recordings"
REASONS = {
    "without the tracker module": "the recording machine could not load the module",
    "of the local APIC": "the registers of an interrupt controller are not modelled",
    "with no tables": "TDP, and the guest's page tables in no slot: how the guest then fails is not modelled",
    "host_read": "nothing that is modelled wrote the byte that was read",
}


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
    yield from _profiles()
    yield from _left_out()


def _recorded() -> Iterator[str]:
    yield "## Recorded operations"
    yield ""
    yield "| kernel | configuration | scenarios | operations | matched | mismatched | not modelled |"
    yield "| --- | --- | ---: | ---: | ---: | ---: | ---: |"
    total = [0] * 5
    for folder in sorted({path.parent for path in RECORDINGS.rglob("*.jsonl.gz")}):
        report = conform([folder])
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
    report: Report = conform([RECORDINGS])
    for (_, what), count in report.unmodelled_by.items():
        times[what] += count
    for what, count in sorted(times.items(), key=lambda item: (-item[1], item[0])):
        yield f"| {what} | {count:,} | {_reason(what)} |"
    yield ""


def _reason(what: str) -> str:
    found = next((why for name, why in REASONS.items() if what.endswith(name)), None) or REASONS.get(what)
    assert found is not None, f"no reason is given why {what!r} is not modelled"
    return found


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
