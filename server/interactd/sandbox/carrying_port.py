"""What an export takes out of environments and kept files, and an import puts back."""

from __future__ import annotations

from asyncio import AbstractEventLoop
from collections.abc import Callable
from pathlib import Path
from typing import IO, Protocol, runtime_checkable

from interactd.nouns import Json

Go = Callable[[], None]
"""Called often during long work; raises when the work is to stop."""


class Unsafe(ValueError):
    """A packed workspace that does not unpack into a workspace; the message says which part of it."""


@runtime_checkable
class Carrier(Protocol):
    """Blocking, but for `attach` and `place`: called from worker threads."""

    def attach(self, loop: AbstractEventLoop) -> None:
        """Say on which event loop environments' disks are opened; called before anything else."""
        ...

    def content(self, sha256: str) -> Path:
        """Where a kept content is, if it is there."""
        ...

    def take(self, source: IO[bytes], go: Go) -> tuple[Path, str]:
        """Copy a stream beside the kept contents, not yet as one of them; returns where it is and its sha256.

        Raises:
            OSError: no room, for example.
        """
        ...

    async def place(self, part: Path, sha256: str) -> None:
        """Make what `take` wrote a kept content, unless there is one. Its rows are there already, so that it is not
        taken for one that nobody refers to."""
        ...

    def pack(self, environment_id: str, limits: Json, out: IO[bytes], go: Go) -> int:
        """Write an environment's files as a tar: folders, plain files and links, in order, with modes and times and
        nothing else. Returns how many files there were. Nothing runs in it meanwhile, in whichever daemon.

        Raises:
            Conflict: somebody uses it, for longer than this waits (30 s).
            FileNotFoundError: its folder is not there.
            SandboxUnavailable, StorageError: its disk cannot be mounted.
        """
        ...

    def unpack(self, environment_id: str, limits: Json, source: IO[bytes] | None, *, most_bytes: int, go: Go) -> None:
        """Make an environment's folder from what `pack` wrote, or an empty one, aside (see `settle`). Until `release`
        or `discard` no other daemon takes it for one that nobody is making.

        Raises:
            Conflict: somebody is making or removing it.
            Unsafe: a name leaves the folder or is there twice, or an entry is a device, or it has too many bytes for
                its limits.
            OSError: no room, for example.
        """
        ...

    def settle(self, environment_id: str) -> None:
        """Give the folder that `unpack` made its name."""
        ...

    def discard(self, environment_id: str) -> None:
        """Remove what this `unpack` made, also if it was settled; nothing else."""
        ...

    def release(self, environment_id: str) -> None:
        """Leave to everybody what was settled: its row is there."""
        ...
