"""Sessions: create, list, fork, delete."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from interactd.engine.agents import choice
from interactd.engine.approvals.standing import without_standing
from interactd.engine.checks.arguments import (
    MAX_INSTRUCTION,
    MAX_TITLE,
    check_config,
    check_key,
    check_labels,
    check_limit,
    check_tools,
    check_ttl,
)
from interactd.engine.checks.terms import terms
from interactd.engine.checks.text import check_text
from interactd.engine.core import Core
from interactd.engine.dispatch.cancel import cancel_open
from interactd.engine.dispatch.queue import Queue
from interactd.errors import Conflict, InteractdError, InvalidArgument
from interactd.ids import new_id
from interactd.nouns import OPEN, Caller, GenerationConfig, Json, Session
from interactd.store.port import Page, Receipt

_STATES = ("active", "expired", "all")


async def create(
    core: Core,
    *,
    model: str | None,
    agent: str | None,
    environment: str | Json | None,
    system_instruction: str | None,
    generation_config: GenerationConfig | None,
    tools: list[Json] | None,
    ttl_s: float | None,
    title: str | None,
    labels: dict[str, str] | None,
    budget: Json | None,
    approvals: str | Json | None,
    idempotency_key: str | None,
    caller: Caller,
) -> Session:
    """See `Engine.create_session`."""
    core.check_accepting()
    of_agent = choice.asked(agent, environment)
    on_terms = terms(budget, approvals, known=core.tool_names)
    asked: Json = {
        "system_instruction": _optional("system_instruction", system_instruction, MAX_INSTRUCTION),
        "generation_config": check_config(generation_config),
        "tools": check_tools(tools or []),
        "title": _optional("title", title, MAX_TITLE),
        "labels": check_labels(labels),
    }
    key = check_key(
        idempotency_key,
        caller.owner,
        call="create_session",
        model=_model_name(model),
        ttl_s=ttl_s,
        **asked,
        **of_agent.arguments(),
        **on_terms.arguments(),
    )
    ttl = check_ttl(ttl_s, core.settings.default_ttl_s)
    try:
        definition = None
        if of_agent.agent is not None:
            definition = await choice.definition_of(core, of_agent.agent, None, caller)
            choice.check_names(definition, asked["tools"])
            model = model or definition.model
        of_agent = await choice.placed(core, of_agent, caller)
        chosen = await core.catalog.resolve(model or "auto", connection=caller.connection)
    except InteractdError:
        if earlier := await core.recalled(key):
            return await core.any_session(earlier, caller)
        raise
    now = core.clock()
    session = Session(
        id=new_id("session"),
        created_at=now,
        updated_at=now,
        owner=caller.owner,
        ttl_s=ttl,
        expires_at=None if ttl is None else now + ttl,
        model=chosen.label,
        agent=None if definition is None else definition.id,
        agent_pins={} if definition is None else {definition.id: definition.hash},
        environment=None if of_agent.environment == "remote" else of_agent.environment,
        budget=on_terms.budget,
        approvals=on_terms.approvals,
        **asked,
    )
    if core.settings.thinking_level and session.generation_config.thinking_level is None:
        session.generation_config = replace(session.generation_config, thinking_level=core.settings.thinking_level)
    started = await core.store.create_session(session, key)
    return session if started.created else await core.any_session(started.id, caller)


async def fork(
    core: Core,
    session_id: str,
    *,
    at: str | None,
    title: str | None,
    model: str | None,
    ttl_s: float | None,
    idempotency_key: str | None,
    caller: Caller,
) -> Session:
    """See `Engine.fork_session`.

    Raises:
        Conflict: the turn to fork at is still open; its steps are not final.
    """
    core.check_accepting()
    _optional("title", title, MAX_TITLE)
    _model_name(model)
    whole = await core.session_id(session_id)
    wanted = None if at is None else await core.interaction_id(at, "at")
    ttl = None if ttl_s is None else check_ttl(ttl_s, core.settings.default_ttl_s)
    key = check_key(
        idempotency_key,
        caller.owner,
        call="fork_session",
        session_id=whole,
        at=wanted,
        title=title,
        model=model,
        ttl_s=ttl_s,
    )
    try:
        source = await core.session(whole, caller)
        head, turns = await _fork_point(core, source, wanted)
        label = source.model
        if model is not None:
            label = (await core.catalog.resolve(model, connection=caller.connection)).label
        session = _forked(core, source, head, turns, title, label, source.ttl_s if ttl_s is None else ttl, caller)
        # A session without turns has no point to begin at: its fork is a new session with the same settings.
        start = core.store.create_session if head is None else core.store.fork_session
        started = await start(session, key)
    except InteractdError:
        if earlier := await core.recalled(key):
            return await core.any_session(earlier, caller)
        raise
    return session if started.created else await core.any_session(started.id, caller)


def _forked(
    core: Core,
    source: Session,
    head: str | None,
    turns: int,
    title: str | None,
    model: str | None,
    ttl_s: float | None,
    caller: Caller,
) -> Session:
    now = core.clock()
    return Session(
        id=new_id("session"),
        created_at=now,
        updated_at=now,
        owner=caller.owner,
        title=title if title is not None else source.title,
        model=model,
        agent=source.agent,
        agent_pins=dict(source.agent_pins),
        # A fork works on a copy: what it does to the files must not show in the session it comes from.
        environment={"from_environment": source.environment}
        if isinstance(source.environment, str)
        else source.environment,
        system_instruction=source.system_instruction,
        generation_config=source.generation_config,
        tools=source.tools,
        budget=source.budget,
        approvals=without_standing(source.approvals),
        labels=dict(source.labels),
        ttl_s=ttl_s,
        expires_at=None if ttl_s is None else now + ttl_s,
        head=head,
        turns=turns,
        forked_from=source.id,
        forked_at=head,
    )


async def listing(
    core: Core,
    *,
    state: Literal["active", "expired", "all"],
    labels: dict[str, str] | None,
    unread: bool,
    limit: int,
    cursor: str | None,
    caller: Caller,
) -> Page:
    """See `Engine.list_sessions`."""
    if state not in _STATES:
        raise InvalidArgument(f"state: {state!r} is not one of {', '.join(_STATES)}", field="state")
    if cursor is not None:
        check_text("cursor", cursor, max_bytes=1_000)
    return await core.store.list_sessions(
        owner=caller.owner,
        state=state,
        labels=check_labels(labels) or None,
        unread=unread,
        limit=check_limit(limit, 200),
        cursor=cursor,
    )


async def delete(core: Core, queue: Queue, session_id: str, *, caller: Caller) -> Receipt:
    """See `Engine.delete_session`. Deleting what is deleted gives the first receipt again."""
    whole = await core.session_id(session_id)
    await core.any_session(whole, caller)
    async with core.session_lock(whole):
        for _ in range(3):
            await cancel_open(core, queue, whole)
            try:
                receipt = await core.store.delete_session(whole, core.clock())
            except Conflict:
                # Somebody outside the lock (a run that was just ending) still held it; cancel what there is again.
                continue
            core.history.forget(whole)
            return receipt
        return await core.store.delete_session(whole, core.clock())


async def keep(core: Core, session_id: str, ttl_s: float | None, *, caller: Caller) -> Session:
    """See `Engine.keep_session`."""
    whole = await core.session_id(session_id)
    ttl = check_ttl(ttl_s, core.settings.default_ttl_s)
    async with core.session_lock(whole):
        session = await core.any_session(whole, caller)
        if session.deleted_at is not None:
            core.check_alive(session)
        await core.store.set_expiry(whole, ttl, None if ttl is None else core.clock() + ttl)
        return await core.any_session(whole, caller)


async def _fork_point(core: Core, source: Session, wanted: str | None) -> tuple[str | None, int]:
    point = wanted or source.head
    if point is None:
        return None, 0
    found = await core.in_tree(source, point)
    if found.status in OPEN:
        raise _still_open(found.id, found.status, found.previous_interaction_id)
    return found.id, found.depth


def _still_open(interaction_id: str, status: str, previous: str | None) -> Conflict:
    instead = f", or fork at {previous}" if previous else ""
    return Conflict(
        f"Interaction {interaction_id} is {status}: its steps are not final, so nothing can be forked there.",
        repair=f"Call get_interaction to wait for it, or cancel_interaction{instead}.",
        interaction_id=interaction_id,
        status=status,
    )


def _optional(field: str, value: str | None, max_bytes: int) -> str | None:
    return None if value is None else check_text(field, value, max_bytes=max_bytes)


def _model_name(model: str | None) -> str | None:
    return None if model is None else check_text("model", model, max_bytes=500, empty=False)
