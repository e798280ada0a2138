"""A provider that hangs, trickles, breaks off, refuses and lies: a clear end each time, and what came is kept."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from chaos.runs.kit.plans import asked_for
from chaos.runs.kit.world import Json, World, a_world
from support.provider import Call, Fault, Hang, Item, Raw, Reply, Request, sse

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.timeout(300),
    pytest.mark.skipif(os.name != "posix", reason="the daemons are forked"),
]

IMPATIENT = "first_byte_timeout_s = 1\nidle_timeout_s = 1\ntimeout_s = 6\nmax_retries = 2"
NEVER_S = 3600.0


def chunk(delta: Json, **more: Any) -> bytes:
    choice: Json = {"index": 0, "delta": delta, "finish_reason": more.pop("finish", None)}
    return sse({"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice], **more})


async def a_turn(world: World, script: Sequence[Item], retries: int = 0) -> Json:
    """A turn whose model call is as the script says; what dispatch would try again is left out."""
    world.provider.script(script)
    session = (await world.call("create_session"))["id"]
    done = await world.ended(await world.send(session, "hello", dispatch={"retries": retries}))
    # Whatever it was, the session goes on.
    world.provider.script(["still here"])
    after = await world.ended(await world.send(session, "are you there?"))
    assert texts(after) == ["still here"]
    return done


def texts(done: Json) -> list[str]:
    return [part["text"] for step in done["steps"] if step["type"] == "model_output" for part in step["content"]]


@dataclass
class Case:
    """A script for the provider, and what it must come to."""

    script: list[Item]
    status: str = "completed"
    code: str | None = None
    text: list[str] = field(default_factory=lambda: ["fine"])
    calls: int = 1


CASES = {
    "no answer": Case([Hang()], "failed", "provider_timeout", []),
    "headers and nothing": Case([Hang(after_headers=True)], "failed", "provider_timeout", []),
    "half an answer": Case([Reply(text=["half", NEVER_S])], "failed", "provider_timeout", ["half"]),
    "a trickle that ends in time": Case([Reply(text=["fi", 0.5, "n", 0.5, "e", 0.5])]),
    "a trickle": Case([Reply(text=[*"123456", *(piece for _ in range(20) for piece in ("", 0.6))])], "failed"),
    "cut": Case([Reply("one two three", truncate_after=3)], "failed", "stream_truncated", ["one two "]),
    "cut before anything came": Case([Reply("x", truncate_after=0), "fine"], calls=2),
    "429 with a time": Case([Fault(429, retry_after=0.3), "fine"], calls=2),
    "429 without": Case([Fault(429), "fine"], calls=2),
    "500, 503, fine": Case([Fault(500), Fault(503), "fine"], calls=3),
    "500 for good": Case([Fault(500)] * 3, "failed", "provider_unavailable", [], 3),
    "400": Case([Fault(400, "no")], "failed", "provider_rejected", []),
    "a web page": Case([Raw(b"<html>", content_type="text/html")], "failed", "stream_malformed", []),
}
CASES["a trickle"].code, CASES["a trickle"].text = "provider_timeout", ["123456"]


@pytest.mark.long
async def test_every_misbehaviour_has_a_clear_end_and_the_session_goes_on(tmp_path: Path) -> None:
    wrong: Json = {}
    async with a_world(tmp_path / "home", more=IMPATIENT) as world:
        for name, case in CASES.items():
            before = len(world.provider.requests)
            done = await a_turn(world, case.script)
            found = done["interaction"]
            error: Json = found.get("error") or {}
            seen = (found["status"], error.get("code"), texts(done), len(world.provider.requests) - before - 1)
            if seen != (case.status, case.code, case.text, case.calls) or not error.get("message", "-"):
                wrong[name] = seen
    assert wrong == {}


@pytest.mark.long
async def test_a_background_run_is_tried_again_after_what_can_pass(tmp_path: Path) -> None:
    async with a_world(tmp_path / "home", more=IMPATIENT.replace("max_retries = 2", "max_retries = 0")) as world:
        half = Reply(text=["half", NEVER_S])
        for first in (Hang(), half, Reply("one two three", truncate_after=3), Fault(429, retry_after=1)):
            before = len(world.provider.requests)
            done = await a_turn(world, [first, "fine"], retries=1)
            assert done["interaction"]["status"] == "completed"
            assert texts(done) == ["fine"], "nothing of the attempt that failed is in the answer"
            assert len(world.provider.requests) == before + 3


async def test_a_provider_that_wants_an_hour_is_not_waited_for_in_the_call(tmp_path: Path) -> None:
    async with a_world(tmp_path / "home", more=IMPATIENT) as world:
        done = await a_turn(world, [Fault(429, retry_after=3600)])
        assert done["interaction"]["status"] == "failed"
        assert done["interaction"]["error"]["code"] == "rate_limited"
        assert done["interaction"]["error"]["retry_after_s"] == 3600


LIES: list[Any] = [
    None,
    {},
    {"prompt_tokens": -5, "completion_tokens": -7, "total_tokens": -12},
    {"prompt_tokens": 10**40, "completion_tokens": 1e308, "total_tokens": 3},
    {"prompt_tokens": "many", "completion_tokens": None, "total_tokens": [1]},
    {"prompt_tokens": True, "completion_tokens": 2.7, "completion_tokens_details": {"reasoning_tokens": 10**9}},
    "a lot",
]


async def test_lies_about_usage_break_nothing_and_are_never_less_than_nothing(tmp_path: Path) -> None:
    async with a_world(tmp_path / "home", more=IMPATIENT) as world:
        for usage in LIES:
            parts = [chunk({"role": "assistant", "content": "fine"}), chunk({}, finish="stop", usage=usage)]
            done = await a_turn(world, [Raw([*parts, sse("[DONE]")])])
            assert texts(done) == ["fine"]
            figures: Json = done["interaction"].get("usage") or {}
            assert all(isinstance(figure, int) and 0 <= figure < 2**53 for figure in figures.values()), usage


async def test_of_several_usages_in_one_stream_the_last_one_counts(tmp_path: Path) -> None:
    given = [{"prompt_tokens": p, "completion_tokens": c} for p, c in ((7, 1), (900, 1), (8, 3))]
    parts = [chunk({"role": "assistant", "content": "fine"}, usage=given[0]), chunk({}, usage=given[1])]
    parts += [chunk({}, finish="stop", usage=given[2]), sse("[DONE]")]
    async with a_world(tmp_path / "home", more=IMPATIENT) as world:
        done = await a_turn(world, [Raw(parts)])
        usage = done["interaction"]["usage"]
        assert (usage["total_input_tokens"], usage["total_output_tokens"]) == (8, 3)


@pytest.mark.skipif(shutil.which("bwrap") is None, reason="needs a sandbox")
async def test_no_lie_about_usage_gets_past_a_limit_on_tokens(tmp_path: Path) -> None:
    lies: list[Json] = [
        {"usage": False},
        {"input_tokens": -5, "output_tokens": -5},
        {"input_tokens": 0, "output_tokens": 0},
    ]

    def answer(request: Request) -> Reply:
        run, at = asked_for(request)
        call = Call("write_file", {"path": f"f{run}.{at}", "content": "x" * 400}, id=f"c{run}.{at}")
        return Reply("on and on", calls=[call], **lies[run])

    async with a_world(tmp_path / "home", answer) as world:
        session = await world.session()
        for number in range(len(lies)):
            id = await world.send(session, f"run {number}", limits={"tokens": 6_000, "steps": 40})
            done = await world.ended(id)
            assert done["interaction"]["status"] == "incomplete"
            assert done["interaction"]["error"]["code"] == "tokens_exceeded", done["interaction"]["error"]
        assert len(world.provider.requests) < 60


async def test_a_provider_that_comes_and_goes_under_many_runs(tmp_path: Path) -> None:
    count = 0

    def moody(request: Request) -> Reply | Fault:
        nonlocal count
        count += 1
        if count % 5 == 2:
            return Fault(503)
        if count % 7 == 3:
            return Reply("x", truncate_after=0)
        return Reply(f"fine {asked_for(request)[0]}")

    async with a_world(tmp_path / "home", moody, more="max_retries = 6") as world:
        sessions = [(await world.call("create_session"))["id"] for _ in range(5)]
        runs = {n: await world.send(sessions[n % 5], f"run {n}") for n in range(25)}
        for number, id in runs.items():
            done = await world.ended(id)
            assert texts(done) == [f"fine {number}"], done["interaction"]
