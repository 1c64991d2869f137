"""The kernel that runs here: what it says of itself, how it answers a few calls, and which profile fits best.

Rule: every piece of evidence is held against *every* profile, by running the engine; a profile is suggested because
it explains the most of it. Among equals the version decides, and what still differs between them is said to be open.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from explorer.engine.apply import apply
from explorer.engine.capabilities import CAPABILITIES, kvm_vm_ioctl_check_extension
from explorer.engine.commands import parse_command
from explorer.engine.profile import PROFILES, SOURCES, differences, profile_of_release
from explorer.engine.state import new_vm
from explorer.history import Run
from explorer.live.bare import bare, prologue
from explorer.live.facts import Fact, config_of_host, read_facts

if TYPE_CHECKING:
    from collections.abc import Iterator

    from explorer.engine.config import VmConfig
    from explorer.engine.profile import KernelProfile
    from explorer.live.device import Answers, Device

__all__ = ["Evidence", "HostKernel", "look_at_host"]

_PLACE = "slot=1 gpa=0x100000 size=0x2000 hva=0x7f0000000000"
_ELSEWHERE = "slot=1 gpa=0x200000 size=0x2000 hva=0x7f0000000000"
_FILE = "size=0x2000 hva=0x7f0000000000 flags=gmem gmem=5"
_PROBES = (
    ("a MOVE of a slot", (f"set_region {_PLACE}", f"set_region {_ELSEWHERE}")),
    ("slot id 509", ("set_region slot=509 gpa=0 size=0x1000 hva=0x7f0000000000",)),
    ("a slot in address space 1", ("set_region slot=1 as=1 gpa=0 size=0x1000 hva=0x7f0000000000",)),
    ("a slot that ends at the highest gpa", ("set_region slot=1 gpa=0xfffffffffffff000 size=0x1000",)),
    (
        "a slot whose last page has bit 52 of the gpa set",
        ("set_region slot=1 gpa=0x10000000000000 size=0x1000 hva=0x7f0000000000",),
    ),
    ("REGION2", (f"set_region2 {_PLACE}",)),
    ("a slot on guest_memfd", ("create_guest_memfd fd=5 size=0x4000", f"set_region2 slot=1 gpa=0 {_FILE}")),
    (
        "two slots on one part of a guest_memfd",
        (
            "create_guest_memfd fd=5 size=0x4000",
            f"set_region2 slot=1 gpa=0 {_FILE}",
            f"set_region2 slot=2 gpa=0x10000 {_FILE}",
        ),
    ),
    ("the quirk of the zap switched off", ("enable_cap cap=DISABLE_QUIRKS2 arg=0x80",)),
    (
        "manual dirty log, all pages set",
        ("enable_cap cap=168 arg=3", f"set_region {_PLACE} flags=log", "get_dirty_log slot=1"),
    ),
)
"""What is tried, each on a VM of its own: its name and the commands, the last of which counts most."""


class Evidence(NamedTuple):
    """One observation and the profiles that explain it."""

    what: str
    seen: str
    fits: tuple[str, ...]
    """Names of the profiles whose model gives the same answer on this machine."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HostKernel:
    """The running kernel and the model that fits it."""

    release: str
    answers: Answers
    facts: tuple[Fact, ...]
    evidence: tuple[Evidence, ...]
    profile: KernelProfile
    """The suggested one."""
    config: VmConfig
    why: str
    """One sentence on why this profile."""
    unknown: tuple[str, ...]
    """Sentences on what stays open."""

    @property
    def unexplained(self) -> tuple[Evidence, ...]:
        """Evidence that the suggested profile does not give."""
        return tuple(row for row in self.evidence if self.profile.name not in row.fits)

    def here(self, run: Run, profile: KernelProfile | None = None) -> Run:
        """Return the same operations as on this machine, on the suggested profile unless another is asked for.

        Raises
        ------
        ExplorerError
            If the run does not begin with a new VM.
        """
        start = new_vm(profile or self.profile, self.config)
        for command in prologue(run):
            start = apply(start, command, record=False).kvm
        return Run(start, run.commands)


