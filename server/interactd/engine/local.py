"""The engine of one daemon: `engine.port.Engine` over a store and a catalog in this process."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any, Literal

from interactd.agents.port import AgentDefinition, AgentProblem, Agents
from interactd.builtins.port import BuiltinTool
from interactd.builtins.web import Fetcher
from interactd.durable.port import Schedules
from interactd.engine import artifacts, inbox, respond, sessions, turns, waiting
from interactd.engine.approvals.deadlines import keep_deadlines
from interactd.engine.archive.answers import Exported, Imported, Progress
from interactd.engine.archive.service import ArchiveService
from interactd.engine.checks.arguments import check_limit
from interactd.engine.checks.text import check_text
from interactd.engine.core import Core
from interactd.engine.dispatch.cancel import cancel
from interactd.engine.dispatch.drain import LAST_WRITES_S, drain
from interactd.engine.dispatch.queue import Queue
from interactd.engine.dispatch.recovery import adopt
from interactd.engine.dispatch.runners.keeper import Keeper
from interactd.engine.dispatch.sweeper import sweep_for_ever
from interactd.engine.money import usage as spending
from interactd.engine.money.money import MoneySettings
from interactd.engine.port import Event, Inbox, Result, Standing
from interactd.engine.retention.clock import ClockWatch
from interactd.engine.retention.settings import RetentionSettings
from interactd.engine.retention.storage import storage, vacuum
from interactd.engine.retention.tending import Tending
from interactd.engine.settings import EngineSettings
from interactd.engine.triggered import TriggeredTurns, schedules_of
from interactd.errors import StorageError, StorageFull
from interactd.models.port import Catalog, ModelInfo
from interactd.nouns import LOCAL, Caller, GenerationConfig, Json, Session
from interactd.sandbox.environments_port import Artifact, Environments
from interactd.store.port import Page, Receipt, Store, Turn


class LocalEngine:
    """See `interactd.engine.port.Engine` for what each method promises.

    Args:
        store: opened by `start`, closed by `aclose`.
        catalog: closed by `aclose`.
        settings: limits and patience.
        clock: seconds since the epoch; tests give their own.
        agents: the agents there are; without them (and environments) only models take turns.
        environments: where agents work; started by `start`, closed by `aclose`.
        fetcher: the web, for url_fetch and http hooks.
        extra_tools: tools that an agent's manifest may name besides the built-in ones.
        retention: how long what is kept.
        watch: whether the clock can be believed; without one it always is.
        money: prices, the day's budget; without it no model but those of this machine has a price of its own.
        schedules: triggers and webhooks; started by `start`, closed by `aclose`.
    """

    def __init__(
        self,
        store: Store,
        catalog: Catalog,
        settings: EngineSettings | None = None,
        *,
        clock: Callable[[], float] = time.time,
        agents: Agents | None = None,
        environments: Environments | None = None,
        fetcher: Fetcher | None = None,
        extra_tools: Sequence[BuiltinTool] = (),
        retention: RetentionSettings | None = None,
        watch: ClockWatch | None = None,
        money: MoneySettings | None = None,
        schedules: Schedules | None = None,
    ) -> None:
        self._core = Core(
            store,
            catalog,
            settings or EngineSettings(),
            clock,
            agents=agents,
            environments=environments,
            fetcher=fetcher,
            extra_tools=extra_tools,
            watch=watch,
            money=money,
        )
        self._queue = Queue(self._core)
        self._retention = retention or RetentionSettings()
        self._archive = ArchiveService(self._core)
        self._tending = Tending(self._core, self._queue, self._retention, self._tidy)
        self._keeper = Keeper(self._core, self._queue)
        self._schedules = schedules
        if schedules is not None:
            schedules.attach(TriggeredTurns(self._core, self))
        self._watches: list[asyncio.Task[None]] = []
        self._started_at = clock()

    # -- life ------------------------------------------------------------------------------------------------
    async def start(self) -> None:
        await self._core.store.open()
        await self._core.lease.begin(self._core.clock())
        await self._core.others.look()
        if self._core.environments is not None:
            await self._core.environments.start()
        self._started_at = self._core.clock()
        await self._archive.tidy()
        await self._core.look_at_clock()
        await adopt(self._core, self._queue)
        self._watches = [
            asyncio.create_task(sweep_for_ever(self._core, self._queue, self._keeper), name="sweeper"),
            asyncio.create_task(keep_deadlines(self._core, self._queue), name="deadlines"),
            asyncio.create_task(self._tending.for_ever(), name="retention"),
        ]
        if self._schedules is not None:
            await self._schedules.start()

    async def drain(self, timeout_s: float) -> bool:
        return await drain(self._core, self._queue, self._schedules, timeout_s)

    async def aclose(self) -> None:
        """Stop everything, as `drain(0)` does, and close the catalog and the store. Idempotent."""
        await self.drain(0)
        for watch in self._watches:
            watch.cancel()
        await asyncio.gather(*self._watches, return_exceptions=True)
        self._watches = []
        await self._archive.aclose()
        await self._keeper.aclose()
        await self._core.finished(LAST_WRITES_S)
        if self._schedules is not None:
            await self._schedules.aclose()
        if self._core.environments is not None:
            await self._core.environments.aclose()
        await self._core.catalog.aclose()
        with contextlib.suppress(StorageError, StorageFull):
            await self._core.lease.end()
        await self._core.store.aclose()

    @property
    def busy(self) -> int:
        return self._queue.running + self._queue.queued + self._archive.busy

    @property
    def holding(self) -> int:
        return self._core.deadlines + (0 if self._schedules is None else self._schedules.holding)

    # -- sessions --------------------------------------------------------------------------------------------
    async def create_session(
        self,
        *,
        model: str | None = None,
        agent: str | None = None,
        environment: str | Json | None = None,
        system_instruction: str | None = None,
        generation_config: GenerationConfig | None = None,
        tools: list[Json] | None = None,
        ttl_s: float | None = None,
        title: str | None = None,
        labels: dict[str, str] | None = None,
        budget: Json | None = None,
        approvals: str | Json | None = None,
        idempotency_key: str | None = None,
        caller: Caller = LOCAL,
    ) -> Session:
        return await sessions.create(
            self._core,
            model=model,
            agent=agent,
            environment=environment,
            system_instruction=system_instruction,
            generation_config=generation_config,
            tools=tools,
            ttl_s=ttl_s,
            title=title,
            labels=labels,
            budget=budget,
            approvals=approvals,
            idempotency_key=idempotency_key,
            caller=caller,
        )

    async def get_session(self, session_id: str, *, caller: Caller = LOCAL) -> Session:
        return await self._core.session(session_id, caller)

    async def list_sessions(
        self,
        *,
        state: Literal["active", "expired", "all"] = "active",
        labels: dict[str, str] | None = None,
        unread: bool = False,
        limit: int = 20,
        cursor: str | None = None,
        caller: Caller = LOCAL,
    ) -> Page:
        return await sessions.listing(
            self._core, state=state, labels=labels, unread=unread, limit=limit, cursor=cursor, caller=caller
        )

    async def fork_session(
        self,
        session_id: str,
        *,
        at: str | None = None,
        title: str | None = None,
        model: str | None = None,
        ttl_s: float | None = None,
        idempotency_key: str | None = None,
        caller: Caller = LOCAL,
    ) -> Session:
        return await sessions.fork(
            self._core,
            session_id,
            at=at,
            title=title,
            model=model,
            ttl_s=ttl_s,
            idempotency_key=idempotency_key,
            caller=caller,
        )

    async def delete_session(self, session_id: str, *, caller: Caller = LOCAL) -> Receipt:
        return await self._core.finish(self._delete(session_id, caller))

    async def _delete(self, session_id: str, caller: Caller) -> Receipt:
        # A daemon that died may have been writing it somewhere.
        await self._tidy()
        receipt = await sessions.delete(self._core, self._queue, session_id, caller=caller)
        await artifacts.forget(self._core, receipt.session_id)
        retention = self._core.retention
        return receipt if retention is None else await retention.receipt(receipt.session_id) or receipt

    async def _tidy(self) -> None:
        # Who came just now is alive, too.
        await self._keeper.look()
        await self._archive.tidy()

    async def keep_session(self, session_id: str, ttl_s: float | None = None, *, caller: Caller = LOCAL) -> Session:
        return await sessions.keep(self._core, session_id, ttl_s, caller=caller)

    async def transcript(
        self, session_id: str, *, limit: int = 10, before: str | None = None, caller: Caller = LOCAL
    ) -> tuple[Session, list[Turn]]:
        session = await self._core.session(session_id, caller)
        check_limit(limit, 200)
        if before is not None:
            before = (await self._core.in_tree(session, await self._core.interaction_id(before, "before"))).id
        if session.head is None:
            return session, []
        return session, await self._core.store.path(session.head, limit=limit, before=before)

    # -- turns -----------------------------------------------------------------------------------------------
    async def send_turn(
        self,
        session_id: str,
        content: str | list[Json],
        *,
        previous_interaction_id: str | None = None,
        model: str | None = None,
        agent: str | None = None,
        environment: str | Json | None = None,
        limits: Json | None = None,
        system_instruction: str | None = None,
        generation_config: GenerationConfig | None = None,
        tools: list[Json] | None = None,
        background: bool = False,
        budget: Json | None = None,
        approvals: str | Json | None = None,
        dispatch: Json | None = None,
        if_busy: Literal["conflict", "queue"] = "conflict",
        idempotency_key: str | None = None,
        caller: Caller = LOCAL,
    ) -> Result:
        return await turns.send(
            self._core,
            self._queue,
            session_id,
            content,
            previous_interaction_id=previous_interaction_id,
            model=model,
            agent=agent,
            environment=environment,
            limits=limits,
            system_instruction=system_instruction,
            generation_config=generation_config,
            tools=tools,
            background=background,
            budget=budget,
            approvals=approvals,
            dispatch=dispatch,
            if_busy=if_busy,
            idempotency_key=idempotency_key,
            caller=caller,
        )

    async def wait(self, interaction_id: str, timeout_s: float, *, caller: Caller = LOCAL) -> Result:
        return await waiting.wait(self._core, self._queue, interaction_id, timeout_s, caller)

    def events(self, interaction_id: str, *, after: int = 0) -> AsyncIterator[Event]:
        return waiting.follow(self._core, interaction_id, after)

    async def respond(
        self,
        interaction_id: str,
        results: list[Json],
        *,
        idempotency_key: str | None = None,
        caller: Caller = LOCAL,
    ) -> Result:
        return await respond.respond(
            self._core, self._queue, interaction_id, results, idempotency_key=idempotency_key, caller=caller
        )

    async def cancel(self, interaction_id: str, *, caller: Caller = LOCAL) -> Result:
        interaction, session = await self._core.interaction(interaction_id, caller)
        if not interaction.terminal:
            await self._core.finish(cancel(self._core, self._queue, interaction))
            interaction, session = await self._core.interaction(interaction.id, caller)
        return await waiting.read(self._core, self._queue, interaction, session)

    async def cancel_all(self, *, session_id: str | None = None, caller: Caller = LOCAL) -> list[str]:
        return await inbox.cancel_all(self._core, self._queue, session_id, caller)

    async def inbox(
        self, *, session_id: str | None = None, limit: int = 50, wait_s: float = 0, caller: Caller = LOCAL
    ) -> Inbox:
        return await inbox.wait(self._core, self._queue, session_id, limit, wait_s, caller)

    async def get_interaction(self, interaction_id: str, *, caller: Caller = LOCAL) -> Result:
        interaction, session = await self._core.interaction(interaction_id, caller)
        return await waiting.read(self._core, self._queue, interaction, session)

    async def queue(self, *, limit: int = 100, caller: Caller = LOCAL) -> list[Standing]:
        return await waiting.standings(self._core, self._queue, check_limit(limit, 1000), caller)

    # -- agents ----------------------------------------------------------------------------------------------
    async def agents(self, *, caller: Caller = LOCAL) -> tuple[list[AgentDefinition], list[AgentProblem]]:
        return ([], []) if self._core.agents is None else await self._core.agents.list(cwd=caller.cwd)

    async def artifacts(self, interaction_id: str, *, caller: Caller = LOCAL) -> list[Artifact]:
        return await artifacts.listing(self._core, interaction_id, caller)

    async def requests(self, interaction_id: str, *, caller: Caller = LOCAL) -> list[Json]:
        return await artifacts.requests(self._core, interaction_id, caller)

    async def left_out(self, interaction_id: str, *, caller: Caller = LOCAL) -> list[Json]:
        return await artifacts.left_out(self._core, interaction_id, caller)

    async def read_artifact(
        self, interaction_id: str, name: str, *, offset: int = 0, limit: int = 1_000_000, caller: Caller = LOCAL
    ) -> tuple[Artifact, bytes]:
        return await artifacts.read(self._core, interaction_id, name, offset, limit, caller)

    async def zip_artifacts(self, interaction_id: str, names: list[str], *, caller: Caller = LOCAL) -> Artifact:
        return await artifacts.pack(self._core, interaction_id, names, caller)

    @property
    def environments(self) -> Environments:
        return artifacts.environments_of(self._core)

    @property
    def schedules(self) -> Schedules:
        return schedules_of(self._schedules)

    # -- data ------------------------------------------------------------------------------------------------
    async def export_data(
        self,
        session_ids: list[str] | None = None,
        *,
        path: str | None = None,
        with_environments: bool = False,
        replace: bool = False,
        wait_s: float | None = None,
        progress: Progress | None = None,
        caller: Caller = LOCAL,
    ) -> Exported | None:
        return await self._archive.export(
            session_ids,
            path=path,
            with_environments=with_environments,
            replace=replace,
            wait_s=wait_s,
            progress=progress,
            caller=caller,
        )

    async def import_data(
        self,
        path: str,
        *,
        dry_run: bool = False,
        as_new: bool = False,
        restore: bool = False,
        wait_s: float | None = None,
        progress: Progress | None = None,
        caller: Caller = LOCAL,
    ) -> Imported | None:
        await self._keeper.look()
        return await self._archive.import_(
            path,
            dry_run=dry_run,
            as_new=as_new,
            restore=restore,
            wait_s=wait_s,
            progress=progress,
            caller=caller,
        )

    async def read_export(
        self, name: str, *, offset: int = 0, limit: int = 1_000_000, caller: Caller = LOCAL
    ) -> tuple[int, bytes]:
        del caller
        return await self._archive.read(name, offset, limit)

    async def storage(self, *, caller: Caller = LOCAL) -> Json:
        return await storage(self._core, self._retention, caller)

    async def vacuum(self, *, caller: Caller = LOCAL) -> Json:
        del caller
        return await vacuum(self._core)

    # -- looking around --------------------------------------------------------------------------------------
    async def search(
        self,
        query: str,
        *,
        session_id: str | None = None,
        limit: int = 10,
        cursor: str | None = None,
        caller: Caller = LOCAL,
    ) -> Page:
        check_text("query", query, max_bytes=10_000, empty=False)
        if cursor is not None:
            check_text("cursor", cursor, max_bytes=1_000)
        within = None if session_id is None else (await self._core.session(session_id, caller)).id
        return await self._core.store.search(
            query, owner=caller.owner, session_id=within, limit=check_limit(limit, 100), cursor=cursor
        )

    async def models(self, *, refresh: bool = False, caller: Caller = LOCAL) -> list[ModelInfo]:
        return await self._core.catalog.list(connection=caller.connection, refresh=refresh)

    # -- money -----------------------------------------------------------------------------------------------
    async def usage(
        self, *, by: str = "day", since_s: float | None = None, limit: int = 50, caller: Caller = LOCAL
    ) -> Json:
        return await spending.usage(self._core, by, since_s, check_limit(limit, 1_000), caller)

    async def set_budget(self, session_id: str, budget: Any, *, caller: Caller = LOCAL) -> Json:
        return await spending.set_budget(self._core, session_id, budget, caller)

    async def costs(
        self, *, interaction_ids: Sequence[str] = (), session_ids: Sequence[str] = (), caller: Caller = LOCAL
    ) -> dict[str, Json]:
        return await spending.costs(self._core, interaction_ids, session_ids, caller)

    async def price(self, model: str, *, caller: Caller = LOCAL) -> Json:
        return await spending.price(self._core, model, caller)

    async def status(self, *, caller: Caller = LOCAL) -> Json:
        core = self._core
        return {
            "version": core.settings.version,
            "uptime_s": max(0.0, core.clock() - self._started_at),
            "busy": self.busy,
            "queued": self._queue.queued,
            "dispatch": self._queue.dispatcher.health(),
            "unread": await core.store.count_unread(owner=caller.owner),
            "waiting": (await core.store.list_interactions("waiting", owner=caller.owner, limit=1))[1],
            "store": await core.store.stats(),
            "auto": await core.catalog.explain_auto(connection=caller.connection),
            "home": core.settings.home,
            "spent": await spending.today(core),
            **({} if self._schedules is None else {"schedules": await self._schedules.status(caller=caller)}),
        }
