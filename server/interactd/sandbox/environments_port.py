"""The contract of environments: workspaces that persist by id, and what the agent loop does in them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

from interactd.nouns import Json
from interactd.sandbox.carrying_port import Carrier
from interactd.sandbox.egress.log import RequestLog
from interactd.sandbox.port import Exit, Isolation, Level, Output


@dataclass(slots=True)
class Environment:
    """A workspace with a policy. `network` is None (off), or `{"allowlist": [{"domain", "credential"?}]}`."""

    id: str
    owner: str
    created_at: float
    last_used_at: float
    expires_at: float
    status: Literal["active", "expired", "deleted"] = "active"
    sources: list[Json] = field(default_factory=list[Json])
    env: dict[str, Any] = field(default_factory=dict[str, Any])
    network: Json | None = None
    limits: Json = field(default_factory=dict[str, Any])
    approvals: list[Json] = field(default_factory=list[Json])
    """What its runs have to ask before doing (`interactd.approvals`): its own policy, and those it was forked with."""
    forked_from: str | None = None
    size_bytes: int | None = None
    file_count: int | None = None


@dataclass(frozen=True, slots=True)
class Artifact:
    """A file an interaction made, kept by content. `path` is a host path of the kept copy (never the workspace)."""

    id: str
    interaction_id: str
    name: str
    """Relative path in the workspace; printable, may hold `/`, never `..`."""
    sha256: str
    size_bytes: int
    mime_type: str
    created_at: float
    path: Path


@dataclass(frozen=True, slots=True)
class Ran:
    """What one piece of code did. `output` is already capped; `state_lost` says that the kernel was new although the
    caller had used one before (it was killed, or the sandbox was stopped)."""

    output: str
    exit: Exit
    truncated: bool = False
    state_lost: bool = False


class Workspace(Protocol):
    """An environment leased to one run. All paths are inside `/workspace`; nothing follows a link out of it."""

    @property
    def environment(self) -> Environment: ...

    @property
    def isolation(self) -> Isolation: ...

    def warm(self) -> None:
        """Start the sandbox and its Python in the background, so that the first code does not wait for them. If that
        fails, whoever runs code is told."""
        ...

    async def run_python(
        self, code: str, *, wall_s: float | None = None, on_output: Callable[[bytes], None] | None = None
    ) -> Ran:
        """Run code in the environment's persistent kernel: names defined by earlier calls are there, the value of a
        last expression is printed, as in a notebook. `on_output` is given what is printed as it comes. Cancelling the
        call stops the code, and everything it started, within 2 s."""
        ...

    async def run_bash(
        self, code: str, *, wall_s: float | None = None, on_output: Callable[[bytes], None] | None = None
    ) -> Ran:
        """Run a script in its own process; else as `run_python`."""
        ...

    def exec(
        self, argv: list[str], *, stdin: bytes = b"", wall_s: float | None = None
    ) -> AsyncIterator[Output | Exit]: ...

    async def read(self, path: str, *, offset: int = 0, limit: int = 1_000_000) -> bytes:
        """Raises: NotFound, InvalidArgument (not a regular file, or a path that leaves the workspace)."""
        ...

    async def write(self, path: str, data: bytes) -> None: ...

    async def delete(self, path: str) -> None: ...

    async def list(self, path: str = ".", *, recursive: bool = False, limit: int = 1000) -> list[Json]:
        """Entries `{"path", "type": file|directory|link|other, "size_bytes", "modified"}`."""
        ...

    async def search(self, pattern: str, path: str = ".", *, limit: int = 200) -> list[Json]:
        """Lines that match a regular expression: `{"path", "line", "text"}`."""
        ...

    @property
    def left_out(self) -> list[Json]:
        """What the last `capture` did not keep, and why: `{"reason", "count", "names" (some)}`."""
        ...

    @property
    def requests(self) -> RequestLog:
        """Where requests are written that are made for this run from outside of its sandbox."""
        ...

    async def egress_log(self) -> list[Json]:
        """Requests of this run, from inside its sandbox and for it from outside, oldest first: `{"at", "method",
        "host", "port", "verdict", "reason", "bytes"}`."""
        ...

    async def capture(self, interaction_id: str) -> list[Artifact]:
        """Keep every file that is new or changed since the lease began, content-addressed. Called at a run's end."""
        ...


