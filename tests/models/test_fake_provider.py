"""The fake provider itself: everybody's tests lean on it."""

from __future__ import annotations

import asyncio
import json

import httpx2
import pytest

from support.provider import Call, FakeProvider, Fault, Hang, Redirect, Reply

PATHS = {
    "openai-chat": "/v1/chat/completions",
    "openai-responses": "/v1/responses",
    "anthropic": "/v1/messages",
    "gemini": "/v1beta/models/fake-model-1:streamGenerateContent?alt=sse",
}


def events(text: str) -> list[str]:
    return [line[6:] for line in text.splitlines() if line.startswith("data: ")]


@pytest.mark.anyio
@pytest.mark.parametrize("wire", PATHS)
async def test_every_wire_streams_thought_text_and_calls(wire: str) -> None:
    async with FakeProvider() as fake, httpx2.AsyncClient() as client:
        fake.script(Reply("Hello you", thought="hm", calls=[Call("add", {"a": 1}), Call("sub", {"b": 2})]))
        answer = await client.post(fake.base_url + PATHS[wire], json={"stream": True, "n": 1})
        assert answer.headers["content-type"].startswith("text/event-stream")
        data = [json.loads(event) for event in events(answer.text) if event != "[DONE]"]
        text = json.dumps(data)
        assert "Hello " in text
        assert "hm" in text
        assert "add" in text
        assert "sub" in text
        assert fake.requests[0].json == {"stream": True, "n": 1}


@pytest.mark.anyio
async def test_faults_redirects_and_an_empty_script_are_plain_http_answers() -> None:
    async with FakeProvider() as fake, httpx2.AsyncClient() as client:
        fake.script([Fault(429, "slow", retry_after=1.5), Redirect("http://127.0.0.1:1/"), lambda r: r.path])
        url = fake.base_url + PATHS["openai-chat"]
        answer = await client.post(url, json={})
        assert (answer.status_code, answer.headers["retry-after"]) == (429, "1.5")
        assert (await client.post(url, json={})).status_code == 307
        body = (await client.post(url, json={})).json()
        assert body["choices"][0]["message"]["content"] == "/v1/chat/completions"
        assert (await client.post(url, json={})).status_code == 400
        assert fake.connections == 1


@pytest.mark.anyio
async def test_a_client_that_leaves_is_noticed() -> None:
    async with FakeProvider() as fake, httpx2.AsyncClient() as client:
        fake.script([Reply(["one", asyncio.Event(), "two"]), Hang()])
        for _ in range(2):
            call = asyncio.create_task(client.post(fake.base_url + PATHS["anthropic"], json={"stream": True}))
            await fake.received(len(fake.requests) + 1)
            call.cancel()
            await asyncio.gather(call, return_exceptions=True)
            await asyncio.wait_for(fake.requests[-1].disconnected.wait(), 2)


@pytest.mark.anyio
async def test_a_truncated_stream_breaks_off_inside_the_body() -> None:
    async with FakeProvider() as fake, httpx2.AsyncClient() as client:
        fake.script(Reply("one two three", truncate_after=2, cut=7))
        with pytest.raises(httpx2.RemoteProtocolError):
            await client.post(fake.base_url + PATHS["openai-chat"], json={"stream": True})
