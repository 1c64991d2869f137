"""The one-line form of commands: what is written can be read back, and what cannot be read says why."""

import dataclasses
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from explorer.engine.commands import (
    Begin,
    Command,
    CommandError,
    EnableCap,
    SetMemoryRegion,
    TrackGfn,
    format_command,
    parse_command,
)

U64 = st.integers(0, (1 << 64) - 1)
CHOICES = {"kind": st.sampled_from(["log", "kvmgt"]), "mode": st.sampled_from(["real", "prot", "long"])}


def commands_of(cls):
    if cls is Begin:
        return st.builds(Begin, call=commands_of(SetMemoryRegion))
    fields = {f.name: CHOICES.get(f.name, U64) for f in dataclasses.fields(cls)}
    if cls is SetMemoryRegion:
        fields["flags"] = st.one_of(st.integers(0, 8), U64)
    return st.builds(cls, **fields)


@pytest.mark.parametrize("cls", get_args(Command), ids=lambda cls: cls.__name__)
@given(data=st.data())
def test_a_command_reads_back_as_it_was_written(cls, data):
    command = data.draw(commands_of(cls))

    assert parse_command(format_command(command)) == command


@pytest.mark.parametrize(
    ("line", "command"),
    [
        (
            "set_region slot=1 gpa=0x100000 size=0x200000 hva=0x7f0000000000",
            SetMemoryRegion(slot=1, guest_phys_addr=0x100000, memory_size=0x200000, userspace_addr=0x7F0000000000),
        ),
        (
            "set_region slot=1 gpa=4096 size=0 flags=log,ro",
            SetMemoryRegion(slot=1, guest_phys_addr=4096, memory_size=0, flags=3),
        ),
        (
            "set_region slot=1 as=1 gpa=0 size=0 flags=rw",
            SetMemoryRegion(slot=1, as_id=1, guest_phys_addr=0, memory_size=0),
        ),
        ("track user=0 gfn=0x10", TrackGfn(gfn=16)),
        ("track gfn=16", TrackGfn(gfn=16)),
        ("enable_cap cap=DISABLE_QUIRKS2 arg=128", EnableCap(cap=213, arg=128)),
    ],
)
def test_a_line_is_the_command_it_says(line, command):
    assert parse_command(line) == command


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("", "empty line"),
        ("set_regoin slot=1", "'set_regoin' is no command.*set_region"),
        ("set_region slot=1", "needs gpa=, size="),
        ("set_region slot=1 gpa=0 size=0 slot=2", "slot= twice"),
        ("set_region slot=1 gpa=0 size=0 color=3", "'color=3' is no argument.*gpa="),
        ("set_region slot=1 gpa=0 size", "'size' is no argument"),
        ("set_region slot=one gpa=0 size=0", "slot=one is not a number"),
        ("set_region slot=1 gpa=0 size=0 flags=log,dirty", "log, ro and gmem"),
        ("set_region slot=-1 gpa=0 size=0", "does not fit"),
        ("set_region slot=1 gpa=0x10000000000000000 size=0", "does not fit"),
        ("attach kind=mdev", "log and kvmgt"),
        ("begin track gfn=1", "begin needs a set_region"),
        ("begin", "empty line|begin needs"),
        ("advance now=1", "takes none"),
    ],
)
def test_a_line_that_cannot_be_read_says_what_is_wrong(line, complaint):
    with pytest.raises(CommandError, match=complaint):
        parse_command(line)
