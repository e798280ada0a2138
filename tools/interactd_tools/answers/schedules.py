"""How triggers, executions, webhooks and deliveries read: one on a line, and one in full."""

from __future__ import annotations

import time
from datetime import datetime
from typing import Any, cast
from zoneinfo import ZoneInfo

from interactd.nouns import Json
from interactd.store.schedules_port import Delivery, Execution, Trigger, Webhook
from interactd_tools.answers.artifacts import safe
from interactd_tools.answers.text import compact, iso, one_line, plural, span, when

ALIVE = (
    "It runs while the interactd daemon does, which stays for as long as a trigger is active. After a restart of the "
    "machine the next host or command starts the daemon; `interactd daemon install` has the system start it. Keys come "
    "from connected hosts, else from the daemon's own environment and configuration."
)


def next_run(one: Trigger) -> str:
    """Say when a trigger is due next, in UTC and in its zone."""
    if one.next_run_at is None:
        return "not due by itself"
    try:
        local = datetime.fromtimestamp(one.next_run_at, ZoneInfo(one.time_zone))
        there = f" ({local:%Y-%m-%d %H:%M} {one.time_zone})" if one.time_zone != "UTC" else ""
    except (KeyError, ValueError, OSError):
        there = ""
    return f"next {when(one.next_run_at)}{there}, in {span(one.next_run_at - time.time())}"


def trigger_head(one: Trigger) -> str:
    """The status line of a trigger."""
    return f"{one.status} · trigger {one.id} · {next_run(one)}"


def trigger_line(one: Trigger) -> str:
    """One trigger of a list."""
    name = safe(one.display_name or task(one))
    facts = [one.id, one.status, f"{safe(one.schedule)} {one.time_zone}", next_run(one), one_line(name, 80)]
    if one.consecutive_failure_count:
        facts.append(f"{plural(one.consecutive_failure_count, 'failure')} in a row")
    return "- " + " · ".join(facts)


def task(one: Trigger) -> str:
    """What it is to do, on one line."""
    parts: list[Json] = cast("list[Json]", one.work.get("input") or [])
    return one_line(" ".join(str(part.get("text") or f"[{part.get('type')}]") for part in parts), 160)


def trigger_about(one: Trigger) -> str:
    """What a trigger does and how it does."""
    work = one.work
    lines = [f"Schedule: {safe(one.schedule)} in {one.time_zone}.", f"Does: {safe(task(one))}"]
    if one.display_name:
        lines.insert(0, f"Name: {safe(one.display_name)}")
    who = work.get("agent") or work.get("model") or "the session's own"
    where = one.environment_id or work.get("environment")
    place = f", environment {where if isinstance(where, str) else compact(where)}" if where else ""
    lines.append(f"Run by {safe(str(who))}, session {work.get('session')}{one_line(safe(place), 400)}.")
    for name in ("budget", "approvals", "dispatch", "limits"):
        if work.get(name):
            lines.append(f"{name.capitalize()}: {one_line(safe(compact(work[name])), 300)}")
    stops = f"stops after {one.max_consecutive_failures} in a row" if one.max_consecutive_failures else "never stops"
    lines.append(
        f"Missed times: {one.missed}. Overlap: {one.overlap}. Time limit {span(one.execution_timeout_s)}."
        f" Failures in a row: {one.consecutive_failure_count}, {stops}."
    )
    if one.error:
        lines.append(f"Stopped by: {one_line(safe(str(one.error.get('message'))), 400)}")
    return "\n".join(lines)


def trigger_fields(one: Trigger) -> Json:
    """The small structured form."""
    out: Json = {"trigger_id": one.id, "status": one.status}
    if one.next_run_at is not None:
        out["next_run_time"] = iso(one.next_run_at)
    return out


def execution_line(one: Execution) -> str:
    """One execution of a list."""
    facts = [one.id, one.status, f"due {when(one.scheduled_at)}"]
    if one.cause != "schedule":
        facts.append(one.cause.replace("_", " "))
    if one.started_at is not None and one.finished_at is not None:
        facts.append(f"took {span(one.finished_at - one.started_at)}")
    if one.interaction_id:
        facts.append(one.interaction_id)
    if why := _why(one):
        facts.append(why)
    return "- " + " · ".join(facts)


