"""Triggers and webhooks on the control socket: their methods, and their dictionaries for `--json`."""

from __future__ import annotations

import dataclasses
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Any

from interactd.durable.port import Receipt, Schedules, WebhookMade
from interactd.durable.triggers.zones import zone
from interactd.engine.port import Engine
from interactd.errors import InteractdError, InvalidArgument
from interactd.faces import wire
from interactd.faces.arguments import arguments_of
from interactd.nouns import Caller, Json
from interactd.store.port import Page
from interactd.store.schedules_port import Attempt, Delivery, Execution, Trigger, Webhook

Call = Callable[[Engine, Caller, Json], Awaitable[Any]]
_BY_HAND = ("create_webhook", "update_webhook")


def iso(seconds: float | None) -> str | None:
    """Return an epoch time as ISO in UTC; `None` stays `None`."""
    return wire.iso(seconds)


def in_zone(seconds: float | None, name: str) -> str | None:
    """Return an epoch time as ISO in a zone, with its offset; in UTC where this machine does not know the zone."""
    if seconds is None:
        return None
    try:
        return datetime.fromtimestamp(seconds, zone(name)).isoformat(timespec="seconds")
    except InteractdError:
        return iso(seconds)


def trigger(value: Trigger) -> Json:
    """A trigger: what it runs, when next (in UTC and in its zone), and how it does."""
    return _set(
        id=value.id,
        display_name=value.display_name,
        status=value.status,
        schedule=value.schedule,
        time_zone=value.time_zone,
        next_run_time=iso(value.next_run_at),
        next_run_local=in_zone(value.next_run_at, value.time_zone),
        last_run_time=iso(value.last_run_at),
        last_pause_time=iso(value.last_pause_at),
        last_resume_time=iso(value.last_resume_at),
        missed=value.missed,
        overlap=value.overlap,
        max_consecutive_failures=value.max_consecutive_failures,
        consecutive_failure_count=value.consecutive_failure_count,
        execution_timeout_seconds=value.execution_timeout_s,
        work=value.work,
        session_id=value.session_id,
        environment_id=value.environment_id,
        error=value.error,
        create_time=iso(value.created_at),
        update_time=iso(value.updated_at),
    )


def execution(value: Execution) -> Json:
    """One firing: when it was due, what became of it, and which interaction it was."""
    details = value.details
    if value.reason == "missed" or value.cause == "catch_up":
        details = {name: iso(one) if name in ("from", "to") else one for name, one in (details or {}).items()}
    return _set(
        id=value.id,
        trigger_id=value.trigger_id,
        status=value.status,
        cause=value.cause,
        reason=value.reason,
        details=details or None,
        scheduled_time=iso(value.scheduled_at),
        start_time=iso(value.started_at),
        end_time=iso(value.finished_at),
        session_id=value.session_id,
        interaction_id=value.interaction_id,
        environment_id=value.environment_id,
        error=value.error,
    )


def webhook(value: Webhook) -> Json:
    """A webhook and how its deliveries do; of its secrets only what tells them apart."""
    secrets = [
        _set(truncated_secret=one["truncated_secret"], expire_time=iso(one["expire_at"]))
        for one in value.signing_secrets
    ]
    return _set(
        id=value.id,
        name=value.name,
        kind=value.kind,
        uri=value.target.get("uri"),
        command=value.target.get("argv"),
        timeout_s=value.target.get("timeout_s"),
        subscribed_events=value.subscribed_events,
        status=value.status,
        background_only=value.background_only,
        allow_local=value.allow_local or None,
        interaction_id=value.interaction_id,
        user_metadata=value.user_metadata,
        signing_secrets=secrets or None,
        failing_since=iso(value.failing_since),
        consecutive_failures=value.consecutive_failures or None,
        last_success_time=iso(value.last_success_at),
        last_error=value.last_error,
        create_time=iso(value.created_at),
        update_time=iso(value.updated_at),
    )


def webhook_made(value: WebhookMade) -> Json:
    """A webhook with the secret that is shown this once."""
    return {**webhook(value.webhook), **_set(new_signing_secret=value.new_signing_secret)}


def attempt(value: Attempt) -> Json:
    """One try."""
    return _set(**{**dataclasses.asdict(value), "at": iso(value.at), "answer": value.answer or None})


def delivery(value: Delivery) -> Json:
    """One event for one webhook, with its tries."""
    return _set(
        id=value.id,
        webhook_id=value.webhook_id,
        event=value.event,
        subject_id=value.subject_id,
        status=value.status,
        reason=value.reason,
        attempts=value.attempts,
        next_attempt_time=iso(value.next_at) if value.status == "pending" else None,
        give_up_time=iso(value.give_up_at) if value.status == "pending" else None,
        create_time=iso(value.created_at),
        log=[attempt(one) for one in value.log],
    )


def receipt(value: Receipt) -> Json:
    """What deleting took away and left."""
    return {"id": value.id, "deleted_at": iso(value.deleted_at), **value.counts}


def shown(value: Any) -> Any:
    """Return the dictionary form of any of these, or of a page of them."""
    if isinstance(value, Page):
        return {"items": [shown(item) for item in value.items], "cursor": value.cursor}
    kind: type[object] = value.__class__
    form = _FORMS.get(kind)
    return value if form is None else form(value)


_FORMS: dict[type[object], Callable[[Any], Json]] = {
    Trigger: trigger,
    Execution: execution,
    Webhook: webhook,
    WebhookMade: webhook_made,
    Delivery: delivery,
    Receipt: receipt,
}


def _call(port: Callable[..., Any]) -> Call:
    """Make a method of the port callable under its own parameter names, for a person at the command line."""
    name = port.__name__

    async def call(engine: Engine, caller: Caller, params: Json) -> Any:
        if "by_hand" in params:
            raise InvalidArgument("unknown parameter 'by_hand'", field="by_hand")
        bound = arguments_of(port).bind(params)
        if name in _BY_HAND:
            bound["by_hand"] = True
        return shown(await getattr(engine.schedules, name)(**bound, caller=caller))

    return call


METHODS: dict[str, Call] = {
    port.__name__: _call(port)
    for port in (
        Schedules.create_trigger,
        Schedules.get_trigger,
        Schedules.list_triggers,
        Schedules.update_trigger,
        Schedules.run_trigger,
        Schedules.delete_trigger,
        Schedules.get_execution,
        Schedules.list_executions,
        Schedules.create_webhook,
        Schedules.get_webhook,
        Schedules.list_webhooks,
        Schedules.update_webhook,
        Schedules.ping_webhook,
        Schedules.rotate_secret,
        Schedules.delete_webhook,
        Schedules.list_deliveries,
        Schedules.redeliver,
    )
}


def _set(**fields: Any) -> Json:
    return {name: value for name, value in fields.items() if value is not None}
