"""The newcomer's opening: one question with three pictures, the legend, and the answer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from explorer.explain.ledger import ledger_of, watches_of
from explorer.explain.words import plural
from explorer.figures.dom import Node, el, glyph, rich

if TYPE_CHECKING:
    from explorer.history.moment import Moment
    from explorer.selectors.beats import BeatLink, BeatView

__all__ = ["answer_caption", "beat_panel", "because_line", "guide_panel", "legend_panel", "look_line", "question_panel"]

ANSWERS = (
    ("follow", "each watch goes to the page’s new number"),
    ("stay behind", "the watches keep the old page numbers"),
    ("are gone", "nothing is watched after the move"),
)


def question_panel(moment: Moment) -> Node:
    """Return the question; the number of watches is the engine's."""
    focus = moment.focus
    slot = moment.kvm.slot(focus.slot_id, focus.as_id) if focus is not None else None
    n = len(watches_of(moment.kvm, slot))
    words = {1: "The watch", 2: "The two watches", 3: "The three watches"}.get(n, f"The {n} watches")
    return el(
        "div",
        el("h2", f"Move the slot up by one page. {words}…"),
        el("div", *(_answer(at, title, text) for at, (title, text) in enumerate(ANSWERS, 1)), cls="answers"),
        el("p", "Press 1, 2 or 3, or click. Enter makes the move without an answer."),
        cls="question",
    )


def _answer(number: int, title: str, text: str) -> Node:
    return el(
        "button",
        el("span", el("kbd", str(number)), " ", el("b", title), cls="answer-title"),
        _picture(number),
        el("span", text, cls="answer-text"),
        type="button",
        cls="answer",
        data_answer=number,
        aria_label=f"{number}: the watches {title}; {text}",
    )


def _picture(number: int) -> Node:
    """Draw what an answer means: the old place above, the new one below."""
    xs = (112, 134, 156)
    old = [_diamond(x, 36, "g-internal-fill" if number == 2 else "g-hollow") for x in xs]
    new = [_diamond(x + 22, 122, "g-internal-fill") for x in xs] if number == 1 else []
    lines: list[Node] = []
    if number == 1:
        lines = [el("line", x1=x, y1=50, x2=x + 20, y2=94, cls="q-line") for x in xs]
    elif number == 2:
        lines = [el("line", x1=x, y1=52, x2=x, y2=96, cls="q-dash") for x in xs]
    return el(
        "svg",
        el("rect", x=28, y=12, width=216, height=48, cls="q-was"),
        el("rect", x=52, y=98, width=216, height=48, cls="q-slot"),
        el("text", "old", x=252, y=41, cls="q-label"),
        el("text", "new", x=276, y=127, cls="q-label"),
        *lines,
        *old,
        *new,
        viewBox="0 0 320 158",
        cls="q-picture",
        aria_hidden="true",
    )


def _diamond(x: float, y: float, cls: str) -> Node:
    return el("path", d=f"M{x} {y - 13} {x + 13} {y} {x} {y + 13} {x - 13} {y}Z", cls=cls)


def beat_panel(view: BeatView) -> Node:
    """Return the card of a story: its place in the guided story, what to look for, and its neighbours."""
    neighbours = [
        _neighbour(link, mark, which)
        for link, mark, which in (
            (view.previous, "\N{LEFTWARDS ARROW}", "previous"),
            (view.following, "\N{RIGHTWARDS ARROW}", "next"),
        )
        if link is not None
    ]
    return el(
        "div",
        el("p", el("b", view.place), " · ", view.title, cls="beat-place"),
        el("p", el("b", "Look"), " ", view.look, cls="beat-look") if view.look else None,
        el("p", view.other_kernel, cls="beat-other") if view.other_kernel else None,
        el("div", *neighbours, cls="beat-links"),
        cls="beat",
        role="group",
        aria_label="the story",
    )


