"""The app without a page: what it does when nothing runs an event loop, as in a terminal."""

from __future__ import annotations

from asyncio import _get_running_loop, _set_running_loop
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(autouse=True)
def no_loop() -> Iterator[None]:
    """Take away the loop that a browser test of the same process left running, for as long as a test takes."""
    left = _get_running_loop()
    _set_running_loop(None)
    yield
    _set_running_loop(left)
