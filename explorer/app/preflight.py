"""What the composed operation would do, run on a copy before anything is applied."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from explorer.app.compose import WALK, commands_of
from explorer.engine.commands import SetMemoryRegion, format_command
from explorer.engine.events import MappingsZapped
from explorer.engine.types import ExplorerError
from explorer.engine.uapi import KvmMrChange
from explorer.explain.changes import changes_that_work
from explorer.explain.ledger import ledger_of
from explorer.explain.words import errno_text, plural
from explorer.explain.xray import named, slots_in_the_way
from explorer.history import Run, Stop
from explorer.history.moment import attempted_change, moment_at
from explorer.selectors.verdict import verdict_of

if TYPE_CHECKING:
    from explorer.app.compose import Compose
    from explorer.engine.state import Kvm
    from explorer.history import OpDetail
    from explorer.history.moment import Moment

__all__ = ["Preflight", "preflight"]


class Preflight(NamedTuple):
    """What the composed operation would do, run on a copy."""

    title: str
    text: str
    refused: bool
    error: bool
    """Whether a field cannot be read."""


def preflight(compose: Compose, kvm: Kvm, ghost: OpDetail | None, *, hidden: bool) -> Preflight:
    """Return the preflight lines: class, result and number of side effects, on the `kvm` it is composed for."""
    if hidden:
        return Preflight("", "Hidden until you have answered", refused=False, error=False)
    if not compose.shown:
        return Preflight("", "Choose an operation, or change a field of this one.", refused=False, error=False)
    commands = commands_of(compose, kvm)
    if isinstance(commands, ExplorerError):
        return Preflight("", str(commands), refused=False, error=True)
    if ghost is None:
        return Preflight("", "Change a field to compose the next operation.", refused=False, error=False)
    if compose.kind == WALK:
        refused = sum(outcome.errno is not None for outcome in Run(kvm, commands).outcomes)
        text = f"{refused} of them will be refused. The first: {format_command(commands[0])}"
        return Preflight(plural(len(commands), "operation"), text, refused=False, error=False)
    if isinstance(ghost.command, SetMemoryRegion):
        return _region_preflight(ghost, ghost.command)
    errno = ghost.step.errno
    if errno is not None:
        return Preflight("", f"Refused with {errno_text(errno)}.", refused=True, error=False)
    verdict = verdict_of(moment_at(Run(ghost.before, (ghost.command,)), Stop(0, 10**6)))
    return Preflight(verdict.title, _sentence(verdict.subtitle or "accepted"), refused=False, error=False)


def _sentence(words: str) -> str:
    return f"{words[:1].upper()}{words[1:]}."


def _region_preflight(ghost: OpDetail, call: SetMemoryRegion) -> Preflight:
    change = ghost.step.change or attempted_change(ghost.before, call)
    name = change.value if change is not None else "The call"
    why = {
        "CREATE": "because there is no such slot",
        "DELETE": "because the size is 0",
        "MOVE": "because base_gfn differs",
        "FLAGS_ONLY": "because only flags differ",
        "NOOP": "because nothing differs",
    }.get(name, "")
    title = f"{name}, {why}" if why else name
    effects = _side_effects(ghost)
    errno = ghost.step.errno
    if errno is not None:
        fired = ghost.step.refused_by
        found = next((result.operands for result in ghost.step.results if result.guard is fired), "")
        why = f"The check “{fired.title}” fails: {found}." if fired is not None else ""
        tail = f" after {plural(len(effects), 'side effect')} that stay" if effects else ", and nothing is touched"
        ways = slots_in_the_way(ghost.before, call, fired.name) if fired is not None else ()
        way = f" {named(ways)} in the way." if ways else ""
        refused = f"Refused with {errno_text(errno)}{tail}. {why}{way}{_what_works(ghost, call)}"
        told = title if effects or ghost.step.change is not None else ""
        return Preflight(told, refused, refused=True, error=False)
    return Preflight(
        title, "Accepted. " + _sentence(", ".join(effects)) if effects else "Accepted.", refused=False, error=False
    )


def _what_works(ghost: OpDetail, call: SetMemoryRegion) -> str:
    """Return the smallest change that the engine accepts, as a sentence."""
    change = next(iter(changes_that_work(ghost.before, call, most=1)), None)
    return f" Would work: {change.words}{change.but}." if change is not None else ""


def _side_effects(ghost: OpDetail) -> list[str]:
    """Return what the call does besides its result, each in a few words."""
    call = ghost.command
    assert isinstance(call, SetMemoryRegion), "only region calls have phases"
    if call.as_id >= len(ghost.before.memslots):
        return []
    effects = []
    run = Run(ghost.before, (call,))
    effects += _fates(moment_at(run, Stop(0, 10**6)))
    zaps = [e for e in ghost.step.events if isinstance(e, MappingsZapped)]
    if zaps:
        effects.append("all mappings zapped" if zaps[0].scope == "all" else "the slot’s mappings zapped")
    step = ghost.step.kvm.active(call.as_id).generation - ghost.before.active(call.as_id).generation
    if step:
        effects.append(f"generation +{step}")
    swaps = sum(cell.swaps for cell in ghost.cells)
    if swaps > 1 and ghost.step.errno is not None:
        effects.append(f"{swaps} waits for all readers")
    return effects


def _fates(moment: Moment) -> list[str]:
    """Return what becomes of the watches of the slot, and whether that does harm."""
    ledger = ledger_of(moment)
    if ledger is None:
        return []
    carried = ledger.kept if moment.change is KvmMrChange.MOVE and moment.kvm.profile.move_keeps_arch_metadata else 0
    told = ((ledger.lost, "lost"), (ledger.dropped, "dropped by KVMGT"), (carried, "carried over by index"))
    found = [f"{plural(n, 'watch')} {fate} (harmful)" for n, fate in told if n]
    if ledger.released:
        found.append(f"{plural(ledger.released, 'watch')} released by the zap (harmless)")
    return found
