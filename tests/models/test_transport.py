"""Calls over a real socket: what is streamed, what is tried again, what each failure is called, what cancel does."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import ssl
from collections.abc import AsyncIterator
from typing import Any

import pytest

from interactd import config
from interactd.config import Kind
from interactd.errors import (
    InteractdError,
    InvalidArgument,
    KeyRefused,
    ProviderRejected,
    ProviderTimeout,
    ProviderUnavailable,
    RateLimited,
    StreamMalformed,
    StreamTruncated,
)
from interactd.models import transport
from interactd.models.codecs import codec
from interactd.models.http.clients import Clients
from interactd.models.keys import MASK, KeyRing
from interactd.models.port import Finished, ModelEvent, ModelRequest, StepDelta, StepFinished
from interactd.models.providers import Provider
from interactd.models.transport import Backoff, HttpModel
from interactd.nouns import user_input
from support.provider import Call, FakeProvider, Fault, Hang, Raw, Redirect, Reply, sse

pytestmark = pytest.mark.anyio

KEY = "sk-test-0123456789abcdef"
KINDS: tuple[Kind, ...] = ("openai-chat", "openai-responses", "anthropic", "gemini")
CHAT: Kind = "openai-chat"


@pytest.fixture
async def clients() -> AsyncIterator[Clients]:
    made = Clients()
    yield made
    await made.aclose()


@pytest.fixture
async def fake() -> AsyncIterator[FakeProvider]:
    async with FakeProvider() as made:
        yield made


def model(clients: Clients, url: str, kind: Kind = CHAT, **settings: Any) -> HttpModel:
    ring = KeyRing(own={"OPENAI_API_KEY": KEY})
    table = config.Provider(kind=kind, base_url=url, api_key_env="OPENAI_API_KEY", **settings)
    provider = Provider("fake", kind, url, table, ("OPENAI_API_KEY",), KEY, "OPENAI_API_KEY")
    return HttpModel(provider, "fake-model-1", codec(kind, "fake"), clients, ring, backoff=Backoff(0.01, 0.02))


def ask(text: str = "hello") -> ModelRequest:
    return ModelRequest("fake-model-1", [user_input(text)])


async def collect(made: HttpModel, request: ModelRequest | None = None) -> list[ModelEvent]:
    return [event async for event in made.stream(request or ask())]


def text_of(events: list[ModelEvent]) -> str:
    return "".join(event.text for event in events if isinstance(event, StepDelta) and event.kind == "text")


async def failure(made: HttpModel, request: ModelRequest | None = None) -> InteractdError:
    with pytest.raises(InteractdError) as caught:
        await collect(made, request)
    assert caught.value.repair, "every error says what to do"
    assert KEY not in str(caught.value.as_dict())
    return caught.value


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


# -- the network -----------------------------------------------------------------------------------------------------


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


async def test_nothing_listening_on_this_machine_is_told_at_once(clients: Clients) -> None:
    error = await failure(model(clients, f"http://127.0.0.1:{free_port()}"))
    assert isinstance(error, ProviderUnavailable)
    assert "nothing answers on 127.0.0.1:" in error.message
    assert "attempts" not in error.fields


async def test_an_unknown_host_name_is_told(clients: Clients) -> None:
    error = await failure(model(clients, "https://no-such-host.invalid", max_retries=0))
    assert isinstance(error, ProviderUnavailable)
    assert "no-such-host.invalid" in error.message


async def test_https_to_a_plain_server_is_told(clients: Clients, fake: FakeProvider) -> None:
    error = await failure(model(clients, fake.base_url.replace("http:", "https:")))
    assert isinstance(error, ProviderUnavailable)
    assert "TLS" in error.message
    assert "http://" in (error.repair or "")


async def test_a_certificate_that_is_not_trusted_is_told(clients: Clients, tmp_path: Any, fake: FakeProvider) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*self_signed(tmp_path))
    server = await asyncio.start_server(lambda r, w: w.close(), "127.0.0.1", 0, ssl=context)
    try:
        port = server.sockets[0].getsockname()[1]
        error = await failure(model(clients, f"https://127.0.0.1:{port}"))
    finally:
        server.close()
    assert isinstance(error, ProviderUnavailable)
    assert "certificate" in error.message
    assert "SSL_CERT_FILE" in (error.repair or "")


def self_signed(folder: Any) -> tuple[str, str]:
    import datetime

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    made = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    made = made.serial_number(1).not_valid_before(now).not_valid_after(now + datetime.timedelta(days=1))
    (folder / "cert.pem").write_bytes(made.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
    form = serialization.PrivateFormat.PKCS8
    (folder / "key.pem").write_bytes(key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption()))
    return str(folder / "cert.pem"), str(folder / "key.pem")


async def test_a_proxy_for_the_world_is_not_used_for_this_machine(
    clients: Clients, fake: FakeProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{free_port()}")
    monkeypatch.setenv("ALL_PROXY", f"http://127.0.0.1:{free_port()}")
    fake.script("direct")
    assert text_of(await collect(model(clients, fake.base_url))) == "direct"


# -- keys ------------------------------------------------------------------------------------------------------------


async def test_a_redirect_is_not_followed_and_the_key_stays(clients: Clients, fake: FakeProvider) -> None:
    async with FakeProvider() as elsewhere:
        fake.script([Redirect(elsewhere.base_url + "/v1/chat/completions"), "never asked"])
        error = await failure(model(clients, fake.base_url))
        assert isinstance(error, ProviderUnavailable)
        assert elsewhere.base_url in error.message
        assert elsewhere.connections == 0
    assert len(fake.requests) == 1


@pytest.mark.parametrize("kind", KINDS)
async def test_a_key_that_the_provider_echoes_is_removed(kind: Kind, clients: Clients, fake: FakeProvider) -> None:
    fake.script(Fault(401, f"Incorrect API key provided: {KEY}."))
    error = await failure(model(clients, fake.base_url, kind))
    assert isinstance(error, KeyRefused)
    assert KEY not in repr(error) + str(error.__cause__) + str(error.__context__)


async def test_a_key_echoed_inside_a_stream_is_removed(clients: Clients, fake: FakeProvider) -> None:
    fake.script(Raw([sse({"error": {"message": f"bad key {KEY}", "code": 400}})]))
    error = await failure(model(clients, fake.base_url))
    assert KEY not in error.message
    assert MASK in error.message or "***" in error.message or "bad key" in error.message


async def test_a_huge_error_body_is_read_only_in_part(clients: Clients, fake: FakeProvider) -> None:
    fake.script(Raw([b"x" * 65536] * 400, status=400, content_type="text/plain"))
    error = await failure(model(clients, fake.base_url))
    assert isinstance(error, ProviderRejected)
    assert len(error.message) < 5000
    await asyncio.wait_for(fake.requests[0].disconnected.wait(), 2)


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
