"""Checks of records beside turns: what runs asked of the network, what they cost, triggers."""

from __future__ import annotations

import re
from typing import Any, Final, cast

from interactd.ids import Kind
from interactd.nouns import Json
from interactd.store.archive_port import BadRecord
from interactd.store.sqlite.queries.records.shapes import check_id, kind_of, shape

MOST: Final = 1 << 60
"""Of any amount: sums of two of them still fit into a column."""
_ENTRY: Final[dict[str, tuple[type, ...]]] = {
    "at": (int, float),
    "method": (str,),
    "host": (str,),
    "port": (int,),
    "verdict": (str,),
    "reason": (str,),
    "bytes": (int,),
    "bytes_up": (int,),
    "bytes_down": (int,),
    "status": (int,),
    "ms": (int, float),
}
_AMOUNTS: Final = ("reserved_nano", "reserved_tokens", "reserved_ms", "cost_nano", "tokens", "active_ms", "sandbox_ms")
_TOTALS: Final = (
    *("nano", "unsure_nano", "held_nano", "unpriced", "tokens", "held_tokens", "steps", "held_steps"),
    *("active_ms", "held_ms", "sandbox_ms"),
)
_DAY: Final = re.compile(r"\d{4}-\d{2}-\d{2}")
_SCOPES: Final[dict[str, Kind]] = {"interaction": "interaction", "session": "session"}


def requests(given: Json, made: dict[str, Any]) -> None:
    """What one attempt asked of the network."""
    del made
    shape(given, "entries", list)
    for entry in cast("list[Any]", given["entries"]):
        if not isinstance(entry, dict):
            raise BadRecord(f"entries: expected objects, got {kind_of(entry)}")
        for name, value in cast("Json", entry).items():
            expected = _ENTRY.get(name)
            if expected is None:
                raise BadRecord(f"entries: unknown field {name[:60]!r}")
            if value is not None and (isinstance(value, bool) or not isinstance(value, expected)):
                raise BadRecord(f"entries: {name}: got {kind_of(value)}")


def ledger(given: Json, made: dict[str, Any]) -> None:
    """What one model call cost, or how long one attempt worked."""
    del made
    _one_of(given, "kind", ("call", "time"))
    _one_of(given, "state", ("reserved", "settled", "released", "unknown"))
    if not given["id"] or not _DAY.fullmatch(given["day"]):
        raise BadRecord("id, day: expected an id, and a day such as 2026-12-01")
    shape(given, "price", dict)
    shape(given, "usage", dict)
    for name, value in cast("Json", given.get("usage") or {}).items():
        if isinstance(value, bool) or (name.startswith("total_") and not isinstance(value, int)):
            raise BadRecord(f"usage: {name[:60]}: expected a whole number, got {kind_of(value)}")
    _amounts(given, _AMOUNTS)


def spent(given: Json, made: dict[str, Any]) -> None:
    """The total of a turn or a session."""
    del made
    _one_of(given, "scope", tuple(_SCOPES))
    check_id(_SCOPES[given["scope"]], "key", given["key"])
    shape(given, "budget", dict)
    _amounts(given, _TOTALS)


def trigger(given: Json, made: dict[str, Any]) -> None:
    """A trigger. Its schedule and who runs it are looked at when it is resumed, as they are for one of this store."""
    del made
    _one_of(given, "status", ("active", "paused", "error", "completed"))
    _one_of(given, "missed", ("skip", "once"))
    _one_of(given, "overlap", ("skip", "queue"))
    shape(given, "work", dict)
    shape(given, "error", dict)
    work: Json = given["work"]
    asked: Any = work.get("input")
    if not asked or not isinstance(asked, list) or not all(isinstance(part, dict) for part in cast("list[Any]", asked)):
        raise BadRecord("work.input: expected a list of objects")
    for name in ("session", "agent", "model", "title", "system_instruction"):
        if not isinstance(work.get(name), str) and (name == "session" or work.get(name) is not None):
            raise BadRecord(f"work.{name}: expected text, got {kind_of(work.get(name))}")
    for name in ("labels", "budget", "dispatch", "limits"):
        shape(work, name, dict)
    _amounts(given, ("max_consecutive_failures", "execution_timeout_s", "consecutive_failure_count", "revision"))


def _one_of(given: Json, name: str, among: tuple[str, ...]) -> None:
    if given[name] not in among:
        raise BadRecord(f"{name}: expected {' or '.join(among)}, got {given[name]!r:.40}")


def _amounts(given: Json, names: tuple[str, ...]) -> None:
    for name in names:
        if not 0 <= (given.get(name) or 0) < MOST:
            raise BadRecord(f"{name}: {given[name]!r:.40} is out of range")
