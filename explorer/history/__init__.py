"""Runs: commands with what they did, and places in them."""

from explorer.history.run import Cell, OpDetail, Outcome, Run, RunDraft, Stop

__all__ = ["Cell", "OpDetail", "Outcome", "Run", "RunDraft", "Stop"]
