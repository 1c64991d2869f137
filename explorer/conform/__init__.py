"""Recordings of real kernels, replayed in the engine and compared value by value."""

from explorer.conform.report import Mismatch, Report, conform

__all__ = ["Mismatch", "Report", "conform"]
