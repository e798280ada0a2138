"""Folders put over each other, from the base to the agent itself, into one definition with one hash."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from interactd.agents.documents.text import shown
from interactd.agents.manifest import agent_yaml, approvals, hooks
from interactd.agents.manifest.schema import Manifest
from interactd.agents.port import BUILTIN_TOOLS, AgentDefinition, AgentProblem, Layer, RunLimits, Skill
from interactd.agents.reading import INSTRUCTIONS, Folder
from interactd.agents.tree import Entry
from interactd.nouns import GenerationConfig, Json

FORMAT = "interactd agent 1"
_ORDER = {"absent": 0, "best_effort": 1, "enforced": 2}
_PROJECT_HEADING = "Instructions of this project:"


@dataclass(slots=True)
class Merged:
    """A definition whose `folder` is still the agent's own, and the content its kept folder will have."""

    definition: AgentDefinition
    files: dict[str, Entry | bytes]


def merge(layers: Sequence[Folder], floor: Mapping[str, str]) -> Merged:
    """Put layers (base first, all without problems) over each other.

    Instructions are appended; skills and hook groups of the same name replaced; tools and network replaced as a whole;
    sources appended; the other maps merged by key. `requires` may be lowered by what the user owns, never by a project.

    Args:
        floor: isolation below which nothing of a project runs.
    """
    top = layers[-1]
    named = next(layer for layer in reversed(layers) if layer.id is not None)
    manifests = [layer.manifest for layer in layers if layer.manifest is not None]
    tools, functions = _tools(manifests)
    skills = {name: front for layer in layers for name, front in layer.skills.items()}
    merged_hooks = {name: group for layer in layers for name, group in layer.hooks.items()}
    instructions = "\n\n".join(
        layer.instructions if layer.id else f"{_PROJECT_HEADING}\n\n{layer.instructions}"
        for layer in layers
        if layer.instructions
    )
    own = cast("Manifest", named.manifest)
    definition = AgentDefinition(
        id=cast("str", named.id),
        hash=content_hash(layers, floor),
        description=own.description,
        folder=named.path,
        instructions=instructions,
        model=next((each.model for each in reversed(manifests) if each.model), None),
        base_agent=own.base_agent,
        tools=tools,
        functions=functions,
        generation_config=_generation(manifests),
        environment=_environment(layers),
        requires=_requires(layers, floor),
        limits=_limits(manifests),
        budget=_budget(layers),
        approvals=approvals.policies([(each.manifest, each.trusted) for each in layers if each.manifest is not None]),
        skills=tuple(
            Skill(name, skills[name].description, f"/agent/skills/{name}/SKILL.md") for name in sorted(skills)
        ),
        hooks=merged_hooks,
        origin=top.origin,
        layers=tuple(
            Layer(
                layer.id,
                layer.origin,
                str(layer.path),
                {name: layer.files[name].sha256 for name in sorted(layer.files)},
            )
            for layer in layers
        ),
    )
    return Merged(definition, _files(layers, instructions, merged_hooks))


def clashes(layers: Sequence[Folder]) -> list[AgentProblem]:
    """Return what a project's layer may not do to the ones under it: take away a group of hooks."""
    taken: set[str] = set()
    found: list[AgentProblem] = []
    for layer in layers:
        if not layer.trusted:
            found += [
                layer.problem(hooks.NAME, f"the group {shown(name)} is a base agent's; rename it", None, name)
                for name in layer.hooks
                if name in taken
            ]
        taken |= set(layer.hooks)
    return found


def content_hash(layers: Sequence[Folder], floor: Mapping[str, str]) -> str:
    """Return the sha256 over every layer's files: path, executable or not, content. Not over where they are, when they
    were written or what is beside them; what is a project's hashes differently, since it may do less."""
    digest = hashlib.sha256(f"{FORMAT}\n".encode())
    for layer in layers:
        trust = "trusted" if layer.trusted else f"project {json.dumps(dict(floor), sort_keys=True)}"
        digest.update(f"layer {layer.id or '-'} {trust}\n".encode())
        for name in sorted(layer.files):
            entry = layer.files[name]
            digest.update(f"{name}\0{'x' if entry.executable else '-'}\0{entry.sha256}\n".encode())
    return digest.hexdigest()


