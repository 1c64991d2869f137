"""The device, for tests that need one; where there is none they are skipped and say why."""

from __future__ import annotations

import pytest

from explorer.live import Device, DeviceError, look_at_host


@pytest.fixture(scope="session")
def device():
    try:
        opened = Device()
    except DeviceError as error:
        pytest.skip(str(error))
    with opened:
        yield opened


@pytest.fixture(scope="session")
def host(device):
    return look_at_host(device)
