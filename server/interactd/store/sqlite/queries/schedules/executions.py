"""Executions: who starts them, when they are over, and what that does to their trigger."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Any

from interactd.nouns import Interaction, Json
from interactd.store.port import IdempotencyKey, Page
from interactd.store.schedules_port import START_KEY, Execution
from interactd.store.sqlite.queries import rows
from interactd.store.sqlite.queries.schedules import outbox
from interactd.store.sqlite.queries.schedules.table import any_of
from interactd.store.sqlite.queries.schedules.triggers import EXECUTIONS, OPEN, move_up, skip_queued

UNSTARTED = "status = 'in_progress' AND interaction_id IS NULL"


def page(
    db: sqlite3.Connection,
    owner: str,
    trigger_id: str | None,
    statuses: Sequence[str] | None,
    limit: int,
    cursor: str | None,
) -> Page:
    """One owner's, newest first."""
    where, values = any_of("status", statuses)
    where, values = ["owner = ?", *where], [rows.exact(owner), *values]
    if trigger_id is not None:
        where.append("trigger_id = ?")
        values.append(rows.exact(trigger_id))
    return EXECUTIONS.page(db, where, values, limit, cursor, newest_first=True)


def claim(db: sqlite3.Connection, now: float, lease_s: float) -> list[Execution]:
    """Take those that are to be started: moving their time on keeps others off them."""
    move_up(db, now)
    found = EXECUTIONS.find_all(db, f"{OPEN} AND {UNSTARTED} AND start_at <= ?", (now,), "ORDER BY +id LIMIT 100")
    for execution in found:
        execution.start_at = now + lease_s
        db.execute("UPDATE trigger_executions SET start_at = ? WHERE id = ?", (execution.start_at, execution.id))
    return found


def put_off(db: sqlite3.Connection, id: str, start_at: float) -> None:
    """Have it started later."""
    db.execute(f"UPDATE trigger_executions SET start_at = ? WHERE id = ? AND {UNSTARTED}", (start_at, rows.exact(id)))


def accepted(db: sqlite3.Connection, key: IdempotencyKey, interaction: Interaction) -> bool:
    """Tie an interaction that is being accepted to the execution whose key it was started with."""
    id = key.key.removeprefix(START_KEY)
    now = interaction.created_at
    done = db.execute(
        "UPDATE trigger_executions SET interaction_id = ?, session_id = ?, started_at = ?, deadline_at = ? + timeout_s"
        f" WHERE id = ? AND owner = ? AND {UNSTARTED}",
        (interaction.id, interaction.session_id, now, now, rows.exact(id), rows.exact(key.owner)),
    )
    if done.rowcount == 0:
        return False
    db.execute(
        "UPDATE triggers SET last_run_at = ?, session_id = coalesce(session_id,"
        " CASE WHEN json_extract(work, '$.session') = 'same' THEN ? END)"
        " WHERE id = (SELECT trigger_id FROM trigger_executions WHERE id = ?)",
        (now, interaction.session_id, rows.exact(id)),
    )
    return True


def settled(db: sqlite3.Connection, interaction: Interaction, now: float) -> bool:
    """End the execution of an interaction that is being settled as terminal; False when it has none."""
    row = db.execute(
        "SELECT id, trigger_id, status FROM trigger_executions WHERE interaction_id = ?", (interaction.id,)
    ).fetchone()
    if row is None:
        return False
    id, trigger_id, status = row
    _share(db, trigger_id, id, interaction.environment_id)
    if status != "in_progress":
        # Its time was up: that is how it ended, whatever the interaction still made of it.
        return True
    if interaction.status == "completed":
        _end(db, id, "completed", None, now)
        db.execute("UPDATE triggers SET consecutive_failure_count = 0 WHERE id = ?", (trigger_id,))
        return True
    error: Json = dict(interaction.error or {})
    error.setdefault("code", interaction.status)
    error.setdefault("message", f"The interaction ended as {interaction.status}.")
    _end(db, id, "failed", error, now)
    if interaction.status != "cancelled":
        # Cancelling is somebody's wish, not a failure of the trigger's.
        failed(db, trigger_id, id, error, now)
    return True


