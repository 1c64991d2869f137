"""The rail: a verdict for whatever was done, the losses with what they rest on, and what would work instead."""

import pytest
from runs import (
    ALL_PROFILES,
    DELETE,
    KVMGT,
    LOG_ON,
    LOGGER,
    MOVE,
    QUIRK_OFF,
    REFUSES_A_MOVE,
    SLOT,
    TABLES,
    WATCHED,
    at_word,
    end_of,
    run_of,
)

from explorer.engine.profile import PROFILES
from explorer.history import Stop
from explorer.history.moment import moment_at
from explorer.selectors.rail import select_rail


def rail(profile, *lines, **config):
    run = run_of(profile, *lines, **config)
    return select_rail(run, end_of(run))


def section(view, title):
    return next(section for section in view.sections if section.title == title)


def rows(view, title):
    return [[cell.text for cell in row] for row in section(view, title).rows]


DONE = [
    # what was done, title and subtitle
    ([SLOT, TABLES], "Page tables shadowed", "3 watches more"),
    ([SLOT, TABLES, TABLES], "Nothing is shadowed", "nothing new to shadow"),
    ([SLOT, "attach kind=kvmgt"], "KVMGT attached", "KVM calls it from now on"),
    ([SLOT, "attach kind=log"], "Tracker attached", "KVM calls it from now on"),
    ([*KVMGT, "detach"], "KVMGT detached", "2 watches given back"),
    ([*LOGGER, "detach"], "Tracker detached", "what it asked for stays"),
    ([SLOT, "detach"], "Nothing to detach", "no such tracker is attached"),
    ([*KVMGT], "Page watched", "gfn 0xd0003 has count 1"),
    ([*KVMGT, "track gfn=0xd0003"], "Nothing was asked of KVM", "KVMGT believes it watches the page"),
    ([*KVMGT, "untrack gfn=0xd0010"], "Watch taken back", "gfn 0xd0010 has count 1"),
    ([*KVMGT, "guest_write gpa=0xd0003000"], "Write caught", "KVM carries it out itself"),
    ([SLOT, "guest_write gpa=0xd0003000"], "Write goes to memory", "nobody is told"),
    ([SLOT, "guest_write gpa=0x3000"], "Write exits to the VMM", "no slot holds the address"),
    ([LOG_ON, "guest_write gpa=0xd0003000", "get_dirty_log slot=10"], "Dirty log read", "1 page written"),
    ([LOG_ON, "clear_dirty_log slot=10 first=0 num=32"], "Dirty log cleared", "0 pages"),
    ([QUIRK_OFF], "Quirk disabled", "argument 0x80"),
    (["enable_cap cap=168 arg=1"], "Dirty log set up", "argument 0x1"),
    ([*LOGGER, "tracker_log"], "Tracker’s log read", "and emptied"),
    (["create_irqchip"], "Interrupt chip made", ""),
    (["create_vcpu id=3"], "vCPU made", "number 3"),
    (["create_guest_memfd fd=3 size=0x1000"], "guest_memfd made", "descriptor 3"),
    (["set_tss_addr addr=0xfffbd000"], "TSS address set", "0xfffbd000"),
    (["set_identity_map_addr addr=0xfffbc000"], "Identity map address set", "0xfffbc000"),
    ([SLOT], "CREATE allowed", "one slot more"),
    ([SLOT, DELETE], "DELETE allowed", "one slot less"),
    ([SLOT, LOG_ON], "Flags changed", "the arrays stay"),
    ([SLOT, SLOT], "Nothing to do", "KVM returns 0 at once"),
]


@pytest.mark.parametrize(("lines", "title", "subtitle"), DONE, ids=[f"{title}, {sub}" for _, title, sub in DONE])
def test_the_verdict_names_what_was_done(lines, title, subtitle):
    view = rail("v6_12", *lines)

    assert (view.icon, view.errno, view.verdict, view.subtitle) == ("check", "", title, subtitle)


def test_a_refused_call_that_is_no_region_call_is_a_refusal():
    view = rail("v6_12", SLOT, "get_dirty_log slot=10")

    assert (view.icon, view.errno, view.verdict) == ("octagon", "−ENOENT", "Refused")


def test_a_kernel_that_warns_is_not_told_as_done_well():
    # kernel-reference 5.4: a removal too many warns and leaves the count at 0.
    view = rail("v6_12", SLOT, "attach kind=log", "untrack gfn=0xd0003")

    assert (view.icon, view.subtitle) == ("lost", "and the kernel warned")


MOVES = [
    # kernel-reference 6.6 and 5.6: who loses what, and whether it is harmful
    ("v6_1", WATCHED, "and no watch is lost", "harmless **only because** every mapping is zapped"),
    ("v6_1", KVMGT, "and KVMGT drops 2 watches", "harmful, its protection is gone and its flags still say tracked"),
    ("v6_1", LOGGER, "and 2 watches are lost", "harmful, the tracker still counts on them"),
    ("v6_6_nocheck", KVMGT, "and 2 watches are lost", "harmful, the tracker still counts on them"),
    ("v6_6_posted", KVMGT, "and 2 watches are lost", "harmful, the tracker still counts on them"),
    ("v6_12", (SLOT, QUIRK_OFF, TABLES), "and no watch is lost", "the slot’s shadow pages are zapped"),
    ("v7_3", WATCHED, "and no watch is lost", "harmless **only because** every mapping is zapped"),
    ("pre_edd4", LOGGER, "and 2 watches will stand for other pages", "2 carried over by index: harmful"),
]


