"""Linux namespaces through bubblewrap: the default launcher."""

from interactd.sandbox.launchers.bubblewrap.launcher import Bubblewrap

__all__ = ["Bubblewrap"]
