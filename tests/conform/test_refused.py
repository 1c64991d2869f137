"""Every refused region call of the recorded kernels: the check that is named, and the changes that are offered."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

import pytest
from ordered_checks import Call, File, Slot, Vm, first_violated
from pack_recordings import RECORDINGS

from explorer.conform.player import Player
from explorer.conform.recording import read_scenarios
from explorer.engine.apply import apply
from explorer.engine.commands import SetMemoryRegion, SetMemoryRegion2
from explorer.explain.changes import MOST
from explorer.explain.xray import xray_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from explorer.conform.recording import Scenario
    from explorer.engine.state import Kvm

FOLDERS = sorted({path.parent for path in RECORDINGS.rglob("*.jsonl.gz")})
ONLY_VM_ALIVE = "no call on this VM works any more: KVM marked it dead, and only a new VM helps"


class Refused(NamedTuple):
    """One refused region call of a recording."""

    where: str
    scenario: Scenario
    kvm: Kvm
    call: SetMemoryRegion
    errno: str
    """As recorded."""


def refused_calls(folder) -> Iterator[Refused]:
    for path in sorted(folder.glob("*.jsonl.gz")):
        for scenario in read_scenarios(path):
            player = Player(scenario)
            outcomes = player.play()
            for at, op in enumerate(scenario.ops):
                kvm, call = player._kvm, player._command(op)
                next(outcomes)
                if isinstance(call, SetMemoryRegion) and op["errno"] not in (None, "ENOTCONN"):
                    yield Refused(f"{path.name}: {scenario.name}[{at}]", scenario, kvm, call, op["errno"])


def as_plain(refused: Refused) -> tuple[Vm, Call]:
    """Return VM and call in the words of the ordered list, which knows nothing of the engine."""
    kvm, call, config = refused.kvm, refused.call, refused.scenario.config
    version = tuple(int(part) for part in re.search(r"(\d+)\.(\d+)", refused.scenario.kernel).groups())
    spaces = 1 if version >= (6, 6) and (not config.smm or config.vm_type) else 2
    vm = Vm(
        version=version,
        slots=tuple(
            Slot(s.as_id, s.id, s.base_gfn, s.npages, s.userspace_addr, s.flags & 0xFFFF)
            for as_id in range(spaces)
            for s in kvm.slots(as_id)
        ),
        spaces=spaces,
        max_gfn=(1 << (config.host_phys_bits if config.tdp else 52) - 12) - 1,
        dead=kvm.vm_bugged,
        external_users=len(kvm.track_notifiers),
        private=config.vm_type != 0,
        files={
            fd: File(file.size, tuple((at, part.npages) for at, part in file.bindings.items()))
            for fd, file in kvm.guest_memfds.items()
        },
        host_memory=config.host_memory,
    )
    two = isinstance(call, SetMemoryRegion2)
    return vm, Call(
        slot=call.slot,
        as_id=call.as_id,
        flags=call.flags,
        gpa=call.guest_phys_addr,
        size=call.memory_size,
        hva=call.userspace_addr,
        two=two,
        fd=call.guest_memfd if two else 0,
        offset=call.guest_memfd_offset if two else 0,
    )


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.relative_to(RECORDINGS).as_posix())
def test_every_refusal_is_explained_and_every_change_that_is_offered_works(folder):
    number, met = 0, set()
    for refused in refused_calls(folder):
        number += 1
        seen = xray_of(refused.kvm, refused.call)

        assert seen is not None, refused.where
        assert (seen.guard.name, refused.errno) == first_violated(*as_plain(refused)), refused.where
        met.add(seen.guard.name)
        assert seen.errno.name == refused.errno, refused.where
        fired = [check.name for check in seen.same_errno if check.outcome == "fired"]
        assert fired == [seen.guard.name], refused.where
        assert len(seen.changes) <= MOST
        # Only a VM that KVM has marked dead has no way out.
        assert seen.nothing_works == ("" if seen.guard.name != "vm_alive" else ONLY_VM_ALIVE), refused.where
        for change in seen.changes:
            kvm = refused.kvm
            for command in change.commands:
                step = apply(kvm, command, record=False)
                assert step.errno is None, (refused.where, change.words)
                kvm = step.kvm
            assert step.change is change.does

    # A recording that meets few checks would prove little; 7.3 has those of guest_memfd besides.
    assert number >= 100
    assert len(met) >= (20 if folder.parent.name == "7.3" else 15), met
