"""The embedded model on real weights and a real llama.cpp child. SmolLM2: the machinery, never the quality."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import AsyncGenerator, Callable
from pathlib import Path
from typing import Any

import httpx2
import pytest

from interactd import paths
from interactd.errors import (
    ContextOverflow,
    InvalidArgument,
    NotSetUp,
    ProviderUnavailable,
    StreamTruncated,
    UnknownModel,
)
from interactd.models.embedded import Embedded, EmbeddedSettings
from interactd.models.embedded.log import ChildLog
from interactd.models.embedded.model import EmbeddedModel
from interactd.models.embedded.runner import Runner, Server
from interactd.models.port import Finished, ModelEvent, ModelRequest, StepDelta, StepFinished, StepStarted
from interactd.nouns import GenerationConfig, Json, Step, user_input
from support.weights import TEST_MODEL

pytestmark = pytest.mark.anyio
LONG = GenerationConfig(max_output_tokens=900, temperature=1.5, seed=1)
SHORT = GenerationConfig(max_output_tokens=12, seed=1)
Make = Callable[..., Embedded]


@pytest.fixture
def home(tmp_path: Path, weights: Path, monkeypatch: pytest.MonkeyPatch) -> paths.Paths:
    monkeypatch.setenv("INTERACTD_WEIGHTS", str(weights))
    return paths.find({"INTERACTD_HOME": str(tmp_path / "home")})


@pytest.fixture
async def make(home: paths.Paths) -> AsyncGenerator[Make]:
    made: list[Embedded] = []

    def build(**settings: Any) -> Embedded:
        chosen: dict[str, Any] = {"model": TEST_MODEL, **settings}
        made.append(Embedded(home, EmbeddedSettings(**chosen)))
        return made[-1]

    yield build
    for each in made:
        pids = [line["pid"] for line in each.status() if line["pid"]]
        began = time.monotonic()
        await each.aclose()
        assert time.monotonic() - began < 2.0
        assert not [pid for pid in pids if alive(pid)]


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


async def until(condition: Callable[[], bool], within_s: float = 5.0) -> None:
    async with asyncio.timeout(within_s):
        # What is waited for is another process's state: there is no event to wait on.
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.02)


def ask(text: str = "Tell me a long story.", config: GenerationConfig = SHORT, **more: Any) -> ModelRequest:
    return ModelRequest(TEST_MODEL, [user_input(text)], config=config, **more)


async def collect(model: EmbeddedModel, request: ModelRequest) -> list[ModelEvent]:
    return [event async for event in model.stream(request)]


def said(events: list[ModelEvent]) -> str:
    return "".join(event.text for event in events if isinstance(event, StepDelta))


def last(events: list[ModelEvent]) -> Finished:
    assert isinstance(events[-1], Finished)
    return events[-1]


async def test_tokens_stream_and_usage_and_timings_come_at_the_end(make: Make) -> None:
    embedded = make()
    assert embedded.ready()
    model = await embedded.resolve("embedded")
    assert model.label == f"embedded/{TEST_MODEL}"
    assert embedded.status()[0]["state"] == "stopped", "resolving starts nothing"
    events = await collect(model, ask())
    assert isinstance(events[0], StepStarted)
    assert sum(isinstance(event, StepDelta) for event in events) >= 8
    step = next(event.step for event in events if isinstance(event, StepFinished))
    assert step.text == said(events)
    assert (step.state or {})["timings"]["predicted_n"] == 12
    done = last(events)
    assert done.reason == "length"
    assert done.usage is not None
    assert (done.usage.output, done.usage.cached) == (12, 0)
    assert (done.usage.input or 0) > 20


async def test_a_second_turn_reads_its_history_from_the_prefix_cache(make: Make) -> None:
    model = await make().resolve()
    first = await collect(model, ask("The word is heron. Remember it."))
    answer = next(event.step for event in first if isinstance(event, StepFinished))
    steps = [user_input("The word is heron. Remember it."), answer, user_input("Which word?")]
    usage = last(await collect(model, ModelRequest(TEST_MODEL, steps, config=SHORT))).usage
    assert usage is not None
    assert (usage.cached or 0) >= 20


async def test_the_same_seed_gives_the_same_answer(make: Make) -> None:
    model = await make().resolve()
    await collect(model, ask())
    assert said(await collect(model, ask())) == said(await collect(model, ask()))


async def test_cancel_stops_the_generation_at_once(home: paths.Paths, weights: Path) -> None:
    seen: list[Server] = []
    async with one_runner(home, weights) as runner:

        @contextlib.asynccontextmanager
        async def lease() -> AsyncGenerator[Server]:
            async with runner.lease() as server:
                seen.append(server)
                yield server

        model = EmbeddedModel(TEST_MODEL, 4096, lease, EmbeddedSettings())
        started = asyncio.Event()

        async def read() -> None:
            async for event in model.stream(ask(config=LONG)):
                if isinstance(event, StepDelta):
                    started.set()

        task = asyncio.create_task(read())
        await asyncio.wait_for(started.wait(), 20)
        client = seen[0].client
        assert (await client.get("/slots")).json()[0]["is_processing"]
        task.cancel()
        began = time.monotonic()
        with pytest.raises(asyncio.CancelledError):
            await task
        while (await client.get("/slots")).json()[0]["is_processing"]:
            assert time.monotonic() - began < 1.0
        assert runner.state == "ready"
        # Nobody else on this machine can use it.
        async with httpx2.AsyncClient(trust_env=False) as stranger:
            for path in ("/slots", "/v1/models", "/props"):
                assert (await stranger.get(str(client.base_url).rstrip("/") + path)).status_code == 401


@contextlib.asynccontextmanager
async def one_runner(home: paths.Paths, weights: Path, **changes: Any) -> AsyncGenerator[Runner]:
    async def nothing() -> None:
        return None

    log = ChildLog(home.logs / "embedded.log")
    given: dict[str, Any] = {"ram": 0, "make_room": nothing, **changes}
    runner = Runner(TEST_MODEL, next(weights.glob("*.gguf")), settings=EmbeddedSettings(), log=log, **given)
    try:
        yield runner
    finally:
        await runner.aclose()
        log.close()


async def test_an_idle_child_is_unloaded_and_comes_back_when_needed(make: Make) -> None:
    embedded = make(idle_s=0.3)
    model = await embedded.resolve()
    await collect(model, ask())
    pid = embedded.status()[0]["pid"]
    assert alive(pid)
    await until(lambda: embedded.status()[0]["state"] == "stopped")
    await until(lambda: not alive(pid))
    assert said(await collect(model, ask()))


async def test_a_child_in_use_is_not_idle(make: Make) -> None:
    embedded = make(idle_s=0.05)
    model = await embedded.resolve()
    events = await collect(model, ask(config=GenerationConfig(max_output_tokens=60, seed=2, temperature=1.5)))
    assert isinstance(events[-1], Finished)


async def test_a_child_killed_in_mid_stream_is_a_truncated_stream_that_says_so(make: Make) -> None:
    embedded = make()
    model = await embedded.resolve()
    got: list[ModelEvent] = []

    async def read() -> None:
        async for event in model.stream(ask(config=LONG)):
            got.append(event)
            if len(got) == 5:
                os.kill(embedded.status()[0]["pid"], signal.SIGKILL)

    with pytest.raises(StreamTruncated) as caught:
        await read()
    assert "SIGKILL" in caught.value.message
    assert "again" in (caught.value.repair or "")
    assert said(got)
    assert said(await collect(model, ask())), "the next turn starts it anew"


async def test_a_child_killed_between_turns_is_started_again_unnoticed(make: Make) -> None:
    embedded = make()
    model = await embedded.resolve()
    await collect(model, ask())
    pid = embedded.status()[0]["pid"]
    os.kill(pid, signal.SIGKILL)
    assert said(await collect(model, ask()))
    assert embedded.status()[0]["pid"] != pid


async def test_a_child_killed_before_its_first_word_is_tried_once_more(make: Make) -> None:
    embedded = make()
    model = await embedded.resolve()
    await collect(model, ask())

    async def kill() -> None:
        await until(lambda: embedded.status()[0]["state"] == "busy")
        os.kill(embedded.status()[0]["pid"], signal.SIGKILL)

    killer = asyncio.create_task(kill())
    text = "word " * 300
    assert last(await collect(model, ask(text))).reason in ("stop", "length")
    await killer


async def test_a_model_that_cannot_be_loaded_is_not_tried_for_ever(make: Make, tmp_path: Path) -> None:
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(b"GGUF" + b"\0" * 4096)
    model = await make().resolve(f"embedded/file:{broken}")
    messages: list[str] = []
    for _ in range(4):
        with pytest.raises(ProviderUnavailable) as caught:
            await collect(model, ask())
        messages.append(caught.value.message)
    assert "did not start" in messages[0]
    assert "3 times in a row" in messages[3]


PARENT = """
import asyncio, sys
from interactd import paths
from interactd.models.embedded import Embedded, EmbeddedSettings
from interactd.models.port import ModelRequest
from interactd.nouns import GenerationConfig, user_input

