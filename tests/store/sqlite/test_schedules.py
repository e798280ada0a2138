"""What triggers and webhooks cost the store: no query may grow with what is long over."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from interactd.nouns import Interaction
from interactd.store.schedules_port import Attempt, Execution
from interactd.store.sqlite import SqliteStore
from interactd.store.sqlite.queries.schedules import executions, hooks, triggers, waits, webhooks

pytestmark = pytest.mark.anyio
AN_INTERACTION = Interaction("int_1", "ses_1", "completed", 1.0)
AN_EXECUTION = Execution("exe_1", "trg_1", "local", "s", 1.0, "in_progress", "manual", 1.0)


QUERIES: list[Callable[[sqlite3.Connection], Any]] = [
    lambda db: hooks.with_news(db, AN_INTERACTION, 1.0),
    lambda db: executions.claim(db, 1.0, 1.0),
    lambda db: executions.expire(db, 1.0),
    lambda db: triggers.move_up(db, 1.0),
    lambda db: triggers.skip_queued(db, "trg_1", "paused", 1.0),
    lambda db: triggers.due(db, 1.0),
    lambda db: executions.page(db, "local", "trg_1", None, 20, None),
    lambda db: webhooks.claim(db, 1.0, 1.0, {}, 4),
    lambda db: webhooks.attempted(db, "msg_1", 1.0, Attempt(1, 1.0, True), None, None, None),
    waits.due,
]


@pytest.mark.parametrize("query", QUERIES)
async def test_nothing_reads_the_whole_of_a_table_that_grows(
    tmp_path: Path, query: Callable[[sqlite3.Connection], Any]
) -> None:
    store = SqliteStore(tmp_path / "x.db")
    await store.open()
    await store.aclose()
    db = sqlite3.connect(tmp_path / "x.db", isolation_level=None)
    asked: list[str] = []
    db.set_trace_callback(asked.append)
    query(db)
    db.set_trace_callback(None)
    assert asked
    for statement in asked:
        plan = [row[3] for row in db.execute(f"EXPLAIN QUERY PLAN {statement}")]
        for line in plan:
            for table in ("trigger_executions", "deliveries", "interactions"):
                # By a partial index of those that are open, due or pending a scan is a look at just these.
                assert table not in line or line.startswith("SEARCH") or _partial(line), (statement, line)
    db.close()


def _partial(line: str) -> bool:
    return any(name in line for name in ("trigger_executions_open", "trigger_executions_to_cancel", "deliveries_due"))
