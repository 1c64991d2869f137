"""The addresses of some lives on one axis: a row for each stretch between two borders, holes collapsed, heights log."""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from itertools import groupby, pairwise
from math import log2
from typing import TYPE_CHECKING, Literal, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from explorer.history.lives import Life

__all__ = ["Row", "Rows", "rows_of"]

_GAP = 9.0
_BASE, _PER_DOUBLING = 4.5, 1.15
"""Height of a row: with each doubling of its pages it grows by the second."""
_LEAST_SCALE, _MOST_SCALE = 0.34, 5.0
"""Of the heights: less and single pages could not be seen, more and a single slot would be a wall."""
_FEWEST_PACKED = 3


class Row(NamedTuple):
    """A stretch of addresses and its place, in pixels from the top."""

    first_gfn: int
    end_gfn: int
    kind: Literal["slots", "gap", "packed"]
    top: float
    bottom: float
    slots: int = 0
    """For ``packed``: how many slots it stands for."""

    @property
    def middle(self) -> float:
        """Half of its height."""
        return (self.top + self.bottom) / 2


class Rows(NamedTuple):
    """The axis."""

    rows: tuple[Row, ...]
    """By address, from the lowest."""
    fits: bool
    """Whether a single page can still be seen."""

    def at(self, gfn: int) -> Row | None:
        """Return the row of a page; None beyond all of them."""
        number = bisect_right(self.rows, gfn, key=lambda row: row.first_gfn) - 1
        return self.rows[number] if number >= 0 and gfn < self.rows[number].end_gfn else None

    def span(self, life: Life) -> tuple[float, float]:
        """Return top and bottom of the rows of a life."""
        low, high = self.at(life.base_gfn), self.at(life.end_gfn - 1)
        assert low is not None, "a life has rows of its own"
        assert high is not None, "a life has rows of its own"
        return high.top, low.bottom

    def middle(self, gfn: int) -> float:
        """Return the height that stands for a page; one beyond all rows is at the nearer edge."""
        row = self.at(gfn)
        if row is None:
            return self.rows[-1].top if self.rows else 0.0
        if row.kind != "slots":
            return row.middle
        share = (gfn - row.first_gfn + 0.5) / (row.end_gfn - row.first_gfn)
        return row.bottom - share * (row.bottom - row.top)


class _Piece(NamedTuple):
    first_gfn: int
    end_gfn: int
    kind: Literal["slots", "gap", "packed"]
    still: bool
    """Whether nothing begins or ends here."""
    slots: int = 0
    pages: int = 0

    @property
    def tall(self) -> float:
        if self.kind == "gap":
            return _GAP
        return _BASE + _PER_DOUBLING * log2((self.pages or self.end_gfn - self.first_gfn) + 1)


def rows_of(changing: Sequence[Life], still: Sequence[Life], height: float, *, beyond: int = 0) -> Rows:
    """Return the axis of some lives.

    Parameters
    ----------
    changing, still
        Lives that begin or end in what is shown, and those that are there all the time; of these, neighbours are
        packed into one row where there is little room.
    height
        Pixels there are.
    beyond
        A gfn that must have a row, too; above all slots it is one more hole.
    """
    pieces = _pieces(changing, still, beyond)
    if sum(piece.tall for piece in pieces) * _LEAST_SCALE > height:
        pieces = [packed for is_still, run in groupby(pieces, _is_still) for packed in _packed(list(run), is_still)]
    total = sum(piece.tall for piece in pieces)
    scale = min(height / total, _MOST_SCALE) if total else 1.0
    rows, bottom = [], height
    for piece in pieces:
        top = bottom - piece.tall * scale
        rows.append(Row(piece.first_gfn, piece.end_gfn, piece.kind, top, bottom, piece.slots))
        bottom = top
    return Rows(tuple(rows), scale >= _LEAST_SCALE)


def _pieces(changing: Sequence[Life], still: Sequence[Life], beyond: int) -> list[_Piece]:
    moving, resting = _borders(changing), _borders(still)
    borders = sorted({0, *moving, *resting})
    if beyond >= borders[-1]:
        borders.append(beyond + 1)
    pieces, moves, rests = [], 0, 0
    for first, end in pairwise(borders):
        moves, rests = moves + moving[first], rests + resting[first]
        pieces.append(_Piece(first, end, "slots" if moves or rests else "gap", still=not moves))
    return pieces


def _borders(lives: Iterable[Life]) -> Counter[int]:
    found: Counter[int] = Counter()
    for life in lives:
        found[life.base_gfn] += 1
        found[life.end_gfn] -= 1
    return found


def _is_still(piece: _Piece) -> bool:
    return piece.still


def _packed(run: list[_Piece], is_still: bool) -> list[_Piece]:
    """Return neighbours that stay as they are as one piece; the holes at both ends stay holes."""
    full = [at for at, piece in enumerate(run) if piece.kind == "slots"]
    if not is_still or len(full) < _FEWEST_PACKED:
        return run
    first, last = full[0], full[-1]
    pages = sum(run[at].end_gfn - run[at].first_gfn for at in full)
    one = _Piece(run[first].first_gfn, run[last].end_gfn, "packed", True, len(full), pages)
    return [*run[:first], one, *run[last + 1 :]]
