"""After a delete the files hold none of what was deleted: looked for byte by byte."""

from __future__ import annotations

import asyncio
import logging
import random
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from interactd.nouns import Step, text_content, user_input
from interactd.store.port import IdempotencyKey
from interactd.store.sqlite import SqliteStore, upkeep
from store.kit import FAR, a_session, an_interaction

pytestmark = pytest.mark.anyio

# In a process of its own: closing a file that SQLite has open in this one would take its locks away.
FINDER = """
import sys
from pathlib import Path
file = Path(sys.argv[1])
data = b"".join(p.read_bytes() for p in file.parent.iterdir() if p.name.startswith(file.name))
words = sys.stdin.read().split()
print(*[w for w in words if w.encode() in data])
"""


async def found(file: Path, words: list[str]) -> list[str]:
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-c", FINDER, str(file), stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    out, _ = await asyncio.wait_for(child.communicate("\n".join(words).encode()), 60)
    return out.decode().split()


async def mostly_found(store: SqliteStore, words: list[str]) -> bool:
    """Whether the search can find anything: not every word, for notes are replaced and pages cut words in two."""
    return len(await found(store.file, words)) > len(words) * 0.7


class Secrets:
    """Sessions full of words that nothing else has."""

    def __init__(self, store: SqliteStore, seed: int) -> None:
        self.store, self.chance = store, random.Random(seed)
        self.words: dict[str, list[str]] = {}

    def word(self, session_id: str) -> str:
        word = f"zq{self.chance.getrandbits(64):016x}qz"
        self.words.setdefault(session_id, []).append(word)
        return word

    def text(self, session_id: str) -> str:
        filler = ["river", "gauge", "lock", "flood", "rain"]
        words = [self.chance.choice(filler) for _ in range(self.chance.choice([1, 20, 150, 900]))]
        words.insert(self.chance.randrange(len(words) + 1), self.word(session_id))
        return " ".join(words)

    async def session(self, turns: int) -> str:
        session = a_session()
        session.title, session.labels = self.word(session.id), {"label": self.word(session.id)}
        session.system_instruction = self.text(session.id)
        await self.store.create_session(session, IdempotencyKey(self.word(session.id), "d"))
        await self.talk(session.id, turns)
        return session.id

    async def talk(self, id: str, turns: int) -> None:
        previous = (await self.store.get_session(id)).head
        for _ in range(turns):
            one = an_interaction(id, previous, system_instruction=self.text(id))
            await self.store.accept(one, [user_input(self.text(id))], expires_at=FAR, pending={"note": self.text(id)})
            call = {"id": "c", "name": self.word(id), "arguments": {"a": self.text(id)}}
            steps = [
                Step("function_call", call, {"signature": self.word(id)}),
                Step("model_output", {"content": [text_content(self.text(id))]}),
            ]
            await self.store.settle(one.id, 1, "failed", steps=steps, error={"e": self.text(id)}, now=time.time())
            previous = one.id


@pytest.mark.parametrize("seed", range(3))
async def test_no_byte_of_a_deleted_session_is_left(tmp_path: Path, seed: int) -> None:
    store = SqliteStore(tmp_path / "interactd.db")
    await store.open()
    secrets = Secrets(store, seed)
    ids = [await secrets.session(secrets.chance.randrange(1, 12)) for _ in range(10)]
    # Turns of several sessions one after another, so that their rows lie side by side.
    for _ in range(3):
        for id in ids:
            await secrets.talk(id, 1)
        await store.search("river")
    for id in ids:
        assert await mostly_found(store, secrets.words[id])
    while len(ids) > 1:
        gone = [ids.pop(secrets.chance.randrange(len(ids))) for _ in range(2) if len(ids) > 1]
        await asyncio.gather(*(store.delete_session(id, time.time()) for id in gone))
        for id in gone:
            assert await found(store.file, secrets.words[id]) == []
        await secrets.talk(ids[0], 1)
    assert await mostly_found(store, secrets.words[ids[0]])
    assert len((await store.search("river", limit=200)).items) > 0
    await store.aclose()


async def test_a_sweep_leaves_no_byte_either(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "interactd.db")
    await store.open()
    secrets = Secrets(store, 7)
    old, kept = await secrets.session(5), await secrets.session(5)
    await store.search("river")
    await store.set_expiry(old, 1.0, time.time() - 1)
    assert len(await store.sweep(time.time())) == 1
    assert await found(store.file, secrets.words[old]) == []
    assert await mostly_found(store, secrets.words[kept])
    await store.aclose()


class Rewritten(logging.Handler):
    """Waits for the store's own word that it has rewritten its file."""

    def __init__(self) -> None:
        super().__init__()
        self.event = threading.Event()

    def emit(self, record: logging.LogRecord) -> None:
        if record.msg.startswith("rewrote"):
            self.event.set()


@pytest.fixture
def rewritten() -> Iterator[threading.Event]:
    handler = Rewritten()
    level = upkeep.log.level
    upkeep.log.addHandler(handler)
    upkeep.log.setLevel(logging.DEBUG)
    yield handler.event
    upkeep.log.removeHandler(handler)
    upkeep.log.setLevel(level)


async def test_a_large_file_is_rewritten_when_nobody_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rewritten: threading.Event
) -> None:
    monkeypatch.setattr(upkeep, "VACUUM_AT_ONCE_BYTES", 0)
    store = SqliteStore(tmp_path / "interactd.db")
    await store.open()
    for chore in store.upkeep.chores:
        chore.after_s = min(chore.after_s, 0.1)
    secrets = Secrets(store, 8)
    ids = [await secrets.session(6) for _ in range(4)]
    await store.search("river")
    await store.delete_session(ids[1], time.time())
    assert await asyncio.to_thread(rewritten.wait, 30)
    assert await found(store.file, secrets.words[ids[1]]) == []
    await store.aclose()


async def test_a_delete_that_was_cut_short_is_finished_by_the_next_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rewritten: threading.Event
) -> None:
    store = SqliteStore(tmp_path / "interactd.db")
    await store.open()
    secrets = Secrets(store, 9)
    ids = [await secrets.session(6) for _ in range(3)]
    await store.search("river")
    with monkeypatch.context() as patch:
        # No time for housekeeping after the rows went: what a kill at that moment leaves.
        patch.setattr(upkeep, "CLEAR_WAIT_S", 0.0)
        await store.delete_session(ids[0], time.time())
    await store.aclose()
    monkeypatch.setattr(upkeep, "VACUUM_QUIET_S", 0.1)
    store = SqliteStore(tmp_path / "interactd.db")
    await store.open()
    assert await asyncio.to_thread(rewritten.wait, 30)
    assert await found(store.file, secrets.words[ids[0]]) == []
    await store.aclose()
