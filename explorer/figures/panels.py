"""View-models to document trees: the strip, the tables, the rail, the timeline. No sentence is made here."""

from __future__ import annotations

from typing import TYPE_CHECKING

from explorer.figures.dom import Node, el, glyph, rich

if TYPE_CHECKING:
    from explorer.explain.ledger import Ledger
    from explorer.selectors.effects import EffectsView
    from explorer.selectors.guards import BillRow, GuardsView, Rung
    from explorer.selectors.hand_off import FieldRow, HandOffView, Value
    from explorer.selectors.phases import PhaseStripView
    from explorer.selectors.rail import RailCell, RailView, Section
    from explorer.selectors.slot_table import SlotTableView
    from explorer.selectors.timeline import TimelineNode, TimelineView

__all__ = [
    "guards_panel",
    "hand_off_panel",
    "ledger_panel",
    "phases_panel",
    "rail_panel",
    "slot_table_panel",
    "timeline_panel",
]

_FATES = {
    "kept": "= kept",
    "changed": "≠ changed",
    "handed over": "⇥ handed over",
    "from zero": "✳ from zero",
    "freed": "× freed",
    "new": "✳ new",
    "none": "–",
}
_READERS = {"old": "OLD slot", "INVALID": "INVALID: guest faults retry", "new": "NEW slot", "none": "no slot"}
_ROOM_FOR_WORDS, _ROOM_WHEN_NARROW = 20, 10
"""Operations that have room for their names on the timeline of a wide and of a narrow page."""


# -- the strip of steps ----------------------------------------------------------------------------


def phases_panel(view: PhaseStripView) -> Node:
    """Return the strip: a column for each step, two sets in it, and the band readers see."""
    n = len(view.cells)
    head = [
        el(
            "div",
            el("b", f"set {at}"),
            el("button", generation, type="button", cls="ask", data_why="generation", title="why? (W)")
            if at == view.active_idx
            else el("span", generation),
            cls="strip-set" + (" is-active" if at == view.active_idx else ""),
        )
        for at, generation in enumerate(view.generations)
    ]
    columns = []
    for cell in view.cells:
        boxes = [
            el(
                "div",
                el("span", cls="dot dot-on" if box.active else "dot"),
                el("span", "" if box.content == "none" else box.content, cls=f"box box-{box.content}"),
                cls="strip-row" + (" is-active" if box.active else ""),
            )
            for box in cell.boxes
        ]
        title = el(
            "div",
            el("span", f"{cell.number}", cls="n"),
            " ",
            cell.word,
            el("em", cell.note) if cell.note else None,
            cls="strip-word",
        )
        columns.append(
            el(
                "button",
                title,
                *boxes,
                cls=f"strip-cell is-{cell.tense}" + (" is-refused" if cell.refused else ""),
                type="button",
                data_cell=cell.number - 1,
                aria_label=f"step {cell.number}, {cell.word}",
                title=f"{cell.function}()" if cell.function else "",
            )
        )
    bands = [
        el(
            "div",
            _READERS[band.content],
            cls=f"band band-{band.content}",
            vars={"--from": band.first + 1, "--to": band.last + 2},
        )
        for band in view.bands
    ]
    return el(
        "div",
        el(
            "div",
            el("div", cls="strip-word"),
            *head,
            el("div", el("b", "readers see"), cls="strip-readers"),
            cls="strip-head",
        ),
        el("div", *columns, el("div", *bands, cls="bands"), cls="strip-cells", vars={"--n": n}),
        cls="strip",
    )


# -- hand-off --------------------------------------------------------------------------------------


def hand_off_panel(view: HandOffView) -> Node:
    """Return the table of fields with a fate each."""
    heads = [
        el("th", el("span", glyph(icon), " ", el("b", column.name)), el("small", column.where), scope="col")
        for icon, column in zip(("slot", "invalid", "new"), view.columns, strict=True)
    ]
    return el(
        "table",
        el(
            "thead",
            el(
                "tr",
                el("th", el("span", "field", cls="only-read"), scope="col"),
                *heads,
                el("th", el("b", "fate"), scope="col"),
            ),
        ),
        el("tbody", _quiet_row(view), *(_field_row(row) for row in view.rows)),
        cls="fields",
        aria_label=f"fields of the slot through this {view.change}",
    )


