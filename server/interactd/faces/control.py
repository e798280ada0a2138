"""The control protocol: what the command line says to the daemon (docs/architecture.md, Socket protocol).

One JSON object a line. Requests run side by side and are told apart by `id`; an answer is `result` or `error`, and
before it any number of `event`s. When the peer closes, what still waits for it is cancelled: the waiting, never the
interaction. The protocol belongs to one version, so it is strict: an unknown parameter is an error.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections.abc import Awaitable, Callable
from typing import Any, Protocol, cast

from interactd.engine.port import Engine
from interactd.errors import InteractdError, InvalidArgument, Overloaded
from interactd.faces import data, schedules, wire
from interactd.faces.arguments import arguments_of, closest
from interactd.faces.failures import internal
from interactd.faces.lines import LineReader, Overlong
from interactd.nouns import Caller, Json
from interactd.sandbox.environments_port import Environments

logger = logging.getLogger(__name__)

MAX_LINE = 64 * 1024 * 1024
MAX_CONCURRENT = 256

Emit = Callable[[Json], Awaitable[None]]


class DaemonHooks(Protocol):
    """What the daemon lends its control face."""

    def info(self) -> Json:
        """Facts about the process: pid, version, uptime, connections ..."""
        ...

    def request_stop(self, now: bool) -> None:
        """Begin to leave: after the running steps, or `now`. Returns at once."""
        ...


class Serving(Protocol):
    """An HTTP face that listens."""

    def as_dict(self) -> Json:
        """Where it listens: `{"host", "port", "url_mcp", "url_sse", "token"}`; the last is whether it asks for one."""
        ...

    async def aclose(self) -> None: ...


class ServeHttp(Protocol):
    """Starts an HTTP face."""

    async def __call__(
        self,
        host: str | None = None,
        port: int | None = None,
        *,
        token: bool = True,
        allowed_hosts: list[str] | None = None,
        allowed_origins: list[str] | None = None,
        toolsets: list[str] | None = None,
    ) -> Serving: ...


class Control:
    """One control connection."""

    def __init__(
        self,
        engine: Engine,
        hooks: DaemonHooks,
        serve_http: ServeHttp,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        hello: Json,
        opened_by: Callable[[str], None],
    ) -> None:
        self.engine = engine
        self.hooks = hooks
        self.serve_http = serve_http
        self.opened_by = opened_by
        self.caller = Caller(
            connection=hello.get("connection"),
            client=f"interactd/{hello.get('version', '?')}",
            cwd=hello.get("cwd"),
        )
        self.opened: list[Serving] = []
        """HTTP faces that this connection opened; they end with it."""
        self._lines = LineReader(reader, MAX_LINE)
        self._writer = writer
        self._writing = asyncio.Lock()

    async def run(self) -> None:
        """Serve until the peer closes; then cancel what it still waits for."""
        tasks: set[asyncio.Task[None]] = set()
        try:
            while (request := await self._next()) is not None:
                if len(tasks) >= MAX_CONCURRENT:
                    refusal = Overloaded(f"more than {MAX_CONCURRENT} requests at once on one connection")
                    await self._send({"id": request.get("id"), "error": refusal.as_dict()})
                    continue
                task = asyncio.create_task(self._serve(request))
                tasks.add(task)
                task.add_done_callback(tasks.discard)
        except ConnectionError:
            logger.debug("control connection broke")
        finally:
            for task in list(tasks):
                task.cancel()
            await asyncio.gather(*tasks, *(face.aclose() for face in self.opened), return_exceptions=True)

    async def _next(self) -> Json | None:
        """Return the next request; what is not one is refused here."""
        while True:
            try:
                line = await self._lines.next()
                if line is None:
                    return None
                if not line.strip():
                    continue
                message = json.loads(line)
                if isinstance(message, dict):
                    return cast(Json, message)
                problem = "a request is a JSON object with id, method and params"
            except Overlong as error:
                problem = str(error)
            except (ValueError, RecursionError) as error:
                problem = f"not a line of JSON: {error}"
            await self._send({"id": None, "error": InvalidArgument(problem).as_dict()})

    async def _serve(self, request: Json) -> None:
        number = request.get("id")

        async def emit(event: Json) -> None:
            await self._send({"id": number, "event": event})

        try:
            answer: Json = {"id": number, "result": wire.jsonable(await self._call(request, emit))}
        except InteractdError as error:
            answer = {"id": number, "error": error.as_dict()}
        except ConnectionError:
            return
        except Exception as error:  # noqa: BLE001 - the top level: the peer must get an answer
            answer = {"id": number, "error": internal(error, "a control request").as_dict()}
        with contextlib.suppress(ConnectionError):
            await self._send(answer)

    async def _call(self, request: Json, emit: Emit) -> Any:
        name = request.get("method")
        if not isinstance(name, str) or name not in METHODS:
            raise InvalidArgument(f"unknown method {name!r}{closest(str(name), METHODS)}", field="method")
        params: Any = request.get("params") or {}
        if not isinstance(params, dict):
            raise InvalidArgument("params must be an object", field="params")
        return await METHODS[name](self, cast(Json, params), emit)

    async def _send(self, message: Json) -> None:
        # ASCII escapes carry even lone surrogates of a provider's text, which UTF-8 cannot.
        data = json.dumps(message, separators=(",", ":"), default=str).encode("ascii") + b"\n"
        async with self._writing:
            self._writer.write(data)
            await self._writer.drain()


Method = Callable[[Control, Json, Emit], Awaitable[Any]]


def _engine(port: Callable[..., Any]) -> Method:
    """Make a method of the engine's port callable over the wire under its own parameter names."""

    async def method(control: Control, params: Json, _: Emit) -> Any:
        bound = arguments_of(port).bind(params)
        return await getattr(control.engine, port.__name__)(**bound, caller=control.caller)

    return method


