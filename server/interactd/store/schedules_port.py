"""What is kept of triggers and webhooks, and what a backend promises about it.

As in `store.port`: a method is one transaction, and what returned has committed. Everything that decides who does a
thing (a firing, a start, a delivery) is decided in the store, so that two daemons on one store never both do it.

An interaction's own transactions take part: `accept` with the idempotency key that `start_key` gives ties the
interaction to its execution; `settle` ends the execution and writes the deliveries of that event.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal, Protocol

from interactd.nouns import Json
from interactd.store.port import IdempotencyKey, Page, Started

TriggerStatus = Literal["active", "paused", "error", "completed"]
ExecutionStatus = Literal["queued", "in_progress", "completed", "failed", "skipped", "timed_out"]
Missed = Literal["skip", "once"]
Overlap = Literal["skip", "queue"]
Cause = Literal["schedule", "catch_up", "manual"]
WebhookStatus = Literal["enabled", "disabled", "disabled_due_to_failed_deliveries"]
SinkKind = Literal["http", "desktop", "command"]
DeliveryStatus = Literal["pending", "delivered", "failed"]

START_KEY: Final = "trigger:"
EVENTS: Final = (
    "interaction.completed",
    "interaction.failed",
    "interaction.cancelled",
    "interaction.requires_action",
    "interaction.incomplete",
    "interaction.budget_exceeded",
    "trigger.failed",
)
PING: Final = "webhook.ping"
GIVE_UP_S: Final = 24 * 3600.0
"""How long a delivery is tried."""


def start_key(execution_id: str) -> str:
    """The idempotency key of an execution's turn; the store recognises it."""
    return START_KEY + execution_id


@dataclass(slots=True)
class Trigger:
    """A schedule and what it starts. Times are seconds since the epoch."""

    id: str
    owner: str
    schedule: str
    time_zone: str
    work: Json
    """What runs: `{"input", "agent" | "model", "session", "environment", ...}`, checked by the engine."""
    created_at: float
    updated_at: float
    anchor_at: float
    """Where `every ...` counts from."""
    display_name: str | None = None
    status: TriggerStatus = "active"
    missed: Missed = "skip"
    overlap: Overlap = "skip"
    max_consecutive_failures: int = 5
    execution_timeout_s: float = 600
    next_run_at: float | None = None
    decided_at: float = 0
    """The clock when `next_run_at` was worked out: a clock that shows less went back."""
    last_run_at: float | None = None
    last_pause_at: float | None = None
    last_resume_at: float | None = None
    consecutive_failure_count: int = 0
    session_id: str | None = None
    """The one session that a trigger with session `same` goes on in, once it is there."""
    environment_id: str | None = None
    """The one that its runs share, once the first has made it."""
    error: Json | None = None
    cwd: str | None = None
    revision: int = 1


@dataclass(slots=True)
class Execution:
    """One firing. `slot` is unique within a trigger: what has a row was decided, and is never decided again."""

    id: str
    trigger_id: str
    owner: str
    slot: str
    scheduled_at: float
    status: ExecutionStatus
    cause: Cause
    created_at: float
    timeout_s: float = 600
    work: Json = field(default_factory=dict[str, Any])
    reason: str | None = None
    """Why it was skipped: missed, overlap, queue_full, paused, deleted, error."""
    details: Json | None = None
    """For missed ones: `{"count", "from", "to"}`."""
    start_at: float | None = None
    """When to (try to) start it; moved on by who tries, so that only one does."""
    started_at: float | None = None
    finished_at: float | None = None
    deadline_at: float | None = None
    session_id: str | None = None
    interaction_id: str | None = None
    environment_id: str | None = None
    error: Json | None = None


@dataclass(slots=True)
class Decision:
    """What is to become of a trigger's due time, worked out from the trigger as it was at `revision`."""

    trigger_id: str
    revision: int
    was_next: float | None
    next_run_at: float | None
    now: float
    executions: list[Execution] = field(default_factory=list[Execution])
    """In order: what was missed, and what runs (with status in_progress; the store may turn that into queued or
    skipped)."""


