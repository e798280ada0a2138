"""What is waited for, over triggers and webhooks together, and forgetting what is long over."""

from __future__ import annotations

import sqlite3

from interactd.store.schedules_port import Due

KEPT_EXECUTIONS = 100


def due(db: sqlite3.Connection) -> Due:
    """When something is to be done next, and what a daemon must not leave alone."""
    next_run_at, triggers = db.execute(
        "SELECT min(next_run_at), count(next_run_at) FROM triggers WHERE status = 'active'"
    ).fetchone()
    start_at, deadline_at, running, queued = db.execute(
        "SELECT min(CASE WHEN interaction_id IS NULL THEN start_at END), min(deadline_at),"
        " coalesce(sum(status = 'in_progress'), 0), coalesce(sum(status = 'queued'), 0)"
        " FROM trigger_executions WHERE status IN ('queued', 'in_progress')"
    ).fetchone()
    (cancels,) = db.execute("SELECT count(*) FROM trigger_executions WHERE cancel_due = 1").fetchone()
    delivery_at, deliveries = db.execute(
        "SELECT min(next_at), count(*) FROM deliveries WHERE status = 'pending'"
    ).fetchone()
    return Due(next_run_at, start_at, deadline_at, delivery_at, triggers, running, queued, cancels, deliveries)


def prune(db: sqlite3.Connection, before: float) -> int:
    """Forget executions and deliveries that ended before then."""
    gone = db.execute(
        "DELETE FROM trigger_executions WHERE finished_at < ? AND cancel_due = 0 AND id IN (SELECT id FROM"
        " (SELECT id, row_number() OVER (PARTITION BY trigger_id ORDER BY id DESC) AS place FROM trigger_executions)"
        f" WHERE place > {KEPT_EXECUTIONS})",
        (before,),
    ).rowcount
    over = "status <> 'pending' AND created_at < ?"
    db.execute(
        f"DELETE FROM delivery_attempts WHERE delivery_id IN (SELECT id FROM deliveries WHERE {over})", (before,)
    )
    gone += db.execute(
        "DELETE FROM webhooks WHERE interaction_id IS NOT NULL AND created_at < ? AND NOT EXISTS"
        " (SELECT 1 FROM deliveries d WHERE d.webhook_id = webhooks.id AND d.status = 'pending')",
        (before,),
    ).rowcount
    return gone + db.execute(f"DELETE FROM deliveries WHERE {over}", (before,)).rowcount