async def _get_session(control: Control, params: Json, _: Emit) -> Json:
    bound = arguments_of(Engine.transcript).bind(params)
    session, turns = await control.engine.transcript(**bound, caller=control.caller)
    return {"session": wire.session(session), "turns": [wire.turn(turn) for turn in turns]}


def _environment(port: Callable[..., Any]) -> Method:
    """Make a method of the environments' port callable; they know owners instead of callers."""

    async def method(control: Control, params: Json, _: Emit) -> Any:
        if "owner" in params:
            raise InvalidArgument("unknown parameter 'owner'", field="owner")
        bound = arguments_of(port).bind(params)
        return await getattr(control.engine.environments, port.__name__)(**bound, owner=control.caller.owner)

    return method


async def _list_environments(control: Control, params: Json, _: Emit) -> Json:
    """One page; `cursor` is where the next begins."""
    limit = min(max(int(arguments_of(Environments.list).bind(params).get("limit", 50)), 1), 1000)
    # One more than was asked for tells whether there is a next page.
    found = await _environment(Environments.list)(control, {**params, "limit": limit + 1}, _)
    items = [wire.environment(one) for one in found[:limit]]
    return {"items": items, "cursor": items[-1]["id"] if len(found) > limit else None}


async def _delete_environment(control: Control, params: Json, _: Emit) -> Json:
    receipt = await _environment(Environments.delete)(control, params, _)
    return {**receipt, "deleted_at": wire.iso(receipt["deleted_at"])}


def _data(call: data.Call) -> Method:
    async def method(control: Control, params: Json, emit: Emit) -> Any:
        return await call(control.engine, params, emit, control.caller)

    return method


def _schedule(call: schedules.Call) -> Method:
    async def method(control: Control, params: Json, _: Emit) -> Any:
        return await call(control.engine, control.caller, params)

    return method


async def _events(control: Control, params: Json, emit: Emit) -> Json:
    bound = arguments_of(Engine.events).bind(params)
    count = 0
    async for event in control.engine.events(**bound):
        count += 1
        await emit(wire.event(event))
    return {"events": count}


async def _status(control: Control, params: Json, _: Emit) -> Json:
    bound = arguments_of(Engine.status).bind(params)
    return {**await control.engine.status(**bound, caller=control.caller), **control.hooks.info()}


async def _stop(control: Control, params: Json, _: Emit) -> Json:
    bound = arguments_of(DaemonHooks.request_stop).bind({"now": False, **params})
    control.hooks.request_stop(**bound)
    return {"stopping": True, **bound}


async def _serve(control: Control, params: Json, _: Emit) -> Json:
    """Listen for as long as the control connection lives."""
    face = await control.serve_http(**arguments_of(ServeHttp.__call__).bind(params))
    if control.caller.connection:
        control.opened_by(control.caller.connection)
    control.opened.append(face)
    return face.as_dict()


METHODS: dict[str, Method] = {
    "status": _status,
    "stop": _stop,
    "serve": _serve,
    "create_session": _engine(Engine.create_session),
    "send_turn": _engine(Engine.send_turn),
    "events": _events,
    "wait": _engine(Engine.wait),
    "respond": _engine(Engine.respond),
    "cancel": _engine(Engine.cancel),
    "cancel_all": _engine(Engine.cancel_all),
    "inbox": _engine(Engine.inbox),
    "get_interaction": _engine(Engine.get_interaction),
    "queue": _engine(Engine.queue),
    "list_sessions": _engine(Engine.list_sessions),
    "get_session": _get_session,
    "fork_session": _engine(Engine.fork_session),
    "delete_session": _engine(Engine.delete_session),
    "search": _engine(Engine.search),
    "models": _engine(Engine.models),
    "usage": _engine(Engine.usage),
    "set_budget": _engine(Engine.set_budget),
    "costs": _engine(Engine.costs),
    "price": _engine(Engine.price),
    "artifacts": _engine(Engine.artifacts),
    "requests": _engine(Engine.requests),
    "zip_artifacts": _engine(Engine.zip_artifacts),
    "list_environments": _list_environments,
    "get_environment": _environment(Environments.get),
    "environment_files": _environment(Environments.files),
    "delete_environment": _delete_environment,
    **{name: _data(call) for name, call in data.METHODS.items()},
    **{name: _schedule(call) for name, call in schedules.METHODS.items()},
}
