"""The Kernels tab in the page: nothing while it is closed, pieces while it is open, and cells that lead somewhere."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from runs import KVMGT, MOVE, SLOT, random_runs, run_of

from explorer.app import kernels
from explorer.app import state as actions
from explorer.app.dashboard import App
from explorer.app.kernels import KernelsTab, flip_test, pick_kernel, show_cell, show_result
from explorer.app.state import AppState, View, initial_state, load
from explorer.engine.types import Errno, ExplorerError
from explorer.figures.dom import to_text
from explorer.history.machine import machine_of
from explorer.selectors.configurations import COLUMNS, ROWS
from explorer.selectors.matrix import select_matrix

if TYPE_CHECKING:
    from explorer.history import Run

HELLO = {"t": "hello", "link": {}, "width": 1920, "map": 1160, "theme": "light"}


class Page:
    """What a page would have received."""

    def __init__(self, app: App, monkeypatch: pytest.MonkeyPatch) -> None:
        self.app = app
        self.heard: list[dict[str, Any]] = []
        monkeypatch.setattr(app.stage, "send", lambda content, buffers=None: self.heard.append(content))  # noqa: ARG005

    def says(self, **message: Any) -> list[dict[str, Any]]:
        """Say something to Python and return the answers."""
        self.heard.clear()
        self.app._on_message(message, [])
        return list(self.heard)


@pytest.fixture
def page(monkeypatch: pytest.MonkeyPatch) -> Page:
    page = Page(App(), monkeypatch)
    page.says(**HELLO)
    return page


@pytest.fixture
def inverted() -> AppState:
    return load("inverted-check", view=View())


def state_of(run: Run) -> AppState:
    base = initial_state()
    return actions.with_ghost(
        actions.replace(
            base,
            machine=machine_of(run.start),
            run=run,
            stop=run.last_stop,
            question=False,
            compose=actions.replace(base.compose, shown=False),
        )
    )


def kinds(heard: list[dict[str, Any]]) -> list[str]:
    return [message["t"] for message in heard]


def texts(message: dict[str, Any]) -> dict[str, str]:
    return {name: to_text(tree) for name, tree in message["panels"].items()}


# -- only while it is open -------------------------------------------------------------------------


def test_nothing_is_replayed_while_the_tab_is_closed(page: Page) -> None:
    page.says(t="answer", n=3)
    page.says(t="key", key="v")

    assert "kernels" not in kinds(page.heard)
    assert page.app._kernels._state is None


def test_opening_the_tab_puts_the_question_aside_and_shows_the_composed_move(page: Page) -> None:
    heard = page.says(t="tab", name="kernels")

    assert not page.app.state.question
    assert kinds(heard)[0] == "plan", "the pictures of the question are drawn anew, first"
    # On a slow machine what is computed so far is sent first; the last word on each table counts.
    told = {name: text for message in heard if message["t"] == "kernels" for name, text in texts(message).items()}
    assert told["matrix"].startswith("One MOVE, every configuration slot 10, composed, not applied yet")
    assert "As posted, 2 of 3 answers are not the intended ones" in told["matrix"]
    assert "First difference: operation 13" in told["eras"]


def test_a_step_sends_only_the_table_that_changed(page: Page) -> None:
    page.says(t="tab", name="kernels")

    heard = page.says(t="pick", key="v6_1")

    assert kinds(heard)[0] == "around", "no picture of the run is drawn again"
    assert {name for m in heard if m["t"] == "kernels" for name in m["panels"]} == {"eras"}
    page.says(t="tab", name="guards")
    assert kinds(page.says(t="at", op=3, cell=0)) == ["around"]


def test_a_failure_in_the_tab_is_a_sentence(page: Page, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_tab: KernelsTab) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(KernelsTab, "work", broken)
    monkeypatch.setattr("explorer.app.dashboard._log.exception", lambda *_: None)

    heard = page.says(t="tab", name="kernels")

    assert heard[-1]["notice"]["text"].startswith("The explorer itself failed here")


def test_a_long_run_is_replayed_in_pieces_the_window_first() -> None:
    run = run_of("v6_12", *(SLOT, MOVE) * 400)
    tab = KernelsTab()
    tab.use(actions.step_to(state_of(run), run.end_of(30)))

    pieces = [tab.work()]
    while not pieces[-1][0]:
        pieces.append(tab.work())
    text = texts(tab.message(done=False))["eras"]
    assert "of 800 operations replayed so far" in text
    assert "…" not in text, "what the window shows is there"

    while not pieces[-1][1]:
        pieces.append(tab.work())
    assert len(pieces) > 2, "however fast the machine is, it is not done at once"
    assert "replayed so far" not in texts(tab.message(done=True))["eras"]


# -- where cells lead ------------------------------------------------------------------------------


def test_the_test_is_turned_round_in_one_step_and_says_what_differs(inverted: AppState) -> None:
    merged = flip_test(actions.apply_composed(inverted))

    assert merged.machine.profile == "v6_6"
    assert merged.run.outcomes[-1].errno is None
    assert merged.notice is not None
    assert merged.notice.text == (
        "On 6.6, 1 of 13 operations differs from 6.6 as posted: operation 13, MOVE of slot 10, "
        "\N{MINUS SIGN}EINVAL there, 0 here."
    )
    assert flip_test(merged).machine.profile == "v6_6_posted"
    assert flip_test(merged, "merged") is merged
    assert flip_test(initial_state()).machine.profile == "v6_6_posted", "from another kernel, as posted first"
    with pytest.raises(ExplorerError, match="there are posted, merged"):
        flip_test(merged, "upside down")


def test_a_cell_of_another_kernel_shows_the_same_call_there() -> None:
    run = run_of("v6_12", *KVMGT, MOVE, "guest_write gpa=0xd0003000")
    before = actions.step_to(state_of(run), run.end_of(5))

    after = show_cell(before, "v6_1", built_in=True, attached=True)

    assert after.machine.profile == "v6_1"
    assert after.run.commands == run.commands, "nothing is set aside"
    assert after.stop == after.run.end_of(5)
    assert after.notice is not None
    assert after.notice.text == (
        "On 6.1, 1 of 7 operations differs from 6.12: operation 6, MOVE of slot 10, \N{MINUS SIGN}EINVAL there, 0 here."
    )


def test_a_cell_with_a_tracker_where_the_run_has_none_is_a_branch_and_nothing_is_lost() -> None:
    run = run_of("v6_12", SLOT, MOVE, "guest_write gpa=0xd0003000")
    before = actions.step_to(state_of(run), run.end_of(1))

    after = show_cell(before, "v6_6", built_in=True, attached=True)

    assert after.run.outcomes[-1].errno is Errno.EINVAL
    assert after.tracker == "kvmgt"
    assert after.notice is not None
    assert "KVMGT attaches before the call. 1 later operation set aside." in after.notice.text
    assert actions.restore_earlier(after).run == run


def test_a_cell_of_the_composed_call_applies_it(inverted: AppState) -> None:
    after = show_cell(inverted, "v6_6_posted", built_in=False, attached=False)

    assert after.run.commands == (*inverted.run.commands, inverted.ghost.command)  # type: ignore[union-attr]
    assert after.run.outcomes[-1].errno is None
    assert not after.machine.config.external_write_tracking


def test_a_result_of_the_ribbon_is_shown_on_its_kernel() -> None:
    state = state_of(run_of("v6_12", *KVMGT, MOVE, "guest_write gpa=0xd0003000"))

    after = show_result(state, "v6_1", 5)

    assert (after.machine.profile, after.stop.op) == ("v6_1", 5)
    assert after.run.outcomes[5].errno is None


def test_the_two_kernels_chosen_last_are_compared() -> None:
    state = pick_kernel(pick_kernel(initial_state(), "v6_1"), "v6_6")

    assert state.view.pair == ("v6_1", "v6_6")
    assert pick_kernel(state, "v6_6") is state
    with pytest.raises(ExplorerError, match="no kernel profile"):
        pick_kernel(state, "6.1")


@settings(max_examples=20)
@given(random_runs(10), st.data())
def test_the_page_shows_what_the_cell_said(run: Run, data: st.DataObject) -> None:
    state = actions.step_to(state_of(run), run.end_of(data.draw(st.integers(0, len(run) - 1))))
    call = kernels._call(state)
    if call is None:
        return
    row, at = data.draw(st.sampled_from(range(len(ROWS)))), data.draw(st.sampled_from(range(len(COLUMNS))))
    cell = select_matrix(state.run, call).rows[row].cells[at]
    if cell.mark == "impossible":
        return

    after = show_cell(state, cell.profile, built_in=cell.built_in, attached=cell.attached)

    errno = after.run.outcomes[after.stop.op].errno
    assert cell.result == ("0" if errno is None else f"\N{MINUS SIGN}{errno.name}")
    call = kernels._call(after)
    assert call is not None
    shown = [c for r in select_matrix(after.run, call).rows for c in r.cells if c.here]
    assert [(c.result, c.word, c.cost) for c in shown] == [(cell.result, cell.word, cell.cost)]
