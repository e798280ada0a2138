"""The ledger of a SQLite store: see `store.ledger_port.Ledger` for what each method promises."""

from __future__ import annotations

import sqlite3
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Protocol

from interactd.nouns import Json
from interactd.store.ledger_port import Account, Bill, By, Granted, Refused, Reservation
from interactd.store.sqlite.queries import rows, sessions
from interactd.store.sqlite.queries.money import reserving, spending, totals


class _Write(Protocol):
    def __call__(
        self, run: Callable[[sqlite3.Connection], Any], *, size: int = 0, durable: bool = False, intake: bool = False
    ) -> Awaitable[Any]: ...


class SqliteLedger:
    """Reads and writes through the store's own threads."""

    def __init__(self, read: Callable[..., Awaitable[Any]], write: _Write) -> None:
        self._read = read
        self._write = write

    async def reserve(self, reservation: Reservation, *, durable: bool = False) -> Granted | Refused:
        return await self._write(lambda db: reserving.reserve(db, reservation), size=1_000, durable=durable)

    async def tick(self, bill: Bill) -> Granted | Refused:
        return await self._write(lambda db: reserving.tick(db, bill), size=500)

    async def accounts(self, interaction_ids: Sequence[str] = (), session_ids: Sequence[str] = ()) -> list[Account]:
        return await self._read(totals.accounts, tuple(interaction_ids), tuple(session_ids))

    async def applying(self, interaction_id: str, day: str) -> list[Account]:
        return await self._read(totals.applying, interaction_id, day)

    async def day(self, day: str) -> Account:
        return await self._read(totals.account, ("day", day))

    async def report(self, by: By, *, since: float | None, since_day: str | None, owner: str) -> list[Json]:
        return await self._read(spending.report, by, since, since_day, owner)

    async def stored(self, *, owner: str) -> Json:
        return await self._read(spending.stored, owner)

    async def set_budget(self, session_id: str, budget: Json | None) -> None:
        text = rows.dump_some(budget)
        await self._write(lambda db: sessions.set_budget(db, session_id, text))
