"""What a story asks its visitor to look for, and its place in the guided story."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from explorer.scenarios import guided, load_scenario, scenario_names

if TYPE_CHECKING:
    from explorer.engine.profile import KernelProfile

__all__ = ["BeatLink", "BeatView", "select_beat"]


class BeatLink(NamedTuple):
    """A neighbouring beat."""

    name: str
    """Id of its scenario."""
    label: str


class BeatView(NamedTuple):
    """The card of a story."""

    place: str
    """Such as ``Beat 2 of 9``; ``Story`` for one that is not part of the guided story."""
    title: str
    look: str
    """What to look for; empty once that is over."""
    other_kernel: str
    """A sentence if the story is told on another kernel than the one chosen; empty otherwise."""
    previous: BeatLink | None
    following: BeatLink | None


def select_beat(story: str, profile: KernelProfile, *, done: bool = False) -> BeatView | None:
    """Return the card of a story, whose operation may be `done`; None for a run that is no story."""
    if story not in scenario_names():
        return None
    scenario = load_scenario(story)
    beats = guided()
    at = scenario.beat
    other = profile is not scenario.profile
    return BeatView(
        f"Beat {at} of {len(beats)}" if at is not None else "Story",
        scenario.title,
        scenario.then if done else scenario.look,
        f"Told on {scenario.profile.title}; now on {profile.title}: what differs?" if other else "",
        _link(at - 1) if at is not None and at > 1 else None,
        _link(at + 1) if at is not None and at < len(beats) else None if at is not None else _link(1),
    )


def _link(beat: int) -> BeatLink:
    scenario = guided()[beat - 1]
    return BeatLink(scenario.id, scenario.title)
