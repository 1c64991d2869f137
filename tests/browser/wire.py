"""A wire between a browser and a server that a test can cut and mend: a proxy that knows nothing but bytes."""

from __future__ import annotations

import asyncio
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from threading import Thread
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from explorer.cli.serve import HOST

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Wire", "wired"]

_PIECE = 1 << 16


class Wire:
    """Passes bytes on between its own port and a server's, unless it is cut."""

    def __init__(self, port: int) -> None:
        """Stand before the server that listens on `port`."""
        self._server_port = port
        self._open: set[asyncio.StreamWriter] = set()
        self._passing: set[asyncio.Task[None]] = set()
        self._is_cut = self._is_held = False
        self._started: Future[int] = Future()
        self._thread = Thread(target=lambda: asyncio.run(self._listen()), daemon=True)
        self._thread.start()
        self.address = f"http://{HOST}:{self._started.result()}/"
        """Where a browser reaches the server through this wire."""

    def cut(self) -> None:
        """Break every connection, and each that is tried from now on."""
        self._is_cut = True
        self._loop.call_soon_threadsafe(self._freed.set)
        self._loop.call_soon_threadsafe(self._break)

    def hold(self) -> None:
        """Let nothing through, without breaking a connection, until the wire is cut."""
        self._loop.call_soon_threadsafe(self._freed.clear)
        self._is_held = True

    def mend(self) -> None:
        """Let connections through again; those that were broken stay broken."""
        self._is_cut = self._is_held = False

    def close(self) -> None:
        """Break every connection and listen no longer."""
        self._loop.call_soon_threadsafe(self._closed.set)
        self._thread.join()

    async def _listen(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._closed, self._freed = asyncio.Event(), asyncio.Event()
        listening = await asyncio.start_server(self._pass_on, HOST, 0)
        self._started.set_result(listening.sockets[0].getsockname()[1])
        await self._closed.wait()
        listening.close()
        self._break()
        await asyncio.gather(*self._passing)

    def _break(self) -> None:
        for writer in tuple(self._open):
            writer.transport.abort()

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._is_cut:
            writer.transport.abort()
            return
        task = asyncio.current_task()
        assert task is not None
        self._passing.add(task)
        task.add_done_callback(self._passing.discard)
        try:
            from_server, to_server = await asyncio.open_connection(HOST, self._server_port)
        except OSError:  # the server is down: so is the wire's end
            writer.transport.abort()
            return
        await asyncio.gather(self._pump(reader, to_server), self._pump(from_server, writer))

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open.add(writer)
        with suppress(OSError):
            while piece := await reader.read(_PIECE):
                if self._is_held:
                    await self._freed.wait()
                writer.write(piece)
                await writer.drain()
        self._open.discard(writer)
        writer.close()


@contextmanager
def wired(address: str) -> Iterator[Wire]:
    """Put a wire before a server."""
    port = urlsplit(address).port
    assert port is not None
    wire = Wire(port)
    try:
        yield wire
    finally:
        wire.close()