@dataclass(slots=True)
class Webhook:
    """Who is told. `target`: `{"uri"}`, `{"argv", "timeout_s"}`, or empty for the desktop."""

    id: str
    owner: str
    kind: SinkKind
    target: Json
    subscribed_events: list[str]
    created_at: float
    updated_at: float
    name: str | None = None
    status: WebhookStatus = "enabled"
    background_only: bool = False
    allow_local: bool = False
    interaction_id: str | None = None
    """Told of this one only; not listed, and forgotten with its deliveries."""
    user_metadata: Json | None = None
    signing_secrets: list[Json] = field(default_factory=list[Json])
    """Newest first: `{"ref", "truncated_secret", "expire_at"}`; the secret itself is in the vault under `ref`."""
    failing_since: float | None = None
    consecutive_failures: int = 0
    last_success_at: float | None = None
    last_error: str | None = None


@dataclass(slots=True)
class Attempt:
    """One try of a delivery. `answer` is the beginning of what came back."""

    number: int
    at: float
    ok: bool
    status_code: int | None = None
    duration_ms: int = 0
    answer: str = ""
    error: str | None = None


@dataclass(slots=True)
class Delivery:
    """One event for one webhook. Its id is the `webhook-id` of every attempt."""

    id: str
    webhook_id: str
    owner: str
    event: str
    subject_id: str
    payload: str
    created_at: float
    status: DeliveryStatus = "pending"
    next_at: float | None = None
    give_up_at: float = 0
    claimed: bool = False
    """Somebody makes it now, and has until `next_at`."""
    attempts: int = 0
    reason: str | None = None
    """Why it was given up."""
    log: list[Attempt] = field(default_factory=list[Attempt])


@dataclass(slots=True)
class Claimed:
    """A delivery to make now, and for whom."""

    delivery: Delivery
    webhook: Webhook


@dataclass(slots=True)
class Due:
    """What is waited for, and how many things keep a daemon alive."""

    next_run_at: float | None = None
    start_at: float | None = None
    deadline_at: float | None = None
    delivery_at: float | None = None
    triggers: int = 0
    """Active ones that will be due."""
    running: int = 0
    queued: int = 0
    cancels: int = 0
    deliveries: int = 0


