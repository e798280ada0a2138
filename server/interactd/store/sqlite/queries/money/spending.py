"""What was spent, added up for people."""

from __future__ import annotations

import sqlite3
from typing import Any, Final

from interactd.nouns import Json
from interactd.store.ledger_port import By
from interactd.store.sqlite.queries import rows

_LINES: Final = """
SELECT {key} AS key, sum(calls) AS calls, sum(nano) AS nano, sum(unsure_nano) AS unsure_nano, sum(unpriced) AS unpriced,
    sum(input) AS input, sum(output) AS output, sum(thought) AS thought, sum(cached) AS cached, sum(tokens) AS tokens,
    sum(active_ms) AS active_ms, sum(sandbox_ms) AS sandbox_ms
FROM (
    SELECT owner, day, agent, provider, model, session_id, kind = 'call' AND state NOT IN ('released', 'reserved')
        AS calls, coalesce(cost_nano, 0) AS nano,
        CASE WHEN state = 'unknown' THEN coalesce(cost_nano, 0) ELSE 0 END AS unsure_nano,
        kind = 'call' AND state IN ('settled', 'unknown') AND cost_nano IS NULL AS unpriced,
        coalesce(json_extract(usage, '$.total_input_tokens'), 0) AS input,
        coalesce(json_extract(usage, '$.total_output_tokens'), 0) AS output,
        coalesce(json_extract(usage, '$.total_thought_tokens'), 0) AS thought,
        coalesce(json_extract(usage, '$.total_cached_tokens'), 0) AS cached,
        tokens, active_ms, sandbox_ms
    FROM ledger WHERE ?1 IS NULL OR started_at >= ?1
    UNION ALL
    SELECT owner, day, nullif(agent, ''), nullif(provider, ''), nullif(model, ''), NULL, calls, cost_nano, unsure_nano,
        unpriced, input, output, thought, cached, tokens, active_ms, sandbox_ms
    FROM ledger_folded WHERE ?2 IS NULL OR day >= ?2
) WHERE owner = ?3 {where} GROUP BY 1 ORDER BY {order}
"""
_KEYS: Final[dict[By, tuple[str, str, str]]] = {
    "day": ("day", "", "1 DESC"),
    # Time is a run's, whose calls may go to several models.
    "model": ("provider || '/' || model", "AND model IS NOT NULL", "3 DESC, tokens DESC, 1"),
    "agent": ("agent", "", "3 DESC, tokens DESC, 1"),
    "session": ("session_id", "", "3 DESC, tokens DESC, 1"),
}


def report(
    connection: sqlite3.Connection, by: By, since: float | None, since_day: str | None, owner: str
) -> list[Json]:
    """See `Ledger.report`."""
    key, where, order = _KEYS[by]
    cursor = connection.execute(_LINES.format(key=key, where=where, order=order), (since, since_day, rows.exact(owner)))
    names = [column[0] for column in cursor.description]
    lines: list[Json] = [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]
    if by == "session":
        for line in lines:
            row: Any = connection.execute("SELECT title FROM sessions WHERE id = ?", (line["key"],)).fetchone()
            if row is not None and row[0]:
                line["title"] = row[0]
    return lines


def stored(connection: sqlite3.Connection, owner: str) -> Json:
    """See `Ledger.stored`."""
    one = rows.exact(owner)
    mine = (
        "interaction_id IN (SELECT i.id FROM interactions i JOIN sessions s ON s.id = i.session_id WHERE s.owner = ?)"
    )
    queries = {
        "sessions": "SELECT sum(length(CAST(body AS BLOB)) + coalesce(length(CAST(state AS BLOB)), 0))"
        f" FROM steps WHERE {mine}",
        "artifacts": f"SELECT sum(size_bytes) FROM (SELECT DISTINCT sha256, size_bytes FROM artifacts WHERE {mine})",
        "environments": "SELECT sum(size_bytes) FROM environments WHERE owner = ? AND status = 'active'",
    }
    return {name: connection.execute(query, (one,)).fetchone()[0] or 0 for name, query in queries.items()}
