"""Calls a provider over HTTP: one request out, its stream read through the codec, time-outs, retries, cancel."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import random
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import anyio
import httpx2

from interactd.errors import InteractdError, ProviderUnavailable, RateLimited, StreamMalformed, StreamTruncated
from interactd.models.codecs.base import Codec, Parser
from interactd.models.http import failures
from interactd.models.http.clients import Clients
from interactd.models.http.failures import Failed
from interactd.models.http.payload import encode, sniff
from interactd.models.http.sse import SseReader
from interactd.models.http.urls import join
from interactd.models.keys import KeyRing
from interactd.models.port import Finished, ModelEvent, ModelRequest
from interactd.models.providers import Provider

log = logging.getLogger(__name__)

MAX_ANSWER_BYTES = 128 * 1024 * 1024
MAX_ERROR_BYTES = 64 * 1024
_ERROR_BODY_S = 5.0
_DRAIN_S = 0.25
_CLOSE_S = 1.0

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Backoff:
    """How long to wait before trying again: full jitter below `base_s` doubled each time, at most `cap_s`."""

    base_s: float = 0.5
    cap_s: float = 8.0

    def delay(self, attempt: int, after_s: float | None) -> float:
        """Seconds before attempt number `attempt` + 1 (counted from 0); never less than the provider asked for."""
        jitter = random.uniform(0, min(self.cap_s, self.base_s * 2**attempt))
        return jitter if after_s is None else after_s + jitter * 0.1


class HttpModel:
    """One model of one provider, called over HTTP. Cheap to make; keeps its caller's key for as long as it lives."""

    def __init__(
        self,
        provider: Provider,
        name: str,
        codec: Codec,
        clients: Clients,
        ring: KeyRing,
        *,
        context_window: int | None = None,
        backoff: Backoff = Backoff(),
    ) -> None:
        self._provider = provider
        self._name = name
        self._codec = codec
        self._clients = clients
        self._ring = ring
        self._window = context_window
        self._backoff = backoff

    @property
    def provider(self) -> str:
        return self._provider.name

    @property
    def name(self) -> str:
        return self._name

    @property
    def context_window(self) -> int | None:
        return self._window

    @property
    def label(self) -> str:
        return f"{self.provider}/{self._name}"

    @property
    def base_url(self) -> str | None:
        return self._provider.base_url

    def __repr__(self) -> str:
        return f"<HttpModel {self.label}>"

    async def stream(self, request: ModelRequest) -> AsyncIterator[ModelEvent]:
        """Ask the model (see `port.Model`). Nothing is tried again once an event was given out."""
        deadline = _now() + self._provider.settings.timeout_s
        attempt = 0
        while True:
            produced = False
            try:
                async with contextlib.aclosing(self._attempt(request, deadline)) as events:
                    async for event in events:
                        produced = True
                        yield event
                return
            except Failed as failed:
                failure = failed
            delay = self._backoff.delay(attempt, failure.after_s)
            again = failure.retry and not produced and attempt < self._provider.settings.max_retries
            error = self._ring.scrub_error(failure.error)
            if not again or _now() + delay >= deadline:
                error.fields.setdefault("provider", self.provider)
                if attempt:
                    error.fields["attempts"] = attempt + 1
                # What httpx raised may hold the request's headers, and with them the key.
                raise error from None
            log.info("%s: %s; trying again in %.1f s", self.label, error.code, delay)
            await asyncio.sleep(delay)
            if request.before_retry is not None:
                await request.before_retry(error)
            attempt += 1

    async def _attempt(self, request: ModelRequest, deadline: float) -> AsyncGenerator[ModelEvent]:
        start = _now()
        try:
            response = await self._send(request, deadline)
            try:
                if not 200 <= response.status_code < 300:
                    raise await self._refused(response)
                body = _Body(self._provider, response, start, deadline)
                finished = False
                async with contextlib.aclosing(self._read(body, request)) as events:
                    async for event in events:
                        finished = isinstance(event, Finished)
                        yield event
                if finished:
                    await body.drain()
            finally:
                with anyio.move_on_after(_CLOSE_S, shield=True):
                    await response.aclose()
        except InteractdError as error:
            retry = isinstance(error, RateLimited | ProviderUnavailable | StreamTruncated)
            after = error.fields.get("retry_after_s")
            raise Failed(error, retry=retry, after_s=after if isinstance(after, int | float) else None) from None

    async def _send(self, request: ModelRequest, deadline: float) -> httpx2.Response:
        provider = self._provider
        client = await self._clients.get(provider.name, provider.base_url)
        settings = provider.settings
        outgoing = client.build_request(
            "POST",
            join(provider.base_url, self._codec.path(request, stream=True), provider.kind),
            content=encode(self._codec.body(request, stream=True)),
            headers={
                "content-type": "application/json",
                "accept": "text/event-stream, application/json",
                # A compressing proxy would hold deltas back until its block is full.
                "accept-encoding": "identity",
                **settings.headers,
                **self._codec.headers(provider.key, request),
            },
            timeout=httpx2.Timeout(None, connect=settings.connect_timeout_s, pool=settings.connect_timeout_s),
        )
        try:
            sending = client.send(outgoing, stream=True)
            return await _within(provider, sending, "first_byte_timeout_s", _now(), deadline)
        except (httpx2.HTTPError, httpx2.InvalidURL, OSError) as error:
            raise failures.broken(provider, error) from None

    async def _refused(self, response: httpx2.Response) -> Failed:
        """Read an answer that is no success, at most 64 kB and 5 s of it."""
        status, headers = response.status_code, response.headers
        if 300 <= status < 400:
            return failures.redirected(self._provider, status, headers.get("location", ""))
        got = bytearray()
        with contextlib.suppress(httpx2.HTTPError, TimeoutError):
            async with asyncio.timeout(_ERROR_BODY_S):
                async for chunk in response.aiter_bytes():
                    got += chunk[: MAX_ERROR_BYTES - len(got)]
                    if len(got) >= MAX_ERROR_BYTES:
                        break
        text = bytes(got).decode("utf-8", "replace")
        return failures.answered(self._codec.error(status, headers, text), headers)

    async def _read(self, body: _Body, request: ModelRequest) -> AsyncGenerator[ModelEvent]:
        """Read the body through the codec, ending with Finished or an error."""
        parser = self._codec.parser(request)
        start = bytearray()
        while (form := sniff(bytes(start[:64]))) is None and (chunk := await body.next()) is not None:
            start += chunk.lstrip() if not start else chunk
        if form == "html":
            raise failures.web_page(self._provider)
        if form == "json":
            for event in await self._whole(body, bytes(start), parser):
                yield event
            return
        reader = SseReader()
        chunk: bytes | None = bytes(start)
        while chunk is not None:
            for sent in reader.feed(chunk):
                for event in parser.feed(sent.event, sent.data):
                    yield event
                    if isinstance(event, Finished):
                        return
            chunk = await body.next()
        rest: list[ModelEvent] = []
        if (last := reader.end()) is not None:
            try:
                rest = parser.feed(last.event, last.data)
            except StreamMalformed:
                # Half an event: the stream was cut inside it.
                raise failures.truncated(self._provider) from None
        if not any(isinstance(event, Finished) for event in rest):
            rest += parser.end()
        for event in rest:
            yield event
        if not rest or not isinstance(rest[-1], Finished):
            raise failures.truncated(self._provider)

    async def _whole(self, body: _Body, start: bytes, parser: Parser) -> list[ModelEvent]:
        """Read an answer that came as one JSON document, because the server ignored `stream: true`."""
        got = bytearray(start)
        while (chunk := await body.next()) is not None:
            got += chunk
        try:
            document: Any = json.loads(got)
        except ValueError:
            if body.broke:
                raise failures.truncated(self._provider) from None
            raise StreamMalformed(
                f"{self.provider} answered with something that is neither a stream nor JSON",
                repair=f"Check kind and base_url under [providers.{self.provider}].",
            ) from None
        events: list[ModelEvent] = []
        if isinstance(document, list):
            # Gemini without `alt=sse` sends its chunks as one array.
            for part in cast("list[Any]", document):
                events += parser.feed(None, json.dumps(part))
        elif (status := _error_status(document)) is not None:
            text = bytes(got[:MAX_ERROR_BYTES]).decode("utf-8", "replace")
            raise failures.answered(self._codec.error(status, body.response.headers, text), body.response.headers)
        else:
            events = parser.feed_body(document)
        if not any(isinstance(event, Finished) for event in events):
            events += parser.end()
        if not events or not isinstance(events[-1], Finished):
            raise failures.truncated(self._provider)
        return events


