"""How values are written on the screen: sizes, addresses, counts, errnos. One way each."""

from __future__ import annotations

from typing import TYPE_CHECKING

from explorer.engine.types import PAGE_SHIFT

if TYPE_CHECKING:
    from explorer.engine.types import Errno

__all__ = ["addr_text", "count_text", "errno_text", "hex_text", "pages_text", "percent_text", "plural", "size_text"]

_UNITS = ("bytes", "KiB", "MiB", "GiB", "TiB", "PiB")
_SHORT = 1 << 20
_FOUR_DIGITS = 10_000
_ROUNDED_FROM = 100
"""From here on a rounded size needs no decimal."""


def size_text(nbytes: int) -> str:
    """Return a size in binary units: exact where four digits do, such as ``3071 MiB``, else rounded, ``31.8 MiB``."""
    powers = range(len(_UNITS) - 1, -1, -1)
    for power in powers:
        whole, rest = divmod(nbytes, 1 << (10 * power))
        if not rest and 0 < whole < _FOUR_DIGITS:
            return f"{whole} {_UNITS[power]}"
    for power in powers:
        value = nbytes / (1 << (10 * power))
        if value >= 1:
            return f"{value:.{0 if value >= _ROUNDED_FROM else 1}f} {_UNITS[power]}"
    return "0 bytes"


def pages_text(npages: int) -> str:
    """Return a number of pages, such as ``32 pages``."""
    return plural(npages, "page")


def plural(n: int, word: str) -> str:
    """Return a count with its word, such as ``1 slot`` or ``1,024 slots``."""
    ending = "" if n == 1 else "es" if word.endswith(("ch", "sh", "s")) else "s"
    return f"{n:,} {word}{ending}"


def hex_text(value: int) -> str:
    """Return a number as people of this field read it: hexadecimal, but 0 is ``0``."""
    return hex(value) if value else "0"


def addr_text(address: int) -> str:
    """Return a guest address for an axis: round powers of two by name, all others in hex."""
    if address >= _SHORT and address & (address - 1) == 0:
        return size_text(address)
    return hex_text(address)


def count_text(n: int) -> str:
    """Return a number with thousands separated."""
    return f"{n:,}"


def errno_text(errno: Errno | None) -> str:
    """Return a result as the kernel's caller sees it: ``0`` or ``−EINVAL``, with a real minus sign."""
    return "0" if errno is None else f"\N{MINUS SIGN}{errno.name}"


def percent_text(part: float, whole: float) -> str:
    """Return a share in whole percent."""
    return f"{round(100 * part / whole)} %" if whole else "0 %"


def span_text(first_gfn: int, last_gfn: int) -> str:
    """Return a range of pages as inclusive addresses and frame numbers."""
    return (
        f"{hex_text(first_gfn << PAGE_SHIFT)} to {hex_text(((last_gfn + 1) << PAGE_SHIFT) - 1)}"
        f" · gfn {hex_text(first_gfn)} to {hex_text(last_gfn)}"
    )
