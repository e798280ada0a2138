"""Whose keys a run goes on with after it waited: who answers may have none, and who began it may be gone."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Final

from interactd.engine.core import Core
from interactd.errors import InteractdError
from interactd.nouns import Interaction

_PATIENCE_S: Final = 5.0


async def connection_for(core: Core, interaction: Interaction, candidates: Iterable[str | None]) -> str | None:
    """Return the first connection with which the interaction's model can be called; the first of all if none can."""
    tried = list(dict.fromkeys(candidates))
    for connection in tried:
        try:
            async with asyncio.timeout(_PATIENCE_S):
                await core.catalog.resolve(interaction.model or "auto", connection=connection)
        except (InteractdError, TimeoutError):
            continue
        return connection
    return tried[0]
