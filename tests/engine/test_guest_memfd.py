"""Slots on guest_memfd: kernel-reference 4.2 (checks 9, M1, M2, G1), recordings gmem_default_vm, a VMM's own log.

What is marked 6.18 was asked of a real kernel 6.18.44 besides.
"""

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from story import H, story

from explorer.engine.apply import apply
from explorer.engine.commands import CreateGuestMemfd, SetMemoryRegion2, parse_command
from explorer.engine.config import VmConfig
from explorer.engine.events import GuestMemfdBound, GuestMemfdUnbound
from explorer.engine.guards import ladder_of
from explorer.engine.invariants import violations
from explorer.engine.profile import PROFILES, get_profile
from explorer.engine.state import GmemBinding, Kvm, new_vm
from explorer.engine.types import U64_MAX, Errno
from explorer.engine.uapi import (
    KVM_MEM_GUEST_MEMFD,
    KVM_MEM_LOG_DIRTY_PAGES,
    KVM_MEM_READONLY,
    KVM_MEMSLOT_GMEM_ONLY,
    KVM_X86_SW_PROTECTED_VM,
    KvmMrChange,
)

MIB = 1 << 20
SIZE = 0x10000
PROTECTED = {"vm_type": KVM_X86_SW_PROTECTED_VM, "sw_protected_vm": True, "tdp": True}
PLAIN = {"v6_18": {}, "v7_3": {}, "v6_12": PROTECTED}
"""Profiles in which slots may be on guest_memfd, with the kind of VM it takes."""
EVERYWHERE = pytest.mark.parametrize("profile", PLAIN)
OLDER = [name for name, profile in PROFILES.items() if not profile.set_user_memory_region2]


def with_file(profile="v7_3", *, flags=0):
    return story(profile=profile, **PLAIN[profile]).do(f"create_guest_memfd fd=3 size={MIB} flags={flags}")


def on_file(slot=1, *, gpa=MIB, size=SIZE, hva=H, flags=KVM_MEM_GUEST_MEMFD, fd=3, offset=0, as_id=0):
    return SetMemoryRegion2(
        slot=slot,
        as_id=as_id,
        flags=flags,
        guest_phys_addr=gpa,
        memory_size=size,
        userspace_addr=hva,
        guest_memfd=fd,
        guest_memfd_offset=offset,
    )


# -- files -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("profile", OLDER)
def test_before_6_8_there_is_neither_file_nor_call(profile):
    vm = story(profile=profile)

    assert vm.do(f"create_guest_memfd fd=3 size={MIB}").errno is Errno.ENOTTY
    assert vm.do(on_file()).errno is Errno.ENOTTY
    assert vm.refused_by == "region2_exists"
    assert vm.do(on_file(flags=0)).errno is Errno.ENOTTY


@pytest.mark.parametrize(("profile", "accepted"), [("v6_12", {0}), ("v6_18", {0, 1, 2, 3}), ("v7_3", {0, 1, 2, 3})])
def test_a_plain_vm_gets_files_with_the_flags_its_kernel_knows(profile, accepted):
    for flags in (0, 1, 2, 3, 4, 8):
        vm = story(profile=profile).do(f"create_guest_memfd fd=3 size={MIB} flags={flags}")
        assert vm.errno is (None if flags in accepted else Errno.EINVAL)


@EVERYWHERE
@pytest.mark.parametrize(
    ("size", "errno"),
    [(0, "EINVAL"), (2048, "EINVAL"), (4096, None), ((1 << 63) - 4096, None), (1 << 63, "EINVAL"), (U64_MAX, "EINVAL")],
)
def test_a_file_has_a_positive_number_of_pages(profile, size, errno):
    """6.18: the greatest multiple of a page below 2^63 is fine."""
    vm = story(profile=profile, **PLAIN[profile]).do(CreateGuestMemfd(fd=3, size=size))

    assert vm.errno is (Errno[errno] if errno else None)
    assert (3 in vm.kvm.guest_memfds) == (errno is None)


def test_a_dead_vm_makes_no_file():
    dead = new_vm("v7_3")._replace(vm_bugged=True)

    assert apply(dead, CreateGuestMemfd(fd=3, size=MIB)).errno is Errno.EIO


# -- which calls may ask for it --------------------------------------------------------------------


def test_in_6_12_a_plain_vm_may_make_a_file_and_not_use_it():
    """Recording gmem_default_vm on 6.12: EINVAL from check_memory_region_flags()."""
    vm = story(profile="v6_12").do(f"create_guest_memfd fd=3 size={MIB}")

    assert vm.do(on_file()).refused_by == "flags"


