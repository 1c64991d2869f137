"""What Python and the page both have of pictures, up to a budget: what was not shown for longest goes, on both sides.

A run of 50,000 operations has pictures for more than any browser holds. Whoever comes back to one that went waits for
it once more, as for one that was never drawn.
"""

from __future__ import annotations

import json
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["BUDGET", "Pieces"]

BUDGET = 16_000_000
"""Characters of JSON that are kept, some 300 stops of a large VM; the page's objects take five times as much."""
_KEPT_OF_FULL = 3 / 4
"""So that it is not every stop that makes another one go."""


class Pieces:
    """Pieces of JSON by digest, the last used at the end; equal pieces are one.

    Parameters
    ----------
    budget
        Characters that may be kept.
    """

    def __init__(self, budget: int = BUDGET) -> None:
        """Start with none."""
        self._budget = budget
        self._size = 0
        self._by_digest: dict[str, str] = {}

    def __contains__(self, digest: object) -> bool:
        """Return whether a piece is kept."""
        return digest in self._by_digest

    def __getitem__(self, digest: str) -> str:
        """Return the JSON of a piece."""
        return self._by_digest[digest]

    @property
    def size(self) -> int:
        """Characters that are kept."""
        return self._size

    def add(self, piece: Any) -> str:
        """Keep a piece and return its digest."""
        text = json.dumps(piece, separators=(",", ":"), ensure_ascii=False)
        digest = blake2b(text.encode(), digest_size=9).hexdigest()
        if digest not in self._by_digest:
            self._size += len(text)
            self._by_digest[digest] = text
        return digest

    def use(self, digests: Iterable[str]) -> None:
        """Make pieces the last to go."""
        for digest in digests:
            self._by_digest[digest] = self._by_digest.pop(digest)

    def forget_oldest(self) -> list[str]:
        """Let go what is over the budget, and a quarter of it; return the digests, none while there is room."""
        gone: list[str] = []
        if self._size > self._budget:
            for digest, text in self._by_digest.items():
                if self._size <= self._budget * _KEPT_OF_FULL:
                    break
                self._size -= len(text)
                gone.append(digest)
        for digest in gone:
            del self._by_digest[digest]
        return gone
