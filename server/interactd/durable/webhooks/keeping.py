"""Where signing secrets are: in the keyring or a 0600 file of their own, apart from what agents may use."""

from __future__ import annotations

import asyncio
from typing import Any

from interactd.durable.webhooks.signing import truncated
from interactd.errors import InteractdError, NotFound
from interactd.ids import new_ulid
from interactd.nouns import Json
from interactd.sandbox.credentials.kinds import Secret
from interactd.sandbox.credentials.store import Credentials

ROTATION_S = 24 * 3600.0
_ORPHAN_S = 3600.0


class SigningSecrets:
    """The secrets of all webhooks, by the names that their rows have."""

    def __init__(self, vault: Credentials) -> None:
        self._vault = vault
        self._known: dict[str, Secret] = {}

    async def keep(self, webhook_id: str, secret: Secret) -> Json:
        """Keep a secret and return what the row says of it."""
        ref = f"{webhook_id}.{new_ulid()}"
        body: Json = {"id": ref, "type": "bearer_token", "token": secret.reveal()}
        await asyncio.to_thread(self._vault.add, body)
        self._known[ref] = secret
        return {"ref": ref, "truncated_secret": truncated(secret), "expire_at": None}

    async def reveal(self, ref: str) -> Secret:
        """Return a secret. Raises: NotFound, StorageError."""
        if ref not in self._known:
            self._known[ref] = await asyncio.to_thread(self._vault.secret, ref)
        return self._known[ref]

    async def signing(self, rows: list[Json], now: float) -> list[Secret]:
        """Return the secrets that sign now, newest first.

        Raises:
            NotFound, StorageError: the newest cannot be read.
        """
        found: list[Secret] = []
        for number, row in enumerate(rows):
            if row["expire_at"] is not None and row["expire_at"] <= now:
                continue
            try:
                found.append(await self.reveal(row["ref"]))
            except InteractdError:
                if number == 0:
                    raise
        return found

    async def forget(self, rows: list[Json]) -> None:
        """Remove the secrets of these rows."""
        for row in rows:
            self._known.pop(row["ref"], None)
            try:
                await asyncio.to_thread(self._vault.remove, row["ref"])
            except NotFound:
                continue

    async def sweep(self, used: set[str], now: float) -> None:
        """Remove secrets whose webhook was never made, or is gone: a crash came in between."""
        await asyncio.to_thread(self._vault.tidy)
        kept: list[Any] = await asyncio.to_thread(self._vault.list)
        lost = [one.id for one in kept if one.id not in used and one.created_at < now - _ORPHAN_S]
        await self.forget([{"ref": ref} for ref in lost])