@EVERYWHERE
@pytest.mark.parametrize("flag", [KVM_MEM_LOG_DIRTY_PAGES, KVM_MEM_READONLY])
def test_a_slot_on_guest_memfd_is_neither_logged_nor_read_only(profile, flag):
    vm = with_file(profile).do(on_file(flags=KVM_MEM_GUEST_MEMFD | flag))

    assert (vm.errno, vm.refused_by) == (Errno.EINVAL, "flags")


@EVERYWHERE
def test_the_plain_call_does_not_know_the_flag(profile):
    vm = with_file(profile).do(f"set_region slot=1 gpa={MIB} size={SIZE} hva={H} flags=gmem")

    assert (vm.errno, vm.refused_by) == (Errno.EINVAL, "region_flags")


@pytest.mark.parametrize("profile", ["v6_12", "v6_18", "v7_3"])
def test_without_the_flag_the_second_call_does_what_the_first_does(profile):
    """A VMM's own log, own-gmem-613: CREATE, log on, MOVE by REGION2, then a plain REGION call, DELETE."""
    vm = story(profile=profile)
    nothing = {"fd": 0xFFFF_FFFF, "hva": H, "size": 16 * MIB}

    for gpa, flags, change in ((0, 0, "CREATE"), (0, 1, "FLAGS_ONLY"), (16 * MIB, 1, "MOVE")):
        vm.do(on_file(0, gpa=gpa, flags=flags, **nothing))
        assert (vm.errno, vm.last.change) == (None, KvmMrChange[change])
    assert vm.do(f"set_region slot=0 gpa={16 * MIB} size={16 * MIB} hva={H}").last.change is KvmMrChange.FLAGS_ONLY
    assert vm.do(on_file(0, gpa=0, flags=0, **nothing | {"size": 0})).last.change is KvmMrChange.DELETE


@pytest.mark.parametrize("profile", ["v6_12", "v6_18", "v7_3"])
def test_the_second_call_asks_for_known_flags_once_and_after_the_id(profile):
    """Only the plain ioctl looks at the flags before the id: an unknown one with a wrong id is told of later."""
    vm = story(profile=profile)

    assert vm.do(on_file(40000, flags=0x8)).refused_by == "user_slot_id"
    assert vm.do(on_file(1, flags=0x8)).refused_by == "flags"


# -- the checks of a file, in kernel order ---------------------------------------------------------

WRONG = {
    # what makes one check of a CREATE fail and no earlier one, in kernel order
    "hva_aligned": {"hva": H + 1},
    "gmem_offset_aligned": {"offset": 2048},
    "gmem_no_wrap": {"offset": U64_MAX - 0xFFF},
    "as_id": {"as_id": 2},
    "overlap": {"gpa": 0},
    "gmem_fd": {"fd": 0xFFFF_FFFF},
    "gmem_file": {"fd": 0},
    "gmem_size": {"offset": MIB - SIZE + 0x1000},
    "gmem_overlap": {"offset": 0x8000},
}
ERRNOS = {"overlap": "EEXIST", "gmem_fd": "EBADF"}


def beside_another(profile):
    return with_file(profile).do(on_file(7, gpa=0, offset=0))


@EVERYWHERE
@pytest.mark.parametrize("check", WRONG)
def test_each_check_of_a_file_fires(profile, check):
    vm = beside_another(profile)
    before = vm.kvm

    vm.do(on_file(**{"offset": SIZE} | WRONG[check]))

    late = "EEXIST" if profile == "v7_3" else "EINVAL"
    assert vm.refused_by == check
    assert vm.errno is Errno[ERRNOS.get(check, late if check == "gmem_overlap" else "EINVAL")]
    assert (vm.kvm.memslots, vm.kvm.guest_memfds, vm.kvm.heap) == (before.memslots, before.guest_memfds, before.heap)


@EVERYWHERE
@pytest.mark.parametrize(
    "pair",
    [(a, b) for a, b in itertools.combinations(WRONG, 2) if not WRONG[a].keys() & WRONG[b].keys()],
    ids=" ".join,
)
def test_of_two_wrong_arguments_the_earlier_check_is_named(profile, pair):
    first, second = pair

    assert beside_another(profile).do(on_file(**{"offset": SIZE} | WRONG[first] | WRONG[second])).refused_by == first


def test_a_slot_that_fits_nowhere_and_on_no_page_is_refused_by_the_check_its_kernel_asks_first():
    """6.12 binds before the slot is prepared, 7.3 after: kernel-reference 4.4."""
    beyond = on_file(gpa=1 << 52, offset=0x8000)

    assert beside_another("v6_18").do(beyond).refused_by == "gmem_overlap"
    assert beside_another("v7_3").do(beyond).refused_by == "max_gfn"


