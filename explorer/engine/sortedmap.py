"""A persistent ordered map: the one container of the engine.

Every update returns a new map and leaves the old one as it was, so a snapshot of the VM costs one
pointer and time travel is free. The map is a B+ tree of plain tuples: an update copies one leaf and
one inner node per level (two levels at 32,764 slots, three at a million counts), and the copying is
done by C slices. Order is needed because KVM finds a slot by the greatest ``base_gfn`` that is not
above a gfn. ``assets/docs/adr/0001-snapshots.md`` has the measurements behind the choice.

Not modelled: balance after removals. A leaf goes when it is empty and merges with its left neighbour
when both fit in one; the height never grows beyond that of the largest map it once was.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from typing import TYPE_CHECKING, Any, Generic, TypeVar, overload

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

__all__ = ["SortedMap"]

K = TypeVar("K")
V = TypeVar("V")
D = TypeVar("D")

# A node is (keys, values) in a leaf and (least keys, children) above. Plain tuples: a class would
# cost more than the tree does. The height says which of the two a node is.
_Node = tuple[tuple[Any, ...], tuple[Any, ...]]

FANOUT = 48
_EMPTY: _Node = ((), ())


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

    def __new__(cls, items: Iterable[tuple[K, V]] = ()) -> SortedMap[K, V]:
        """Build from pairs; there is one empty map."""
        if items == ():
            return _EMPTY_MAP
        ordered = sorted(dict(items).items(), key=lambda pair: pair[0])  # type: ignore[arg-type, return-value]
        if not ordered:
            return _EMPTY_MAP
        step = FANOUT * 3 // 4  # room for a few inserts before the first split
        level: list[_Node] = [
            (tuple(k for k, _ in part), tuple(v for _, v in part))
            for part in (ordered[i : i + step] for i in range(0, len(ordered), step))
        ]
        height = 0
        while len(level) > 1:
            level = [
                (tuple(node[0][0] for node in part), tuple(part))
                for part in (level[i : i + step] for i in range(0, len(level), step))
            ]
            height += 1
        return _new(level[0], height, len(ordered))

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
        keys, values = self._root
        for _ in range(self._height):
            at = bisect_right(keys, key) - 1
            keys, values = values[max(0, at)]
        at = bisect_left(keys, key)
        if at < len(keys) and keys[at] == key:
            value: V = values[at]
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
        keys, values = self._root
        for _ in range(self._height):
            at = bisect_right(keys, key) - 1
            if at < 0:
                return None
            keys, values = values[at]
        at = bisect_right(keys, key) - 1
        return None if at < 0 else (keys[at], values[at])

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
        return (key for key, _ in self.items())

    def values(self) -> Iterator[V]:
        """Iterate over the values in the order of their keys."""
        return (value for _, value in self.items())

    def last(self) -> tuple[K, V] | None:
        """Return the pair with the greatest key, or None if the map is empty."""
        if not self._size:
            return None
        keys, values = self._root
        for _ in range(self._height):
            keys, values = values[-1]
        return (keys[-1], values[-1])

    # -- updating --------------------------------------------------------------------------------

    def set(self, key: K, value: V) -> SortedMap[K, V]:
        """Return a map in which `key` has `value`."""
        path, keys, values = self._descend(key)
        at = bisect_left(keys, key)
        size = self._size
        if at < len(keys) and keys[at] == key:
            edited = [*values]
            edited[at] = value
            values = (*edited,)
        elif len(keys) < FANOUT and (at or not path):  # the usual case: no split, and no least key changes
            edited = [*keys]
            edited.insert(at, key)
            keys = (*edited,)
            edited = [*values]
            edited.insert(at, value)
            values = (*edited,)
            size += 1
        else:
            return self._insert(path, (*keys[:at], key, *keys[at:]), (*values[:at], value, *values[at:]), at)
        return _new(_replaced(path, (keys, values)), self._height, size)

    def discard(self, key: K) -> SortedMap[K, V]:
        """Return a map without `key`; the same map if it has none."""
        return self.pop(key)[0]

    def pop(self, key: K) -> tuple[SortedMap[K, V], V | None]:
        """Return a map without `key`, and the value it had; the same map and None if it has none."""
        path, keys, values = self._descend(key)
        at = bisect_left(keys, key)
        if at == len(keys) or keys[at] != key:
            return self, None
        value: V = values[at]
        node: _Node = (keys[:at] + keys[at + 1 :], values[:at] + values[at + 1 :])
        if not path or (at and len(keys) > FANOUT // 2):  # the usual case: no merge, and no least key changes
            return _new(_replaced(path, node), self._height, self._size - 1), value
        for upper_keys, children, i in reversed(path):
            node = _shrink(upper_keys, children, i, node)
        height = self._height
        while height and len(node[0]) <= 1:
            node, height = (node[1][0], height - 1) if node[0] else (_EMPTY, 0)
        return _new(node, height, self._size - 1), value

    def _descend(self, key: K) -> tuple[list[tuple[tuple[Any, ...], tuple[Any, ...], int]], Any, Any]:
        path: list[tuple[tuple[Any, ...], tuple[Any, ...], int]] = []
        keys, values = self._root
        for _ in range(self._height):
            at = bisect_right(keys, key)
            if at:
                at -= 1
            path.append((keys, values, at))
            keys, values = values[at]
        return path, keys, values

    def _insert(
        self,
        path: list[tuple[tuple[Any, ...], tuple[Any, ...], int]],
        keys: tuple[Any, ...],
        values: tuple[Any, ...],
        at: int,
    ) -> SortedMap[K, V]:
        node, right = _split(keys, values, at)
        for upper_keys, children, i in reversed(path):
            if right is None:
                node = ((*upper_keys[:i], node[0][0], *upper_keys[i + 1 :]), (*children[:i], node, *children[i + 1 :]))
            else:
                node, right = _split(
                    (*upper_keys[:i], node[0][0], right[0][0], *upper_keys[i + 1 :]),
                    (*children[:i], node, right, *children[i + 1 :]),
                    i + 1,
                )
        height = self._height
        if right is not None:
            node, height = ((node[0][0], right[0][0]), (node, right)), height + 1
        return _new(node, height, self._size + 1)

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


def _replaced(path: list[tuple[tuple[Any, ...], tuple[Any, ...], int]], node: _Node) -> _Node:
    """Return the root with another node at the end of a path; the least keys on it stay."""
    while path:
        upper_keys, children, i = path.pop()
        edited = [*children]
        edited[i] = node
        node = (upper_keys, (*edited,))
    return node


def _new(root: _Node, height: int, size: int) -> SortedMap[Any, Any]:
    self: SortedMap[Any, Any] = object.__new__(SortedMap)
    self._root = root
    self._height = height
    self._size = size
    return self


_EMPTY_MAP: SortedMap[Any, Any] = _new(_EMPTY, 0, 0)


def _split(keys: tuple[Any, ...], values: tuple[Any, ...], at: int) -> tuple[_Node, _Node | None]:
    """Cut a node that became too large; an append leaves the left part full (ids mostly grow)."""
    if len(keys) <= FANOUT:
        return (keys, values), None
    middle = FANOUT if at == FANOUT else FANOUT // 2
    return (keys[:middle], values[:middle]), (keys[middle:], values[middle:])


def _shrink(keys: tuple[Any, ...], children: tuple[Any, ...], at: int, child: _Node) -> _Node:
    """Put a child that lost an entry back, without it if empty, merged to the left if both are small."""
    if not child[0]:
        return (keys[:at] + keys[at + 1 :], children[:at] + children[at + 1 :])
    if at and len(child[0]) + len(children[at - 1][0]) <= FANOUT // 2:
        left = children[at - 1]
        child = (left[0] + child[0], left[1] + child[1])
        return ((*keys[: at - 1], child[0][0], *keys[at + 1 :]), (*children[: at - 1], child, *children[at + 1 :]))
    return ((*keys[:at], child[0][0], *keys[at + 1 :]), (*children[:at], child, *children[at + 1 :]))


def _walk(node: _Node, height: int) -> Iterator[tuple[Any, Any]]:
    if height == 0:
        yield from zip(*node, strict=True)
        return
    for child in node[1]:
        yield from _walk(child, height - 1)


def _walk_from(node: _Node, height: int, key: Any) -> Iterator[tuple[Any, Any]]:
    keys, values = node
    if height == 0:
        at = bisect_left(keys, key)
        yield from zip(keys[at:], values[at:], strict=True)
        return
    at = max(bisect_right(keys, key) - 1, 0)
    if at < len(values):
        yield from _walk_from(values[at], height - 1, key)
    for child in values[at + 1 :]:
        yield from _walk(child, height - 1)