class Environments(Protocol):
    """All environments of this machine."""

    async def start(self) -> None:
        """Reap what killed daemons left; start the idle and expiry watch, which goes on reaping. What another daemon on
        the same data is at is left alone."""
        ...

    @property
    def carrier(self) -> Carrier:
        """Takes workspaces and kept files into archives and out of them."""
        ...

    async def create(
        self,
        body: Mapping[str, Any],
        *,
        owner: str = "local",
        cwd: str | None = None,
        made_for: str | None = None,
    ) -> Environment:
        """Create from an Interactions API body `{sources, env, network, limits, approvals, from_environment}`.

        `made_for` is the session whose turn needed one: nobody asked for it by itself, so it goes when no session uses
        it any more.

        Raises:
            InvalidArgument: a field is wrong (named, with what was expected).
            NotFound: `from_environment`, or a source.
        """
        ...

    async def check(self, body: Mapping[str, Any], *, owner: str = "local", cwd: str | None = None) -> None:
        """Say now what `create` would find wrong with a body, without making anything or fetching a source.

        Raises: as `create`.
        """
        ...

    async def get(self, environment_id: str, *, owner: str = "local") -> Environment: ...

    async def list(self, *, owner: str = "local", limit: int = 50, cursor: str | None = None) -> list[Environment]: ...

    async def files(
        self, environment_id: str, path: str = ".", *, recursive: bool = False, limit: int = 1000, owner: str = "local"
    ) -> list[Json]:
        """What is in its workspace, without starting it: entries as `Workspace.list` gives them.

        Raises: NotFound, Expired, Deleted (the environment); NotFound, InvalidArgument (the path).
        """
        ...

    async def delete(self, environment_id: str, *, owner: str = "local") -> Json:
        """Stop and remove it, with every file; returns a receipt: `{"id", "environment_id", "deleted_at", "removed":
        {"files", "bytes"}}`, the same one when it is deleted again.

        Raises: Conflict: it is in use, in whichever daemon.
        """
        ...

    def lease(
        self,
        environment_id: str,
        interaction_id: str,
        *,
        requires: Mapping[str, Level] | None = None,
        agent_folder: Path | None = None,
    ) -> AbstractAsyncContextManager[Workspace]:
        """Take the environment for one run (others wait, in other daemons too), starting its sandbox when first needed.

        Raises:
            Conflict: others had it for an hour.
            SandboxUnavailable: no launcher, or one weaker than `requires`; the repair says what to install.
            Expired, Deleted, NotFound: the environment.
        """
        ...

    async def artifacts(self, interaction_id: str) -> list[Artifact]:
        """The files kept of an interaction, by name; empty for one that is not there."""
        ...

    async def left_out(self, interaction_id: str) -> list[Json]:
        """What was not kept of an interaction's files: `{"reason", "count", "names" (some)}`."""
        ...

    async def read_artifact(
        self, interaction_id: str, name: str, *, offset: int = 0, limit: int = 1_000_000
    ) -> tuple[Artifact, bytes]:
        """One kept file, by name or id (an archive's too), and up to `limit` of its bytes from `offset`.

        Raises: NotFound, with `suggestions`; InvalidArgument.
        """
        ...

    async def zip_artifacts(self, interaction_id: str, names: list[str]) -> Artifact:
        """Pack kept files (all, if none is named) into one zip; the same choice gives the same file. It goes with the
        session, or a day after it was last asked for.

        Raises: NotFound; InvalidArgument when they are too much for one zip; StorageFull.
        """
        ...

    async def delete_artifacts(self, session_id: str) -> int:
        """After the store deleted a session (with its artifact rows): remove the contents that nobody refers to any
        more; returns how many. Also called after a sweep; what a crash left is removed at the next start."""
        ...

    async def launchers(self) -> list[Json]:
        """Each launcher's capability, for doctor and status."""
        ...

    async def aclose(self) -> None: ...
