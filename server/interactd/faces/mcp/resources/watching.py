"""resources/subscribe and subscriptions/listen for interactions: told when a step is done or the status changes.

One watcher reads an interaction's events for one subscription and ends with the interaction. Sessions cannot be
watched: nothing happens in one but in its interactions.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

import mcp_types as types
from mcp.server.context import ServerRequestContext
from mcp.shared.exceptions import MCPError
from mcp.shared.subscriptions import SUBSCRIPTION_ID_META_KEY
from mcp_types import INVALID_REQUEST

from interactd.engine.port import Engine
from interactd.errors import InteractdError, InvalidArgument, Overloaded
from interactd.faces.failures import internal
from interactd.faces.mcp.connections import caller_of
from interactd.faces.mcp.eras import connection_of
from interactd.faces.mcp.resources.uris import parse

logger = logging.getLogger(__name__)
Context = ServerRequestContext[Any, Any]

MAX_WATCHED = 100
_KEY = "interactd.watchers"
_TELLING = frozenset({"step.stop", "interaction.status"})

Notify = Callable[[str], Awaitable[None]]


class Watching:
    """Subscriptions of all connections; each is a task that its connection owns."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def subscribe(self, ctx: Context, params: types.SubscribeRequestParams) -> types.EmptyResult:
        """Start to watch an interaction for a handshake-era connection; twice is once.

        Raises:
            InteractdError: the URI cannot be watched, or too many are.
        """
        interaction = await self._interaction(ctx, params.uri)
        connection = connection_of(ctx)
        watchers: dict[str, asyncio.Task[None]] | None = connection.state.get(_KEY)
        if watchers is None:
            watchers = connection.state[_KEY] = {}
            connection.exit_stack.push_async_callback(_stop, watchers)
        if params.uri in watchers and not watchers[params.uri].done():
            return types.EmptyResult()
        for uri in [uri for uri, task in watchers.items() if task.done()]:
            del watchers[uri]
        if len(watchers) >= MAX_WATCHED:
            raise Overloaded(f"this connection watches {MAX_WATCHED} interactions already", repair="Unsubscribe some.")
        watchers[params.uri] = asyncio.create_task(
            self._watch(params.uri, interaction, connection.send_resource_updated)
        )
        return types.EmptyResult()

    async def unsubscribe(self, ctx: Context, params: types.UnsubscribeRequestParams) -> types.EmptyResult:
        """Stop watching; what is not watched is no error."""
        watchers: dict[str, asyncio.Task[None]] = connection_of(ctx).state.get(_KEY) or {}
        task = watchers.pop(params.uri, None)
        if task is not None:
            await _stop({params.uri: task})
        return types.EmptyResult()

    async def listen(self, ctx: Context, params: types.SubscriptionsListenRequestParams) -> Any:
        """Serve one 2026-era subscription stream until the client ends it or all it watches is over.

        Lists of tools and resources are not announced: the first never changes while the daemon runs, the second is
        cheap to ask for again.
        """
        if ctx.request_id is None:
            raise MCPError(INVALID_REQUEST, "subscriptions/listen needs a request id")
        uris = list(dict.fromkeys(params.notifications.resource_subscriptions or []))
        if len(uris) > MAX_WATCHED:
            raise Overloaded(f"one stream watches at most {MAX_WATCHED} interactions, not {len(uris)}")
        watched = {uri: await self._interaction(ctx, uri) for uri in uris}
        meta: dict[str, Any] = {SUBSCRIPTION_ID_META_KEY: ctx.request_id}
        honored = types.SubscriptionFilter(resource_subscriptions=uris or None)
        await ctx.session.send_notification(
            types.SubscriptionsAcknowledgedNotification(
                params=types.SubscriptionsAcknowledgedNotificationParams(notifications=honored, _meta=meta)
            ),
            related_request_id=ctx.request_id,
        )

        async def notify(uri: str) -> None:
            note = types.ResourceUpdatedNotification(
                params=types.ResourceUpdatedNotificationParams(uri=uri, _meta=meta)
            )
            await ctx.session.send_notification(note, related_request_id=ctx.request_id)

        async with asyncio.TaskGroup() as group:
            for uri, interaction in watched.items():
                group.create_task(self._watch(uri, interaction, notify))
        if not watched:
            # Nothing can happen on it, but the client asked for a stream and closes it itself.
            await asyncio.get_running_loop().create_future()
        return types.SubscriptionsListenResult(_meta=meta)

    async def _interaction(self, ctx: Context, uri: str) -> str:
        target = parse(uri)
        if target.kind != "interaction":
            raise InvalidArgument(
                f"uri: only interactions can be watched, not {uri[:200]}",
                repair="Subscribe to interactd://interactions/{interaction_id} of the running turn.",
                field="uri",
            )
        return (await self._engine.get_interaction(target.id, caller=caller_of(ctx))).interaction.id

    async def _watch(self, uri: str, interaction: str, notify: Notify) -> None:
        try:
            async for event in self._engine.events(interaction):
                if event.type in _TELLING:
                    await notify(uri)
        except InteractdError as error:
            # Deleted or expired meanwhile: that is news of the resource too.
            logger.debug("no longer watching an interaction: %s", error.code)
            await notify(uri)
        except Exception as error:  # noqa: BLE001 - the top level of a task that nobody awaits for its result
            internal(error, "watching an interaction")


async def _stop(watchers: dict[str, asyncio.Task[None]]) -> None:
    for task in watchers.values():
        task.cancel()
    await asyncio.gather(*watchers.values(), return_exceptions=True)
