"""What an agent is once its folder was read. Plain data: the engine runs it, the sandbox gives it a place.

A folder: `agent.yaml` + `AGENTS.md` (instructions) + `skills/<name>/SKILL.md` + `sources/` + `hooks.json`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

from interactd.nouns import GenerationConfig, Json

Origin = Literal["built-in", "config", "project"]
DEFAULT_AGENT = "antigravity"
BUILTIN_TOOLS = ("code_execution", "files", "url_fetch")


@dataclass(frozen=True, slots=True)
class Skill:
    """A skill: its name and description stand in the context, its body is read when it is used."""

    name: str
    description: str
    path: str
    """Where the agent finds it: `/agent/skills/<name>/SKILL.md`."""


@dataclass(frozen=True, slots=True)
class RunLimits:
    """When the loop stops by itself. `tokens` counts input + output + thought over all calls of one interaction."""

    steps: int = 50
    tokens: int | None = None
    seconds: float = 1800


@dataclass(frozen=True, slots=True)
class Layer:
    """One of the folders an agent is made of. `id` is None for a project's bare `.agents/`, which has none."""

    id: str | None
    origin: Origin
    folder: str
    """Where it was found; it may be gone by now when the agent is a pinned one."""
    files: Mapping[str, str]
    """Path in the folder -> sha256, in hex."""


@dataclass(frozen=True, slots=True)
class AgentDefinition:
    """An agent, whole: its own folder put over its `base_agent`'s.

    `environment` is an environment create body (sources, env, network, limits) in the Interactions API's shape;
    `requires` the isolation levels below which it refuses to run; `folder` is mounted read-only at `/agent`. From
    `resolve` it is the kept copy with everything inherited in it, from `list` the folder where the agent was found.
    `instructions` are the texts of all AGENTS.md; `agents.prompt.system_text` adds the list of skills.
    """

    id: str
    hash: str
    """sha256 over every file's path and bytes (own and inherited), in hex; a session pins it."""
    description: str
    folder: Path
    instructions: str
    model: str | None = None
    base_agent: str | None = None
    tools: tuple[str, ...] = BUILTIN_TOOLS
    functions: tuple[Json, ...] = ()
    generation_config: GenerationConfig = field(default_factory=GenerationConfig)
    environment: Mapping[str, Any] = field(default_factory=dict[str, Any])
    requires: Mapping[str, str] = field(default_factory=dict[str, str])
    limits: RunLimits = field(default_factory=RunLimits)
    budget: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """What its turns of one day may cost together, `{"usd", "tokens", "steps", "seconds"}`, and in `turn`, of the same
    shape, each of them."""
    approvals: tuple[Json, ...] = ()
    """What it has to ask before doing (`interactd.approvals`): each of these policies holds."""
    skills: tuple[Skill, ...] = ()
    hooks: Mapping[str, Any] = field(default_factory=dict[str, Any])
    origin: Origin = "built-in"
    """Of the last layer: `project` also for the default agent where a project's `.agents/` adds to it. What comes from
    a project is not trusted: it can be in any repository somebody cloned."""
    layers: tuple[Layer, ...] = ()
    """From the base to the agent itself."""


@dataclass(frozen=True, slots=True)
class AgentProblem:
    """Something wrong in an agent's folder. `file` is a whole path; `line` counts from 1, None where there is none (a
    file is missing); `message` says what was expected and what came."""

    agent: str
    file: str
    line: int | None
    field: str | None
    message: str


class Agents(Protocol):
    """All agents that can be found: built in, in the config folder, in a project's `.agents/`."""

    async def resolve(self, agent_id: str, *, cwd: str | None = None, pinned: str | None = None) -> AgentDefinition:
        """Find an agent. `pinned` is the hash a session holds: that very content is returned, also when the folder
        has changed since (a copy is kept in the data folder by hash).

        Raises:
            NotFound: no such agent, with suggestions.
            BadManifest: its folder is wrong.
        """
        ...

    async def list(self, *, cwd: str | None = None) -> tuple[list[AgentDefinition], list[AgentProblem]]:
        """All that can be used, and what is wrong with the rest."""
        ...


class DamagedCopy(Exception):
    """A copy of an agent that is not what its `definition.json` says; the message says where."""


@runtime_checkable
class KeptAgents(Protocol):
    """The copies of agents by their hash, for those who carry them elsewhere or tidy up."""

    def copy_of(self, hash: str) -> Path | None:
        """The folder of a kept copy (`definition.json` and `folder/`), if there is a sound one. Blocking."""
        ...

    def begin_copy(self) -> Path:
        """Make an empty folder beside the copies, to put one together in. Blocking."""
        ...

    def adopt(self, hash: str, aside: Path) -> bool:
        """Make what was put together in `aside` the kept copy, unless there is a sound one; returns whether it was
        needed. It serves sessions that pin the hash, and never stands in for an agent that is found here. Blocking.

        Raises:
            DamagedCopy: it is not sound; nothing is kept.
        """
        ...

    async def prune(self, pinned: Collection[str], *, unused_s: float, only: Collection[str] | None = None) -> int:
        """Remove copies that nobody pins and nobody used for `unused_s`; `only` some. Returns how many."""
        ...
