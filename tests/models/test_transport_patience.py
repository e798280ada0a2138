"""Calls over a real socket: what is tried again, which limit ran out, what cancel does."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from typing import Any

import pytest

from interactd.config import Kind
from interactd.errors import (
    InteractdError,
    KeyRefused,
    ProviderRejected,
    ProviderTimeout,
    ProviderUnavailable,
    RateLimited,
    StreamTruncated,
)
from interactd.models.http.clients import Clients
from interactd.models.port import Finished, ModelEvent
from models.transport_kit import CHAT, KINDS, ask, clients, collect, failure, fake, model, text_of
from support.provider import FakeProvider, Fault, Hang, Raw, Reply, sse

__all__ = ["clients", "fake"]

pytestmark = pytest.mark.anyio


# -- trying again --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [429, 500, 502, 503, 529])
async def test_a_passing_error_is_tried_again(status: int, clients: Clients, fake: FakeProvider) -> None:
    fake.script([Fault(status), Fault(status), "got through"])
    assert text_of(await collect(model(clients, fake.base_url))) == "got through"


async def test_it_stops_after_max_retries_and_says_how_often_it_tried(clients: Clients, fake: FakeProvider) -> None:
    fake.script([Fault(503)] * 5)
    error = await failure(model(clients, fake.base_url, max_retries=2))
    assert isinstance(error, ProviderUnavailable)
    assert error.fields["attempts"] == 3
    assert len(fake.requests) == 3


@pytest.mark.parametrize(("status", "kind"), [(400, ProviderRejected), (401, KeyRefused)])
async def test_a_lasting_error_is_not_tried_again(
    status: int, kind: type[InteractdError], clients: Clients, fake: FakeProvider
) -> None:
    fake.script([Fault(status), "never asked"])
    assert isinstance(await failure(model(clients, fake.base_url)), kind)
    assert len(fake.requests) == 1


async def test_a_stream_that_broke_after_one_delta_is_not_tried_again(clients: Clients, fake: FakeProvider) -> None:
    fake.script([Reply("one two three", truncate_after=2), "never asked"])
    seen: list[ModelEvent] = []

    async def read() -> None:
        async for event in model(clients, fake.base_url).stream(ask()):
            seen.append(event)

    with pytest.raises(StreamTruncated):
        await read()
    assert text_of(seen) == "one "
    assert len(fake.requests) == 1


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("events", [3, 4])
async def test_a_stream_that_ends_early_is_never_complete(
    kind: Kind, events: int, clients: Clients, fake: FakeProvider
) -> None:
    fake.default = Reply("one two three four five six seven", truncate_after=events)
    error = await failure(model(clients, fake.base_url, kind, max_retries=0))
    assert isinstance(error, StreamTruncated)


async def test_a_stream_cut_inside_an_event_is_truncated_not_malformed(clients: Clients, fake: FakeProvider) -> None:
    whole = sse({"id": "c", "model": "m", "choices": [{"index": 0, "delta": {"content": "hi"}, "finish_reason": None}]})
    fake.default = Raw([whole, whole[:-20]])
    assert isinstance(await failure(model(clients, fake.base_url, max_retries=0)), StreamTruncated)


async def test_a_connection_closed_without_an_answer_is_tried_again(clients: Clients, fake: FakeProvider) -> None:
    fake.script([Raw([], abort=True), "got through"])
    assert text_of(await collect(model(clients, fake.base_url))) == "got through"


async def test_retry_after_is_waited_for(clients: Clients, fake: FakeProvider) -> None:
    fake.script([Fault(429, retry_after=0.3), "got through"])
    start = asyncio.get_running_loop().time()
    await collect(model(clients, fake.base_url))
    assert 0.3 <= asyncio.get_running_loop().time() - start < 2


@pytest.mark.parametrize("headers", [{"retry-after": "3600"}, {"retry-after": "Fri, 31 Dec 2100 23:59:59 GMT"}])
async def test_a_long_retry_after_is_told_instead_of_waited_for(
    headers: dict[str, str], clients: Clients, fake: FakeProvider
) -> None:
    fake.script([Fault(429, headers=headers), "never asked"])
    error = await failure(model(clients, fake.base_url))
    assert isinstance(error, RateLimited)
    assert error.fields["retry_after_s"] >= 3600
    assert len(fake.requests) == 1


async def test_a_provider_that_says_not_to_try_again_is_obeyed(clients: Clients, fake: FakeProvider) -> None:
    fake.script([Fault(503, headers={"x-should-retry": "false"}), "never asked"])
    await failure(model(clients, fake.base_url))
    assert len(fake.requests) == 1


# -- time ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "setting"),
    [
        (Hang(), "first_byte_timeout_s"),
        (Hang(after_headers=True), "first_byte_timeout_s"),
        (Reply(["one", asyncio.Event(), "two"]), "idle_timeout_s"),
        (Raw([part for _ in range(200) for part in (b": still here\n\n", 0.02)]), "timeout_s"),
    ],
    ids=["silent", "headers only", "stalled", "trickle"],
)
async def test_each_time_out_says_which_limit_it_was(
    answer: Any, setting: str, clients: Clients, fake: FakeProvider
) -> None:
    limits: dict[str, Any] = {"first_byte_timeout_s": 5.0, "idle_timeout_s": 5.0, "timeout_s": 10.0, setting: 0.2}
    fake.script([answer, "never asked"])
    error = await failure(model(clients, fake.base_url, CHAT, **limits))
    assert isinstance(error, ProviderTimeout)
    assert error.fields["setting"] == setting
    assert f"within 0.2 s ({setting})" in error.message
    assert setting in (error.repair or "")
    assert len(fake.requests) == 1
    await asyncio.wait_for(fake.requests[0].disconnected.wait(), 2)


async def test_a_connection_that_is_never_accepted_times_out(clients: Clients) -> None:
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        url = f"http://127.0.0.1:{full.getsockname()[1]}"
        with contextlib.ExitStack() as fillers:
            for _ in range(3):
                filler = fillers.enter_context(socket.socket())
                filler.setblocking(False)
                filler.connect_ex(full.getsockname())
            error = await failure(model(clients, url, connect_timeout_s=0.2, max_retries=0))
    assert isinstance(error, ProviderTimeout)
    assert error.fields["setting"] == "connect_timeout_s"


async def test_a_slow_reader_is_not_the_providers_time_out(clients: Clients, fake: FakeProvider) -> None:
    fake.script("one two three four")
    events: list[ModelEvent] = []
    async for event in model(clients, fake.base_url, idle_timeout_s=0.1).stream(ask()):
        events.append(event)
        if len(events) == 2:
            await asyncio.sleep(0.3)
    assert isinstance(events[-1], Finished)


# -- cancel ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("when", ["before the answer", "in the stream"])
async def test_cancel_closes_the_socket_within_200_ms(
    kind: Kind, when: str, clients: Clients, fake: FakeProvider
) -> None:
    fake.script(Hang() if when == "before the answer" else Reply(["one", asyncio.Event(), "two"]))
    started = asyncio.Event()

    async def run() -> None:
        async for _ in model(clients, fake.base_url, kind).stream(ask()):
            started.set()

    task = asyncio.create_task(run())
    await fake.received(1)
    if when == "in the stream":
        await asyncio.wait_for(started.wait(), 5)
    at = asyncio.get_running_loop().time()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await asyncio.wait_for(fake.requests[0].disconnected.wait(), 2)
    assert (fake.requests[0].disconnected_at or 0) - at < 0.2


async def test_a_consumer_that_stops_reading_closes_the_socket(clients: Clients, fake: FakeProvider) -> None:
    fake.script(Reply(["one", asyncio.Event(), "two"]))
    stream = model(clients, fake.base_url).stream(ask())
    await anext(stream)
    await stream.aclose()  # type: ignore[attr-defined]  # it is a generator
    await asyncio.wait_for(fake.requests[0].disconnected.wait(), 2)


async def test_cancel_ends_the_wait_before_another_try(clients: Clients, fake: FakeProvider) -> None:
    fake.script([Fault(429, retry_after=20), "never asked"])
    task = asyncio.create_task(collect(model(clients, fake.base_url)))
    await fake.received(1)
    await asyncio.wait_for(fake.requests[0].answered.wait(), 5)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(task, 1)


async def test_a_server_that_keeps_the_stream_open_after_its_end_holds_nobody(
    clients: Clients, fake: FakeProvider
) -> None:
    head = {"id": "c", "object": "chat.completion.chunk", "model": "m"}
    delta = {**head, "choices": [{"index": 0, "delta": {"content": "hi"}, "finish_reason": "stop"}]}
    fake.script(Raw([sse(delta), sse("[DONE]"), asyncio.Event()]))
    async with asyncio.timeout(2):
        assert isinstance((await collect(model(clients, fake.base_url)))[-1], Finished)


async def test_fifty_streams_at_once_all_arrive(clients: Clients, fake: FakeProvider) -> None:
    fake.default = Reply("one two three")
    made = model(clients, fake.base_url)
    results = await asyncio.gather(*(collect(made) for _ in range(50)))
    assert {text_of(events) for events in results} == {"one two three"}
