"""What the engine's parts share: ports, settings, clock, hub, a lock for each session, and finding things."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any, Literal, TypeVar

from interactd.agents.port import Agents
from interactd.builtins.port import BuiltinTool
from interactd.builtins.tools import GROUPS, NAMES
from interactd.builtins.web import Fetcher
from interactd.engine.dispatch.runners.lease import Lease
from interactd.engine.dispatch.runners.others import Others
from interactd.engine.events import Hub
from interactd.engine.money.money import Money, MoneySettings
from interactd.engine.retention.clock import ClockWatch
from interactd.engine.run.history import History
from interactd.engine.settings import EngineSettings
from interactd.errors import Deleted, Expired, InteractdError, InvalidArgument, NotFound, Overloaded
from interactd.ids import PREFIXES, ULID_LENGTH, as_given, parse_prefix
from interactd.models.port import Catalog
from interactd.nouns import Caller, Interaction, Session
from interactd.sandbox.environments_port import Environments
from interactd.store.port import IdempotencyKey, Store
from interactd.store.retention_port import Retention

log = logging.getLogger(__name__)
T = TypeVar("T")


class Core:
    """One per engine."""

    def __init__(
        self,
        store: Store,
        catalog: Catalog,
        settings: EngineSettings,
        clock: Callable[[], float],
        *,
        agents: Agents | None = None,
        environments: Environments | None = None,
        fetcher: Fetcher | None = None,
        extra_tools: Sequence[BuiltinTool] = (),
        watch: ClockWatch | None = None,
        money: MoneySettings | None = None,
    ) -> None:
        self.watch = watch
        self.retention: Retention | None = getattr(store, "retention", None)
        self.agents = agents
        self.environments = environments
        self.fetcher = fetcher
        self.extra_tools = extra_tools
        self.pythons: dict[str, str | None] = {}
        """Python's version in each launcher's sandboxes, once it was asked for."""
        self.store = store
        self.catalog = catalog
        self.settings = settings
        self.clock = clock
        self.money = Money(lambda: store.ledger, money or MoneySettings(), clock)
        self.hub = Hub()
        self.lease = Lease(store, settings)
        self.others = Others(store, self.lease.id)
        self.history = History(store, settings.default_window)
        self.handing_over = False
        """No new work is taken; what runs may finish."""
        self.handed_over = False
        """Nothing runs here any more."""
        self.refused: dict[str, InteractdError] = {}
        """Interactions in progress whose outcome the disk refuses, and why."""
        self.asked = asyncio.Event()
        """Set when a run begins to wait for answers that have a deadline."""
        self.deadlines = 0
        """How many runs wait for answers that have one: nobody but a daemon gives the default when it passes."""
        self._tasks: set[asyncio.Task[Any]] = set()
        self._locks: dict[str, tuple[asyncio.Lock, int]] = {}

    @property
    def tool_names(self) -> frozenset[str]:
        """The names that tools of agents go by in policies, and their groups'."""
        return frozenset((*NAMES, *GROUPS, *(tool.name for tool in self.extra_tools)))

    def may_delete(self) -> bool:
        """Whether the clock can be believed, so that what is over by it may go."""
        return self.watch is None or self.watch.trusted

    async def look_at_clock(self) -> None:
        """See `ClockWatch.look`."""
        if self.watch is not None:
            await self.watch.look(self.store)

    async def finish(self, work: Coroutine[Any, Any, T]) -> T:
        """Do `work` as a task of the engine's own: the caller may be cancelled, the work goes on to its end."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            task.add_done_callback(_look_at)
            raise

    async def finished(self, timeout_s: float) -> None:
        """Wait, bounded, for all work that `finish` was given."""
        if self._tasks:
            await asyncio.wait(set(self._tasks), timeout=timeout_s)

    def check_accepting(self) -> None:
        """Refuse new work while the daemon hands over.

        Raises:
            Overloaded: it does; the same call succeeds at the next daemon.
        """
        if self.handing_over:
            raise Overloaded(
                "This daemon is handing over to the next one; nothing was started.",
                repair="Call again with the same arguments.",
                retry=True,
            )

    async def recalled(self, key: IdempotencyKey | None) -> str | None:
        """What an earlier call with this key started, if any: asked before a repeated call is refused."""
        return None if key is None else await self.store.recall(key)

    @asynccontextmanager
    async def session_lock(self, session_id: str) -> AsyncGenerator[None]:
        """Hold the session: what reads its head or its open turns and then writes does so alone."""
        lock, users = self._locks.get(session_id, (asyncio.Lock(), 0))
        self._locks[session_id] = (lock, users + 1)
        try:
            async with lock:
                yield
        finally:
            lock, users = self._locks.pop(session_id)
            if users > 1:
                self._locks[session_id] = (lock, users - 1)

    async def session_id(self, text: str) -> str:
        """The whole id for an id or a unique part of one."""
        if not isinstance(text, str):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise InvalidArgument("session_id: expected a string", field="session_id")
        prefix = parse_prefix("session", text)
        if len(prefix) == len(PREFIXES["session"]) + ULID_LENGTH:
            return prefix
        return await self._find("session", prefix, text)

    async def interaction_id(self, text: str, field: str = "interaction_id") -> str:
        """The whole id for an id or a unique part of one."""
        if not isinstance(text, str):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise InvalidArgument(f"{field}: expected a string", field=field)
        prefix = parse_prefix("interaction", text)
        if len(prefix) == len(PREFIXES["interaction"]) + ULID_LENGTH:
            return prefix
        return await self._find("interaction", prefix, text)

    async def _find(self, kind: Literal["session", "interaction"], prefix: str, text: str) -> str:
        try:
            return await self.store.find(kind, prefix)
        except NotFound as error:
            as_given(error, prefix, text)
            raise

    async def session(self, text: str, caller: Caller) -> Session:
        """Return a session that can be used.

        Raises:
            NotFound: there is none of that id, or it is another owner's.
            AmbiguousId: several ids start so.
            Expired, Deleted: it was there.
        """
        session = await self.any_session(await self.session_id(text), caller)
        self.check_alive(session)
        return session

    def check_alive(self, session: Session) -> None:
        """Raises: Expired, Deleted: the session is not to be used any more."""
        if session.state == "active" and session.expires_at is not None and session.expires_at <= self.clock():
            session.state = "expired"
        if session.state == "expired":
            when = session.expires_at or session.deleted_at
            raise Expired(
                f"Session {session.id} expired{_at(when)}; its time to live had passed.",
                repair="Call create_session for a new one; give it a longer ttl, or ttl 0 to keep it for ever.",
                session_id=session.id,
                expired_at=when,
            )
        if session.state == "deleted":
            raise Deleted(
                f"Session {session.id} was deleted{_at(session.deleted_at)}.",
                repair="Call create_session for a new one, or list_sessions to see those that are left.",
                session_id=session.id,
                deleted_at=session.deleted_at,
            )

    async def any_session(self, session_id: str, caller: Caller) -> Session:
        """Return the caller's session in whatever state; as `session` for one that never was."""
        session = await self.store.get_session(session_id)
        if session.owner != caller.owner:
            raise NotFound(
                f"There is no session {session_id}.",
                repair="Call list_sessions to see those that are there.",
                kind="session",
                id=session_id,
            )
        return session

    async def interaction(self, text: str, caller: Caller) -> tuple[Interaction, Session]:
        """Return an interaction and its session.

        Raises:
            NotFound, AmbiguousId, Expired, Deleted: as `session` does.
        """
        interaction = await self.store.get_interaction(await self.interaction_id(text))
        session = await self.store.get_session(interaction.session_id)
        if session.owner != caller.owner:
            raise NotFound(
                f"There is no interaction {interaction.id}.",
                repair="Use the interaction_id that send_turn gave, or get_session to list a session's turns.",
                kind="interaction",
                id=interaction.id,
            )
        return interaction, session

    async def in_tree(self, session: Session, interaction_id: str) -> Interaction:
        """Return the interaction if it belongs to the session's tree: its own turns, and those it was forked from.

        Raises:
            NotFound: it does not exist, or belongs to another session.
        """
        found = await self.store.get_interaction(interaction_id)
        if found.session_id == session.id:
            return found
        if session.forked_at is not None and await self.store.contains(session.forked_at, interaction_id):
            return found
        raise NotFound(
            f"Interaction {interaction_id} is not part of session {session.id}.",
            repair="Use an interaction of this session (get_session lists them), or fork the session it belongs to.",
            kind="interaction",
            id=interaction_id,
            session_id=session.id,
        )


def _look_at(task: asyncio.Task[Any]) -> None:
    """Take the outcome of work whose caller has gone, so that it is not reported as lost."""
    if not task.cancelled() and (error := task.exception()):
        log.info("work whose caller had gone ended with: %s", error)


def _at(when: float | None) -> str:
    return "" if when is None else f" at {datetime.fromtimestamp(when, UTC):%Y-%m-%d %H:%M:%S} UTC"
