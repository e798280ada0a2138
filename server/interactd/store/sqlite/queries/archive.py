"""Rows as records, and records as rows (see `interactd.store.archive_port`)."""

from __future__ import annotations

import math
import re
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, cast

from interactd.ids import Kind
from interactd.nouns import OPEN, TERMINAL, Json
from interactd.store.archive_port import BadRecord, RecordKind
from interactd.store.sqlite.queries import rows
from interactd.store.sqlite.queries.records import further
from interactd.store.sqlite.queries.records.shapes import check_id, kind_of, shape

JSON_COLUMNS: Final[dict[str, frozenset[str]]] = {
    "sessions": frozenset({"labels", "generation_config", "tools", "agent_pins", "environment", "budget", "approvals"}),
    "interactions": frozenset(
        {
            *("usage", "error", "pending", "generation_config", "tools", "isolation"),
            *("budget", "approvals", "dispatch"),
        }
    ),
    "steps": frozenset({"body", "state"}),
    "artifacts": frozenset(),
    "captures": frozenset({"left_out"}),
    "environments": frozenset({"body"}),
    "requests": frozenset({"entries"}),
    "ledger": frozenset({"price", "usage"}),
    "spent": frozenset({"budget"}),
    "triggers": frozenset({"work", "error"}),
}
LEFT_OUT: Final[dict[str, frozenset[str]]] = {
    "sessions": frozenset({"owner"}),
    "interactions": frozenset({"crosses", "skip_id", "skip_depth", "runner", "cancel_asked_at"}),
    "steps": frozenset({"id"}),
    "artifacts": frozenset(),
    "captures": frozenset(),
    "environments": frozenset({"owner", "status"}),
    "requests": frozenset({"id"}),
    "ledger": frozenset({"owner", "scopes"}),
    "spent": frozenset(),
    "triggers": frozenset({"owner"}),
}
"""What belongs to one machine: who owns it there, who runs it there, and the tree's shortcuts, which are made anew."""
_IDS: Final[dict[str, dict[str, Kind]]] = {
    "sessions": {"id": "session", "head": "interaction", "forked_from": "session", "forked_at": "interaction"},
    "interactions": {
        "id": "interaction",
        "session_id": "session",
        "previous_interaction_id": "interaction",
        "parent_id": "interaction",
        "environment_id": "environment",
    },
    "steps": {"interaction_id": "interaction"},
    "artifacts": {"id": "artifact", "interaction_id": "interaction"},
    "captures": {"interaction_id": "interaction", "environment_id": "environment"},
    "environments": {"id": "environment", "forked_from": "environment"},
    "requests": {"interaction_id": "interaction"},
    "ledger": {"interaction_id": "interaction", "session_id": "session"},
    "spent": {},
    "triggers": {"id": "trigger", "session_id": "session", "environment_id": "environment"},
}
_SHA256: Final = re.compile(r"[0-9a-f]{64}")
_NUMBERS: Final = {"INTEGER": (int,), "REAL": (int, float)}


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a table, as the archive sees it."""

    name: str
    type: str
    required: bool
    json: bool


def columns(connection: sqlite3.Connection, kind: RecordKind) -> list[Column]:
    """Return the columns that go into records; those of a later schema too, whatever they are for."""
    found = connection.execute(f"PRAGMA table_info({kind})").fetchall()
    return [
        Column(row[1], row[2], bool(row[3]), row[1] in JSON_COLUMNS[kind])
        for row in found
        if row[1] not in LEFT_OUT[kind]
    ]


def record(of: Sequence[Column], row: Sequence[Any]) -> Json:
    """Return a row of these columns as a record."""
    return {
        column.name: rows.load(value) if column.json else value
        for column, value in zip(of, row, strict=True)
        if value is not None
    }


def values(kind: RecordKind, of: Sequence[Column], given: Json) -> dict[str, Any]:
    """Return the column values of a record.

    Raises:
        BadRecord: a field is missing, unknown, or not of its type.
    """
    known = {column.name for column in of}
    for name in given:
        if name not in known:
            raise BadRecord(f"unknown field {str(name)[:60]!r}")
    out: dict[str, Any] = {}
    for column in of:
        value = given.get(column.name)
        if value is None:
            if column.required:
                raise BadRecord(f"{column.name} is missing")
            out[column.name] = None
        elif column.json:
            out[column.name] = rows.dump(value)
        else:
            out[column.name] = _plain(column, value)
    for name, id_kind in _IDS[kind].items():
        check_id(id_kind, name, given.get(name))
    return out


def _plain(column: Column, value: Any) -> Any:
    name = column.name
    if column.type == "TEXT":
        if not isinstance(value, str):
            raise BadRecord(f"{name}: expected text, got {kind_of(value)}")
        if rows.clean(value) != value:
            raise BadRecord(f"{name}: has NUL or half of a surrogate pair in it")
        return value
    if isinstance(value, bool) or not isinstance(value, _NUMBERS[column.type]):
        wanted = "a whole number" if column.type == "INTEGER" else "a number"
        raise BadRecord(f"{name}: expected {wanted}, got {kind_of(value)}")
    if not math.isfinite(value) or abs(value) >= 1 << 62:
        raise BadRecord(f"{name}: {value!r:.40} is out of range")
    return float(value) if column.type == "REAL" else value


def check(kind: RecordKind, of: Sequence[Column], given: Json) -> None:
    """Check that a record makes a row which everything that reads rows understands.

    Raises:
        BadRecord: it does not.
    """
    made = values(kind, of, given)
    try:
        _CHECKS[kind](given, made)
    except BadRecord:
        raise
    except (TypeError, ValueError, KeyError, AttributeError, IndexError) as error:
        raise BadRecord(f"its fields do not fit: {str(error)[:200]}") from None


def _session(given: Json, made: dict[str, Any]) -> None:
    rows.session([made.get(name) if name != "owner" else "" for name in rows.SESSION.split(", ")], 0.0)
    shape(given, "labels", dict)
    shape(given, "tools", list)
    shape(given, "agent_pins", dict)
    if not all(isinstance(value, str) for value in _values(given, "labels")):
        raise BadRecord("labels: expected texts")
    if not all(isinstance(value, str) and _SHA256.fullmatch(value) for value in _values(given, "agent_pins")):
        raise BadRecord("agent_pins: expected hashes of agents")
    for name in ("budget", "approvals", "generation_config"):
        shape(given, name, dict)
    where: Any = given.get("environment")
    if isinstance(where, str):
        check_id("environment", "environment", where)
    elif where is not None:
        shape(given, "environment", dict)
    if given["turns"] < 0 or (given.get("head") is None) != (given["turns"] == 0):
        raise BadRecord(f"turns: {given['turns']} does not fit its head")


def _interaction(given: Json, made: dict[str, Any]) -> None:
    rows.interaction([made.get(name) for name in rows.INTERACTION.split(", ")])
    if given["status"] not in OPEN | TERMINAL:
        raise BadRecord(f"status: {given['status']!r:.40} is none that there is")
    for name, least in (("depth", 1), ("epoch", 0), ("attempt", 0), ("steps", 0), ("background", 0)):
        if given[name] < least:
            raise BadRecord(f"{name}: expected at least {least}, got {given[name]}")
    if given["background"] > 1:
        raise BadRecord("background: expected 0 or 1")
    if (given["depth"] == 1) != (given.get("previous_interaction_id") is None):
        raise BadRecord(f"depth: {given['depth']} does not fit its previous_interaction_id")
    if given.get("agent_hash") is not None and not _SHA256.fullmatch(given["agent_hash"]):
        raise BadRecord("agent_hash: expected the hash of an agent")
    shape(given, "tools", list)
    for name in ("usage", "error", "pending", "generation_config", "isolation", "budget", "approvals", "dispatch"):
        shape(given, name, dict)


def _step(given: Json, made: dict[str, Any]) -> None:
    del made
    shape(given, "body", dict)
    shape(given, "state", dict)
    if not given["type"]:
        raise BadRecord("type: is empty")
    body: Json = given["body"]
    for name in ("content", "summary"):
        parts: Any = body.get(name)
        if parts is None:
            continue
        if not isinstance(parts, list) or not all(isinstance(part, dict) for part in cast("list[Any]", parts)):
            raise BadRecord(f"body.{name}: expected a list of objects")
    if given["type"] == "function_call" and not all(isinstance(body.get(name), str) for name in ("id", "name")):
        raise BadRecord("body: expected a function_call's id and name")
    if given["type"] == "function_result" and not isinstance(body.get("call_id"), str):
        raise BadRecord("body: expected a function_result's call_id")


def _artifact(given: Json, made: dict[str, Any]) -> None:
    del made
    if not _SHA256.fullmatch(given["sha256"]):
        raise BadRecord("sha256: expected 64 hexadecimal digits")
    name: str = given["name"]
    if not name or not name.isprintable() or name.startswith("/") or ".." in name.split("/"):
        raise BadRecord(f"name: {name!r:.80} is not the name of a kept file")
    if given["size_bytes"] < 0:
        raise BadRecord("size_bytes: expected at least 0")


def _capture(given: Json, made: dict[str, Any]) -> None:
    del made
    shape(given, "left_out", list)


def _environment(given: Json, made: dict[str, Any]) -> None:
    del made
    shape(given, "body", dict)
    body: Json = given.get("body") or {}
    if extra := sorted(set(body) - {"sources", "env", "network", "limits", "approvals", "made_for", "withheld"}):
        raise BadRecord(f"body: unknown field {extra[0][:60]!r}")
    shape(body, "sources", list)
    check_id("session", "body.made_for", body.get("made_for"))
    for name in ("env", "network", "limits", "withheld"):
        shape(body, name, dict)
    for value in _values(body, "env"):
        if not isinstance(value, dict) or set(cast("Json", value)) != {"credential"}:
            raise BadRecord("body.env: expected credentials' ids")


def _values(given: Json, name: str) -> list[Any]:
    inner: Json = given.get(name) or {}
    return list(inner.values())


_CHECKS: Final[dict[str, Any]] = {
    "sessions": _session,
    "interactions": _interaction,
    "steps": _step,
    "artifacts": _artifact,
    "captures": _capture,
    "environments": _environment,
    "requests": further.requests,
    "ledger": further.ledger,
    "spent": further.spent,
    "triggers": further.trigger,
}
