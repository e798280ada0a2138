"""`interactd://sessions/{id}` and `interactd://interactions/{id}`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal
from urllib.parse import parse_qsl, unquote, urlsplit

from interactd.errors import InvalidArgument

SESSION_TEMPLATE = "interactd://sessions/{session_id}{?before,limit}"
INTERACTION_TEMPLATE = "interactd://interactions/{interaction_id}"
MAX_TURNS = 100
TURNS = 20


@dataclass(frozen=True, slots=True)
class Target:
    """What a URI names, and for a session which part of it."""

    kind: Literal["session", "interaction"]
    id: str
    before: str | None = None
    limit: int = TURNS


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
    number = unquote(parts.path).strip("/")
    query = dict(parse_qsl(parts.query))
    unknown = sorted(query.keys() - {"before", "limit"})
    if parts.scheme != "interactd" or parts.netloc not in {"sessions", "interactions"} or not number or "/" in number:
        raise InvalidArgument(
            f"there is no resource {uri[:200]!r}",
            repair="Resources are interactd://sessions/{session_id} and interactd://interactions/{interaction_id}; "
            "resources/list and the tool list_sessions give the ids.",
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
