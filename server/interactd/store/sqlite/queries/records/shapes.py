"""What several kinds of records are held to: ids, objects, lists."""

from __future__ import annotations

import re
from typing import Any, Final, cast

from interactd.ids import PREFIXES, ULID_LENGTH, Kind
from interactd.nouns import Json
from interactd.store.archive_port import BadRecord

_ULID: Final = re.compile(rf"[0-9a-hjkmnp-tv-z]{{{ULID_LENGTH}}}")


def check_id(kind: Kind, name: str, value: Any) -> None:
    """Raises: BadRecord: it is neither missing nor a whole id of the kind."""
    if value is None:
        return
    prefix = PREFIXES[kind]
    if not isinstance(value, str) or not value.startswith(prefix) or not _ULID.fullmatch(value[len(prefix) :]):
        raise BadRecord(f"{name}: expected an id such as {prefix}{'0' * ULID_LENGTH}, got {value!r:.60}")


def shape(given: Json, name: str, kind: type) -> None:
    """Raises: BadRecord: the field is there and no dict or list, whichever was wanted."""
    value = given.get(name)
    if value is not None and not isinstance(value, kind):
        raise BadRecord(f"{name}: expected {'an object' if kind is dict else 'a list'}, got {kind_of(value)}")


def kind_of(value: Any) -> str:
    """What a JSON value is, for an error."""
    names = {dict: "an object", list: "a list", str: "text", bool: "a boolean", int: "a number", float: "a number"}
    return names.get(cast("type[Any]", type(value)), "null")
