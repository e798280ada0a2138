"""What a credential is: all that may be shown of it, and its secret, which may not."""

from __future__ import annotations

import re
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal, Protocol, cast

from interactd.errors import InvalidArgument
from interactd.nouns import Json
from interactd.sandbox.egress.policy.hosts import BadHost
from interactd.sandbox.egress.policy.patterns import Pattern

Location = Literal["header", "query", "body"]
LOCATIONS: Final[tuple[Location, ...]] = ("header", "query", "body")
TYPES: Final = ("bearer_token", "environment_variable")
MAX_SECRET = 64 * 1024
MIN_SECRET = 4

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,100}")
_FIELDS = {
    "bearer_token": {"id", "type", "token", "header_name", "prefix", "trusted_domains"},
    "environment_variable": {"id", "type", "value", "injection_location", "trusted_domains"},
}
# The proxy writes these itself: a credential there would change where a message goes or where it ends.
FRAMING_HEADERS: Final = frozenset(
    {
        "host",
        "connection",
        "content-length",
        "transfer-encoding",
        "upgrade",
        "te",
        "trailer",
        "expect",
        "keep-alive",
        "proxy-connection",
        "proxy-authorization",
    }
)


class Secret:
    """A secret value that does not show itself: not in repr, str, format, pickles or dataclass dumps."""

    __slots__ = ("__value",)

    def __init__(self, value: str) -> None:
        self.__value = value

    def reveal(self) -> str:
        """Return the value, for the wire only."""
        return self.__value

    def __repr__(self) -> str:
        return "Secret(hidden)"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and self.reveal() == other.reveal()

    def __hash__(self) -> int:
        return hash(self.__value)

    def __reduce__(self) -> Any:
        raise TypeError("a secret is not pickled")


@dataclass(frozen=True, slots=True)
class Credential:
    """Everything about a credential but its secret. Times are seconds since the epoch."""

    id: str
    type: str
    created_at: float
    updated_at: float
    trusted_domains: tuple[Pattern, ...] = ()
    locations: tuple[Location, ...] = ("header",)
    header_name: str = "Authorization"
    prefix: str = "Bearer"
    kept_in: Literal["keyring", "file"] = "file"

    def as_dict(self) -> Json:
        """Return what a list shows; there is no secret in it."""
        shown: Json = {
            "id": self.id,
            "type": self.type,
            "status": "active",
            "trusted_domains": [str(pattern) for pattern in self.trusted_domains],
            "created_at": self.created_at,
            "updated_at": self.updated_at,
            "kept_in": self.kept_in,
        }
        if self.type == "bearer_token":
            return {**shown, "header_name": self.header_name, "prefix": self.prefix}
        return {**shown, "injection_location": list(self.locations)}


class SecretSource(Protocol):
    """Where a policy finds the credentials it was told to use."""

    def get(self, credential_id: str) -> Credential:
        """Raises: NotFound."""
        ...

    def secret(self, credential_id: str) -> Secret:
        """May wait for a keyring: call it on a thread. Raises: NotFound, StorageError."""
        ...


@dataclass(frozen=True, slots=True)
class NewCredential:
    """A body that was checked."""

    credential: Credential
    secret: Secret = field(repr=False)


def parse(body: Mapping[str, Any], now: float) -> NewCredential:
    """Check an Interactions API credential body.

    Args:
        body: `{type: "bearer_token", token, header_name?, prefix?}` or `{type: "environment_variable", value,
            injection_location?, trusted_domains}`; `id` is made when absent; a bearer token may name
            `trusted_domains` as well, for use by reference in `env`.
        now: seconds since the epoch.

    Raises:
        InvalidArgument: a field is wrong; never with the secret in the message.
    """
    kind = body.get("type")
    if kind not in TYPES:
        raise InvalidArgument(f"type: expected one of {', '.join(TYPES)}, got {_shown(kind)}", field="type")
    unknown = sorted(str(key) for key in body if key not in _FIELDS[kind])
    if unknown:
        raise InvalidArgument(
            f"{unknown[0]}: a {kind} has no such field; it has {', '.join(sorted(_FIELDS[kind]))}", field=unknown[0]
        )
    bearer = kind == "bearer_token"
    domains = trusted(body.get("trusted_domains", ()), "trusted_domains")
    if not bearer and not domains:
        raise InvalidArgument(
            "trusted_domains: an environment_variable needs the domains that may see it",
            repair='Give them, e.g. ["api.example.org"].',
            field="trusted_domains",
        )
    credential = Credential(
        id=check_id(body.get("id") or str(uuid.uuid4())),
        type=kind,
        created_at=now,
        updated_at=now,
        trusted_domains=domains,
        locations=("header",) if bearer else locations(body.get("injection_location", "header")),
        header_name=header_name(body.get("header_name", "Authorization"), "header_name"),
        prefix=_prefix(body.get("prefix", "Bearer")),
    )
    name = "token" if bearer else "value"
    return NewCredential(credential, _secret(body.get(name), name))


