"""Questions about one call: why it was refused, what would work, what it is, and what the refusal cost.

Questions are numbered as in the project's list of what a KVM developer asks, which says how many actions an answer
may take; `Hands` counts them. The page is opened cold. Expected answers come from the checks of the kernel reference
as an independent list (`ordered_checks`), from lines read by hand, or from the engine without the page.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest
from answers import PAGE, call_of, opening, region_of, slots_by_hand, vm_of
from hands import Hands
from ordered_checks import first_violated

from explorer.engine.events import MappingsZapped, ReadersDrained

if TYPE_CHECKING:
    from screen import Screen

pytestmark = pytest.mark.browser

LINE = (
    "ioctl(9, KVM_SET_USER_MEMORY_REGION, {slot=4, flags=0, guest_phys_addr=0xc0800, memory_size=131072,"
    " userspace_addr=0x7f0000000000}) = -1 EINVAL (Invalid argument)"
)
TAKEN = LINE.replace("0xc0800", "0xc0000").replace("EINVAL (Invalid argument)", "EEXIST (File exists)")
TITLES = {"gpa_aligned": "guest address on a page", "overlap": "no overlap with another slot"}
"""Checks of the reference, row by row, as the page calls them."""
MINUS = "\N{MINUS SIGN}"


@pytest.fixture
def hands(screen: Screen) -> Hands:
    return Hands(screen)


# -- a pasted line ---------------------------------------------------------------------------------


def test_question_1_why_does_this_ioctl_return_einval(hands: Hands) -> None:
    check, errno = first_violated(vm_of([], (6, 12)), call_of(region_of(LINE))) or ("", "")

    screen = hands.paste(LINE).until_read(".mx-panel-guards", "FIRED")

    assert hands.actions <= 1
    fired = screen.page.locator(".mx-panel-guards .is-fired")
    assert fired.is_visible()
    assert f"{TITLES[check]} FIRED {MINUS}{errno}" in screen.text(".mx-panel-guards .is-fired")
    assert "in __kvm_set_memory_region()" in screen.text(".mx-panel-guards .is-fired")  # kernel-reference 4.2, row 7
    assert "refused before anything was touched" in screen.rail


def test_question_2_and_what_is_the_smallest_change_that_works(hands: Hands) -> None:
    refused, vm = region_of(LINE), vm_of([], (6, 12))

    screen = hands.paste(LINE).until_read(".mx-rail", "What would work")

    assert hands.actions <= 1
    bases = [int(text, 16) for text in re.findall(r"Base (0x[0-9a-f]+)", screen.rail)]
    assert bases == [refused.gpa // PAGE * PAGE, (refused.gpa // PAGE + 1) * PAGE], "the pages next to it"
    assert [first_violated(vm, call_of(refused, gpa=base)) for base in bases] == [None, None]


def test_question_3_why_eexist_and_with_which_slot_do_i_overlap(hands: Hands) -> None:
    taken = region_of(TAKEN)
    assert first_violated(vm_of([taken._replace(slot=1)], (6, 12)), call_of(taken)) == ("overlap", "EEXIST")

    screen = hands.paste(TAKEN).until_read(".mx-panel-guards .is-fired", TITLES["overlap"])

    assert hands.actions <= 1
    named = re.search(r"[Ss]lot (\d+) is in the way", screen.rail)
    assert named is not None
    assert "in the way" in screen.map_words
    assert f"slot {named[1]}" in screen.map_words


# -- a composed call -------------------------------------------------------------------------------


def test_question_1_and_2_of_a_composed_call(hands: Hands) -> None:
    slots = slots_by_hand()
    call = next(told for told in slots if told.slot == 10)._replace(gpa=0xD000_0800)
    check, errno = first_violated(vm_of(slots, (6, 12)), call_of(call)) or ("", "")

    screen = hands.fill("base", "0xd0000800").until_read(".mx-preflight", "Refused")

    assert hands.actions <= 1
    told = screen.text(".mx-preflight")
    assert f"Refused with {MINUS}{errno}" in told
    assert f"The check “{TITLES[check]}” fails" in told
    works = re.search(r"Would work: base (0x[0-9a-f]+)", told)
    assert works is not None
    assert first_violated(vm_of(slots, (6, 12)), call_of(call, gpa=int(works[1], 16))) is None


def test_question_3_of_a_composed_call(hands: Hands) -> None:
    slots = slots_by_hand()
    moved = next(told for told in slots if told.slot == 10)._replace(gpa=0xC_0000)
    overlapped = [told.slot for told in slots if told.gpa < moved.end and moved.gpa < told.end and told.slot != 10]

    screen = hands.fill("base", "0xc0000").until_read(".mx-preflight", f"Refused with {MINUS}EEXIST")

    assert hands.actions <= 1
    *others, last = map(str, overlapped)
    assert f"Slots {', '.join(others)} and {last} are in the way." in screen.text(".mx-preflight")
    screen.page.locator(".mx-map-figure .mx-words text", has_text="composed: it would be refused").wait_for()
    assert "in the way" in screen.map_words


@pytest.mark.parametrize(
    ("field", "text", "kind"),
    [
        ("base", "0xd0005000", "MOVE, because base_gfn differs"),
        ("base", "0xd0000000", "NOOP, because nothing differs"),
        ("size", "0", "DELETE, because the size is 0"),
    ],
)
def test_question_4_is_this_call_a_move_a_flags_change_or_a_no_op(
    hands: Hands, field: str, text: str, kind: str
) -> None:
    # kernel-reference 4.2, rows D1 to M3: size 0, then base_gfn, then flags decide.
    screen = hands.fill(field, text).until_read(".mx-preflight", kind)

    assert hands.actions <= 1
    assert "Accepted" in screen.text(".mx-preflight")


def test_question_4_of_flags(hands: Hands) -> None:
    hands.screen.fill("base", "0xd0000000").until_read(".mx-preflight", "NOOP")

    hands.fill("flags", "log").until_read(".mx-preflight", "FLAGS_ONLY, because only flags differ")

    assert hands.actions <= 1


def test_question_8_what_does_a_rejected_move_still_do(hands: Hands) -> None:
    vm = opening().attach(kind="kvmgt")
    before, pages = vm.generation(), vm.kvm.indirect_shadow_pages
    vm.move(10, to_gfn=0xD0001)
    assert vm.errno_name == "EINVAL"
    waits = len(vm.events(ReadersDrained))
    assert vm.events(MappingsZapped)

    hands.press("k").until_at(12, 0)
    screen = hands.press("Enter").until_read(".mx-panel-guards", f"FIRED {MINUS}EINVAL")

    assert hands.actions <= 2
    bill = screen.page.locator(".bill")
    assert bill.is_visible()
    rows = [row.split("\t") for row in screen.page.locator(".bill tbody tr").all_inner_texts()]
    cost = {row[0].strip(): [cell.strip() for cell in row[1:3]] for row in rows if len(row) > 2}
    assert cost["Memslot generation"] == [str(before), str(vm.generation())]
    assert cost["Waits for all readers (SRCU)"] == ["", str(waits)]
    assert cost["Shadow pages, whole VM"] == [str(pages), str(vm.kvm.indirect_shadow_pages)]
    assert "slot 10: INVALID to every reader" in screen.map_words
    assert "asked for, refused: nothing was built here" in screen.map_words
