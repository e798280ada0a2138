"""An agent's system prompt: its instructions, its skills by name, and the place it works in. The same bytes at every
turn of a session, so that providers' prompt caches hold."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Final, cast

from interactd.agents.port import AgentDefinition
from interactd.nouns import Json
from interactd.sandbox.environments_port import Environment
from interactd.sandbox.port import Limits

_MAX_DESCRIPTION: Final = 500
_MAX_DOMAINS: Final = 30


def system_prompt(
    agent: AgentDefinition,
    environment: Environment | None,
    *,
    tools: Collection[str],
    python: str | None,
    instruction: str | None,
) -> str:
    """Return the whole prompt.

    Args:
        agent: its instructions and skills.
        environment: where it works.
        tools: names of its built-in tools.
        python: the version of Python there, e.g. `3.11`; `None` when it is not known.
        instruction: what the session's or turn's creator wants besides.
    """
    parts = [agent.instructions.strip()]
    if agent.skills and "view_file" in tools:
        parts.append(_skills(agent))
    if environment is not None and tools:
        parts.append(_facts(environment, tools, python))
    if instruction and instruction.strip():
        parts.append(f"# From the user\n{instruction.strip()}")
    return "\n\n".join(part for part in parts if part)


def _skills(agent: AgentDefinition) -> str:
    lines = ["# Skills", "When a task fits one, read its file with view_file first and follow it."]
    for skill in sorted(agent.skills, key=lambda one: one.name):
        about = " ".join(skill.description.split())[:_MAX_DESCRIPTION]
        lines.append(f"- {skill.name}: {about} ({skill.path})")
    return "\n".join(lines)


def _facts(environment: Environment, tools: Collection[str], python: str | None) -> str:
    limits = Limits()
    given: Json = environment.limits
    memory, disk = given.get("memory_mb", limits.memory_mb), given.get("disk_mb", limits.disk_mb)
    wall = given.get("wall_s", limits.wall_s)
    lines = ["# Environment", "- Linux sandbox. Your files are in /workspace, which is also the current folder."]
    if "code_execution" in tools:
        lines.append(f"- Python {python}." if python else "- Python 3.")
        lines.append(f"- Limits: {memory} MB memory, {disk} MB disk, {wall:g} s for one call.")
    lines.append(f"- {_network(environment.network)}")
    names = sorted(environment.env)
    if names:
        lines.append(f"- Environment variables that are set: {', '.join(names)}.")
    return "\n".join(lines)


def _network(network: Json | None) -> str:
    allowed: Any = (network or {}).get("allowlist")
    rules = cast("list[Json]", allowed) if isinstance(allowed, list) else []
    domains = sorted({str(rule.get("domain")) for rule in rules})
    if not domains:
        return "No network."
    if "*" in domains:
        return "Network: open, through a proxy that is set up."
    more = f" and {len(domains) - _MAX_DOMAINS} more" if len(domains) > _MAX_DOMAINS else ""
    return f"Network: only {', '.join(domains[:_MAX_DOMAINS])}{more}, through a proxy that is set up."
