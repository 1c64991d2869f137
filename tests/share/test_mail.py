"""The letter: 72 columns, outcomes with the check that fired, and what the model leaves out."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from runs import MOVE, SLOT, random_runs, run_of

from explorer.history import Stop
from explorer.share import Told, export

COLUMNS = 72


def letter(run, title="", notes=()):
    return export(Told(run, title, notes), "markdown")


@settings(max_examples=40, deadline=None)
@given(random_runs(), st.text(), st.lists(st.text(), max_size=5))
def test_no_line_is_longer_than_72_columns(run, title, notes):
    text = letter(run, title, tuple(notes))

    assert max(map(len, text.splitlines())) <= COLUMNS
    assert text.isascii()


def test_a_refusal_names_check_function_and_operands():
    text = letter(run_of("v6_6", SLOT, "attach user=0", MOVE))

    said = " ".join(text.split())
    assert "= -EINVAL: kvm_arch_prepare_memory_region(), external_user: 1 attached" in said
    assert "profile v6_6 (Linux 6.6), shadow paging, amd, 2 address spaces" in said
    assert "3. A call that is refused:" in said


def test_notes_stand_before_their_operations():
    text = letter(run_of("v6_18", SLOT, MOVE), "A slot moves", ("It is made.", "It goes."))

    assert text.startswith("## A slot moves\n")
    assert text.index("1. It is made.") < text.index("= 0 (CREATE)") < text.index("2. It goes.")


def test_what_a_reader_wrote_stands_in_order_behind_its_operation_and_is_no_markup():
    remarks = (
        (Stop(-1, 0), "before all"),
        (Stop(0, 0), "*loud* <b>"),
        (Stop(1, 3), "here readers see INVALID"),
        (Stop(1, 9), "over"),
    )
    text = export(Told(run_of("v6_18", SLOT, MOVE), "", ("It is made.", "It goes."), remarks), "markdown")

    told = ["Note at the start: before all", "= 0 (CREATE)", r"Note at 1.1: \*loud\* \<b\>", "= 0 (MOVE)"]
    told += ["Note at 2.4: here readers see INVALID", "Note at 2.10: over", "Not modelled"]
    assert sorted(told, key=text.index) == told


def test_a_dirty_log_shows_its_pages():
    text = letter(run_of("v6_18", "enable_cap cap=168 arg=3", SLOT + " flags=log", "get_dirty_log slot=10"))

    assert "= 0, 32 dirty pages: 0-31" in text


def test_what_is_not_modelled_is_what_the_modules_that_the_run_went_through_say():
    plain = letter(run_of("v6_18", SLOT))
    tracked = letter(run_of("v6_18", SLOT, "attach user=0", "get_dirty_log slot=10"))

    assert "- memslots: " in plain
    assert "- trackers: " not in plain
    assert "- trackers: the reference to the VM" in tracked
    assert "- dirty_log: the dirty ring" in tracked


def test_text_from_outside_is_no_markup():
    text = letter(run_of("v6_18", SLOT), "<img src=x> [a](b) `c`", ("*d* _e_ # f",))

    assert r"\<img src=x\> \[a\](b) \`c\`" in text
    assert r"1. \*d\* \_e\_ # f" in text
