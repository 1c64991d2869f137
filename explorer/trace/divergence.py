"""Which kernel a log fits: recorded results against those of every profile.

A log is replayed once for each *class* of profiles. While it is replayed it is noted which behaviours the engine asked
the profile for; a profile that gives the same answer to each of these questions would have gone the same way and is
not run again. So the time is that of a few replays, whatever the number of profiles, and bounded further by a limit of
operations, which the report states.

Read next: `abi`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, cast

from explorer.engine.profile import PROFILES, KernelProfile, get_profile
from explorer.trace.replay import DEFAULT_PROFILE, Replay

if TYPE_CHECKING:
    from explorer.trace.lift import Row
    from explorer.trace.source import Source

__all__ = ["Divergence", "Fit", "compare_profiles"]

_KEPT = 20


class Fit(NamedTuple):
    """How one profile explains a log."""

    profile: str
    operations: int
    """How many were replayed."""
    explained: int
    """Results that are the recorded ones."""
    disagreements: int
    not_compared: int
    """Operations without a recorded result, or with one that only what the log does not show explains."""
    first: tuple[Row, ...]
    """The first disagreements, in the order of the log."""
    same_as: str | None
    """A profile that answers every question of this replay alike and stands for this one; None if it was run."""


class Divergence(NamedTuple):
    """A log against all profiles."""

    fits: tuple[Fit, ...]
    """Best first; of equal ones the newest kernel first, released ones before others."""
    whole: bool
    """Whether the whole log was compared; else only its first operations."""

    @property
    def best(self) -> Fit:
        """The profile that explains most."""
        return self.fits[0]

    def of(self, profile: str) -> Fit:
        """Return how a profile does."""
        return next(fit for fit in self.fits if fit.profile == profile)


class _Asked:
    """A profile that remembers which of its behaviours were asked for; after the first time asking costs nothing."""

    def __init__(self, profile: KernelProfile) -> None:
        self.__dict__["_profile"] = profile

    def __getattr__(self, name: str) -> Any:
        value = self.__dict__[name] = getattr(self.__dict__["_profile"], name)
        return value

    def answers(self) -> dict[str, object]:
        """Return what was asked and answered."""
        return {name: value for name, value in self.__dict__.items() if name not in ("_profile", "name", "title")}


def compare_profiles(source: Source, *, limit: int | None = None) -> Divergence:
    """Replay a log as on each kernel.

    Parameters
    ----------
    source
        The log; it is read as often as there are classes of profiles.
    limit
        Most operations to replay on one profile, or None for all.

    Raises
    ------
    TraceError
        If it is no log that can be read.
    """
    names = sorted(PROFILES, key=lambda name: name != DEFAULT_PROFILE)
    fits: dict[str, Fit] = {}
    whole = True
    for name in names:
        if name in fits:
            continue
        asked = _Asked(get_profile(name))
        # Not a KernelProfile by type; it answers as one, and the engine asks nothing else of it.
        fit, complete = _fit(source, cast("KernelProfile", asked), limit)
        whole = whole and complete
        fits[name] = fit
        answers = asked.answers()
        for other, profile in PROFILES.items():
            if other not in fits and all(getattr(profile, key) == value for key, value in answers.items()):
                fits[other] = fit._replace(profile=other, same_as=name)
    return Divergence(tuple(sorted(fits.values(), key=_rank)), whole)


def _fit(source: Source, profile: KernelProfile, limit: int | None) -> tuple[Fit, bool]:
    replay = Replay(source, profile)
    operations = explained = differ = 0
    first: list[Row] = []
    complete = True
    for row in replay.rows():
        if operations == limit:
            complete = False
            break
        operations += 1
        if row.agrees is True:
            explained += 1
        elif row.agrees is False:
            differ += 1
            if len(first) < _KEPT:
                first.append(row)
    fit = Fit(profile.name, operations, explained, differ, operations - explained - differ, tuple(first), None)
    return fit, complete


def _rank(fit: Fit) -> tuple[int, int, bool, int]:
    profile = get_profile(fit.profile)
    return fit.disagreements, -fit.explained, profile.kind != "release", -list(PROFILES).index(fit.profile)
