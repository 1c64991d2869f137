"""What a log says of the machine it is from, found before its first call is replayed.

The number of address spaces is fixed when a VM is made, but a log shows it only later: by a call in address
space 1 that worked, or by the answer to KVM_CHECK_EXTENSION. Hence a first, quick reading over the raw bytes.

Read next: `replay`.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

__all__ = ["Clues", "find_clues"]

_FIRST_SLOT_OF_SPACE_1 = 1 << 16
_LONGEST = 1 << 18
_SPACE = re.compile(rb"AddrSpace#[1-9][^\n]{0,400}")
_SLOT = re.compile(rb"lot[=#](0x[0-9a-f]{5,8}|\d{5,10})\b[^\n]{0,400}")
_WORKED = re.compile(rb" ret=0(?:x0)?\s*$|\)\s+= 0(?:x0)?(?:\s|$)")
_CAPABILITY = re.compile(
    rb"(?:KVM_CHECK_EXTENSION|0xae03)[^\n]{0,40}, (?:\w+=)?"
    rb"(?:(KVM_CAP_MULTI_ADDRESS_SPACE|0x76\b)|KVM_CAP_NR_MEMSLOTS|0xa\b)[^\n]{0,60}\)\s+= (0x[0-9a-f]{1,8}|\d{1,9})\b"
)
_JSON_SPACE = re.compile(rb'^\{[^\n]{0,400}(?:"as_id": ?[1-9]|\bas=[1-9])[^\n]{0,900}', re.MULTILINE)
_CAPABILITY_TEXTS = (b"MULTI_ADDRESS_SPACE", b"0x76", b"NR_MEMSLOTS", b", 0xa")


class Clues(NamedTuple):
    """What was found."""

    second_space: str | None
    """How the log shows that VMs have a second address space, or None if it does not."""
    user_mem_slots: int | None
    """How many slots KVM said that it has, or None."""


def find_clues(blocks: Iterable[bytes]) -> Clues:
    """Look through the raw bytes of a log."""
    second_space: str | None = None
    user_mem_slots: int | None = None
    for text in _whole_lines(blocks):
        if second_space is None and _works_in_space_1(text):
            second_space = "a call in it succeeded"
        if any(word in text for word in _CAPABILITY_TEXTS):
            for found in _CAPABILITY.finditer(text):
                answer = _number(found[2])
                if found[1] is None:
                    user_mem_slots = answer
                elif answer > 1 and second_space is None:
                    second_space = "KVM_CHECK_EXTENSION says so"
    return Clues(second_space, user_mem_slots)


def _works_in_space_1(text: bytes) -> bool:
    if b"AddrSpace#" in text and any(_WORKED.search(found[0]) for found in _SPACE.finditer(text)):
        return True
    if text.startswith(b"{") and any(_json_worked(found[0]) for found in _JSON_SPACE.finditer(text)):
        return True
    return any(
        _number(found[1]) >= _FIRST_SLOT_OF_SPACE_1 and _WORKED.search(found[0]) for found in _SLOT.finditer(text)
    )


def _json_worked(line: bytes) -> bool:
    if b'"recorded_ret"' in line:
        return re.search(rb'"recorded_ret": ?0', line) is not None
    return b'"base_gfn"' in line or re.search(rb'"errno": ?null', line) is not None


def _number(text: bytes) -> int:
    return int(text, 16) if text.startswith(b"0x") else int(text)


def _whole_lines(blocks: Iterable[bytes]) -> Iterator[bytes]:
    carry = b""
    for block in blocks:
        cut = block.rfind(b"\n") + 1
        if cut:
            yield carry + block[:cut]
            carry = block[cut:]
        else:
            carry = (carry + block)[-_LONGEST:]
    yield carry
