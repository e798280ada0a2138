"""Calls over a real socket: what comes in, and what goes out."""

from __future__ import annotations

import asyncio
import json

import pytest

from interactd.config import Kind
from interactd.errors import (
    InvalidArgument,
    ProviderRejected,
    StreamMalformed,
)
from interactd.models import transport
from interactd.models.http.clients import Clients
from interactd.models.port import Finished, StepDelta, StepFinished
from models.transport_kit import KEY, KINDS, ask, clients, collect, failure, fake, model, text_of
from support.provider import Call, FakeProvider, Fault, Raw, Reply, sse

__all__ = ["clients", "fake"]

pytestmark = pytest.mark.anyio


# -- what comes in -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("cut", [None, 1, 37])
async def test_a_stream_arrives_in_order_however_it_is_cut(
    kind: Kind, cut: int | None, clients: Clients, fake: FakeProvider
) -> None:
    fake.script(Reply("Grüße, 🌍! Two plus two\u2028is four.", cut=cut))
    events = await collect(model(clients, fake.base_url, kind))
    assert text_of(events) == "Grüße, 🌍! Two plus two\u2028is four."
    last = events[-1]
    assert isinstance(last, Finished)
    assert last.reason == "stop"
    assert last.usage is not None
    assert (last.usage.input, last.usage.output) == (10, 5)


@pytest.mark.parametrize("kind", KINDS)
async def test_a_server_that_ignores_streaming_is_understood(kind: Kind, clients: Clients, fake: FakeProvider) -> None:
    fake.script(Reply("All at once.", ignore_stream=True, calls=[Call("add", {"a": 1})]))
    events = await collect(model(clients, fake.base_url, kind))
    steps = [event.step for event in events if isinstance(event, StepFinished)]
    assert [step.type for step in steps] == ["model_output", "function_call"]
    assert steps[0].text == "All at once."
    assert steps[1].body["arguments"] == {"a": 1}
    assert isinstance(events[-1], Finished)


async def test_a_stream_with_a_wrong_content_type_is_read_all_the_same(clients: Clients, fake: FakeProvider) -> None:
    head = {"id": "c", "object": "chat.completion.chunk", "model": "m"}
    delta = {**head, "choices": [{"index": 0, "delta": {"content": "hi"}, "finish_reason": "stop"}]}
    fake.script(Raw([b"\r\n: hello\r\n", sse(delta), sse("[DONE]")], content_type="text/plain"))
    assert text_of(await collect(model(clients, fake.base_url))) == "hi"


async def test_a_last_event_without_its_empty_line_counts(clients: Clients, fake: FakeProvider) -> None:
    head = {"id": "c", "object": "chat.completion.chunk", "model": "m"}
    delta = {**head, "choices": [{"index": 0, "delta": {"content": "hi"}, "finish_reason": "stop"}]}
    fake.script(Raw([sse(delta), b"data: [DONE]"]))
    assert isinstance((await collect(model(clients, fake.base_url)))[-1], Finished)


async def test_deltas_come_while_the_model_still_writes(clients: Clients, fake: FakeProvider) -> None:
    gate = asyncio.Event()
    fake.script(Reply(["first", gate, "second"]))
    seen = ""
    async with asyncio.timeout(5):
        async for event in model(clients, fake.base_url).stream(ask()):
            if isinstance(event, StepDelta):
                seen += event.text
                gate.set()
    assert seen == "firstsecond"


async def test_an_error_sent_with_status_200_is_that_error(clients: Clients, fake: FakeProvider) -> None:
    body = {"error": {"message": "no such thing", "code": 400}}
    fake.script(Raw(body, content_type="application/json"))
    assert isinstance(await failure(model(clients, fake.base_url)), ProviderRejected)


@pytest.mark.parametrize("body", ["<!doctype html><p>hi</p>", "  \n<html>"])
async def test_a_web_page_is_said_to_be_one(body: str, clients: Clients, fake: FakeProvider) -> None:
    fake.script(Raw(body, content_type="text/html"))
    error = await failure(model(clients, fake.base_url))
    assert isinstance(error, StreamMalformed)
    assert "web page" in error.message
    assert "base_url" in (error.repair or "")


