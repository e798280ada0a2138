"""The contracts of the sandbox: a launcher starts a sandbox over a workspace, a sandbox runs commands.

A sandbox is disposable: it lives for one run of an agent (or until it was idle for a while) and everything in it dies
with it. What persists is the workspace folder, which belongs to an environment. Whatever comes out of a sandbox is
hostile: names, bytes, frames. Sizes are bytes unless the name says otherwise; durations are seconds.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, Protocol

from interactd.nouns import Json

Level = Literal["enforced", "best_effort", "absent"]
Why = Literal["exit", "timeout", "cpu", "memory", "pids", "disk", "output", "cancelled", "sandbox_died"]
GUARANTEES = ("filesystem", "network", "pids", "memory", "cpu", "disk", "syscalls")
WATCHED, UNLIMITED = "the workspace's size is watched, not limited", "the workspace's size is not limited"
LAUNCHERS = ("bubblewrap", "container", "seatbelt", "process")


@dataclass(frozen=True, slots=True)
class Isolation:
    """What a run truly had, for each guarantee. `label` is one line for people: `bubblewrap: files, network ...`."""

    launcher: str
    filesystem: Level
    network: Level
    pids: Level
    memory: Level
    cpu: Level
    disk: Level
    syscalls: Level
    notes: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        weak = [f"{name} {getattr(self, name)}" for name in GUARANTEES if getattr(self, name) != "enforced"]
        return f"{self.launcher}: " + ("all enforced" if not weak else "enforced but for " + ", ".join(weak))

    def as_dict(self) -> Json:
        """Return the levels and notes as plain JSON."""
        return {
            "launcher": self.launcher,
            **{name: getattr(self, name) for name in GUARANTEES},
            **({"notes": list(self.notes)} if self.notes else {}),
        }

    def with_quota(self) -> Isolation:
        """Return it as it is over a file system with a size of its own, which no launcher has a part in."""
        kept = tuple(note for note in self.notes if note not in (WATCHED, UNLIMITED))
        return replace(self, disk="enforced", notes=kept)

    def below(self, minimum: Mapping[str, Level]) -> list[str]:
        """Return which guarantees are weaker than asked for, e.g. `["memory is best_effort, enforced is required"]`."""
        order: dict[str, int] = {"absent": 0, "best_effort": 1, "enforced": 2}
        return [
            f"{name} is {getattr(self, name)}, {level} is required"
            for name, level in minimum.items()
            if order[getattr(self, name)] < order[level]
        ]


@dataclass(frozen=True, slots=True)
class Limits:
    """What one sandbox may use. `wall_s` is for one command; `cpu` is in cores."""

    memory_mb: int = 1024
    pids: int = 256
    cpu: float = 2.0
    cpu_s: float = 600
    wall_s: float = 120
    disk_mb: int = 2048
    file_mb: int = 512
    output_bytes: int = 1_000_000
    open_files: int = 1024


@dataclass(frozen=True, slots=True)
class Mount:
    """A host path seen in the sandbox."""

    source: Path
    target: str
    read_only: bool = True


@dataclass(frozen=True, slots=True)
class Spec:
    """What to start. `egress` is the address of a listener for the sandbox's proxy; None is no network at all.

    `env` is plain values only: secrets never enter (a credential is a placeholder here, see sandbox/egress).
    `quota` is given when the workspace and the home lie on a file system of their own, which holds them to their size.
    """

    environment_id: str
    workspace: Path
    home: Path
    limits: Limits = field(default_factory=Limits)
    mounts: tuple[Mount, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict[str, str])
    egress: Egress | None = None
    quota: Quota | None = None


class Quota(Protocol):
    """A file system that is this environment's alone. Both are cheap enough to be asked many times a second."""

    def used_up(self) -> bool:
        """Whether all of its room, or all of its files, are used."""
        ...

    def trouble(self) -> str | None:
        """What is wrong with the disk beneath it, for people."""
        ...


class Egress(Protocol):
    """The proxy's side of one sandbox: it takes the listening socket that the launcher put into the sandbox's own
    network namespace (or, for launchers without one, the address it must be reached at)."""

    async def serve(self, listener: object) -> None:
        """Take over a listening socket and accept on it until `aclose`."""
        ...

    @property
    def ca_file(self) -> Path | None:
        """A certificate bundle to put into the sandbox, where credentials need TLS to be ended; else None."""
        ...


@dataclass(frozen=True, slots=True)
class Output:
    """Bytes a command printed."""

    stream: Literal["stdout", "stderr"]
    data: bytes


@dataclass(frozen=True, slots=True)
class Exit:
    """How a command ended. `why` is the truth: `exit` (it ended itself), or what stopped it."""

    code: int | None
    signal: int | None
    why: Why
    wall_s: float
    cpu_s: float | None = None
    peak_memory: int | None = None


class Sandbox(Protocol):
    """One running sandbox."""

    @property
    def isolation(self) -> Isolation: ...

    def exec(
        self,
        argv: Sequence[str],
        *,
        stdin: bytes | AsyncIterable[bytes] = b"",
        cwd: str = "/workspace",
        env: Mapping[str, str] | None = None,
        wall_s: float | None = None,
        output_bytes: int | None = None,
    ) -> AsyncIterator[Output | Exit]:
        """Run a command; yields output as it comes and one Exit at last. Closing the iterator kills the command and
        everything it started.

        Args:
            stdin: all of it, or pieces that are written as they come (a kernel's requests); it is closed at the end.
            wall_s: when to stop it; None is the limits', `math.inf` never.
            output_bytes: when to stop it for printing too much; None is the limits'.
        """
        ...

    async def rest(self) -> bool:
        """Hold everything in it still until `wake`, whatever it does against that; returns whether nothing moves.

        Commands that are under way stay so. For the time between two uses.
        """
        ...

    async def wake(self) -> None:
        """End a `rest`. Without one it does nothing."""
        ...

    async def aclose(self) -> None:
        """Kill everything in it; returns when nothing is left (bounded: 2 s)."""
        ...


@dataclass(frozen=True, slots=True)
class Capability:
    """What a launcher can do on this machine, from a run of its real recipe."""

    launcher: str
    usable: bool
    isolation: Isolation | None
    why: str
    fix: str | None = None
    """The one command that makes it usable or stronger."""
    elsewhere: bool = False
    """It belongs to another operating system: here there is nothing to say of it, unless somebody names it."""

    def isolation_with(self, *, quota: bool) -> Isolation | None:
        """Return its isolation where workspaces have file systems of their own, or as it was found."""
        return self.isolation.with_quota() if self.isolation is not None and quota else self.isolation


class Launcher(Protocol):
    """One way to isolate."""

    @property
    def name(self) -> str: ...

    async def probe(self) -> Capability:
        """Run the real recipe once and say what it enforced. Cached by the caller."""
        ...

    async def start(self, spec: Spec) -> Sandbox:
        """Start a sandbox over the spec's workspace.

        Raises:
            SandboxUnavailable: it cannot be used here; the repair has the one command.
            SandboxFailed: it did not start; nothing of it is left.
        """
        ...

    async def reap(self) -> int:
        """Remove what a killed daemon left behind (processes, mounts, cgroups); returns how many."""
        ...

    async def aclose(self) -> None:
        """End every sandbox still running and the helper process, if any. The launcher can be used again after it."""
        ...
