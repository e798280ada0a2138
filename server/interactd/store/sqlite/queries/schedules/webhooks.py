"""Webhooks and their deliveries: claimed by one, logged, tried again, given up."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import fields
from typing import Any, Final

from interactd.errors import Conflict
from interactd.nouns import Json
from interactd.store.port import IdempotencyKey, Page, Started
from interactd.store.schedules_port import EVENTS, GIVE_UP_S, Attempt, Claimed, Delivery, Webhook, WebhookStatus
from interactd.store.sqlite.queries import rows, sessions
from interactd.store.sqlite.queries.housekeeping import rewrite_due
from interactd.store.sqlite.queries.schedules import outbox
from interactd.store.sqlite.queries.schedules.table import Table

TABLE: Final = Table(
    "webhooks",
    Webhook,
    "webhook",
    repair="list_webhooks shows those there are.",
    json_columns=("target", "subscribed_events", "user_metadata", "signing_secrets"),
    flags=("background_only", "allow_local"),
)
DELIVERIES: Final = Table(
    "deliveries",
    Delivery,
    "delivery",
    repair="list_deliveries shows those there are.",
    flags=("claimed",),
    extra=("log",),
)
MAX_OF_TURNS: Final = 10_000
_ATTEMPT: Final = tuple(field.name for field in fields(Attempt))
_SET_BY_PEOPLE: Final = (
    "name",
    "target",
    "subscribed_events",
    "status",
    "background_only",
    "allow_local",
    "user_metadata",
    "signing_secrets",
    "updated_at",
)


def add(db: sqlite3.Connection, webhook: Webhook, key: IdempotencyKey | None, most: int) -> Started:
    """Insert, unless its key says that it was."""
    if before := sessions.started_before(db, "create_webhook", key, webhook.created_at):
        return before
    which = "interaction_id IS NULL"
    if webhook.interaction_id is not None:
        which, most = "interaction_id IS NOT NULL", MAX_OF_TURNS
    (there,) = db.execute(
        f"SELECT count(*) FROM webhooks WHERE owner = ? AND {which}", (rows.exact(webhook.owner),)
    ).fetchone()
    if there >= most:
        raise Conflict(
            f"there are {there} webhooks already, and there may be {most}",
            repair="Delete one that is not needed (delete_webhook), or change one (update_webhook).",
        )
    TABLE.insert(db, webhook)
    if webhook.interaction_id is not None:
        _tell_of_turn(db, webhook, webhook.interaction_id)
    sessions.keep_key(db, "create_webhook", key, webhook.id, webhook.id, webhook.created_at)
    return Started(webhook.id, created=True)


def _tell_of_turn(db: sqlite3.Connection, webhook: Webhook, interaction_id: str) -> None:
    """Tell it at once of a turn that was faster than its webhook."""
    row = db.execute(f"SELECT {rows.INTERACTION} FROM interactions WHERE id = ?", (interaction_id,)).fetchone()
    if row is None:
        raise rows.missing(db, "interaction", interaction_id)
    turn = rows.interaction(row)
    event = f"interaction.{turn.status}"
    if event in EVENTS and (event in webhook.subscribed_events or "*" in webhook.subscribed_events):
        metadata, now = webhook.user_metadata, webhook.created_at
        outbox.tell(db, webhook.id, webhook.owner, event, turn.id, outbox.about(turn), metadata, now)


def page(db: sqlite3.Connection, owner: str, limit: int, cursor: str | None) -> Page:
    """One owner's, oldest first, but those of single turns."""
    return TABLE.page(
        db, ["owner = ?", "interaction_id IS NULL"], [rows.exact(owner)], limit, cursor, newest_first=False
    )


def put(db: sqlite3.Connection, webhook: Webhook, was_updated_at: float) -> bool:
    """Replace what a person sets; how its deliveries do is nobody's to set."""
    row = db.execute("SELECT updated_at, status FROM webhooks WHERE id = ?", (rows.exact(webhook.id),)).fetchone()
    if row is None:
        raise TABLE.missing(webhook.id)
    if row[0] != was_updated_at:
        return False
    values = dict(zip(TABLE.columns, TABLE.values(webhook), strict=True))
    sets = ", ".join(f"{name} = ?" for name in _SET_BY_PEOPLE)
    db.execute(f"UPDATE webhooks SET {sets} WHERE id = ?", (*(values[name] for name in _SET_BY_PEOPLE), values["id"]))
    if webhook.status != "enabled":
        _give_up_all(db, webhook.id, webhook.status)
    elif row[1] != "enabled":
        db.execute(
            "UPDATE webhooks SET failing_since = NULL, consecutive_failures = 0, last_error = NULL WHERE id = ?",
            (webhook.id,),
        )
    return True


