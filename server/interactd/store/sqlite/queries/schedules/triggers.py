"""Triggers: kept, changed, and fired exactly once for each time that is due."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Final

from interactd.errors import Conflict
from interactd.nouns import Json
from interactd.store.port import IdempotencyKey, Page, Started
from interactd.store.schedules_port import Decision, Execution, Trigger
from interactd.store.sqlite.queries import rows, sessions
from interactd.store.sqlite.queries.housekeeping import rewrite_due
from interactd.store.sqlite.queries.schedules.table import Table, any_of

TABLE: Final = Table(
    "triggers", Trigger, "trigger", repair="list_triggers shows those there are.", json_columns=("work", "error")
)
EXECUTIONS: Final = Table(
    "trigger_executions",
    Execution,
    "execution",
    repair="list_executions shows those there are.",
    json_columns=("work", "details", "error"),
)
MAX_QUEUED: Final = 10
"""Runs that may wait for the one before them."""
OPEN: Final = "status IN ('queued', 'in_progress')"
"""Said in every query that looks for these: the index of the few that are open serves only who says so."""
CLOCK_SLACK_S: Final = 1.0


def add(db: sqlite3.Connection, trigger: Trigger, key: IdempotencyKey | None, most: int) -> Started:
    """Insert, unless its key says that it was."""
    if before := sessions.started_before(db, "create_trigger", key, trigger.created_at):
        return before
    there = db.execute("SELECT count(*) FROM triggers WHERE owner = ?", (rows.exact(trigger.owner),)).fetchone()[0]
    if there >= most:
        raise Conflict(
            f"there are {there} triggers already, and there may be {most}",
            repair="Delete one that is not needed (delete_trigger), or change one (update_trigger).",
        )
    TABLE.insert(db, trigger)
    sessions.keep_key(db, "create_trigger", key, trigger.id, trigger.id, trigger.created_at)
    return Started(trigger.id, created=True)


def page(db: sqlite3.Connection, owner: str, statuses: Sequence[str] | None, limit: int, cursor: str | None) -> Page:
    """One owner's, oldest first."""
    where, values = any_of("status", statuses)
    return TABLE.page(db, ["owner = ?", *where], [rows.exact(owner), *values], limit, cursor, newest_first=False)


def put(db: sqlite3.Connection, trigger: Trigger, revision: int) -> bool:
    """Replace the row if it is still at `revision`; a trigger that no longer is active drops what waits in line."""
    row = db.execute("SELECT revision FROM triggers WHERE id = ?", (rows.exact(trigger.id),)).fetchone()
    if row is None:
        raise TABLE.missing(trigger.id)
    if row[0] != revision:
        return False
    TABLE.update(db, trigger)
    if trigger.status != "active":
        skip_queued(db, trigger.id, trigger.status, trigger.updated_at)
    return True


def delete(db: sqlite3.Connection, id: str, now: float) -> dict[str, int]:
    """Remove the trigger; what it ran stays on record."""
    skip_queued(db, id, "deleted", now)
    if db.execute("DELETE FROM triggers WHERE id = ?", (rows.exact(id),)).rowcount == 0:
        raise TABLE.missing(id)
    rewrite_due(db)
    kept, running = db.execute(
        "SELECT count(*), coalesce(sum(status = 'in_progress'), 0) FROM trigger_executions WHERE trigger_id = ?", (id,)
    ).fetchone()
    return {"executions_kept": kept, "still_running": running}


def due(db: sqlite3.Connection, now: float) -> list[Trigger]:
    """Active ones whose time has come, and those decided by a clock that has gone back since."""
    return TABLE.find_all(
        db, "status = 'active' AND (next_run_at <= ? OR decided_at > ?)", (now, now + CLOCK_SLACK_S), "ORDER BY id"
    )


def fire(db: sqlite3.Connection, decision: Decision) -> list[Execution]:
    """Record a decision and what it starts, if the trigger is still what was decided about."""
    id = rows.exact(decision.trigger_id)
    row = db.execute(
        "SELECT status, revision, next_run_at, overlap, session_id, environment_id FROM triggers WHERE id = ?", (id,)
    ).fetchone()
    if row is None or row[0] != "active" or row[1] != decision.revision or row[2] != decision.was_next:
        return []
    recorded: list[Execution] = []
    for execution in decision.executions:
        if execution.status == "in_progress":
            _place(db, execution, row[3])
            execution.session_id, execution.environment_id = row[4], row[5]
        # A slot that has a row was decided before: by another daemon, or before the clock went back.
        if EXECUTIONS.insert(db, execution, unless_there=True):
            recorded.append(execution)
    ended = decision.next_run_at is None
    db.execute(
        "UPDATE triggers SET next_run_at = ?, decided_at = ?, revision = revision + 1,"
        " status = CASE WHEN ? THEN 'completed' ELSE status END WHERE id = ?",
        (decision.next_run_at, decision.now, ended, id),
    )
    return recorded


