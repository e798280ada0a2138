"""What a turn's own transactions do for schedules: two calls, cheap where there is nothing of the kind."""

from __future__ import annotations

import sqlite3

from interactd.nouns import Interaction
from interactd.store.port import IdempotencyKey
from interactd.store.schedules_port import START_KEY
from interactd.store.sqlite.queries.schedules import executions, outbox


def accepted(db: sqlite3.Connection, interaction: Interaction, key: IdempotencyKey | None) -> None:
    """Tie a turn that a trigger started to its execution, in the transaction that accepts the turn: from then on it is
    never started again, whatever becomes of the key."""
    if key is not None and key.key.startswith(START_KEY):
        executions.accepted(db, key, interaction)


def with_news(db: sqlite3.Connection, settled: Interaction, now: float) -> tuple[Interaction, bool]:
    """End the execution of an interaction that was settled, and write down who is to be told. Returns the interaction,
    and whether there was anything of the kind."""
    ended = settled.terminal and executions.settled(db, settled, now)
    return settled, outbox.settled(db, settled, now) or ended
