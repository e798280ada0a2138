"""`interactd://sessions/{id}`, `interactd://interactions/{id}` and `interactd://artifacts/{interaction_id}/{name}`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal
from urllib.parse import parse_qsl, unquote, urlsplit

from interactd.errors import InvalidArgument

SESSION_TEMPLATE = "interactd://sessions/{session_id}{?before,limit}"
INTERACTION_TEMPLATE = "interactd://interactions/{interaction_id}"
ARTIFACT_TEMPLATE = "interactd://artifacts/{interaction_id}/{+name}"
EXPORT_TEMPLATE = "interactd://exports/{name}{?offset,limit}"
MAX_PIECE = 8 * 1024 * 1024
MAX_TURNS = 100
TURNS = 20


@dataclass(frozen=True, slots=True)
class Target:
    """What a URI names, for a session which part of it, and for an artifact which of the interaction's."""

    kind: Literal["session", "interaction", "artifact", "export"]
    id: str
    before: str | None = None
    limit: int = TURNS
    name: str = ""
    offset: int = 0


def session_uri(session_id: str, before: str | None = None) -> str:
    """Return the URI of a session's transcript, of the turns before `before` if given."""
    return f"interactd://sessions/{session_id}" + (f"?before={before}" if before else "")


def interaction_uri(interaction_id: str) -> str:
    """Return the URI of one interaction."""
    return f"interactd://interactions/{interaction_id}"


def parse(uri: str) -> Target:
    """Read a resource URI.

    Raises:
        InvalidArgument: it names nothing we have.
    """
    try:
        parts = urlsplit(uri)
    except ValueError:
        parts = urlsplit("")
    if parts.scheme == "interactd" and parts.netloc == "artifacts":
        return _artifact(uri, parts.path)
    if parts.scheme == "interactd" and parts.netloc == "exports":
        return _export(uri, unquote(parts.path).strip("/"), dict(parse_qsl(parts.query)))
    number = unquote(parts.path).strip("/")
    query = dict(parse_qsl(parts.query))
    unknown = sorted(query.keys() - {"before", "limit"})
    if parts.scheme != "interactd" or parts.netloc not in {"sessions", "interactions"} or not number or "/" in number:
        raise InvalidArgument(
            f"there is no resource {uri[:200]!r}",
            repair="Resources are interactd://sessions/{session_id}, interactd://interactions/{interaction_id} and "
            "interactd://artifacts/{interaction_id}/{name}; resources/list and the tool list_sessions give the ids.",
            field="uri",
        )
    if parts.netloc == "interactions":
        return Target("interaction", number)
    if unknown:
        raise InvalidArgument(f"uri: unknown parameter {unknown[0]!r}; a session takes before and limit", field="uri")
    limit = query.get("limit", str(TURNS))
    if not limit.isdecimal() or not 1 <= int(limit[:9]) <= MAX_TURNS:
        raise InvalidArgument(f"uri: limit is a number from 1 to {MAX_TURNS}, got {limit[:20]!r}", field="uri")
    return Target("session", number, query.get("before"), int(limit))


def _artifact(uri: str, path: str) -> Target:
    number, _, name = path.removeprefix("/").partition("/")
    if not number or not name:
        raise InvalidArgument(
            f"there is no resource {uri[:200]!r}",
            repair="An artifact is interactd://artifacts/{interaction_id}/{name}; fetch_artifacts lists them.",
            field="uri",
        )
    return Target("artifact", unquote(number), name=unquote(name))


def _export(uri: str, name: str, query: dict[str, str]) -> Target:
    if not name or "/" in name:
        raise InvalidArgument(
            f"there is no resource {uri[:200]!r}",
            repair="An export is interactd://exports/{name}; export_data gives the link.",
            field="uri",
        )
    if unknown := sorted(query.keys() - {"offset", "limit"}):
        raise InvalidArgument(f"uri: unknown parameter {unknown[0]!r}; an export takes offset and limit", field="uri")
    offset, limit = query.get("offset", "0"), query.get("limit", str(MAX_PIECE))
    if not (offset.isdecimal() and limit.isdecimal() and 0 < int(limit[:9]) <= MAX_PIECE and len(offset) < 16):
        raise InvalidArgument(f"uri: offset is a number, limit one from 1 to {MAX_PIECE}", field="uri")
    return Target("export", name, name=name, offset=int(offset), limit=int(limit))
