"""Agents as folders: found, read, checked, pinned by content."""

from __future__ import annotations

from interactd.agents.library import AgentFolders, as_text, place_of, validate
from interactd.agents.scaffold import create

__all__ = ["AgentFolders", "as_text", "create", "place_of", "validate"]
