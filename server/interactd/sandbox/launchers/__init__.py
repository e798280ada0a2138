"""Launchers: ways to isolate agents' code, and the choice between them."""

from __future__ import annotations

from interactd.paths import Paths
from interactd.sandbox.launchers.bubblewrap import Bubblewrap
from interactd.sandbox.launchers.install import install_command
from interactd.sandbox.launchers.settings import Settings
from interactd.sandbox.port import Launcher


def all_launchers(paths: Paths, settings: Settings | None = None) -> list[Launcher]:
    """Return every launcher, in the order in which they are preferred. Touches nothing."""
    return [Bubblewrap(paths, settings)]


__all__ = ["Settings", "all_launchers", "install_command"]
