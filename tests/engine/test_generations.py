"""Generations: how far each call moves them, and what happens when 19 bits come round. Kernel-reference 3.3, 11.4."""

import pytest
from story import Story, story

from explorer.engine.commands import CreateIrqchip, CreateVcpu, SetTssAddr
from explorer.engine.events import MappingsZapped
from explorer.engine.profile import PROFILES
from explorer.engine.state import AddressSpace

BIT_63 = [name for name in PROFILES if name != "pre_edd4"]


@pytest.mark.parametrize("profile", ["v6_6", "v6_12", "v6_18", "v7_3"])
def test_the_worked_example_of_generations(profile):
    vm = story(profile=profile)
    seen = [vm.generation()]

    for verb in (
        lambda: vm.slot(1, gfn=0x100, npages=4),
        lambda: vm.set_flags(1, 1),
        lambda: vm.set_flags(1, 1),
        lambda: vm.move(1, to_gfn=0x200),
        lambda: vm.attach(kind="kvmgt").move(1, to_gfn=0x300),
        lambda: vm.delete(1),
        lambda: vm.do(vm.region(2, gfn=0x100, npages=4)).do(vm.region(3, gfn=0x100, npages=4)),
    ):
        verb()
        seen.append(vm.generation())

    assert seen == [0, 2, 4, 4, 8, 12, 16, 18], "the CREATE that overlaps adds nothing"
    assert vm.generation(1) == 1


@pytest.mark.parametrize("profile", BIT_63)
def test_the_second_address_space_counts_for_itself(profile):
    """Recording tracker/generation_numbers: 1, 3, 7."""
    vm = story(profile=profile, external_write_tracking=False)
    assert (vm.generation(0), vm.generation(1)) == (0, 1)

    vm.slot(1, gfn=0x100, npages=4, as_id=1)
    assert (vm.generation(0), vm.generation(1)) == (0, 3)

    vm.move(1, to_gfn=0x200, as_id=1)
    assert (vm.generation(0), vm.generation(1)) == (0, 7)


def test_4_19_starts_below_zero_and_counts_in_fours():
    """Section 2.1: 2*as_id - 150, and 2*NR_AS a step; bit 0 marks an update."""
    vm = story(profile="pre_edd4")
    assert (vm.generation(0), vm.generation(1)) == (-150, -148)

    vm.begin(vm.region(1, gfn=0x100, npages=4)).run_through("publish")
    assert vm.generation() == -149

    vm.finish()
    assert vm.generation() == -146
    assert vm.move(1, to_gfn=0x200).generation() == -138


@pytest.mark.parametrize("profile", ["v6_12", "v7_3"])
def test_with_one_address_space_a_swap_is_one_step(profile):
    vm = story(profile=profile, smm=False)

    vm.slot(1, gfn=0x100, npages=4)
    assert vm.generation() == 1

    assert vm.move(1, to_gfn=0x200).generation() == 3


def test_three_internal_slots_move_both_generations_by_three_swaps():
    vm = story(processor="intel", tdp=True, unrestricted_guest=False)

    vm.do(SetTssAddr(addr=0xFFFBD000)).do(CreateIrqchip()).do(CreateVcpu())

    assert [len(vm.kvm.slots(as_id)) for as_id in (0, 1)] == [3, 3]
    assert (vm.generation(0), vm.generation(1)) == (6, 7)


def at_generation(vm: Story, generation: int, as_id: int = 0) -> Story:
    space = vm.kvm.memslots[as_id]
    sets = list(space.sets)
    sets[space.active_idx] = space.active._replace(generation=generation)
    spaces = list(vm.kvm.memslots)
    spaces[as_id] = AddressSpace((sets[0], sets[1]), space.active_idx)
    vm.kvm = vm.kvm._replace(memslots=tuple(spaces))
    return vm


@pytest.mark.parametrize("profile", BIT_63)
@pytest.mark.parametrize(
    ("as_id", "generation", "wraps"),
    [
        (0, 0x3FFFE, False),  # 18 bits
        (0, 0x7FFFC, False),
        (0, 0x7FFFE, True),
        (0, 0x80000, False),
        (0, 0xBFFFE, False),
        (0, 0xFFFFE, True),
        (1, 0x7FFFD, False),
        (1, 0x7FFFF, True),
        (1, 0x80001, False),
    ],
)
def test_everything_is_zapped_when_the_generation_of_mmio_sptes_wraps(profile, as_id, generation, wraps):
    vm = story(profile=profile).slot(1, gfn=0x100, npages=4).shadow(0x100)
    at_generation(vm, generation, as_id)

    vm.slot(2, gfn=0x200, npages=1, as_id=as_id)

    assert vm.generation(as_id) == generation + 2
    assert [e.scope for e in vm.events(MappingsZapped)] == (["all"] if wraps else [])
    assert vm.kvm.indirect_shadow_pages == (0 if wraps else 4)
    assert vm.counts(1) == ({} if wraps else {0x100: 1, 0x101: 1, 0x102: 1})


def test_with_one_address_space_the_wrap_comes_at_the_last_generation_of_19_bits():
    vm = story(smm=False).slot(1, gfn=0x100, npages=4).shadow(0x100)

    assert at_generation(vm, 0x7FFFE).set_flags(1, 1).events(MappingsZapped) == []
    assert len(at_generation(vm, 0x7FFFF).set_flags(1, 0).events(MappingsZapped)) == 1