def _why(one: Execution) -> str:
    if one.error:
        return one_line(safe(f"{one.error.get('code')}: {one.error.get('message')}"), 300)
    if one.reason == "missed":
        return f"missed {plural(int((one.details or {}).get('count') or 1), 'time')}"
    return (one.reason or "").replace("_", " ")


def webhook_head(one: Webhook) -> str:
    """The status line of a webhook."""
    return f"{one.status} · webhook {one.id} · {target(one)}"


def target(one: Webhook) -> str:
    """Whom it tells."""
    if one.kind == "http":
        return one_line(safe(str(one.target.get("uri"))), 200)
    return "the desktop" if one.kind == "desktop" else "command " + one_line(safe(compact(one.target.get("argv"))), 200)


def webhook_line(one: Webhook) -> str:
    """One webhook of a list."""
    facts = [one.id, one.status, target(one), ", ".join(one.subscribed_events)]
    if one.name:
        facts.append(safe(one.name))
    if one.last_success_at is not None:
        facts.append(f"last success {span(time.time() - one.last_success_at)} ago")
    if one.failing_since is not None or one.last_error:
        since = f" since {when(one.failing_since)}" if one.failing_since else ""
        facts.append(f"failing{since}: {one_line(safe(str(one.last_error)), 200)}")
    return "- " + " · ".join(facts)


def delivery_line(one: Delivery) -> str:
    """One delivery and its attempts."""
    facts = [one.id, one.status, one.event, one.subject_id, plural(one.attempts, "attempt")]
    if one.status == "pending" and one.next_at is not None:
        facts.append(f"next in {span(one.next_at - time.time())}")
    if one.reason:
        facts.append(one.reason.replace("_", " "))
    lines = ["- " + " · ".join(facts)]
    for attempt in one.log[-3:]:
        said = attempt.error or f"status {attempt.status_code if attempt.status_code is not None else 0}"
        answer = f": {one_line(safe(attempt.answer), 120)}" if attempt.answer.strip() else ""
        lines.append(f"  {when(attempt.at)} · {one_line(safe(said), 200)} · {attempt.duration_ms} ms{answer}")
    return "\n".join(lines)


def status_lines(found: Json) -> list[str]:
    """What `server_status` says of triggers and webhooks; nothing where there are none."""
    lines: list[str] = []
    if found.get("triggers"):
        due = found.get("next_run_at")
        soon = f", next {when(due)} (in {span(due - time.time())})" if due is not None else ""
        lines.append(f"Triggers: {found['triggers']}, {found['active']} active{soon}.")
        bad = cast("list[Any]", found.get("in_error") or [])
        if bad:
            names = ", ".join(f"{one['id']}{_named(one.get('display_name'))}" for one in bad)
            lines.append(f"Stopped by failures: {names}; list_triggers says why.")
    if found.get("webhooks"):
        lines.append(f"Webhooks: {found['webhooks']}, {found['undelivered']} deliveries waiting.")
        failing = cast("list[Any]", found.get("failing") or [])
        if failing:
            names = ", ".join(f"{one['id']}{_named(one.get('name'))}" for one in failing)
            lines.append(f"Failing webhooks: {names}; list_deliveries says why.")
    return lines


def status_fields(found: Json) -> Json:
    """The same for programs; nothing where there are none."""
    out: Json = {}
    if found.get("triggers"):
        out |= {"triggers": found["triggers"], "triggers_in_error": [one["id"] for one in found["in_error"]]}
        if found.get("next_run_at") is not None:
            out["next_run_time"] = iso(found["next_run_at"])
    if found.get("webhooks"):
        out |= {"webhooks": found["webhooks"], "failing_webhooks": [one["id"] for one in found["failing"]]}
    return out


def _named(name: str | None) -> str:
    return f" ({safe(name)})" if name else ""
