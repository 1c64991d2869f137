"""Runs and snapshots to frozen view-models: pure, plotly-free, and the only place that summarises."""
