"""The ladder of checks, and the bill of a refusal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from explorer.figures.dom import Node, el, glyph
from explorer.figures.xray import xray_panel

if TYPE_CHECKING:
    from explorer.selectors.guards import BillRow, GuardsView, Rung
    from explorer.selectors.time_bar import TimeBar
    from explorer.selectors.xray import XrayView

__all__ = ["guards_panel"]


def guards_panel(view: GuardsView, xray: XrayView | None = None, bar: TimeBar | None = None) -> Node:
    """Return the ladder on the left, the bill on the right, and where the time went below it.

    A refusal that cost nothing has a picture to scale instead of a bill.
    """
    rungs: list[Node] = []
    passed = [rung for rung in view.free if rung.outcome == "passed"]
    checks = sum(rung.checks for rung in passed)
    # What matters is further down: where there is little room, the rows that passed are one.
    folding = bool(view.late) or view.fired is not None
    if passed and folding and (view.fired is not None or len(passed) == len(view.free)):
        rungs.append(
            el(
                "tr",
                el("td", glyph("check")),
                el(
                    "td",
                    _unfold(f"{checks} checks in {len(passed)} rows" if len(passed) != checks else f"{checks} checks"),
                ),
                el("td", "free"),
                el("td", ""),
                cls="folded",
            )
        )
    rungs += [_rung(rung, folding=folding) for rung in view.free]
    if view.divider:
        rungs.append(el("tr", el("td", view.divider, colspan=4), cls="divider"))
    rungs += [_rung(rung, folding=False) for rung in view.late]
    ladder = el(
        "table",
        _columns("icon", "what", "operands", "where"),
        el("tbody", *rungs),
        cls="ladder",
        aria_label="checks in kernel order",
    )
    return el(
        "div",
        el("div", el("small", "free: nothing is touched yet", cls="ladder-head"), ladder, cls="guards-left"),
        _bill(view) if xray is None else xray_panel(xray),
        _time_bar(bar) if bar is not None else None,
        cls="guards" + (" has-fired" if view.fired is not None else "") + (" has-xray" if xray is not None else ""),
    )


def _unfold(what: str) -> Node:
    return el("button", f"{what} passed", type="button", cls="unfold", data_unfold="", aria_expanded="false")


def _rung(rung: Rung, *, folding: bool) -> Node:
    number = el("span", str(rung.number), cls="n")
    if rung.outcome == "fired":
        return el(
            "tr",
            el("td", glyph("rejected", "fired")),
            el(
                "td",
                number,
                " ",
                rung.title,
                " ",
                el("span", f"FIRED {rung.errno}", cls="fired-errno"),
                el("span", rung.operands, ", in ", el("code", f"{rung.function}()"), cls="fired-in"),
                colspan=3,
            ),
            cls="is-fired",
        )
    return el(
        "tr",
        el("td", glyph("check", "passed") if rung.outcome == "passed" else ""),
        el("td", number, " ", rung.title),
        el("td", rung.operands or rung.outcome, title=rung.operands),
        el("td", el("code", rung.function), cls="where"),
        cls=f"is-{rung.outcome.replace(' ', '-')}" + (" can-fold" if folding and rung.outcome == "passed" else ""),
        title=f"{rung.function}()",
    )


def _bill(view: GuardsView) -> Node:
    paid = [row for row in view.bill if row.paid]
    kept = [row for row in view.bill if not row.paid]
    head = el(
        "tr",
        el("th", view.bill_title, scope="col"),
        el("th", "before", scope="col"),
        el("th", "after", scope="col"),
        el("th", el("span", "note", cls="only-read"), scope="col"),
        cls="bill-head" + (" is-paid" if kept else ""),
    )
    rows: list[Node] = [_bill_row(row) for row in paid]
    if kept:
        rows.append(el("tr", el("th", "Rolled back or kept", colspan=4, scope="colgroup"), cls="bill-sub"))
        rows += [_bill_row(row) for row in kept]
    columns = _columns("what", "before", "after", "note")
    return el("table", columns, el("thead", head), el("tbody", *rows), cls="bill", aria_label="what the call cost")


def _time_bar(bar: TimeBar) -> Node:
    told = ". ".join(filter(None, (*(part.told for part in bar.parts), bar.check, bar.early)))
    return el(
        "div",
        el("h3", "Where the call went ", el("small", bar.total)),
        el(
            "div",
            *(
                el("span", part.word, cls=f"is-{part.role}", title=part.told, vars={"--w": part.width})
                for part in bar.parts
            ),
            cls="time-bar",
            role="img",
            aria_label=told,
        ),
        el(
            "p",
            el("small", bar.early, el("span", " · " if bar.early else "", bar.chip, cls="wide-only")),
            el("b", bar.check) if bar.check else None,
        ),
        cls="time-went",
    )


def _columns(*names: str) -> Node:
    return el("colgroup", *(el("col", cls=f"c-{name}") for name in names))


def _bill_row(row: BillRow) -> Node:
    return el(
        "tr",
        el("th", row.what, " ", glyph(row.mark, size=16) if row.mark else None, scope="row"),
        el("td", row.before, cls="num"),
        el("td", el("b", row.after), cls="num"),
        el("td", row.note, cls="note"),
        cls="" if row.before == row.after else "is-changed",
    )
