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
from interactd.store.sqlite.queries.schedules.tables import SCHEDULES, WEBHOOKS_OF_TURNS

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


RUNNERS: Final = """
-- beat is the time since the machine was started, beat_at the time of day, for people.
CREATE TABLE runners (
    id TEXT PRIMARY KEY NOT NULL,
    version TEXT NOT NULL,
    pid INTEGER NOT NULL,
    boot TEXT NOT NULL,
    started_at REAL NOT NULL,
    beat_at REAL NOT NULL,
    beat REAL NOT NULL,
    lease_s REAL NOT NULL
) STRICT, WITHOUT ROWID;
ALTER TABLE interactions ADD COLUMN cancel_asked_at REAL;
"""


def m005_runners(db: Database) -> None:
    """Which daemons work on this file, and what they are asked to stop."""
    for statement in _statements(RUNNERS):
        db.conn.execute(statement)


def m006_schedules(db: Database) -> None:
    """Triggers and what they ran; webhooks and what they were told."""
    for statement in _statements(SCHEDULES):
        db.conn.execute(statement)


MONEY: Final = """
-- kind: call (of a model) or time (one attempt's). state: reserved, then settled, released or unknown. Money is in
-- nano-dollars. scopes: the totals that hold its reservation, until it is settled.
CREATE TABLE ledger (
    id TEXT PRIMARY KEY NOT NULL,
    kind TEXT NOT NULL,
    state TEXT NOT NULL,
    interaction_id TEXT NOT NULL,
    session_id TEXT NOT NULL,
    owner TEXT NOT NULL,
    day TEXT NOT NULL,
    agent TEXT,
    provider TEXT,
    model TEXT,
    epoch INTEGER NOT NULL,
    started_at REAL NOT NULL,
    ended_at REAL,
    price TEXT,
    usage TEXT,
    reserved_nano INTEGER,
    reserved_tokens INTEGER NOT NULL DEFAULT 0,
    reserved_ms INTEGER NOT NULL DEFAULT 0,
    cost_nano INTEGER,
    tokens INTEGER NOT NULL DEFAULT 0,
    active_ms INTEGER NOT NULL DEFAULT 0,
    sandbox_ms INTEGER NOT NULL DEFAULT 0,
    scopes TEXT
) STRICT, WITHOUT ROWID;
CREATE INDEX ledger_by_session ON ledger (session_id);
CREATE INDEX ledger_open ON ledger (interaction_id) WHERE state = 'reserved';

-- Running totals of a turn, session, agent's day or day. budget: one that is kept nowhere else.
CREATE TABLE spent (
    scope TEXT NOT NULL,
    key TEXT NOT NULL,
    nano INTEGER NOT NULL DEFAULT 0,
    unsure_nano INTEGER NOT NULL DEFAULT 0,
    held_nano INTEGER NOT NULL DEFAULT 0,
    unpriced INTEGER NOT NULL DEFAULT 0,
    tokens INTEGER NOT NULL DEFAULT 0,
    held_tokens INTEGER NOT NULL DEFAULT 0,
    steps INTEGER NOT NULL DEFAULT 0,
    held_steps INTEGER NOT NULL DEFAULT 0,
    active_ms INTEGER NOT NULL DEFAULT 0,
    held_ms INTEGER NOT NULL DEFAULT 0,
    sandbox_ms INTEGER NOT NULL DEFAULT 0,
    budget TEXT,
    PRIMARY KEY (scope, key)
) STRICT, WITHOUT ROWID;

-- What deleted sessions cost, by day: nothing here names one.
CREATE TABLE ledger_folded (
    owner TEXT NOT NULL,
    day TEXT NOT NULL,
    agent TEXT NOT NULL,
    provider TEXT NOT NULL,
    model TEXT NOT NULL,
    calls INTEGER NOT NULL,
    cost_nano INTEGER NOT NULL,
    unsure_nano INTEGER NOT NULL,
    unpriced INTEGER NOT NULL,
    tokens INTEGER NOT NULL,
    input INTEGER NOT NULL,
    output INTEGER NOT NULL,
    thought INTEGER NOT NULL,
    cached INTEGER NOT NULL,
    active_ms INTEGER NOT NULL,
    sandbox_ms INTEGER NOT NULL,
    PRIMARY KEY (owner, day, agent, provider, model)
) STRICT, WITHOUT ROWID;
"""


def m007_money(db: Database) -> None:
    """What model calls cost, and what is left of budgets."""
    for statement in _statements(MONEY):
        db.conn.execute(statement)


def m008_webhooks_of_turns(db: Database) -> None:
    """Webhooks that are told of one interaction only."""
    for statement in _statements(WEBHOOKS_OF_TURNS):
        db.conn.execute(statement)


REQUESTS: Final = """
-- What an agent's run asked of the network: a JSON list of entries an attempt.
CREATE TABLE requests (
    id INTEGER PRIMARY KEY,
    interaction_id TEXT NOT NULL,
    entries TEXT NOT NULL
) STRICT;
CREATE INDEX requests_by_interaction ON requests (interaction_id);
"""


def m009_requests(db: Database) -> None:
    """What runs asked of the network."""
    for statement in _statements(REQUESTS):
        db.conn.execute(statement)


ALL: Final[Sequence[Callable[[Database], None]]] = (
    m001_sessions,
    m002_agent_runs,
    m003_environments,
    m004_terms,
    m005_runners,
    m006_schedules,
    m007_money,
    m008_webhooks_of_turns,
    m009_requests,
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
