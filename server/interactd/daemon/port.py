"""What the daemon needs of the application it carries, and what it lends it in return."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any, Protocol

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Settings:
    """From the configuration file. `idle_exit_s` 0 never leaves; `log_level` is a name that logging knows;
    the log file is begun anew at `log_bytes`, and `log_files` old ones stay."""

    idle_exit_s: float = 1800.0
    log_level: str = "info"
    log_bytes: int = 2_000_000
    log_files: int = 5
    drain_s: float = 10.0


class Hooks(Protocol):
    """What the daemon lends the control face."""

    def info(self) -> Json:
        """Facts about the process: `pid version uptime_s connections paths …`."""
        ...

    def request_stop(self, now: bool) -> None:
        """Begin to leave: after the running steps, or `now`. Returns at once."""
        ...


class Faces(Protocol):
    """Serve one connection each, until the peer closes or the task is cancelled. `hello` is the client's first line;
    a face may put the client's name into `hello["client"]`, and status shows it."""

    async def mcp(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, hello: Json) -> None: ...

    async def control(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, hello: Json) -> None: ...


class Application(Protocol):
    """What `interactd.app.build` returns."""

    @property
    def faces(self) -> Faces: ...

    @property
    def busy(self) -> int:
        """How much there is that the daemon must not leave alone: runs, queued turns, HTTP faces that listen, and what
        has a time at which it must be there."""
        ...

    def attach(self, hooks: Hooks) -> None:
        """Called once, before `start`."""
        ...

    async def start(self) -> None: ...

    async def drain(self, timeout_s: float) -> bool:
        """Take no new work and wait for running steps to be journalled; True when nothing runs."""
        ...

    async def aclose(self) -> None: ...
