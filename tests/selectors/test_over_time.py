"""Slots over time: where each bar lies, what is marked, and that nothing is left out in silence."""

import pytest
from hypothesis import given, settings
from logs import TRACES
from runs import MOVE, SLOT, random_runs, run_of

from explorer.app.imports import read_log
from explorer.engine.commands import SetMemoryRegion
from explorer.engine.uapi import KvmMrChange
from explorer.history import Run, Stop
from explorer.history.lives import Life
from explorer.selectors.over_time import WHOLE_UP_TO, moved_to, select_over_time
from explorer.selectors.time_rows import rows_of
from explorer.selectors.time_words import Naming, Recorded, now_words
from explorer.trace.tree import Backing

LOW = "set_region slot=0 gpa=0 size=0x1000 hva=0x7f0000000000"
BAR = "set_region slot=3 gpa=0xe0000000 size=0x1000000 hva=0x7f1000000000 flags=log"
BAR_GONE = "set_region slot=3 gpa=0 size=0"
BAR_BACK = "set_region slot=5 gpa=0xd0000000 size=0x1000000 hva=0x7f1000000000 flags=ro"
OVER = "set_region slot=7 gpa=0xd0800000 size=0x1000000 hva=0x7f2000000000"
WANDERS = (LOW, BAR, BAR_GONE, BAR_BACK, OVER)
ROOM = (500.0, 200.0)


def wandering(at=4):
    return select_over_time(run_of("v6_12", *WANDERS), Stop(at, 0), room=ROOM)


def log_of(name):
    data = (TRACES / name / "strace.log.gz").read_bytes()
    return read_log(data, name=name, limit_bytes=1 << 26)


def life(base, npages):
    return Life(0, 0, base, npages, 0, 0, 0, -1)


def test_a_bar_reaches_from_the_operation_that_made_it_to_the_one_that_took_it_away():
    view = wandering()

    # Five operations on 500 pixels: a column of 100 each.
    assert [(bar.style, bar.x0, bar.x1) for bar in view.bars] == [
        ("slot", 0, 500),
        ("dirty", 100, 200),
        ("read_only", 300, 500),
    ]
    low, bar, back = view.bars
    assert low.bottom == 200, "the lowest address is at the bottom"
    assert bar.bottom < back.top, "the higher address is above"
    assert bar.hover.splitlines()[0].split("<br>")[:3] == [
        "<b>slot 3</b>",
        "gpa 0xe0000000 to 0xe0ffffff",
        "16 MiB, 4,096 pages",
    ]
    assert back.hover.endswith("its host memory was at 0xe0000000 until 3")


def test_the_heights_grow_with_the_logarithm_of_the_size_and_holes_are_collapsed():
    one, many = life(0, 1), life(0x10_0000, 1 << 20)

    low, hole, high = rows_of([one, many], [], 100.0).rows

    # 4.5 + 1.15 log2(pages + 1) and 9 for the hole, all in one scale.
    natural = [4.5 + 1.15, 9.0, 4.5 + 1.15 * 20]
    scale = (low.bottom - low.top) / natural[0]
    assert (hole.kind, high.kind) == ("gap", "slots")
    assert [row.bottom - row.top for row in (hole, high)] == pytest.approx([n * scale for n in natural[1:]], rel=1e-4)


def test_neighbours_that_stay_as_they_are_are_packed_only_where_there_is_no_room():
    still = [life(0x100 + 0x20 * n, 0x10) for n in range(300)]
    changing = [life(0, 4)]

    roomy, tight = rows_of(changing, still, 9000.0), rows_of(changing, still, 300.0)

    assert {row.kind for row in roomy.rows} == {"slots", "gap"}
    assert [(row.kind, row.slots) for row in tight.rows] == [("slots", 0), ("gap", 0), ("packed", 300)]
    assert tight.rows[-1].end_gfn == still[-1].end_gfn


def test_host_memory_that_comes_back_elsewhere_is_joined_by_a_line_and_a_move_by_another():
    (riser,) = wandering().risers
    assert (riser.kind, riser.xs) == ("recreated", (200, 300, 300))

    moved = select_over_time(run_of("v6_12", SLOT, MOVE), Stop(1, 0), room=ROOM)
    (line,), (arrow,) = moved.risers, moved.marks
    assert (line.kind, line.xs[-1]) == ("moved", 250)
    assert (arrow.kind, arrow.x, arrow.y, arrow.ops) == ("move", 250, line.ys[-1], (1,))


