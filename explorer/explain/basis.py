"""What a statement about the kernel rests on: a function, and the kernels in which it is so.

Rule: no sentence about the kernel is shown without one; a test walks the glossary, the claims and the sentences.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from explorer.engine.profile import PROFILES
from explorer.explain.sources import is_older, release_of

if TYPE_CHECKING:
    from explorer.engine.profile import KernelProfile

__all__ = ["Basis"]


class Basis(NamedTuple):
    """Where to read that a statement is true, and for which kernels it is."""

    function: str
    """A kernel function, by its newest name; `explorer.explain.sources` knows file and older names."""
    since: str = ""
    """First release in which it is so, such as ``v6.12``; empty if it is so in the oldest kernel modelled."""
    gone: str = ""
    """First release in which it is no longer so; empty if it is so in the newest kernel modelled."""

    def holds(self, profile: KernelProfile) -> bool:
        """Return whether the statement is made for the kernel of a profile."""
        return not (self.since and is_older(profile, self.since)) and (not self.gone or is_older(profile, self.gone))

    @property
    def range_text(self) -> str:
        """The kernels, such as ``6.12 to 7.3`` or ``before 6.6``."""
        modelled = [release_of(profile) for profile in PROFILES.values()]
        first = self.since.removeprefix("v")
        if self.gone:
            return f"{first + ' and later, ' if first else ''}before {self.gone.removeprefix('v')}"
        return f"{first or modelled[0]} to {modelled[-1]}"
