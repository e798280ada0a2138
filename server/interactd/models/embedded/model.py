"""The embedded model behind the models port: a child's HTTP server asked through the chat completions codec."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, aclosing
from typing import Any

import httpx2

from interactd.errors import ContextOverflow, InteractdError, ProviderTimeout, ProviderUnavailable, StreamTruncated
from interactd.models.codecs.chat import ChatCodec
from interactd.models.embedded.calls.reader import CallReader
from interactd.models.embedded.prompt import Plan, plan
from interactd.models.embedded.runner import Server
from interactd.models.embedded.settings import EmbeddedSettings
from interactd.models.http.payload import encode
from interactd.models.http.sse import SseReader
from interactd.models.port import Finished, ModelEvent, ModelRequest, StepFinished
from interactd.nouns import Json

PROVIDER = "embedded"
_STARTS = 2
_LEAST_ANSWER = 64
_JSON = {"content-type": "application/json"}
_TIMINGS = ("cache_n", "prompt_n", "prompt_ms", "predicted_n", "predicted_ms", "predicted_per_second")

Lease = Callable[[], AbstractAsyncContextManager[Server]]


class EmbeddedModel:
    """One embedded model. `lease` waits for the server and gives it to one caller at a time."""

    def __init__(self, name: str, window: int | None, lease: Lease, settings: EmbeddedSettings) -> None:
        self._name = name
        self._window = window
        self._lease = lease
        self._settings = settings

    @property
    def provider(self) -> str:
        return PROVIDER

    @property
    def name(self) -> str:
        return self._name

    @property
    def context_window(self) -> int | None:
        return self._window

    @property
    def label(self) -> str:
        return f"{PROVIDER}/{self._name}"

    @property
    def base_url(self) -> str | None:
        return None

    async def stream(self, request: ModelRequest) -> AsyncIterator[ModelEvent]:
        """Ask the model (see the port). What llama.cpp measured is in the last step's state as `timings`.

        Raises:
            InvalidArgument: pictures, or tools it cannot have.
            ContextOverflow: the prompt does not fit; `prompt_tokens` and `context_window` are in the fields.
            ProviderUnavailable: no child could be started, or it ended before anything came.
            StreamTruncated: it ended in the middle of the answer.
            ProviderTimeout: it did not start, or said nothing for too long.
        """
        planned = plan(request, self._settings)
        for start in range(1, _STARTS + 1):
            produced = False
            server: Server | None = None
            try:
                async with self._lease() as server, aclosing(self._ask(server, planned)) as events:
                    async for event in events:
                        produced = True
                        yield event
                return
            except (httpx2.TransportError, StreamTruncated) as error:
                if isinstance(error, httpx2.ReadTimeout):
                    raise self._silent() from error
                words = await server.why_gone() if server else None
                if words and not produced and start < _STARTS:
                    if request.before_retry is not None:
                        await request.before_retry(self._gone(words, error, produced=False))
                    continue
                raise self._gone(words, error, produced=produced) from error

    async def _ask(self, server: Server, planned: Plan) -> AsyncGenerator[ModelEvent]:
        wire = ChatCodec(PROVIDER)
        request = planned.request
        body = wire.body(request, stream=True)
        if planned.grammar:
            body["grammar"] = planned.grammar
        await self._fits(server, body["messages"])
        parser = wire.parser(request)
        reader = CallReader(planned.form) if planned.form else None
        held: list[StepFinished] = []
        timings: Json = {}
        sse = SseReader()
        async with _post(server, "/v1/chat/completions", body) as response:
            if response.status_code != 200:
                raw = (await response.aread()).decode(errors="replace")
                raise wire.error(response.status_code, response.headers, raw)
            async for chunk in response.aiter_raw():
                for sent in sse.feed(chunk):
                    timings = _timings(sent.data) or timings
                    for event in parser.feed(sent.event, sent.data):
                        for ready in _release(held, event, timings, reader):
                            yield ready
        for event in parser.end():
            for ready in _release(held, event, timings, reader):
                yield ready

    async def _fits(self, server: Server, messages: list[Any]) -> None:
        """A token is a byte at least, so a short prompt needs no counting."""
        if self._window is None:
            return
        room = self._window - min(_LEAST_ANSWER, self._window // 4)
        if len(encode({"messages": messages})) < room:
            return
        counted = await count_tokens(server, messages)
        if counted is not None and counted > room:
            raise ContextOverflow(
                f"The conversation is {counted} tokens long; {self.label} reads {self._window}, "
                f"of which {self._window - room} are kept for its answer.",
                repair="Start or fork a shorter session, send less at once, or use a model with a larger window.",
                prompt_tokens=counted,
                context_window=self._window,
            )

    def _silent(self) -> InteractdError:
        return ProviderTimeout(
            f"{self.label} said nothing for {self._settings.silence_timeout_s:.0f} s.",
            repair="Send it again when the machine is less busy, or use a hosted model.",
        )

    def _gone(self, words: str | None, error: Exception, *, produced: bool) -> InteractdError:
        what = words or f"the connection to it broke ({error or type(error).__name__})."
        if produced:
            return StreamTruncated(
                f"{self.label} ended in the middle of its answer: {what}",
                repair="Send the turn again; the model is started anew by itself.",
            )
        return ProviderUnavailable(
            f"{self.label} ended before it answered: {what}",
            repair="Send the turn again; if it happens again, see `interactd doctor` or use another model.",
        )


def _post(server: Server, path: str, body: Json) -> AbstractAsyncContextManager[httpx2.Response]:
    return server.client.stream("POST", path, content=encode(body), headers=_JSON)


async def count_tokens(server: Server, messages: list[Any]) -> int | None:
    """Count a prompt's tokens with the model's own template and tokenizer; None if the server cannot say."""
    templated = await server.client.post("/apply-template", content=encode({"messages": messages}), headers=_JSON)
    if templated.status_code != 200:
        return None
    content = templated.json()["prompt"]
    counted = await server.client.post(
        "/tokenize", content=encode({"content": content, "add_special": True, "parse_special": True}), headers=_JSON
    )
    return len(counted.json()["tokens"]) if counted.status_code == 200 else None


def _timings(data: str) -> Json:
    if '"timings"' not in data:
        return {}
    found: Any = json.loads(data).get("timings")
    return {name: found[name] for name in _TIMINGS if name in found} if isinstance(found, dict) else {}


def _release(held: list[StepFinished], event: ModelEvent, timings: Json, reader: CallReader | None) -> list[ModelEvent]:
    """Hold finished steps back until the timings, which come last, are known."""
    if isinstance(event, StepFinished):
        held.append(event)
        return []
    if isinstance(event, Finished) and held and timings:
        step = held[-1].step
        step.state = {"provider": PROVIDER, **(step.state or {}), "timings": timings}
    events: list[ModelEvent] = [*held, event]
    held.clear()
    return [out for each in events for out in reader.feed(each)] if reader else events