def effects_panel(view: EffectsView) -> Node:
    """Return the table of what an operation without steps changed."""
    rows = [
        el(
            "tr",
            el("th", row.what, scope="row"),
            el("td", row.before),
            el("td", el("b", row.after)),
            el("td", el("code", f"{row.function}()") if row.function else "", cls="where"),
        )
        for row in view.rows
    ]
    heads = ("what it changed", "before", "after", "function")
    return el(
        "div",
        el(
            "table",
            el("thead", el("tr", *(el("th", el("b", text), scope="col") for text in heads))),
            el("tbody", *rows),
            cls="fields effects",
        ),
        el("p", f"and {view.more} more", cls="empty") if view.more else None,
    )


def _quiet_row(view: HandOffView) -> Node | None:
    """Return one row that stands for all that keep their value, where there is little room."""
    kept = [row.field for row in view.rows if row.fate in ("kept", "none")]
    if not kept:
        return None
    names = ", ".join(kept)
    return el("tr", el("th", names, colspan=4, scope="row", title=names), el("td", _FATES["kept"]), cls="folded")


def _field_row(row: FieldRow) -> Node:
    quiet = row.fate in ("kept", "none")
    cls = (
        ("is-quiet" if quiet else "")
        + (" is-message" if row.message else "")
        + (" is-changed" if row.changed_now else "")
    )
    return el(
        "tr",
        el("th", _asked(row.field), scope="row"),
        el("td", *_value(row.old)),
        el("td", *_value(row.invalid)),
        el("td", *_value(row.new, bold=row.fate in ("changed", "from zero") and not row.new.same)),
        el("td", _FATES[row.fate], cls="fate"),
        cls=cls.strip(),
    )


def _asked(field: str) -> Node:
    """Return the name of a field; of one whose value can be asked about, as a button."""
    if field != "flags":
        return field
    return el("button", field, type="button", cls="ask", data_why="flags", title="why? (W)")


def _value(value: Value, *, bold: bool = False) -> list[Node]:
    if not value.text:
        return [el("span", "–", cls="absent")]
    if value.tag:
        tag = el("span", value.tag, cls="tag tag-new" if value.fresh else "tag")
        return [tag, " ", "same" if value.same and not value.fresh else value.text]
    if value.same:
        return [el("span", "same", cls="same")]
    return [el("b", value.text) if bold else value.text]


def ledger_panel(ledger: Ledger | None) -> Node:
    """Return the equation of watches: before = returned + kept + lost."""
    if ledger is None:
        return el("div", cls="ledger is-empty")
    own = sum(1 for w in ledger.watches if w.by == "shadow paging")
    trackers = ledger.before - own
    lost = ledger.lost + ledger.will_be_lost
    when = f"will be lost at step {ledger.lost_at}" if ledger.will_be_lost else "lost"
    return el(
        "div",
        _term(
            ledger.before,
            None,
            "watches before" if ledger.before != 1 else "watch before",
            f"{own} shadow paging, {trackers} tracker",
        ),
        el("span", "=", cls="op"),
        _term(
            ledger.returned,
            "returned",
            "returned by the zap" if not ledger.dropped else "returned or dropped" if own else "dropped",
            "harmless: the zap comes before the slot changes"
            if not ledger.dropped
            else f"harmful: the tracker’s own callback dropped {ledger.dropped}",
        ),
        el("span", "+", cls="op"),
        _term(ledger.kept, None, "kept", "still in the array" if ledger.kept else "new arrays start at zero"),
        el("span", "+", cls="op"),
        _term(
            lost,
            "lost",
            when,
            _why_harmful(ledger) if lost else "nothing is lost",
            loud=lost > 0,
        ),
        cls="ledger",
        role="group",
        aria_label=f"{ledger.before} watches before, {ledger.returned} returned, {ledger.kept} kept, {lost} {when}",
    )


