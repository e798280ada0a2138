"""What people do with webhooks: make, show, change, ping, rotate, delete; and with their deliveries."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, Final, cast

from interactd.durable.checks import (
    MAX_METADATA,
    check_choice,
    check_flag,
    check_limit,
    check_name,
    check_number,
    check_object,
    id_of,
)
from interactd.durable.port import Receipt, Revocation, WebhookMade
from interactd.durable.settings import DurableSettings
from interactd.durable.triggers.service import key_of
from interactd.durable.webhooks import commands
from interactd.durable.webhooks.address import place_of
from interactd.durable.webhooks.delivering import Delivering
from interactd.durable.webhooks.keeping import ROTATION_S, SigningSecrets
from interactd.durable.webhooks.signing import new_secret
from interactd.errors import Conflict, InteractdError, InvalidArgument, NetworkRefused
from interactd.ids import new_id
from interactd.nouns import Caller, Json
from interactd.store.payloads import payload_of
from interactd.store.port import Page
from interactd.store.schedules_port import EVENTS, PING, Delivery, ScheduleStore, SinkKind, Webhook

ALL: Final = "*"
DELIVERY_STATUSES: Final = ("pending", "delivered", "failed")
_KEPT_SECRETS: Final = 3
REVOCATIONS: Final = ("revoke_previous_secrets_after_h24", "revoke_previous_secrets_immediately")
_CHANGES: Final = (
    "uri",
    "command",
    "shell",
    "subscribed_events",
    "name",
    "background_only",
    "allow_local",
    "user_metadata",
    "timeout_s",
    "status",
)
_TRIES: Final = 5


class Webhooks:
    """The methods of `Schedules` that are about webhooks."""

    def __init__(
        self,
        store: ScheduleStore,
        secrets: SigningSecrets,
        delivering: Delivering,
        settings: DurableSettings,
        clock: Callable[[], float],
    ) -> None:
        self._store = store
        self._secrets = secrets
        self._delivering = delivering
        self._settings = settings
        self._clock = clock

    async def create(
        self,
        *,
        uri: str | None,
        command: list[str] | str | None,
        desktop: bool,
        subscribed_events: list[str] | None,
        name: str | None,
        background_only: bool | None,
        allow_local: bool,
        shell: bool,
        timeout_s: float | None,
        user_metadata: Json | None,
        interaction_id: str | None,
        idempotency_key: str | None,
        by_hand: bool,
        caller: Caller,
    ) -> WebhookMade:
        """See `Schedules.create_webhook`."""
        now = self._clock()
        asked: dict[SinkKind, bool] = {
            "http": uri is not None,
            "command": command is not None,
            "desktop": bool(desktop),
        }
        kinds: list[SinkKind] = [one for one, given in asked.items() if given]
        if len(kinds) != 1:
            given = " and ".join("uri" if one == "http" else one for one in kinds) or "none"
            raise InvalidArgument(f"uri, command, desktop: expected exactly one of the three, got {given}", field="uri")
        kind = kinds[0]
        check_flag("allow_local", allow_local)
        webhook = Webhook(
            id=new_id("webhook"),
            owner=caller.owner,
            kind=kind,
            target={},
            subscribed_events=events(subscribed_events),
            created_at=now,
            updated_at=now,
            name=check_name("name", name),
            background_only=check_flag(
                "background_only", kind == "desktop" if background_only is None else background_only
            ),
            allow_local=allow_local,
            user_metadata=_metadata(user_metadata),
        )
        if interaction_id is not None:
            webhook.interaction_id = await id_of(self._store, "interaction", interaction_id, caller.owner)
        webhook.target = self._target(kind, uri, command, shell, timeout_s, allow_local, by_hand)
        key = key_of(
            idempotency_key,
            caller,
            call="create_webhook",
            target=webhook.target,
            events=webhook.subscribed_events,
            name=name,
            background_only=background_only,
            allow_local=allow_local,
            user_metadata=user_metadata,
            **({} if webhook.interaction_id is None else {"interaction_id": webhook.interaction_id}),
        )
        # The secret first: a webhook without one could not sign, a secret without a webhook is swept away.
        secret = new_secret() if kind == "http" else None
        if secret is not None:
            webhook.signing_secrets = [await self._secrets.keep(webhook.id, secret)]
        try:
            started = await self._store.add_webhook(webhook, key, self._settings.max_webhooks)
        except InteractdError:
            await self._secrets.forget(webhook.signing_secrets)
            raise
        if not started.created:
            # The same call again: its first answer, with the secret in it, never arrived.
            await self._secrets.forget(webhook.signing_secrets)
            webhook = await self._store.get_webhook(started.id)
            secret = await self._secrets.reveal(webhook.signing_secrets[0]["ref"]) if webhook.signing_secrets else None
        self._delivering.bell.ring()
        return WebhookMade(webhook, None if secret is None else secret.reveal())

    def _target(
        self,
        kind: SinkKind,
        uri: Any,
        command: Any,
        shell: Any,
        timeout_s: Any,
        allow_local: bool,
        by_hand: bool,
    ) -> Json:
        if kind != "command" and timeout_s is not None:
            raise InvalidArgument(
                "timeout_s: expected nothing where a uri or the desktop is told: only a command takes one",
                repair="Leave it out.",
                field="timeout_s",
            )
        if kind == "http":
            place_of(uri, allow_local=allow_local, allowed=self._delivering.sender.allowed)
            return {"uri": uri.strip()}
        if kind == "desktop":
            commands.check_desktop()
            return {}
        self._check_may_command(by_hand)
        argv = commands.check_command(command, shell=check_flag("shell", shell))
        if timeout_s is None:
            return {"argv": argv}
        return {"argv": argv, "timeout_s": check_number("timeout_s", timeout_s, 1, commands.MAX_TIMEOUT_S)}

    def _check_may_command(self, by_hand: bool) -> None:
        """A command runs as the user, outside every sandbox: a model that was talked into making one must not be able
        to."""
        allowed = self._settings.commands
        if allowed == "anyone" or (allowed == "cli" and by_hand):
            return
        if allowed == "off":
            raise NetworkRefused(
                "command: webhooks that run a command are switched off (webhooks.commands in config.toml)",
                repair="Use a uri or the desktop instead.",
                field="command",
            )
        raise NetworkRefused(
            "command: a webhook that runs a command on this machine is made on the command line only",
            repair="Ask the user to run `interactd webhooks create --command ...`, or to set webhooks.commands to"
            ' "anyone" in config.toml.',
            field="command",
        )

    async def get(self, text: str, caller: Caller) -> Webhook:
        """See `Schedules.get_webhook`."""
        return await self._store.get_webhook(await self._id(text, caller))

    async def listing(self, limit: int, cursor: str | None, caller: Caller) -> Page:
        """See `Schedules.list_webhooks`."""
        return await self._store.list_webhooks(owner=caller.owner, limit=check_limit(limit), cursor=cursor)

    async def update(self, text: str, changes: Json, by_hand: bool, caller: Caller) -> Webhook:
        """See `Schedules.update_webhook`."""
        id = await self._id(text, caller)
        check_object("changes", changes)
        for name in changes:
            if name not in _CHANGES:
                raise InvalidArgument(
                    f"{name:.60}: no such field of a webhook", repair=f"There are {', '.join(_CHANGES)}.", field=name
                )
        for _ in range(_TRIES):
            webhook = await self._store.get_webhook(id)
            was = webhook.updated_at
            self._change(webhook, changes, by_hand)
            # Two changes within one tick of the clock must not look like one.
            webhook.updated_at = max(self._clock(), was + 0.001)
            if await self._store.put_webhook(webhook, was_updated_at=was):
                self._delivering.bell.ring()
                return await self._store.get_webhook(id)
        raise Conflict(f"webhook {id} is being changed by somebody else", repair="Make the same call again.", id=id)

    def _change(self, webhook: Webhook, changes: Json, by_hand: bool) -> None:
        if "name" in changes:
            webhook.name = check_name("name", changes["name"])
        if "subscribed_events" in changes:
            webhook.subscribed_events = events(changes["subscribed_events"])
        if "background_only" in changes:
            webhook.background_only = check_flag("background_only", changes["background_only"])
        if "allow_local" in changes:
            webhook.allow_local = check_flag("allow_local", changes["allow_local"])
        if "user_metadata" in changes:
            webhook.user_metadata = _metadata(changes["user_metadata"])
        if "status" in changes:
            webhook.status = cast("Any", check_choice("status", changes["status"], ("enabled", "disabled")))
        for name, kind in (("uri", "http"), ("command", "command"), ("timeout_s", "command")):
            if name in changes and webhook.kind != kind:
                raise InvalidArgument(
                    f"{name}: this webhook's kind is {webhook.kind}, which does not change",
                    repair="Make another one with create_webhook, and delete this one.",
                    field=name,
                )
        target = webhook.target
        if webhook.kind == "http" and ("uri" in changes or "allow_local" in changes):
            uri = changes.get("uri", target["uri"])
            webhook.target = self._target("http", uri, None, False, None, webhook.allow_local, by_hand)
        elif webhook.kind == "command" and ("command" in changes or "timeout_s" in changes):
            timeout = changes.get("timeout_s", target.get("timeout_s"))
            if "command" in changes:
                given, shell = changes["command"], changes.get("shell", False)
                webhook.target = self._target("command", None, given, shell, timeout, False, by_hand)
            else:
                limit = check_number("timeout_s", timeout, 1, commands.MAX_TIMEOUT_S)
                webhook.target = {**target, "timeout_s": limit}

    async def ping(self, text: str, caller: Caller) -> Delivery:
        """See `Schedules.ping_webhook`."""
        webhook = await self._store.get_webhook(await self._id(text, caller))
        now = self._clock()
        delivery = Delivery(
            id=new_id("delivery"),
            webhook_id=webhook.id,
            owner=webhook.owner,
            event=PING,
            subject_id=webhook.id,
            payload=payload_of(PING, now, {"id": webhook.id}, webhook.user_metadata),
            created_at=now,
            give_up_at=now,
        )
        lease = self._delivering.lease_s + float(webhook.target.get("timeout_s") or 0)
        await self._store.add_delivery(delivery, now + lease)
        await self._delivering.attempt(delivery, webhook)
        return await self._store.get_delivery(delivery.id)

    async def rotate(self, text: str, revocation: Revocation | None, caller: Caller) -> WebhookMade:
        """See `Schedules.rotate_secret`."""
        id = await self._id(text, caller)
        how = check_choice("revocation", revocation or REVOCATIONS[0], REVOCATIONS)
        secret = new_secret()
        for _ in range(_TRIES):
            webhook = await self._store.get_webhook(id)
            if webhook.kind != "http":
                raise InvalidArgument(f"webhook {id} is a {webhook.kind} sink, which signs nothing", field="webhook_id")
            now, was = self._clock(), webhook.updated_at
            row = await self._secrets.keep(id, secret)
            live = [one for one in webhook.signing_secrets if one["expire_at"] is None or one["expire_at"] > now]
            # More than the last one: a rotation whose answer a crash took is made again, and what the receiver has is
            # then the one before that.
            kept = [] if how == REVOCATIONS[1] else live[:_KEPT_SECRETS]
            gone = [one for one in webhook.signing_secrets if one not in kept]
            for one in kept:
                one["expire_at"] = min(one["expire_at"] or now + ROTATION_S, now + ROTATION_S)
            webhook.signing_secrets = [row, *kept]
            webhook.updated_at = max(now, was + 0.001)
            if await self._store.put_webhook(webhook, was_updated_at=was):
                await self._secrets.forget(gone)
                return WebhookMade(webhook, secret.reveal())
            await self._secrets.forget([row])
        raise Conflict(f"webhook {id} is being changed by somebody else", repair="Make the same call again.", id=id)

    async def delete(self, text: str, caller: Caller) -> Receipt:
        """See `Schedules.delete_webhook`."""
        id = await self._id(text, caller)
        webhook = await self._store.get_webhook(id)
        counts = await self._store.delete_webhook(id)
        await self._secrets.forget(webhook.signing_secrets)
        self._delivering.bell.ring()
        return Receipt(id, self._clock(), counts)

    async def deliveries(
        self, webhook: str | None, status: str | None, limit: int, cursor: str | None, caller: Caller
    ) -> Page:
        """See `Schedules.list_deliveries`."""
        id = None if webhook is None else await self._id(webhook, caller)
        wanted = None if status is None else check_choice("status", status, DELIVERY_STATUSES)
        return await self._store.list_deliveries(
            owner=caller.owner, webhook_id=id, status=wanted, limit=check_limit(limit), cursor=cursor
        )

    async def redeliver(self, text: str, caller: Caller) -> Delivery:
        """See `Schedules.redeliver`."""
        id = await id_of(self._store, "delivery", text, caller.owner)
        delivery = await self._store.redeliver(id, self._clock())
        self._delivering.holding = max(1, self._delivering.holding)
        self._delivering.bell.ring()
        return delivery

    async def _id(self, text: str, caller: Caller) -> str:
        return await id_of(self._store, "webhook", text, caller.owner)


def events(given: Any) -> list[str]:
    """Return what is subscribed to, in a fixed order; `None` and `*` are everything.

    Raises:
        InvalidArgument: one is no event; the message has all.
    """
    if given is None:
        return [ALL]
    words = cast("list[Any]", given) if isinstance(given, list) else []
    for word in words:
        if word not in (*EVENTS, ALL):
            raise InvalidArgument(
                f"subscribed_events: {word!r:.60} is not an event",
                repair=f"There are {', '.join(EVENTS)}, and * for all of them.",
                field="subscribed_events",
            )
    if not words:
        raise InvalidArgument(
            "subscribed_events: expected a list of events",
            repair=f"Some of {', '.join(EVENTS)}, or *.",
            field="subscribed_events",
        )
    return [ALL] if ALL in words else [event for event in EVENTS if event in words]


def _metadata(given: Any) -> Json | None:
    if given is None:
        return None
    value = check_object("user_metadata", given)
    try:
        size = len(json.dumps(value))
    except (TypeError, ValueError, RecursionError):
        raise InvalidArgument("user_metadata: not plain JSON", field="user_metadata") from None
    if size > MAX_METADATA:
        raise InvalidArgument(f"user_metadata: more than {MAX_METADATA:,} bytes of JSON", field="user_metadata")
    return value
