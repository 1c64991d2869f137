"""What the machine's files say of its KVM: build options, module parameters, width of addresses.

Rule: a file that cannot be read leaves a `Fact` without a value; what is then taken for granted is said with it.

Read next: `host`.
"""

from __future__ import annotations

import gzip
import re
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from explorer.engine.config import VmConfig
from explorer.engine.types import ExplorerError

if TYPE_CHECKING:
    from typing import Literal

    from explorer.live.device import Answers

__all__ = ["Fact", "config_of_host", "read_facts"]

_DEFAULT_BITS = 46
_OPTIONS = ("KVM_SMM", "KVM_EXTERNAL_WRITE_TRACKING", "KVM_SW_PROTECTED_VM", "KVM_GUEST_MEMFD")
_PARAMETERS = {
    "amd": ("npt",),
    "intel": ("ept", "unrestricted_guest", "flexpriority", "pml"),
    "pvm": (),
}
_YES = {"Y", "y", "1", "m"}


class Fact(NamedTuple):
    """One thing that a file says."""

    name: str
    value: str | None
    """None if no file says it."""
    source: str
    """The file."""
    assumed: str = ""
    """What is taken for granted without it."""

    @property
    def yes(self) -> bool:
        """Return whether it is switched on, here or by assumption."""
        return (self.assumed if self.value is None else self.value) in _YES


def read_facts(release: str, root: Path = Path("/")) -> dict[str, Fact]:
    """Return what the files below `root` say, by name."""
    facts = _options(release, root)
    vendor = next((name for name in _PARAMETERS if (root / f"sys/module/kvm_{name}").is_dir()), None)
    facts["vendor"] = Fact("vendor", vendor, "/sys/module/kvm_amd, kvm_intel, kvm_pvm", "amd")
    facts["tdp_mmu"] = _parameter(root, "kvm", "tdp_mmu")
    for name in _PARAMETERS[vendor or "amd"]:
        facts[name] = _parameter(root, f"kvm_{vendor or 'amd'}", name)
    cpus = _text(root / "proc/cpuinfo") or ""
    width = re.search(r"^address sizes\s*: (\d+) bits physical", cpus, re.MULTILINE)
    facts["host_phys_bits"] = Fact(
        "host_phys_bits", width[1] if width else None, "/proc/cpuinfo, address sizes", str(_DEFAULT_BITS)
    )
    return facts


def config_of_host(facts: dict[str, Fact], answers: Answers) -> VmConfig:
    """Return the machine as its files and KVM's own answers describe it."""

    def on(name: str) -> bool:
        return name in facts and facts[name].yes

    vendor = facts["vendor"].value or facts["vendor"].assumed
    processor: Literal["amd", "intel", "pvm"] = "pvm" if vendor == "pvm" else "intel" if vendor == "intel" else "amd"
    config = {
        "tdp": on("npt") if processor == "amd" else on("ept"),
        "tdp_mmu": on("tdp_mmu"),
        "external_write_tracking": on("KVM_EXTERNAL_WRITE_TRACKING"),
        "smm": bool(answers.vm.get("X86_SMM", 0)),
        "sw_protected_vm": answers.device.get("VM_TYPES", 0) > 1,
        "unrestricted_guest": on("unrestricted_guest"),
        "flexpriority": on("flexpriority"),
        "pml": on("pml"),
    }
    bits = int(facts["host_phys_bits"].value or _DEFAULT_BITS)
    try:
        return VmConfig(processor=processor, host_phys_bits=bits, **config)
    except ExplorerError:
        return VmConfig(processor=processor, host_phys_bits=_DEFAULT_BITS, **config)


def _options(release: str, root: Path) -> dict[str, Fact]:
    """Return the build options, from wherever the running kernel's configuration is."""
    places = ("proc/config.gz", f"boot/config-{release}", f"lib/modules/{release}/config")
    text, source = next(
        ((found, f"/{place}") for place in places if (found := _text(root / place)) is not None),
        (None, "/proc/config.gz, /boot/config-RELEASE, /lib/modules/RELEASE/config"),
    )
    facts = {}
    for name in _OPTIONS:
        option = re.search(rf"^CONFIG_{name}=(\w+)", text, re.MULTILINE) if text is not None else None
        value = None if text is None else option[1] if option else "n"
        facts[name] = Fact(name, value, source, "n")
    return facts


def _parameter(root: Path, module: str, name: str) -> Fact:
    path = Path("sys/module") / module / "parameters" / name
    text = _text(root / path)
    return Fact(name, None if text is None else text.strip(), f"/{path}", "Y")


def _text(path: Path) -> str | None:
    """Return what a file holds, unpacked if it is packed, or None if it cannot be read."""
    try:
        raw = path.read_bytes()
        return (gzip.decompress(raw) if path.suffix == ".gz" else raw).decode("utf-8", "replace")
    except (OSError, EOFError, zlib.error):
        return None
