"""Where log lines come from: a file, standard input or bytes; plain or gzipped; however large.

Rule 1: at most one block and one line are in memory at a time.
Rule 2: a damaged end does not cost what came before it: the lines that can be read are read, and
`Source.stopped` says what is wrong.

A log is read twice (first what machine it is from, then its calls), so a source can start over. Read next:
`detect`.
"""

from __future__ import annotations

import io
import re
import shutil
import tempfile
import zlib
from typing import IO, TYPE_CHECKING

from explorer.trace.records import TraceError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

__all__ = ["LONGEST_LINE", "Source", "bytes_source", "file_source", "stream_source"]

LONGEST_LINE = 1 << 16
"""Characters; what is longer is no line of a log."""

_BLOCK = 1 << 18
_GZIP = b"\x1f\x8b"
_GZIP_WINDOW = 31  # zlib: expect a gzip header
_BOM = b"\xef\xbb\xbf"
_COLOUR = re.compile(r"\x1b\[[0-9;]*[mK]")
_OTHER_PACKERS = {
    b"\xfd7zXZ\x00": "xz",
    b"BZh": "bzip2",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"PK\x03\x04": "zip",
}


class Source:
    """Lines of one log, as often as they are asked for."""

    def __init__(self, name: str, file: IO[bytes], *, limit_bytes: int | None = None) -> None:
        """Take over `file`, which must be seekable; `limit_bytes` bounds the unpacked size."""
        self.name = name
        """What to call it in messages."""
        self.stopped: str | None = None
        """Why reading ended before the end of the log, or None; known when the last line comes."""
        self.open_line: int | None = None
        """Number of the last line if it has no end, else None; known when it comes."""
        self._file = file
        self._limit_bytes = limit_bytes

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def blocks(self) -> Iterator[bytes]:
        """Iterate over the unpacked bytes from the start, in blocks of any size.

        Raises
        ------
        TraceError
            If there are more than the limit allows, or another packer made the file.
        """
        self.stopped = None
        self._file.seek(0)
        head = self._file.read(8)
        self._file.seek(0)
        for magic, packer in _OTHER_PACKERS.items():
            if head.startswith(magic):
                raise TraceError(f"{self.name}: packed with {packer}; only gzip is unpacked here, so unpack it first")
        total = 0
        for block in self._gunzip() if head.startswith(_GZIP) else self._plain():
            clean = block.removeprefix(_BOM) if not total else block
            total += len(block)
            if self._limit_bytes is not None and total > self._limit_bytes:
                raise TraceError(
                    f"{self.name}: more than {self._limit_bytes:,} bytes of log, which is the most that is read here;"
                    " cut the log, or use `explorer replay FILE` on the command line, which has no limit"
                )
            yield clean

    def lines(self) -> Iterator[str]:
        """Iterate over the lines from the start, without their ends; bytes that are no UTF-8 are escaped."""
        carry = b""
        overlong = False
        count = 0
        self.open_line = None
        for block in self.blocks():
            text = carry + block
            cut = text.rfind(b"\n") + 1
            carry = text[cut:]
            if cut:
                lines = text[: cut - 1].decode("utf-8", "backslashreplace").split("\n")
                if overlong:  # its beginning was handed out before
                    del lines[0]
                    overlong = False
                count += len(lines)
                yield from map(_plain_text, lines) if b"\x1b" in text else lines
            if overlong:
                carry = b""
            elif len(carry) > 2 * LONGEST_LINE:
                yield carry.decode("utf-8", "backslashreplace")
                carry, overlong = b"", True
                count += 1
        if carry:
            self.open_line = count + 1
            yield _plain_text(carry.decode("utf-8", "backslashreplace"))

    def _plain(self) -> Iterator[bytes]:
        while block := self._file.read(_BLOCK):
            yield block

    def _gunzip(self) -> Iterator[bytes]:
        unpacker = zlib.decompressobj(wbits=_GZIP_WINDOW)
        fresh = True
        while chunk := self._file.read(_BLOCK):
            while chunk:
                before = unpacker.copy()
                try:
                    yield unpacker.decompress(chunk, _BLOCK)
                except zlib.error:
                    yield from _salvage(before, chunk)
                    self.stopped = "the gzip data is damaged from here on"
                    return
                fresh = False
                chunk = unpacker.unconsumed_tail
                if unpacker.eof:
                    chunk = unpacker.unused_data.lstrip(b"\0")
                    unpacker = zlib.decompressobj(wbits=_GZIP_WINDOW)
                    fresh = True
        while rest := unpacker.decompress(unpacker.unconsumed_tail, _BLOCK):
            yield rest
        if not fresh and not unpacker.eof:
            self.stopped = "the gzip data ends early: the file is cut off"


def _salvage(unpacker: zlib._Decompress, chunk: bytes) -> Iterator[bytes]:
    """Unpack byte by byte what lies before a damaged place."""
    for at in range(len(chunk)):
        try:
            yield unpacker.decompress(chunk[at : at + 1])
        except zlib.error:
            return


def _plain_text(line: str) -> str:
    return _COLOUR.sub("", line)


def file_source(path: Path) -> Source:
    """Return the source for a file.

    Raises
    ------
    TraceError
        If it cannot be opened.
    """
    try:
        file = path.open("rb")
        return Source(str(path), file) if file.seekable() else stream_source(str(path), file)
    except OSError as error:
        raise TraceError(f"{path}: {error.strerror}; expected a log: a QEMU trace or an strace log") from error


def stream_source(name: str, stream: IO[bytes]) -> Source:
    """Return the source for a stream that can be read once, such as standard input."""
    kept = tempfile.SpooledTemporaryFile(max_size=_BLOCK)  # noqa: SIM115 - the source closes it
    shutil.copyfileobj(stream, kept)
    return Source(name, kept)  # type: ignore[arg-type, unused-ignore]


def bytes_source(name: str, source: bytes | Iterable[bytes], *, limit_bytes: int) -> Source:
    """Return the source for bytes at hand.

    Raises
    ------
    TraceError
        If there are more than `limit_bytes`; no more than that is taken from an iterable.
    """
    kept = io.BytesIO()
    for part in (source,) if isinstance(source, bytes) else source:
        if kept.tell() + len(part) > limit_bytes:
            raise TraceError(
                f"{name}: more than {limit_bytes:,} bytes, which is the most that is read here;"
                " cut the log, or use `explorer replay FILE` on the command line, which has no limit"
            )
        kept.write(part)
    return Source(name, kept, limit_bytes=limit_bytes)
