"""Commands as ioctls: numbers and structures as the kernel's header has them, and what is no ioctl."""

from __future__ import annotations

import shutil
import struct
import subprocess

import pytest

from explorer.engine.commands import _VERBS, EnableCap, parse_command
from explorer.live.ioctls import REQUESTS, Ioctl, ioctl_of, pack

SIZE_SHIFT, SIZE_MASK = 16, 0x3FFF
"""Where an ioctl number holds the size of its argument: include/uapi/asm-generic/ioctl.h."""
WITH_A_STRUCT = {name: request for name, request in REQUESTS.items() if request.struct}
IN_OLD_HEADERS = sorted(set(WITH_A_STRUCT) - {"KVM_SET_USER_MEMORY_REGION2", "KVM_CREATE_GUEST_MEMFD"})


@pytest.mark.parametrize("name", WITH_A_STRUCT)
def test_a_structure_is_as_long_as_its_number_says(name):
    request = REQUESTS[name]

    assert struct.calcsize(request.layout) == request.number >> SIZE_SHIFT & SIZE_MASK


@pytest.mark.skipif(shutil.which("gcc") is None, reason="gcc is not installed")
def test_numbers_and_members_are_those_of_the_kernel_s_header(tmp_path):
    lines = ["#include <stddef.h>", "#include <stdio.h>", "#include <linux/kvm.h>", "int main(void) {"]
    for name in IN_OLD_HEADERS:
        lines.append(f'printf("{name} %lu", (unsigned long){name});')
        if REQUESTS[name].struct != "__u64":
            lines += [
                f'printf(" %zu", offsetof(struct {REQUESTS[name].struct}, {member}));'
                for member in REQUESTS[name].members
            ]
        lines.append('printf("\\n");')
    source = tmp_path / "numbers.c"
    source.write_text("\n".join([*lines, "return 0; }"]))
    subprocess.run(["gcc", "-o", tmp_path / "numbers", source], check=True)  # noqa: S607

    said = subprocess.run([tmp_path / "numbers"], capture_output=True, text=True, check=True).stdout

    for line in said.splitlines():
        name, number, *offsets = line.split()
        assert REQUESTS[name].number == int(number)
        assert [int(offset) for offset in offsets] == [] or member_offsets(name) == [int(o) for o in offsets]


def member_offsets(name: str) -> list[int]:
    """Return where each member begins, found by setting all bits of one at a time."""
    request = REQUESTS[name]
    found = []
    for at in range(len(request.members)):
        values = [0xFFFF_FFFF if at == other else 0 for other in range(len(request.members))]
        found.append(struct.pack(request.layout, *values).index(0xFF))
    return found


def test_a_region_call_carries_slot_and_address_space_in_one_number():
    call = ioctl_of(parse_command("set_region slot=3 as=1 gpa=0x100000 size=0x2000 hva=0x7f0000000000 flags=log"))

    assert isinstance(call, Ioctl)
    assert pack(call) == struct.pack("<IIQQQ", 0x10003, 1, 0x100000, 0x2000, 0x7F0000000000)
    assert call.memory == (0x7F0000000000, 0x2000)


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("track user=0 gfn=5", "page trackers are inside the kernel"),
        ("guest_write gpa=0x1000", "needs a guest that runs"),
        ("host_touch hva=0x1000", "never touched"),
        ("enable_cap cap=192 arg=4096", "capability 192 is not modelled"),
        ("set_region slot=65536 gpa=0 size=0x1000", "slot does not fit"),
        ("set_region slot=1 gpa=0 size=0x1000 flags=0x100000000", "flags does not fit"),
        ("clear_dirty_log slot=1 first=0 num=4294967296", "num_pages does not fit"),
    ],
)
def test_what_is_no_ioctl_of_a_bare_vm_says_why(line, why):
    reason = ioctl_of(parse_command(line))

    assert isinstance(reason, str)
    assert why in reason


def test_every_command_is_an_ioctl_or_has_a_reason():
    lines = {
        "set_region": "slot=1 gpa=0 size=0x1000",
        "set_region2": "slot=1 gpa=0 size=0x1000",
        "create_guest_memfd": "fd=5 size=0x1000",
        "get_dirty_log": "slot=1",
        "clear_dirty_log": "slot=1 first=0 num=1",
        "enable_cap": "cap=168",
        "track": "gfn=1",
        "untrack": "gfn=1",
        "shadow_tables": "gfn=1",
        "guest_write": "gpa=0",
        "guest_read": "gpa=0",
        "host_touch": "hva=0",
        "build_pt": "gpa=0 hva=0",
        "set_tss_addr": "addr=0",
        "set_identity_map_addr": "addr=0",
    }

    for verb in _VERBS:
        assert ioctl_of(parse_command(f"{verb} {lines.get(verb, '')}")), verb
    assert isinstance(ioctl_of(EnableCap(cap=213, arg=0x80)), Ioctl)
