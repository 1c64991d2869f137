"""The local APIC in the kernel: who answers at 0xfee00000, and what it says.

Judges: the recorded scenarios apic_page_guest_access and apic_gpa_guest_access_no_irqchip on real kernels of each
profile; Linux arch/x86/kvm/lapic.c: kvm_lapic_reset(), kvm_lapic_reg_read(), apic_mmio_write(), and
arch/x86/kvm/x86.c: vcpu_is_mmio_gpa(), which the recorded kernels share; Intel SDM volume 3, APIC virtualization.
"""

from __future__ import annotations

import pytest
from story import H, story

from explorer.engine.commands import GuestRead, GuestWrite
from explorer.engine.events import GuestReadServed, GuestWriteServed
from explorer.engine.uapi import KVM_MEM_LOG_DIRTY_PAGES

APIC = 0xFEE00000
GFN = APIC >> 12
PROFILES = ("v5_10", "v6_1", "v6_12", "v7_3")
ID, VERSION, EOI, TPR, PPR, LDR, DFR, SPIV, ISR, LVT0, LVT1 = (
    0x20,
    0x30,
    0xB0,
    0x80,
    0xA0,
    0xD0,
    0xE0,
    0xF0,
    0x100,
    0x350,
    0x360,
)


def guest(*, vcpu=0, before="", **config):
    """The recorder's guest with interrupt controllers in the kernel: slot 9 has its code."""
    vm = story(**config).slot(9, gfn=0x80, npages=1)
    if before:
        vm.do(before)
    return vm.do("create_irqchip").do(f"create_vcpu id={vcpu}").do("vcpu_mode mode=prot code=0x80000")


def read(vm, offset, nbytes=1):
    """Let the guest load from the page; return the outcome and what it got."""
    vm.do(GuestRead(gpa=APIC + offset, nbytes=nbytes, answer=0xAB))
    (served,) = vm.events(GuestReadServed)
    return served.outcome, served.value


def write(vm, offset, value, nbytes=1):
    """Let the guest store to the page; return the outcome."""
    vm.do(GuestWrite(gpa=APIC + offset, nbytes=nbytes, value=value))
    (served,) = vm.events(GuestWriteServed)
    return served.outcome


@pytest.mark.parametrize(
    "machine", [{"processor": "amd"}, {"processor": "intel"}, {"processor": "intel", "tdp": False}]
)
@pytest.mark.parametrize("profile", PROFILES)
def test_the_version_is_read_without_an_exit(profile, machine):
    # recorded: apic_page_guest_access, 0x14
    vm = guest(profile=profile, **{"tdp": True} | machine)

    assert read(vm, VERSION) == ("apic", 0x14)
    assert read(vm, VERSION, nbytes=4) == ("apic", 0x50014)
    assert vm.errno_name is None


@pytest.mark.parametrize(
    ("profile", "machine", "kept"),
    # recorded: apic_page_guest_access; the store is one byte
    [
        ("v5_10", {"processor": "intel", "tdp": True}, 0x20),
        ("v5_10", {"processor": "intel", "tdp": False}, 0x20),
        ("v5_10", {"processor": "amd", "tdp": True}, 0),
        ("v6_1", {"processor": "intel", "tdp": True}, 0),
        ("v6_12", {"processor": "intel", "tdp": False}, 0),
        ("v7_3", {"processor": "amd", "tdp": True}, 0),
    ],
)
def test_a_byte_of_the_task_priority_is_kept_only_by_a_processor_that_has_the_page(profile, machine, kept):
    vm = guest(profile=profile, **machine)

    assert write(vm, TPR, 0x20) == "apic"

    assert read(vm, TPR) == read(vm, PPR) == ("apic", kept)


def test_kvms_device_takes_four_aligned_bytes_and_no_other_store():
    vm = guest(tdp=True)

    for offset, nbytes in ((TPR, 1), (TPR, 2), (TPR, 8), (TPR + 1, 4)):
        assert write(vm, offset, 0x55, nbytes) == "apic"
        assert read(vm, TPR, 4) == ("apic", 0)

    assert write(vm, TPR, 0x12345, 4) == "apic"
    assert read(vm, TPR, 4) == read(vm, PPR, 4) == ("apic", 0x45)


@pytest.mark.parametrize(
    ("offset", "value"),
    [
        (ID, 0),
        (LDR, 0),
        (DFR, 0xFFFFFFFF),
        (SPIV, 0xFF),
        (ISR, 0),
        (0x270, 0),
        (0x320, 0x10000),
        (LVT0, 0x700),
        (LVT1, 0x10000),
        (0x370, 0x10000),
        (0x390, 0),
        (0x3E0, 0),
    ],
)
def test_after_a_reset_the_registers_hold(offset, value):
    vm = guest(tdp=True)

    assert read(vm, offset, 4) == ("apic", value)
    for byte in range(4):
        assert read(vm, offset + byte) == ("apic", value >> 8 * byte & 0xFF)


def test_with_the_quirk_off_the_first_local_vector_is_masked_too():
    # Linux 6.1 kvm_lapic_reset(): KVM_X86_QUIRK_LINT0_REENABLED is bit 0
    vm = guest(tdp=True, profile="v6_12", before="enable_cap cap=DISABLE_QUIRKS2 arg=1")

    assert read(vm, LVT0, 4) == ("apic", 0x10000)


