"""KVMGT from inside as a document tree: entries of the guest on the left, host pages, entries of the GPU on the right.

Lines lead from both sides to the host pages. A line of the GPU that should end elsewhere is dashed, and its entry
says so in words.
"""

from __future__ import annotations

from math import ceil
from typing import TYPE_CHECKING

from explorer.figures.dom import Node, el, glyph, rich

if TYPE_CHECKING:
    from collections.abc import Iterable

    from explorer.selectors.gpu_watch import Keeper, Place
    from explorer.selectors.gpu_writes import Chain, Link
    from explorer.selectors.kvmgt import EntryRow, HostPage, KvmgtView

__all__ = ["kvmgt_panel"]

_PITCH, _GUTTER, _HEAD = 60, 150, 9
"""Units of the drawing: height of a row, width between two columns, length of an arrow's head."""
_MIDDLE = 0.5
_HOST_SHARE = 0.62
"""Least height of a host page as a share of a row's."""


def kvmgt_panel(view: KvmgtView) -> Node:
    """Return the tab: verdict, who watches the table, entries and pages, and a write then and now."""
    if view.notice:
        return el(
            "section",
            el("div", el("h2", "KVMGT from inside"), cls="late-head"),
            el("p", view.notice, cls="empty"),
            el("p", el("b", "To fill it: "), view.way, cls="empty way"),
            cls="kvmgt is-empty",
        )
    return el(
        "section",
        _head(view),
        el("p", *rich(view.because), cls="finding"),
        el("div", _places(view.places), _keepers(view.keepers), cls="kvmgt-top"),
        el("div", _heads(view), _entries(view), cls="gpu-view", vars={"--n": str(_height(view))}),
        _chains(view.chains, view.writes),
        cls="kvmgt",
    )


def _head(view: KvmgtView) -> Node:
    return el(
        "div",
        el(
            "h2",
            glyph("lost" if view.loud else "check", size=22),
            el("span", view.verdict),
            " ",
            el("small", view.and_so),
        ),
        _choices(view) if len(view.tables) > 1 else None,
        cls="late-head" + (" is-loud" if view.loud else ""),
    )


def _choices(view: KvmgtView) -> Node:
    buttons = (
        el(
            "button",
            table.text,
            type="button",
            cls="test" + (" is-chosen" if table.chosen else ""),
            data_gpu=f"{table.user}:{table.gfn}",
            data_at=f"gpu {table.user}:{table.gfn}",
            aria_pressed="true" if table.chosen else "false",
            aria_label=f"table at page {table.text}",
        )
        for table in view.tables
    )
    return el("div", *buttons, cls="tests", role="group", aria_label="tables of the GPU")


# -- who watches -----------------------------------------------------------------------------------


def _places(places: tuple[Place, ...]) -> Node:
    nodes: list[Node] = []
    for place in places:
        if nodes:
            nodes.append(el("span", "…", cls="between", aria_hidden="true"))
        nodes.append(
            el(
                "div",
                el(
                    "div",
                    el("span", place.label),
                    el("i", cls="page"),
                    cls=f"room is-{place.style}" + (" is-early" if place.at < _MIDDLE else ""),
                    vars={"--at": f"{100 * place.at:.2f}%"},
                ),
                el("div", el("code", place.first), el("code", place.end), cls="ends"),
                el("div", place.mark, cls=f"mark is-{place.role}"),
                cls="place",
            )
        )
    return el("div", *nodes, cls="places", role="group", aria_label="where the table is in guest memory")


def _keepers(keepers: tuple[Keeper, ...]) -> Node:
    head = el("tr", *(el("th", name, scope="col") for name in ("kept by", "says", "holds")))
    rows = (
        el(
            "tr",
            el("th", keeper.keeper, scope="row"),
            el("td", keeper.says),
            el("td", "yes" if keeper.holds else "no", cls="holds"),
            cls="" if keeper.holds else "fails",
        )
        for keeper in keepers
    )
    return el(
        "table", el("thead", head), el("tbody", *rows), cls="keepers", aria_label="who says that the table is watched"
    )


# -- entries and pages -----------------------------------------------------------------------------


def _heads(view: KvmgtView) -> Node:
    heads = (
        ("What the guest wrote", "; ".join(filter(None, (view.table_now, view.hidden)))),
        ("Host pages", view.base),
        ("What the GPU uses", view.table_then),
    )
    return el("div", *(el("div", el("h3", title), el("small", text)) for title, text in heads), cls="gpu-heads")