def test_a_refused_call_is_marked_at_the_place_it_asked_for():
    (mark,) = wandering().marks

    back = wandering().bars[2]
    assert (mark.kind, mark.x, mark.ops) == ("rejected", 450, (4,))
    assert mark.y == pytest.approx((back.top + back.bottom) / 2, abs=1), "in the middle of slot 5"
    assert "5  slot 7 refused, −EEXIST: 16 MiB at 0xd0800000" in mark.hover


def test_a_call_refused_beyond_all_slots_has_a_hole_of_its_own():
    far = "set_region slot=1 gpa=0x7ffffffffffff000 size=0x1000 hva=0x7f2000000000"
    view = select_over_time(run_of("v6_12", LOW, far), Stop(1, 0), room=ROOM)

    (hole,), (mark,) = view.gaps, view.marks
    assert hole.size == "beyond"
    assert hole.top <= mark.y <= hole.bottom


def test_the_cursor_stands_in_the_middle_of_its_operation_or_at_the_edge_before_the_first():
    assert [wandering(at).at for at in (-1, 0, 4)] == [0, 50, 450]
    assert wandering(-1).now == "Before the first operation."
    assert wandering(2).now == "3  slot 3 deleted"


def test_the_counts_keep_their_zeros_and_say_where_results_are_from():
    run = run_of("v6_12", *WANDERS)

    bare = {count.word: (count.number, count.note) for count in select_over_time(run, Stop(4, 0)).counts}
    assert bare == {
        "created": ("3", "1 recreated elsewhere"),
        "deleted": ("1", ""),
        "moved": ("0", "no slot is moved"),
        "flags": ("0", ""),
        "no effect": ("0", ""),
        "refused": ("1", ""),
        "live at the end": ("2", ""),
        "results that agree": ("–", "nothing was recorded"),
    }
    log = Recorded(compared=5, differ=2, vms=3, kernel="6.18")
    told = {count.word: count for count in select_over_time(run, Stop(4, 0), log=log).counts}
    assert told["moved"].note == "this VMM never moves"
    assert (told["results that agree"].number, told["results that agree"].note) == (
        "3 of 5",
        "replayed as on 6.18, 3 VMs",
    )
    assert told["results that agree"].loud


def test_an_owner_is_named_where_somebody_named_it():
    run = run_of("v6_12", *WANDERS)
    by_memory = Naming((), (Backing(0x7F1000000000, 0x7F1000001000, "vga.vram"),))

    view = select_over_time(run, Stop(4, 0), naming=by_memory)

    assert [bar.label for bar in view.bars] == ["slot 0, 4 KiB", "vga.vram, 16 MiB", "vga.vram, 16 MiB"]
    named = select_over_time(run, Stop(4, 0), naming=Naming(((3, "a <b> name"),)))
    assert "a <\N{WORD JOINER}b> name" in named.bars[1].hover
    assert [row.slot for row in named.rows] == ["slot 0", "slot 3, a <b> name", "slot 5"]


def test_the_lives_are_told_in_words_too():
    assert [tuple(row) for row in wandering().rows] == [
        ("slot 0", "0", "4 KiB", "none", "created by operation 1", "lives at the end"),
        ("slot 3", "0xe0000000", "16 MiB", "dirty-logged", "created by operation 2", "deleted by 3"),
        ("slot 5", "0xd0000000", "16 MiB", "read-only", "created by operation 4", "lives at the end"),
    ]


def test_address_spaces_are_shown_one_at_a_time_and_what_is_in_the_other_is_counted():
    smm = "set_region slot=0 as=1 gpa=0xa0000 size=0x20000 hva=0x7f3000000000"
    run = run_of("v6_12", *WANDERS, smm, f"{smm} flags=log", smm.replace("slot=0", "slot=1"), smm=True)
    memory, other = (select_over_time(run, Stop(7, 0), as_id=n) for n in (0, 1))

    assert memory.spaces == ((0, "0: memory", True), (1, "1: SMM", False))
    assert [bar.style for bar in other.bars] == ["slot", "dirty"]
    assert other.outside == "1 refused in another address space."
    assert select_over_time(run, Stop(7, 0), as_id=9).spaces[0] == (0, "0: memory", True)


def test_where_there_is_nothing_to_show_it_says_what_would_be_here():
    assert "No operation yet" in select_over_time(run_of("v6_12"), Stop(-1, 0)).notice
    assert "makes a slot" in select_over_time(run_of("v6_12", "attach kind=log"), Stop(0, 0)).notice


# -- long runs -------------------------------------------------------------------------------------


