"""Runs for tests: told in the one-line grammar, or made at random; and a walk through all their moments."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hypothesis import strategies as st

from explorer.engine.commands import (
    AttachTracker,
    ClearDirtyLog,
    Command,
    DetachTracker,
    EnableCap,
    GetDirtyLog,
    GuestWrite,
    SetMemoryRegion,
    ShadowTables,
    TrackGfn,
    UntrackGfn,
    parse_command,
)
from explorer.engine.config import VmConfig
from explorer.engine.profile import PROFILES
from explorer.history import Run, Stop
from explorer.history.moment import Moment, moment_at

if TYPE_CHECKING:
    from collections.abc import Iterator

H = 0x7F00_0000_0000
NPAGES = 16
SLOT = "set_region slot=10 gpa=0xd0000000 size=0x20000 hva=0x100000000000"
"""The slot of the scenarios: 32 pages at gfn 0xd0000."""
MOVE = "set_region slot=10 gpa=0xd0200000 size=0x20000 hva=0x100000000000"
DELETE = "set_region slot=10 gpa=0 size=0"
LOG_ON = SLOT + " flags=log"
TABLES = "shadow_tables gfn=0xd0010 levels=4"
QUIRK_OFF = "enable_cap cap=DISABLE_QUIRKS2 arg=0x80"
WATCHED = (SLOT, TABLES)
"""Shadow paging watches 0xd0010 to 0xd0012."""
KVMGT = (*WATCHED, "attach kind=kvmgt", "track gfn=0xd0010", "track gfn=0xd0003")
"""And KVMGT watches two pages, one of them the same."""
LOGGER = (*WATCHED, "attach kind=log", "track gfn=0xd0010", "track gfn=0xd0003")
ALL_PROFILES = tuple(PROFILES)
REFUSES_A_MOVE = ("v6_6", "v6_12_quirk_posted", "v6_12", "v6_18", "v7_3")
"""Profiles in which a MOVE with an external tracker is refused: kernel-reference 4.6."""


def run_of(profile: str, *lines: str, **config: object) -> Run:
    machine = VmConfig(**config)  # type: ignore[arg-type]
    return Run.new(profile, machine, [parse_command(line) for line in lines])


def moments(run: Run) -> Iterator[Moment]:
    """Yield every moment of a run, from its start to its end."""
    yield moment_at(run, Stop(-1, 0))
    for op in range(len(run)):
        for cell in range(len(run.detail(op).cells)):
            yield moment_at(run, Stop(op, cell))


def end_of(run: Run) -> Moment:
    return moment_at(run, run.last_stop)


def at_word(run: Run, word: str, op: int = -1) -> Moment:
    """Return the first moment of an operation whose step has a word, such as ``zap``."""
    number = op % len(run)
    cells = run.detail(number).cells
    return moment_at(run, Stop(number, next(at for at, cell in enumerate(cells) if cell.word == word)))


PROFILE = st.sampled_from(ALL_PROFILES)
_SLOT = st.sampled_from([0, 1, 2])
_GFN = st.sampled_from([0x100, 0x108, 0x110, 0x120, 0x200, 0x1F8, 0x3FF0])
_PAGE = st.builds(int.__add__, _GFN, st.integers(0, NPAGES))
_USER = st.sampled_from([0, 1])
_SPACE = st.sampled_from([0, 0, 0, 1])


def _region(slot: int, gfn: int, as_id: int, *, npages: int, flags: int) -> SetMemoryRegion:
    # One host address for all: a slot that is asked for elsewhere is a MOVE, not another slot.
    return SetMemoryRegion(
        slot=slot,
        as_id=as_id,
        guest_phys_addr=gfn << 12,
        memory_size=npages << 12,
        userspace_addr=H,
        flags=flags,
    )


REGION = st.builds(
    _region,
    _SLOT,
    _GFN,
    _SPACE,
    npages=st.sampled_from([NPAGES, NPAGES, NPAGES, NPAGES, 0, 0, 5]),
    flags=st.sampled_from([0, 0, 0, 1, 2, 8]),
)
COMMAND: st.SearchStrategy[Command] = st.one_of(
    REGION,
    REGION,
    REGION,
    st.builds(ShadowTables, gfn=_PAGE, levels=st.integers(1, 5), as_id=_SPACE),
    st.builds(AttachTracker, user=_USER, kind=st.sampled_from(["log", "kvmgt"])),
    st.builds(DetachTracker, user=_USER),
    st.builds(TrackGfn, user=_USER, gfn=_PAGE),
    st.builds(TrackGfn, user=_USER, gfn=_PAGE),
    st.builds(UntrackGfn, user=_USER, gfn=_PAGE),
    st.builds(GuestWrite, gpa=st.builds(lambda gfn: gfn << 12, _PAGE), as_id=_SPACE),
    st.builds(GetDirtyLog, slot=_SLOT),
    st.builds(ClearDirtyLog, slot=_SLOT, first_page=st.sampled_from([0, 64]), num_pages=st.sampled_from([NPAGES, 5])),
    st.builds(EnableCap, cap=st.sampled_from([168, 213]), arg=st.sampled_from([0, 1, 128])),
)


@st.composite
def random_runs(draw: st.DrawFn, most: int = 20) -> Run:
    """Draw a run on any profile, with shadow paging or, more rarely, TDP, in which most calls meet a slot.

    It begins with a slot; pages that are tracked, shadowed or written mostly lie in slots there are.
    """
    run = Run.new(draw(PROFILE), VmConfig(tdp=draw(st.sampled_from([False, False, False, True]))))
    run = run.then(_region(0, draw(_GFN), 0, npages=NPAGES, flags=draw(st.sampled_from([0, 1]))))
    for _ in range(draw(st.integers(most // 2, most))):
        run = run.then(draw(COMMAND) if draw(st.integers(0, 5)) == 0 else _likely(draw, run))
    return run


def _likely(draw: st.DrawFn, run: Run) -> Command:
    """Draw a command that has to do with a slot there is; any command if there is none."""
    slots = run.end.slots()
    if not slots:
        return draw(REGION)
    slot = draw(st.sampled_from(slots))
    page = slot.base_gfn + draw(st.integers(0, slot.npages - 1))
    match draw(
        st.sampled_from(["move", "move", "shadow", "track", "track", "attach", "region", "write", "flags", "other"])
    ):
        case "move":
            return _region(slot.id, draw(_GFN), 0, npages=slot.npages, flags=slot.flags)
        case "flags":
            return _region(slot.id, slot.base_gfn, 0, npages=slot.npages, flags=slot.flags ^ 1)
        case "shadow":
            return ShadowTables(gfn=page, levels=draw(st.integers(1, 5)))
        case "track":
            return TrackGfn(user=draw(_USER), gfn=page)
        case "attach":
            return AttachTracker(user=draw(_USER), kind=draw(st.sampled_from(["log", "kvmgt"])))
        case "write":
            return GuestWrite(gpa=page << 12)
        case "region":
            return draw(REGION)
        case _:
            return draw(COMMAND)
