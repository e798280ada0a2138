"""Accepting a turn: check it, write it down once, and hand it to the queue."""

from __future__ import annotations

import asyncio
import functools
from dataclasses import replace
from typing import Any, Literal

from interactd.agents.port import AgentDefinition
from interactd.engine.agents import choice
from interactd.engine.checks.arguments import MAX_INSTRUCTION, check_config, check_key, check_tools
from interactd.engine.checks.content import check_content
from interactd.engine.checks.terms import Terms, terms
from interactd.engine.checks.text import check_text
from interactd.engine.core import Core
from interactd.engine.dispatch.queue import Queue
from interactd.engine.port import Result
from interactd.engine.run.note import Note
from interactd.engine.waiting import result_of
from interactd.errors import Conflict, InteractdError, InvalidArgument, Overloaded
from interactd.ids import new_id
from interactd.models.port import Model
from interactd.nouns import Caller, GenerationConfig, Interaction, Json, Session, user_input
from interactd.store.port import IdempotencyKey

_LARGE = 256 * 1024
_TRIES = 20


async def send(
    core: Core,
    queue: Queue,
    session_id: str,
    content: str | list[Json],
    *,
    previous_interaction_id: str | None,
    model: str | None,
    agent: str | None,
    environment: str | Json | None,
    limits: Json | None,
    system_instruction: str | None,
    generation_config: GenerationConfig | None,
    tools: list[Json] | None,
    background: bool,
    budget: Json | None,
    approvals: str | Json | None,
    dispatch: Json | None,
    if_busy: Literal["conflict", "queue"],
    idempotency_key: str | None,
    caller: Caller,
) -> Result:
    """See `Engine.send_turn`."""
    of_agent = choice.asked(agent, environment, limits)
    on_terms = terms(budget, approvals, dispatch, known=core.tool_names)
    if model is not None and agent is not None:
        raise InvalidArgument(
            "model, agent: a turn is taken by a model or by an agent, not by both.",
            repair="Leave one out. An agent's model is set by create_session or in its manifest.",
            field="agent",
        )
    core.check_accepting()
    if if_busy not in ("conflict", "queue"):
        raise InvalidArgument(f"if_busy: {if_busy!r} is not one of conflict, queue", field="if_busy")
    asked = _Asked(
        content=await _content(core, content),
        model=None if model is None else check_text("model", model, max_bytes=500, empty=False),
        system_instruction=None
        if system_instruction is None
        else check_text("system_instruction", system_instruction, max_bytes=MAX_INSTRUCTION),
        config=check_config(generation_config),
        tools=None if tools is None else check_tools(tools),
        background=bool(background),
        queue=if_busy == "queue",
    )
    whole = await core.session_id(session_id)
    previous = None
    if previous_interaction_id is not None:
        previous = await core.interaction_id(previous_interaction_id, "previous_interaction_id")
    digest = functools.partial(
        check_key,
        idempotency_key,
        caller.owner,
        call="send_turn",
        session_id=whole,
        previous_interaction_id=previous,
        **{name: getattr(asked, name) for name in _Asked.__slots__},
        **of_agent.arguments(),
        **on_terms.arguments(),
    )
    key = await asyncio.to_thread(digest) if asked.large else digest()
    try:
        session = await core.session(whole, caller)
        if not asked.queue and (run := queue.run_in(whole)):
            # The store would say the same; this way a crowd at a busy session costs no writes.
            raise _busy(Conflict("", interaction_id=run.interaction.id, status=run.interaction.status))
        taker = of_agent.agent or (None if asked.model else session.agent)
        definition = None
        name = asked.model or session.model or "auto"
        if taker is not None:
            definition = await choice.definition_of(core, taker, session, caller)
            choice.check_names(definition, asked.tools or session.tools)
            of_agent = await choice.placed(core, of_agent, caller)
            if definition.id != session.agent:
                name = definition.model or name
        elif of_agent != choice.Asked() or on_terms.approvals:
            raise InvalidArgument(
                "environment, limits, approvals: are an agent's, and a model takes this turn.",
                repair="Give agent as well, or leave them out.",
                field="approvals" if on_terms.approvals else "environment",
            )
        chosen = await core.catalog.resolve(name, connection=caller.connection)
        await core.money.check_price(
            chosen,
            ("The turn's", on_terms.budget),
            ("The session's", session.budget),
            ("The agent's", None if definition is None else definition.budget),
        )
        return await core.finish(
            _accept(core, queue, whole, previous, asked, chosen, key, caller, definition, of_agent, on_terms)
        )
    except InteractdError:
        if earlier := await core.recalled(key):
            return await result_of(core, queue, await core.store.get_interaction(earlier), replayed=True)
        raise


