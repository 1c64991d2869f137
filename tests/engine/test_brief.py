"""A VM in one line, and back."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from story import H, story

from explorer.engine.config import VmConfig
from explorer.engine.invariants import violations
from explorer.engine.profile import PROFILES
from explorer.engine.state import Kvm, new_vm
from explorer.engine.types import ExplorerError

LINES = [
    "as0 gen=0:",
    "as0 gen=4: [0x100+0x200]#1 rw,log",
    "as0 gen=2: [0xc0000+0x200]#10 rw",
    "as0 gen=8: [0x0+0xa0]#0 rw [0xc0+0x40]#5 ro [0x100+0x200]#1 ro,log",
    "as0 gen=0:; as1 gen=3: [0x0+0x1]#0 rw",
    "as0 gen=6: [0x0+0x1]#3 rw; as1 gen=9: [0x0+0x10]#3 ro [0x10+0x10]#4 rw,log",
]


@pytest.mark.parametrize("line", LINES)
def test_a_line_comes_back_from_the_vm_it_describes(line):
    kvm = Kvm.from_brief(line)

    assert kvm.brief() == line
    assert violations(kvm) == ()


@pytest.mark.parametrize("profile", PROFILES)
def test_a_new_vm_comes_back_from_its_line(profile):
    kvm = new_vm(profile)

    assert Kvm.from_brief(kvm.brief(), profile=profile) == kvm


@st.composite
def briefs(draw):
    parts = []
    for as_id in (0, 1):
        gfn, slots = 0, []
        ids = draw(st.lists(st.integers(0, 32763), max_size=4, unique=True))
        for slot_id in ids:
            gfn += draw(st.integers(0, 0x400))
            npages = draw(st.integers(1, 0x400))
            slots.append(f"[{gfn:#x}+{npages:#x}]#{slot_id} {draw(st.sampled_from(['rw', 'ro', 'rw,log', 'ro,log']))}")
            gfn += npages
        swaps = len(ids) + draw(st.integers(0, 9)) * bool(ids)
        if ids or not as_id:
            parts.append(" ".join([f"as{as_id} gen={2 * swaps + as_id}:", *slots]))
    return "; ".join(parts)


@given(briefs())
def test_any_line_comes_back(line):
    kvm = Kvm.from_brief(line)

    assert kvm.brief() == line
    assert Kvm.from_brief(kvm.brief()) == kvm
    assert violations(kvm) == ()


def test_an_update_in_progress_shows_the_invalid_slot():
    vm = story("as0 gen=2: [0x100+0x2]#1 rw").begin_delete(1).run_through("drain")

    assert vm.brief == "as0 gen=4: [0x100+0x2]#1 rw,INVALID"


def test_slots_from_a_line_are_backed_one_to_one():
    vm = story("as0 gen=2: [0x100+0x2]#1 rw")

    assert vm.lookup(0x101) == H + 0x101000


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("", "no address space"),
        ("as2 gen=0:", "no address space"),
        ("as0 gen=x:", "no address space"),
        ("as0 gen=2: [0x100+0x200]#1", "no slot"),
        ("as0 gen=2: 0x100+0x200#1 rw", "no slot|no address space"),
        ("as0 gen=4: [0x100+0x200]#1 rw [0x200+0x1]#2 rw", "cannot exist beside the others: EEXIST"),
        ("as0 gen=2: [0x100+0x0]#1 rw", "cannot exist"),
        ("as0 gen=2: [0x100+0x1]#1 xyz", "no slot|flags"),
        ("as0 gen=2: [0x100+0x1]#1 rw,INVALID", "no slot"),
    ],
)
def test_a_line_that_describes_no_vm_is_refused(line, complaint):
    with pytest.raises(ExplorerError, match=complaint):
        Kvm.from_brief(line)


def test_an_address_space_that_the_vm_lacks_is_refused():
    with pytest.raises(ExplorerError):
        Kvm.from_brief("as0 gen=0:; as1 gen=1:", config=VmConfig(smm=False))
