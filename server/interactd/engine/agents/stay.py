"""A run's stay in its environment: the lease is held by a task of its own, so that a run can be interrupted anywhere
while the lease begins and ends in one place."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import cast

from interactd.errors import InteractdError, SandboxUnavailable
from interactd.sandbox.environments_port import Environments, Workspace
from interactd.sandbox.port import Level

log = logging.getLogger(__name__)

_LEAVE_S = 10.0


class Stay:
    """One lease. `begin` once, `end` any number of times."""

    def __init__(
        self,
        environments: Environments,
        environment_id: str,
        interaction_id: str,
        *,
        requires: Mapping[str, str],
        agent_folder: Path | None,
    ) -> None:
        self._environments = environments
        self.environment_id = environment_id
        self._interaction_id = interaction_id
        self._requires = cast("Mapping[str, Level]", requires)
        self._agent_folder = agent_folder
        self._leave = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def begin(self) -> Workspace:
        """Take the environment, waiting for it if another run has it. Cancelling this gives it up.

        Raises:
            SandboxUnavailable: what can be had is weaker than the agent accepts.
            InteractdError: what the lease raised.
        """
        ready: asyncio.Future[Workspace] = asyncio.get_running_loop().create_future()
        self._task = asyncio.create_task(self._hold(ready), name=f"lease of {self.environment_id}")
        return await ready

    async def end(self) -> None:
        """Give it back; returns when nothing of the run is left in it (bounded)."""
        task, self._task = self._task, None
        if task is None:
            return
        self._leave.set()
        if not task.done():
            await asyncio.wait({task}, timeout=_LEAVE_S)
        if not task.done():
            log.error("the lease of %s did not end; it is cancelled", self.environment_id)
            task.cancel()
            await asyncio.wait({task}, timeout=_LEAVE_S)

    async def give_up(self) -> None:
        """Leave without having arrived."""
        if self._task is not None:
            self._task.cancel()
        await self.end()

    async def _hold(self, ready: asyncio.Future[Workspace]) -> None:
        try:
            async with self._environments.lease(
                self.environment_id, self._interaction_id, requires=self._requires, agent_folder=self._agent_folder
            ) as workspace:
                if weak := workspace.isolation.below(self._requires):
                    raise SandboxUnavailable(
                        f"This machine's sandbox is weaker than the agent accepts: {'; '.join(weak)}.",
                        repair="Run interactd doctor: it says what to install.",
                        isolation=workspace.isolation.as_dict(),
                    )
                if not ready.done():
                    ready.set_result(workspace)
                with contextlib.suppress(asyncio.CancelledError):
                    await self._leave.wait()
        except asyncio.CancelledError:
            ready.cancel()
        except InteractdError as error:
            if ready.done():
                log.error("the lease of %s ended badly: %s", self.environment_id, error)
            else:
                ready.set_exception(error)
        except Exception:
            log.exception("the lease of %s failed", self.environment_id)
            if not ready.done():
                ready.set_exception(
                    SandboxUnavailable("The sandbox could not be started.", repair="The daemon's log has the details.")
                )
