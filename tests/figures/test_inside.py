"""The panels of the tabs KVMGT and Compare: words and dashes beside colours, a name for every control."""

import json

from hypothesis import given, settings
from runs import KVMGT, MOVE, SLOT, moments, random_runs, run_of

from explorer.figures.compare import compare_panel
from explorer.figures.dom import to_html, to_text
from explorer.figures.kvmgt import kvmgt_panel
from explorer.selectors.compare import CompareRow, CompareView, select_compare
from explorer.selectors.gpu_watch import Keeper, Place
from explorer.selectors.gpu_writes import Chain, Link
from explorer.selectors.kvmgt import EntryRow, HostPage, KvmgtView, TableChoice, select_kvmgt

RIGHT = EntryRow(0, "0x5200", "was 0x1200", "missed", 7, 0, 0, "same page, by luck", wrong=False)
WRONG = EntryRow(3, "not present", "was 0x1203", "seen", 4, None, 1, "stale: page was given up", wrong=True)
VIEW = KvmgtView(
    verdict="1 of 2 entries wrong",
    and_so="and nobody is told of the next write",
    loud=True,
    because="`enable()` returns early. [6.1]",
    writes="1 guest write to the table seen, 1 missed",
    tables=(TableChoice(0, 0x1010, "0x1010: 1 of 2 wrong", chosen=True),),
    table_now="GPU table, page 0x5010",
    table_then="shadow of page 0x1010",
    base="pages of slot 1’s memory",
    rows=(RIGHT, WRONG),
    hosts=(HostPage("+0x200", "host address 0x200000"), HostPage("scratch", "no page", scratch=True)),
    keepers=(Keeper("KVM: count of 0x5010", "0", holds=True), Keeper("KVMGT: page_track_tree", "tracked", holds=False)),
    places=(Place("slot", "slot 1", "0x5000", "0x6000", 0.004, "0x5010: count 0, the table is here now", "lost"),),
    chains=(Chain("now", (Link("guest stores to 0x5010", "done"), Link("count 0: write goes through", "broken"))),),
)


def nodes_of(node):
    if not isinstance(node, str):
        yield node
        for child in node[2:]:
            yield from nodes_of(child)


def found(node, cls):
    """Return the elements of a class."""
    return [n for n in nodes_of(node) if cls in str(n[1].get("class", "")).split()]


def test_a_wrong_entry_is_told_by_words_a_mark_and_a_line_of_its_own():
    right, wrong = found(kvmgt_panel(VIEW), "is-shadow")[-2:]

    assert "is-wrong" not in right[1]["class"]
    assert "is-wrong" in wrong[1]["class"]
    assert to_text(wrong).startswith("stale: page was given up")
    assert found(wrong, "g--lost")


def test_a_line_leads_from_each_entry_to_the_page_it_means_or_uses_and_none_from_an_entry_without():
    guest, gpu = found(kvmgt_panel(VIEW), "gpu-lines")

    assert [len(nodes) for nodes in (guest[2:], gpu[2:])] == [1, 2]
    # Two rows in a drawing of 120 units: centres at 30 and 90; two host pages, the same centres.
    assert guest[2][2][1]["d"] == "M0 30.0C75 30.0 75 30.0 141 30.0"
    assert [line[2][1]["d"] for line in gpu[2:]] == [
        "M150 30.0C75 30.0 75 30.0 9 30.0",
        "M150 90.0C75 90.0 75 90.0 9 90.0",
    ]
    assert [line[1].get("class") for line in gpu[2:]] == [None, "is-wrong"]


def test_what_lines_show_can_be_read_too():
    text = to_text(kvmgt_panel(VIEW))

    assert "0 0x5200 leads to +0x200 was 0x1200 missed" in text
    assert "same page, by luck uses +0x200 0" in text
    assert "not present leads to no page was 0x1203 seen" in text
    assert "page_track_tree  tracked  no" in text


def test_a_missed_write_leads_to_its_operation():
    first, second = found(kvmgt_panel(VIEW), "wrote")

    assert (first[1]["data-op"], second[1]["data-op"]) == (7, 4)
    assert first[1]["aria-label"] == "entry 0: the guest’s last write, operation 8, missed"


def test_one_table_needs_no_choice_and_two_have_a_button_each():
    two = VIEW._replace(tables=(*VIEW.tables, TableChoice(0, 0x1020, "0x1020: 0 of 1 wrong", chosen=False)))

    assert found(kvmgt_panel(VIEW), "test") == []
    assert [b[1]["data-gpu"] for b in found(kvmgt_panel(two), "test")] == ["0:4112", "0:4128"]
    assert [b[1]["aria-pressed"] for b in found(kvmgt_panel(two), "test")] == ["true", "false"]


def test_an_empty_tab_says_how_to_fill_it():
    text = to_text(kvmgt_panel(KvmgtView("Nothing is here.", "Press K.")))

    assert "To fill it: Press K." in text


def test_a_row_of_both_routes_says_whether_they_differ():
    rows = (
        CompareRow("The sets", "swaps", "2", "3", differs=True),
        CompareRow("Memory", "freed", "3", "3", differs=False),
    )
    panel = compare_panel(CompareView("", "slot 1", "1 of 2 facts differ", "on 6.12", refused=True, rows=rows))

    text = to_text(panel)
    assert "The sets  swaps  2  3  ≠" in text
    assert "Memory  freed  3  3  same" in text
    assert found(panel, "g--rejected")
    assert [n[1]["scope"] for n in nodes_of(panel) if n[0] == "th"] == ["col"] * 5 + ["rowgroup", "row"] * 2


@settings(max_examples=15)
@given(random_runs(8))
def test_every_panel_of_every_moment_can_be_sent_and_written(run):
    for moment in moments(run):
        panels = (kvmgt_panel(select_kvmgt(run, moment.stop)), compare_panel(select_compare(run, moment.stop.op)))
        for panel in panels:
            assert json.loads(json.dumps(panel)) == panel
            assert "None" not in to_html(panel)


def test_a_table_without_entries_is_said_to_be_empty():
    run = run_of("v6_1", SLOT, *KVMGT[2:], MOVE)

    assert "Neither the guest’s table nor the shadow has an entry" in to_text(
        kvmgt_panel(select_kvmgt(run, run.last_stop))
    )
