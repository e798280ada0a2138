"""What is in an archive: its members' names, the manifest, and the bounds that an import holds it to.

    manifest.json            what the rest is: format, version, counts, and every member's size and sha256; the last one
    sessions.jsonl           one record a line (`interactd.store.archive_port`)
    interactions.jsonl       of each session in turn, by id
    steps.jsonl              of each interaction in turn, by seq
    artifacts.jsonl, captures.jsonl, environments.jsonl
    requests.jsonl           what runs asked of the network
    ledger.jsonl, spent.jsonl    what turns cost, and the totals of each turn and session
    triggers.jsonl           all of them, where everything was asked for
    artifacts/<sha256>       the contents of artifacts
    agents/<hash>/definition.json, agents/<hash>/folder/...
    environments/<id>.tar    files of workspaces, where they were asked for

The same data gives the same bytes: members in this order, without times of their own. Only `created_at` and `interactd`
in the manifest say when and by what it was made.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import Any, Final, cast

from interactd.nouns import Json
from interactd.store.archive_port import FIRST_KINDS, KINDS, RecordKind

FORMAT: Final = "interactd-export"
VERSION: Final = 2
"""Version 1 had no requests, ledger, spent and triggers."""
MANIFEST: Final = "manifest.json"
MEMBER_TIME: Final = (1980, 1, 1, 0, 0, 0)

LINE_MAX: Final = 64 << 20
MANIFEST_MAX: Final = 256 << 20
MEMBERS_MAX: Final = 1_000_000
RATIO_MAX: Final = 250
"""Unpacked bytes for each byte of the zip, once it is more than `RATIO_FREE`: text seldom passes 20."""
RATIO_FREE: Final = 256 << 20
DEPTH_MAX: Final = 200
"""How deep the JSON of a record may be nested."""

_ULID: Final = "[0-9a-hjkmnp-tv-z]{26}"
_ALLOWED: Final = re.compile(
    rf"(?:{'|'.join(KINDS)})\.jsonl"
    r"|artifacts/[0-9a-f]{64}"
    r"|agents/[0-9a-f]{64}/(?:definition\.json|folder/[^\0\\]{1,1024})"
    rf"|environments/env_{_ULID}\.tar"
)


def jsonl(kind: RecordKind) -> str:
    """The member that holds the records of a kind."""
    return f"{kind}.jsonl"


def is_allowed(name: str) -> bool:
    """Whether a member of this name can be in an archive: no path leads out of its place."""
    parts = name.split("/")
    return _ALLOWED.fullmatch(name) is not None and not any(part in ("", ".", "..") for part in parts)


_encode: Final = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode
_encode_ascii: Final = json.JSONEncoder(ensure_ascii=True, separators=(",", ":")).encode


def line(record: Json) -> bytes:
    """Return a record as a line of its member."""
    try:
        return _encode(record).encode() + b"\n"
    except UnicodeEncodeError:
        # Half a surrogate pair has no UTF-8; as an escape it survives.
        return _encode_ascii(record).encode() + b"\n"


@dataclass(frozen=True, slots=True)
class Member:
    """One file of the archive."""

    name: str
    bytes: int
    sha256: str


@dataclass(slots=True)
class Manifest:
    """What an archive says it is."""

    created_at: float
    interactd: str
    schema: int
    owner: str
    counts: dict[str, int] = field(default_factory=dict[str, int])
    left_out: dict[str, list[Json]] = field(default_factory=dict[str, list[Json]])
    """What it does not hold although everything was asked for: for people, an import does not look at it."""
    version: int = VERSION
    members: list[Member] = field(default_factory=list[Member])

    @property
    def kinds(self) -> tuple[RecordKind, ...]:
        """The kinds of records that an archive of its version has."""
        return FIRST_KINDS if self.version == 1 else KINDS

    def as_bytes(self) -> bytes:
        """Return the member `manifest.json`."""
        out: Json = {
            "format": FORMAT,
            "version": self.version,
            "created_at": self.created_at,
            "interactd": self.interactd,
            "schema": self.schema,
            "owner": self.owner,
            "counts": self.counts,
            **({"left_out": self.left_out} if self.left_out else {}),
            "members": [{"name": one.name, "bytes": one.bytes, "sha256": one.sha256} for one in self.members],
        }
        return json.dumps(out, ensure_ascii=False, indent=1).encode() + b"\n"


def read_manifest(data: bytes) -> Manifest:
    """Read the manifest.

    Raises:
        ValueError: it is none of ours, of another version, or not of its shape; the message says which.
    """
    try:
        given: Any = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"is not JSON: {str(error)[:200]}") from None
    if not isinstance(given, dict) or cast("Json", given).get("format") != FORMAT:
        raise ValueError(f'format: expected "{FORMAT}"')
    plain = cast("Json", given)
    version: Any = plain.get("version")
    if isinstance(version, bool) or version not in range(1, VERSION + 1):
        raise ValueError(f"version: this interactd reads version 1 to {VERSION}, got {version!r:.40}")
    out = Manifest(
        _number(plain, "created_at"),
        _text(plain, "interactd"),
        int(_number(plain, "schema")),
        _text(plain, "owner"),
        version=int(version),
    )
    counts: Any = plain.get("counts")
    if not isinstance(counts, dict) or not set(out.kinds) <= set(cast("Json", counts)):
        raise ValueError(f"counts: expected how many there are of {', '.join(out.kinds)}")
    numbers = cast("Json", counts)
    out.counts = {str(name): int(_number(numbers, name)) for name in numbers}
    members: Any = plain.get("members")
    if not isinstance(members, list) or len(cast("list[Any]", members)) > MEMBERS_MAX:
        raise ValueError(f"members: expected a list of at most {MEMBERS_MAX:,}")
    for place, one in enumerate(cast("list[Any]", members)):
        if not isinstance(one, dict):
            raise ValueError(f"members[{place}]: expected an object")
        entry = cast("Json", one)
        out.members.append(Member(_text(entry, "name"), int(_number(entry, "bytes")), _text(entry, "sha256")))
    return out


def _number(given: Json, name: str) -> float:
    value = given.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1 << 62:
        raise ValueError(f"{name}: expected a number, got {value!r:.40}")
    return value


def _text(given: Json, name: str) -> str:
    value = given.get(name)
    if not isinstance(value, str) or len(value) > 2_000:
        raise ValueError(f"{name}: expected text, got {value!r:.40}")
    return value