class _Asked:
    """The checked arguments of a turn."""

    __slots__ = ("background", "config", "content", "model", "queue", "system_instruction", "tools")

    def __init__(
        self,
        *,
        content: list[Json],
        model: str | None,
        system_instruction: str | None,
        config: GenerationConfig,
        tools: list[Json] | None,
        background: bool,
        queue: bool,
    ) -> None:
        self.content = content
        self.model = model
        self.system_instruction = system_instruction
        self.config = config
        self.tools = tools
        self.background = background
        self.queue = queue

    @property
    def large(self) -> bool:
        return sum(len(part.get("text") or part.get("data") or "") for part in self.content) > _LARGE


async def _content(core: Core, content: Any) -> list[Json]:
    limit = core.settings.max_input_bytes
    if isinstance(content, str) and len(content) < _LARGE:
        return check_content(content, max_bytes=limit)
    # Decoding megabytes of base64 takes tens of milliseconds, which all other sessions would wait for.
    return await asyncio.to_thread(check_content, content, max_bytes=limit)


async def _accept(
    core: Core,
    queue: Queue,
    session_id: str,
    previous: str | None,
    asked: _Asked,
    chosen: Model,
    key: IdempotencyKey | None,
    caller: Caller,
    definition: AgentDefinition | None,
    of_agent: choice.Asked,
    on_terms: Terms,
) -> Result:
    async with core.session_lock(session_id):
        for _ in range(_TRIES):
            try:
                return await _accept_at_head(
                    core, queue, session_id, previous, asked, chosen, key, caller, definition, of_agent, on_terms
                )
            except Conflict as error:
                # Another daemon was quicker in this session: look again, unless its turn is in our way for good.
                if "head" not in error.fields and not (asked.queue and "interaction_id" in error.fields):
                    raise _busy(error) from error
        raise Overloaded(
            f"Other daemons keep sending turns to session {session_id}; nothing was started.",
            repair="Call again with the same arguments.",
            session_id=session_id,
            retry=True,
        )


