"""This engine's lease: whether what it runs is still its own. Asked before everything that cannot be undone."""

from __future__ import annotations

import logging
import os
from typing import Final

from interactd.engine.settings import EngineSettings
from interactd.errors import Fenced, StorageError, StorageFull
from interactd.ids import new_ulid
from interactd.nouns import Interaction
from interactd.store.port import Store
from interactd.store.runners_port import Runner

log = logging.getLogger(__name__)

_SAFE: Final = 0.2
"""Share of the lease that must be left for a claim to be taken as held without looking."""


class Lease:
    """One per engine. `id` is this runner's."""

    def __init__(self, store: Store, settings: EngineSettings) -> None:
        self._store = store
        self._settings = settings
        self.id = f"rnr_{new_ulid()}"

    async def begin(self, now: float) -> None:
        """Join the store's runners. Raises: StorageError, StorageFull."""
        runner = Runner(self.id, now, self._settings.version, os.getpid(), self._settings.lease_s)
        await self._store.runners.join(runner)

    async def end(self) -> None:
        """Give up what is left to whoever comes next."""
        await self._store.runners.leave()

    async def keep(self) -> None:
        """Give a sign of life when the last one is old enough."""
        if self._store.runners.lease_left_s < self._settings.lease_s * 2 / 3:
            await self._store.runners.renew()

    async def check(self, interaction: Interaction) -> None:
        """Return while the interaction is ours to act for; costs nothing while the lease is young.

        A runner that was stopped, or slept with its machine, may have been taken for dead: then it has to look.

        Raises:
            Fenced: somebody else has it, or it is over.
        """
        if self._store.runners.lease_left_s > self._settings.lease_s * _SAFE:
            return
        # In this order: from the renewal on nobody takes it, so that what is seen then stays true.
        try:
            await self._store.runners.renew()
        except (StorageFull, StorageError) as error:
            # A disk that takes no sign of life takes nobody else's claim either.
            log.warning("the lease cannot be renewed: %s", error)
        claim = (await self._store.runners.claims([interaction.id])).get(interaction.id)
        if claim is None or claim.epoch != interaction.epoch or claim.status != "in_progress":
            raise Fenced(
                f"interaction {interaction.id} was taken over while this runner stood still",
                repair="Stop: somebody else goes on.",
                id=interaction.id,
            )
