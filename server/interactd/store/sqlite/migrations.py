"""Numbered, append-only migrations. Never change one that was released: add the next.

The number of the last one is in `PRAGMA user_version`; sqlite-utils keeps its own record of names beside it. It is
imported only when a migration is due (it costs a tenth of a second), and always runs inside our own BEGIN IMMEDIATE,
because a plain BEGIN fails at once when two processes start together.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from interactd.errors import StorageError

if TYPE_CHECKING:
    from sqlite_utils import Database

APPLICATION_ID: Final = 0x696E7464
"""Marks the file as ours ("intd"), so that somebody else's database is never migrated."""

SESSIONS: Final = """
CREATE TABLE sessions (
    id TEXT PRIMARY KEY NOT NULL,
    owner TEXT NOT NULL,
    title TEXT,
    created_at REAL NOT NULL,
    updated_at REAL NOT NULL,
    expires_at REAL,
    ttl_s REAL,
    head TEXT,
    turns INTEGER NOT NULL,
    forked_from TEXT,
    forked_at TEXT,
    model TEXT,
    agent TEXT,
    labels TEXT,
    generation_config TEXT,
    tools TEXT,
    system_instruction TEXT
) STRICT;
-- With the expiry at its end it serves the sweeper too: every index of its own would be one more page a turn.
CREATE INDEX sessions_by_activity ON sessions (owner, updated_at, id, expires_at);
CREATE INDEX sessions_forked ON sessions (forked_at) WHERE forked_at IS NOT NULL;

-- skip_id is an ancestor chosen so that any ancestor is reached in a logarithmic number of jumps.
-- steps is how many there are: the next one's seq. crosses is 1 where the previous one is of another session.
CREATE TABLE interactions (
    id TEXT PRIMARY KEY NOT NULL,
    session_id TEXT NOT NULL,
    previous_interaction_id TEXT,
    crosses INTEGER NOT NULL,
    status TEXT NOT NULL,
    created_at REAL NOT NULL,
    started_at REAL,
    finished_at REAL,
    read_at REAL,
    background INTEGER NOT NULL,
    depth INTEGER NOT NULL,
    skip_id TEXT NOT NULL,
    skip_depth INTEGER NOT NULL,
    epoch INTEGER NOT NULL,
    attempt INTEGER NOT NULL,
    steps INTEGER NOT NULL,
    model TEXT,
    agent TEXT,
    finish_reason TEXT,
    usage TEXT,
    error TEXT,
    pending TEXT,
    generation_config TEXT,
    tools TEXT,
    system_instruction TEXT
) STRICT, WITHOUT ROWID;
CREATE INDEX interactions_by_session ON interactions (session_id);
CREATE INDEX interactions_that_cross ON interactions (previous_interaction_id) WHERE crosses = 1;
CREATE UNIQUE INDEX one_running_interaction ON interactions (session_id)
    WHERE status IN ('in_progress', 'requires_action');
CREATE INDEX interactions_queued ON interactions (session_id) WHERE status = 'queued';
CREATE INDEX interactions_unread ON interactions (session_id)
    WHERE background = 1 AND read_at IS NULL AND finished_at IS NOT NULL;

-- An id is never used again, because the full-text index and its progress mark refer to it.
CREATE TABLE steps (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    interaction_id TEXT NOT NULL,
    seq INTEGER NOT NULL,
    type TEXT NOT NULL,
    created_at REAL NOT NULL,
    body TEXT NOT NULL,
    state TEXT,
    UNIQUE (interaction_id, seq)
) STRICT;

CREATE TABLE idempotency_keys (
    owner TEXT NOT NULL,
    key TEXT NOT NULL,
    kind TEXT NOT NULL,
    digest TEXT NOT NULL,
    target_id TEXT NOT NULL,
    session_id TEXT NOT NULL,
    created_at REAL NOT NULL,
    PRIMARY KEY (owner, key)
) STRICT, WITHOUT ROWID;
CREATE INDEX idempotency_keys_by_session ON idempotency_keys (session_id);
CREATE INDEX idempotency_keys_by_age ON idempotency_keys (created_at);

CREATE TABLE tombstones (
    id TEXT PRIMARY KEY NOT NULL,
    kind TEXT NOT NULL,
    session_id TEXT NOT NULL,
    owner TEXT NOT NULL,
    created_at REAL NOT NULL,
    deleted_at REAL NOT NULL,
    reason TEXT NOT NULL,
    receipt TEXT
) STRICT, WITHOUT ROWID;

CREATE TABLE settings (
    name TEXT PRIMARY KEY NOT NULL,
    value TEXT NOT NULL
) STRICT, WITHOUT ROWID;

-- The rowid is steps.id. Words of scripts without spaces are separated by U+200B.
CREATE VIRTUAL TABLE step_texts USING fts5 (text, tokenize = 'unicode61 remove_diacritics 2');
-- Entries of step_texts whose step is gone: taken out in small pieces.
CREATE TABLE step_texts_gone (id INTEGER PRIMARY KEY) STRICT;
"""

