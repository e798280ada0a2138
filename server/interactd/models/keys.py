"""The key ring: provider keys and addresses, in memory only, kept apart by the connection they came with."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Collection, Mapping
from typing import Any, cast
from urllib.parse import quote

from interactd.envnames import ENV_NAMES, KEY_NAMES, MAX_VALUE
from interactd.errors import InteractdError

LINGER_S = 3600.0
"""How long a connection's values outlive it: its background runs and queued turns still need them."""
KEPT = 64
MASK = "[key removed]"
_SHORTEST_SECRET = 6
# Providers echo keys shortened or re-cased, so what looks like a key goes too, whether we know it or not.
_LOOKS_LIKE_KEY = re.compile(r"\b(?:sk|pk|rk|gsk|xai|tgp|hf|nvapi)[-_][A-Za-z0-9_*.-]{12,}|\bAIza[A-Za-z0-9_*-]{20,}")


class KeyRing:
    """Values of allow-listed environment variables, per connection.

    Nothing here is written anywhere: values leave only through `lookup` and `environment`.

    Args:
        allowed: which names are taken from a connection (`config.allowed_env`).
        own: the daemon's own environment; default: this process's.
        clock: seconds, for the tests.
    """

    def __init__(
        self,
        allowed: Collection[str] = ENV_NAMES,
        own: Mapping[str, str] | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._allowed = frozenset(allowed)
        self._own = _taken(os.environ if own is None else own, self._allowed)
        self._connections: dict[str, dict[str, str]] = {}
        """Least recently attached first."""
        self._left: dict[str, float] = {}
        self._lenders: list[str] = []
        self._files: set[str] = set()
        self._clock = clock

    def __repr__(self) -> str:
        return f"<KeyRing: {len(self._connections)} connections>"

    def attach(self, connection: str, env: Mapping[str, str]) -> list[str]:
        """Take a connection's environment, replacing what it sent before. Returns the names kept, for the log."""
        self._connections.pop(connection, None)
        self._left.pop(connection, None)
        self._connections[connection] = _taken(env, self._allowed)
        self._forget_old()
        return sorted(self._connections[connection])

    def detach(self, connection: str) -> None:
        """The connection is gone. Its values stay for its own runs for an hour, then they are dropped."""
        if connection in self._connections:
            self._left[connection] = self._clock()
        if connection in self._lenders:
            self._lenders.remove(connection)
        self._forget_old()

    def lend(self, connection: str) -> None:
        """Let callers that cannot bring an environment (over HTTP) use this connection's: the one that opened the HTTP
        face. It ends when the connection is detached."""
        if connection in self._connections and connection not in self._lenders:
            self._lenders.append(connection)

    def environment(self, names: Collection[str], connection: str | None) -> Mapping[str, str]:
        """Return the one environment that answers for a set of names that belong together (a key and its address).

        The connection's if it has any of them, else the daemon's own (for a connection that never brought an
        environment: a lender's, see `lend`); for `connection=None` (a run taken up after a
        restart) the most recently attached one that has any, else the daemon's own. Never a mix: a key must not go
        to an address that another environment gave.
        """
        self._forget_old()
        if connection in self._connections:
            candidates = [self._connections[connection]]
        elif connection is not None:
            candidates = [self._connections[name] for name in reversed(self._lenders)]
        else:
            live = [env for name, env in self._connections.items() if name not in self._left]
            gone = [env for name, env in self._connections.items() if name in self._left]
            candidates = [*reversed(live), *reversed(gone)]
        return next((env for env in candidates if any(name in env for name in names)), self._own)

    def lookup(self, name: str, connection: str | None) -> str | None:
        """Return one value, or `None`. Which environment: see `environment`."""
        return self.environment((name,), connection).get(name)

    def remember(self, secret: str) -> None:
        """Note a key that came from a file, so that `scrub` knows it."""
        if len(secret) >= _SHORTEST_SECRET:
            self._files.add(secret)

    def scrub(self, text: str) -> str:
        """Remove every known secret, and whatever looks like one, from a text that will be shown or logged."""
        secrets = set(self._files)
        for env in (self._own, *self._connections.values()):
            secrets.update(value for name, value in env.items() if _is_key(name) and len(value) >= _SHORTEST_SECRET)
        for secret in sorted(secrets, key=len, reverse=True):
            for form in (secret, quote(secret, safe="")):
                text = text.replace(form, MASK)
        return _LOOKS_LIKE_KEY.sub(MASK, text)

    def scrub_error(self, error: InteractdError) -> InteractdError:
        """Scrub an error's sentence, repair and fields in place; returns it."""
        error.message = self.scrub(error.message)
        error.args = (error.message,)
        error.repair = self.scrub(error.repair) if error.repair else error.repair
        error.fields = {name: self._scrub_value(value) for name, value in error.fields.items()}
        return error

    def _scrub_value(self, value: Any) -> Any:
        if isinstance(value, str):
            return self.scrub(value)
        if isinstance(value, list):
            return [self._scrub_value(part) for part in cast("list[Any]", value)]
        if isinstance(value, dict):
            return {name: self._scrub_value(part) for name, part in cast("dict[str, Any]", value).items()}
        return value

    def _forget_old(self) -> None:
        now = self._clock()
        old = [name for name, at in self._left.items() if now - at > LINGER_S]
        old += list(self._left)[: max(0, len(self._left) - len(old) - KEPT)]
        for name in old:
            self._left.pop(name, None)
            self._connections.pop(name, None)


def _is_key(name: str) -> bool:
    # A name that only the configuration mentions (api_key_env) holds a key whatever it is called.
    return name in KEY_NAMES or name not in ENV_NAMES


def _taken(env: Mapping[str, str], allowed: Collection[str]) -> dict[str, str]:
    return {
        name: value.strip() for name in allowed if 0 < len(value := env.get(name, "")) <= MAX_VALUE and value.strip()
    }