async def main():
    embedded = Embedded(paths.find(), EmbeddedSettings(model=sys.argv[1]))
    model = await embedded.resolve()
    config = GenerationConfig(max_output_tokens=900, temperature=1.5, seed=1)
    async for event in model.stream(ModelRequest(sys.argv[1], [user_input("A long story.")], config=config)):
        print(embedded.status()[0]["pid"], flush=True)

asyncio.run(main())
"""


async def test_a_parent_killed_in_mid_stream_leaves_no_child(home: paths.Paths, tmp_path: Path) -> None:
    env = {**os.environ, "INTERACTD_HOME": str(tmp_path / "home")}
    parent = await asyncio.create_subprocess_exec(
        sys.executable, "-c", PARENT, TEST_MODEL, stdout=subprocess.PIPE, env=env
    )
    assert parent.stdout is not None
    pid = int(await asyncio.wait_for(parent.stdout.readline(), 30))
    assert alive(pid)
    parent.kill()
    await parent.communicate()
    await until(lambda: not alive(pid), 3)


async def test_two_models_answer_at_the_same_time(make: Make, weights: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.gguf"
    other.write_bytes(next(weights.glob("*.gguf")).read_bytes())
    embedded = make()
    models = [await embedded.resolve(), await embedded.resolve(f"file:{other}")]
    assert models[1].label == f"embedded/file:{other}"
    answers = await asyncio.gather(*(collect(model, ask()) for model in models))
    assert all(said(events) for events in answers)
    assert len({line["pid"] for line in embedded.status()}) == 2


async def test_callers_of_one_model_take_turns(make: Make) -> None:
    model = await make().resolve()
    answers = await asyncio.gather(*(collect(model, ask(f"Number {n}.")) for n in range(4)))
    assert all(isinstance(events[-1], Finished) for events in answers)


async def test_a_conversation_beyond_the_window_is_an_error_with_numbers(make: Make) -> None:
    embedded = make(context=512)
    model = await embedded.resolve()
    with pytest.raises(ContextOverflow) as caught:
        await collect(model, ask("heron " * 600))
    assert caught.value.fields["context_window"] == 512
    assert caught.value.fields["prompt_tokens"] > 600
    assert last(await collect(model, ask("heron " * 60))).reason in ("stop", "length")


async def test_a_picture_is_refused_and_an_older_one_is_left_out(make: Make) -> None:
    model = await make().resolve()
    picture: Json = {"type": "image", "data": "AAAA", "mime_type": "image/png"}
    with pytest.raises(InvalidArgument) as caught:
        await collect(model, ModelRequest(TEST_MODEL, [user_input([picture])]))
    assert "image" in caught.value.message
    steps = [
        user_input([picture]),
        Step("model_output", {"content": [{"type": "text", "text": "A cat."}]}),
        user_input("What was it?"),
    ]
    assert said(await collect(model, ModelRequest(TEST_MODEL, steps, config=SHORT)))


async def test_odd_text_and_settings_are_answered(make: Make) -> None:
    model = await make().resolve()
    for text in ("\ud800 half", "nul \x00 and \x1b[31m red", "<|im_end|>\n<|im_start|>", " ", "😀" * 50):
        assert last(await collect(model, ask(text))).usage is not None
    # These models do not think: a level asked for changes nothing.
    config = GenerationConfig(max_output_tokens=8, thinking_level="high", thinking_summaries="auto")
    assert last(await collect(model, ask(config=config))).reason == "length"


async def test_another_llama_server_can_stand_in(home: paths.Paths, weights: Path, make: Make) -> None:
    async with one_runner(home, weights) as runner, runner.lease() as server:
        key = server.client.headers["authorization"].removeprefix("Bearer ")
        embedded = make(url=str(server.client.base_url), api_key=key)
        model = await embedded.resolve()
        assert model.label == f"embedded/{TEST_MODEL}"
        assert model.context_window == 4096
        assert said(await collect(model, ask()))
        assert (await embedded.list())[0].available
    gone = make(url=str(server.client.base_url), api_key=key)
    with pytest.raises(ProviderUnavailable):
        await gone.resolve()
    assert not (await gone.list())[0].available


async def test_closing_in_mid_stream_or_while_loading_ends_the_child(home: paths.Paths) -> None:
    for events_first in (0, 3):
        embedded = Embedded(home, EmbeddedSettings(model=TEST_MODEL))
        model = await embedded.resolve()
        got: asyncio.Queue[ModelEvent] = asyncio.Queue()

        async def read(model: EmbeddedModel = model, got: asyncio.Queue[ModelEvent] = got) -> None:
            async for event in model.stream(ask(config=LONG)):
                got.put_nowait(event)

        task = asyncio.create_task(read())
        await until(lambda embedded=embedded: embedded.status()[0]["state"] != "stopped")
        for _ in range(events_first):
            await asyncio.wait_for(got.get(), 20)
        began = time.monotonic()
        await embedded.aclose()
        assert time.monotonic() - began < 2
        with pytest.raises((StreamTruncated, ProviderUnavailable)):
            await asyncio.wait_for(task, 5)
        assert embedded.status()[0]["pid"] is None


async def test_too_little_memory_is_said_before_loading(home: paths.Paths, weights: Path) -> None:
    asked: list[bool] = []

    async def room() -> None:
        asked.append(True)

    async with one_runner(home, weights, ram=10**15, make_room=room) as runner:
        with pytest.raises(ProviderUnavailable) as caught:
            async with runner.lease():
                pass
    assert "memory" in caught.value.message
    assert asked


async def test_the_log_is_private_bounded_and_holds_neither_words_nor_keys(home: paths.Paths, weights: Path) -> None:
    async with one_runner(home, weights) as runner:
        async with runner.lease() as server:
            key = server.client.headers["authorization"].removeprefix("Bearer ")
        model = EmbeddedModel(TEST_MODEL, 4096, runner.lease, EmbeddedSettings())
        await collect(model, ask("swordfish"))
    text = (home.logs / "embedded.log").read_text()
    assert "slot" in text
    assert key not in text
    assert "swordfish" not in text
    assert stat.S_IMODE((home.logs / "embedded.log").stat().st_mode) == 0o600
    small = ChildLog(home.logs / "small.log", limit=1000)
    for number in range(200):
        small.write("m", f"line {number}")
    small.close()
    kept = sorted(path.name for path in home.logs.glob("small.log*"))
    assert kept == ["small.log", "small.log.1"]
    assert sum((home.logs / name).stat().st_size for name in kept) < 2200


async def test_without_weights_the_error_names_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("INTERACTD_WEIGHTS", raising=False)
    embedded = Embedded(paths.find({"INTERACTD_HOME": str(tmp_path)}))
    assert not embedded.ready()
    assert "interactd setup" in (embedded.why_not() or "")
    with pytest.raises(NotSetUp) as caught:
        await embedded.resolve("embedded/qwen2.5-coder-1.5b")
    assert "interactd setup --model qwen2.5-coder-1.5b" in (caught.value.repair or "")
    with pytest.raises(UnknownModel):
        await embedded.resolve("embedded/gpt-9")
    for name in ("file:relative.gguf", f"file:{tmp_path}/none.gguf", f"file:{__file__}"):
        with pytest.raises(InvalidArgument):
            await embedded.resolve(name)
    lines = await embedded.list()
    assert [line.available for line in lines] == [False, False]
    assert all("interactd setup" in line.detail for line in lines)
    await embedded.aclose()


async def test_the_test_model_is_never_what_auto_picks_by_itself(home: paths.Paths) -> None:
    embedded = Embedded(home)
    if any(line.available for line in await embedded.list() if line.id != f"embedded/{TEST_MODEL}"):
        pytest.skip("a real model is in the test cache too")
    with pytest.raises(NotSetUp):
        await embedded.resolve("auto")
    assert (await embedded.resolve(f"embedded/{TEST_MODEL}")).name == TEST_MODEL
    await embedded.aclose()


def test_ready_imports_nothing_heavy() -> None:
    code = (
        "import sys; from interactd import paths; from interactd.models.embedded import Embedded\n"
        "Embedded(paths.find()).ready(); print('xllamacpp' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout.strip().lower()) is False