def failed_to_start(db: sqlite3.Connection, id: str, error: Json, now: float) -> bool:
    """End one that no turn could be started for."""
    done = db.execute(
        "UPDATE trigger_executions SET status = 'failed', error = ?, finished_at = ?, work = '{}'"
        f" WHERE id = ? AND {UNSTARTED}",
        (rows.dump(error), now, rows.exact(id)),
    )
    if done.rowcount == 0:
        return False
    row = db.execute("SELECT trigger_id FROM trigger_executions WHERE id = ?", (rows.exact(id),)).fetchone()
    failed(db, row[0], id, error, now)
    return True


def expire(db: sqlite3.Connection, now: float) -> int:
    """End those whose time is up."""
    found = EXECUTIONS.find_all(
        db, f"{OPEN} AND status = 'in_progress' AND deadline_at <= ?", (now,), "ORDER BY +id LIMIT 100"
    )
    for execution in found:
        error = {
            "code": "timed_out",
            "message": f"The run took longer than {execution.timeout_s:g} s and was cancelled.",
            "repair": "Give the trigger more execution_timeout_seconds, or less to do.",
        }
        _end(db, execution.id, "timed_out", error, now)
        db.execute("UPDATE trigger_executions SET cancel_due = 1 WHERE id = ?", (execution.id,))
        failed(db, execution.trigger_id, execution.id, error, now)
    return len(found)


def failed(db: sqlite3.Connection, trigger_id: str, execution_id: str, error: Json, now: float) -> None:
    """Count a failure; too many in a row stop the trigger. Either way it is told of."""
    row = db.execute(
        "SELECT owner, status, consecutive_failure_count + 1, max_consecutive_failures FROM triggers WHERE id = ?",
        (trigger_id,),
    ).fetchone()
    if row is None:
        return
    owner, status, count, most = row
    db.execute("UPDATE triggers SET consecutive_failure_count = ? WHERE id = ?", (count, trigger_id))
    if most and count >= most and status == "active":
        status = "error"
        stopped = {**error, "execution_id": execution_id}
        db.execute(
            "UPDATE triggers SET status = 'error', error = ?, next_run_at = NULL, revision = revision + 1,"
            " updated_at = ? WHERE id = ?",
            (rows.dump(stopped), now, trigger_id),
        )
        skip_queued(db, trigger_id, "error", now)
    data: dict[str, Any] = {
        "execution_id": execution_id,
        "trigger_status": status,
        "consecutive_failure_count": count,
        "error_code": error.get("code"),
        "error_message": error.get("message"),
    }
    outbox.announce(db, owner, "trigger.failed", trigger_id, data, now, background=True)


def _share(db: sqlite3.Connection, trigger_id: str, execution_id: str, environment_id: str | None) -> None:
    """Have later runs work where this one did, if that is what the trigger wants."""
    db.execute(
        "UPDATE trigger_executions SET environment_id = coalesce(?, environment_id) WHERE id = ?",
        (environment_id, execution_id),
    )
    db.execute(
        "UPDATE triggers SET environment_id = ? WHERE id = ? AND ? IS NOT NULL"
        " AND coalesce(json_extract(work, '$.share_environment'), 1) AND json_extract(work, '$.session') <> 'same'"
        # A run from before an edit must not bring back the place that the edit did away with.
        " AND json_extract(work, '$.environment') IS"
        " (SELECT json_extract(e.work, '$.environment') FROM trigger_executions e WHERE e.id = ?)",
        (environment_id, trigger_id, environment_id, execution_id),
    )


def _end(db: sqlite3.Connection, id: str, status: str, error: Json | None, now: float) -> None:
    db.execute(
        # What it was to do is with its interaction, and goes when that is deleted.
        "UPDATE trigger_executions SET status = ?, error = ?, finished_at = ?, work = '{}' WHERE id = ?",
        (status, None if error is None else rows.dump(error), now, id),
    )
