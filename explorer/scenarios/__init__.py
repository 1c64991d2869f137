"""Scenarios: runs as data, with a sentence and an expectation for every step."""

from explorer.scenarios.loader import Scenario, ScenarioError, ScenarioStep, guided, load_scenario, scenario_names

__all__ = ["Scenario", "ScenarioError", "ScenarioStep", "guided", "load_scenario", "scenario_names"]
