"""The loop that makes deliveries: claims what is due, tries it, logs it, and says when to try again.

At least once: a daemon that is killed between the receiver's answer and the log tries again under the same webhook-id,
which is how a receiver knows it. Two daemons do not make one delivery at the same time: who claims it moves its time on
to the end of a lease, and an outcome counts only while that lease holds.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections import Counter
from collections.abc import Callable

from interactd.durable.bell import Bell
from interactd.durable.settings import DurableSettings
from interactd.durable.webhooks import commands, signing
from interactd.durable.webhooks.address import place_of
from interactd.durable.webhooks.keeping import SigningSecrets
from interactd.durable.webhooks.sending import Answer, Sender
from interactd.errors import InteractdError
from interactd.store.schedules_port import PING, Attempt, Claimed, Delivery, ScheduleStore, Webhook

log = logging.getLogger(__name__)

_AGAIN_S = 5.0
_STOP_S = 3.0
_LEASE_MARGIN_S = 20.0
_GROWTH = 3.0
_JITTER = 0.2


def retry_in(attempt: int, settings: DurableSettings, chance: float) -> float:
    """Return the seconds until the next try after so many: 5 s, 15 s, 45 s ... up to 6 h, give or take a fifth.

    Args:
        chance: from 0 to 1, so that receivers that failed together are not tried together.
    """
    pause = min(settings.first_retry_s * _GROWTH ** min(attempt - 1, 30), settings.longest_retry_s)
    return pause * (1 - _JITTER + 2 * _JITTER * chance)


class Delivering:
    """One per daemon, from `start` to `aclose`."""

    def __init__(
        self,
        store: ScheduleStore,
        secrets: SigningSecrets,
        sender: Sender,
        settings: DurableSettings,
        clock: Callable[[], float],
    ) -> None:
        self._store = store
        self._secrets = secrets
        self.sender = sender
        self._settings = settings
        self._clock = clock
        self.bell = Bell()
        self.holding = 0
        self._busy: Counter[str] = Counter()
        self._tasks: set[asyncio.Task[None]] = set()
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin; what is held is known when this returns."""
        self.holding = (await self._store.due()).deliveries
        self._task = asyncio.create_task(self._run(), name="webhooks")

    async def aclose(self) -> None:
        """Claim nothing more, and wait a little for what is under way; the rest is delivered by the next daemon."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
            self._task = None
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=_STOP_S)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    @property
    def lease_s(self) -> float:
        """How long a delivery is one daemon's own, besides what its command may take."""
        return max(self._settings.answer_s, self._settings.command_s) + _LEASE_MARGIN_S

    async def _run(self) -> None:
        while True:
            try:
                pause = await self._pass()
            except InteractdError as error:
                log.warning("webhooks: %s", error)
                pause = _AGAIN_S
            except Exception:
                log.exception("webhooks: a pass failed")
                pause = _AGAIN_S
            await self.bell.wait(pause)

    async def _pass(self) -> float | None:
        now = self._clock()
        due = await self._store.due()
        self.holding = due.deliveries
        if not due.deliveries or due.delivery_at is None:
            return None
        if due.delivery_at > now:
            return min(due.delivery_at - now, self._settings.recheck_s)
        room = self._settings.deliveries_at_once - sum(self._busy.values())
        if room <= 0:
            # One of them ends, and rings.
            return self._settings.recheck_s
        most = min(self._settings.deliveries_per_webhook, room)
        claimed = await self._store.claim_deliveries(now, self.lease_s, dict(self._busy), most)
        for one in claimed:
            self._busy[one.webhook.id] += 1
            task = asyncio.create_task(self._deliver(one), name=f"delivery {one.delivery.id}")
            self._tasks.add(task)
            task.add_done_callback(lambda done, id=one.webhook.id: self._done(done, id))
        if claimed:
            return 0
        # What is due is that of webhooks which are busy enough; it goes on when one of theirs ends.
        return self._settings.recheck_s if self._busy else _AGAIN_S

    def _done(self, task: asyncio.Task[None], webhook_id: str) -> None:
        self._tasks.discard(task)
        self._busy[webhook_id] -= 1
        if self._busy[webhook_id] <= 0:
            del self._busy[webhook_id]
        self.bell.ring()

    async def _deliver(self, claimed: Claimed) -> None:
        try:
            await self.attempt(claimed.delivery, claimed.webhook)
        except InteractdError as error:
            # It is tried again when its lease is over.
            log.warning("delivery %s cannot be noted: %s", claimed.delivery.id, error)
        except Exception:
            log.exception("delivery %s failed", claimed.delivery.id)

    async def attempt(self, delivery: Delivery, webhook: Webhook) -> Answer:
        """Try once and write down how it went; the delivery is claimed (`next_at` is the end of the lease)."""
        assert delivery.next_at is not None
        loop = asyncio.get_running_loop()
        began, at = loop.time(), self._clock()
        answer = await self._try(delivery, webhook, at)
        took = loop.time() - began
        now = self._clock()
        retry_at: float | None = None
        reason: str | None = None
        if not answer.ok:
            if answer.final:
                reason = "gone"
            elif delivery.event == PING:
                reason = "ping"
            elif now >= delivery.give_up_at:
                reason = "gave_up"
            else:
                pause = retry_in(delivery.attempts + 1, self._settings, random.random())
                retry_at = min(now + max(pause, answer.retry_after_s or 0), max(delivery.give_up_at, now + 1))
        await self._store.attempted(
            delivery.id,
            delivery.next_at,
            Attempt(
                number=0,
                at=at,
                ok=answer.ok,
                status_code=answer.status_code,
                duration_ms=round(took * 1000),
                answer=answer.answer,
                error=answer.error,
            ),
            retry_at=retry_at,
            disable="disabled" if answer.final and delivery.event != PING else None,
            reason=reason,
        )
        # Never the address: it may have a token in it.
        level = logging.DEBUG if answer.ok else logging.INFO
        log.log(level, "delivery %s to %s: %s", delivery.id, webhook.id, answer.error or answer.status_code or "done")
        return answer

    async def _try(self, delivery: Delivery, webhook: Webhook, now: float) -> Answer:
        if webhook.kind == "desktop":
            return await commands.show(delivery.payload)
        if webhook.kind == "command":
            facts = {
                "INTERACTD_EVENT": delivery.event,
                "INTERACTD_ID": delivery.subject_id,
                "INTERACTD_DELIVERY": delivery.id,
                "INTERACTD_WEBHOOK": webhook.id,
            }
            timeout = float(webhook.target.get("timeout_s") or self._settings.command_s)
            return await commands.run(webhook.target["argv"], delivery.payload, facts, timeout)
        body = delivery.payload.encode()
        try:
            secrets = await self._secrets.signing(webhook.signing_secrets, now)
            place = place_of(webhook.target["uri"], allow_local=webhook.allow_local, allowed=self.sender.allowed)
        except InteractdError as error:
            return Answer(False, error=error.message)
        headers = signing.headers(secrets, delivery.id, int(now), body)
        return await self.sender.post(place, headers, body, allow_local=webhook.allow_local)
