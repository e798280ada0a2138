"""Short ways to write sessions and turns."""

from __future__ import annotations

import time
from typing import Any

from interactd.ids import new_id
from interactd.nouns import Interaction, Session, Status, Step, text_content, user_input
from interactd.store.port import Started, Store

FAR = 10_000_000_000.0


def a_session(**fields: Any) -> Session:
    now = time.time()
    given: dict[str, Any] = {"id": new_id("session"), "created_at": now, "updated_at": now, "expires_at": FAR}
    return Session(**{**given, **fields})


def an_interaction(session_id: str, previous: str | None = None, **fields: Any) -> Interaction:
    given: dict[str, Any] = {
        "id": new_id("interaction"),
        "session_id": session_id,
        "status": "in_progress",
        "created_at": time.time(),
        "previous_interaction_id": previous,
        "epoch": 1,
        "attempt": 1,
    }
    return Interaction(**{**given, **fields})


def said(text: str) -> Step:
    return Step("model_output", {"content": [text_content(text)]})


async def create(store: Store, **fields: Any) -> Session:
    session = a_session(**fields)
    assert (await store.create_session(session)).created
    return session


async def start(store: Store, session_id: str, text: str = "hello", previous: str | None = None, **fields: Any) -> str:
    """Accept a turn and leave it running (or queued)."""
    one = an_interaction(session_id, previous, **fields)
    started: Started = await store.accept(one, [user_input(text)], expires_at=FAR)
    assert started.created
    return one.id


async def turn(
    store: Store,
    session_id: str,
    text: str = "hello",
    answer: str = "hi",
    previous: str | None = None,
    status: Status = "completed",
    **fields: Any,
) -> str:
    """Accept a turn and settle it."""
    id = await start(store, session_id, text, previous, **fields)
    await store.settle(id, 1, status, steps=[said(answer)], now=time.time())
    return id


async def chain(store: Store, session_id: str, length: int, previous: str | None = None) -> list[str]:
    """A row of settled turns, each going on from the one before."""
    ids: list[str] = []
    for number in range(length):
        previous = await turn(store, session_id, f"question {number}", f"answer {number}", previous)
        ids.append(previous)
    return ids
