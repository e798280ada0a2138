"""SIGKILL while tools run: what is finished never runs again, what is in doubt follows its `replay`."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from support.provider import Call, FakeProvider, Reply, Request

pytestmark = [pytest.mark.anyio, pytest.mark.skipif(os.name != "posix", reason="SIGKILL")]

PATIENCE_S = 40.0
TESTS = Path(__file__).parents[2]
NOTED = "with open('log', 'a') as f: f.write('ran\\n')\nprint(open('log').read().count('ran'))"


class Daemons:
    """One daemon after the other on the same data."""

    def __init__(self, home: Path, provider: FakeProvider) -> None:
        self.home = home
        self.count, self.gate = home / "count", home / "gate"
        self._provider = provider
        self._process: asyncio.subprocess.Process | None = None

    @property
    def counted(self) -> list[str]:
        return self.count.read_text().split() if self.count.exists() else []

    async def start(self) -> None:
        socket = self.home / "s"
        socket.unlink(missing_ok=True)
        plain = {n: v for n, v in os.environ.items() if not n.endswith(("_API_KEY", "_BASE_URL"))}
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            str(Path(__file__).parent / "worker.py"),
            *map(str, (self.home / "home", socket, self.count, self.gate)),
            env={
                **plain,
                "PYTHONPATH": str(TESTS),
                "PYTHONDONTWRITEBYTECODE": "1",
                "OPENAI_API_KEY": "sk-crash",
                "OPENAI_BASE_URL": f"{self._provider.base_url}/v1",
            },
        )
        await until(socket.exists)

    async def kill(self) -> None:
        assert self._process is not None
        self._process.kill()
        await self._process.wait()

    async def call(self, name: str, **arguments: Any) -> Any:
        reader, writer = await asyncio.open_unix_connection(str(self.home / "s"), limit=1 << 24)
        writer.write(json.dumps({"call": name, **arguments}).encode() + b"\n")
        reply = json.loads(await asyncio.wait_for(reader.readline(), PATIENCE_S))
        writer.close()
        assert "error" not in reply, reply
        return reply["result"]

    async def send(self, content: str = "go") -> str:
        session = await self.call("create_session", agent="helper", model="openai/fake-model-1")
        return (await self.call("send_turn", session_id=session["id"], content=content))["id"]

    async def ended(self, interaction_id: str) -> Any:
        seen = await self.call("wait", interaction_id=interaction_id, timeout_s=PATIENCE_S)
        assert seen["status"] not in ("queued", "in_progress"), seen
        return seen


async def until(condition: Callable[[], bool]) -> None:
    for _ in range(int(PATIENCE_S * 50)):
        if condition():
            return
        await asyncio.sleep(0.02)
    raise AssertionError("it never came true")


@asynccontextmanager
async def daemons(home: Path, provider: FakeProvider) -> AsyncGenerator[Daemons]:
    made = Daemons(home, provider)
    await made.start()
    try:
        yield made
    finally:
        await made.kill()


def results_in(request: Request) -> list[str]:
    return [message["content"] for message in request.json["messages"] if message["role"] == "tool"]


def first_code_then(tool: str) -> Callable[[Request], Reply]:
    """A model that runs code, then calls `tool`, both in one answer, and then says what it heard."""

    def answer(request: Request) -> Reply:
        heard = results_in(request)
        if not heard:
            return Reply(
                calls=[
                    Call("code_execution", {"language": "python", "code": NOTED}, id="code"),
                    Call(tool, {}, id="bump"),
                ]
            )
        return Reply(text=f"heard: {' / '.join(heard)}")

    return answer


async def killed_in_the_tool(them: Daemons) -> str:
    sent = await them.send()
    await until(lambda: bool(them.counted))
    await them.kill()
    them.gate.touch()
    await them.start()
    return sent


async def test_a_safe_call_in_doubt_is_made_again_and_the_finished_one_is_not(tmp_path: Path) -> None:
    async with FakeProvider(default=first_code_then("bump_safe")) as provider, daemons(tmp_path, provider) as them:
        done = await them.ended(await killed_in_the_tool(them))
        assert done["status"] == "completed"
        assert done["steps"][-1]["content"][0]["text"] == "heard: 1 / bumped", "the code ran once"
        assert them.counted == ["bump", "bump"]
        assert len(provider.requests) == 2, "no model call was made again"


async def test_a_call_that_must_never_run_twice_is_told_as_lost(tmp_path: Path) -> None:
    async with FakeProvider(default=first_code_then("bump_never")) as provider, daemons(tmp_path, provider) as them:
        done = await them.ended(await killed_in_the_tool(them))
        assert done["status"] == "completed"
        assert them.counted == ["bump"]
        lost = next(step for step in done["steps"] if step.get("call_id") == "bump")
        assert lost["is_error"] is True
        assert "Outcome unknown: the machine stopped while it ran" in lost["result"]


@pytest.mark.parametrize("allow", [True, False])
async def test_a_call_to_be_asked_about_waits_for_the_users_word(tmp_path: Path, allow: bool) -> None:
    async with FakeProvider(default=first_code_then("bump_ask")) as provider, daemons(tmp_path, provider) as them:
        sent = await killed_in_the_tool(them)
        asked = await them.ended(sent)
        assert asked["status"] == "requires_action"
        (question,) = asked["waiting_for"]
        assert (question["kind"], question["name"]) == ("replay", "bump_ask")
        assert "?" in question["question"]
        assert them.counted == ["bump"]
        await them.kill()
        await them.start()
        said = "allow" if allow else {"decision": "deny", "reason": "not today"}
        await them.call("respond", interaction_id=sent, results=[{"call_id": question["id"], "result": said}])
        done = await them.ended(sent)
        assert done["status"] == "completed"
        assert them.counted == ["bump"] * (2 if allow else 1)
        heard = done["steps"][-1]["content"][0]["text"]
        assert heard == "heard: 1 / bumped" if allow else "not today" in heard
        assert not any("approve_call" in json.dumps(request.json) for request in provider.requests)


async def test_code_that_died_with_the_daemon_is_not_run_again_and_nothing_of_it_goes_on(tmp_path: Path) -> None:
    code = "open('half', 'w').write('x')\nimport subprocess\nsubprocess.run(['sleep', '31337.5'])"

    def answer(request: Request) -> Reply:
        if heard := results_in(request):
            return Reply(text=f"heard: {heard[-1]}")
        return Reply(calls=[Call("code_execution", {"language": "python", "code": code}, id="c")])

    async with FakeProvider(default=answer) as provider, daemons(tmp_path, provider) as them:
        sent = await them.send()
        await until(lambda: running("31337.5"))
        await them.kill()
        await until(lambda: not running("31337.5"))
        await them.start()
        done = await them.ended(sent)
        assert done["status"] == "completed"
        assert "Outcome unknown" in done["steps"][-1]["content"][0]["text"]


async def test_output_that_was_seen_before_a_crash_is_in_no_step_after_it(tmp_path: Path) -> None:
    code = "print('begun', flush=True)\nimport subprocess\nsubprocess.run(['sleep', '31337.25'])"

    def answer(request: Request) -> Reply:
        if results_in(request):
            return Reply(text="ok")
        return Reply(calls=[Call("code_execution", {"language": "python", "code": code}, id="c")])

    async with FakeProvider(default=answer) as provider, daemons(tmp_path, provider) as them:
        sent = await them.send()
        seen: dict[str, Any] = {}
        async with asyncio.timeout(PATIENCE_S):
            while not seen.get("printed"):
                seen = await them.call("wait", interaction_id=sent, timeout_s=0.1)
        assert seen["printed"] == "begun\n"
        assert [step["type"] for step in seen["steps"]] == ["user_input", "code_execution_call"]
        await them.kill()
        await them.start()
        done = await them.ended(sent)
        results = [step for step in done["steps"] if step["type"] == "code_execution_result"]
        assert len(results) == 1
        assert "Outcome unknown" in results[0]["result"]
        assert "begun" not in results[0]["result"]
        assert done["printed"] == ""


async def test_a_model_call_that_died_is_made_again_and_the_tools_before_it_are_not(tmp_path: Path) -> None:
    hold = asyncio.Event()

    def answer(request: Request) -> Reply:
        heard = results_in(request)
        if not heard:
            return Reply(calls=[Call("code_execution", {"language": "python", "code": NOTED}, id="c")])
        return Reply(text=["heard: ", *([] if len(provider.requests) > 2 else [hold]), heard[-1].strip()])

    async with FakeProvider(default=answer) as provider, daemons(tmp_path, provider) as them:
        sent = await them.send()
        await provider.received(2, PATIENCE_S)
        await them.kill()
        await them.start()
        done = await them.ended(sent)
        hold.set()
        assert done["steps"][-1]["content"][0]["text"] == "heard: 1"
        assert len(provider.requests) == 3


def running(words: str) -> bool:
    """Whether a process with these words in its command line is alive."""
    for one in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if words.encode() in one.read_bytes():
                return True
        except OSError:
            continue
    return False
