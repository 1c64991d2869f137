"""The dashboard: one frozen state, panels that show it, a stage that draws it. The only place with callbacks."""
