"""Numbers, places and room as people type them."""

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from explorer.explain.quantity import Place, QuantityError, Room, parse_place, parse_quantity, parse_room


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("4096", 4096),
        ("0xC0000", 0xC0000),
        ("2M", 2 << 20),
        ("3G-16M", (3 << 30) - (16 << 20)),
        ("1 GiB + 4k", (1 << 30) + 4096),
        ("0x1000_0000", 0x1000_0000),
        ("1_000", 1000),
    ],
)
def test_a_number_is_read_with_its_units_and_sums(text, value):
    assert parse_quantity(text) == value


@pytest.mark.parametrize("text", ["", "abc", "2X", "1G-2G", "0x1_0000_0000_0000_0000", "--1", "4 096", "²"])
def test_what_is_no_number_is_said_with_one_to_write(text):
    with pytest.raises(QuantityError, match="size"):
        parse_quantity(text, what="size")


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("0xc0000", Place("gfn", 0xC0, 0xC1)),
        ("gfn:0x100", Place("gfn", 0x100, 0x101)),
        ("slot 4", Place("slot", 4, 4)),
        ("slot 1:4", Place("slot", 4, 4, 1)),
        ("hva:0x7f0000000000", Place("hva", 0x7F0000000000, 0x7F0000000000)),
        ("0xc0000..0x100000", Place("gfn", 0xC0, 0x100)),
    ],
)
def test_a_place_is_read(text, place):
    assert parse_place(text) == place


@pytest.mark.parametrize(
    ("text", "room"),
    [
        ("gap>=16M", Room(16 << 20)),
        ("gap >= 16M < 4G", Room(16 << 20, 0, 4 << 30)),
        ("gap 2M >1M <=4G-16M", Room(2 << 20, 1 << 20, (4 << 30) - (16 << 20))),
        ("0xc0000", None),
    ],
)
def test_room_is_asked_for_by_size_and_bounds(text, room):
    assert parse_room(text) == room


@pytest.mark.parametrize("text", ["gap", "gap>=", "gap>=0", "gap>=16M <", "gap>=16M below 4G", "gap>=16M <x"])
def test_room_that_cannot_be_read_is_said(text):
    with pytest.raises(QuantityError):
        parse_room(text)


@given(st.text(max_size=40))
def test_no_text_is_worse_than_a_sentence(text):
    for read in (parse_quantity, parse_place, parse_room):
        with suppress(QuantityError):
            read(text)
