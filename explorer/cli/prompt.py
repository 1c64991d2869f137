"""Answers of kernels that go out at once.

A connection holds a small packet back while an earlier one is unacknowledged (Nagle's algorithm), and a browser
acknowledges late: a kernel's answer, which follows a small "busy", waited 25 to 40 ms for nothing. tornado leaves the
choice to the application, and Jupyter's server does not choose.
"""

from __future__ import annotations

from typing import Any

from jupyter_server.services.kernels.connection.channels import ZMQChannelsWebsocketConnection

__all__ = ["PromptConnection"]


class PromptConnection(ZMQChannelsWebsocketConnection):
    """Jupyter's, on a socket that sends what it has."""

    def connect(self) -> Any:
        """Connect a page with its kernel; return what Jupyter's connection does."""
        self.websocket_handler.set_nodelay(True)
        return super().connect()
