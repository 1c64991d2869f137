"""Why a line of a log came back with its errno: with the log before it, or with what has to be assumed instead."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from explorer.engine.state import new_vm
from explorer.explain.supposed import BARE, Supposed, supposed_vms
from explorer.explain.xray import XRay, xray_of

if TYPE_CHECKING:
    from explorer.engine.commands import Command
    from explorer.engine.profile import KernelProfile
    from explorer.engine.state import Kvm
    from explorer.trace.one_line import LogBefore, OneLine

__all__ = ["Reason", "Why", "why"]


class Reason(NamedTuple):
    """One way in which the call is refused as recorded."""

    xray: XRay
    start: Kvm
    """The VM before the assumed calls."""
    commands: tuple[Command, ...]
    """The assumed calls."""
    assumptions: tuple[str, ...]


class Why(NamedTuple):
    """The answer for a line."""

    line: OneLine
    reasons: tuple[Reason, ...]
    """The most likely first; empty if nothing explains the line."""
    answer: str
    """One sentence."""
    assumptions: tuple[str, ...]
    """What is taken for granted of all reasons."""

    @property
    def explained(self) -> bool:
        """Whether a check of the model gives the recorded errno."""
        return bool(self.reasons)


def why(line: OneLine, profile: KernelProfile, before: LogBefore | None = None, *, other_kernels: bool = True) -> Why:
    """Return why KVM refused the call of a line.

    Parameters
    ----------
    line
        The line.
    profile
        Kernel to run it on if there is no log.
    before
        The VM after a log, or None if nothing is known of it.
    other_kernels
        Whether another release may explain what this one does not.
    """
    known = before.assumptions if before is not None else ()
    if before is None:
        known = (f"The kernel is taken for {profile.title}, and nothing is known of the VM.",)
    if line.ret == 0:
        return Why(line, (), "KVM accepted this call: there is no refusal to explain.", known)
    kvm = before.kvm if before is not None else new_vm(profile, BARE)
    seen = xray_of(kvm, line.call)
    if line.errno is None:
        return _without_result(line, kvm, seen, known)
    if before is not None and seen is not None and seen.errno.name == line.errno:
        return Why(line, (Reason(seen, kvm, (), ()),), seen.sentence, known)
    start = before.kvm if before is not None else None
    found = supposed_vms(line.call, line.errno, kvm.profile, start=start, other_kernels=other_kernels)
    reasons = tuple(reason for reason in (_reason(line, supposed) for supposed in found) if reason is not None)
    if not reasons:
        return Why(line, (), _unexplained(line, seen, before), known)
    if before is not None:
        does = f"would refuse it with {seen.errno.name}" if seen is not None else "would accept it"
        known = (*known, f"After this log the model {does}: more than the log shows must have happened.")
    return Why(line, reasons, reasons[0].xray.sentence, known)


def _reason(line: OneLine, supposed: Supposed) -> Reason | None:
    seen = xray_of(supposed.kvm, line.call)
    return Reason(seen, supposed.start, supposed.commands, supposed.assumptions) if seen is not None else None


def _without_result(line: OneLine, kvm: Kvm, seen: XRay | None, known: tuple[str, ...]) -> Why:
    told = (*known, "The line does not show how the call ended: this is what the model says.")
    if seen is None:
        return Why(line, (), f"{kvm.profile.title} accepts this call as far as the VM is known.", told)
    return Why(line, (Reason(seen, kvm, (), ()),), seen.sentence, told)


def _unexplained(line: OneLine, seen: XRay | None, before: LogBefore | None) -> str:
    tried = (
        "after this log, with a slot or a tracker more" if before is not None else "with no slot, one slot or a tracker"
    )
    does = f"the arguments alone are refused with {seen.errno.name}" if seen is not None else "it is accepted"
    return (
        f"The model does not return {line.errno} for this call on any VM that was tried ({tried}):"
        f" where nothing else is known, {does}."
    )
