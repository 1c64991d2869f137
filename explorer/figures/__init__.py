"""View-models to plotly figures and to document trees: pure, and the only place that builds traces."""
