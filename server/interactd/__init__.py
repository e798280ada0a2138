"""interactd: the Interactions runtime on the user's own machine."""

from interactd._version import __version__

__all__ = ["__version__"]
