"""A file system of its own for each environment, so that its size is kept by the kernel and not by looking."""

from interactd.sandbox.disks.disks import Disks, Rooms, cannot

__all__ = ["Disks", "Rooms", "cannot"]
