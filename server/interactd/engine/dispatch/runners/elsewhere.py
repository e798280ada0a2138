"""What is asked of an interaction that runs at another daemon."""

from __future__ import annotations

import asyncio
from typing import Final

from interactd.engine.core import Core
from interactd.nouns import Interaction

CANCEL_S: Final = 1.6
"""How long its runner has to settle it with what had come so far, before somebody else settles it without."""
_LOOK_S: Final = 0.1


async def cancel(core: Core, interaction: Interaction) -> Interaction:
    """Ask its runner to cancel it, and wait a little; returns it as it is then."""
    await core.store.runners.ask_cancel(interaction.id, core.clock())
    loop = asyncio.get_running_loop()
    end = loop.time() + CANCEL_S
    while not interaction.terminal and loop.time() < end:
        await asyncio.sleep(_LOOK_S)
        interaction = await core.store.get_interaction(interaction.id)
    return interaction
