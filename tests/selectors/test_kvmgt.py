"""KVMGT from inside. Judge: kernel-reference 6.4 to 6.6, and the engine's own loads, asked entry by entry."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from runs import ALL_PROFILES, REFUSES_A_MOVE, moments, random_runs, run_of

from explorer.engine.apply import apply
from explorer.engine.commands import GuestRead, parse_command
from explorer.engine.events import GuestReadServed
from explorer.engine.lookup import KVM_HVA_ERR_BAD, gfn_to_hva
from explorer.history import Run, Stop
from explorer.selectors.kvmgt import MOST_ROWS, select_kvmgt

H = 0x7F00_0000_0000
SLOT = f"set_region slot=1 gpa=0x1000000 size=0x1000000 hva={H:#x}"
MOVE = f"set_region slot=1 gpa=0x5000000 size=0x1000000 hva={H:#x}"
DELETE = "set_region slot=1 gpa=0 size=0"
TABLE = 0x1010
SETUP = (SLOT, "guest_write gpa=0x1010018 value=0x1800001", "attach kind=kvmgt", "track gfn=0x1010")
"""The setup of 6.6, with entry 3 for the page 0x1800."""
ALLOWED = ("v6_1", "v6_6_nocheck")
"""The two columns of 6.6."""
BEYOND = f"set_region slot=1 gpa={1 << 52:#x} size=0x1000000 hva={H:#x}"


def view(profile, *lines, table=None, **config):
    run = run_of(profile, *SETUP, *lines, **config)
    return select_kvmgt(run, run.last_stop, table)


def shown(found):
    return {row.number: (row.guest, row.shadow, row.wrong) for row in found.rows}


def says(found):
    return {keeper.keeper: (keeper.says, keeper.holds) for keeper in found.keepers}


def ends(found):
    return [chain.links[-1].text for chain in found.chains]


# -- 6.3, 6.4: while KVMGT is told -----------------------------------------------------------------


@pytest.mark.parametrize("tdp", [False, True])
@pytest.mark.parametrize("profile", ALL_PROFILES)
def test_what_the_guest_writes_is_what_the_gpu_uses(profile, tdp):
    found = view(profile, "guest_write gpa=0x1010020 value=0x1900001", tdp=tdp)

    assert shown(found) == {3: ("0x1800", "same page", False), 4: ("0x1900", "same page", False)}
    assert [host.text for host in found.hosts] == ["+0x800", "+0x900"]
    assert found.verdict == "The GPU uses what the guest means"
    assert not found.loud
    assert found.writes == "1 guest write to the table seen, 0 missed"
    assert says(found)["KVMGT: page_track_tree"] == ("tracked", True)
    assert ends(found) == ["shadow entry updated"] * 2


def test_half_an_entry_waits_for_work_and_is_not_wrong():
    found = view("v6_12", "guest_write gpa=0x1010018 bytes=4 value=0x1900001")

    assert shown(found) == {3: ("0x1900", "half written: waits for work", False)}


# -- 6.6: after a MOVE that is accepted ------------------------------------------------------------


@pytest.mark.parametrize("profile", ALLOWED)
def test_right_after_the_move_the_guest_s_entries_name_pages_that_are_gone(profile):
    found = view(profile, MOVE)

    assert shown(found) == {3: ("0x1800", "stale: no page there", True)}
    assert (found.table_now, found.table_then) == ("in page 0x5010", "shadow of page 0x1010")
    assert [place.mark for place in found.places] == [
        "0x1010: no slot, tree says tracked",
        "0x5010: count 0, the table is here now",
    ]


@pytest.mark.parametrize("profile", ALLOWED)
def test_no_write_to_the_table_at_its_new_place_is_seen(profile):
    found = view(
        profile,
        MOVE,
        "guest_write gpa=0x5010018 value=0x5800001",
        "guest_write gpa=0x5010020 value=0x5900001",
    )

    assert shown(found) == {3: ("0x5800", "same page, by luck", False), 4: ("0x5900", "missing: scratch page", True)}
    assert found.verdict == "1 of 2 entries wrong"
    assert found.writes == "0 guest writes to the table seen, 2 missed"
    assert [(row.write, row.write_op) for row in found.rows] == [("missed", 5), ("missed", 6)]
    then, now = found.chains
    assert then.seen
    assert [(link.text, link.state) for link in now.links][:2] == [
        ("guest stores to 0x5010", "done"),
        ("count 0: write goes through", "broken"),
    ]


@pytest.mark.parametrize("profile", ALLOWED)
def test_an_entry_for_another_page_and_one_that_was_taken_out_are_stale(profile):
    other = view(profile, MOVE, "guest_write gpa=0x5010018 value=0x5900001")
    out = view(profile, MOVE, "guest_write gpa=0x5010018 value=0")

    assert shown(other) == {3: ("0x5900", "stale: wrong page", True)}
    assert [host.text for host in other.hosts] == ["+0x800", "+0x900"]
    assert (other.rows[0].means, other.rows[0].uses) == (1, 0)
    assert shown(out) == {3: ("not present", "stale: page was given up", True)}


@pytest.mark.parametrize(
    ("profile", "table"), [("v6_1", ("without 0x1010", True)), ("v6_6_nocheck", ("has 0x1010", False))]
)
def test_the_rows_of_the_damage_table_about_counts_and_tables(profile, table):
    assert says(view(profile, MOVE)) == {
        "KVM: count of 0x1010": ("no slot", True),
        "KVM: count of 0x5010": ("0", True),
        "KVMGT: protect table": table,
        "KVMGT: page_track_tree": ("tracked", False),
        "KVMGT: shadow entries": ("1 page in use", False),
    }


def test_the_reason_names_the_function_that_this_kernel_has():
    assert "`kvmgt_page_track_flush_slot()` emptied" in view("v6_1", MOVE).because
    assert "`kvmgt_page_track_remove_region()` emptied" in view("v6_12", DELETE, SLOT).because
    assert "its protect table still has 0x1010" in view("v6_6_nocheck", MOVE).because
    assert view("v6_1", MOVE).because.endswith("[6.1]")


@pytest.mark.parametrize("profile", REFUSES_A_MOVE)
def test_after_a_move_that_is_refused_kvmgt_still_sees_every_write(profile):
    found = view(profile, MOVE, "guest_write gpa=0x1010018 value=0x1900001")

    assert shown(found) == {3: ("0x1900", "same page", False)}
    assert found.chains[-1].seen


# -- 6.5: sharp edges ------------------------------------------------------------------------------


def test_edge_1_a_move_that_fails_late_leaves_the_table_unwatched_where_it_was():
    found = view("v6_1", BEYOND, "guest_write gpa=0x1010018 value=0x1900001")

    assert shown(found) == {3: ("0x1900", "stale: wrong page", True)}
    assert says(found)["KVM: count of 0x1010"] == ("0", True)
    assert says(found)["KVMGT: page_track_tree"] == ("tracked", False)


@pytest.mark.parametrize("profile", ALL_PROFILES)
def test_edge_4_after_delete_and_create_the_next_write_is_missed_though_nothing_is_wrong_yet(profile):
    found = view(profile, DELETE, SLOT, "track gfn=0x1010")

    assert shown(found) == {3: ("0x1800", "same page", False)}
    assert found.and_so == "but the next write to the table will be missed"
    assert found.loud


def test_without_its_slot_the_guest_has_no_table_and_the_gpu_goes_on():
    found = view("v6_12", DELETE)

    assert shown(found) == {3: ("not present", "stale: the table is gone", True)}
    assert found.table_now == "its table is in no slot now"
    assert [chain.when for chain in found.chains] == ["then"]


@pytest.mark.parametrize("written", [(), ("guest_write gpa=0x1010018 value=0x1800001",)])
@pytest.mark.parametrize("profile", ALL_PROFILES)
def test_no_table_is_said_to_be_watched_once_its_slot_is_gone(profile, written):
    run = run_of(profile, SLOT, "attach kind=kvmgt", "track gfn=0x1010", *written, DELETE)
    found = select_kvmgt(run, run.last_stop)

    # kernel-reference 6.5.4: the flag stays, the page is in no slot.
    assert says(found)["KVM: count of 0x1010"] == ("no slot", True)
    assert says(found)["KVMGT: page_track_tree"] == ("tracked", False)
    assert (found.verdict, found.and_so) == (
        ("1 of 1 entry wrong", "and its table is in no slot: KVM watches no page of it")
        if written
        else ("The guest’s table is in no slot", "so KVM watches no page of it")
    )
    assert found.loud


def test_while_a_call_holds_a_watched_table_up_its_next_write_is_neither_seen_nor_missed():
    run = run_of("v6_12", SLOT, "attach kind=kvmgt", "track gfn=0x1010", MOVE)
    views = {cell.word: select_kvmgt(run, Stop(3, at)) for at, cell in enumerate(run.detail(3).cells)}

    assert (views["zap"].and_so, views["zap"].loud) == ("and a write to the table waits for the call", False)
    assert views["roll back"].and_so == "and sees every write to its table"


def test_a_table_of_which_the_run_does_not_say_where_it_was_made_is_where_it_was_shadowed():
    watched = run_of("v6_12", *SETUP).end
    run = Run(watched, (parse_command(DELETE),))

    assert select_kvmgt(run, Stop(-1, 0)).and_so == "and sees every write to its table"
    assert select_kvmgt(run, run.last_stop).loud


def test_inside_the_move_the_pages_of_the_invalid_slot_are_still_there():
    run = run_of("v6_1", *SETUP, MOVE)
    words = {
        (place.style, select_kvmgt(run, Stop(4, cell)).verdict)
        for cell in range(len(run.detail(4).cells))
        for place in select_kvmgt(run, Stop(4, cell)).places[:1]
    }

    assert words == {
        ("slot", "The GPU uses what the guest means"),
        ("invalid", "The GPU uses what the guest means"),
        ("hole", "1 of 1 entry wrong"),
    }


# -- many tables, many entries ---------------------------------------------------------------------


def test_the_table_with_most_wrong_entries_is_shown_unless_another_is_chosen():
    lines = ("track gfn=0x1020", "guest_write gpa=0x1020000 value=0x1801001", MOVE)

    assert [t.text for t in view("v6_1", *lines).tables] == ["0x1010: 1 of 1 wrong", "0x1020: 1 of 1 wrong"]
    assert view("v6_1", *lines).table_then.endswith("0x1010")
    assert view("v6_1", *lines, table=(0, 0x1020)).table_then.endswith("0x1020")
    assert view("v6_1", *lines, table=(0, 0x9999)).table_then.endswith("0x1010")


def test_of_many_entries_the_wrong_ones_are_drawn_first_in_their_order():
    writes = [f"guest_write gpa={0x1010100 + 8 * n:#x} value={0x1A00001 + (n << 12):#x}" for n in range(20)]
    moved = [f"guest_write gpa={0x5010100 + 8 * n:#x} value={0x5A00001 + (n << 12):#x}" for n in range(20) if n != 13]

    found = view("v6_1", *writes, MOVE, *moved, "guest_write gpa=0x5010018 value=0x5800001")

    assert found.verdict == "1 of 21 entries wrong"
    assert [row.number for row in found.rows] == [3, 32, 33, 34, 35, 45]
    assert found.rows[-1].wrong
    assert found.hidden == f"{MOST_ROWS} of 21 shown"


# -- nothing to show -------------------------------------------------------------------------------


def test_an_empty_tab_says_what_it_would_show_and_which_key_fills_it():
    nobody = run_of("v6_12", SLOT)
    logger = run_of("v6_12", SLOT, "attach kind=log", "track gfn=0x1010")
    attached = run_of("v6_12", SLOT, "attach kind=kvmgt")
    unbuilt = run_of("v6_12", SLOT, external_write_tracking=False)

    for run in (nobody, logger):
        assert "No KVMGT is attached" in select_kvmgt(run, run.last_stop).notice
        assert "Press K" in select_kvmgt(run, run.last_stop).way
    assert "shadows no page table" in select_kvmgt(attached, attached.last_stop).notice
    assert "built without external write tracking" in select_kvmgt(unbuilt, unbuilt.last_stop).notice


# -- for every run ---------------------------------------------------------------------------------

WRITE = st.builds(
    "guest_write gpa={:#x} value={:#x}".format,
    st.builds(lambda page, entry: (page << 12) + 8 * entry, st.sampled_from([0x1010, 0x5010]), st.integers(0, 3)),
    st.sampled_from([0, 0x1800001, 0x1801001, 0x5800001, 0x5801001, 0x9000001]),
)
STEP = st.one_of(WRITE, WRITE, WRITE, st.sampled_from([MOVE, SLOT, DELETE, "track gfn=0x1010", "untrack gfn=0x1010"]))


@settings(max_examples=60)
@given(st.sampled_from(ALL_PROFILES), st.lists(STEP, max_size=12))
def test_an_entry_is_wrong_exactly_if_the_gpu_uses_another_page_than_the_guest_s_entry_leads_to(profile, lines):
    run = run_of(profile, *SETUP, *lines)
    found = select_kvmgt(run, run.last_stop)
    vgpu = run.end.trackers[0]
    if TABLE not in vgpu.spts:
        assert "shadows no page table" in found.notice
        return
    entries = vgpu.spts[TABLE].entries
    base = next((slot.base_gfn for slot in run.end.slots()), None)

    def leads_to(number):
        if base is None:
            return None
        step = apply(run.end, GuestRead(gpa=(base + 0x10 << 12) + 8 * number))
        (value,) = [e.value for e in step.events if isinstance(e, GuestReadServed)]
        hva = gfn_to_hva(run.end.active(), value >> 12) if value & 1 else KVM_HVA_ERR_BAD
        return None if hva == KVM_HVA_ERR_BAD else hva

    wrong = {n for n in range(4) if leads_to(n) != (entries[n].hva if n in entries else None)}
    assert {row.number for row in found.rows if row.wrong} == wrong
    for row in found.rows:
        means = leads_to(row.number)
        assert found.hosts[row.uses].scratch == (row.number not in entries)
        assert (row.means is None) == (means is None)


@settings(max_examples=20)
@given(random_runs(10))
def test_every_moment_of_every_run_has_a_view(run):
    for moment in moments(run):
        found = select_kvmgt(run, moment.stop)
        assert bool(found.notice) != bool(found.verdict)
        if "sees every write" in found.and_so or "writes to the table are seen" in found.and_so:
            assert all(holds for keeper, (_, holds) in says(found).items() if keeper != "KVMGT: shadow entries")


def test_a_command_that_is_not_the_guest_s_is_no_write():
    run = run_of("v6_1", *SETUP).then(parse_command(f"host_touch hva={H + 0x10000:#x} size=4096 value=1"))

    assert select_kvmgt(run, run.last_stop).writes == "no guest write to the table since it was shadowed"