async def test_an_answer_without_end_is_cut_off(
    clients: Clients, fake: FakeProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transport, "MAX_ANSWER_BYTES", 100_000)
    fake.script(Raw([*[b": " + b"x" * 1000 + b"\n"] * 1000, asyncio.Event()]))
    error = await failure(model(clients, fake.base_url))
    assert isinstance(error, StreamMalformed)
    assert "larger than 100,000 bytes" in error.message
    await asyncio.wait_for(fake.requests[0].disconnected.wait(), 2)


# -- what goes out -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "base", "path"),
    [
        ("openai-chat", "", "/v1/chat/completions"),
        ("openai-chat", "/", "/v1/chat/completions"),
        ("openai-chat", "/v1", "/v1/chat/completions"),
        ("openai-chat", "/v1/", "/v1/chat/completions"),
        ("openai-chat", "/v1/chat/completions", "/v1/chat/completions"),
        ("openai-chat", "/openai/v1", "/openai/v1/chat/completions"),
        ("openai-chat", "/api/paas/v4", "/api/paas/v4/chat/completions"),
        ("openai-chat", "/proxy", "/proxy/v1/chat/completions"),
        ("openai-responses", "/v1", "/v1/responses"),
        ("anthropic", "/v1", "/v1/messages"),
        ("anthropic", "", "/v1/messages"),
        ("gemini", "", "/v1beta/models/fake-model-1:streamGenerateContent?alt=sse"),
        ("gemini", "/v1beta/", "/v1beta/models/fake-model-1:streamGenerateContent?alt=sse"),
    ],
)
async def test_an_address_works_with_and_without_its_version(
    kind: Kind, base: str, path: str, clients: Clients, fake: FakeProvider
) -> None:
    fake.script("ok")
    await collect(model(clients, fake.base_url + base, kind))
    assert fake.requests[0].path == path


async def test_lone_surrogates_become_a_replacement_character(clients: Clients, fake: FakeProvider) -> None:
    fake.script("ok")
    await collect(model(clients, fake.base_url), ask("half \ud83d and whole \U0001f600 and \x00"))
    sent = fake.requests[0].json["messages"][-1]["content"]
    assert "half \ufffd and whole \U0001f600 and \x00" in json.dumps(sent, ensure_ascii=False).replace(
        "\\u0000", "\x00"
    )


async def test_a_number_that_json_lacks_is_the_callers_mistake(clients: Clients, fake: FakeProvider) -> None:
    request = ask()
    request.config.temperature = float("nan")
    assert isinstance(await failure(model(clients, fake.base_url), request), InvalidArgument)
    assert not fake.requests


@pytest.mark.parametrize(
    ("kind", "header", "value"),
    [
        ("openai-chat", "authorization", f"Bearer {KEY}"),
        ("openai-responses", "authorization", f"Bearer {KEY}"),
        ("anthropic", "x-api-key", KEY),
        ("gemini", "x-goog-api-key", KEY),
    ],
)
async def test_the_key_goes_in_the_wires_own_header_and_nowhere_else(
    kind: Kind, header: str, value: str, clients: Clients, fake: FakeProvider
) -> None:
    fake.script("ok")
    await collect(model(clients, fake.base_url, kind, headers={"X-Team": "blue"}))
    sent = fake.requests[0]
    assert sent.headers[header] == value
    assert sent.headers["x-team"] == "blue"
    assert KEY not in sent.path
    assert KEY.encode() not in sent.body


async def test_connections_are_kept_and_used_again(clients: Clients, fake: FakeProvider) -> None:
    fake.script(["one", Reply("two", ignore_stream=True), Fault(400), "three"])
    made = model(clients, fake.base_url)
    await collect(made)
    await collect(made)
    await failure(made)
    await collect(made)
    assert fake.connections == 1


async def test_cookies_of_one_caller_do_not_go_along_with_another(clients: Clients, fake: FakeProvider) -> None:
    fake.script([Fault(400, headers={"set-cookie": "who=a; Path=/"}), "ok"])
    await failure(model(clients, fake.base_url))
    await collect(model(clients, fake.base_url))
    assert "cookie" not in fake.requests[1].headers
