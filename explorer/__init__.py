"""Memslot Explorer: see what a KVM memory slot change does.

::

    from explorer import because, guards_of, map_of, play, tell

    run = tell("watches-lost")     # a story of the library
    map_of(run, "17.5")            # step 5 of its operation 17

Runs: `play`, `tell`, `Run`, `Stop`. The machine: `apply`, `new_vm`, `Kvm`, `VmConfig`, `PROFILES`.
Views: `map_of`, `arrays_of`, `phases_of`, `hand_off_of`, `ledger_of_move`, `effects_of`, `guards_of`,
`slots_of`, `because`, `gpu_tables_of`, `routes_of`, `calls_of`, `over_time_of`; under every kernel at once:
`verdicts_of`, `kernels_of`. The guided story as text: `guide`.
The dashboard: `App`. To read the engine, begin with `explorer.engine`.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from explorer import engine
from explorer.compiled import twins

if TYPE_CHECKING:
    from explorer.app.dashboard import App
    from explorer.engine.apply import apply
    from explorer.engine.config import VmConfig
    from explorer.engine.profile import PROFILES
    from explorer.engine.state import Kvm, new_vm
    from explorer.history import Run, Stop
    from explorer.show import (
        arrays_of,
        because,
        calls_of,
        effects_of,
        gpu_tables_of,
        guards_of,
        guide,
        hand_off_of,
        kernels_of,
        ledger_of_move,
        map_of,
        over_time_of,
        phases_of,
        play,
        routes_of,
        slots_of,
        tell,
        verdicts_of,
    )

__version__ = "0.1.0"

engine.__path__[:0] = twins()  # modules of the engine are looked for there first

__all__ = [
    "PROFILES",
    "App",
    "Kvm",
    "Run",
    "Stop",
    "VmConfig",
    "apply",
    "arrays_of",
    "because",
    "calls_of",
    "effects_of",
    "gpu_tables_of",
    "guards_of",
    "guide",
    "hand_off_of",
    "kernels_of",
    "ledger_of_move",
    "map_of",
    "new_vm",
    "over_time_of",
    "phases_of",
    "play",
    "routes_of",
    "slots_of",
    "tell",
    "verdicts_of",
]

_HOME = {
    "App": "app.dashboard",
    "Kvm": "engine.state",
    "PROFILES": "engine.profile",
    "Run": "history",
    "Stop": "history",
    "VmConfig": "engine.config",
    "apply": "engine.apply",
    "new_vm": "engine.state",
}


def __getattr__(name: str) -> object:
    """Import a public name when it is first asked for: the engine needs neither plotly nor Jupyter."""
    if name not in __all__:
        raise AttributeError(f"module 'explorer' has no attribute {name!r}")
    value = getattr(import_module(f"explorer.{_HOME.get(name, 'show')}"), name)
    globals()[name] = value
    return value
