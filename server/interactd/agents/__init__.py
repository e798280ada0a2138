"""Agents as folders: found, read, checked, pinned by content."""
