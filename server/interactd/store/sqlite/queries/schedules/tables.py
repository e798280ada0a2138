"""The tables of triggers and webhooks, as the migration makes them. Released ones are never changed here."""

from __future__ import annotations

from typing import Final

WEBHOOKS_OF_TURNS: Final = """
-- A webhook with an interaction_id is told of that one only.
ALTER TABLE webhooks ADD COLUMN interaction_id TEXT;
CREATE INDEX webhooks_of_turns ON webhooks (interaction_id) WHERE interaction_id IS NOT NULL;
CREATE INDEX webhooks_of_all ON webhooks (owner, status) WHERE interaction_id IS NULL;
"""
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
