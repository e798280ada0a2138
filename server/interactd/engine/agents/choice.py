"""Who takes a turn, and where: checking what a caller asks of agents before anything is written down."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Final, cast

from interactd.agents.port import AgentDefinition
from interactd.builtins.tools import GROUPS
from interactd.engine.checks.text import check_json, check_text, kind_of
from interactd.engine.core import Core
from interactd.errors import InvalidArgument
from interactd.nouns import Caller, GenerationConfig, Json, Session

FRESH: Final[Json] = {"type": "remote"}
"""A body that asks for a new environment of the agent's own kind."""
_LIMITS: Final = {"steps": (1, 10_000), "tokens": (1, 10_000_000_000), "seconds": (1, 7 * 86_400)}


@dataclass(frozen=True, slots=True)
class Asked:
    """What a call says about agents, checked. `environment` is an id, a body, or `remote` for a fresh one."""

    agent: str | None = None
    environment: str | Json | None = None
    limits: Json | None = None

    def arguments(self) -> Json:
        """For the digest of an idempotency key: what was not said does not count."""
        given = {"agent": self.agent, "environment": self.environment, "limits": self.limits}
        return {name: value for name, value in given.items() if value is not None}


def asked(agent: Any, environment: Any, limits: Any = None) -> Asked:
    """Check the three arguments.

    Raises:
        InvalidArgument: one has the wrong shape.
    """
    if agent is not None:
        agent = check_text("agent", agent, max_bytes=500, empty=False).strip()
    return Asked(agent, _environment(environment), _limits(limits))


async def definition_of(core: Core, agent: str, session: Session | None, caller: Caller) -> AgentDefinition:
    """Find the agent; the content that the session has of it, if it took a turn there before.

    Raises:
        NotFound, BadManifest: as `Agents.resolve`.
        InvalidArgument: this engine has no agents.
    """
    if core.agents is None or core.environments is None:
        raise InvalidArgument(
            "agent: this daemon runs no agents.", repair="Give a model instead of an agent.", field="agent"
        )
    pins = {} if session is None else session.agent_pins
    found = await core.agents.resolve(agent, cwd=caller.cwd, pinned=pins.get(agent))
    if pins.get(found.id, found.hash) != found.hash:
        # Asked for under another name of it than the pin's.
        found = await core.agents.resolve(found.id, cwd=caller.cwd, pinned=pins[found.id])
    return found


async def placed(core: Core, asked_: Asked, caller: Caller) -> Asked:
    """Return it with the whole id of an environment that was named by a part of it.

    Raises:
        NotFound, AmbiguousId, Expired, Deleted: an environment that is named by its id is not there.
        InvalidArgument, NotFound: none could be made of the body; said now, while its author is there.
    """
    given = asked_.environment
    if core.environments is None or given is None or given == "remote":
        return asked_
    if isinstance(given, str):
        return replace(asked_, environment=(await core.environments.get(given, owner=caller.owner)).id)
    await core.environments.check(given, owner=caller.owner, cwd=caller.cwd)
    return asked_


def check_names(definition: AgentDefinition, tools: list[Json]) -> None:
    """Raises:
    InvalidArgument: the caller declares a function under the name of one of the agent's own tools.
    """
    own = {name for group in definition.tools for name in GROUPS.get(group, (group,))}
    for tool in tools:
        if tool["name"] in own:
            raise InvalidArgument(
                f"tools: {tool['name']!r} is a tool that agent {definition.id} has itself.",
                repair="Give your function another name.",
                field="tools",
            )


def config_of(definition: AgentDefinition, config: GenerationConfig) -> GenerationConfig:
    """The turn's settings over the agent's."""
    return config.over(definition.generation_config)


def place_for(asked_: Asked, session: Session) -> tuple[str | None, Json | None]:
    """Where the turn takes place: an environment's id, or a body that one is made from; neither where that is the
    session's to say when the turn begins, because a turn before it may have made one by then."""
    if asked_.environment == "remote":
        return None, FRESH
    if isinstance(asked_.environment, dict):
        return None, asked_.environment
    known = session.environment if isinstance(session.environment, str) else None
    return asked_.environment or known, None


def _environment(given: Any) -> str | Json | None:
    if given is None:
        return None
    if isinstance(given, str):
        return check_text("environment", given, max_bytes=200, empty=False).strip()
    if not isinstance(given, dict):
        raise InvalidArgument(
            f"environment: expected an id or an object, got {kind_of(given)}",
            repair='Give an environment id, "remote" for a fresh one, or {"sources", "network", "env", "limits"}.',
            field="environment",
        )
    body = dict(cast("Json", check_json("environment", given)))
    if body.pop("type", "remote") != "remote":
        raise InvalidArgument('environment.type: only "remote" is known', field="environment.type")
    known = body.pop("environment_id", None)
    if known is None:
        return body or "remote"
    if body:
        raise InvalidArgument(
            "environment: an environment that exists cannot be changed here.",
            repair="Give its id alone, or from_environment with new settings for a copy of it.",
            field="environment",
        )
    return check_text("environment.environment_id", known, max_bytes=200, empty=False)


def _limits(given: Any) -> Json | None:
    if given is None:
        return None
    if not isinstance(given, dict):
        raise InvalidArgument(f"limits: expected an object, got {kind_of(given)}", field="limits")
    clean: Json = {}
    for name, value in cast("dict[Any, Any]", given).items():
        if name not in _LIMITS:
            raise InvalidArgument(
                f"limits: unknown field {name!r:.80}", repair="It may have steps, tokens, seconds.", field="limits"
            )
        low, high = _LIMITS[name]
        whole = isinstance(value, int) or (name == "seconds" and isinstance(value, float))
        if isinstance(value, bool) or not whole or not low <= value <= high:
            raise InvalidArgument(
                f"limits.{name}: expected a number from {low} to {high:,}, got {value!r:.40}", field=f"limits.{name}"
            )
        clean[name] = value
    return clean or None
