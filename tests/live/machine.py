"""Fixtures of the machine's own KVM; where there is none, a test that needs it is skipped and says why."""

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