def _tools(manifests: Sequence[Manifest]) -> tuple[tuple[str, ...], tuple[Json, ...]]:
    given = next((each.tools for each in reversed(manifests) if each.tools is not None), list(BUILTIN_TOOLS))
    names = [agent_yaml.builtin_name(entry) for entry in given]
    nothing: Json = {"type": "object", "properties": {}}
    functions: list[Json] = [
        {"parameters": nothing, **cast("Json", entry)} for entry, name in zip(given, names, strict=True) if name is None
    ]
    return tuple(name for name in names if name is not None), tuple(functions)


def _generation(manifests: Sequence[Manifest]) -> GenerationConfig:
    out = GenerationConfig()
    for manifest in manifests:
        if manifest.generation_config is not None:
            out = GenerationConfig(**manifest.generation_config.model_dump()).over(out)
    return out


def _limits(manifests: Sequence[Manifest]) -> RunLimits:
    given: dict[str, Any] = {}
    for manifest in manifests:
        given |= manifest.limits.model_dump(exclude_none=True) if manifest.limits else {}
    return RunLimits(**given)


def _budget(layers: Sequence[Folder]) -> Json:
    """Figures of later layers replace earlier ones; a project's only where they are lower."""
    out: Json = {}
    for layer in layers:
        given = layer.manifest.budget if layer.manifest else None
        figures: Json = given.model_dump(exclude_none=True) if given else {}
        turn: Json = {**out.get("turn", {}), **_allowed(out.get("turn", {}), figures.pop("turn", {}), layer.trusted)}
        out = {**out, **_allowed(out, figures, layer.trusted), **({"turn": turn} if turn else {})}
    return out


def _allowed(before: Json, figures: Json, trusted: bool) -> Json:
    return {
        name: value if trusted or name not in before else min(value, before[name]) for name, value in figures.items()
    }


def _requires(layers: Sequence[Folder], floor: Mapping[str, str]) -> dict[str, str]:
    out: dict[str, str] = {}
    for layer in layers:
        given = layer.manifest.requires if layer.manifest else None
        levels: dict[str, str] = given.model_dump(exclude_none=True) if given else {}
        out = {**out, **levels} if layer.trusted else stronger(out, levels)
    return out if all(layer.trusted for layer in layers) else stronger(out, floor)


def stronger(one: Mapping[str, str], other: Mapping[str, str]) -> dict[str, str]:
    """Return for each guarantee the stronger of two levels."""
    out = dict(one)
    for name, level in other.items():
        if name not in out or _ORDER[level] > _ORDER[out[name]]:
            out[name] = level
    return out


def _environment(layers: Sequence[Folder]) -> Json:
    sources: list[Json] = []
    env: Json = {}
    limits: Json = {}
    network: Any = None
    for layer in layers:
        given = layer.manifest.environment if layer.manifest else None
        if given is None:
            continue
        sources += [_located(cast("Json", source), layer) for source in given.sources or []]
        env |= given.env or {}
        limits |= given.limits.model_dump(exclude_none=True) if given.limits else {}
        network = given.network if given.network is not None else network
    parts: Json = {"sources": sources, "env": env, "network": network, "limits": limits}
    return {name: part for name, part in parts.items() if part}


def _located(source: Json, layer: Folder) -> Json:
    """A local source with its whole path: relative ones are the project's or the agent's folder's."""
    if source["type"] != "local":
        return dict(source)
    if layer.project is not None:
        # Resolved now, so that what was checked is what is used.
        return {**source, "source": str((layer.project / source["source"]).resolve())}
    return {**source, "source": str(layer.path / Path(source["source"]).expanduser())}


def _files(layers: Sequence[Folder], instructions: str, merged_hooks: Json) -> dict[str, Entry | bytes]:
    out: dict[str, Entry | bytes] = {}
    for layer in layers:
        for name in layer.skills:
            # A skill is replaced as a whole: files of two versions must not mix.
            out = {path: entry for path, entry in out.items() if not path.startswith(f"skills/{name}/")}
        out = {path: entry for path, entry in out.items() if not _in_the_way(path, layer.files)}
        out.update(layer.files)
    if len(layers) > 1:
        if instructions:
            out[INSTRUCTIONS] = f"{instructions}\n".encode()
        if merged_hooks:
            out[hooks.NAME] = json.dumps(merged_hooks, indent=2, ensure_ascii=False).encode()
    return out


def _in_the_way(path: str, files: Mapping[str, Entry]) -> bool:
    """Tell whether a base's file is where another layer has a folder of that name, or the other way round."""
    parts = path.split("/")
    if any("/".join(parts[:end]) in files for end in range(1, len(parts))):
        return True
    return path not in files and any(other.startswith(f"{path}/") for other in files)
