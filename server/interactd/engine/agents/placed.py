"""Where an agent's run takes place: found or made, held while it works, and left with its files kept."""

from __future__ import annotations

import asyncio
import logging
from abc import abstractmethod
from collections.abc import Sequence
from typing import Final

import anyio

from interactd.agents.port import AgentDefinition
from interactd.engine.agents import choice
from interactd.engine.agents.endings import closing, environment_gone
from interactd.engine.agents.stay import Stay
from interactd.engine.agents.told import told_once
from interactd.engine.money.money import agents_budgets
from interactd.engine.run.runner import Run
from interactd.errors import Deleted, Expired, Fenced, InteractdError, NotFound, SandboxUnavailable, StorageFull
from interactd.nouns import Json, Status, Step, Usage
from interactd.sandbox.environments_port import Artifact, Workspace

log = logging.getLogger(__name__)

CAPTURE_S: Final = 120.0
FULL_PAUSE_S: Final = 1.0


class PlacedRun(Run):
    """A run in an environment. What it does there is its heir's `_act`."""

    _workspace: Workspace | None = None
    _stay: Stay | None = None
    _leaving: asyncio.Task[None] | None = None
    _since: float | None = None

    @abstractmethod
    async def _act(self, definition: AgentDefinition, workspace: Workspace) -> None:
        """Do the work, to its outcome."""

    async def _work(self) -> None:
        """Run in the environment, and leave it whatever happens."""
        try:
            definition = await self._definition()
            self.purse.budgets = agents_budgets(definition.budget)
            workspace = await self._arrive(definition)
            if workspace is None:
                await self._stopped()
            else:
                await self._act(definition, workspace)
        except Fenced:
            self.stop("fenced")
            raise
        finally:
            with anyio.CancelScope(shield=True):
                await self._depart()

    async def _definition(self) -> AgentDefinition:
        agents = self._core.agents
        if agents is None or self.interaction.agent is None:
            raise SandboxUnavailable("This daemon runs no agents.", repair="Send the turn to a model instead.")
        return await agents.resolve(self.interaction.agent, cwd=self._note.cwd, pinned=self.interaction.agent_hash)

    async def _arrive(self, definition: AgentDefinition) -> Workspace | None:
        """Find or make the environment and take it. `None` when the run was stopped meanwhile."""
        environments = self._core.environments
        if environments is None:
            raise SandboxUnavailable("This daemon has no environments.", repair="Send the turn to a model instead.")
        workspace: Workspace | None = None
        environment_id = ""
        with self._interruptible():
            environment_id = self.interaction.environment_id or await self._environment(definition)
            self._stay = Stay(
                environments,
                environment_id,
                self.interaction.id,
                requires=definition.requires,
                agent_folder=definition.folder,
            )
            try:
                workspace = await self._stay.begin()
            except (NotFound, Expired, Deleted) as gone:
                raise environment_gone(gone, environment_id) from gone
        if workspace is None or self._stop:
            if self._stay is not None:
                await self._stay.give_up()
                self._stay = None
            return None
        self._workspace = workspace
        await self._place(environment_id, workspace.isolation.as_dict())
        self._since = asyncio.get_running_loop().time()
        self.purse.enter()
        return workspace

    async def _environment(self, definition: AgentDefinition) -> str:
        """The session's environment by now; or a new one as the turn, the session or the agent wants it."""
        environments = self._core.environments
        assert environments is not None
        wanted = self._note.environment or self._session.environment
        if isinstance(wanted, str):
            return wanted
        body = definition.environment if wanted is None or wanted == choice.FRESH else wanted
        made = await told_once(
            environments.create(body, owner=self._session.owner, cwd=self._note.cwd, made_for=self._session.id),
            f"environment of {self.interaction.id}",
        )
        with anyio.CancelScope(shield=True):
            await self._place(made.id, None)
        return made.id

    async def _place(self, environment_id: str, isolation: Json | None) -> None:
        await self._core.store.place(
            self.interaction.id, self.interaction.epoch, environment_id=environment_id, isolation=isolation
        )
        self.interaction.environment_id = self._session.environment = environment_id
        self.interaction.isolation = isolation or self.interaction.isolation

    async def _depart(self, within_s: float | None = None) -> None:
        """Keep the files it made, then give the environment back. Does so once.

        Args:
            within_s: how long to wait for that; it goes on by itself, and the next call waits for the rest.
        """
        stay, workspace = self._stay, self._workspace
        self._stay = self._workspace = None
        if stay is not None:
            self._leaving = asyncio.create_task(self._leave_place(stay, workspace), name=f"leave {stay.environment_id}")
        if self._leaving is not None:
            await asyncio.wait({self._leaving}, timeout=within_s)

    async def _leave_place(self, stay: Stay, workspace: Workspace | None) -> None:
        # What another runner goes on with is not ours to keep.
        if workspace is not None and self._stop != "fenced":
            try:
                async with asyncio.timeout(CAPTURE_S):
                    kept = await self._captured(workspace)
                log.info("%s: %d files kept", self.interaction.id, len(kept))
            except TimeoutError:
                log.error("%s: keeping its files took longer than %.0f s", self.interaction.id, CAPTURE_S)
            except InteractdError as error:
                log.error("%s: its files could not be kept: %s", self.interaction.id, error)
            except Exception:
                log.exception("%s: its files could not be kept", self.interaction.id)
            await self._keep_requests(workspace)
        await stay.end()
        self.purse.leave()

    async def _captured(self, workspace: Workspace) -> list[Artifact]:
        """Keep its files. As with all that it made, a full disk holds it up and takes nothing away."""
        while True:
            try:
                return await workspace.capture(self.interaction.id)
            except StorageFull as error:
                if self._stop or self._core.handing_over:
                    raise
                log.warning("%s: its files are kept when there is room: %s", self.interaction.id, error)
                await asyncio.sleep(FULL_PAUSE_S)

    async def _keep_requests(self, workspace: Workspace) -> None:
        try:
            if asked := await workspace.egress_log():
                await self._core.store.add_requests(self.interaction.id, asked)
        except InteractdError as error:
            log.error("%s: what it asked of the network could not be kept: %s", self.interaction.id, error)

    async def _settle(
        self,
        status: Status,
        steps: Sequence[Step],
        *,
        usage: Usage | None = None,
        error: Json | None = None,
        finish_reason: str | None = None,
    ) -> None:
        # First, so that whoever sees the turn ended finds its files. Who cancels it is not kept waiting for many of
        # them: those that are not kept by then are kept after the end was shown, before the environment is free.
        await self._depart(self._core.settings.capture_cancelled_s if status == "cancelled" else None)
        rest = closing(self._own, status, self._note.flight) if status != "requires_action" else []
        await super()._settle(status, [*steps, *rest], usage=usage, error=error, finish_reason=finish_reason)
        if status == "requires_action":
            self._core.asked.set()
        if self._leaving is not None and not self._leaving.done():
            self._core.hub.close(self.channel)