def long_run(n=2000):
    """A slot made and taken away again and again, moved now and then, and refused every 50th time."""
    calls = []
    for at in range(n):
        here = SetMemoryRegion(slot=0, guest_phys_addr=(at % 40) << 20, memory_size=1 << 20, userspace_addr=1 << 30)
        over = SetMemoryRegion(slot=1, guest_phys_addr=(at % 40) << 20, memory_size=1 << 20, userspace_addr=1 << 30)
        calls.append(over if at % 50 == 49 else here)
    return Run.new("v6_12", None, calls)


def test_a_long_run_is_shown_around_the_cursor_and_the_rest_is_counted():
    run = long_run()
    view = select_over_time(run, Stop(1000, 0))

    assert view.where == f"operations {view.first + 1:,} to {view.last:,} of 2,000"
    assert view.first <= 1000 < view.last
    refused, moved = len(run.lives.refused), len(run.lives.of(KvmMrChange.MOVE))
    assert (refused > 10, moved > 1000) == (True, True)
    told = {kind: sum(len(mark.ops) for mark in view.marks if mark.kind == kind) for kind in ("rejected", "move")}
    assert f"{refused - told['rejected']:,} refused outside the window" in view.outside
    assert f"{moved - told['move']:,} moved outside the window" in view.outside
    assert view.line is not None
    assert len(view.line.refused) == refused, "each has a place on the line of the whole run"


def test_a_step_inside_the_window_changes_the_cursor_alone_and_the_window_follows():
    run = long_run()
    for at in range(880, 1120):
        view = select_over_time(run, Stop(at, 0))
        following = moved_to(view, run, Stop(at + 1, 0))
        fresh = select_over_time(run, Stop(at + 1, 0))
        assert following is None or following._replace(rows=(), rows_note="") == fresh._replace(rows=(), rows_note="")
        assert (following is None) == (fresh.tried != view.tried)


@pytest.mark.parametrize("name", ["q72-pc-bars", "own-fails", "own-moves", "own-many", "q100-q35-dimm"])
def test_a_recorded_log_is_drawn_whole_or_says_what_it_leaves_out(name):
    log, run = log_of(name)
    recorded = Recorded(log.compared, log.disagreements, log.vms, log.profile.title)

    for at in (0, len(run) // 2, len(run) - 1):
        view = select_over_time(run, Stop(at, 0), log=recorded)
        counts = {count.word: count.number for count in view.counts}
        assert counts["created"] == f"{log.created:,}", "the import counted the same"
        assert (counts["deleted"], counts["moved"]) == (f"{log.deleted:,}", f"{log.moved:,}")
        assert (counts["flags"], counts["refused"]) == (f"{log.flags_only:,}", f"{log.refused:,}")
        assert counts["live at the end"] == f"{len(run.end.slots()):,}"
        assert counts["results that agree"] == f"{log.operations:,} of {log.operations:,}"
        assert len(view.bars) + len(view.risers) + len(view.marks) <= 1500
        marked = sum(len(mark.ops) for mark in view.marks)
        assert marked == sum(
            view.first <= op < view.last for op in (*run.lives.refused, *run.lives.of(KvmMrChange.MOVE))
        )
        assert (view.line is None) == (len(run) <= WHOLE_UP_TO)
        assert all(0 <= bar.x0 < bar.x1 <= view.width + 2 for bar in view.bars)


def test_a_frame_buffer_that_wanders_is_recreated_and_never_moved():
    log, run = log_of("q72-pc-bars")
    view = select_over_time(run, Stop(51, 0), log=Recorded(log.compared, 0, 1, "6.18"))

    assert [(c.number, c.note) for c in view.counts if c.word == "moved"] == [("0", "this VMM never moves")]
    assert view.now == "52  slot 3 deleted"
    # Each line joins two bars of the same host memory at different places: read off the run, not the picture.
    mine = [life for life in run.lives.lives if life.before >= 0]
    assert len(view.risers) == len(mine) > 20
    for each in mine:
        old = run.lives.lives[each.before]
        assert (old.userspace_addr, old.base_gfn != each.base_gfn) == (each.userspace_addr, True)


@settings(max_examples=60)
@given(random_runs(25))
def test_any_run_can_be_drawn_at_any_place(run):
    for op in range(-1, len(run)):
        for as_id in range(len(run.start.memslots)):
            view = select_over_time(run, Stop(op, 0), as_id=as_id, room=(400, 240))
            if view.notice:
                continue
            tops = [bar.top for bar in view.bars] + [gap.top for gap in view.gaps]
            assert all(-0.01 <= top <= 240 for top in tops)
            assert all(bar.label_x - len(bar.label) * 3 >= bar.x0 for bar in view.bars if bar.label)
            words = now_words(run, op)
            assert words == view.now
