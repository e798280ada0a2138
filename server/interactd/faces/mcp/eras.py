"""Both eras of MCP on one stream: the handshake (2024-11-05 to 2025-11-25) and the envelope (2026-07-28).

The SDK settles the era of a stream by its first request and refuses the other one from then on. Hosts in the field
ask `server/discover` first and then fall back to `initialize` on the same pipe, and die of that. Here each request is
served in the era it is written in, as over HTTP: one with an envelope in `_meta` by the modern path, `initialize`
and everything else by the handshake's connection. Nothing a well-behaved client does is answered differently.

All that is not the SDK's documented surface is in this module and nowhere else; it is why pyproject pins mcp < 2.4.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, cast

import anyio
from mcp.server.connection import Connection, NotifyOnlyOutbound
from mcp.server.context import ServerRequestContext
from mcp.server.lowlevel.server import NotificationOptions, Server
from mcp.server.runner import ServerRunner, aclose_shielded, modern_error_data, serve_one
from mcp.shared.dispatcher import CallOptions, DispatchContext
from mcp.shared.exceptions import MCPError, NoBackChannelError
from mcp.shared.inbound import InboundLadderRejection, classify_inbound_request
from mcp.shared.jsonrpc_dispatcher import JSONRPCDispatcher
from mcp.shared.message import MessageMetadata
from mcp.shared.transport_context import TransportContext
from mcp_types import INVALID_PARAMS, PROTOCOL_VERSION_META_KEY, RequestId
from mcp_types.version import LATEST_MODERN_VERSION

from interactd.faces.mcp.peer import Peer
from interactd.faces.mcp.stream.conversation import Conversation, Inbox, Source, Write

Params = Mapping[str, Any] | None

NOT_INITIALIZED = (
    "this connection is not initialized: send initialize first, or give each request the 2026-07-28 envelope in _meta"
)


async def serve_stream(server: Server[Any], source: Source, write: Write, peer: Peer) -> None:
    """Serve one connection until its peer is done.

    Cancelling this, or the peer's leaving, cancels the calls that wait; what they started goes on.

    Args:
        server: what answers.
        source: what the peer sends.
        write: sends to it.
        peer: who it is; `left` is set at the end.
    """
    conversation = Conversation(write)
    inbox = Inbox(source, conversation, peer)
    dispatcher: JSONRPCDispatcher[TransportContext] = JSONRPCDispatcher(
        inbox,
        conversation,
        # Inline, so that a client which sends its next request before the answer to initialize is not refused.
        inline_methods=frozenset({"initialize"}),
    )
    handshake = Connection.for_loop(dispatcher, session_id=peer.connection)
    options = server.create_initialization_options(NotificationOptions())
    runner = ServerRunner(server, handshake, peer, init_options=options)
    outbound = NotifyOnlyOutbound(dispatcher)

    async def on_request(dctx: DispatchContext[TransportContext], method: str, params: Params) -> dict[str, Any]:
        if method != "initialize" and is_modern(params):
            return await _modern(server, dctx, method, params, outbound, peer)
        try:
            result = await runner.on_request(dctx, method, params)
        except MCPError as error:
            if error.error.code == INVALID_PARAMS and not error.error.data and not handshake.initialize_accepted:
                raise MCPError(INVALID_PARAMS, NOT_INITIALIZED) from None
            raise
        if method == "initialize":
            conversation.version = handshake.protocol_version
            peer.introduce(handshake.client_params)
        return result

    async def on_notify(dctx: DispatchContext[TransportContext], method: str, params: Params) -> None:
        if handshake.initialize_accepted or method == "notifications/initialized":
            await runner.on_notify(dctx, method, params)
            return
        connection = Connection.from_envelope(LATEST_MODERN_VERSION, None, None, outbound=outbound)
        try:
            await ServerRunner(server, connection, peer).on_notify(_NoRequests(dctx), method, params)
        finally:
            await aclose_shielded(connection)

    try:
        await dispatcher.run(on_request, on_notify)
    finally:
        await aclose_shielded(handshake)


async def _modern(
    server: Server[Any],
    dctx: DispatchContext[TransportContext],
    method: str,
    params: Params,
    outbound: NotifyOnlyOutbound,
    peer: Peer,
) -> dict[str, Any]:
    route = classify_inbound_request({"method": method, "params": params})
    if isinstance(route, InboundLadderRejection):
        raise MCPError(code=route.code, message=route.message, data=route.data)
    connection = Connection.from_envelope(
        route.protocol_version, route.client_info, route.client_capabilities, outbound=outbound
    )
    peer.introduce(connection.client_params)
    try:
        return await serve_one(server, _NoRequests(dctx), method, params, connection=connection, lifespan_state=peer)
    except Exception as error:
        if isinstance(error, MCPError):
            raise
        data = modern_error_data(error)
        raise MCPError(code=data.code, message=data.message, data=data.data) from error


def is_modern(params: Params) -> bool:
    """Whether a request carries the 2026 envelope; half of one counts, so that its gap is named."""
    meta = (params or {}).get("_meta")
    return isinstance(meta, Mapping) and PROTOCOL_VERSION_META_KEY in cast(Mapping[str, Any], meta)


def connection_of(ctx: ServerRequestContext[Any, Any]) -> Connection:
    """Return the connection a request came over: its scratch state, its teardown, its own way to notify."""
    return ctx.session._connection  # pyright: ignore[reportPrivateUsage]


@dataclass
class _NoRequests:
    """A dispatch context without the way back for requests of ours, which the 2026 era forbids."""

    inner: DispatchContext[TransportContext]

    @property
    def transport(self) -> TransportContext:
        return replace(self.inner.transport, can_send_request=False)

    @property
    def can_send_request(self) -> bool:
        return False

    @property
    def request_id(self) -> RequestId | None:
        return self.inner.request_id

    @property
    def message_metadata(self) -> MessageMetadata:
        return self.inner.message_metadata

    @property
    def cancel_requested(self) -> anyio.Event:
        return self.inner.cancel_requested

    async def send_raw_request(self, method: str, params: Params, opts: CallOptions | None = None) -> dict[str, Any]:
        raise NoBackChannelError(method)

    async def notify(self, method: str, params: Params, opts: CallOptions | None = None) -> None:
        await self.inner.notify(method, params, opts)

    async def progress(self, progress: float, total: float | None = None, message: str | None = None) -> None:
        await self.inner.progress(progress, total, message)