def add_by_hand(db: sqlite3.Connection, execution: Execution, key: IdempotencyKey | None) -> Started:
    """Record a run that a person asked for, whatever the trigger's status."""
    if before := sessions.started_before(db, "run_trigger", key, execution.created_at):
        return before
    trigger = TABLE.get(db, execution.trigger_id)
    if trigger.overlap == "skip" and (running := _running(db, trigger.id)) is not None:
        raise Conflict(
            f"run {running[0]} of trigger {trigger.id} has not ended"
            + (f" (interaction {running[1]})" if running[1] else ""),
            repair="Wait for it (list_executions), cancel_interaction it, or update_trigger with overlap queue.",
            **({"interaction_id": running[1], "status": "in_progress"} if running[1] else {}),
            execution_id=running[0],
        )
    _place(db, execution, trigger.overlap)
    if execution.status == "skipped":
        raise Conflict(
            f"{MAX_QUEUED} runs of trigger {trigger.id} wait already", repair="Wait for some of them (list_executions)."
        )
    execution.session_id, execution.environment_id = trigger.session_id, trigger.environment_id
    EXECUTIONS.insert(db, execution)
    sessions.keep_key(db, "run_trigger", key, execution.id, trigger.id, execution.created_at)
    return Started(execution.id, created=True)


def _running(db: sqlite3.Connection, trigger_id: str) -> tuple[str, str | None] | None:
    return db.execute(
        "SELECT id, interaction_id FROM trigger_executions INDEXED BY trigger_executions_open"
        f" WHERE trigger_id = ? AND {OPEN} ORDER BY id LIMIT 1",
        (trigger_id,),
    ).fetchone()


def _place(db: sqlite3.Connection, execution: Execution, overlap: str) -> None:
    """Let it run, wait or be skipped, by what of its trigger has not ended."""
    running = _running(db, execution.trigger_id)
    if running is None:
        return
    execution.start_at = None
    waiting = db.execute(
        "SELECT count(*) FROM trigger_executions INDEXED BY trigger_executions_open"
        f" WHERE trigger_id = ? AND {OPEN} AND status = 'queued'",
        (execution.trigger_id,),
    ).fetchone()[0]
    if overlap == "queue" and waiting < MAX_QUEUED:
        execution.status = "queued"
        return
    execution.status, execution.finished_at, execution.work = "skipped", execution.created_at, {}
    execution.reason = "queue_full" if overlap == "queue" else "overlap"
    execution.details = {"execution_id": running[0]}


def skip_queued(db: sqlite3.Connection, trigger_id: str, reason: str, now: float) -> None:
    """Drop what waits in line for a trigger."""
    db.execute(
        "UPDATE trigger_executions INDEXED BY trigger_executions_open"
        " SET status = 'skipped', reason = ?, finished_at = ?, work = '{}'"
        f" WHERE trigger_id = ? AND {OPEN} AND status = 'queued'",
        (reason, now, rows.exact(trigger_id)),
    )


def move_up(db: sqlite3.Connection, now: float) -> None:
    """Let the oldest waiting execution of each trigger go, where nothing of it runs any more."""
    ready = db.execute(
        "SELECT min(id) FILTER (WHERE status = 'queued'), trigger_id"
        f" FROM trigger_executions INDEXED BY trigger_executions_open WHERE {OPEN}"
        " GROUP BY trigger_id HAVING sum(status = 'in_progress') = 0"
    ).fetchall()
    for id, trigger_id in ready:
        row = db.execute("SELECT session_id, environment_id FROM triggers WHERE id = ?", (trigger_id,)).fetchone()
        session_id, environment_id = row or (None, None)
        db.execute(
            "UPDATE trigger_executions SET status = 'in_progress', start_at = ?, session_id = ?, environment_id = ?"
            " WHERE id = ?",
            (now, session_id, environment_id, id),
        )


def counts(db: sqlite3.Connection, owner: str) -> Json:
    """How one owner's triggers do."""
    total, active, next_run_at = db.execute(
        "SELECT count(*), coalesce(sum(status = 'active'), 0), min(CASE WHEN status = 'active' THEN next_run_at END)"
        " FROM triggers WHERE owner = ?",
        (rows.exact(owner),),
    ).fetchone()
    bad = db.execute(
        "SELECT id, display_name FROM triggers WHERE owner = ? AND status = 'error' ORDER BY id LIMIT 20",
        (rows.exact(owner),),
    )
    return {
        "triggers": total,
        "active": active,
        "in_error": [{"id": row[0], "display_name": row[1]} for row in bad],
        "next_run_at": next_run_at,
    }
