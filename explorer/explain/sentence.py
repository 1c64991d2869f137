"""What one moment means, in the two sentences every moment has."""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["Sentences"]


class Sentences(NamedTuple):
    """What a moment means."""

    newcomer: str
    developer: str
    """May name kernel functions, in backquotes."""
    function: str
    """Kernel function the developer's sentence is about; empty if there is none."""
