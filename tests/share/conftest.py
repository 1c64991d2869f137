"""What the exports are tried with."""

from __future__ import annotations

import shutil

import pytest
from machine import device, host  # noqa: F401 - fixtures


@pytest.fixture(scope="session")
def gcc():
    found = shutil.which("gcc")
    if found is None:
        pytest.skip("gcc is not installed")
    return found