class ScheduleStore(Protocol):
    """Triggers, executions, webhooks and deliveries. Ids in are whole, except for `find`."""

    def listen(self, changed: Callable[[], None]) -> None:
        """Have `changed` called, on the event loop, after every commit of this process that ended an execution or wrote
        a delivery because an interaction was settled."""
        ...

    async def find(
        self, kind: Literal["trigger", "execution", "webhook", "delivery", "interaction"], prefix: str, owner: str
    ) -> str:
        """The owner's one id that starts so. Raises: NotFound, AmbiguousId."""
        ...

    # -- triggers --------------------------------------------------------------------------------------------
    async def add_trigger(self, trigger: Trigger, key: IdempotencyKey | None, most: int) -> Started:
        """Raises: Conflict: the key was used for something else, or the owner has `most` already."""
        ...

    async def get_trigger(self, trigger_id: str) -> Trigger:
        """Raises: NotFound."""
        ...

    async def list_triggers(
        self, *, owner: str, statuses: Sequence[str] | None = None, limit: int = 50, cursor: str | None = None
    ) -> Page:
        """Oldest first."""
        ...

    async def put_trigger(self, trigger: Trigger, revision: int) -> bool:
        """Replace the row if it is still at `revision`. Leaving `active` skips what is queued."""
        ...

    async def delete_trigger(self, trigger_id: str, now: float) -> dict[str, int]:
        """Remove it and every byte of it; its executions stay. Returns `{"executions_kept", "still_running"}`. Raises:
        NotFound."""
        ...

    async def due_triggers(self, now: float) -> list[Trigger]:
        """Active ones whose time has come, or that were decided when the clock showed a later time than now."""
        ...

    async def fire(self, decision: Decision) -> list[Execution]:
        """Carry out a decision unless the trigger has changed since; returns the executions that were recorded, as
        they were recorded."""
        ...

    # -- executions ------------------------------------------------------------------------------------------
    async def add_execution(self, execution: Execution, key: IdempotencyKey | None) -> Started:
        """Record a run by hand.

        Raises:
            Conflict: the key, or the last one still runs and the trigger does not queue.
            NotFound: the trigger.
        """
        ...

    async def claim_starts(self, now: float, lease_s: float) -> list[Execution]:
        """Executions to start now; nobody else gets them for `lease_s`. Lets queued ones move up."""
        ...

    async def put_off(self, execution_id: str, start_at: float) -> None:
        """It could not be started just now; try again then."""
        ...

    async def failed_to_start(self, execution_id: str, error: Json, now: float) -> bool:
        """End it as failed, unless a turn was started for it after all."""
        ...

    async def expire(self, now: float) -> int:
        """End those whose time is up as timed_out; their interactions are then to be cancelled."""
        ...

    async def to_cancel(self) -> list[Execution]:
        """Timed-out ones whose interaction was not cancelled yet."""
        ...

    async def cancelled(self, execution_id: str) -> None: ...

    async def get_execution(self, execution_id: str) -> Execution:
        """Raises: NotFound."""
        ...

    async def list_executions(
        self,
        *,
        owner: str,
        trigger_id: str | None = None,
        statuses: Sequence[str] | None = None,
        limit: int = 20,
        cursor: str | None = None,
    ) -> Page:
        """Newest first."""
        ...

    # -- webhooks --------------------------------------------------------------------------------------------
    async def add_webhook(self, webhook: Webhook, key: IdempotencyKey | None, most: int) -> Started:
        """Insert it. One for an interaction that has ended, or waits for an answer, already is told of that now.

        Raises:
            Conflict: as add_trigger.
            NotFound: its interaction.
        """
        ...

    async def get_webhook(self, webhook_id: str) -> Webhook:
        """Raises: NotFound."""
        ...

    async def list_webhooks(self, *, owner: str, limit: int = 50, cursor: str | None = None) -> Page:
        """Oldest first."""
        ...

    async def put_webhook(self, webhook: Webhook, *, was_updated_at: float) -> bool:
        """Replace what a person sets of it, unless it was changed since. Disabling ends its pending deliveries."""
        ...

    async def delete_webhook(self, webhook_id: str) -> dict[str, int]:
        """Remove it with its deliveries, and every byte of them. Returns `{"deliveries", "pending"}`. Raises:
        NotFound."""
        ...

    async def secret_refs(self) -> set[str]:
        """The vault names that some webhook refers to."""
        ...

    # -- deliveries ------------------------------------------------------------------------------------------
    async def add_delivery(self, delivery: Delivery, lease_until: float | None) -> None:
        """Record one that was not made by an event (a ping); with a lease it is the caller's to make."""
        ...

    async def claim_deliveries(self, now: float, lease_s: float, busy: dict[str, int], most: int) -> list[Claimed]:
        """Deliveries that are due, at most `most` a webhook less those in `busy`; nobody else gets them for
        `lease_s`."""
        ...

    async def attempted(
        self,
        delivery_id: str,
        lease_until: float,
        attempt: Attempt,
        *,
        retry_at: float | None,
        disable: WebhookStatus | None = None,
        reason: str | None = None,
    ) -> bool:
        """Log an attempt and decide: delivered if it was ok, pending until `retry_at`, else given up for `reason`.
        `disable` sets the webhook's status and gives up all that is pending for it. False when the lease was lost."""
        ...

    async def get_delivery(self, delivery_id: str) -> Delivery:
        """With its log. Raises: NotFound."""
        ...

    async def list_deliveries(
        self,
        *,
        owner: str,
        webhook_id: str | None = None,
        status: str | None = None,
        limit: int = 20,
        cursor: str | None = None,
    ) -> Page:
        """Newest first, with their logs."""
        ...

    async def redeliver(self, delivery_id: str, now: float) -> Delivery:
        """Make it due again for another day. Raises: NotFound; Conflict when its webhook is disabled or gone."""
        ...

    # -- all -------------------------------------------------------------------------------------------------
    async def due(self) -> Due:
        """What is waited for, over all owners."""
        ...

    async def counts(self, *, owner: str) -> Json:
        """`{"triggers", "active", "in_error": [{"id", "display_name"}], "next_run_at", "webhooks",
        "failing": [{"id", "name", "status"}], "undelivered"}`."""
        ...

    async def prune(self, before: float) -> int:
        """Forget what ended before then: executions but each trigger's last hundred, and deliveries."""
        ...