def _why_harmful(ledger: Ledger) -> str:
    if ledger.losers == "the external tracker":
        return "harmful: the tracker still counts on them"
    return "harmful: the shadow pages they stand for live on"


def _term(n: int, icon: str | None, words: str, note: str, *, loud: bool = False) -> Node:
    return el(
        "div",
        el("span", str(n), cls="key"),
        glyph(icon) if icon and n else None,
        el("span", el("b", words), el("small", note)),
        cls=f"term term-{icon or 'plain'}" + (" is-loud" if loud else ""),
    )


# -- guards ----------------------------------------------------------------------------------------


def guards_panel(view: GuardsView) -> Node:
    """Return the ladder on the left and the bill on the right."""
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
                    f"{checks} checks in {len(passed)} rows passed"
                    if len(passed) != checks
                    else f"{checks} checks passed",
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
        _bill(view),
        cls="guards",
    )


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


# -- rail ------------------------------------------------------------------------------------------


def rail_panel(view: RailView) -> Node:
    """Return the rail."""
    return el(
        "div",
        el("h2", "Because"),
        _verdict(view),
        el("p", view.newcomer, cls="lead"),
        el("p", *rich(view.developer), cls="dev"),
        _chips(view),
        *(_section(section) for section in view.sections),
        cls="rail-body",
    )


def _verdict(view: RailView) -> Node:
    if view.icon == "octagon":
        ask = el("button", view.errno, type="button", cls="ask", data_why="errno", title="why? (W)")
        icon = el("span", glyph("stop", size=96), el("b", ask), cls="stop")
    else:
        icon = el(
            "span", glyph({"check": "check", "lost": "lost", "info": "other"}[view.icon], size=30), cls="verdict-icon"
        )
    subtitle = el(
        "span",
        glyph("lost", size=16) if view.subtitle_role == "lost" else None,
        " ",
        view.subtitle,
        cls=f"verdict-sub role-{view.subtitle_role}",
    )
    return el("div", icon, el("div", el("span", view.verdict, cls="verdict-title"), subtitle), cls="verdict")


def _chips(view: RailView) -> Node:
    chips: list[Node] = []
    if view.source is not None:
        chips.append(
            el(
                "a",
                f"{view.source.function}()",
                cls="chip code",
                href=view.source.url,
                target="_blank",
                rel="noreferrer noopener",
                title=f"{view.source.file} in {view.source.version}",
            )
        )
        chips.append(el("span", f"{view.source.file.rsplit('/', 1)[-1]} · {view.source.version}", cls="chip"))
    told = "what backs this sentence: recordings of that kernel, or the model of its code alone"
    chips.append(el("span", view.provenance, cls="chip", title=told))
    return el("div", *chips, cls="chips")


def _section(section: Section) -> Node:
    body: list[Node] = []
    if section.text:
        body.append(el("p", *rich(section.text)))
    if section.rows:
        head = (
            el("thead", el("tr", *(el("th", text, scope="col") for text in section.header))) if section.header else None
        )
        body.append(
            el(
                "table",
                head,
                el("tbody", *(el("tr", *(_rail_cell(cell) for cell in row)) for row in section.rows)),
                aria_label=section.title,
            )
        )
    if section.note:
        body.append(el("p", el("small", section.note)))
    return el("section", el("h3", section.title), *body)


def _rail_cell(cell: RailCell) -> Node:
    words: Node = cell.text
    if cell.why:
        words = el("button", cell.text, type="button", cls="ask", data_why=cell.why, title="why? (W)")
    elif cell.stop is not None:
        words = el("button", cell.text, type="button", cls="link", data_op=cell.stop.op, data_cell=cell.stop.cell)
    return el(
        "td",
        glyph(cell.glyph, size=16) if cell.glyph else None,
        " " if cell.glyph else None,
        words,
        cls=(f"role-{cell.role}" if cell.role else "") + (" num" if cell.number else ""),
    )


