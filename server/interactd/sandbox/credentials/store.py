"""The credentials of this user: descriptions in one 0600 file, secrets in the keyring or in that file."""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Callable, Generator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, cast

from interactd.errors import Conflict, InvalidArgument, NotFound, StorageError
from interactd.nouns import Json
from interactd.paths import Paths
from interactd.sandbox.credentials.kinds import Credential, Secret, check_id, parse
from interactd.sandbox.credentials.vaults import Vault, VaultFailed, find_keyring

VERSION = 1
LOCK_S = 60
Keeping = Literal["auto", "file"]


class Credentials:
    """Add, list, remove and read credentials. Its methods block, `secret` and `add` perhaps for a person's answer to
    the keyring: on the event loop call them through a thread. Several processes may use the same file.

    Args:
        name: of the file; another one is another set of credentials.
        keeping: `file` never asks for a keyring. `INTERACTD_KEYRING=off` says the same.
        probe: how the keyring is found; called once, when first needed.
    """

    def __init__(
        self,
        paths: Paths,
        *,
        name: str = "credentials",
        keeping: Keeping = "auto",
        probe: Callable[[], Vault | None] = find_keyring,
    ) -> None:
        self._file = paths.data / f"{name}.json"
        self._lock = paths.data / f"{name}.lock"
        off = os.environ.get("INTERACTD_KEYRING", "").lower() in ("off", "0", "no", "false")
        self._probe: Callable[[], Vault | None] | None = None if keeping == "file" or off else probe
        self._vault: Vault | None = None

    def add(self, body: Mapping[str, Any], *, replacing: bool = False) -> Credential:
        """Keep a credential; `body` as in `kinds.parse`.

        Raises:
            InvalidArgument: a field is wrong.
            Conflict: the id is taken and `replacing` is false, or its type would change.
            StorageError: it could not be written; nothing was changed.
        """
        new = parse(body, time.time())
        credential = new.credential
        with self._changing() as rows:
            old = rows.get(credential.id)
            if old is not None and not replacing:
                raise Conflict(
                    f"there is a credential {credential.id!r} already",
                    repair="Choose another id, or replace it on purpose (--replace).",
                    kind="credential",
                    id=credential.id,
                )
            if old is not None and old["type"] != credential.type:
                raise Conflict(
                    f"{credential.id!r} is a {old['type']}; a credential's type does not change",
                    repair="Remove it first.",
                    kind="credential",
                    id=credential.id,
                )
            if old is not None:
                credential = replace(credential, created_at=float(old["created_at"]))
            vault = self._keyring()
            secret = new.secret.reveal()
            if vault is not None:
                try:
                    vault.put(credential.id, secret)
                    credential = replace(credential, kept_in="keyring")
                except VaultFailed:
                    vault = None
            rows[credential.id] = _row(credential, None if vault is not None else secret)
        if old is not None and old["kept_in"] == "keyring" and vault is None:
            self._forget(credential.id)
        return credential

    def list(self) -> list[Credential]:
        """Return all, by id, without their secrets. Raises: StorageError."""
        return [_credential(row) for _, row in sorted(self._read().items())]

    def get(self, credential_id: str) -> Credential:
        """Return one, without its secret. Raises: NotFound, StorageError."""
        return _credential(self._row(credential_id))

    def secret(self, credential_id: str) -> Secret:
        """Return a secret.

        Raises:
            NotFound: there is no such credential.
            StorageError: the keyring that holds it does not give it.
        """
        row = self._row(credential_id)
        value: object = row.get("secret")
        if row["kept_in"] == "keyring":
            vault = self._keyring()
            try:
                value = vault.get(credential_id) if vault is not None else None
            except VaultFailed:
                value = None
        if not isinstance(value, str):
            raise StorageError(
                f"the secret of credential {credential_id!r} cannot be read from the {row['kept_in']}",
                repair="Unlock the system's keyring, or add the credential again with --replace.",
            )
        return Secret(value)

    def remove(self, credential_id: str) -> Credential:
        """Delete one, secret and all; returns what it was. Raises: NotFound, StorageError."""
        with self._changing() as rows:
            if credential_id not in rows:
                raise _unknown(credential_id)
            gone = _credential(rows.pop(credential_id))
        if gone.kept_in == "keyring":
            self._forget(credential_id)
        return gone

    def tidy(self) -> None:
        """Remove what a killed process was writing: it may hold secrets. Whoever changes something just now sees to it
        itself."""
        if _parts(self._file):
            with contextlib.suppress(StorageError), _locked(self._lock, wait_s=0):
                _drop_parts(self._file)

    def _row(self, credential_id: str) -> Json:
        try:
            row = self._read().get(check_id(credential_id))
        except InvalidArgument:
            row = None
        if row is None:
            raise _unknown(credential_id)
        return row

    def _keyring(self) -> Vault | None:
        if self._probe is not None:
            self._vault = self._probe()
            self._probe = None
        return self._vault

    def _forget(self, credential_id: str) -> None:
        vault = self._keyring()
        try:
            if vault is not None:
                vault.remove(credential_id)
        except VaultFailed as exc:
            raise StorageError(
                f"{credential_id!r} is removed here, but its secret is still in the system's keyring ({exc})",
                repair="Delete the entry of service interactd with the system's own keyring program.",
            ) from None

    def _read(self) -> dict[str, Json]:
        try:
            # A file that others may read is closed before it is used.
            if os.name == "posix" and self._file.stat().st_mode & 0o077:
                self._file.chmod(0o600)
            found: object = json.loads(self._file.read_bytes())
            if not isinstance(found, dict) or cast("Json", found).get("version") != VERSION:
                raise ValueError
            return {str(row["id"]): row for row in cast("list[Json]", cast("Json", found)["credentials"])}
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, KeyError, TypeError) as exc:
            # The exception's own text could quote the file.
            raise StorageError(
                f"{self._file} cannot be read ({type(exc).__name__})",
                repair="Mend its permissions, or move it away and add the credentials again.",
            ) from None

    @contextlib.contextmanager
    def _changing(self) -> Generator[dict[str, Json]]:
        with _locked(self._lock):
            _drop_parts(self._file)
            rows = self._read()
            yield rows
            body = {"version": VERSION, "credentials": [rows[name] for name in sorted(rows)]}
            _write(self._file, json.dumps(body, indent=1).encode() + b"\n")


