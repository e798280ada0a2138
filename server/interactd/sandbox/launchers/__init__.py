"""Launchers: ways to isolate agents' code, and the choice between them."""

from __future__ import annotations

from interactd.paths import Paths
from interactd.sandbox.launchers.bubblewrap import Bubblewrap
from interactd.sandbox.launchers.choice import Launchers
from interactd.sandbox.launchers.container import Container
from interactd.sandbox.launchers.install import install_command
from interactd.sandbox.launchers.process import Process
from interactd.sandbox.launchers.seatbelt import Seatbelt
from interactd.sandbox.launchers.settings import Settings


def all_launchers(paths: Paths, settings: Settings | None = None) -> Launchers:
    """Return every launcher, in the order in which they are preferred. Touches nothing."""
    kinds = (Bubblewrap, Container, Seatbelt, Process)
    return Launchers([kind(paths, settings) for kind in kinds])


__all__ = ["Launchers", "Settings", "all_launchers", "install_command"]
