"""Where the same operations are answered otherwise on another kernel or machine, in a sentence."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from explorer.engine.commands import SetMemoryRegion
from explorer.explain.sentences import op_words
from explorer.explain.words import errno_text, plural

if TYPE_CHECKING:
    from collections.abc import Sequence

    from explorer.engine.commands import Command
    from explorer.history.run import Outcome

__all__ = ["Answers", "apart"]


class Answers(NamedTuple):
    """What operations come to on one machine."""

    outcomes: Sequence[Outcome]
    composed: Outcome | None = None
    """Of the operation that is composed and not applied, if there is one."""


def apart(
    commands: Sequence[Command], there: Answers, here: Answers, other: str, composed: Command | None = None
) -> str:
    """Return how many operations are answered otherwise here than there, and the first of them.

    Parameters
    ----------
    commands
        The operations, as both ran them.
    there, here
        What they came to before, and come to now.
    other
        What to call the machine there, such as ``6.12``.
    composed
        The operation that is composed and not applied, if there is one.
    """
    pairs = list(zip(commands, there.outcomes, here.outcomes, strict=True))
    differ = [at for at, (_, a, b) in enumerate(pairs) if a != b]
    total = plural(len(pairs), "operation")
    if differ:
        at = differ[0]
        which = f"operation {at + 1}" if len(differ) == 1 else f"first operation {at + 1}"
        verb = "differs" if len(differ) == 1 else "differ"
        text = f"{len(differ)} of {total} {verb} from {other}: {which}, {_difference(*pairs[at])}."
    elif len(pairs) > 1:
        text = f"all {total} return what they return on {other}."
    else:
        text = f"{total} returns what it returns on {other}." if pairs else f"as on {other}, no operation has run."
    if composed is None or there.composed is None or here.composed is None or there.composed == here.composed:
        return text
    return f"{text} The composed {_difference(composed, there.composed, here.composed)}."


def _difference(command: Command, there: Outcome, here: Outcome) -> str:
    change = here.change or there.change
    title, detail = op_words(command)
    if isinstance(command, SetMemoryRegion):
        title = f"{change.value if change is not None else 'region call'} of"
    return f"{title} {detail}, {_results(there, here)}"


def _results(there: Outcome, here: Outcome) -> str:
    if there.errno != here.errno:
        return f"{errno_text(there.errno)} there, {errno_text(here.errno)} here"
    if there.errno is not None:
        return f"{errno_text(here.errno)} here as there, from another check"
    changes = [outcome.change.value if outcome.change is not None else "nothing" for outcome in (there, here)]
    return f"taken for {changes[0]} there, for {changes[1]} here"