@pytest.mark.parametrize(("profile", "lines", "subtitle", "rests_on"), MOVES)
def test_an_accepted_move_says_what_its_losses_rest_on(profile, lines, subtitle, rests_on):
    view = rail(profile, *lines, MOVE)

    assert (view.verdict, view.subtitle) == ("MOVE allowed", subtitle)
    assert rests_on in section(view, "Rests on").text
    assert (view.subtitle_role == "lost") == ("no watch" not in subtitle)


def test_before_5_7_only_the_trackers_watches_are_said_to_stand_for_other_pages():
    run = run_of("pre_edd4", *LOGGER, MOVE)
    cells = range(len(run.detail(len(run) - 1).cells))

    told = {select_rail(run, moment_at(run, Stop(len(run) - 1, cell))).subtitle for cell in cells}

    assert told == {"and 2 watches will stand for other pages"}


@pytest.mark.parametrize(("profile", "lines"), [("v6_1", KVMGT), ("v6_6_nocheck", KVMGT), ("v6_1", LOGGER)])
def test_a_loss_is_foretold_from_the_first_step(profile, lines):
    run = run_of(profile, *lines, MOVE)

    assert "will" in select_rail(run, at_word(run, "check")).subtitle


def test_what_each_believes_is_set_against_the_counts():
    assert rows(rail("v6_1", *KVMGT, MOVE), "Who believes what, page by page") == [
        # kernel-reference 6.6: table empty, flag still True; 0xd0010 is a page table too, whose watch the zap released
        ["0xd0003", "flag says tracked", "0", "0", "dropped"],
        ["0xd0010", "flag says tracked", "0", "0", "dropped, released"],
        ["0xd0011", "none", "0", "0", "released"],
        ["0xd0012", "none", "0", "0", "released"],
    ]
    assert rows(rail("v6_6_nocheck", *KVMGT, MOVE), "Who believes what, page by page")[0] == [
        "0xd0003",
        "watching",
        "0",
        "0",
        "lost",
    ]


@pytest.mark.parametrize("profile", REFUSES_A_MOVE)
def test_a_refused_move_was_not_free_and_says_what_works(profile):
    view = rail(profile, *KVMGT, MOVE)

    assert (view.verdict, view.subtitle, view.errno) == ("MOVE refused", "and it was not free", "−EINVAL")
    assert rows(view, "What would work") == [
        ["Detach KVMGT first", "returns 0"],
        # kernel-reference 6.5.4, 6.6: the counts go with the array; on 6.1 the flush callback takes them back.
        ["DELETE and CREATE at 0xd0200000", "returns 0, but 2 watches are lost"],
        ["The same call on 6.1", "returns 0, but KVMGT drops 2 watches"],
    ]
    marks = [row[0].glyph for row in section(view, "What would work").rows]
    assert marks == ["check", "lost", "lost"]
    assert "steps 4 to 6" in section(view, "What the guest could see").text


@pytest.mark.parametrize("profile", REFUSES_A_MOVE)
def test_what_would_work_is_free_where_nobody_watches(profile):
    view = rail(profile, SLOT, "attach kind=kvmgt", MOVE)

    assert {row[0].glyph for row in section(view, "What would work").rows} == {"check"}
    assert [row[1] for row in rows(view, "What would work")] == ["returns 0"] * 3


def test_an_early_refusal_touched_nothing():
    view = rail("v6_12", SLOT, "set_region slot=11 gpa=0xd0000000 size=0x1000")

    assert (view.verdict, view.subtitle) == ("CREATE refused", "before anything was touched")


def test_where_the_watches_came_from_is_told_operation_by_operation():
    assert rows(rail("v6_1", *KVMGT, MOVE), "Where the watches came from") == [
        ["2", "page tables shadowed", "+3"],
        ["4", "tracker 0 asked", "+1"],
        ["5", "tracker 0 asked", "+1"],
        ["6.5", "tracker 0 let go", "−2"],
        ["6.5", "zapped shadow pages released", "−3"],
    ]


def test_properties_that_do_not_hold_are_listed_with_what_is_known_to_break_them():
    # kernel-reference 5.6: the zap left four shadow pages, at the gfns of the guest's tables, and no slot there.
    view = rail("v6_12_quirk_posted", QUIRK_OFF, *WATCHED, MOVE)

    assert rows(view, "Broken properties") == [
        ["no SPTE maps through an INVALID or dead slot", "4 places, 0xd0010"],
    ]
    assert "with the quirk off" in section(view, "Broken properties").note
    assert "Broken properties" not in [s.title for s in rail("v6_12", QUIRK_OFF, *WATCHED, MOVE).sections]