def delete(db: sqlite3.Connection, id: str) -> dict[str, int]:
    """Remove it with all that it was or was to be told."""
    id = rows.exact(id)
    if db.execute("DELETE FROM webhooks WHERE id = ?", (id,)).rowcount == 0:
        raise TABLE.missing(id)
    rewrite_due(db)
    total, pending = db.execute(
        "SELECT count(*), coalesce(sum(status = 'pending'), 0) FROM deliveries WHERE webhook_id = ?", (id,)
    ).fetchone()
    db.execute(
        "DELETE FROM delivery_attempts WHERE delivery_id IN (SELECT id FROM deliveries WHERE webhook_id = ?)", (id,)
    )
    db.execute("DELETE FROM deliveries WHERE webhook_id = ?", (id,))
    return {"deliveries": total, "pending": pending}


def secret_refs(db: sqlite3.Connection) -> set[str]:
    """The vault names in use."""
    found = db.execute("SELECT signing_secrets FROM webhooks WHERE signing_secrets IS NOT NULL")
    return {secret["ref"] for row in found for secret in rows.load(row[0])}


def claim(db: sqlite3.Connection, now: float, lease_s: float, busy: dict[str, int], most: int) -> list[Claimed]:
    """Take deliveries that are due: moving their time on keeps others off them until the lease is over."""
    waiting = db.execute(
        "SELECT DISTINCT d.webhook_id FROM deliveries d JOIN webhooks w ON w.id = d.webhook_id"
        " WHERE d.status = 'pending' AND d.next_at <= ? AND w.status = 'enabled'",
        (now,),
    ).fetchall()
    claimed: list[Claimed] = []
    for (webhook_id,) in waiting:
        room = most - busy.get(webhook_id, 0)
        if room <= 0:
            continue
        webhook = TABLE.get(db, webhook_id)
        found = DELIVERIES.find_all(
            db,
            "webhook_id = ? AND status = 'pending' AND next_at <= ?",
            (webhook_id, now),
            f"ORDER BY next_at, id LIMIT {int(room)}",
        )
        for delivery in found:
            delivery.next_at, delivery.claimed = now + lease_s + float(webhook.target.get("timeout_s") or 0), True
            db.execute("UPDATE deliveries SET next_at = ?, claimed = 1 WHERE id = ?", (delivery.next_at, delivery.id))
            claimed.append(Claimed(delivery, webhook))
    return claimed


def attempted(
    db: sqlite3.Connection,
    delivery_id: str,
    lease_until: float,
    attempt: Attempt,
    retry_at: float | None,
    disable: WebhookStatus | None,
    reason: str | None,
) -> bool:
    """Log an attempt and what follows from it, unless the lease went to somebody else meanwhile."""
    row = db.execute(
        "SELECT webhook_id, status, next_at, attempts, created_at FROM deliveries WHERE id = ?",
        (rows.exact(delivery_id),),
    ).fetchone()
    if row is None or row[1] != "pending" or row[2] != lease_until:
        return False
    webhook_id, created_at = row[0], row[4]
    attempt.number = row[3] + 1
    values = [getattr(attempt, name) for name in _ATTEMPT]
    values = [rows.clean(value) if isinstance(value, str) else value for value in values]
    db.execute(
        f"INSERT INTO delivery_attempts (delivery_id, {', '.join(_ATTEMPT)}) VALUES (?{', ?' * len(_ATTEMPT)})",
        (delivery_id, *values),
    )
    status = "delivered" if attempt.ok else "failed" if retry_at is None else "pending"
    db.execute(
        "UPDATE deliveries SET status = ?, next_at = ?, attempts = ?, reason = ?, claimed = 0 WHERE id = ?",
        (status, retry_at if status == "pending" else None, attempt.number, reason, delivery_id),
    )
    if attempt.ok:
        db.execute(
            "UPDATE webhooks SET failing_since = NULL, consecutive_failures = 0, last_error = NULL,"
            " last_success_at = ? WHERE id = ?",
            (attempt.at, webhook_id),
        )
        return True
    db.execute(
        "UPDATE webhooks SET failing_since = coalesce(failing_since, ?), last_error = ?,"
        " consecutive_failures = consecutive_failures + 1 WHERE id = ?",
        (attempt.at, rows.clean(attempt.error or f"status {attempt.status_code}"), webhook_id),
    )
    if status == "failed" and disable is None:
        # A whole day of this one, and nothing got through since it was written.
        (success,) = db.execute("SELECT last_success_at FROM webhooks WHERE id = ?", (webhook_id,)).fetchone()
        if reason == "gave_up" and (success is None or success < created_at):
            disable = "disabled_due_to_failed_deliveries"
    if disable is not None:
        db.execute("UPDATE webhooks SET status = ?, updated_at = ? WHERE id = ?", (disable, attempt.at, webhook_id))
        _give_up_all(db, webhook_id, disable)
    return True