def check_id(value: object) -> str:
    """Return a credential's id as it is. Raises: InvalidArgument."""
    if not isinstance(value, str) or not _ID.fullmatch(value):
        raise InvalidArgument(
            f"id: expected 1 to 63 letters, digits, `.`, `_` or `-`, a letter or digit first, got {_shown(value)}",
            field="id",
        )
    return value


def trusted(value: object, field_name: str) -> tuple[Pattern, ...]:
    """Read a list of domains that may see a secret. Raises: InvalidArgument (also for `*`: that is everybody)."""
    given: object = [value] if isinstance(value, str) else value
    if not isinstance(given, (list, tuple)):
        raise InvalidArgument(f"{field_name}: expected a list of domains, got {_shown(value)}", field=field_name)
    found: list[Pattern] = []
    for index, item in enumerate(cast("list[object]", given)):
        where = f"{field_name}[{index}]"
        if not isinstance(item, str):
            raise InvalidArgument(f"{where}: expected a domain, got {_shown(item)}", field=where)
        try:
            pattern = Pattern.parse(item)
        except BadHost as exc:
            raise InvalidArgument(f"{where}: {exc}", field=where) from None
        if pattern.everything:
            raise InvalidArgument(
                f"{where}: `*` would give the secret to everybody",
                repair="Name the domains that need it.",
                field=where,
            )
        found.append(pattern)
    return tuple(found)


def locations(value: object) -> tuple[Location, ...]:
    """Read `injection_location`: one place or a list. Raises: InvalidArgument."""
    given: object = [value] if isinstance(value, str) else value
    items = cast("list[object]", given) if isinstance(given, (list, tuple)) else []
    if not items or any(item not in LOCATIONS for item in items):
        raise InvalidArgument(
            f"injection_location: expected one or more of {', '.join(LOCATIONS)}, got {_shown(value)}",
            field="injection_location",
        )
    return tuple(place for place in LOCATIONS if place in items)


def header_name(value: object, field_name: str) -> str:
    """Return a header's name that a credential or a transform may set. Raises: InvalidArgument."""
    if not isinstance(value, str) or not _TOKEN.fullmatch(value):
        raise InvalidArgument(f"{field_name}: expected a header name, got {_shown(value)}", field=field_name)
    if value.lower() in FRAMING_HEADERS:
        raise InvalidArgument(f"{field_name}: the proxy sets {value} itself", field=field_name)
    return value


def _prefix(value: object) -> str:
    if not isinstance(value, str) or len(value) > 100 or not value.isprintable() or not value.isascii():
        raise InvalidArgument(
            f"prefix: expected a word such as Bearer, or nothing, got {_shown(value)}", field="prefix"
        )
    return value.strip()


def _secret(value: object, name: str) -> Secret:
    # No message here shows the value, not even its length beyond the bounds.
    if not isinstance(value, str):
        raise InvalidArgument(f"{name}: the secret is missing or not text", field=name)
    if len(value) < MIN_SECRET:
        raise InvalidArgument(f"{name}: the secret is shorter than {MIN_SECRET} characters", field=name)
    if len(value) > MAX_SECRET:
        raise InvalidArgument(f"{name}: the secret is longer than {MAX_SECRET} characters", field=name)
    if any(c < " " or c == "\x7f" for c in value) or not value.isascii() or value != value.strip():
        raise InvalidArgument(
            f"{name}: a secret is one line of ASCII without blanks around it, so that it can stand in a header",
            field=name,
        )
    return Secret(value)


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
