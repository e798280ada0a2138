"""Sessions, turns and their runs. `port.Engine` is the contract, `LocalEngine` the one that keeps it."""

from interactd.engine.local import LocalEngine
from interactd.engine.settings import EngineSettings

__all__ = ["EngineSettings", "LocalEngine"]
