"""The calls of one operation as a document tree: a line each, the model's on the left, the recorded on the right."""

from __future__ import annotations

from typing import TYPE_CHECKING

from explorer.figures.dom import Node, el, rich
from explorer.selectors.calls import CallRow, CallRun

if TYPE_CHECKING:
    from explorer.selectors.calls import CallsView, Mark, ModelCall, Recorded

__all__ = ["calls_panel"]

_TITLE = "Calls"
_SIGNS: dict[Mark, str] = {
    # left of the word: which side has the function
    "both": "=",
    "inlined": "◁",
    "part": "◁",
    "more": "◁",
    "unseen": "◁",
    "left out": "▶",
    "again": "▶",
}
_SPOKEN: dict[Mark, str] = {
    "both": "in the model and in the recording",
    "inlined": "in the model only",
    "part": "in the model only",
    "more": "in the model only",
    "unseen": "in the model only",
    "left out": "in the recording only",
    "again": "in the recording only",
}
_DEEPEST = 12
_SHARES = "shares of the whole: its processor was emulated"


def calls_panel(view: CallsView) -> Node:
    """Return what the two sides come to and their lines; where there is no operation, what would be here."""
    if view.notice:
        return el(
            "section", el("div", el("h2", _TITLE), cls="late-head"), el("p", view.notice, cls="empty"), cls="calls"
        )
    lines = [_run(row, view) if isinstance(row, CallRun) else _line(row, view) for row in view.rows]
    return el(
        "section",
        el(
            "div",
            el("h2", _TITLE, " ", el("small", view.where)),
            el("span", view.chip, cls="chip", title="where the right side is from"),
            cls="late-head",
        ),
        el("p", el("b", view.claim), cls="finding"),
        el("p", *rich(view.why), cls="calls-why") if view.why else None,
        el("p", *rich(view.missing), cls="calls-missing") if view.missing else None,
        el(
            "div",
            el("span", "step"),
            el("b", view.heads[0]),
            el("span"),
            el("span", el("b", view.heads[1]), el("small", _SHARES), cls="recorded-head") if view.recorded else None,
            cls="call call-heads",
            aria_hidden="true",
        ),
        el("ol", *lines, cls="call-lines", tabindex="0", aria_label=f"{view.heads[0]}; {view.heads[1]}".rstrip("; ")),
        cls="calls" + ("" if view.recorded else " is-one-sided"),
    )


def _line(row: CallRow, view: CallsView) -> Node:
    return el("li", *_parts(row, view), cls=_class(row))


def _class(row: CallRow) -> str:
    kinds = ["call", f"is-{_slug(row.mark)}"]
    kinds += ["begins"] if row.step else []
    return " ".join([*kinds, "is-now"] if row.now else kinds)


def _slug(mark: Mark) -> str:
    return mark.replace(" ", "-")


def _parts(row: CallRow, view: CallsView) -> list[Node]:
    note = el("span", *rich(row.note), cls="call-note") if row.note else None
    left = _model(row.model) if row.model is not None else el("span", note, cls="call-ours")
    right = _recorded(row.recorded) if row.recorded is not None else el("span", note, cls="call-theirs")
    if not view.recorded or (row.model is None and row.recorded is None):
        return [_step(row), left]
    return [_step(row), left, _mark(row.mark, row.word), right]


def _step(row: CallRow) -> Node:
    if not row.step:
        return el("span", cls="call-step")
    now = el("b", "▸ ", row.step, el("span", ", now", cls="sr")) if row.now else row.step
    return el("span", now, cls="call-step")


def _mark(mark: Mark, word: str) -> Node:
    spoken = el("span", f": {_SPOKEN[mark]}", cls="sr")
    return el("span", el("b", _SIGNS[mark], aria_hidden="true"), " ", el("span", word, spoken), cls="call-mark")


def _model(call: ModelCall) -> Node:
    name = (
        el(
            "a",
            call.function,
            cls="code",
            href=call.url,
            target="_blank",
            rel="noreferrer noopener",
            title=call.title,
        )
        if call.url
        else el("code", call.function, title=call.title)
    )
    return el("span", name, el("small", call.file) if call.file else None, cls="call-ours")


def _recorded(call: Recorded) -> Node:
    depth = min(call.depth, _DEEPEST)
    return el(
        "span",
        el("span", f"depth {call.depth} ", cls="sr"),
        el("code", call.function, vars={"--depth": str(depth)}),
        el("span", cls="call-bar", vars={"--share": call.width}, aria_hidden="true"),
        el("span", call.share, cls="call-share"),
        cls="call-theirs",
    )


def _run(run: CallRun, view: CallsView) -> Node:
    """Return lines that open behind one."""
    title = el("span", *rich(run.title), cls="call-title", vars={"--depth": str(min(run.depth, _DEEPEST))})
    empty = el("span")
    mine = run.mark == "more"
    note = el("span", run.note, cls="call-note") if run.note else None
    ours = el("span", title if mine else note, cls="call-ours")
    theirs = empty if mine else el("span", title, cls="call-theirs")
    return el(
        "li",
        el(
            "details",
            el("summary", el("span"), ours, _mark(run.mark, run.word), theirs, cls=f"call is-{_slug(run.mark)}"),
            el("ol", *(_line(row, view) for row in run.rows)),
        ),
        cls="call-run" + (" is-now" if run.now else ""),
    )
