"""The one MCP server object: what it says of itself and which handler answers what, for every transport and era."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any, Final

import mcp_types as types
from mcp.server.caching import CacheHint
from mcp.server.context import ServerRequestContext
from mcp.server.lowlevel.server import Server
from mcp_types.version import MODERN_PROTOCOL_VERSIONS

from interactd._version import __version__
from interactd.engine.port import Engine
from interactd.faces.mcp.calls import Calls, ToolSet
from interactd.faces.mcp.guard import guard
from interactd.faces.mcp.resources.completion import Completion
from interactd.faces.mcp.resources.reading import Reading
from interactd.faces.mcp.resources.watching import Watching

HOUR_MS: Final = 3_600_000

INSTRUCTIONS: Final = """\
interactd keeps durable conversations with models on this machine, and runs agents in sandboxes. Everything is \
addressed by ids that stay valid after a restart of the client, of the daemon and of the machine, until their TTL \
(24 h unless told) has passed.

1. create_session gives a session_id. send_turn(session_id, input) answers when the turn is done. The session \
remembers its turns: never send the history again.
2. A turn that takes longer than wait_s comes back with status in_progress and an interaction_id. It goes on by \
itself. Call get_interaction(interaction_id) to wait for it, as often as needed; do not send the turn again.
3. status requires_action: give what it asked for with respond. completed: the text is the answer. failed, incomplete, \
cancelled: the text says why and what to do.
4. One turn at a time in a session: a second one is a conflict, unless if_busy is queue. To try another way from an \
earlier point, fork_session; the original stays as it is.
5. For a task instead of a conversation, run_agent_background(input): an agent works on it with code and files, also \
when this client is gone. get_interaction tells how far it is and waits for it; fetch_artifacts gets its files.
6. Lost an id? list_sessions or search_history finds it. Ids may be shortened to any unique prefix.

Every result ends with the next call to make. Errors read `code: what was wrong. What to do next.` and can be acted on \
as they stand. delete_session is final."""


def build_server(engine: Engine, tools: ToolSet) -> Server[Any]:
    """Make the server object over an engine and a tool set. It holds no connection and may serve any number."""
    calls = Calls(engine, tools)
    reading = Reading(engine)
    watching = Watching(engine)
    day_long = CacheHint(ttl_ms=24 * HOUR_MS, scope="public")
    server: Server[Any] = Server(
        "interactd",
        version=__version__,
        title="interactd",
        description="Durable sessions and agents on your own machine, with any model.",
        instructions=INSTRUCTIONS,
        lifespan=_no_lifespan,
        cache_hints={
            "tools/list": CacheHint(ttl_ms=HOUR_MS, scope="public"),
            "resources/templates/list": day_long,
            "server/discover": CacheHint(ttl_ms=HOUR_MS, scope="public"),
            "resources/list": CacheHint(ttl_ms=0, scope="private"),
            "resources/read": CacheHint(ttl_ms=0, scope="private"),
        },
        get_tool_input_schema=calls.schema,
        on_list_tools=calls.list_tools,
        on_call_tool=calls.call_tool,
        on_list_resources=reading.list,
        on_list_resource_templates=reading.templates,
        on_read_resource=reading.read,
        on_subscribe_resource=watching.subscribe,
        on_unsubscribe_resource=watching.unsubscribe,
        on_subscriptions_listen=watching.listen,
        on_completion=Completion(engine).complete,
    )
    server.add_request_handler("server/discover", types.RequestParams, _Discovery(server).discover)
    # In place of the SDK's tracing, which nobody here listens to.
    server.middleware[:] = [guard]
    return server


class _Discovery:
    """server/discover with capabilities that hold: interactions can be watched, lists are not announced."""

    def __init__(self, server: Server[Any]) -> None:
        self._server = server

    async def discover(self, ctx: ServerRequestContext[Any, Any], params: types.RequestParams) -> Any:
        found = self._server.get_capabilities(protocol_version=ctx.protocol_version)
        if found.tools is not None:
            found.tools.list_changed = False
        if found.resources is not None:
            found.resources.list_changed = False
        return types.DiscoverResult(
            supported_versions=list(MODERN_PROTOCOL_VERSIONS),
            capabilities=found,
            instructions=self._server.instructions,
        )


@asynccontextmanager
async def _no_lifespan(_: Server[Any]) -> AsyncGenerator[None]:
    """The engine outlives every connection: nothing starts or ends with one."""
    yield None
