"""The outbox: what happened becomes deliveries in the transaction in which it happened."""

from __future__ import annotations

import sqlite3
from typing import Final

from interactd.ids import new_id
from interactd.nouns import Interaction, Json
from interactd.store.payloads import payload_of
from interactd.store.schedules_port import EVENTS, GIVE_UP_S
from interactd.store.sqlite.queries import rows

_COLUMNS: Final = "id, subscribed_events, background_only, user_metadata"
_ENABLED: Final = (
    f"SELECT {_COLUMNS} FROM webhooks WHERE status = 'enabled' AND owner = ? AND interaction_id IS NULL"
    f" UNION ALL SELECT {_COLUMNS} FROM webhooks WHERE interaction_id = ? AND status = 'enabled' AND owner = ?"
)
_INSERT: Final = (
    "INSERT INTO deliveries (id, webhook_id, owner, event, subject_id, payload, created_at, status, next_at,"
    " give_up_at, attempts) VALUES (?, ?, ?, ?, ?, ?, ?, 'pending', ?, ?, 0)"
)
LONGEST_MESSAGE: Final = 500


def announce(
    db: sqlite3.Connection, owner: str, event: str, subject_id: str, data: Json, now: float, *, background: bool
) -> bool:
    """Write a delivery for every webhook of the owner that wants to hear of it; returns whether there was one."""
    told = False
    for id, events, background_only, metadata in db.execute(
        _ENABLED, (rows.exact(owner), subject_id, rows.exact(owner))
    ).fetchall():
        wanted: list[str] = rows.load(events)
        if (event in wanted or "*" in wanted) and (background or not background_only):
            tell(db, id, owner, event, subject_id, data, rows.load(metadata), now)
            told = True
    return told


def tell(
    db: sqlite3.Connection,
    webhook_id: str,
    owner: str,
    event: str,
    subject_id: str,
    data: Json,
    user_metadata: Json | None,
    now: float,
) -> None:
    """Write one delivery."""
    thin = {"id": subject_id, **{name: value for name, value in data.items() if value is not None}}
    if isinstance(message := thin.get("error_message"), str):
        thin["error_message"] = message[:LONGEST_MESSAGE]
    payload = payload_of(event, now, thin, user_metadata)
    db.execute(
        _INSERT,
        (new_id("delivery"), webhook_id, rows.exact(owner), event, subject_id, payload, now, now, now + GIVE_UP_S),
    )


def settled(db: sqlite3.Connection, interaction: Interaction, now: float) -> bool:
    """Announce how an interaction stands that is being settled; returns whether anybody is told."""
    event = f"interaction.{interaction.status}"
    # A child's end is its parent's business.
    if event not in EVENTS or interaction.parent_id is not None:
        return False
    if db.execute("SELECT 1 FROM webhooks WHERE status = 'enabled' LIMIT 1").fetchone() is None:
        return False
    row = db.execute("SELECT owner FROM sessions WHERE id = ?", (interaction.session_id,)).fetchone()
    if row is None:
        return False
    return announce(db, row[0], event, interaction.id, about(interaction), now, background=interaction.background)


def about(interaction: Interaction) -> Json:
    """What is said of an interaction besides its id."""
    error = interaction.error or {}
    return {"error_code": error.get("code"), "error_message": error.get("message")}
