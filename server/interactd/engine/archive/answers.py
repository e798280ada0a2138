"""What exports and imports answer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

Progress = Callable[[str, int], None]
"""Told what is being done and how much of it is; on the event loop, a few times a second at most."""


@dataclass(slots=True)
class Exported:
    """A finished archive."""

    path: Path
    size_bytes: int
    sha256: str
    created_at: float
    counts: dict[str, int]
    notes: list[str] = field(default_factory=list[str])
    """What somebody should know: what was withheld, what was not there, what still runs."""


@dataclass(slots=True)
class Imported:
    """What an import did, or would do."""

    path: Path
    dry_run: bool
    counts: dict[str, int]
    """What came in, by kind."""
    sessions: list[str]
    """The sessions that came in, under the ids that they have here."""
    skipped: int = 0
    """Sessions that were here already, and equal."""
    mapping: dict[str, str] = field(default_factory=dict[str, str])
    """Sessions' old ids to their new ones, where new ones were asked for."""
    notes: list[str] = field(default_factory=list[str])
