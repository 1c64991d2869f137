"""The machine a run happens on: what the chips of the page say."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from explorer.engine.apply import apply
from explorer.engine.commands import EnableCap
from explorer.engine.profile import get_profile
from explorer.engine.state import Kvm, new_vm
from explorer.engine.uapi import KVM_CAP_DISABLE_QUIRKS2, KVM_X86_QUIRK_SLOT_ZAP_ALL

if TYPE_CHECKING:
    from explorer.engine.config import VmConfig

__all__ = ["Machine", "machine_of"]


class Machine(NamedTuple):
    """Kernel, host and what userspace asked for before the run began."""

    profile: str
    """Name of a kernel profile."""
    config: VmConfig
    zap_slot_only: bool = False
    """Whether userspace disabled the quirk that a removed or moved slot zaps all mappings (6.12 and later)."""

    def start(self) -> Kvm:
        """Return the VM a run on this machine starts from."""
        kvm = new_vm(self.profile, self.config)
        if self.zap_slot_only and kvm.profile.slot_zap_quirk:
            kvm = apply(kvm, EnableCap(cap=KVM_CAP_DISABLE_QUIRKS2, arg=KVM_X86_QUIRK_SLOT_ZAP_ALL), record=False).kvm
        return kvm

    def on(self, profile: str) -> Machine:
        """Return the machine with another kernel; one without the quirk cannot be asked to drop it."""
        return Machine(profile, self.config, self.zap_slot_only and get_profile(profile).slot_zap_quirk)


def machine_of(start: Kvm) -> Machine:
    """Return the machine of a VM that no operation has changed yet."""
    return Machine(start.profile.name, start.config, bool(start.disabled_quirks & KVM_X86_QUIRK_SLOT_ZAP_ALL))