def _give_up_all(db: sqlite3.Connection, webhook_id: str, reason: str) -> None:
    db.execute(
        "UPDATE deliveries SET status = 'failed', next_at = NULL, reason = ? WHERE webhook_id = ?"
        " AND status = 'pending' AND event <> 'webhook.ping'",
        (reason, webhook_id),
    )


def deliveries(
    db: sqlite3.Connection, owner: str, webhook_id: str | None, status: str | None, limit: int, cursor: str | None
) -> Page:
    """Newest first, with their logs."""
    where, values = ["owner = ?"], [rows.exact(owner)]
    for column, value in (("webhook_id", webhook_id), ("status", status)):
        if value is not None:
            where.append(f"{column} = ?")
            values.append(rows.exact(value))
    found = DELIVERIES.page(db, where, values, limit, cursor, newest_first=True)
    for one in found.items:
        one.log = _log(db, one.id)
    return found


def delivery(db: sqlite3.Connection, id: str) -> Delivery:
    """One, with its log."""
    found = DELIVERIES.get(db, id)
    found.log = _log(db, found.id)
    return found


def redeliver(db: sqlite3.Connection, id: str, now: float) -> Delivery:
    """Make it due now, and try it for another day."""
    found = DELIVERIES.get(db, id)
    if found.claimed and found.status == "pending" and (found.next_at or 0) > now:
        raise Conflict(
            f"delivery {id} is being made just now", repair="Look at list_deliveries in a few seconds.", id=id
        )
    webhook = TABLE.find_all(db, "id = ?", (found.webhook_id,))
    if not webhook or webhook[0].status != "enabled":
        raise Conflict(
            f"webhook {found.webhook_id} is {webhook[0].status if webhook else 'deleted'}",
            repair="Enable it first: update_webhook with status enabled.",
            id=found.webhook_id,
            kind="webhook",
        )
    db.execute(
        "UPDATE deliveries SET status = 'pending', next_at = ?, give_up_at = ?, reason = NULL, claimed = 0"
        " WHERE id = ?",
        (now, now + GIVE_UP_S, found.id),
    )
    return delivery(db, found.id)


def counts(db: sqlite3.Connection, owner: str) -> Json:
    """How one owner's webhooks do."""
    owner = rows.exact(owner)
    (total,) = db.execute(
        "SELECT count(*) FROM webhooks WHERE owner = ? AND interaction_id IS NULL", (owner,)
    ).fetchone()
    failing = db.execute(
        "SELECT id, name, status, last_error FROM webhooks WHERE owner = ? AND interaction_id IS NULL"
        " AND (status = 'disabled_due_to_failed_deliveries' OR (status = 'enabled' AND failing_since IS NOT NULL))"
        " ORDER BY id LIMIT 20",
        (owner,),
    )
    listed = [{"id": row[0], "name": row[1], "status": row[2], "last_error": row[3]} for row in failing]
    (undelivered,) = db.execute(
        "SELECT count(*) FROM deliveries WHERE status = 'pending' AND owner = ?", (owner,)
    ).fetchone()
    return {"webhooks": total, "failing": listed, "undelivered": undelivered}


def _log(db: sqlite3.Connection, delivery_id: str) -> list[Attempt]:
    found: Sequence[Sequence[Any]] = db.execute(
        f"SELECT {', '.join(_ATTEMPT)} FROM delivery_attempts WHERE delivery_id = ? ORDER BY number", (delivery_id,)
    ).fetchall()
    attempts = [Attempt(*row) for row in found]
    for attempt in attempts:
        attempt.ok = bool(attempt.ok)
    return attempts
