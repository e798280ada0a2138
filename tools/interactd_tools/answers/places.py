"""How environments read: one on a line, one in full, and the files in it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, cast

from interactd.nouns import Json
from interactd.sandbox.environments_port import Environment
from interactd_tools.answers.artifacts import safe
from interactd_tools.answers.text import compact, iso, one_line, plural, span, when

_MOST = 20


def head(one: Environment) -> str:
    """Return the status line of an environment."""
    return f"{one.status} · environment {one.id}"


def line(one: Environment) -> str:
    """Return one environment of a list."""
    now = time.time()
    facts = [one.id] if one.status == "active" else [one.id, one.status]
    facts += [*_size(one), f"used {span(now - one.last_used_at)} ago"]
    if one.status == "active":
        facts.append(f"expires in {span(one.expires_at - now)}")
    return "- " + " · ".join([*facts, network(one)])


def about(one: Environment) -> str:
    """Return what an environment is made of; values of variables are not shown."""
    lines = [f"Kept until {when(one.expires_at)}; every use moves that on."] if one.status == "active" else []
    if size := _size(one):
        lines.append("Workspace: " + ", ".join(size))
    if one.forked_from:
        lines.append(f"Forked from {one.forked_from}.")
    lines.append("Network: " + network(one).removeprefix("network").lstrip(": "))
    if one.sources:
        lines += ["Sources:", *(f"- {_source(source)}" for source in one.sources[:_MOST])]
        if len(one.sources) > _MOST:
            lines.append(f"- and {len(one.sources) - _MOST} more")
    if one.env:
        lines.append("Variables: " + one_line(", ".join(_variable(*item) for item in one.env.items()), 600))
    if one.limits:
        lines.append("Limits: " + one_line(compact(one.limits), 400))
    return "\n".join(lines)


def network(one: Environment) -> str:
    """Say what can be reached from inside."""
    rules: list[Any] = list((one.network or {}).get("allowlist") or []) if isinstance(one.network, dict) else []
    names = [str(cast("Json", rule).get("domain")) if isinstance(rule, dict) else str(rule) for rule in rules]
    if not names:
        return "network off"
    more = f" and {len(names) - _MOST} more" if len(names) > _MOST else ""
    return "network: " + one_line(safe(", ".join(names[:_MOST])), 400) + more


def entry(one: Json) -> str:
    """Return one entry of a folder."""
    name = compact(safe(str(one.get("path") or "")))
    kind = one.get("type")
    if kind == "file":
        return f"- {name} · {plural(int(one.get('size_bytes') or 0), 'byte')}"
    return f"- {name}{'/' if kind == 'directory' else f' ({kind})'}"


def fields(one: Environment) -> Json:
    """Return the small structured form."""
    out: Json = {"environment_id": one.id, "status": one.status, "expires_at": iso(one.expires_at)}
    if one.size_bytes is not None:
        out["size_bytes"] = one.size_bytes
    if one.file_count is not None:
        out["file_count"] = one.file_count
    if one.forked_from:
        out["forked_from"] = one.forked_from
    return out


def _size(one: Environment) -> Sequence[str]:
    files = [plural(one.file_count, "file")] if one.file_count is not None else []
    return [*files, plural(one.size_bytes, "byte")] if one.size_bytes is not None else files


def _source(source: Json) -> str:
    what = f" {source['source']}" if source.get("source") else ""
    target = f" at {source['target']}" if source.get("target") else ""
    return one_line(safe(f"{source.get('type')}{what}{target}"), 200)


def _variable(name: str, value: Any) -> str:
    given = cast("Json", value) if isinstance(value, dict) else {}
    return safe(f"{name} (credential {given['credential']})" if "credential" in given else name)