def _entries(view: KvmgtView) -> Node:
    rows, hosts = view.rows, view.hosts
    if not rows:
        return el("p", "Neither the guest’s table nor the shadow has an entry that is present.", cls="empty")
    height = _height(view)
    means = [(i, row.means, False) for i, row in enumerate(rows) if row.means is not None]
    uses = [(i, row.uses, row.wrong) for i, row in enumerate(rows)]
    return el(
        "div",
        el("div", *(_guest(row, hosts) for row in rows), cls="gpu-side"),
        _lines(means, len(rows), len(hosts), height, mirrored=False),
        el("div", *(_host(host) for host in hosts), cls="gpu-hosts"),
        _lines(uses, len(rows), len(hosts), height, mirrored=True),
        el("div", *(_shadow(row, hosts) for row in rows), cls="gpu-side"),
        cls="gpu",
    )


def _height(view: KvmgtView) -> int:
    """Return the height of the drawing in rows."""
    return max(len(view.rows), ceil(len(view.hosts) * _HOST_SHARE), 1)


def _guest(row: EntryRow, hosts: tuple[HostPage, ...]) -> Node:
    means = f"leads to {hosts[row.means].text}" if row.means is not None else "leads to no page"
    return el(
        "div",
        el("b", str(row.number), cls="nr"),
        el("code", row.guest) if row.guest.startswith("0x") else el("span", row.guest, cls="absent"),
        el("span", means, cls="sr"),
        el("small", row.note) if row.note else None,
        _write(row),
        cls="gpu-entry",
    )


def _write(row: EntryRow) -> Node | None:
    if row.write_op is None:
        return None
    return el(
        "button",
        glyph("external" if row.write == "seen" else "lost", size=14),
        row.write,
        type="button",
        cls=f"wrote is-{row.write}",
        data_op=row.write_op,
        data_at=f"entry {row.number}",
        aria_label=f"entry {row.number}: the guest’s last write, operation {row.write_op + 1}, {row.write}",
    )


def _shadow(row: EntryRow, hosts: tuple[HostPage, ...]) -> Node:
    return el(
        "div",
        el("span", row.shadow),
        el("span", f"uses {hosts[row.uses].text}", cls="sr"),
        glyph("lost", size=18) if row.wrong else None,
        el("b", str(row.number), cls="nr"),
        cls="gpu-entry is-shadow" + (" is-wrong" if row.wrong else ""),
    )


def _host(host: HostPage) -> Node:
    text = el("span", host.text) if host.scratch else el("code", host.text)
    return el("div", text, cls="gpu-host" + (" is-scratch" if host.scratch else ""), title=host.hover)


def _lines(lines: Iterable[tuple[int, int, bool]], rows: int, hosts: int, height: int, *, mirrored: bool) -> Node:
    """Draw lines from rows to host pages: to the right, or to the left if mirrored."""
    high = height * _PITCH
    paths = []
    # Wrong ones last: they lie on top.
    for row, host, wrong in sorted(lines, key=lambda line: line[2]):
        y, to = high * (row + 0.5) / rows, high * (host + 0.5) / hosts
        x0, x1, tip = (_GUTTER, _HEAD, 0) if mirrored else (0, _GUTTER - _HEAD, _GUTTER)
        middle = _GUTTER / 2
        cls = "is-wrong" if wrong else ""
        curve = f"M{x0} {y:.1f}C{middle:g} {y:.1f} {middle:g} {to:.1f} {x1} {to:.1f}"
        head = f"M{x1} {to - 5:.1f}L{tip} {to:.1f}L{x1} {to + 5:.1f}Z"
        paths.append(el("g", el("path", d=curve), el("path", d=head, cls="head"), cls=cls))
    return el(
        "svg",
        *paths,
        cls="gpu-lines" + (" is-shadow" if mirrored else ""),
        viewBox=f"0 0 {_GUTTER} {high}",
        aria_hidden="true",
    )


# -- a write, then and now -------------------------------------------------------------------------


def _chains(chains: tuple[Chain, ...], writes: str) -> Node:
    return el(
        "div",
        el("h3", "One guest write to the table, then and now ", el("small", f"run on a copy; in the run: {writes}")),
        *(el("div", el("b", chain.when), *_links(chain.links), cls="chain") for chain in chains),
        cls="chains",
    )


def _links(links: tuple[Link, ...]) -> list[Node]:
    nodes: list[Node] = []
    for at, link in enumerate(links):
        if at:
            nodes.append(
                el("span", "✕" if links[at - 1].state == "broken" else "→", cls=f"then is-{links[at - 1].state}")
            )
        nodes.append(el("span", link.text, cls=f"link-box is-{link.state}"))
    return nodes
