"""What a machine's files say, read from a folder that has the same files."""

from __future__ import annotations

import gzip

import pytest

from explorer.live.device import Answers
from explorer.live.facts import config_of_host, read_facts

ANSWERS = Answers("6.6.1", {"VM_TYPES": 1}, {"X86_SMM": 1})


@pytest.fixture
def machine(tmp_path):
    def write(name, text):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())
        return tmp_path

    return write


def test_an_intel_machine_is_read_from_its_module_parameters(machine):
    machine("proc/config.gz", "CONFIG_KVM_SMM=y\nCONFIG_KVM_EXTERNAL_WRITE_TRACKING=y\n# CONFIG_KVM_XEN is not set\n")
    machine("proc/cpuinfo", "address sizes\t: 39 bits physical, 48 bits virtual\n")
    for name, value in {"ept": "Y", "unrestricted_guest": "N", "flexpriority": "Y", "pml": "N"}.items():
        machine(f"sys/module/kvm_intel/parameters/{name}", value + "\n")
    root = machine("sys/module/kvm/parameters/tdp_mmu", "N\n")

    config = config_of_host(read_facts("6.6.1", root), ANSWERS)

    assert (config.processor, config.tdp, config.tdp_mmu, config.host_phys_bits) == ("intel", True, False, 39)
    assert (config.unrestricted_guest, config.flexpriority, config.pml) == (False, True, False)
    assert (config.smm, config.external_write_tracking) == (True, True)


def test_nested_paging_can_be_off_on_amd(machine):
    root = machine("sys/module/kvm_amd/parameters/npt", "0\n")

    config = config_of_host(read_facts("6.6.1", root), ANSWERS)

    assert (config.processor, config.tdp) == ("amd", False)


def test_what_no_file_says_is_unknown_and_what_is_assumed_is_said(tmp_path):
    facts = read_facts("6.6.1", tmp_path)

    assert {name for name, fact in facts.items() if fact.value is None} == set(facts)
    assert facts["npt"].assumed == "Y"
    assert "/boot/config-RELEASE" in facts["KVM_SMM"].source


def test_a_damaged_file_and_an_impossible_width_are_no_reason_to_fail(machine):
    machine("proc/cpuinfo", "address sizes\t: 999 bits physical, 48 bits virtual\n")
    root = machine("proc/config", "")
    (root / "proc/config.gz").write_bytes(b"\x1f\x8b\x08 and no more")

    facts = read_facts("6.6.1", root)

    assert facts["KVM_SMM"].value is None
    assert config_of_host(facts, ANSWERS).host_phys_bits == 46