@EVERYWHERE
def test_a_slot_refused_later_leaves_its_part_free(profile):
    """6.18: the slot beyond the last gfn is refused, and the same part can be taken at once."""
    vm = with_file(profile).do(on_file(gpa=1 << 52))
    assert vm.refused_by == "max_gfn"

    assert vm.do(on_file()).errno is None


# -- what becomes of a slot ------------------------------------------------------------------------


@EVERYWHERE
def test_a_slot_takes_its_part_and_gives_it_back_when_it_is_deleted(profile):
    vm = with_file(profile).do(on_file(1, offset=0x20000))
    assert vm.kvm.guest_memfds[3].bindings.get(0x20) == GmemBinding(0x10, 0, 1)
    assert vm.do(on_file(2, gpa=0, offset=0x20000)).refused_by == "gmem_overlap"

    vm.delete(1)

    assert not vm.kvm.guest_memfds[3].bindings
    assert vm.do(on_file(2, gpa=0, offset=0x20000)).errno is None
    assert [type(e) for e in vm.told if isinstance(e, GuestMemfdBound | GuestMemfdUnbound)] == [
        GuestMemfdBound,
        GuestMemfdUnbound,
        GuestMemfdBound,
    ]


@EVERYWHERE
def test_parts_that_only_touch_are_two_parts(profile):
    vm = with_file(profile).do(on_file(1, offset=SIZE))

    assert vm.do(on_file(2, gpa=0, offset=0)).errno is None
    assert vm.do(on_file(3, gpa=2 * MIB, offset=2 * SIZE)).errno is None
    assert vm.do(on_file(4, gpa=3 * MIB, offset=MIB - SIZE)).errno is None


@EVERYWHERE
@pytest.mark.parametrize("changed", [{}, {"gpa": 4 * MIB}, {"offset": SIZE}, {"size": 2 * SIZE}, {"hva": H + SIZE}])
def test_a_slot_on_guest_memfd_is_not_changed_at_all(profile, changed):
    """Kernel-reference 4.2, M1: not even the same call again is let through."""
    vm = with_file(profile).do(on_file())

    vm.do(on_file(**changed))

    assert (vm.errno, vm.refused_by) == (Errno.EINVAL, "gmem_immutable")


@EVERYWHERE
@pytest.mark.parametrize("gpa", [MIB, 2 * MIB])
@pytest.mark.parametrize("call", ["set_region", "set_region2"])
@pytest.mark.parametrize("flags", [0, KVM_MEM_LOG_DIRTY_PAGES])
def test_nor_by_a_call_that_leaves_the_flag_out(profile, gpa, call, flags):
    """6.18: EINVAL for all of them."""
    vm = with_file(profile).do(on_file())

    vm.do(f"{call} slot=1 gpa={gpa} size={SIZE} hva={H} flags={flags}")

    assert (vm.errno, vm.refused_by) == (Errno.EINVAL, "same_guest_memfd")


@EVERYWHERE
def test_a_plain_slot_is_not_put_on_guest_memfd(profile):
    vm = with_file(profile).slot(1, gfn=MIB >> 12, npages=SIZE >> 12, hva=H)

    assert vm.do(on_file()).refused_by == "gmem_immutable"


@EVERYWHERE
def test_a_slot_on_guest_memfd_keeps_no_dirty_log(profile):
    assert with_file(profile).do(on_file()).do("get_dirty_log slot=1").errno is Errno.ENOENT


@pytest.mark.parametrize("profile", ["v6_18", "v7_3"])
@pytest.mark.parametrize(("flags", "only"), [(0, 0), (1, KVM_MEMSLOT_GMEM_ONLY), (3, KVM_MEMSLOT_GMEM_ONLY)])
def test_a_slot_on_a_file_that_can_be_mapped_needs_no_other_memory(profile, flags, only):
    """Recording gmem_default_vm on 7.3: flags 131076 in the dump, which is GMEM_ONLY and GUEST_MEMFD."""
    vm = with_file(profile, flags=flags).do(on_file())

    assert vm.kvm.slot(1).flags == KVM_MEM_GUEST_MEMFD | only


def test_the_copy_that_hides_a_slot_has_no_file():
    """Kernel-reference 3.1: kvm_copy_memslot() does not copy gmem."""
    vm = with_file().do(on_file()).begin_delete(1).run_through("publish")

    assert vm.kvm.slot(1).invalid
    assert vm.kvm.slot(1).gmem is None
    assert vm.finish().kvm.slot(1) is None
    assert not vm.kvm.guest_memfds[3].bindings


