"""The machine's own KVM for every test here."""

from machine import device, host  # noqa: F401 - fixtures
