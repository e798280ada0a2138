"""A process that writes turns as fast as it can and says on stdout what the store acknowledged; made to be killed.

    python talker.py DATABASE SEED

Lines: `session ID`, `accept ID SESSION PREVIOUS`, `append ID SEQ`, `settle ID STATUS`, `delete SESSION`.
"""

from __future__ import annotations

import asyncio
import random
import sys
import time
from pathlib import Path

from interactd.ids import new_id
from interactd.nouns import Interaction, Session, Step, text_content, user_input
from interactd.store.sqlite import SqliteStore


def tell(*words: object) -> None:
    sys.stdout.write(" ".join(map(str, words)) + "\n")
    sys.stdout.flush()


async def talk(store: SqliteStore, chance: random.Random) -> None:
    while True:
        now = time.time()
        session = Session(new_id("session"), now, now)
        await store.create_session(session)
        tell("session", session.id)
        previous: str | None = None
        for _ in range(chance.randrange(1, 12)):
            one = Interaction(
                new_id("interaction"), session.id, "in_progress", time.time(), previous, epoch=1, attempt=1
            )
            text = f"question {one.id} " + "x" * chance.choice([10, 3000, 40_000])
            await store.accept(one, [user_input(text)], expires_at=None, durable=chance.random() < 0.2)
            tell("accept", one.id, session.id, previous)
            for _ in range(chance.randrange(4)):
                step = Step("model_output", {"content": [text_content(f"answer {one.id}")]})
                [kept] = await store.append(one.id, 1, [step], pending={"call": "model"})
                tell("append", one.id, kept.seq)
            await store.settle(one.id, 1, "completed", now=time.time())
            tell("settle", one.id, "completed")
            previous = one.id
        if chance.random() < 0.3:
            await store.search("answer")
            await store.delete_session(session.id, time.time())
            tell("delete", session.id)


async def main() -> None:
    store = SqliteStore(Path(sys.argv[1]))
    await store.open()
    tell("ready")
    await asyncio.gather(*(talk(store, random.Random(f"{sys.argv[2]}.{n}")) for n in range(4)))


if __name__ == "__main__":
    asyncio.run(main())
