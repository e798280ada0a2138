"""Workspaces that persist by id: made from sources, leased to one run at a time, their new files kept as artifacts."""

from interactd.sandbox.environments.capture import CaptureLimits
from interactd.sandbox.environments.environments import LocalEnvironments

__all__ = ["CaptureLimits", "LocalEnvironments"]
