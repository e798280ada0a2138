"""Triggers and webhooks of one daemon: `durable.port.Schedules` over a store in this process."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable
from typing import Any

from interactd.durable.port import Receipt, Revocation, Turns, WebhookMade
from interactd.durable.settings import DurableSettings
from interactd.durable.triggers.firing import Firing
from interactd.durable.triggers.service import Triggers
from interactd.durable.webhooks.address import networks
from interactd.durable.webhooks.delivering import Delivering
from interactd.durable.webhooks.keeping import SigningSecrets
from interactd.durable.webhooks.sending import Sender
from interactd.durable.webhooks.service import Webhooks
from interactd.errors import InteractdError
from interactd.nouns import LOCAL, Caller, Json
from interactd.sandbox.credentials.store import Credentials
from interactd.store.port import Page
from interactd.store.schedules_port import Delivery, Execution, ScheduleStore, Trigger, Webhook

log = logging.getLogger(__name__)


class LocalSchedules:
    """See `interactd.durable.port.Schedules` for what each method promises.

    Args:
        store: where triggers and webhooks are kept; opened and closed by the engine.
        vault: where signing secrets are kept.
        clock: seconds since the epoch; tests give their own.
        sender: how URLs are posted to; default: by the settings.
    """

    def __init__(
        self,
        store: ScheduleStore,
        vault: Credentials,
        settings: DurableSettings | None = None,
        *,
        clock: Callable[[], float] = time.time,
        sender: Sender | None = None,
    ) -> None:
        self._store = store
        self._clock = clock
        self._settings = settings or DurableSettings()
        self._secrets = SigningSecrets(vault)
        self._sender = sender or Sender(networks(self._settings.allow), timeout_s=self._settings.answer_s)
        self._firing: Firing | None = None
        self._delivering: Delivering | None = None
        self._triggers: Triggers | None = None
        self._webhooks: Webhooks | None = None

    # -- life ------------------------------------------------------------------------------------------------
    def attach(self, turns: Turns) -> None:
        store, settings, clock = self._store, self._settings, self._clock
        self._firing = Firing(store, turns, settings, clock)
        self._delivering = Delivering(store, self._secrets, self._sender, settings, clock)
        self._triggers = Triggers(store, turns, self._firing, settings, clock)
        self._webhooks = Webhooks(store, self._secrets, self._delivering, settings, clock)
        store.listen(self._news)

    def _news(self) -> None:
        self._fires.bell.ring()
        # Until the loop has looked, something may have to be delivered: the daemon stays.
        self._delivers.holding = max(1, self._delivers.holding)
        self._delivers.bell.ring()

    async def start(self) -> None:
        with contextlib.suppress(InteractdError):
            # What cannot be swept today is swept another day; it must not keep the daemon from starting.
            await self._secrets.sweep(await self._store.secret_refs(), self._clock())
        await self._fires.start()
        await self._delivers.start()

    async def drain(self) -> None:
        await self._fires.aclose()

    async def aclose(self) -> None:
        await self._fires.aclose()
        await self._delivers.aclose()

    @property
    def holding(self) -> int:
        return self._fires.holding + self._delivers.holding

    async def status(self, *, caller: Caller = LOCAL) -> Json:
        return await self._store.counts(owner=caller.owner)

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
        return await self._of_triggers.create(
            schedule=schedule,
            work=work,
            time_zone=time_zone,
            display_name=display_name,
            missed=missed,
            overlap=overlap,
            max_consecutive_failures=max_consecutive_failures,
            execution_timeout_seconds=execution_timeout_seconds,
            paused=paused,
            idempotency_key=idempotency_key,
            caller=caller,
        )

    async def get_trigger(self, trigger_id: str, *, caller: Caller = LOCAL) -> Trigger:
        return await self._of_triggers.get(trigger_id, caller)

    async def list_triggers(
        self, *, status: str | None = None, limit: int = 20, cursor: str | None = None, caller: Caller = LOCAL
    ) -> Page:
        return await self._of_triggers.listing(status, limit, cursor, caller)

    async def update_trigger(self, trigger_id: str, changes: Json, *, caller: Caller = LOCAL) -> Trigger:
        return await self._of_triggers.update(trigger_id, changes, caller)

    async def run_trigger(
        self, trigger_id: str, *, idempotency_key: str | None = None, caller: Caller = LOCAL
    ) -> Execution:
        return await self._of_triggers.run(trigger_id, idempotency_key, caller)

    async def delete_trigger(self, trigger_id: str, *, caller: Caller = LOCAL) -> Receipt:
        return await self._of_triggers.delete(trigger_id, caller)

    async def get_execution(self, execution_id: str, *, caller: Caller = LOCAL) -> Execution:
        return await self._of_triggers.execution(execution_id, caller)

    async def list_executions(
        self,
        *,
        trigger_id: str | None = None,
        status: str | None = None,
        limit: int = 20,
        cursor: str | None = None,
        caller: Caller = LOCAL,
    ) -> Page:
        return await self._of_triggers.executions(trigger_id, status, limit, cursor, caller)

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
        return await self._of_webhooks.create(
            uri=uri,
            command=command,
            desktop=desktop,
            subscribed_events=subscribed_events,
            name=name,
            background_only=background_only,
            allow_local=allow_local,
            shell=shell,
            timeout_s=timeout_s,
            user_metadata=user_metadata,
            interaction_id=interaction_id,
            idempotency_key=idempotency_key,
            by_hand=by_hand,
            caller=caller,
        )

    async def get_webhook(self, webhook_id: str, *, caller: Caller = LOCAL) -> Webhook:
        return await self._of_webhooks.get(webhook_id, caller)

    async def list_webhooks(self, *, limit: int = 20, cursor: str | None = None, caller: Caller = LOCAL) -> Page:
        return await self._of_webhooks.listing(limit, cursor, caller)

    async def update_webhook(
        self, webhook_id: str, changes: Json, *, by_hand: bool = False, caller: Caller = LOCAL
    ) -> Webhook:
        return await self._of_webhooks.update(webhook_id, changes, by_hand, caller)

    async def ping_webhook(self, webhook_id: str, *, caller: Caller = LOCAL) -> Delivery:
        return await self._of_webhooks.ping(webhook_id, caller)

    async def rotate_secret(
        self, webhook_id: str, *, revocation: Revocation | None = None, caller: Caller = LOCAL
    ) -> WebhookMade:
        return await self._of_webhooks.rotate(webhook_id, revocation, caller)

    async def delete_webhook(self, webhook_id: str, *, caller: Caller = LOCAL) -> Receipt:
        return await self._of_webhooks.delete(webhook_id, caller)

    async def list_deliveries(
        self,
        *,
        webhook_id: str | None = None,
        status: str | None = None,
        limit: int = 20,
        cursor: str | None = None,
        caller: Caller = LOCAL,
    ) -> Page:
        return await self._of_webhooks.deliveries(webhook_id, status, limit, cursor, caller)

    async def redeliver(self, delivery_id: str, *, caller: Caller = LOCAL) -> Delivery:
        return await self._of_webhooks.redeliver(delivery_id, caller)

    # -- parts -----------------------------------------------------------------------------------------------
    @property
    def _fires(self) -> Firing:
        return _attached(self._firing)

    @property
    def _delivers(self) -> Delivering:
        return _attached(self._delivering)

    @property
    def _of_triggers(self) -> Triggers:
        return _attached(self._triggers)

    @property
    def _of_webhooks(self) -> Webhooks:
        return _attached(self._webhooks)


def _attached(part: Any) -> Any:
    assert part is not None, "attach(turns) comes first"
    return part
