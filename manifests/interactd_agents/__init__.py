"""The agent folders that ship with interactd."""

from __future__ import annotations

from pathlib import Path

FOLDER = Path(__file__).parent
"""Each folder in here that has an agent.yaml is an agent, named by its id."""
