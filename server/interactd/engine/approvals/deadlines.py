"""Answers by default: questions whose deadline has passed are answered by the engine, once.

What is due is in the journal, so that a deadline that passed while no daemon was there is kept at the next start. The
store decides who answers: of two daemons one does, and takes the run with it.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace

from interactd.engine.agents.steps import due_of, when
from interactd.engine.core import Core
from interactd.engine.dispatch.queue import Queue
from interactd.engine.run.note import Note
from interactd.engine.run.outcome import unanswered
from interactd.errors import InteractdError
from interactd.nouns import Json, Step

log = logging.getLogger(__name__)


async def keep_deadlines(core: Core, queue: Queue) -> None:
    """The engine's own task; ends when it is cancelled."""
    while True:
        core.asked.clear()
        pause = core.settings.sweep_every_s
        try:
            await answer_due(core, queue)
            times = [due for _, due in await core.store.due() if due is not None]
            core.deadlines = len(times)
            # The clock may be set, and a machine may sleep: no wait is longer than a sweep's.
            pause = max(0.05, min([pause, *(due - core.clock() for due in times)]))
        except InteractdError as error:
            log.warning("cannot look after deadlines of questions: %s", error)
        try:
            async with asyncio.timeout(pause):
                await core.asked.wait()
        except TimeoutError:
            pass


async def answer_due(core: Core, queue: Queue) -> int:
    """Answer every question whose time is over; returns for how many interactions."""
    answered = 0
    for interaction_id, due in await core.store.due():
        if due is None or due > core.clock() or core.handing_over:
            continue
        try:
            answered += await core.finish(_answer(core, queue, interaction_id))
        except InteractdError as error:
            # One that cannot be answered must not keep the others waiting; it is tried again.
            log.warning("cannot answer the questions of %s by default: %s", interaction_id, error)
    return answered


async def _answer(core: Core, queue: Queue, interaction_id: str) -> bool:
    interaction = await core.store.get_interaction(interaction_id)
    async with core.session_lock(interaction.session_id):
        if core.handing_over:
            return False
        interaction = await core.store.get_interaction(interaction_id)
        steps = await core.store.get_steps(interaction_id)
        now = core.clock()
        waiting = unanswered(steps)
        over = [step for step in waiting if (step.state or {}).get("due", now + 1) <= now]
        if not over:
            return False
        note = Note.read(await core.store.pending(interaction_id)).answered()
        left = [step for step in waiting if step not in over]
        note = replace(note, due=due_of(left))
        made = [by_default(step) for step in over]
        # Read before the steps: whoever took it since has raised its epoch.
        answered = await core.store.answer(interaction, len(steps), made, pending=note.as_dict(), goes_on=True, now=now)
        if answered is None:
            return False
        claimed, written = answered
        session = await core.store.get_session(claimed.session_id)
        log.info("%s: %d questions answered by default", claimed.id, len(made))
        queue.launch(claimed, session, [*steps, *written], note)
        return True


def by_default(asked: Step) -> Step:
    """The answer that holds when nobody gave one."""
    state = asked.state or {}
    decision = state.get("default", "deny")
    result: Json = {"decision": decision, "by": "default", "reason": f"Nobody answered by {when(state['due'])}."}
    body: Json = {"call_id": asked.body["id"], "name": asked.body["name"], "result": result}
    return Step("function_result", body, {"provider": "interactd", "answered_by": "default"})
