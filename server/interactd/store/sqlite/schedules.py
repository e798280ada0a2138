"""Triggers and webhooks in the same SQLite file, through the same writer and readers as everything else."""

from __future__ import annotations

import sqlite3
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, Literal, Protocol, TypeVar

from interactd.nouns import Json
from interactd.store.port import IdempotencyKey, Page, Started
from interactd.store.schedules_port import (
    Attempt,
    Claimed,
    Decision,
    Delivery,
    Due,
    Execution,
    Trigger,
    Webhook,
    WebhookStatus,
)
from interactd.store.sqlite.queries import rows, sessions
from interactd.store.sqlite.queries.schedules import executions, triggers, waits, webhooks
from interactd.store.sqlite.queries.schedules.table import Table

T = TypeVar("T")
_TABLES: Final[dict[str, Table[Any]]] = {
    "trigger": triggers.TABLE,
    "execution": triggers.EXECUTIONS,
    "webhook": webhooks.TABLE,
    "delivery": webhooks.DELIVERIES,
}


def _interaction(db: sqlite3.Connection, prefix: str, owner: str) -> str:
    id = sessions.find(db, "interaction", prefix)
    session = "SELECT 1 FROM interactions i JOIN sessions s ON s.id = i.session_id WHERE i.id = ? AND s.owner = ?"
    if db.execute(session, (id, rows.exact(owner))).fetchone() is None:
        raise rows.missing(db, "interaction", id)
    return id


class Write(Protocol):
    """Runs a job in a transaction of the writer's."""

    def __call__(
        self, run: Callable[[sqlite3.Connection], T], *, size: int = 0, durable: bool = False, intake: bool = False
    ) -> Awaitable[T]: ...


