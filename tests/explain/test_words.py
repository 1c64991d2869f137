"""How values are written: one way each, exact where it can be."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from explorer.engine.types import Errno
from explorer.explain.words import (
    addr_text,
    errno_text,
    hex_text,
    pages_text,
    percent_text,
    plural,
    size_text,
    span_text,
)

UNITS = {"bytes": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40, "PiB": 1 << 50}


@pytest.mark.parametrize(
    ("nbytes", "text"),
    [
        (0, "0 bytes"),
        (1, "1 bytes"),
        (4096, "4 KiB"),
        (0x20000, "128 KiB"),
        (3071 << 20, "3071 MiB"),
        (4 << 30, "4 GiB"),
        ((1 << 31) - 1 << 12, "8.0 TiB"),
        (1 << 52, "4 PiB"),
    ],
)
def test_sizes(nbytes, text):
    assert size_text(nbytes) == text


@given(st.integers(1, 1 << 52))
def test_a_size_is_exact_or_off_by_less_than_a_twentieth_of_what_it_says(nbytes):
    number, unit = size_text(nbytes).split()

    told = float(number) * UNITS[unit]

    assert told == nbytes or abs(told - nbytes) <= max(nbytes * 0.05, 1)


def test_counts_and_numbers():
    assert [plural(n, "watch") for n in (0, 1, 2, 1024)] == ["0 watches", "1 watch", "2 watches", "1,024 watches"]
    assert [plural(n, "slot") for n in (1, 2)] == ["1 slot", "2 slots"]
    assert pages_text(32) == "32 pages"
    assert [hex_text(n) for n in (0, 10, 0xD0000)] == ["0", "0xa", "0xd0000"]
    assert [addr_text(n) for n in (0, 0xA0000, 1 << 20, 1 << 32, 0xFD000000)] == [
        "0",
        "0xa0000",
        "1 MiB",
        "4 GiB",
        "0xfd000000",
    ]
    assert [percent_text(1, 3), percent_text(1, 0)] == ["33 %", "0 %"]


def test_results_are_written_as_the_caller_sees_them_with_a_real_minus():
    assert [errno_text(errno) for errno in (None, Errno.EINVAL, Errno.EEXIST)] == ["0", "−EINVAL", "−EEXIST"]


def test_a_span_is_told_by_its_first_and_last_byte():
    assert span_text(0xD0000, 0xD001F) == "0xd0000000 to 0xd001ffff · gfn 0xd0000 to 0xd001f"
