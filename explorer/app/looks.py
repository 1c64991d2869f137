"""How the run is looked at: where the detail lies, its scale, the page's size; the run stays as it is."""

from __future__ import annotations

from dataclasses import replace

from explorer.app.state import (
    NARROW_BELOW,
    AppState,
    Notice,
    Scale,
    redraw,
)
from explorer.engine.lookup import gfn_to_memslot, slots_in_hva_range
from explorer.engine.types import PAGE_SHIFT, ExplorerError
from explorer.explain.backing import backing_words, slot_words
from explorer.explain.quantity import Room, parse_place, parse_quantity, parse_room
from explorer.explain.words import hex_text, plural, size_text
from explorer.history.moment import SlotKey, moment_at
from explorer.selectors.slot_table import holes

__all__ = ["brush", "fit", "fitted", "go_to", "look_at", "pan", "set_scale", "undo_view", "zoom"]

_VIEWS_KEPT = 50
"""Changes of the view that can be undone."""


def go_to(state: AppState, text: str) -> AppState:
    """Bring a place into the detail: an address, a page, a slot, a host address or a range."""
    try:
        wanted = parse_room(text)
        if wanted is not None:
            return _go_to_room(state, wanted)
        place = parse_place(text)
    except ExplorerError as error:
        return replace(state, notice=Notice(str(error), "error"))
    kvm = state.kvm
    if place.as_id >= len(kvm.memslots):
        return replace(state, notice=Notice(f"There is no address space {place.as_id}.", "error"))
    slots = kvm.active(place.as_id)
    if place.kind == "slot":
        slot = kvm.slot(place.start, place.as_id)
        if slot is None:
            return replace(state, notice=Notice(f"There is no slot {place.start} at this moment.", "error"))
        return replace(look_at(state, SlotKey(slot.as_id, slot.id)), notice=Notice(slot_words(slot)))
    if place.kind == "hva":
        found = list(slots_in_hva_range(slots, place.start, max(place.end, place.start + 1)))
        if not found:
            return replace(state, notice=Notice(f"No slot is backed by host address {hex_text(place.start)}.", "error"))
        also = f" Slots {', '.join(str(s.id) for s in found)} share this host memory." if len(found) > 1 else ""
        shown = look_at(state, SlotKey(found[0].as_id, found[0].id))
        return replace(shown, notice=Notice(slot_words(found[0]) + also))
    if place.start > kvm.config.max_gfn():
        return replace(
            state,
            notice=Notice(
                f"gfn {hex_text(place.start)} is beyond the last one, {hex_text(kvm.config.max_gfn())}.", "error"
            ),
        )
    slot = gfn_to_memslot(slots, place.start)
    room = max(place.end - place.start, 32)
    window = (max(place.start - room // 4, 0), place.end + room // 4)
    focus = SlotKey(slot.as_id, slot.id) if slot is not None else state.view.focus
    said = f"gfn {hex_text(place.start)} lies in a hole: no slot backs it."
    address = parse_quantity(text) if text.strip().lower().startswith("0x") and ".." not in text else -1
    if slot is not None:
        said = backing_words(slot, max(address, place.start << PAGE_SHIFT))
    if address >= 0 and gfn_to_memslot(slots, address) is not None:
        said += f" It was read as an address; for the page of that number write gfn:{text.strip()}."
    asked = place.start if place.end == place.start + 1 else None
    return replace(_look(state, focus=focus, window=window, page=asked), notice=Notice(said))


def _go_to_room(state: AppState, room: Room) -> AppState:
    """Bring the lowest hole that has the room into the detail."""
    key = moment_at(state.run, state.stop, focus=state.view.focus).focus
    as_id = key.as_id if key is not None and key.as_id < len(state.kvm.memslots) else 0
    first, end = -(-room.start >> PAGE_SHIFT), room.end >> PAGE_SHIFT
    pages = -(-room.size >> PAGE_SHIFT)
    fitting = [hole for hole in holes(state.kvm, as_id) if min(hole.end, end) - max(hole.start, first) >= pages]
    asked = size_text(pages << PAGE_SHIFT)
    if not fitting:
        return replace(state, notice=Notice(f"No hole has room for {asked} there.", "error"))
    hole = fitting[0]
    start = max(hole.start, first)
    margin = max(pages // 4, 8)
    window = (max(start - margin, 0), min(start + pages, hole.end) + margin)
    between = " and ".join(f"slot {slot.id}" for slot in (hole.below, hole.above) if slot is not None)
    text = (
        f"{asked} fit at {hex_text(start << PAGE_SHIFT)}: a hole of {size_text((hole.end - hole.start) << PAGE_SHIFT)}"
        f"{' beside ' + between if between else ''}. {plural(len(fitting), 'hole')} in all would do."
    )
    return replace(_look(state, focus=key, window=window), notice=Notice(text))


def look_at(state: AppState, key: SlotKey) -> AppState:
    """Bring a slot into focus."""
    return replace(_look(state, focus=key, window=None, page=None), notice=None)


def fit(state: AppState) -> AppState:
    """Forget the chosen window and focus: show what the operation is about."""
    return replace(_look(state, focus=None, window=None, page=None), notice=None)


def zoom(state: AppState, gfn: int, factor: float, shown: tuple[int, int]) -> AppState:
    """Show more or fewer pages around a gfn; one page and the whole space are the limits."""
    limit = state.kvm.config.max_gfn() + 1
    span = min(max(round((shown[1] - shown[0]) * factor), 4), limit)
    share = (gfn - shown[0]) / max(shown[1] - shown[0], 1)
    start = min(max(round(gfn - span * share), 0), limit - span)
    return _look(state, window=(start, start + span))


def pan(state: AppState, by: int, shown: tuple[int, int]) -> AppState:
    """Show the pages `by` further up; the ends of the space stop it."""
    span = shown[1] - shown[0]
    start = min(max(shown[0] + by, 0), state.kvm.config.max_gfn() + 1 - span)
    return _look(state, window=(start, start + span))


def brush(state: AppState, first: int, end: int) -> AppState:
    """Show a stretch of the line of all memory in the detail: four pages at least, the whole space at most."""
    limit = state.kvm.config.max_gfn() + 1
    first = min(max(first, 0), limit - 4)
    return _look(state, window=(first, min(max(end, first + 4), limit)))


def set_scale(state: AppState, scale: Scale) -> AppState:
    """Draw the overview collapsed, equal or linear."""
    return _look(state, scale=scale)


def _look(state: AppState, **changes: object) -> AppState:
    """Look at the run in another way, and remember how it was looked at; the opening question has no such view."""
    view = state.view._replace(**changes)  # type: ignore[arg-type]
    if view == state.view:
        return redraw(state)
    views = (*state.views, state.view)[-_VIEWS_KEPT:]
    return redraw(replace(state, view=view, views=views, question=False))


def undo_view(state: AppState) -> AppState:
    """Look at the run as before the last zoom, focus or change of scale; operations stay as they are."""
    if not state.views:
        return replace(state, notice=Notice("No zoom, focus or scale is left to undo; operations are not undone here."))
    last = state.views[-1]
    view = state.view._replace(scale=last.scale, focus=last.focus, window=last.window, page=last.page)
    return redraw(replace(state, view=view, views=state.views[:-1], notice=None))


def fitted(state: AppState, *, width: float, map_width: float, theme: str, map_height: float = 0) -> AppState:
    """Take the page's size in pixels and its theme into the view; a height of the map means the layout of a talk."""
    narrow = (width or NARROW_BELOW) < NARROW_BELOW
    plot = max((map_width or (1102 if narrow else 1160)) - (138 if narrow else 178), 300.0)
    view = state.view._replace(narrow=narrow, plot_width=round(plot), theme=theme, map_height=round(map_height))
    return redraw(replace(state, view=view)) if view != state.view else state
