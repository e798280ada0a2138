"""SIGKILL at random moments of turns: nothing accepted is lost, nothing is doubled, everything ends exactly once."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import sqlite3
import sys
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from support.provider import Call, FakeProvider, Hang, Reply, Request

pytestmark = [pytest.mark.anyio, pytest.mark.skipif(os.name != "posix", reason="SIGKILL and fork")]

TOOL = {"type": "function", "name": "look", "parameters": {"type": "object"}}
PATIENCE_S = 20.0


class Gone(Exception):
    """The daemon died before it answered."""


class Daemons:
    """One daemon after the other on the same data."""

    def __init__(self, process: asyncio.subprocess.Process, socket: str) -> None:
        self._process = process
        self._socket = socket
        self.pid = 0
        self.deaths = 0

    async def start(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        Path(self._socket).unlink(missing_ok=True)
        self._process.stdin.write(b"\n")
        self.pid = int(await asyncio.wait_for(self._process.stdout.readline(), PATIENCE_S))
        for _ in range(int(PATIENCE_S * 100)):
            if Path(self._socket).exists():
                return
            await asyncio.sleep(0.01)
        raise AssertionError("the daemon did not come up")

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)
        self.deaths += 1

    async def call(self, name: str, **arguments: Any) -> Any:
        """Ask the daemon. Raises `Gone` when it dies first."""
        try:
            reader, writer = await asyncio.open_unix_connection(self._socket, limit=1 << 24)
        except OSError as error:
            raise Gone from error
        try:
            writer.write(json.dumps({"call": name, **arguments}).encode() + b"\n")
            line = await reader.readline()
        except OSError as error:
            raise Gone from error
        finally:
            writer.close()
        if not line:
            raise Gone
        reply = json.loads(line)
        assert "error" not in reply, reply
        return reply["result"]


@asynccontextmanager
async def daemons(home: Path, provider: FakeProvider) -> AsyncGenerator[Daemons]:
    environment = {
        **{name: value for name, value in os.environ.items() if not name.endswith(("_API_KEY", "_BASE_URL"))},
        "OPENAI_API_KEY": "sk-chaos",
        "OPENAI_BASE_URL": f"{provider.base_url}/v1",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    socket = str(home / "s")
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        str(Path(__file__).parent / "worker.py"),
        str(home),
        socket,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        env=environment,
    )
    try:
        yield Daemons(process, socket)
    finally:
        assert process.stdin is not None
        process.stdin.close()
        await process.wait()
        process._transport.close()  # type: ignore[attr-defined]  # pyright: ignore


@dataclass
class Sent:
    """A turn that was tried: the same call is made again until it is answered."""

    session: str
    text: str
    key: str
    id: str | None = None
    """Set when a daemon said that it accepted the turn."""
    deaths: int = 0
    """Daemons that died since it was first tried."""
    outcome: dict[str, Any] = field(default_factory=dict[str, Any])


class Story:
    """Sends turns, kills daemons, and remembers what was promised."""

    def __init__(self, daemons: Daemons, provider: FakeProvider, seed: int) -> None:
        self.daemons = daemons
        self.provider = provider
        self.chance = random.Random(seed)
        self.turns: list[Sent] = []
        self.sessions: list[str] = []
        self.repeated = 0
        """Model calls that had to be made again: how many kills hit one."""

    async def session(self) -> str:
        made = await self.daemons.call(
            "create_session", model="openai/fake-model-1", tools=[TOOL], idempotency_key=f"s{len(self.sessions)}"
        )
        self.sessions.append(made["id"])
        return made["id"]

    async def send(self, turn: Sent) -> None:
        seen = await self.daemons.call(
            "send_turn", session_id=turn.session, content=turn.text, if_busy="queue", idempotency_key=turn.key
        )
        if turn.id is not None:
            assert (seen["id"], seen["replayed"]) == (turn.id, True), "an accepted turn is found again"
        turn.id = seen["id"]

    async def finish(self, turn: Sent) -> None:
        """Follow the turn to its end, answering its call."""
        await self.send(turn)
        while turn.outcome.get("status") not in ("completed", "failed", "cancelled", "incomplete"):
            seen = await self.daemons.call("wait", interaction_id=turn.id, timeout_s=PATIENCE_S)
            assert seen["status"] not in ("queued", "in_progress"), seen
            if seen["status"] == "requires_action":
                results = [{"call_id": one, "result": "seen"} for one in seen["waiting_for"]]
                await self.daemons.call(
                    "respond", interaction_id=turn.id, results=results, idempotency_key=f"{turn.key}-r"
                )
            else:
                turn.outcome = seen

    async def round(self, number: int) -> None:
        """A few turns, a kill in the middle of them, sometimes another soon after, and then the end of all of them."""
        session = self.sessions[-1] if self.sessions and number % 5 else await self.session()
        fresh = [
            Sent(session, f"{'look' if self.chance.random() < 0.3 else 'say'} {number}.{n}", f"t{number}.{n}")
            for n in range(self.chance.randint(1, 3))
        ]
        self.turns += fresh
        for _ in range(self.chance.choice([1, 1, 1, 2])):
            work = asyncio.ensure_future(self._all(fresh))
            await asyncio.wait([work], timeout=self.chance.random() * 0.12)
            self.daemons.kill()
            await asyncio.gather(work, return_exceptions=True)
            for turn in fresh:
                turn.deaths += 1
            await self.daemons.start()
        await self._all(fresh)

    async def _all(self, turns: list[Sent]) -> None:
        for turn in turns:
            await self.send(turn)
        await asyncio.gather(*(self.finish(turn) for turn in turns))

    async def judge(self) -> None:
        """What must be true in the end."""
        asked = Counter(last_user_text(request) for request in self.provider.requests)
        for turn in self.turns:
            assert turn.outcome["status"] == "completed", turn
            calls = turn.text.startswith("look")
            shown = [["user_input", turn.text], *([["function_call", ""], ["function_result", ""]] if calls else [])]
            shown.append(["model_output", f"You said {turn.text}."])
            assert [step[1:] for step in turn.outcome["steps"]] == shown, turn
            assert [step[0] for step in turn.outcome["steps"]] == list(range(len(shown)))
            self.repeated += asked[turn.text] - 1 - calls
            assert 1 + calls <= asked[turn.text] <= 1 + calls + turn.deaths, "a call is made again only after a death"
        for session in self.sessions:
            _, turns = await self.daemons.call("transcript", session_id=session, limit=200)
            ids = [turn["interaction"]["id"] for turn in turns]
            assert ids == [turn.id for turn in self.turns if turn.session == session], "each once, in order"
            for turn in turns:
                same = next(one for one in self.turns if one.id == turn["interaction"]["id"])
                assert turn["interaction"]["status"] == same.outcome["status"], "one terminal status, for good"


def last_user_text(request: Request) -> str:
    texts = [message["content"] for message in request.json["messages"] if message["role"] == "user"]
    return texts[-1] if isinstance(texts[-1], str) else texts[-1][0]["text"]


def slow_answer(request: Request) -> Reply:
    text = last_user_text(request)
    if text.startswith("look") and request.json["messages"][-1]["role"] == "user":
        return Reply(calls=[Call("look", {}, id=f"call-{text}")])
    return Reply(text=["You ", 0.01, "said ", 0.01, *[piece for char in text for piece in (char, 0.002)], "."])


async def run_story(home: Path, rounds: int, seed: int) -> Story:
    async with FakeProvider(default=slow_answer) as provider, daemons(home, provider) as them:
        await them.start()
        story = Story(them, provider, seed)
        for number in range(rounds):
            await story.round(number)
        await story.judge()
        them.kill()
    db = sqlite3.connect(next(home.rglob("interactd.db")))
    assert db.execute("pragma integrity_check").fetchone() == ("ok",)
    assert db.execute("select count(*) from interactions").fetchone() == (len(story.turns),)
    db.close()
    return story


async def test_thirty_kills_lose_and_double_nothing(tmp_path: Path) -> None:
    story = await run_story(tmp_path, rounds=25, seed=1)
    assert story.daemons.deaths >= 25
    assert story.repeated >= 5, "the kills missed the model calls: they prove nothing"


async def test_a_turn_that_dies_with_three_daemons_is_given_up_and_the_session_goes_on(tmp_path: Path) -> None:
    async with FakeProvider(default=slow_answer) as provider, daemons(tmp_path, provider) as them:
        await them.start()
        provider.script([Hang(), Hang(), Hang()])
        story = Story(them, provider, 0)
        fatal = Sent(await story.session(), "say fatal", "t")
        await story.send(fatal)
        for n in range(3):
            await provider.received(n + 1)
            them.kill()
            await them.start()
        await story.finish(fatal)
        assert fatal.outcome["status"] == "failed"
        assert fatal.outcome["error"]["code"] == "crashed"
        assert len(provider.requests) == 3
        after = Sent(fatal.session, "say after", "t2")
        await story.finish(after)
        assert after.outcome["status"] == "completed"


@pytest.mark.long
@pytest.mark.timeout(600)
async def test_two_hundred_kills_lose_and_double_nothing(tmp_path: Path) -> None:
    seed = random.randrange(1 << 30)
    print(f"seed {seed}")
    story = await run_story(tmp_path, rounds=170, seed=seed)
    assert story.daemons.deaths >= 170
