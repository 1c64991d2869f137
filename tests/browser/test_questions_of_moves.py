"""Questions about a MOVE: what survives it, what is lost and whether that hurts, what a vCPU sees, what it costs.

Numbered and counted as in `test_questions_of_calls`. Expected answers come from the engine without the page, slot
object beside slot object, and from the kernel reference.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from answers import opening
from hands import Hands
from story import story

from explorer.engine.commands import AttachTracker
from explorer.engine.events import ReadersDrained, WriteUntracked
from explorer.engine.types import PG_LEVEL_2M
from explorer.scenarios import load_scenario

if TYPE_CHECKING:
    from screen import Screen

pytestmark = pytest.mark.browser

TO = 0xD0001
SLOT = 10


@pytest.fixture
def hands(screen: Screen) -> Hands:
    return Hands(screen)


def fates(screen: Screen) -> dict[str, str]:
    """Return the fate of each field, from the table."""
    rows = [row.split("\t") for row in screen.page.locator(".fields tbody tr:visible").all_inner_texts()]
    return {row[0].strip(): row[-1].strip().lstrip("=≠✳⇥×").strip() for row in rows}


def ledger(screen: Screen) -> tuple[int, ...]:
    """Return watches before, released, kept and lost."""
    return tuple(int(text) for text in screen.texts(".mx-ledger .key"))


def test_question_5_what_survives_a_move(hands: Hands) -> None:
    vm = opening()
    old = vm[SLOT]
    new = vm.move(SLOT, to_gfn=TO)[SLOT]
    kept = {each for each in ("npages", "userspace_addr", "flags") if getattr(old, each) == getattr(new, each)}
    arrays = ("rmap", "lpage_info", "gfn_write_track")
    again = {each for each in arrays if getattr(old.arch, each) != getattr(new.arch, each)}

    screen = hands.press("Enter").until_at(12, 9)

    assert hands.actions <= 1
    told = fates(screen)
    assert {name for name, fate in told.items() if fate == "kept"} == kept | {"id, as_id"}
    assert {name.removeprefix("arch.") for name, fate in told.items() if fate == "from zero"} == again
    assert told["base_gfn"] == "changed"
    assert old.base_gfn != new.base_gfn


def test_question_6_do_write_track_counts_survive_and_where_did_each_go(hands: Hands) -> None:
    vm = opening()
    before = vm.counts(SLOT)
    vm.move(SLOT, to_gfn=TO)
    gone = [event.gfn for event in vm.events(WriteUntracked) if event.by == "shadow paging"]
    assert sorted(gone) == sorted(before)
    assert vm.counts(SLOT) == {}

    screen = hands.press("Enter").until_at(12, 9)
    assert ledger(screen) == (len(before), len(gone), 0, 0)
    assert [row.split()[0] for row in screen.texts(".mx-rail tr") if row.endswith("released")] == list(map(hex, before))
    hands.press("w").until_read(".mx-why", "zapped shadow pages released")

    assert hands.actions <= 2
    asked = re.search(r"Why is the count of gfn (0x[0-9a-f]+) 0\?", screen.text(".mx-why"))
    assert asked is not None
    assert int(asked[1], 16) - TO + 0xD0000 in before, "the page’s new number, of a page that was watched"
    assert "__kvm_write_track_remove_gfn() 1 → 0" in screen.text(".mx-why")


@pytest.mark.parametrize(
    ("profile", "chips", "harmful"),
    [
        # kernel-reference 5.6: with the quirk off, the code as first queued leaves the shadow pages that were counted.
        ("v6_12_quirk_posted", [("chip-kernel", "6.12 as queued"), ("chip-zap", "slot only")], True),
        ("v6_12", [("chip-zap", "slot only")], False),
        ("v6_1", [("chip-kernel", "6.1")], False),
    ],
)
def test_question_7_is_the_loss_harmful_in_my_configuration(
    hands: Hands, profile: str, chips: list[tuple[str, str]], harmful: bool
) -> None:
    vm = opening(profile)
    if ("chip-zap", "slot only") in chips:
        vm.do("enable_cap cap=DISABLE_QUIRKS2 arg=0x80")
    watched = vm.counts(SLOT)
    vm.move(SLOT, to_gfn=TO)
    shadowed = {page.gfn for page in vm.kvm.active_mmu_pages.values() if page.level > 1}
    assert bool(shadowed & watched.keys()) is harmful, "a shadow page lives on and has no count"
    told = f"{len(watched)} watches " + ("lost (harmful)" if harmful else "released by the zap (harmless)")

    for control, label in chips:
        hands.choose(control, label)
    hands.screen.until_read(".mx-preflight", told)

    assert hands.actions <= 2


def test_question_9_what_can_a_vcpu_observe_during_the_window(hands: Hands) -> None:
    vm = opening().begin_move(SLOT, to_gfn=TO).run_through("publish_invalid")
    assert (vm.guest_reads(0xD0005), vm.guest_writes(0xD0005)) == ("retry", "retry"), "in the slot"
    assert (vm.guest_reads(0xD0021), vm.guest_writes(0xD0021)) == ("mmio", "mmio"), "behind it"

    screen = hands.press("Enter").until_at(12, 9)
    hands.click(screen.page.locator(".tl-cell.in-invalid").first).until_at(12, 3)
    assert screen.texts(".mx-strip .band")[1] == "INVALID: guest faults retry"
    hands.paste("0xd0005000").until_read(".mx-rail td", "0xd0005")

    assert hands.actions <= 3
    assert "0xd0005 tries again tries again" in screen.texts(".mx-rail tr")
    hands.paste("0xd0021000").until_read(".mx-rail td", "0xd0021")
    assert "0xd0021 MMIO exit MMIO exit" in screen.texts(".mx-rail tr")


def test_question_17_is_move_different_from_delete_and_create_for_my_case(hands: Hands) -> None:
    moved, made_again = opening().move(SLOT, to_gfn=TO), opening()
    slot = made_again[SLOT]
    start = made_again.generation()
    waits = 0
    for call in (
        made_again.deletion(SLOT),
        made_again.region(SLOT, gfn=TO, npages=slot.npages, hva=slot.userspace_addr),
    ):
        made_again.do(call)
        assert made_again.errno is None
        waits += len(made_again.events(ReadersDrained))
    assert (moved[SLOT].base_gfn, moved[SLOT].npages) == (made_again[SLOT].base_gfn, made_again[SLOT].npages)

    screen = hands.press("6").until_read(".compare .finding", "The same layout in the end")

    assert hands.actions <= 2
    rows = [row.split("\t") for row in screen.page.locator(".routes tr").all_inner_texts()]
    told = {row[-4].strip(): [cell.strip() for cell in row[-3:]] for row in rows if len(row) >= 4}
    assert told["result"] == ["0", "0, then 0", "≠"]
    ends = moved.generation(), made_again.generation()
    assert told["generation"] == [*(f"{start} to {end}: +{end - start}" for end in ends), "≠"]
    assert told["waits for readers (SRCU)"] == [str(len(moved.events(ReadersDrained))), str(waits), "≠"]
    assert "find no slot in 0 steps 6 steps, and the time between the calls ≠" in screen.text(".routes")


RAM = """\
ioctl(3, KVM_CREATE_VM, 0) = 4
ioctl(4, KVM_SET_USER_MEMORY_REGION, {slot=0, flags=0, guest_phys_addr=0x40000000, memory_size=0x1000000,\
 userspace_addr=0x7f0040000000}) = 0