class _Body:
    """The answer's bytes, each wait bounded: the first by first_byte_timeout_s, the others by idle_timeout_s."""

    def __init__(self, provider: Provider, response: httpx2.Response, start: float, deadline: float) -> None:
        self.response = response
        self.broke = False
        self._provider = provider
        self._chunks = response.aiter_bytes()
        self._start = start
        self._deadline = deadline
        self._size = 0

    async def next(self) -> bytes | None:
        """Return the next bytes, `None` at the end; a connection that breaks is an end too (`broke`)."""
        setting, since = ("idle_timeout_s", _now()) if self._size else ("first_byte_timeout_s", self._start)
        try:
            chunk = await _within(self._provider, anext(self._chunks, None), setting, since, self._deadline)
        except httpx2.DecodingError:
            raise StreamMalformed(
                f"{self._provider.name}'s answer cannot be decompressed", repair="Try again."
            ) from None
        except (httpx2.HTTPError, OSError) as error:
            if not self._size:
                raise failures.broken(self._provider, error) from None
            self.broke = True
            return None
        self._size += len(chunk or b"")
        if self._size > MAX_ANSWER_BYTES:
            raise failures.too_large(self._provider, MAX_ANSWER_BYTES)
        return chunk

    async def drain(self) -> None:
        """Read the little that follows the last event, so that the connection can be used again."""
        with contextlib.suppress(httpx2.HTTPError, OSError, TimeoutError):
            async with asyncio.timeout(_DRAIN_S):
                while await anext(self._chunks, None) is not None:
                    pass


async def _within(provider: Provider, waiting: Awaitable[T], setting: str, since: float, deadline: float) -> T:
    """Wait for at most the limit that `setting` names, counted from `since`, and never beyond the deadline."""
    until = since + getattr(provider.settings, setting)
    if deadline <= until:
        until, setting = deadline, "timeout_s"
    try:
        async with asyncio.timeout_at(until):
            return await waiting
    except TimeoutError:
        raise failures.timed_out(provider, setting) from None


def _error_status(document: Any) -> int | None:
    """The status that an error sent with 200 really has (gateways do that); `None` for an ordinary answer."""
    if not isinstance(document, dict):
        return 502
    answer = cast("dict[str, Any]", document)
    error = answer.get("error")
    if not error or any(name in answer for name in ("choices", "output", "content", "candidates")):
        return None
    code: Any = cast("dict[str, Any]", error).get("code") if isinstance(error, dict) else None
    return code if isinstance(code, int) and 400 <= code < 600 else 502


def _now() -> float:
    return asyncio.get_running_loop().time()
