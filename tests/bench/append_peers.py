"""Other people's session stores on SQLite, appending the same turn: those of them that can be imported.

None is a dependency of interactd. Each is used as its documentation says, with its own defaults; the history is put
in beforehand in the cheapest way that leaves the same state behind.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import sqlite3
import time
import warnings
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

Turn = Callable[[], Awaitable[Any]]
Texts = list[str]
Peer = Callable[[Path, int, Texts], AbstractAsyncContextManager[Turn]]


@contextlib.asynccontextmanager
async def langgraph(file: Path, history: int, texts: Texts) -> AsyncGenerator[Turn]:
    """A graph of one node that answers; the saver keeps a checkpoint of the messages at every step."""
    graph_module: Any = importlib.import_module("langgraph.graph")
    messages_module: Any = importlib.import_module("langgraph.graph.message")
    saver_module: Any = importlib.import_module("langgraph.checkpoint.sqlite.aio")
    question, *rest = texts

    def answer(_: Any) -> Any:
        return {"messages": [("ai", text) for text in rest]}

    builder: Any = graph_module.StateGraph(messages_module.MessagesState)
    builder.add_node("answer", answer)
    builder.add_edge(graph_module.START, "answer")
    config = {"configurable": {"thread_id": "bench"}}
    async with saver_module.AsyncSqliteSaver.from_conn_string(str(file)) as saver:
        graph: Any = builder.compile(checkpointer=saver)
        if history:
            messages = [("human", question), *(("ai", text) for text in rest)] * history
            await graph.aupdate_state(config, {"messages": messages}, as_node="answer")

        async def turn() -> None:
            await graph.ainvoke({"messages": [("human", question)]}, config)

        yield turn


@contextlib.asynccontextmanager
async def openai_agents(file: Path, history: int, texts: Texts) -> AsyncGenerator[Turn]:
    agents: Any = importlib.import_module("agents")
    session: Any = agents.SQLiteSession("bench", str(file))
    items = [{"role": "assistant" if n else "user", "content": text} for n, text in enumerate(texts)]
    if history:
        await session.add_items(items * history)

    async def turn() -> None:
        await session.add_items(items[:1])
        await session.add_items(items[1:])

    yield turn
    session.close()


@contextlib.asynccontextmanager
async def google_adk(file: Path, history: int, texts: Texts) -> AsyncGenerator[Turn]:
    sessions: Any = importlib.import_module("google.adk.sessions.sqlite_session_service")
    events: Any = importlib.import_module("google.adk.events")
    types: Any = importlib.import_module("google.genai.types")
    service: Any = sessions.SqliteSessionService(str(file))
    session: Any = await service.create_session(app_name="bench", user_id="u", session_id="s")

    async def turn() -> None:
        for n, text in enumerate(texts):
            role = "model" if n else "user"
            content = types.Content(role=role, parts=[types.Part(text=text)])
            event = events.Event(author=role, invocation_id="i", content=content)
            await service.append_event(session, event)

    await turn()
    if history > 1:
        _copy_rows(file, "events", history * len(texts))
        session = await service.get_session(app_name="bench", user_id="u", session_id="s")
    yield turn


def _copy_rows(file: Path, table: str, wanted: int) -> None:
    """Fill an event table with copies under other ids: one by one it would take minutes."""
    db = sqlite3.connect(file)
    names = [row[1] for row in db.execute(f"PRAGMA table_info({table})")]
    values = ", ".join("hex(randomblob(16))" if name == "id" else name for name in names)
    while (count := db.execute(f"SELECT count(*) FROM {table}").fetchone()[0]) < wanted:
        db.execute(f"INSERT INTO {table} SELECT {values} FROM {table} LIMIT ?", (wanted - count,))
    db.commit()
    db.close()


PEERS: dict[str, tuple[str, str, Peer]] = {
    "langgraph-checkpoint-sqlite": ("langgraph.checkpoint.sqlite", "langgraph langgraph-checkpoint-sqlite", langgraph),
    "openai-agents SQLiteSession": ("agents", "openai-agents", openai_agents),
    "google-adk SqliteSessionService": ("google.adk", "google-adk aiosqlite", google_adk),
}


async def measure(name: str, folder: Path, history: int, count: int, texts: Texts) -> list[float] | None:
    """Return the microseconds of each turn, or `None` when the peer is not installed."""
    module, _, peer = PEERS[name]
    os.environ["OPENAI_AGENTS_DISABLE_TRACING"] = "1"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            importlib.import_module(module)
    except ImportError:
        return None
    times: list[float] = []
    async with peer(folder / f"{peer.__name__}-{history}.db", history, texts) as turn:
        for number in range(-2, count):
            began = time.perf_counter()
            await turn()
            if number >= 0:
                times.append((time.perf_counter() - began) * 1e6)
    return times
