"""What `explorer serve` is asked for, and what it asks of Voila."""

from __future__ import annotations

import asyncio
import socket
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from jupyter_server.services.kernels.connection.channels import ZMQChannelsWebsocketConnection
from tornado.httpserver import HTTPServer
from tornado.testing import bind_unused_port
from tornado.web import Application
from tornado.websocket import WebSocketHandler, websocket_connect
from traitlets import Any

from explorer.cli import main
from explorer.cli.prompt import PromptConnection
from explorer.cli.serve import HOST, voila_command

NOTEBOOK = Path("90_dashboard.ipynb")


@pytest.mark.parametrize("text", ["soon", "-1", "0", "nan", "inf", "1e9"])
def test_an_idle_time_that_is_none_is_refused_in_words(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["serve", f"--idle={text}"])

    assert f"'{text}' is no number of minutes; write one such as 30" in capsys.readouterr().err


def test_only_who_asks_for_it_has_sessions_with_an_open_tab_ended() -> None:
    asked = voila_command(NOTEBOOK, 1, preheat=1, idle_minutes=5)
    assert "--MappingKernelManager.cull_idle_timeout=300" in asked
    assert "--MappingKernelManager.cull_connected=True" in asked

    assert "--MappingKernelManager.cull_connected=False" in voila_command(NOTEBOOK, 1, preheat=1)


def test_an_answer_does_not_wait_for_the_acknowledgement_of_the_one_before(monkeypatch: pytest.MonkeyPatch) -> None:
    """On the socket of a real server; only Jupyter's own part, which wants a kernel, is left out."""
    delays: list[int] = []

    class Connection(PromptConnection):
        websocket_handler = Any()  # Jupyter's insists on its own

    class Handler(WebSocketHandler):
        def open(self) -> None:
            server_side = self.ws_connection.stream.socket
            delays.append(server_side.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
            Connection(websocket_handler=self).connect()
            delays.append(server_side.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
            self.write_message("connected")

    async def visit() -> None:
        listening, port = bind_unused_port(address=HOST)
        server = HTTPServer(Application([("/", Handler)]))
        server.add_socket(listening)
        page = await websocket_connect(f"ws://{HOST}:{port}/")
        assert await page.read_message() == "connected"
        page.close()
        server.stop()

    monkeypatch.setattr(ZMQChannelsWebsocketConnection, "connect", lambda _self: None)
    with ThreadPoolExecutor(1) as own_thread:  # a browser test of the same worker has a loop running in this one
        own_thread.submit(asyncio.run, visit()).result()

    before, after = delays
    assert (before, bool(after)) == (0, True)


def test_the_page_s_connections_and_kernels_are_ours() -> None:
    asked = voila_command(NOTEBOOK, 1, preheat=1)

    assert "--Voila.kernel_websocket_connection_class=explorer.cli.prompt.PromptConnection" in asked
    assert "--VoilaConfiguration.multi_kernel_manager_class=explorer.cli.idle.VisitorKernelManager" in asked
