"""From a request's context to the peer it came from, whatever the transport."""

from __future__ import annotations

from typing import Any

from mcp.server.context import ServerRequestContext
from mcp_types.version import MODERN_PROTOCOL_VERSIONS

from interactd.faces.mcp.eras import connection_of
from interactd.faces.mcp.peer import HttpPeers, Peer, client_label
from interactd.nouns import Caller, Json

_KEY = "interactd.peer"
PEERS_KEY = "interactd.peers"
"""Where an HTTP face puts its `HttpPeers` in the ASGI scope."""


def peer_of(ctx: ServerRequestContext[Any, Any]) -> Peer:
    """Return the peer of a request.

    A stream has one for as long as it lives. A Streamable HTTP session gets its own at its first request; a request of
    the 2026 era stands alone, and its request id says nothing.
    """
    if isinstance(ctx.lifespan_context, Peer):
        return ctx.lifespan_context
    connection = connection_of(ctx)
    peer = connection.state.get(_KEY)
    if isinstance(peer, Peer):
        return peer
    request: Any = ctx.request
    peers: HttpPeers = request.scope[PEERS_KEY]
    toolsets = split_toolsets(request.query_params.get("toolsets", ""))
    if connection.session_id is None:
        return peers.alone(toolsets)
    peer = connection.state[_KEY] = peers.session(connection.session_id, toolsets)
    return peer


def split_toolsets(text: str) -> tuple[str, ...]:
    """Return the names of a comma-separated list, sorted, each once."""
    return tuple(sorted({name.strip() for name in text.split(",") if name.strip()}))


def client_name(ctx: ServerRequestContext[Any, Any]) -> str | None:
    """`clientInfo.name` of the handshake or the envelope, cut to what a name may be."""
    params = ctx.session.client_params
    return params.client_info.name[:100] if params else None


def caller_of(ctx: ServerRequestContext[Any, Any]) -> Caller:
    """Return who calls: the connection, and the client's name and version as sessions note it."""
    peer = peer_of(ctx)
    # A request that stands alone (HTTP, 2026) has no id of its own, and must not pass for a run without a caller.
    connection = peer.connection or peer.transport
    return Caller(connection=connection, client=client_label(ctx.session.client_params), cwd=peer.cwd)


def complete(ctx: ServerRequestContext[Any, Any], result: Json) -> Json:
    """Return a handler's result as its era wants it: from 2026-07-28 on every result says that it is the whole one."""
    return {"resultType": "complete", **result} if ctx.protocol_version in MODERN_PROTOCOL_VERSIONS else result