def _row(credential: Credential, secret: str | None) -> Json:
    row: Json = {
        "id": credential.id,
        "type": credential.type,
        "created_at": credential.created_at,
        "updated_at": credential.updated_at,
        "trusted_domains": [str(pattern) for pattern in credential.trusted_domains],
        "injection_location": list(credential.locations),
        "header_name": credential.header_name,
        "prefix": credential.prefix,
        "kept_in": credential.kept_in,
    }
    return row if secret is None else {**row, "secret": secret}


def _credential(row: Json) -> Credential:
    bearer = row.get("type") == "bearer_token"
    body: Json = {
        "id": row.get("id"),
        "type": row.get("type"),
        "trusted_domains": row.get("trusted_domains", []),
        **(
            {"token": "unused", "header_name": row.get("header_name"), "prefix": row.get("prefix")}
            if bearer
            else {"value": "unused", "injection_location": row.get("injection_location")}
        ),
    }
    try:
        found = parse(body, float(row["updated_at"])).credential
        return replace(
            found,
            created_at=float(row["created_at"]),
            kept_in="keyring" if row["kept_in"] == "keyring" else "file",
        )
    except (InvalidArgument, KeyError, TypeError, ValueError):
        raise StorageError(
            "a credential in the credentials file is damaged", repair="Remove its entry and add it again."
        ) from None


def _unknown(credential_id: object) -> NotFound:
    shown = str(credential_id)[:63]
    return NotFound(
        f"no credential {shown!r}",
        repair=f"`interactd credential list` shows what is there; `interactd credential add {shown}` adds it.",
        kind="credential",
        id=shown,
    )


def _write(file: Path, content: bytes) -> None:
    part = file.with_name(f".{file.name}.{os.getpid()}.part")
    try:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        fd = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(fd, "wb") as out:
            out.write(content)
            out.flush()
            os.fsync(out.fileno())
        part.replace(file)
        _sync(file.parent)
    except OSError as exc:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)
        raise StorageError(
            f"{file} cannot be written ({exc.strerror})", repair="Free space or mend its folder."
        ) from None


def _sync(folder: Path) -> None:
    """Have the new name outlive a power cut: rows of the store speak of what is in the file."""
    if os.name == "posix":
        fd = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)


def _parts(file: Path) -> list[Path]:
    return list(file.parent.glob(f".{file.name}.*.part"))


def _drop_parts(file: Path) -> None:
    """Remove drafts of processes that died while they wrote. The caller holds the lock, so none is being written."""
    for part in _parts(file):
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)


@contextlib.contextmanager
def _locked(file: Path, wait_s: float = LOCK_S) -> Generator[None]:
    """Hold the change lock; each holder needs milliseconds, or a person's answer to the keyring."""
    try:
        import fcntl
    except ImportError:  # Windows: one daemon and a person's command; a lost race loses one change
        yield
        return
    try:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        fd = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as exc:
        raise StorageError(
            f"{file} cannot be opened ({exc.strerror})", repair="Mend its folder's permissions."
        ) from None
    try:
        until = time.monotonic() + wait_s
        while True:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > until:
                    raise StorageError(
                        "another program has been changing the credentials for a minute",
                        repair="See whether its keyring waits for an answer.",
                    ) from None
                time.sleep(0.02)
        yield
    finally:
        os.close(fd)