def look_at_host(device: Device) -> HostKernel:
    """Ask the device and the machine's files, try a few calls, and suggest a profile."""
    answers = device.answers
    facts = read_facts(answers.release)
    config = config_of_host(facts, answers)
    evidence = (*_capabilities(answers, config), *_probes(device, config))
    scores = {name: sum(name in row.fits for row in evidence) for name in PROFILES}
    best = max(scores.values())
    equals = [name for name, score in scores.items() if score == best]
    nearest = profile_of_release(answers.release)
    profile = PROFILES[_choice(equals, nearest)]
    return HostKernel(
        release=answers.release,
        answers=answers,
        facts=tuple(facts.values()),
        evidence=evidence,
        profile=profile,
        config=config,
        why=_why(profile, nearest, best, len(evidence), equals),
        unknown=tuple(_unknown(profile, equals, facts)),
    )


def _capabilities(answers: Answers, config: VmConfig) -> Iterator[Evidence]:
    """Compare each answer to KVM_CHECK_EXTENSION with every profile's."""
    vms = {name: new_vm(profile, config) for name, profile in PROFILES.items()}
    for name, row in CAPABILITIES.items():
        for asked, seen in (("the VM", answers.vm[name]), ("/dev/kvm", answers.device[name])):
            on_vm = asked == "the VM"
            fits = [p for p, vm in vms.items() if kvm_vm_ioctl_check_extension(vm, row, vm=on_vm) == seen]
            if on_vm or answers.vm[name] != answers.device[name]:
                yield Evidence(f"KVM_CAP_{name} of {asked}", f"{seen:#x}" if seen > 9 else str(seen), tuple(fits))  # noqa: PLR2004


def _probes(device: Device, config: VmConfig) -> Iterator[Evidence]:
    """Try calls on VMs of their own and compare the answers with every profile's."""
    for what, lines in _PROBES:
        commands = [parse_command(line) for line in lines]
        models = {name: bare(Run.new(name, config, commands)) for name in PROFILES}
        calls = [op.call for op in next(iter(models.values())) if op.call is not None]
        seen = tuple(device.perform(calls))
        fits = [
            name
            for name, ops in models.items()
            if [(op.errno.name if op.errno is not None else None, op.dirty) for op in ops] == list(seen)
        ]
        yield Evidence(what, "done" if seen[-1].errno is None else f"refused: {seen[-1].errno}", tuple(fits))


def _choice(equals: list[str], nearest: KernelProfile | None) -> str:
    """Return the profile to suggest among those that explain as much: by version, else the newest release."""
    if nearest is not None and nearest.name in equals:
        return nearest.name
    released = [name for name in equals if PROFILES[name].kind == "release"]
    return (released or equals)[-1]


def _why(profile: KernelProfile, nearest: KernelProfile | None, best: int, asked: int, equals: list[str]) -> str:
    sentence = f"{profile.name} ({profile.title}) explains {best} of {asked} observations"
    others = [name for name in equals if name != profile.name]
    if others:
        sentence += f", as {' and '.join(others)} {'do' if len(others) > 1 else 'does'}; the version decides"
    if nearest is not None and nearest is not profile:
        sentence += f"; by its version alone it would be {nearest.name}"
    return sentence + "."


def _unknown(profile: KernelProfile, equals: list[str], facts: dict[str, Fact]) -> Iterator[str]:
    for fact in facts.values():
        if fact.value is None:
            yield f"{fact.name} is taken for {fact.assumed}: {fact.source} cannot be read or does not say it."
    for name in equals:
        if name != profile.name:
            open_ones = [field for field, _, _ in differences(profile, PROFILES[name])]
            meanings = "; ".join(SOURCES[field].meaning for field in open_ones)
            yield f"Whether it behaves as {name} was not observed: {meanings}."
    yield (
        "What no bare VM shows stays open: page trackers, what a guest sees, zaps, generations, and patches that"
        " a distributor added."
    )
