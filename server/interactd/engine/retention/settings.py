"""How long what is kept. Times are seconds; `None` is for ever."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

_DAY: Final = 86_400.0
KEY_S: Final = _DAY


@dataclass(frozen=True, slots=True)
class RetentionSettings:
    """Times to live by kind, and where the files lie whose sizes are shown."""

    artifacts_s: float | None = None
    """Files that agents left; `None`: as long as their session."""
    exports_s: float | None = 7 * _DAY
    agents_s: float | None = 7 * _DAY
    """Copies of agents that no session pins."""
    tombstones_s: float | None = 90 * _DAY
    """What is known of a deleted session: its id, its times, its receipt."""
    every_s: float = 60.0
    busy_above: int = 16
    """With more turns running than this, removing can wait."""
    places: Mapping[str, Path] = field(default_factory=dict[str, Path])