@pytest.mark.parametrize("profile", ALL_PROFILES)
def test_what_was_never_recorded_is_not_called_checked(profile):
    recorded = {"v5_10": "5.10", "v6_1": "6.1", "v6_12": "6.12", "v6_18": "6.18", "v7_3": "7.3"}

    plain, kvmgt = rail(profile, SLOT), rail(profile, *KVMGT)

    assert plain.provenance == (
        f"model, checked on {recorded[profile]}" if profile in recorded else "model, not recorded"
    )
    assert "checked" not in kvmgt.provenance


IN_THE_WAY = (
    "set_region slot=1 gpa=0x100000 size=0x100000 hva=0x7f0000100000",
    "set_region slot=2 gpa=0x400000 size=0x100000 hva=0x7f0000400000",
    "set_region slot=3 gpa=0x1f0000 size=0x280000 hva=0x7f0010000000",
)


def test_the_slots_in_the_way_are_listed_with_what_is_asked_of_each():
    view = rail("v6_12", *IN_THE_WAY)

    assert view.newcomer == "Slots 1 and 2 are in the way. Slots of one address space may not overlap."
    assert rows(view, "In the way") == [
        ["slot 1", "0x100000 to 0x1fffff", "0x1f0000 to 0x1fffff"],
        ["slot 2", "0x400000 to 0x4fffff", "0x400000 to 0x46ffff"],
    ]


def test_every_refused_call_says_what_would_work_also_where_the_list_is_hidden():
    view = rail("v6_12", *IN_THE_WAY)

    assert rows(view, "What would work")[0] == [
        "Base 0x500000, up by 3136 KiB: the nearest place above that is free",
        "returns 0",
    ]
    assert view.because.endswith("Would work: base 0x500000, up by 3136 KiB: the nearest place above that is free.")


def test_where_nothing_works_the_rail_says_why():
    # As recorded on 6.12: track_without_attach_bugs_the_vm.
    view = rail("v6_12", SLOT, "track gfn=0xd0003", "set_region slot=11 gpa=0 size=0x1000", tdp=True)

    assert section(view, "What would work").text.endswith("KVM marked it dead, and only a new VM helps.")


def test_the_rail_says_what_a_guest_access_would_meet_and_answers_for_a_page_that_is_asked_for():
    run = run_of("v6_12", SLOT, MOVE, tdp=False)
    hidden = next(at for at, cell in enumerate(run.detail(1).cells) if cell.word == "zap")
    moment = moment_at(run, Stop(1, hidden))

    def rows(page=None):
        sections = {section.title: section for section in select_rail(run, moment, page).sections}
        return [tuple(cell.text for cell in row) for row in sections["If the guest touched it now"].rows]

    assert rows() == [("0xd0000", "tries again", "tries again"), ("0xd0200", "MMIO exit", "MMIO exit")]
    assert rows(0xD0300) == [("0xd0300", "MMIO exit", "MMIO exit")]


@pytest.mark.parametrize(
    ("profile", "lines", "config", "told"),
    [
        # kernel-reference 3.6: by build until 6.8, on demand from 6.9 on; before 5.16 the arrays were always there.
        ("v5_10", [SLOT], {"tdp": True}, "asks nothing"),
        ("v6_1", [SLOT], {"tdp": True}, "because external tracking is built in"),
        ("v6_1", [SLOT], {"tdp": True, "external_write_tracking": False}, "None yet"),
        ("v6_12", [SLOT], {"tdp": False}, "because TDP is off"),
        ("v6_12", [SLOT], {"tdp": True}, "The first tracker or shadow root makes them for every slot."),
        ("v6_12", [SLOT, "attach kind=log"], {"tdp": True}, "when the first tracker registered"),
        ("v6_12", [SLOT], {"tdp": True, "external_write_tracking": False}, "No tracker can register"),
    ],
)
def test_the_rail_says_why_there_are_counts_or_why_not(profile, lines, config, told):
    run = run_of(profile, *lines, **config)

    at = end_of(run) if run.outcomes[-1].change is None else at_word(run, "allocate")
    text = section(select_rail(run, at), "Write-track counts").text

    assert told in text
    assert ("None yet" in text) is (run.end.slot(10).arch.gfn_write_track is None)
    assert PROFILES[profile].title in text


def test_a_processor_that_emulates_all_but_64_bit_code_is_named_where_an_access_is_emulated():
    """As recorded on host-6.18-pvm, where a guest without paging reads memory that is there by emulation."""
    title = "If the guest touched it now"
    pvm, amd = rail("v6_18", SLOT, processor="pvm"), rail("v6_18", SLOT, processor="amd")

    assert (rows(pvm, title), section(pvm, title).note) == (
        [["0xd0000", "emulated", "emulated"]],
        "PVM emulates all but 64-bit code",
    )
    assert (rows(amd, title), section(amd, title).note) == ([["0xd0000", "memory", "memory"]], "")
