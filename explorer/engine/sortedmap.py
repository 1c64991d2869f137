"""A persistent ordered map: the one container of the engine.

Every update returns a new map and leaves the old one as it was, so a snapshot of the VM costs one
pointer and time travel is free. The map is a B+ tree of plain tuples: an update copies one leaf and
one inner node per level (three levels at 32,764 slots, four at a million counts), and the copying is
done in C. Order is needed because KVM finds a slot by the greatest ``base_gfn`` that is not
above a gfn. ``assets/docs/adr/0001-snapshots.md`` has the measurements behind the choice.

Not modelled: balance after removals. A leaf goes when it is empty and merges with its left neighbour
when both fit in one; the height never grows beyond that of the largest map it once was.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Generic, TypeVar, overload

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

__all__ = ["SortedMap"]

K = TypeVar("K")
V = TypeVar("V")
D = TypeVar("D")

# A node is (keys, value, value, ...) in a leaf and (least keys, child, child, ...) above; the height says which of
# the two it is. Plain tuples: a class would cost more than the tree does, and a tuple of the values beside that
# of the keys a twentieth of a snapshot.
_Node = tuple[Any, ...]

FANOUT = 16
_EMPTY: _Node = ((),)
_EMPTY_TREE = (_EMPTY, 0, 0)
_key_of = itemgetter(0)


class _Missing:
    """Type of the default that no caller can pass."""


_MISSING = _Missing()


class SortedMap(Generic[K, V]):
    """Immutable mapping with ordered keys; updates return a new map.

    Parameters
    ----------
    items
        Pairs ``(key, value)``; a later pair replaces an earlier one with an equal key. Keys must be
        hashable and comparable with each other.

    Notes
    -----
    ``set`` and ``discard`` cost O(log n) time and new memory; the old map shares the rest.
    """

    __slots__ = ("_height", "_root", "_size")

    _root: _Node
    _height: int
    _size: int

    def __init__(
        self, items: Iterable[tuple[K, V]] = (), root: _Node | None = None, height: int = 0, size: int = 0
    ) -> None:
        """Build from pairs; the other parameters are a tree that this module has already made."""
        if root is None:
            root, height, size = _EMPTY_TREE if items == () else _grown(items)
        self._root = root
        self._height = height
        self._size = size

    # -- reading ---------------------------------------------------------------------------------

    def __len__(self) -> int:
        """Return the number of keys."""
        return self._size

    def __bool__(self) -> bool:
        """Return whether there is a key at all."""
        return self._size > 0

    @overload
    def get(self, key: K) -> V | None: ...
    @overload
    def get(self, key: K, default: D) -> V | D: ...
    def get(self, key: K, default: D | None = None) -> V | D | None:
        """Return the value of `key`, or `default`."""
        node = self._root
        for _ in range(self._height):
            node = node[bisect_right(node[0], key) or 1]
        keys = node[0]
        at = bisect_right(keys, key)
        if at and keys[at - 1] == key:
            value: V = node[at]
            return value
        return default

    def __getitem__(self, key: K) -> V:
        """Return the value of `key`.

        Raises
        ------
        KeyError
            If there is no such key.
        """
        value = self.get(key, _MISSING)
        if isinstance(value, _Missing):
            raise KeyError(key)
        return value

    def __contains__(self, key: object) -> bool:
        """Return whether `key` is in the map."""
        return self.get(key, _MISSING) is not _MISSING  # type: ignore[arg-type]

    def floor(self, key: K) -> tuple[K, V] | None:
        """Return the pair with the greatest key that is not above `key`, or None."""
        node = self._root
        for _ in range(self._height):
            at = bisect_right(node[0], key)
            if not at:
                return None
            node = node[at]
        at = bisect_right(node[0], key)
        return (node[0][at - 1], node[at]) if at else None

    def ceiling(self, key: K) -> tuple[K, V] | None:
        """Return the pair with the least key that is not below `key`, or None."""
        for pair in self.items_from(key):
            return pair
        return None

    def items_from(self, key: K) -> Iterator[tuple[K, V]]:
        """Iterate over the pairs whose key is not below `key`, in order."""
        return _walk_from(self._root, self._height, key)

    def items(self) -> Iterator[tuple[K, V]]:
        """Iterate over all pairs in the order of the keys."""
        return _walk(self._root, self._height)

    def __iter__(self) -> Iterator[K]:
        """Iterate over the keys in order."""
        for pair in self.items():
            yield pair[0]

    def values(self) -> Iterator[V]:
        """Iterate over the values in the order of their keys."""
        for pair in self.items():
            yield pair[1]

    def last(self) -> tuple[K, V] | None:
        """Return the pair with the greatest key, or None if the map is empty."""
        if not self._size:
            return None
        node = self._root
        for _ in range(self._height):
            node = node[-1]
        return (node[0][-1], node[-1])

    # -- updating --------------------------------------------------------------------------------

    def set(self, key: K, value: V) -> SortedMap[K, V]:
        """Return a map in which `key` has `value`."""
        path, node = self._descend(key)
        keys = node[0]
        at = bisect_right(keys, key)
        size = self._size
        edited = [*node]
        if at and keys[at - 1] == key:
            edited[at] = value
        elif len(keys) < FANOUT and (at or not path):  # the usual case: no split, and no least key changes
            edited.insert(at + 1, value)
            longer = [*keys]
            longer.insert(at, key)
            edited[0] = (*longer,)
            size += 1
        else:
            edited.insert(at + 1, value)
            return self._insert(path, (*keys[:at], key, *keys[at:]), edited[1:], at)
        return self._with(path, (*edited,), size)

    def discard(self, key: K) -> SortedMap[K, V]:
        """Return a map without `key`; the same map if it has none."""
        return self.pop(key)[0]

    def pop(self, key: K) -> tuple[SortedMap[K, V], V | None]:
        """Return a map without `key`, and the value it had; the same map and None if it has none."""
        path, node = self._descend(key)
        keys = node[0]
        at = bisect_left(keys, key)
        if at == len(keys) or keys[at] != key:
            return self, None
        edited = [*node]
        value: V = edited.pop(at + 1)
        edited[0] = keys[:at] + keys[at + 1 :]
        node = (*edited,)
        if not path or (at and len(keys) > FANOUT // 2):  # the usual case: no merge, and no least key changes
            return self._with(path, node, self._size - 1), value
        for upper, i in reversed(path):
            node = _shrink(upper, i, node)
        height = self._height
        while height and len(node[0]) <= 1:
            node, height = (node[1], height - 1) if node[0] else (_EMPTY, 0)
        return SortedMap((), node, height, self._size - 1), value

    def _descend(self, key: K) -> tuple[list[tuple[_Node, int]], _Node]:
        """Return the nodes above the leaf of `key`, each with where its child stands, and the leaf."""
        path: list[tuple[_Node, int]] = []
        node = self._root
        if not self._height:
            return path, node
        for _ in range(self._height):
            at = bisect_right(node[0], key) or 1
            path.append((node, at))
            node = node[at]
        return path, node

    def _with(self, path: list[tuple[_Node, int]], node: _Node, size: int) -> SortedMap[K, V]:
        """Return the map with another node at the end of a path; the least keys on it stay."""
        while path:
            upper, i = path.pop()
            edited = [*upper]
            edited[i] = node
            node = (*edited,)
        return SortedMap((), node, self._height, size)

    def _insert(
        self, path: list[tuple[_Node, int]], keys: tuple[Any, ...], values: list[Any], at: int
    ) -> SortedMap[K, V]:
        node, right = _split(keys, values, at)
        for upper, i in reversed(path):
            least = upper[0]
            if right is None:
                node = ((*least[: i - 1], node[0][0], *least[i:]), *upper[1:i], node, *upper[i + 1 :])
            else:
                node, right = _split(
                    (*least[: i - 1], node[0][0], right[0][0], *least[i:]),
                    [*upper[1:i], node, right, *upper[i + 1 :]],
                    i,
                )
        height = self._height
        if right is not None:
            node, height = ((node[0][0], right[0][0]), node, right), height + 1
        return SortedMap((), node, height, self._size + 1)

    # -- value semantics -------------------------------------------------------------------------

    def __eq__(self, other: object) -> bool:
        """Compare by content; maps that share their tree compare at once."""
        if not isinstance(other, SortedMap):
            return NotImplemented
        if self._root is other._root:
            return True
        return self._size == other._size and all(a == b for a, b in zip(self.items(), other.items(), strict=True))

    def __hash__(self) -> int:
        """Hash by content."""
        return hash(tuple(self.items()))

    def __repr__(self) -> str:
        """Return an expression that builds an equal map."""
        return f"SortedMap({list(self.items())!r})" if self._size else "SortedMap()"


def _grown(items: Iterable[tuple[Any, Any]]) -> tuple[_Node, int, int]:
    """Return the tree of some pairs: its root, height and number of keys."""
    ordered = sorted(dict(items).items(), key=_key_of)
    if not ordered:
        return _EMPTY_TREE
    step = FANOUT * 3 // 4  # room for a few inserts before the first split
    parts = [ordered[i : i + step] for i in range(0, len(ordered), step)]
    level: list[_Node] = [(tuple([k for k, _ in part]), *[v for _, v in part]) for part in parts]
    height = 0
    while len(level) > 1:
        groups = [level[i : i + step] for i in range(0, len(level), step)]
        level = [(tuple([node[0][0] for node in group]), *group) for group in groups]
        height += 1
    return level[0], height, len(ordered)


def _split(keys: tuple[Any, ...], values: list[Any], at: int) -> tuple[_Node, _Node | None]:
    """Cut a node that became too large; an append leaves the left part full (ids mostly grow)."""
    if len(keys) <= FANOUT:
        return (keys, *values), None
    middle = FANOUT if at == FANOUT else FANOUT // 2
    return (keys[:middle], *values[:middle]), (keys[middle:], *values[middle:])


def _shrink(upper: _Node, at: int, child: _Node) -> _Node:
    """Put a child that lost an entry back, without it if empty, merged to the left if both are small."""
    keys = upper[0]
    if not child[0]:
        return (keys[: at - 1] + keys[at:], *upper[1:at], *upper[at + 1 :])
    if at > 1 and len(child[0]) + len(upper[at - 1][0]) <= FANOUT // 2:
        left = upper[at - 1]
        child = (left[0] + child[0], *left[1:], *child[1:])
        return ((*keys[: at - 2], child[0][0], *keys[at:]), *upper[1 : at - 1], child, *upper[at + 1 :])
    return ((*keys[: at - 1], child[0][0], *keys[at:]), *upper[1:at], child, *upper[at + 1 :])


def _walk(node: _Node, height: int) -> Iterator[tuple[Any, Any]]:
    if height == 0:
        yield from zip(node[0], node[1:], strict=True)
        return
    for child in node[1:]:
        yield from _walk(child, height - 1)


def _walk_from(node: _Node, height: int, key: Any) -> Iterator[tuple[Any, Any]]:
    keys = node[0]
    if height == 0:
        at = bisect_left(keys, key)
        yield from zip(keys[at:], node[at + 1 :], strict=True)
        return
    at = bisect_right(keys, key) or 1
    yield from _walk_from(node[at], height - 1, key)
    for child in node[at + 1 :]:
        yield from _walk(child, height - 1)
