"""Taking a session out of the ledger."""

from __future__ import annotations

import sqlite3
from typing import Final

from interactd.store.sqlite.queries import rows
from interactd.store.sqlite.queries.money.booking import finish
from interactd.store.sqlite.queries.money.totals import keys_of

SUMS: Final = """
SELECT owner, day, coalesce(agent, ''), coalesce(provider, ''), coalesce(model, ''),
    sum(kind = 'call' AND state <> 'released'), sum(coalesce(cost_nano, 0)),
    sum(CASE WHEN state = 'unknown' THEN coalesce(cost_nano, 0) ELSE 0 END),
    sum(kind = 'call' AND state <> 'released' AND cost_nano IS NULL), sum(tokens),
    sum(coalesce(json_extract(usage, '$.total_input_tokens'), 0)),
    sum(coalesce(json_extract(usage, '$.total_output_tokens'), 0)),
    sum(coalesce(json_extract(usage, '$.total_thought_tokens'), 0)),
    sum(coalesce(json_extract(usage, '$.total_cached_tokens'), 0)),
    sum(active_ms), sum(sandbox_ms)
FROM ledger WHERE session_id = ? GROUP BY 1, 2, 3, 4, 5
"""
"""What a session cost, in the columns of `ledger_folded`."""
_FOLD: Final = f"""
INSERT INTO ledger_folded (owner, day, agent, provider, model, calls, cost_nano, unsure_nano, unpriced, tokens,
    input, output, thought, cached, active_ms, sandbox_ms)
{SUMS}
ON CONFLICT (owner, day, agent, provider, model) DO UPDATE SET
    calls = calls + excluded.calls, cost_nano = cost_nano + excluded.cost_nano,
    unsure_nano = unsure_nano + excluded.unsure_nano, unpriced = unpriced + excluded.unpriced,
    tokens = tokens + excluded.tokens, input = input + excluded.input, output = output + excluded.output,
    thought = thought + excluded.thought, cached = cached + excluded.cached,
    active_ms = active_ms + excluded.active_ms, sandbox_ms = sandbox_ms + excluded.sandbox_ms
"""


def drop(connection: sqlite3.Connection, session_id: str, now: float) -> dict[str, int]:
    """Take a session out of the ledger: what it cost goes into sums by day that name no session. Called while its
    interactions are still there (`removal.HOOKS`). Returns how many lines went."""
    execute = connection.execute
    # Turns that went to a fork take their lines along.
    execute(
        "UPDATE ledger SET session_id = (SELECT i.session_id FROM interactions i WHERE i.id = ledger.interaction_id)"
        " WHERE session_id = ?1 AND EXISTS"
        " (SELECT 1 FROM interactions i WHERE i.id = ledger.interaction_id AND i.session_id <> ?1)",
        (session_id,),
    )
    mine = execute("SELECT id FROM interactions WHERE session_id = ?", (session_id,)).fetchall()
    for (interaction_id,) in mine:
        finish(connection, interaction_id, now, known=False)
    gone = {("session", session_id), *(("interaction", row[0]) for row in mine)}
    # Calls of its turns' children that are under way hold some of its totals, by name.
    for id, scopes in execute("SELECT id, scopes FROM ledger WHERE state = 'reserved'").fetchall():
        keys = keys_of(scopes)
        left = [key for key in keys if key not in gone]
        if len(left) < len(keys):
            execute("UPDATE ledger SET scopes = ? WHERE id = ?", (rows.dump(left), id))
    execute(_FOLD, (session_id,))
    lines = execute("DELETE FROM ledger WHERE session_id = ?", (session_id,)).rowcount
    connection.executemany("DELETE FROM spent WHERE scope = ? AND key = ?", list(gone))
    return {"ledger": lines} if lines else {}