"""


def test_question_18_does_moving_by_4_kib_cost_me_huge_pages(hands: Hands) -> None:
    vm = story().slot(0, gfn=0x40000, npages=0x1000, hva=0x7F00_4000_0000)
    before = vm.lpage(0, PG_LEVEL_2M)
    after = vm.move(0, to_gfn=0x40001).lpage(0, PG_LEVEL_2M)
    # kernel-reference 3.3: where guest and host address lie differently in 2 MiB, no frame of the slot can be huge.
    assert before == [0] * 8
    assert all(after)
    screen = hands.screen
    Hands(screen).paste(RAM).until_read(".mx-map-figure", "slot 0")
    assert screen.map_words.count("yes") == len(before)

    hands.fill("base", "0x40001000")
    hands.press("Enter").until_at(1, 9)

    assert hands.actions <= 2
    blocks = [text for text in screen.map_words if text == "yes" or text.split(":")[0] == "no"]
    assert "yes" not in blocks
    assert len(blocks) == 8


@pytest.mark.parametrize(
    ("chips", "changed", "told"),
    [
        # kernel-reference 3.6: from 6.9 on it takes TDP off, a shadow root, or a tracker that has registered.
        ([("chip-tdp", "on")], {"tdp": True}, "The first tracker or shadow root makes them for every slot."),
        (
            [("chip-tdp", "on"), ("chip-external", "off")],
            {"tdp": True, "external_write_tracking": False},
            "The first shadow root makes them for every slot. No tracker can register",
        ),
        ([("chip-tdp", "on"), ("chip-tracker", "logs only")], {"tdp": True}, "when the first tracker registered"),
        ([("chip-tdp", "on"), ("chip-kernel", "6.1")], {"tdp": True}, "because external tracking is built in"),
    ],
)
def test_question_25_when_are_the_tracking_arrays_allocated_at_all(
    hands: Hands, chips: list[tuple[str, str]], changed: dict[str, bool], told: str
) -> None:
    config = replace(load_scenario("first-look").config, **changed)
    vm = opening("v6_1" if ("chip-kernel", "6.1") in chips else "v6_12", config=config)
    if ("chip-tracker", "logs only") in chips:
        vm.do(AttachTracker(user=0, kind="log"))
    exist = vm[SLOT].arch.gfn_write_track is not None
    for control, label in chips:
        hands.choose(control, label)
    screen = hands.screen.until_read(".mx-rail", told)

    assert hands.actions <= 2
    assert ("None yet: " in screen.rail) is not exist
    words = " ".join(screen.page.locator(".mx-arrays .mx-words text").all_text_contents())
    assert ("no counts: write tracking is off" in words) is not exist


def test_question_25_where_tdp_is_off_they_are_made_inside_the_call(hands: Hands) -> None:
    vm = opening().begin_move(SLOT, to_gfn=TO).run_through("publish_invalid")
    assert vm.kvm.pending is not None
    assert vm.kvm.pending.new is None or vm.kvm.pending.new.arch.gfn_write_track is None
    assert vm.finish()[SLOT].arch.gfn_write_track is not None

    screen = hands.press("Enter").until_at(12, 9)
    hands.click(screen.page.get_by_role("button", name="step 6: allocate")).until_at(12, 5)

    assert hands.actions <= 2
    assert "Made with every slot, because TDP is off" in screen.rail
