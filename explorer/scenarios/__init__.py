"""Scenarios: runs as data, with a sentence and an expectation for every step."""

from explorer.scenarios.loader import (
    Scenario,
    ScenarioError,
    ScenarioStep,
    guided,
    load_scenario,
    machine_names,
    scenario_names,
)
from explorer.scenarios.walk import random_walk

__all__ = [
    "Scenario",
    "ScenarioError",
    "ScenarioStep",
    "guided",
    "load_scenario",
    "machine_names",
    "random_walk",
    "scenario_names",
]
