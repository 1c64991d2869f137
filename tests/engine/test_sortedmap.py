"""The persistent map and the set of runs do what dict and set do, and old versions stay as they were."""

import itertools

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from explorer.engine import sortedmap
from explorer.engine.runset import RunSet
from explorer.engine.sortedmap import SortedMap


@pytest.fixture(params=[3, 4, 16])
def fanout(request, monkeypatch):
    """Small nodes make short lists of operations reach splits and merges at several levels."""
    monkeypatch.setattr(sortedmap, "FANOUT", request.param)


KEYS = st.integers(0, 60)
OPS = st.lists(st.tuples(st.sampled_from(["set", "set", "discard"]), KEYS, st.integers(0, 3)), max_size=120)


def same(found: SortedMap[int, int], expected: dict[int, int]) -> None:
    assert list(found.items()) == sorted(expected.items())
    assert list(found) == sorted(expected)
    assert list(found.values()) == [expected[key] for key in sorted(expected)]
    assert (len(found), bool(found)) == (len(expected), bool(expected))


@pytest.mark.usefixtures("fanout")
@settings(max_examples=150)
@given(st.dictionaries(KEYS, st.integers(0, 3)), OPS)
def test_every_version_of_a_map_equals_the_dict_it_was_made_beside(start, ops):
    now, judge = SortedMap(start.items()), dict(start)
    versions = [(now, dict(judge))]
    for op, key, value in ops:
        if op == "set":
            now = now.set(key, value)
            judge[key] = value
        else:
            now = now.discard(key)
            judge.pop(key, None)
        versions.append((now, dict(judge)))

    for version, expected in versions:
        same(version, expected)
        assert version == SortedMap(expected.items())
        assert hash(version) == hash(SortedMap(expected.items()))


@pytest.mark.usefixtures("fanout")
@settings(max_examples=150)
@given(OPS, KEYS)
def test_a_map_finds_what_a_scan_of_its_keys_finds(ops, key):
    found, judge = SortedMap(), {}
    for op, at, value in ops:
        found = found.set(at, value) if op == "set" else found.discard(at)
        judge = judge | {at: value} if op == "set" else {k: v for k, v in judge.items() if k != at}

    below, above = [k for k in judge if k <= key], [k for k in judge if k >= key]
    assert found.get(key) == judge.get(key)
    assert found.get(key, "none") == judge.get(key, "none")
    assert (key in found) == (key in judge)
    assert found.floor(key) == ((max(below), judge[max(below)]) if below else None)
    assert found.ceiling(key) == ((min(above), judge[min(above)]) if above else None)
    assert found.last() == ((max(judge), judge[max(judge)]) if judge else None)
    assert list(found.items_from(key)) == [(k, judge[k]) for k in sorted(above)]


def test_a_large_map_grows_shrinks_and_empties():
    """Three levels and back, at the size of a VM with as many slots as KVM allows."""
    keys = [(i * 7919) % 32771 for i in range(32771)]
    full = SortedMap((key, -key) for key in keys)
    grown = SortedMap()
    for key in keys[:3000]:
        grown = grown.set(key, -key)
    same(grown, {key: -key for key in keys[:3000]})

    for key in keys[:2990]:
        grown = grown.discard(key)

    same(grown, {key: -key for key in keys[2990:3000]})
    assert (len(full), full[32770], full.floor(40000)) == (32771, -32770, (32770, -32770))


def test_an_absent_key_says_which():
    with pytest.raises(KeyError, match="7"):
        SortedMap([(1, 2)])[7]


def test_a_map_is_written_as_an_expression_that_builds_it():
    for found in (SortedMap(), SortedMap([(2, "b"), (1, "a")])):
        assert eval(repr(found)) == found  # noqa: S307 - our own repr


def test_a_map_equals_no_dict():
    assert SortedMap([(1, 2)]) != {1: 2}
    assert SortedMap() == SortedMap([])


RUN_OPS = st.lists(
    st.one_of(
        st.tuples(st.just("add"), st.integers(0, 80), st.just(0)),
        st.tuples(st.just("remove"), st.integers(0, 80), st.integers(0, 90)),
    ),
    max_size=60,
)


@given(st.integers(0, 70), st.integers(0, 70), RUN_OPS)
@example(0, 70, [("remove", 10, 20), ("add", 9, 0), ("add", 10, 0), ("add", 19, 0)])
def test_every_version_of_a_run_set_equals_the_set_it_was_made_beside(start, end, ops):
    now, judge = RunSet.span(start, end), set(range(start, end))
    versions = [(now, set(judge))]
    for op, first, last in ops:
        now = now.add(first) if op == "add" else now.remove_span(first, last)
        judge = judge | {first} if op == "add" else judge - set(range(first, last))
        versions.append((now, judge))

    for version, expected in versions:
        assert list(version) == sorted(expected)
        assert len(version) == len(expected)
        assert [i for i in range(82) if i in version] == sorted(expected)
        runs = list(version.runs())
        assert all(left[1] < right[0] for left, right in itertools.pairwise(runs)), "runs never touch"


def test_run_sets_are_equal_by_content_however_they_came_about():
    one = RunSet.span(0, 3)
    other = RunSet().add(2).add(0).add(1)

    assert one == other
    assert hash(one) == hash(other)
    assert one != RunSet.span(0, 4)
    assert "1" not in one