@EVERYWHERE
def test_a_closed_file_leaves_its_slots_with_nothing_behind_them(profile):
    """The number comes again, so the file that had it was closed: kvm_gmem_release()."""
    vm = with_file(profile).do(on_file()).do(f"create_guest_memfd fd=3 size={2 * MIB}")
    assert [(e.slot, e.fd, e.npages) for e in vm.events(GuestMemfdUnbound)] == [(1, 3, 0x10)]
    assert vm.kvm.slot(1).gmem is None
    assert [space.inactive.id_hash[1].gmem for space in vm.kvm.memslots[:1]] == [None]
    assert vm.do(on_file(2, gpa=0, offset=0)).errno is None

    vm.delete(1)

    assert vm.kvm.guest_memfds[3].bindings.get(0) == GmemBinding(0x10, 0, 2)


def test_a_vm_s_line_says_which_slots_are_on_guest_memfd():
    line = "as0 gen=6: [0x0+0x10]#1 rw,gmem [0x100+0x10]#2 rw,gmem-only [0x200+0x10]#3 ro,log"

    kvm = Kvm.from_brief(line, profile="v7_3")

    assert kvm.brief() == line
    assert violations(kvm) == ()


# -- whole stories ---------------------------------------------------------------------------------


def test_a_vmm_s_own_log_is_reproduced():
    """own-gmem-613/truth.jsonl, calls 5 to 13, on a kernel 6.18: which were refused and which not."""
    vm = story(profile="v6_18", smm=False).do(f"create_guest_memfd fd=6 size={64 * MIB}")
    told = []

    for slot, gpa, size, fd, offset, flags in (
        (1, 64, 16, 6, 0, 4),
        (2, 128, 16, 6, 16, 4),
        (3, 192, 16, 6, 8, 4),
        (3, 192, 32, 6, 56, 4),
        (3, 192, 16, 0, 0, 4),
        (1, 256, 16, 6, 0, 4),
        (1, 64, 16, 6, 0, 5),
        (1, 0, 0, 0, 0, 0),
        (3, 192, 16, 6, 0, 4),
    ):
        vm.do(on_file(slot, gpa=gpa * MIB, size=size * MIB, hva=0, fd=fd, offset=offset * MIB, flags=flags))
        told.append(vm.errno.name if vm.errno else None)

    assert told == [None, None, "EINVAL", "EINVAL", "EINVAL", "EINVAL", "EINVAL", None, None]


@EVERYWHERE
def test_the_ladder_of_a_slot_on_guest_memfd_holds_all_checks_of_the_plain_one(profile):
    plain, gmem = (ladder_of(get_profile(profile), kind) for kind in ("region2", "gmem"))

    for change in (KvmMrChange.CREATE, KvmMrChange.MOVE, KvmMrChange.DELETE, None):
        without = [guard.name for guard in gmem.of(change) if not guard.name.startswith("gmem_")]
        assert without == [guard.name for guard in plain.of(change)]


REGION = st.builds(
    on_file,
    st.sampled_from([1, 2, 3]),
    gpa=st.sampled_from([0, SIZE, MIB, 1 << 52]),
    size=st.sampled_from([0, SIZE, SIZE, SIZE, 2 * SIZE]),
    flags=st.sampled_from([4, 4, 4, 0, 1, 5, 6]),
    fd=st.sampled_from([3, 3, 4, 5, 0xFFFF_FFFF]),
    offset=st.sampled_from([0, SIZE // 2, SIZE, MIB - SIZE, MIB]),
)
FILE = st.builds(CreateGuestMemfd, fd=st.sampled_from([3, 4]), size=st.sampled_from([MIB, SIZE, 5]))


@settings(max_examples=150)
@given(
    profile=st.sampled_from(sorted(PLAIN)),
    commands=st.lists(st.one_of(REGION, REGION, REGION, FILE), max_size=25),
)
def test_files_and_slots_always_agree_on_who_has_what(profile, commands):
    kvm = new_vm(profile, VmConfig(**PLAIN[profile]))
    for command in [parse_command(f"create_guest_memfd fd=3 size={MIB}"), *commands]:
        step = apply(kvm, command, record=False)
        assert step.errno is None or step.kvm.guest_memfds == kvm.guest_memfds
        kvm = step.kvm

        taken = {
            (fd, pgoff, *binding) for fd, file in kvm.guest_memfds.items() for pgoff, binding in file.bindings.items()
        }
        slots = [slot for slot in kvm.slots() if slot.gmem is not None]
        assert taken == {(*slot.gmem, slot.npages, slot.as_id, slot.id) for slot in slots}
        pages = [(slot.gmem.fd, slot.gmem.pgoff + at) for slot in slots for at in range(slot.npages)]
        assert len(set(pages)) == len(pages)
        assert all((pgoff + 1) << 12 <= kvm.guest_memfds[fd].size for fd, pgoff in pages)
        assert violations(kvm) == ()
