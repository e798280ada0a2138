"""Triggers and webhooks as the engine offers them, and what they need of the engine.

Ids may be shortened to a unique prefix. All methods raise `InteractdError`s only.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

from interactd.nouns import LOCAL, Caller, Json
from interactd.store.port import Page
from interactd.store.schedules_port import Attempt, Delivery, Execution, SinkKind, Trigger, Webhook

Revocation = Literal["revoke_previous_secrets_after_h24", "revoke_previous_secrets_immediately"]


class Turns(Protocol):
    """How a trigger's work is checked, started and stopped: the engine's side."""

    async def check(self, work: Json, caller: Caller) -> Json:
        """Return the work as it is kept, with every id whole.

        Args:
            work: `{"input", "agent" | "model", "session": "new" | "same" | id, "environment", "share_environment",
                "budget", "approvals", "dispatch", "limits", "labels", "system_instruction", "ttl_s", "title"}`.

        Raises:
            InvalidArgument, NotFound, UnknownModel, MissingKey ...: it could not run; the field is named.
        """
        ...

    async def start(self, execution: Execution, cwd: str | None) -> None:
        """Start the turn of an execution, under `start_key(execution.id)`: a second call starts nothing more.

        Raises: as `Engine.create_session` and `Engine.send_turn`.
        """
        ...

    async def cancel(self, interaction_id: str, owner: str) -> None:
        """Stop an interaction. Idempotent; one that is gone is stopped."""
        ...


@dataclass(slots=True)
class WebhookMade:
    """A webhook with the secret that is shown this once; `None` for a sink that nothing is signed for."""

    webhook: Webhook
    new_signing_secret: str | None


@dataclass(slots=True)
class Receipt:
    """What deleting took away and left."""

    id: str
    deleted_at: float
    counts: dict[str, int]


class Schedules(Protocol):
    """Triggers that start turns, and webhooks that tell of what happened."""

    # -- life ------------------------------------------------------------------------------------------------
    def attach(self, turns: Turns) -> None:
        """Give it the engine's side. Called once, before `start`."""
        ...

    async def start(self) -> None:
        """Begin to fire and deliver. The store is open."""
        ...

    async def drain(self) -> None:
        """Start nothing more; wait, bounded, for what is being started or delivered."""
        ...

    async def aclose(self) -> None: ...

    @property
    def holding(self) -> int:
        """How many things the daemon must stay for: active triggers, runs, deliveries."""
        ...

    async def status(self, *, caller: Caller = LOCAL) -> Json:
        """`{"triggers", "active", "in_error", "next_run_at", "webhooks", "failing", "undelivered"}`."""
        ...

    # -- triggers --------------------------------------------------------------------------------------------
    async def create_trigger(
        self,
        *,
        schedule: str,
        work: Json,
        time_zone: str | None = None,
        display_name: str | None = None,
        missed: str | None = None,
        overlap: str = "skip",
        max_consecutive_failures: int = 5,
        execution_timeout_seconds: float = 600,
        paused: bool = False,
        idempotency_key: str | None = None,
        caller: Caller = LOCAL,
    ) -> Trigger:
        """Keep a schedule and what it starts (see `Turns.check`).

        Args:
            schedule: five cron fields, `@daily` and the like, `every 2h`, or `at 2026-12-01T09:00`.
            time_zone: an IANA name; default: this machine's.
            missed: what becomes of times at which no daemon ran: `skip`, or `once` for one run that makes up for them
                all. Default: `once` for an `at`, else `skip`.
            overlap: when the last run has not ended: `skip`, or `queue`.
            max_consecutive_failures: so many stop the trigger with status error; 0 is never.
        """
        ...

    async def get_trigger(self, trigger_id: str, *, caller: Caller = LOCAL) -> Trigger: ...

    async def list_triggers(
        self, *, status: str | None = None, limit: int = 20, cursor: str | None = None, caller: Caller = LOCAL
    ) -> Page: ...

    async def update_trigger(self, trigger_id: str, changes: Json, *, caller: Caller = LOCAL) -> Trigger:
        """Change any of what `create_trigger` takes, by the same names; `work` is put over the old one field by field
        (`None` takes a field away). `status` may be `active` or `paused`. What runs is not touched."""
        ...

    async def run_trigger(
        self, trigger_id: str, *, idempotency_key: str | None = None, caller: Caller = LOCAL
    ) -> Execution:
        """Run it now, also while it is paused. Returns when its turn was accepted, or could not be.

        Raises:
            Conflict: its last run has not ended, and it does not queue.
        """
        ...

    async def delete_trigger(self, trigger_id: str, *, caller: Caller = LOCAL) -> Receipt:
        """Remove it. What it ran stays on record; what runs goes on."""
        ...

    async def get_execution(self, execution_id: str, *, caller: Caller = LOCAL) -> Execution: ...

    async def list_executions(
        self,
        *,
        trigger_id: str | None = None,
        status: str | None = None,
        limit: int = 20,
        cursor: str | None = None,
        caller: Caller = LOCAL,
    ) -> Page:
        """Newest first. The id of a deleted trigger finds what it ran."""
        ...

    # -- webhooks --------------------------------------------------------------------------------------------
    async def create_webhook(
        self,
        *,
        uri: str | None = None,
        command: list[str] | str | None = None,
        desktop: bool = False,
        subscribed_events: list[str] | None = None,
        name: str | None = None,
        background_only: bool | None = None,
        allow_local: bool = False,
        shell: bool = False,
        timeout_s: float | None = None,
        user_metadata: Json | None = None,
        interaction_id: str | None = None,
        idempotency_key: str | None = None,
        by_hand: bool = False,
        caller: Caller = LOCAL,
    ) -> WebhookMade:
        """Have somebody told: a URL, the desktop, or a command (exactly one of the three).

        Args:
            subscribed_events: some of `EVENTS`, or `*` for all (the default).
            background_only: leave out turns that somebody waits for; default: for the desktop only.
            allow_local: the URL may name this machine (`http://localhost:8000/...`).
            interaction_id: tell of this interaction only, also if it has ended already. Such a webhook is not listed,
                and forgotten after its deliveries.
            shell: `command` is one text for the shell instead of a list of words.
            by_hand: a person at the command line asks, and no model: only then may there be a command.

        Raises:
            InvalidArgument, NetworkRefused: where it may not go.
            SandboxUnavailable: this machine has no way to show a notification.
        """
        ...

    async def get_webhook(self, webhook_id: str, *, caller: Caller = LOCAL) -> Webhook: ...

    async def list_webhooks(self, *, limit: int = 20, cursor: str | None = None, caller: Caller = LOCAL) -> Page: ...

    async def update_webhook(
        self, webhook_id: str, changes: Json, *, by_hand: bool = False, caller: Caller = LOCAL
    ) -> Webhook:
        """Change `uri`, `command`, `subscribed_events`, `name`, `background_only`, `allow_local`, `user_metadata`,
        `timeout_s`, or `status` (`enabled`, `disabled`). Disabling gives up what was still to be delivered."""
        ...

    async def ping_webhook(self, webhook_id: str, *, caller: Caller = LOCAL) -> Delivery:
        """Send a `webhook.ping` once, now, and return how it went; also while it is disabled."""
        ...

    async def rotate_secret(
        self, webhook_id: str, *, revocation: Revocation | None = None, caller: Caller = LOCAL
    ) -> WebhookMade:
        """Make a new signing secret. The old one signs as well for 24 hours, or is gone at once."""
        ...

    async def delete_webhook(self, webhook_id: str, *, caller: Caller = LOCAL) -> Receipt: ...

    async def list_deliveries(
        self,
        *,
        webhook_id: str | None = None,
        status: str | None = None,
        limit: int = 20,
        cursor: str | None = None,
        caller: Caller = LOCAL,
    ) -> Page:
        """Newest first, each with its attempts."""
        ...

    async def redeliver(self, delivery_id: str, *, caller: Caller = LOCAL) -> Delivery:
        """Have an event delivered (again) under its old `webhook-id`."""
        ...


__all__ = [
    "Attempt",
    "Delivery",
    "Execution",
    "Page",
    "Receipt",
    "Revocation",
    "Schedules",
    "SinkKind",
    "Trigger",
    "Turns",
    "Webhook",
    "WebhookMade",
]