ENVIRONMENTS: Final = """
-- status: creating and deleting are half-way and never shown; deleted and expired are tombstones without a body.
CREATE TABLE environments (
    id TEXT PRIMARY KEY NOT NULL,
    owner TEXT NOT NULL,
    status TEXT NOT NULL,
    created_at REAL NOT NULL,
    last_used_at REAL NOT NULL,
    expires_at REAL NOT NULL,
    forked_from TEXT,
    size_bytes INTEGER,
    file_count INTEGER,
    body TEXT
) STRICT;
CREATE INDEX environments_by_use ON environments (owner, status, last_used_at, id);
CREATE INDEX environments_by_expiry ON environments (expires_at) WHERE status = 'active';

CREATE TABLE artifacts (
    id TEXT PRIMARY KEY NOT NULL,
    interaction_id TEXT NOT NULL,
    name TEXT NOT NULL,
    sha256 TEXT NOT NULL,
    size_bytes INTEGER NOT NULL,
    mime_type TEXT NOT NULL,
    created_at REAL NOT NULL,
    UNIQUE (interaction_id, name)
) STRICT;
CREATE INDEX artifacts_by_content ON artifacts (sha256);

-- left_out says which files of the run were not kept, and why.
CREATE TABLE captures (
    interaction_id TEXT PRIMARY KEY NOT NULL,
    environment_id TEXT NOT NULL,
    captured_at REAL NOT NULL,
    left_out TEXT NOT NULL
) STRICT, WITHOUT ROWID;

-- Contents whose last row may be gone: their files are removed after the commit.
CREATE TABLE contents_gone (sha256 TEXT PRIMARY KEY NOT NULL) STRICT, WITHOUT ROWID;
"""


def _statements(script: str) -> list[str]:
    """Split a script of ours: `executescript` would commit the transaction it is called in."""
    lines = [line for line in script.splitlines() if not line.startswith("--")]
    return [statement.strip() for statement in "\n".join(lines).split(";") if statement.strip()]


def m001_sessions(db: Database) -> None:
    """Sessions, interactions, steps, keys, tombstones, settings and the full-text index."""
    for statement in _statements(SESSIONS):
        db.conn.execute(statement)


AGENT_RUNS: Final = """
ALTER TABLE sessions ADD COLUMN agent_pins TEXT;
ALTER TABLE sessions ADD COLUMN environment TEXT;
ALTER TABLE interactions ADD COLUMN agent_hash TEXT;
ALTER TABLE interactions ADD COLUMN environment_id TEXT;
ALTER TABLE interactions ADD COLUMN isolation TEXT;
"""


def m002_agent_runs(db: Database) -> None:
    """Which content of an agent ran, where, and how isolated."""
    for statement in _statements(AGENT_RUNS):
        db.conn.execute(statement)


def m003_environments(db: Database) -> None:
    """Environments, and the artifacts that interactions leave."""
    for statement in _statements(ENVIRONMENTS):
        db.conn.execute(statement)


TERMS: Final = """
ALTER TABLE sessions ADD COLUMN budget TEXT;
ALTER TABLE sessions ADD COLUMN approvals TEXT;
ALTER TABLE interactions ADD COLUMN parent_id TEXT;
ALTER TABLE interactions ADD COLUMN runner TEXT;
ALTER TABLE interactions ADD COLUMN budget TEXT;
ALTER TABLE interactions ADD COLUMN approvals TEXT;
ALTER TABLE interactions ADD COLUMN dispatch TEXT;
CREATE INDEX interactions_by_parent ON interactions (parent_id) WHERE parent_id IS NOT NULL;
"""


def m004_terms(db: Database) -> None:
    """On what terms turns run: budgets, approvals, dispatch; and who runs them."""
    for statement in _statements(TERMS):
        db.conn.execute(statement)


