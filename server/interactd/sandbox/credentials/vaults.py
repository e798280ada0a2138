"""Where secrets lie: the system's keyring where there is a real one, else the file with their descriptions."""

from __future__ import annotations

import contextlib
import importlib
import logging
import secrets
from collections.abc import Generator
from typing import Any, Protocol

_log = logging.getLogger(__name__)
SERVICE = "interactd"
# By name, since a backend's priority tells how much it wants to be used, not whether it encrypts: `keyrings.alt`
# brings ones that write plain text to disk.
_REAL = (
    "keyring.backends.SecretService",
    "keyring.backends.libsecret",
    "keyring.backends.kwallet",
    "keyring.backends.macOS",
    "keyring.backends.Windows",
)


class Vault(Protocol):
    """A place for secrets outside our files. Its calls may wait for a person to unlock it."""

    def get(self, name: str) -> str | None: ...

    def put(self, name: str, value: str) -> None:
        """Raises: VaultFailed."""
        ...

    def remove(self, name: str) -> None: ...


class VaultFailed(Exception):
    """The keyring does not do what it was asked; the message names its kind of failure, never a value."""


class Keyring:
    """One backend of the `keyring` package that is known to encrypt."""

    def __init__(self, backend: Any) -> None:
        self._backend = backend

    def get(self, name: str) -> str | None:
        with _told():
            return self._backend.get_password(SERVICE, name)

    def put(self, name: str, value: str) -> None:
        with _told():
            self._backend.set_password(SERVICE, name, value)

    def remove(self, name: str) -> None:
        with _told():
            if self._backend.get_password(SERVICE, name) is not None:
                self._backend.delete_password(SERVICE, name)


def find_keyring() -> Vault | None:
    """Return the system's keyring if there is one that works, from a real write, read and delete; else None.

    May take a second, or as long as a person takes to unlock it.
    """
    try:
        keyring = importlib.import_module("keyring")
    except ImportError:
        return None
    try:
        found: Any = keyring.get_keyring()
    except Exception as exc:  # noqa: BLE001 - backends raise what they like; no keyring is the answer
        _log.info("no keyring: %s", type(exc).__name__)
        return None
    for backend in [found, *getattr(found, "backends", ())]:
        if not type(backend).__module__.startswith(_REAL):
            continue
        vault, name, value = Keyring(backend), f"probe-{secrets.token_hex(8)}", secrets.token_hex(8)
        try:
            vault.put(name, value)
            same = vault.get(name) == value
            vault.remove(name)
        except VaultFailed as exc:
            _log.info("the keyring cannot be used: %s", exc)
            continue
        if same:
            return vault
    return None


@contextlib.contextmanager
def _told() -> Generator[None]:
    try:
        yield
    except Exception as exc:  # noqa: BLE001 - backends raise what they like, and may quote the value
        raise VaultFailed(type(exc).__name__) from None
