"""Dictionaries of our nouns for the control socket and `--json`: plain JSON, ISO times in UTC, nothing secret.

Fields that are `None` are left out, except where a reader looks for them (`cursor`, `model`). Provider state never
leaves the daemon: a step shows its type, its own fields, its place and its time.
"""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime
from typing import Any, cast

from interactd.engine.port import Event, Inbox, Result, Standing
from interactd.models.port import ModelInfo
from interactd.nouns import Interaction, Json, Session, Step
from interactd.sandbox.environments_port import Artifact, Environment
from interactd.store.port import Hit, Page, Receipt, Turn


def iso(seconds: float | None) -> str | None:
    """Return an epoch time as `2026-11-22T13:45:00.123Z`; `None` stays `None`."""
    if seconds is None:
        return None
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def session(value: Session) -> Json:
    """A session: ids, title, model, state, defaults that are set, times, `turns`."""
    return {
        **_set(
            id=value.id,
            title=value.title,
            state=value.state,
            owner=value.owner,
            agent=value.agent,
            agent_pins=value.agent_pins or None,
            environment=value.environment,
            budget=value.budget,
            system_instruction=value.system_instruction,
            generation_config=value.generation_config.as_dict() or None,
            tools=value.tools or None,
            labels=value.labels or None,
            approvals=value.approvals,
            turns=value.turns,
            head=value.head,
            ttl_s=value.ttl_s,
            created_at=iso(value.created_at),
            updated_at=iso(value.updated_at),
            expires_at=iso(value.expires_at),
            deleted_at=iso(value.deleted_at),
            forked_from=value.forked_from,
            forked_at=value.forked_at,
        ),
        "model": value.model,
    }


def interaction(value: Interaction) -> Json:
    """An interaction: ids, status, usage in the API's names, times, `duration_s`, and its error if it has one."""
    duration = None
    if value.started_at is not None and value.finished_at is not None:
        duration = round(value.finished_at - value.started_at, 3)
    return {
        **_set(
            id=value.id,
            session_id=value.session_id,
            status=value.status,
            previous_interaction_id=value.previous_interaction_id,
            agent=value.agent,
            agent_hash=value.agent_hash,
            environment_id=value.environment_id,
            isolation=value.isolation,
            budget=value.budget,
            background=value.background or None,
            parent_id=value.parent_id,
            approvals=value.approvals,
            dispatch=value.dispatch,
            attempt=value.attempt,
            usage=value.usage.as_dict() if value.usage else None,
            error=value.error,
            finish_reason=value.finish_reason,
            created_at=iso(value.created_at),
            started_at=iso(value.started_at),
            finished_at=iso(value.finished_at),
            read_at=iso(value.read_at),
            duration_s=duration,
        ),
        "model": value.model,
    }


def step(value: Step) -> Json:
    """A step in the API's form, with `seq` and `created_at`."""
    return {**value.as_dict(), **_set(seq=value.seq, created_at=iso(value.created_at))}


def turn(value: Turn) -> Json:
    """An interaction and its steps."""
    return {"interaction": interaction(value.interaction), "steps": [step(s) for s in value.steps]}


def result(value: Result) -> Json:
    """An interaction as its caller sees it now, with its session."""
    return {
        "session": session(value.session),
        "interaction": interaction(value.interaction),
        "steps": [step(s) for s in value.steps],
        **_set(
            partial_text=value.partial_text or None,
            printed=value.printed or None,
            queue_position=value.queue_position,
            queue_reason=value.queue_reason,
            waiting_for=value.waiting_for or None,
            cost=value.cost,
            replayed=value.replayed or None,
        ),
    }


def inbox(value: Inbox) -> Json:
    """What waits for the caller, without the steps."""
    return {
        "unread": [interaction(one) for one in value.unread],
        "unread_total": value.unread_total,
        "waiting": [{name: item for name, item in result(one).items() if name != "steps"} for one in value.waiting],
        "waiting_total": value.waiting_total,
        "running": [interaction(one) for one in value.running],
        "running_total": value.running_total,
    }


def standing(value: Standing) -> Json:
    """What runs or waits, and why."""
    return {
        "interaction": interaction(value.interaction),
        **_set(queue_position=value.queue_position, queue_reason=value.queue_reason),
    }


def event(value: Event) -> Json:
    """A live event: `seq`, `type`, and the API's payload in `data`."""
    return {"seq": value.seq, "type": value.type, "data": value.data}


def receipt(value: Receipt) -> Json:
    """What a delete removed and what a fork still keeps."""
    return {
        "id": value.id,
        "session_id": value.session_id,
        "deleted_at": iso(value.deleted_at),
        "removed": value.removed,
        **_set(kept=value.kept or None, pending=value.pending or None),
    }


def hit(value: Hit) -> Json:
    """One search result; the matched words stand `[so]` in the snippet."""
    return {
        **_set(
            session_id=value.session_id,
            interaction_id=value.interaction_id,
            session_title=value.session_title,
            seq=value.seq,
            type=value.type,
            snippet=value.snippet,
            created_at=iso(value.created_at),
        ),
        "score": round(value.score, 4),
    }


def model(value: ModelInfo) -> Json:
    """One line of `interactd models`."""
    return _set(**dataclasses.asdict(value))


def environment(value: Environment) -> Json:
    """An environment: what it is made of (names of variables, not their values), sizes and times."""
    return _set(
        id=value.id,
        status=value.status,
        created_at=iso(value.created_at),
        last_used_at=iso(value.last_used_at),
        expires_at=iso(value.expires_at),
        sources=value.sources or None,
        env={name: one if isinstance(one, dict) else "(set)" for name, one in value.env.items()} or None,
        network=_network(value.network),
        limits=value.limits or None,
        approvals=value.approvals or None,
        forked_from=value.forked_from,
        size_bytes=value.size_bytes,
        file_count=value.file_count,
    )


def _network(policy: Json | None) -> Json | None:
    """A policy without the values of the headers that it sets: those may be secrets."""
    if policy is None:
        return None
    rules: list[Json] = []
    for given in cast("list[Json | str]", policy.get("allowlist") or []):
        rule = {"domain": given} if isinstance(given, str) else dict(given)
        if "transform" in rule:
            rule["transform"] = "(set)"
        rules.append(rule)
    return {**policy, "allowlist": rules}


def artifact(value: Artifact) -> Json:
    """A file an agent left, with where its kept copy is on this machine."""
    return {**dataclasses.asdict(value), "created_at": iso(value.created_at), "path": str(value.path)}


def page(value: Page) -> Json:
    """A page of sessions or hits; `cursor` is `null` at the end."""
    return {"items": [jsonable(item) for item in value.items], "cursor": value.cursor}


def jsonable(value: Any) -> Any:
    """Return the dictionary form of any of our nouns, or of a list of them; plain JSON passes through."""
    if isinstance(value, (list, tuple)):
        return [jsonable(item) for item in cast(list[Any], value)]
    kind: type[object] = value.__class__
    form = _FORMS.get(kind)
    return value if form is None else form(value)


def _set(**fields: Any) -> Json:
    return {name: value for name, value in fields.items() if value is not None}


_FORMS: dict[type[object], Any] = {
    Session: session,
    Interaction: interaction,
    Step: step,
    Turn: turn,
    Result: result,
    Inbox: inbox,
    Event: event,
    Standing: standing,
    Receipt: receipt,
    Hit: hit,
    ModelInfo: model,
    Page: page,
    Environment: environment,
    Artifact: artifact,
}