SCHEDULES: Final = """
CREATE TABLE triggers (
    id TEXT PRIMARY KEY NOT NULL,
    owner TEXT NOT NULL,
    display_name TEXT,
    status TEXT NOT NULL,
    schedule TEXT NOT NULL,
    time_zone TEXT NOT NULL,
    anchor_at REAL NOT NULL,
    work TEXT NOT NULL,
    missed TEXT NOT NULL,
    overlap TEXT NOT NULL,
    max_consecutive_failures INTEGER NOT NULL,
    execution_timeout_s REAL NOT NULL,
    next_run_at REAL,
    decided_at REAL NOT NULL,
    last_run_at REAL,
    last_pause_at REAL,
    last_resume_at REAL,
    consecutive_failure_count INTEGER NOT NULL,
    session_id TEXT,
    environment_id TEXT,
    error TEXT,
    cwd TEXT,
    revision INTEGER NOT NULL,
    created_at REAL NOT NULL,
    updated_at REAL NOT NULL
) STRICT;
CREATE INDEX triggers_due ON triggers (next_run_at) WHERE status = 'active';

-- slot is the time that was due, or the run that was asked for by hand: decided once, whoever decides.
-- cancel_due is 1 where the time was up and the interaction has still to be stopped.
CREATE TABLE trigger_executions (
    id TEXT PRIMARY KEY NOT NULL,
    trigger_id TEXT NOT NULL,
    owner TEXT NOT NULL,
    slot TEXT NOT NULL,
    scheduled_at REAL NOT NULL,
    status TEXT NOT NULL,
    cause TEXT NOT NULL,
    reason TEXT,
    details TEXT,
    work TEXT NOT NULL,
    timeout_s REAL NOT NULL,
    created_at REAL NOT NULL,
    start_at REAL,
    started_at REAL,
    finished_at REAL,
    deadline_at REAL,
    session_id TEXT,
    interaction_id TEXT,
    environment_id TEXT,
    error TEXT,
    cancel_due INTEGER NOT NULL DEFAULT 0,
    UNIQUE (trigger_id, slot)
) STRICT;
CREATE INDEX trigger_executions_open ON trigger_executions (trigger_id, status)
    WHERE status IN ('queued', 'in_progress');
CREATE INDEX trigger_executions_of ON trigger_executions (interaction_id) WHERE interaction_id IS NOT NULL;
CREATE INDEX trigger_executions_to_cancel ON trigger_executions (id) WHERE cancel_due = 1;
CREATE INDEX trigger_executions_by_trigger ON trigger_executions (trigger_id, id);

-- No secret is in here: signing_secrets has the names under which the vault keeps them.
CREATE TABLE webhooks (
    id TEXT PRIMARY KEY NOT NULL,
    owner TEXT NOT NULL,
    name TEXT,
    kind TEXT NOT NULL,
    target TEXT NOT NULL,
    subscribed_events TEXT NOT NULL,
    status TEXT NOT NULL,
    background_only INTEGER NOT NULL,
    allow_local INTEGER NOT NULL,
    user_metadata TEXT,
    signing_secrets TEXT NOT NULL,
    failing_since REAL,
    consecutive_failures INTEGER NOT NULL,
    last_success_at REAL,
    last_error TEXT,
    created_at REAL NOT NULL,
    updated_at REAL NOT NULL
) STRICT;

-- The outbox. While somebody makes a delivery its next_at is the end of their lease.
CREATE TABLE deliveries (
    id TEXT PRIMARY KEY NOT NULL,
    webhook_id TEXT NOT NULL,
    owner TEXT NOT NULL,
    event TEXT NOT NULL,
    subject_id TEXT NOT NULL,
    payload TEXT NOT NULL,
    created_at REAL NOT NULL,
    status TEXT NOT NULL,
    next_at REAL,
    give_up_at REAL NOT NULL,
    claimed INTEGER NOT NULL DEFAULT 0,
    attempts INTEGER NOT NULL,
    reason TEXT
) STRICT;
CREATE INDEX deliveries_due ON deliveries (webhook_id, next_at) WHERE status = 'pending';
CREATE INDEX deliveries_by_webhook ON deliveries (webhook_id, id);

CREATE TABLE delivery_attempts (
    delivery_id TEXT NOT NULL,
    number INTEGER NOT NULL,
    at REAL NOT NULL,
    ok INTEGER NOT NULL,
    status_code INTEGER,
    duration_ms INTEGER NOT NULL,
    answer TEXT NOT NULL,
    error TEXT,
    PRIMARY KEY (delivery_id, number)
) STRICT, WITHOUT ROWID;
"""


def m005_schedules(db: Database) -> None:
    """Triggers and what they ran; webhooks and what they were told."""
    for statement in _statements(SCHEDULES):
        db.conn.execute(statement)


ALL: Final[Sequence[Callable[[Database], None]]] = (
    m001_sessions,
    m002_agent_runs,
    m003_environments,
    m004_terms,
    m005_schedules,
)
LATEST: Final = len(ALL)


def version(connection: sqlite3.Connection, path: Path) -> int:
    """Return the schema number of the file; 0 for an empty one.

    Raises:
        StorageError: it is newer than this version of interactd, or another program's database.
        sqlite3.DatabaseError: it is no database, or damaged.
    """
    number: int = connection.execute("PRAGMA user_version").fetchone()[0]
    application: int = connection.execute("PRAGMA application_id").fetchone()[0]
    tables: int = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]
    if application != APPLICATION_ID and (tables or number or application):
        raise StorageError(
            f"{path} is another program's SQLite database",
            repair="It was left as it is. Move it elsewhere, or set INTERACTD_HOME to another folder.",
            path=str(path),
        )
    if number > LATEST:
        raise StorageError(
            f"{path} was written by a newer interactd (schema {number}, this version knows {LATEST})",
            repair="Upgrade interactd, or set INTERACTD_HOME to another folder. The file was left as it is.",
            path=str(path),
            schema=number,
        )
    return number


def migrate(connection: sqlite3.Connection, path: Path) -> None:
    """Bring the file to `LATEST` in one transaction, unless it is there already."""
    if version(connection, path) == LATEST:
        return
    from sqlite_utils import Database, Migrations

    connection.execute("BEGIN IMMEDIATE")
    try:
        # Another process may have done it while this one waited for the lock.
        if version(connection, path) < LATEST:
            numbered = Migrations("interactd")
            for migration in ALL:
                numbered()(migration)
            numbered.apply(Database(connection))
            connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            connection.execute(f"PRAGMA user_version = {LATEST}")
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