@pytest.mark.parametrize("offset", [EOI, 0x0, 0xC0, 0x2F0, 0x3F0, 0x400, 0xFFF, VERSION + 4, DFR + 15])
def test_where_no_register_is_the_guest_gets_what_the_emulator_read_last(offset):
    """kvm_lapic_reg_read() fails, apic_mmio_read() does not say so, and nobody wrote to the emulator's buffer."""
    vm = guest(tdp=True)
    assert read(vm, offset) == ("apic", 0)

    assert read(vm, VERSION) == ("apic", 0x14)
    assert read(vm, offset) == read(vm, offset) == ("apic", 0x14)

    vm.do(GuestRead(gpa=0xD0000000, nbytes=1, answer=0xAB))
    assert vm.events(GuestReadServed)[0].outcome == "mmio"
    assert read(vm, offset) == ("apic", 0xAB)


def test_what_a_guest_may_set_in_a_register():
    vm = guest(tdp=True)
    for offset in (ID, LDR, DFR, SPIV, LVT0, LVT1):
        write(vm, offset, 0x1234F17F, 4)

    values = [read(vm, offset, 4)[1] for offset in (ID, LDR, DFR, SPIV, LVT0, LVT1)]
    assert values == [0x12000000, 0x12000000, 0x1FFFFFFF, 0x17F, 0xF17F, 0xF17F]

    # An APIC that is switched off by its software masks every local vector.
    write(vm, SPIV, 0xFF, 4)
    assert [read(vm, offset, 4)[1] for offset in (LVT0, LVT1, 0x320)] == [0x1F17F, 0x1F17F, 0x10000]
    write(vm, LVT1, 0x30, 4)
    assert read(vm, LVT1, 4) == ("apic", 0x10030)


def test_the_pages_beside_it_and_an_apic_that_userspace_keeps_are_ordinary_holes():
    # recorded: apic_gpa_guest_access_no_irqchip
    vm = guest(tdp=True)
    assert read(vm, -1) == read(vm, 0x1000) == ("mmio", 0xAB)

    vm = story(tdp=True).slot(9, gfn=0x80, npages=1).do("create_vcpu id=0").do("vcpu_mode mode=prot code=0x80000")
    assert read(vm, VERSION) == ("mmio", 0xAB)
    assert write(vm, TPR, 1) == "mmio"


def test_a_split_irqchip_keeps_the_local_apic_in_the_kernel():
    vm = story(tdp=True, profile="v6_12").slot(9, gfn=0x80, npages=1)
    vm.do("enable_cap cap=SPLIT_IRQCHIP arg=24").do("create_vcpu id=0").do("vcpu_mode mode=prot code=0x80000")

    assert read(vm, VERSION) == ("apic", 0x14)


# -- with a slot of userspace at the page ----------------------------------------------------------


@pytest.mark.parametrize("profile", PROFILES)
def test_a_slot_of_userspace_hides_the_device_as_long_as_nothing_is_emulated(profile):
    vm = guest(profile=profile, tdp=True).slot(1, gfn=GFN, npages=1, hva=H, flags=KVM_MEM_LOG_DIRTY_PAGES)

    assert (write(vm, TPR, 0x20), read(vm, TPR), read(vm, VERSION)) == ("ram", ("ram", 0x20), ("ram", 0))
    assert vm.dirty(1) == [0]

    # vcpu_is_mmio_gpa(): the emulator takes the page for a device, whatever slot is there. Nobody is told.
    vm.attach().track(GFN)
    assert write(vm, TPR, 0x30) == "apic"
    assert read(vm, TPR) == ("ram", 0x20)
    assert (vm.kvm.trackers[0].notes(), vm.dirty(1)) == ((), [])


def test_without_a_device_an_emulated_access_of_the_page_exits_although_a_slot_is_there():
    vm = story(tdp=True).slot(9, gfn=0x80, npages=1).slot(1, gfn=GFN, npages=1).do("create_vcpu id=0")
    vm.do("vcpu_mode mode=prot code=0x80000").attach()
    assert write(vm, 0, 5) == "ram"

    vm.track(GFN)

    assert (write(vm, 0, 6), read(vm, 0)) == ("mmio", ("ram", 5))


def test_under_pvm_every_access_of_the_page_is_emulated_and_so_the_devices():
    vm = story(profile="v6_18", processor="pvm", tdp=False, smm=False).slot(9, gfn=0x80, npages=1)
    vm.slot(1, gfn=GFN, npages=1).do("create_irqchip").do("create_vcpu id=0").do("vcpu_mode mode=prot code=0x80000")

    assert read(vm, VERSION) == ("apic", 0x14)
    assert read(vm, EOI) == ("apic", 0x14)


@pytest.mark.parametrize(("profile", "mapped"), [("v5_10", 1), ("v6_1", 0), ("v6_12", 0), ("v7_3", 0)])
def test_kvms_own_page_is_mapped_only_before_it_was_tied_to_apicv(profile, mapped):
    """Linux commit 9cc13d60ba6b ("KVM: x86/mmu: allow APICv memslot to be enabled but invisible") (in v5.15)."""
    vm = guest(profile=profile, processor="intel", tdp=True, tdp_mmu=False)

    read(vm, VERSION)

    assert vm.mapped(vm.kvm.profile.user_mem_slots + 1) == mapped


def test_a_tracked_page_of_kvms_own_is_left_to_the_device_for_stores():
    vm = guest(profile="v5_10", processor="intel", tdp=True).attach()
    write(vm, TPR, 0x20)

    vm.track(GFN)

    assert (write(vm, TPR, 0x40), read(vm, TPR)) == ("apic", ("apic", 0x20))


def test_a_vcpu_other_than_the_first_waits_to_be_started():
    # Linux 6.1 kvm_arch_vcpu_create(), kvm_arch_vcpu_ioctl_run(): KVM_MP_STATE_UNINITIALIZED
    vm = guest(tdp=True, vcpu=1)

    vm.do(GuestRead(gpa=0x80000, nbytes=1))

    assert (vm.events(GuestReadServed)[0].outcome, vm.errno_name) == ("waits", "EINTR")