# -- timeline --------------------------------------------------------------------------------------


def _crowding(nodes: int) -> str:
    """Return the class of a line with that many operations: the words go first where the page is narrow."""
    return " is-dense is-many" if nodes > _ROOM_FOR_WORDS else " is-many" if nodes > _ROOM_WHEN_NARROW else ""


def timeline_panel(view: TimelineView) -> Node:
    """Return the line of operations with the open one's steps."""
    items: list[Node] = []
    if view.hidden_before:
        items.append(el("span", f"{view.hidden_before} before", cls="tl-more"))
    for at, node in enumerate(view.nodes):
        items.append(_node(node, current=node.tense == "now" and (at != view.open_after or not view.cells)))
        if at == view.open_after and view.cells:
            items.append(_track(view, node))
    if view.hidden_after:
        items.append(el("span", f"{view.hidden_after} after", cls="tl-more"))
    return el(
        "div",
        el("div", el("b", view.caption), el("span", view.sub), cls="tl-name"),
        el("div", *items, cls="tl-line" + _crowding(len(view.nodes))),
        cls="tl",
    )


def _node(node: TimelineNode, *, current: bool) -> Node:
    words = f"{node.title} {node.detail}".strip()
    return el(
        "button",
        el("span", node.title, cls="tl-title"),
        el("span", glyph(node.glyph, size=22), cls="tl-glyph" + (" is-stack" if node.last > node.first else "")),
        el("span", node.detail, cls="tl-detail"),
        el("span", cls="tl-handle") if current else None,
        cls=f"tl-node is-{node.tense}" + (" is-ghost" if node.ghost else "") + (" is-current" if current else ""),
        type="button",
        data_op=node.last,
        data_first=node.first,
        aria_label=f"operation {node.last + 1}: {words}" + (", not applied yet" if node.ghost else ""),
        title=words,
    )


def _track(view: TimelineView, node: TimelineNode) -> Node:
    cells = [
        el(
            "button",
            el("span", glyph("rejected", size=20), cls="tl-refused") if cell.refused else el("span", cls="tl-dot"),
            el("span", el("span", str(cell.number), cls="n"), " ", el("span", cell.word, cls="w"), cls="tl-word"),
            el("span", el("span", view.handle, cls="tl-label"), cls="tl-handle") if cell.tense == "now" else None,
            cls=f"tl-cell is-{cell.tense}"
            + (" is-refused" if cell.refused else "")
            + (" in-invalid" if view.invalid and view.invalid[0] <= cell.number - 1 <= view.invalid[1] else ""),
            type="button",
            data_op=node.last,
            data_cell=cell.number - 1,
            aria_label=f"step {cell.number}: {cell.word}",
            title=f"{cell.number} {cell.word}",
        )
        for cell in view.cells
    ]
    return el("div", *cells, cls="tl-track" + (" is-ghost" if node.ghost else ""), vars={"--n": len(cells)})


# -- table -----------------------------------------------------------------------------------------


def slot_table_panel(view: SlotTableView) -> Node:
    """Return the table of slots and holes."""
    heads = ("slot", "first gpa", "last gpa", "size", "hva", "flags", "watches")
    rows = []
    for row in view.rows:
        cells = [
            el("td", text, cls="num" if at in (3, 6) else "code" if at in (1, 2, 4) else "")
            for at, text in enumerate((row.name, row.first, row.last, row.size, row.hva, row.flags, row.watches))
        ]
        if row.key is not None:
            cells[0] = el(
                "td", el("button", row.name, type="button", cls="link", data_slot=f"{row.key.as_id}:{row.key.slot_id}")
            )
        rows.append(el("tr", *cells, cls=f"is-{row.kind}" + (" is-selected" if row.selected else "")))
    return el(
        "div",
        el(
            "table",
            el("caption", view.caption),
            el("thead", el("tr", *(el("th", text, scope="col") for text in heads))),
            el("tbody", *rows),
            cls="slots",
        ),
        el("p", view.notice) if view.notice else None,
        cls="slot-table",
    )