async def _accept_at_head(
    core: Core,
    queue: Queue,
    session_id: str,
    previous: str | None,
    asked: _Asked,
    chosen: Model,
    key: IdempotencyKey | None,
    caller: Caller,
    definition: AgentDefinition | None,
    of_agent: choice.Asked,
    on_terms: Terms,
) -> Result:
    core.check_accepting()
    session = await core.session(session_id, caller)
    free = await _place(core, queue, session_id, asked.queue)
    now = core.clock()
    parent, depth = session.head, session.turns + 1
    if previous is not None and previous != session.head:
        found = await core.in_tree(session, previous)
        parent, depth = found.id, found.depth + 1
    config = _config(asked, session, definition)
    place, body = (None, None) if definition is None else choice.place_for(of_agent, session)
    interaction = Interaction(
        id=new_id("interaction"),
        session_id=session_id,
        status="queued",
        created_at=now,
        previous_interaction_id=parent,
        model=chosen.label,
        agent=None if definition is None else definition.id,
        agent_hash=None if definition is None else definition.hash,
        environment_id=place,
        system_instruction=asked.system_instruction,
        generation_config=config,
        tools=asked.tools or [],
        background=asked.background,
        depth=depth,
        budget=on_terms.budget,
        approvals=on_terms.approvals,
        dispatch=on_terms.dispatch,
    )
    step = user_input(asked.content)
    step.seq, step.created_at = 0, now
    expires_at = None if session.ttl_s is None else now + session.ttl_s
    delay = (on_terms.dispatch or {}).get("delay_s") or 0.0
    note = Note(connection=caller.connection, not_before=now + delay if delay else None, wait_s=delay)
    if definition is not None:
        note = replace(note, cwd=caller.cwd, environment=body, limits=of_agent.limits)
    first = free and not delay and queue.admit(interaction)
    if first:
        interaction.status, interaction.started_at = "in_progress", now
        interaction.epoch = interaction.attempt = 1
    elif not asked.queue:
        for one in await core.store.active(session_id):
            raise Conflict("", interaction_id=one.id, status=one.status)
    accepted = False
    try:
        started = await core.store.accept(
            interaction,
            [step],
            expires_at=expires_at,
            key=key,
            pending=note.as_dict(),
            # Its handle is all that the caller has: it must hold after a power loss too.
            durable=asked.background,
            at_head=previous is None,
        )
        accepted = started.created
    finally:
        if first and not accepted:
            queue.dismiss(interaction.id)
    if not started.created:
        return await result_of(core, queue, await core.store.get_interaction(started.id), replayed=True)
    session.head, session.turns, session.expires_at, session.updated_at = interaction.id, depth, expires_at, now
    if first:
        queue.launch(interaction, session, [step], note, chosen)
    else:
        queue.enqueue(interaction, note)
        # The turn in front may have ended since we looked, and found nothing to start.
        queue.advance_soon(session_id)
    return Result(
        session=session,
        interaction=interaction,
        steps=[step],
        queue_position=queue.position(interaction),
        queue_reason=queue.reason(interaction),
    )


async def _place(core: Core, queue: Queue, session_id: str, may_queue: bool) -> bool:
    """Whether the session is free for another turn, as far as can be told.

    Raises:
        Conflict: turns wait in the session already and this one would not.
        Overloaded: too much waits.
    """
    settings = core.settings
    if queue.running + queue.queued >= settings.max_open:
        raise Overloaded(
            f"{settings.max_open} interactions run or wait already; nothing was started.",
            repair="Call again in a little while.",
            retry=True,
        )
    waiting = queue.waiting_in(session_id)
    if not may_queue:
        if waiting:
            raise Conflict("", interaction_id=queue.next_in(session_id), status="queued")
        if core.others.live:
            for one in await core.store.active(session_id):
                raise Conflict("", interaction_id=one.id, status=one.status)
        return True
    if waiting >= settings.max_queued:
        raise Overloaded(
            f"{waiting} turns wait in session {session_id} already; nothing was started.",
            repair="Wait for some of them with get_interaction, then call again.",
            session_id=session_id,
            retry=True,
        )
    return not waiting and not await core.store.active(session_id)


def _config(asked: _Asked, session: Session, definition: AgentDefinition | None) -> GenerationConfig:
    config = asked.config.over(session.generation_config)
    if definition is not None:
        config = choice.config_of(definition, config)
    if asked.tools == [] and session.tools:
        # An empty list asks for a turn without tools, although the session has some.
        config = GenerationConfig(tool_choice="none").over(config)
    if config.tool_choice == "any" and definition is None and not (asked.tools or session.tools):
        raise InvalidArgument(
            "generation_config.tool_choice: 'any' demands a function call, and there are no tools",
            repair="Declare tools, or leave tool_choice out.",
            field="generation_config.tool_choice",
        )
    return config


def _busy(error: Conflict) -> Conflict:
    """Say what to do about the turn that is in the way; other conflicts stay as they are."""
    interaction_id, status = error.fields.get("interaction_id"), error.fields.get("status")
    if interaction_id is None or status is None:
        return error
    if status == "requires_action":
        return Conflict(
            f"Interaction {interaction_id} of this session waits for function results (requires_action).",
            repair=f"Call respond with interaction_id {interaction_id}, or cancel_interaction to give it up.",
            **error.fields,
        )
    return Conflict(
        f"Interaction {interaction_id} of this session is still {status}.",
        repair=f"Call get_interaction with interaction_id {interaction_id} to wait for it, cancel_interaction to stop "
        'it, or send_turn with if_busy="queue" to wait in line.',
        **error.fields,
    )
