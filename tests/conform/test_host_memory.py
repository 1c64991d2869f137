"""A byte the guest stored is where its slot has its host memory: recording handwritten/guest_sees_moves."""

import pytest
from story import H, story

from explorer.conform.host_memory import HostMemory
from explorer.engine.uapi import KVM_MEM_READONLY


def test_a_slot_that_moves_takes_its_memory_along():
    vm = story().slot(0, gfn=0, npages=16, hva=H)
    memory = HostMemory()
    memory.store(vm.kvm, 0x3000, 17)

    vm.move(0, to_gfn=0x100)
    memory.store(vm.kvm, 0x3000, 99)  # no slot is there any more
    memory.store(vm.kvm, 0x103001, 34)

    assert (memory.load(H + 0x3000), memory.load(H + 0x3001)) == (17, 34)


@pytest.mark.parametrize("gpa", [0, 0xFFFF])
def test_a_read_only_slot_keeps_what_it_has(gpa):
    vm = story().slot(0, gfn=0, npages=16, hva=H, flags=KVM_MEM_READONLY)
    memory = HostMemory()

    memory.store(vm.kvm, gpa, 17)

    assert memory.load(H + gpa) is None


@pytest.mark.parametrize(("flags", "seen"), [(0, 17), (1, None)])
def test_a_file_that_can_be_mapped_is_the_only_memory_of_its_slot(flags, seen):
    vm = story(profile="v7_3").do(f"create_guest_memfd fd=3 size=0x10000 flags={flags}")
    vm.do(f"set_region2 slot=0 gpa=0 size=0x10000 hva={H} flags=gmem gmem=3")
    memory = HostMemory()

    memory.store(vm.kvm, 5, 17)

    assert memory.load(H + 5) == seen