class SqliteSchedules:
    """See `interactd.store.schedules_port.ScheduleStore` for what each method promises.

    Args:
        read: runs a query on a reader.
        write: runs a job in a transaction of the writer's.
        clear: leaves nothing in the files of what was deleted.
    """

    def __init__(self, read: Callable[..., Awaitable[Any]], write: Write, clear: Callable[[], Awaitable[None]]) -> None:
        self._read = read
        self._write = write
        self._clear = clear
        self._listeners: list[Callable[[], None]] = []

    def listen(self, changed: Callable[[], None]) -> None:
        self._listeners.append(changed)

    def changed(self) -> None:
        """Tell the listeners that a turn was accepted or settled."""
        for listener in self._listeners:
            listener()

    async def find(
        self, kind: Literal["trigger", "execution", "webhook", "delivery", "interaction"], prefix: str, owner: str
    ) -> str:
        if kind == "interaction":
            return await self._read(_interaction, prefix, owner)
        return await self._read(_TABLES[kind].find, prefix, owner)

    # -- triggers --------------------------------------------------------------------------------------------
    async def add_trigger(self, trigger: Trigger, key: IdempotencyKey | None, most: int) -> Started:
        return await self._write(lambda db: triggers.add(db, trigger, key, most), size=_size(trigger.work), intake=True)

    async def get_trigger(self, trigger_id: str) -> Trigger:
        return await self._read(triggers.TABLE.get, trigger_id)

    async def list_triggers(
        self, *, owner: str, statuses: Sequence[str] | None = None, limit: int = 50, cursor: str | None = None
    ) -> Page:
        return await self._read(triggers.page, owner, statuses, limit, cursor)

    async def put_trigger(self, trigger: Trigger, revision: int) -> bool:
        return await self._write(lambda db: triggers.put(db, trigger, revision), size=_size(trigger.work))

    async def delete_trigger(self, trigger_id: str, now: float) -> dict[str, int]:
        removed = await self._write(lambda db: triggers.delete(db, trigger_id, now))
        await self._clear()
        return removed

    async def due_triggers(self, now: float) -> list[Trigger]:
        return await self._read(triggers.due, now)

    async def fire(self, decision: Decision) -> list[Execution]:
        # Durable: after a power loss too, what was started must be known to have been decided.
        return await self._write(lambda db: triggers.fire(db, decision), durable=True)

    # -- executions ------------------------------------------------------------------------------------------
    async def add_execution(self, execution: Execution, key: IdempotencyKey | None) -> Started:
        return await self._write(lambda db: triggers.add_by_hand(db, execution, key), intake=True)

    async def claim_starts(self, now: float, lease_s: float) -> list[Execution]:
        return await self._write(lambda db: executions.claim(db, now, lease_s))

    async def put_off(self, execution_id: str, start_at: float) -> None:
        await self._write(lambda db: executions.put_off(db, execution_id, start_at))

    async def failed_to_start(self, execution_id: str, error: Json, now: float) -> bool:
        return await self._write(lambda db: executions.failed_to_start(db, execution_id, error, now))

    async def expire(self, now: float) -> int:
        return await self._write(lambda db: executions.expire(db, now))

    async def to_cancel(self) -> list[Execution]:
        return await self._read(triggers.EXECUTIONS.find_all, "cancel_due = 1")

    async def cancelled(self, execution_id: str) -> None:
        await self._write(
            lambda db: db.execute("UPDATE trigger_executions SET cancel_due = 0 WHERE id = ?", (execution_id,)) and None
        )

    async def get_execution(self, execution_id: str) -> Execution:
        return await self._read(triggers.EXECUTIONS.get, execution_id)

    async def list_executions(
        self,
        *,
        owner: str,
        trigger_id: str | None = None,
        statuses: Sequence[str] | None = None,
        limit: int = 20,
        cursor: str | None = None,
    ) -> Page:
        return await self._read(executions.page, owner, trigger_id, statuses, limit, cursor)

    # -- webhooks --------------------------------------------------------------------------------------------
    async def add_webhook(self, webhook: Webhook, key: IdempotencyKey | None, most: int) -> Started:
        return await self._write(lambda db: webhooks.add(db, webhook, key, most), intake=True)

    async def get_webhook(self, webhook_id: str) -> Webhook:
        return await self._read(webhooks.TABLE.get, webhook_id)

    async def list_webhooks(self, *, owner: str, limit: int = 50, cursor: str | None = None) -> Page:
        return await self._read(webhooks.page, owner, limit, cursor)

    async def put_webhook(self, webhook: Webhook, *, was_updated_at: float) -> bool:
        return await self._write(lambda db: webhooks.put(db, webhook, was_updated_at))

    async def delete_webhook(self, webhook_id: str) -> dict[str, int]:
        removed = await self._write(lambda db: webhooks.delete(db, webhook_id))
        await self._clear()
        return removed

    async def secret_refs(self) -> set[str]:
        return await self._read(webhooks.secret_refs)

    # -- deliveries ------------------------------------------------------------------------------------------
    async def add_delivery(self, delivery: Delivery, lease_until: float | None) -> None:
        delivery.next_at = lease_until if lease_until is not None else delivery.created_at
        delivery.claimed = lease_until is not None
        await self._write(lambda db: webhooks.DELIVERIES.insert(db, delivery))

    async def claim_deliveries(self, now: float, lease_s: float, busy: dict[str, int], most: int) -> list[Claimed]:
        taken = dict(busy)
        return await self._write(lambda db: webhooks.claim(db, now, lease_s, taken, most))

    async def attempted(
        self,
        delivery_id: str,
        lease_until: float,
        attempt: Attempt,
        *,
        retry_at: float | None,
        disable: WebhookStatus | None = None,
        reason: str | None = None,
    ) -> bool:
        return await self._write(
            lambda db: webhooks.attempted(db, delivery_id, lease_until, attempt, retry_at, disable, reason)
        )

    async def get_delivery(self, delivery_id: str) -> Delivery:
        return await self._read(webhooks.delivery, delivery_id)

    async def list_deliveries(
        self,
        *,
        owner: str,
        webhook_id: str | None = None,
        status: str | None = None,
        limit: int = 20,
        cursor: str | None = None,
    ) -> Page:
        return await self._read(webhooks.deliveries, owner, webhook_id, status, limit, cursor)

    async def redeliver(self, delivery_id: str, now: float) -> Delivery:
        return await self._write(lambda db: webhooks.redeliver(db, delivery_id, now))

    # -- all -------------------------------------------------------------------------------------------------
    async def due(self) -> Due:
        return await self._read(waits.due)

    async def counts(self, *, owner: str) -> Json:
        return {**await self._read(triggers.counts, owner), **await self._read(webhooks.counts, owner)}

    async def prune(self, before: float) -> int:
        return await self._write(lambda db: waits.prune(db, before))


def _size(work: Json) -> int:
    return 1000 + len(str(work))
