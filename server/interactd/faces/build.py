"""All faces of one daemon over one MCP server object."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import interactd_tools
from interactd.config.schema import Config
from interactd.engine.port import Engine
from interactd.faces.control import Control, DaemonHooks
from interactd.faces.http import token as tokens
from interactd.faces.http.app import Limits
from interactd.faces.http.serving import HttpFace
from interactd.faces.mcp.calls import ToolSet
from interactd.faces.mcp.eras import serve_stream
from interactd.faces.mcp.peer import Peer, new_connection
from interactd.faces.mcp.server import build_server
from interactd.faces.mcp.stream.pipe import PipeSource, PipeWrite, Writer
from interactd.faces.mcp.stream.stdio import standard_streams
from interactd.nouns import Json
from interactd.paths import Paths


class Faces:
    """What the daemon gives its connections to. Every method may run any number of times at once."""

    def __init__(self, engine: Engine, paths: Paths, config: Config, hooks: DaemonHooks, tools: ToolSet) -> None:
        self._engine = engine
        self._paths = paths
        self._config = config
        self._hooks = hooks
        self._tools = tools
        self._server = build_server(engine, tools)
        self._open: set[HttpFace] = set()
        self.opened_by: Callable[[str], None] = lambda connection: None
        """Called with the control connection that opened an HTTP face, whose environment answers for its callers."""

    @property
    def listening(self) -> list[Json]:
        """Where HTTP faces listen now."""
        return [face.as_dict() for face in self._open]

    async def mcp(self, reader: asyncio.StreamReader, writer: Writer, hello: Json) -> None:
        """Serve MCP over a byte stream until its peer is done. Closing the stream is the caller's.

        Args:
            reader: what the peer sends.
            writer: what it is sent.
            hello: the first line of the connection: `connection`, `cwd`, `options`.
        """
        options: Any = hello.get("options")
        asked: Any = cast(Json, options).get("toolsets") if isinstance(options, dict) else None
        names = cast(list[Any], asked) if isinstance(asked, list) else []
        peer = Peer(
            "stdio",
            hello.get("connection") or new_connection("stdio"),
            cwd=hello.get("cwd"),
            toolsets=tuple(sorted({str(name) for name in names})),
            max_calls=self._config.limits.calls,
            hello=hello,
        )
        await serve_stream(self._server, PipeSource(reader, _descriptor(writer)), PipeWrite(writer), peer)

    async def control(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, hello: Json) -> None:
        """Serve the control protocol until its peer is done. Closing the stream is the caller's."""
        await Control(self._engine, self._hooks, self.http, reader, writer, hello, self.opened_by).run()

    async def http(
        self,
        host: str | None = None,
        port: int | None = None,
        *,
        token: bool = True,
        allowed_hosts: list[str] | None = None,
        allowed_origins: list[str] | None = None,
        toolsets: list[str] | None = None,
    ) -> HttpFace:
        """Open Streamable HTTP and SSE; what is not given comes from the configuration (`[serve]`).

        Returns:
            The face, listening. `aclose` it.

        Raises:
            ConfigError: beyond loopback without a token, a bad host or token file, or an unknown tool set.
            Conflict: the port is taken.
        """
        settings = self._config.serve
        names = tuple(sorted(set(toolsets or ())))
        self._tools.select(names)
        secret = await asyncio.to_thread(tokens.load_or_create, self._paths) if token else None
        face = _Registered(
            self._open,
            self._server,
            host=host or settings.host,
            port=settings.port if port is None else port,
            token=secret,
            allowed_hosts=(*settings.allowed_hosts, *(allowed_hosts or ())),
            allowed_origins=(*settings.allowed_origins, *(allowed_origins or ())),
            toolsets=names,
            limits=Limits(calls=self._config.limits.calls),
        )
        await face.start()
        return face

    async def stdio(self, toolsets: list[str] | None = None) -> None:
        """Serve MCP on this process's stdin and stdout (`interactd mcp --in-process`) until stdin ends."""
        async with standard_streams() as (reader, writer):
            hello: Json = {"cwd": str(Path.cwd()), "options": {"toolsets": toolsets or []}}
            await self.mcp(reader, writer, hello)

    async def aclose(self) -> None:
        """Close every HTTP face that is open."""
        await asyncio.gather(*(face.aclose() for face in list(self._open)))


class _Registered(HttpFace):
    """An HTTP face that `status` can tell of while it listens."""

    def __init__(self, registry: set[HttpFace], *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._registry = registry

    async def start(self) -> None:
        await super().start()
        self._registry.add(self)

    async def aclose(self) -> None:
        self._registry.discard(self)
        await super().aclose()


def build(engine: Engine, paths: Paths, config: Config, hooks: DaemonHooks, tools: ToolSet = interactd_tools) -> Faces:
    """Wire the faces.

    Args:
        engine: what everything is done with; started and closed by the caller.
        paths: for the token file.
        config: `serve` and `limits`.
        hooks: what `status` and `stop` need of the daemon.
        tools: the published tools.
    """
    return Faces(engine, paths, config, hooks, tools)


def _descriptor(writer: Writer) -> int | None:
    get = getattr(writer, "get_extra_info", None)
    found = get("socket") if get is not None else None
    return found.fileno() if found is not None else None
