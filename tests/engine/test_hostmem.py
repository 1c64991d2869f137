"""The bytes in the VMM's memory: what was stored is read, wherever it lies."""

from hypothesis import given
from hypothesis import strategies as st

from explorer.engine.draft import KvmDraft
from explorer.engine.hostmem import read_host, write_host
from explorer.engine.state import new_vm

WRITES = st.lists(st.tuples(st.integers(0, 40), st.integers(1, 16), st.integers(0, 2**128 - 1)), max_size=6)


@given(WRITES, st.integers(0, 40), st.integers(0, 16))
def test_memory_is_read_as_an_array_of_bytes_is(writes, at, nbytes):
    draft, judge = KvmDraft(new_vm(), record=False), bytearray(64)
    for hva, length, value in writes:
        write_host(draft, hva, value, length)
        judge[hva : hva + length] = (value & (1 << 8 * length) - 1).to_bytes(length, "little")

    assert read_host(draft, at, nbytes) == int.from_bytes(judge[at : at + nbytes], "little")
