"""The outbox: what happened becomes deliveries in the transaction in which it happened."""

from __future__ import annotations

import sqlite3
from typing import Final

from interactd.ids import new_id
from interactd.nouns import Interaction, Json
from interactd.store.payloads import payload_of
from interactd.store.schedules_port import EVENTS, GIVE_UP_S
from interactd.store.sqlite.queries import rows

_ENABLED: Final = (
    "SELECT id, subscribed_events, background_only, user_metadata FROM webhooks WHERE status = 'enabled' AND owner = ?"
)
_INSERT: Final = (
    "INSERT INTO deliveries (id, webhook_id, owner, event, subject_id, payload, created_at, status, next_at,"
    " give_up_at, attempts) VALUES (?, ?, ?, ?, ?, ?, ?, 'pending', ?, ?, 0)"
)
LONGEST_MESSAGE: Final = 500


def announce(
    db: sqlite3.Connection, owner: str, event: str, subject_id: str, data: Json, now: float, *, background: bool
) -> None:
    """Write a delivery for every webhook of the owner that wants to hear of it."""
    for id, events, background_only, metadata in db.execute(_ENABLED, (rows.exact(owner),)).fetchall():
        wanted: list[str] = rows.load(events)
        if (event not in wanted and "*" not in wanted) or (background_only and not background):
            continue
        thin = {"id": subject_id, **{name: value for name, value in data.items() if value is not None}}
        if isinstance(message := thin.get("error_message"), str):
            thin["error_message"] = message[:LONGEST_MESSAGE]
        payload = payload_of(event, now, thin, rows.load(metadata))
        db.execute(
            _INSERT,
            (new_id("delivery"), id, rows.exact(owner), event, subject_id, payload, now, now, now + GIVE_UP_S),
        )


def settled(db: sqlite3.Connection, interaction: Interaction, now: float) -> bool:
    """Announce how an interaction stands that is being settled; False when nobody listens at all."""
    event = f"interaction.{interaction.status}"
    # A child's end is its parent's business.
    if event not in EVENTS or interaction.parent_id is not None:
        return False
    if db.execute("SELECT 1 FROM webhooks WHERE status = 'enabled' LIMIT 1").fetchone() is None:
        return False
    row = db.execute("SELECT owner FROM sessions WHERE id = ?", (interaction.session_id,)).fetchone()
    if row is None:
        return False
    error = interaction.error or {}
    data = {"error_code": error.get("code"), "error_message": error.get("message")}
    announce(db, row[0], event, interaction.id, data, now, background=interaction.background)
    return True
