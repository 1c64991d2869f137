"""What leaves the timeline: operations that were set aside, and the same MOVE on a kernel that answers otherwise."""

from __future__ import annotations

from itertools import takewhile
from typing import TYPE_CHECKING, NamedTuple

from explorer.engine.profile import PROFILES
from explorer.engine.uapi import KvmMrChange
from explorer.explain.ledger import ledger_of
from explorer.explain.sentences import op_words
from explorer.explain.words import errno_text, plural
from explorer.history.moment import moment_at
from explorer.selectors.glyphs import CHANGE_TITLES, glyph_of

if TYPE_CHECKING:
    from explorer.history import OpDetail, Run

__all__ = ["Branch", "elsewhere", "set_aside"]

_OTHERS = ("v6_12", "v6_1", "v6_6")
"""Kernels that are asked, in this order: with the check, without it, and with it as merged."""
_LONGEST_RUN = 500
"""Operations that are replayed for it; a longer run is left to the Kernels tab."""


class Branch(NamedTuple):
    """One line that leaves the timeline."""

    after: int
    """Index of the last operation that both have; the line leaves there."""
    glyph: str
    words: str
    result: str
    """What stands out: 0 or an errno; empty for what was set aside."""
    loss: str
    """Watches that go there and not come back; empty for none."""
    kept: str
    """What follows the result otherwise."""
    era: str = ""
    """Kernel and operation a click leads to, such as ``v6_1:16``; empty for what was set aside."""


def elsewhere(run: Run, op: OpDetail) -> Branch | None:
    """Return the first kernel on which the same MOVE, after the same operations, comes to another result.

    Parameters
    ----------
    run
        The run.
    op
        An operation of it.

    Returns
    -------
    Branch | None
        None if it is no MOVE, if every kernel that is asked agrees, or if the run before it went otherwise there.
    """
    here = run.outcomes[op.number]
    if here.change is not KvmMrChange.MOVE or op.number >= _LONGEST_RUN:
        return None
    upto = run.up_to(op.number + 1)
    for name in _OTHERS:
        if name == run.start.profile.name:
            continue
        there = upto.on(name, run.start.config)
        *before, last = there.outcomes
        same = all(a.errno is b.errno for a, b in zip(before, upto.outcomes, strict=False))
        if same and last.errno is not here.errno:
            return _branch(there, name)
    return None


def _branch(there: Run, profile: str) -> Branch:
    op = len(there) - 1
    errno = there.outcomes[op].errno
    ledger = ledger_of(moment_at(there, there.last_stop))
    lost, dropped, kept = (ledger.lost, ledger.dropped, ledger.kept) if ledger is not None else (0, 0, 0)
    loss = f"{plural(lost, 'watch')} lost" if lost else f"KVMGT drops {plural(dropped, 'watch')}" if dropped else ""
    return Branch(
        after=op,
        glyph="move" if errno is None else "rejected",
        words=f"the same call on {PROFILES[profile].title}:",
        result="0" if errno is None else errno_text(errno),
        loss=loss,
        kept="" if loss else f"{plural(kept, 'watch')} kept" if kept else "no watch lost",
        era=f"{profile}:{op}",
    )


def set_aside(earlier: Run, run: Run) -> Branch | None:
    """Return the operations that were set aside when the past of a run was changed.

    Parameters
    ----------
    earlier
        The run before the change.
    run
        The run now.

    Returns
    -------
    Branch | None
        None if one is no branch of the other: another machine, no operation in common, or nothing set aside.
    """
    if earlier.start != run.start:
        return None
    pairs = zip(earlier.commands, run.commands, strict=False)
    n = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
    if n in (0, len(earlier)):
        return None
    command, outcome = earlier.commands[n], earlier.outcomes[n]
    title, detail = op_words(command)
    title = CHANGE_TITLES[outcome.change] if outcome.change is not None else title
    more = len(earlier) - n - 1
    return Branch(
        after=n - 1,
        glyph=glyph_of(command, outcome),
        words=f"set aside: {title} {detail}".rstrip() + (f" and {more:,} more" if more else ""),
        result=errno_text(outcome.errno) if outcome.errno is not None else "",
        loss="",
        kept="",
    )
