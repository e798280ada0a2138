"""Fields about triggers and webhooks: their ids, when and what a trigger runs, whom a webhook tells."""

from __future__ import annotations

from typing import Annotated, Any, Final, cast

from pydantic import AfterValidator, BeforeValidator, Field

from interactd.errors import InvalidArgument
from interactd.ids import PREFIXES, Kind, parse_prefix
from interactd.nouns import Json
from interactd.store.schedules_port import EVENTS
from interactd_tools.arguments.fields import refuse, wrong

ALL_EVENTS: Final = "*"


def _id(kind: Kind) -> tuple[object, ...]:
    def check(value: str) -> str:
        try:
            return parse_prefix(kind, value.strip().strip("\"'"))
        except InvalidArgument as error:
            raise wrong(error.message.partition(": ")[2]) from None

    article = "an" if kind[0] == "e" else "a"
    return AfterValidator(check), {"x-expected": f"{article} {kind} id ({PREFIXES[kind]}...)"}


_trigger_check, _trigger_extra = _id("trigger")
_webhook_check, _webhook_extra = _id("webhook")
_delivery_check, _delivery_extra = _id("delivery")
TriggerId = Annotated[str, _trigger_check, Field(json_schema_extra=cast("Any", _trigger_extra))]
WebhookId = Annotated[str, _webhook_check, Field(json_schema_extra=cast("Any", _webhook_extra))]
DeliveryId = Annotated[str, _delivery_check, Field(json_schema_extra=cast("Any", _delivery_extra))]

Schedule = Annotated[
    str,
    Field(
        max_length=200,
        description="Five cron fields, @daily and the like, 'every 2h', or 'at 2026-12-01T09:00'.",
        json_schema_extra={
            "schema": {"type": "string", "x-expected": 'a schedule such as "0 9 * * 1-5" or "every 2h"'}
        },
    ),
]
Zone = Annotated[str, Field(max_length=80, description="Such as Europe/Berlin; default this machine's.")]
Seconds = Annotated[
    float,
    Field(
        ge=1,
        le=7 * 86_400,
        json_schema_extra={"schema": {"type": "number", "x-expected": "seconds from 1 to 604800"}},
    ),
]
Object = Annotated[Json, Field(json_schema_extra={"schema": {"type": "object"}})]


def choice(*choices: str) -> Any:
    """A field that takes one of these words."""
    return Field(
        pattern=f"^({'|'.join(choices)})$", json_schema_extra={"schema": {"type": "string", "enum": [*choices]}}
    )


def _session(value: object) -> str:
    if not isinstance(value, str):
        raise refuse("new, same, or a session id (ses_...)", value)
    word = value.strip().strip("\"'").lower()
    if word in ("new", "same"):
        return word
    try:
        return parse_prefix("session", word)
    except InvalidArgument as error:
        raise wrong(f"expected new, same, or a session id: {error.message.partition(': ')[2]}") from None


RunSession = Annotated[
    str,
    BeforeValidator(_session),
    Field(
        description="new for each run (default), same for one of its own, or a session's id.",
        json_schema_extra={"schema": {"type": "string", "x-expected": "new, same, or a session id (ses_...)"}},
    ),
]


def _events(value: list[str]) -> list[str]:
    for word in value:
        if word not in (*EVENTS, ALL_EVENTS):
            raise wrong(f"expected some of {', '.join(EVENTS)}, or *, got {word[:60]!r}")
    return value


Events = Annotated[
    list[str],
    AfterValidator(_events),
    Field(
        min_length=1,
        description="interaction.completed, .failed, .requires_action ..., trigger.failed; default * (all).",
        json_schema_extra={"schema": {"type": "array", "items": {"type": "string"}, "x-expected": "a list of events"}},
    ),
]