def _neighbour(link: BeatLink, mark: str, which: str) -> Node:
    words = (mark, " ", link.label) if which == "previous" else (link.label, " ", mark)
    return el(
        "button",
        *words,
        " ",
        el("kbd", "PgUp" if which == "previous" else "PgDn"),
        type="button",
        cls="link",
        data_story=link.name,
        data_beat=which,
        aria_label=f"{which} beat: {link.label}",
    )


def look_line(view: BeatView) -> Node:
    """Return what to look for in one line, for narrow pages."""
    return el("span", el("span", view.look, title=view.look), _next_beat(view), cls="look")


def _next_beat(view: BeatView) -> Node | None:
    following = view.following
    if following is None:
        return None
    return el(
        "button",
        el("kbd", "PgDn"),
        " ",
        el("small", view.place),
        type="button",
        cls="key-chip",
        data_story=following.name,
        aria_label=f"next beat (PgDn): {following.label}",
    )


def because_line(text: str, beat: BeatView | None = None) -> Node:
    """Return why things are so in one line, for narrow pages, and the ways to the rest of it and on in the story."""
    drawer = el(
        "button", el("kbd", "B"), type="button", cls="key-chip", data_key="b", aria_label="the “because” drawer (B)"
    )
    line = el("span", *rich(text), title=text.replace("`", ""))
    return el("span", line, drawer, _next_beat(beat) if beat is not None else None, cls="because")


def guide_panel(beats: tuple[tuple[str, str, str, str], ...]) -> Node:
    """Return the guided story as text: of each beat its title, what to look for, what it teaches, and its address."""
    return el(
        "ol",
        *(
            el("li", el("p", el("b", title)), el("p", look), el("p", teaches), el("p", el("code", address)))
            for title, look, teaches, address in beats
        ),
        cls="guide",
    )


def legend_panel(why: str, origin: str) -> Node:
    """Return the legend of the opening picture, why pages are watched, and where it all comes from."""
    rows = (
        ("slot", "Slot", "memory the guest can use"),
        ("internal", "Watched page", "a write to it is caught"),
        ("new", "Where it would go", "one page up"),
        ("hole", "Hole", "no memory here, shortened"),
        ("read_only", "Read-only slot", "writes go to the VMM"),
        ("dirty", "Dirty-logged slot", "writes are recorded"),
    )
    return el(
        "div",
        el("h2", "In the picture"),
        el(
            "ul",
            *(
                el("li", glyph(icon, size=30), el("span", el("b", name), el("small", text)))
                for icon, name, text in rows
            ),
            cls="legend",
        ),
        el("section", el("h3", "Why watch a page?"), el("p", why, cls="lead")),
        el("section", el("h3", "Where this comes from"), el("p", origin)),
        cls="rail-body",
    )


def answer_caption(guess: int, right: bool, moment: Moment) -> str:
    """Return the truth, from the ledger at the end of the move, and what was answered; empty elsewhere."""
    truth = _truth(moment)
    if not truth:
        return ""
    if right:
        return f"You said so. {truth}"
    return f"{truth} You said: they {ANSWERS[guess - 1][0]}." if 0 < guess <= len(ANSWERS) else truth


def _truth(moment: Moment) -> str:
    ledger = ledger_of(moment)
    if ledger is None or not moment.at_end or moment.op is None:
        return ""
    if moment.op.step.errno is not None:
        return "The move was refused. Step back to see where, and what it had already cost."
    if ledger.lost:
        who = "a tracker still counts" if ledger.losers == "the external tracker" else "shadow pages still count"
        return f"Gone, and that is harmful: {who} on {plural(ledger.lost, 'watch')}."
    if ledger.dropped:
        dropped = plural(ledger.dropped, "watch")
        return f"Gone, and that is harmful: KVMGT dropped {dropped} and will not ask again."
    return "Gone, and on this setup that is harmless. ⇧← steps back to why."
