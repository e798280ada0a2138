"""Ids: a readable prefix and a ULID, so that they sort by time and say what they name.

ULID: 48 bits of milliseconds, 80 bits of chance, Crockford base 32 (github.com/ulid/spec), written in lower
case here. Within one process they are strictly increasing, also inside one millisecond.
"""

from __future__ import annotations

import os
import threading
import time
from typing import Literal

from interactd.errors import InteractdError, InvalidArgument

Kind = Literal[
    "session",
    "interaction",
    "environment",
    "artifact",
    "receipt",
    "trigger",
    "execution",
    "webhook",
    "delivery",
]

PREFIXES: dict[Kind, str] = {
    "session": "ses_",
    "interaction": "int_",
    "environment": "env_",
    "artifact": "art_",
    "receipt": "rcp_",
    "trigger": "trg_",
    "execution": "exe_",
    "webhook": "whk_",
    "delivery": "msg_",
}
ULID_LENGTH = 26
_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
_LOOKALIKES = str.maketrans({"i": "1", "l": "1", "o": "0"})

_lock = threading.Lock()
_last = 0


def new_ulid() -> str:
    """Return a new ULID, greater than every one this process made before."""
    global _last
    value = (time.time_ns() // 1_000_000 << 80) | int.from_bytes(os.urandom(10), "big")
    with _lock:
        # A clock that stands still or goes back must not break the order of a session's turns.
        _last = max(value, _last + 1)
        value = _last
    return "".join(_ALPHABET[(value >> shift) & 31] for shift in range(125, -1, -5))


def new_id(kind: Kind) -> str:
    """Return a fresh id such as `ses_01kc3v…`."""
    return PREFIXES[kind] + new_ulid()


def as_given(error: InteractdError, prefix: str, text: str) -> None:
    """Let an error about a normalised id name it as the caller did: `o` and `0` are one to us, and not to them."""
    given = text.strip()
    if given.lower() not in (prefix, prefix[4:]) and len(given) <= 40:
        error.message = error.message.replace(prefix, repr(given))


def parse_prefix(kind: Kind, text: str) -> str:
    """Normalise what a caller gave as an id of `kind`, whole or shortened.

    Args:
        kind: what the id must name.
        text: the id, or any leading part of it, with or without the prefix, in either case.

    Returns:
        The normalised id prefix, always starting with the kind's own prefix.

    Raises:
        InvalidArgument: the text is empty, too long, of another kind, or has characters no id has.
    """
    prefix = PREFIXES[kind]
    field = f"{kind}_id"
    shown = text if len(text) <= 40 else text[:37] + "..."
    given = text.strip().lower()
    for other_kind, other in PREFIXES.items():
        if given.startswith(other) and other != prefix:
            raise InvalidArgument(
                f"{field}: expected {_article(kind)} id ({prefix}...), got {_article(other_kind)} id {shown!r}",
                field=field,
            )
    body = given.removeprefix(prefix).translate(_LOOKALIKES)
    if not body or len(body) > ULID_LENGTH or any(c not in _ALPHABET for c in body):
        raise InvalidArgument(
            f"{field}: expected an id such as {prefix}{'0' * ULID_LENGTH} or a leading part of one, got {shown!r}",
            repair=f"Use the {field} that an earlier result gave, or list_sessions to find one.",
            field=field,
        )
    return prefix + body


def _article(kind: str) -> str:
    return ("an " if kind[0] in "aeiou" else "a ") + kind
