"""create_webhook, list_webhooks, update_webhook, ping_webhook, rotate_secret, delete_webhook, list_deliveries,
redeliver."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from interactd.nouns import Json
from interactd_tools.answers import schedules as read
from interactd_tools.answers.text import answer, call, plural
from interactd_tools.arguments.fields import Arguments, Cursor, InteractionId, Key, Line, pack_cursor
from interactd_tools.arguments.schedules import DeliveryId, Events, Object, WebhookId, choice
from interactd_tools.context import Annotations, CallContext, ToolResult
from interactd_tools.keys import key_for
from interactd_tools.registry import tool
from interactd_tools.schedules.triggers import more_of

_SET = "schedules"
_SECRET = (
    "Signing secret, shown this once: {}\nGive it to the receiver, which checks webhook-signature with it "
    "(standardwebhooks.com)."
)


class _Settings(Arguments):
    uri: Annotated[str, Field(max_length=2048, description="https://...; gets a signed POST.")] | None = None
    command: (
        Annotated[
            list[str],
            Field(
                description="A program and its arguments; the payload is on its stdin.",
                json_schema_extra={"schema": {"type": "array", "items": {"type": "string"}}},
            ),
        ]
        | None
    ) = None
    subscribed_events: Events | None = None
    name: Annotated[Line, Field(description="What to call it.")] | None = None
    background_only: Annotated[bool, Field(description="Leave out turns that somebody waits for.")] | None = None
    allow_local: Annotated[bool, Field(description="The uri may be on this machine.")] | None = None
    user_metadata: Annotated[Object, Field(description="Comes with every payload.")] | None = None

    def given(self) -> Json:
        """What was said."""
        names = ("uri", "command", "subscribed_events", "name", "background_only", "allow_local", "user_metadata")
        return {name: value for name in names if (value := getattr(self, name)) is not None}


class CreateWebhook(_Settings):
    desktop: Annotated[bool, Field(description="Show a notification on this machine.")] = False
    interaction_id: Annotated[InteractionId, Field(description="Tell of this one only.")] | None = None
    idempotency_key: Key | None = None


@tool(
    CreateWebhook,
    title="Create webhook",
    annotations=Annotations(read_only=False, destructive=False, idempotent=False, open_world=True),
    example='create_webhook(uri="https://example.org/hook", subscribed_events=["interaction.completed"])',
    toolset=_SET,
)
async def create_webhook(args: CreateWebhook, ctx: CallContext) -> ToolResult:
    """Have a URL, the desktop or a command told when an interaction ends or asks something, or a trigger fails:
    exactly one of uri, desktop, command. Payloads are thin (type, timestamp, id), signed by Standard Webhooks, and
    delivered at least once, tried for 24 hours. The signing secret is shown once. With interaction_id it is told of
    that one only, also if it has ended already. Then ping_webhook tries it."""
    made = await ctx.engine.schedules.create_webhook(
        **args.given(),
        desktop=args.desktop,
        interaction_id=args.interaction_id,
        idempotency_key=key_for(ctx, "create_webhook", args, args.idempotency_key),
        caller=ctx.caller,
    )
    one = made.webhook
    following: Json = {"tool": "ping_webhook", "arguments": {"webhook_id": one.id}}
    fields: Json = {"webhook_id": one.id, "status": one.status, "next": following}
    if made.new_signing_secret:
        fields["new_signing_secret"] = made.new_signing_secret
    return ToolResult(
        answer(
            read.webhook_head(one),
            f"Told of: {', '.join(one.subscribed_events)}"
            + (", of background turns only." if one.background_only else "."),
            _SECRET.format(made.new_signing_secret) if made.new_signing_secret else "",
            "Next: " + call(following["tool"], following["arguments"]),
        ),
        fields,
    )


class ListWebhooks(Arguments):
    limit: Annotated[int, Field(ge=1, le=200)] = 20
    cursor: Cursor | None = None


@tool(
    ListWebhooks,
    title="List webhooks",
    annotations=Annotations(read_only=True, destructive=False, idempotent=True, open_world=False),
    example="list_webhooks()",
    toolset=_SET,
)
async def list_webhooks(args: ListWebhooks, ctx: CallContext) -> ToolResult:
    """List who is told of what, and how their deliveries do. Secrets are not shown. Then list_deliveries for what was
    sent and answered."""
    page = await ctx.engine.schedules.list_webhooks(limit=args.limit, cursor=args.cursor, caller=ctx.caller)
    if not page.items:
        return ToolResult(
            answer("No webhooks.", 'Next: create_webhook(uri="https://example.org/hook")'),
            {"webhooks": [], "cursor": None},
        )
    then = call("list_deliveries", {"webhook_id": page.items[0].id})
    return ToolResult(
        answer(
            plural(len(page.items), "webhook") + (" (there are more)" if page.cursor else ""),
            "\n".join(map(read.webhook_line, page.items)),
            f"Next: {then}{more_of('list_webhooks', args, page)}",
        ),
        {"webhooks": [one.id for one in page.items], "cursor": pack_cursor(page.cursor)},
    )


class UpdateWebhook(_Settings):
    webhook_id: WebhookId
    status: Annotated[str, choice("enabled", "disabled")] | None = None


@tool(
    UpdateWebhook,
    title="Update webhook",
    annotations=Annotations(read_only=False, destructive=False, idempotent=True, open_world=True),
    example='update_webhook(webhook_id="whk_...", status="enabled")',
    toolset=_SET,
)
async def update_webhook(args: UpdateWebhook, ctx: CallContext) -> ToolResult:
    """Change a webhook: its uri, events, name, or status. Status enabled also brings back one that was switched off by
    failed deliveries; disabled gives up what was still to be delivered (redeliver sends it after all)."""
    changes = args.given() | ({} if args.status is None else {"status": args.status})
    one = await ctx.engine.schedules.update_webhook(args.webhook_id, changes, caller=ctx.caller)
    following: Json = {"tool": "ping_webhook", "arguments": {"webhook_id": one.id}}
    return ToolResult(
        answer(
            read.webhook_head(one),
            f"Told of: {', '.join(one.subscribed_events)}.",
            "Next: " + call(following["tool"], following["arguments"]),
        ),
        {"webhook_id": one.id, "status": one.status, "next": following},
    )


class PingWebhook(Arguments):
    webhook_id: WebhookId


@tool(
    PingWebhook,
    title="Ping webhook",
    annotations=Annotations(read_only=False, destructive=False, idempotent=False, open_world=True),
    example='ping_webhook(webhook_id="whk_...")',
    toolset=_SET,
)
async def ping_webhook(args: PingWebhook, ctx: CallContext) -> ToolResult:
    """Send a test event (webhook.ping) once, now, and say how the receiver answered; also while the webhook is
    disabled."""
    sent = await ctx.engine.schedules.ping_webhook(args.webhook_id, caller=ctx.caller)
    ok = sent.status == "delivered"
    following: Json = {"tool": "list_webhooks", "arguments": {}}
    if not ok:
        following = {"tool": "update_webhook", "arguments": {"webhook_id": sent.webhook_id, "uri": "https://..."}}
    return ToolResult(
        answer(
            f"{sent.status} · ping {sent.id} to webhook {sent.webhook_id}",
            read.delivery_line(sent),
            "Next: " + call(following["tool"], following["arguments"]),
        ),
        {"webhook_id": sent.webhook_id, "delivery_id": sent.id, "status": sent.status, "next": following},
        is_error=not ok,
    )


class RotateSecret(Arguments):
    webhook_id: WebhookId
    revoke: Annotated[str, choice("after_h24", "immediately")] = "after_h24"


@tool(
    RotateSecret,
    title="Rotate signing secret",
    annotations=Annotations(read_only=False, destructive=False, idempotent=False, open_world=False),
    example='rotate_secret(webhook_id="whk_...")',
    toolset=_SET,
)
async def rotate_secret(args: RotateSecret, ctx: CallContext) -> ToolResult:
    """Make a new signing secret for a webhook and show it once. The old one signs as well for 24 hours, so that the
    receiver can change over; with revoke immediately it is void at once."""
    made = await ctx.engine.schedules.rotate_secret(
        args.webhook_id,
        revocation="revoke_previous_secrets_immediately"
        if args.revoke == "immediately"
        else "revoke_previous_secrets_after_h24",
        caller=ctx.caller,
    )
    one = made.webhook
    following: Json = {"tool": "ping_webhook", "arguments": {"webhook_id": one.id}}
    return ToolResult(
        answer(
            read.webhook_head(one),
            _SECRET.format(made.new_signing_secret),
            "The old one is void." if args.revoke == "immediately" else "The old one signs as well for 24 hours.",
            "Next: " + call(following["tool"], following["arguments"]),
        ),
        {"webhook_id": one.id, "new_signing_secret": made.new_signing_secret, "next": following},
    )


class DeleteWebhook(Arguments):
    webhook_id: WebhookId


@tool(
    DeleteWebhook,
    title="Delete webhook",
    annotations=Annotations(read_only=False, destructive=True, idempotent=False, open_world=False),
    example='delete_webhook(webhook_id="whk_...")',
    toolset=_SET,
)
async def delete_webhook(args: DeleteWebhook, ctx: CallContext) -> ToolResult:
    """Delete a webhook for good, with its secret, its deliveries and what was still to be delivered. To stop it for a
    while, update_webhook with status disabled."""
    gone = await ctx.engine.schedules.delete_webhook(args.webhook_id, caller=ctx.caller)
    return ToolResult(
        answer(
            f"deleted · webhook {gone.id}",
            f"Gone with it: {gone.counts['deliveries']} deliveries, {gone.counts['pending']} of them not delivered.",
            "Next: list_webhooks()",
        ),
        {"webhook_id": gone.id, **gone.counts},
    )


class ListDeliveries(Arguments):
    webhook_id: Annotated[WebhookId, Field(description="Of one webhook.")] | None = None
    status: Annotated[str, choice("pending", "delivered", "failed")] | None = None
    limit: Annotated[int, Field(ge=1, le=200)] = 20
    cursor: Cursor | None = None


@tool(
    ListDeliveries,
    title="List deliveries",
    annotations=Annotations(read_only=True, destructive=False, idempotent=True, open_world=False),
    example="list_deliveries()",
    toolset=_SET,
)
async def list_deliveries(args: ListDeliveries, ctx: CallContext) -> ToolResult:
    """List what webhooks were sent, newest first: the event, each attempt's time, status and the beginning of the
    answer, and when the next attempt is. Then redeliver for one that did not arrive."""
    page = await ctx.engine.schedules.list_deliveries(
        webhook_id=args.webhook_id, status=args.status, limit=args.limit, cursor=args.cursor, caller=ctx.caller
    )
    if not page.items:
        return ToolResult(answer("No deliveries.", "Next: list_webhooks()"), {"deliveries": [], "cursor": None})
    lost = next((one.id for one in page.items if one.status == "failed"), None)
    then = call("redeliver", {"delivery_id": lost}) if lost else "list_webhooks()"
    return ToolResult(
        answer(
            plural(len(page.items), "delivery").replace("deliverys", "deliveries")
            + (" (there are more)" if page.cursor else ""),
            "\n".join(map(read.delivery_line, page.items)),
            f"Next: {then}{more_of('list_deliveries', args, page)}",
        ),
        {"deliveries": [one.id for one in page.items], "cursor": pack_cursor(page.cursor)},
    )


class Redeliver(Arguments):
    delivery_id: DeliveryId


@tool(
    Redeliver,
    title="Redeliver an event",
    annotations=Annotations(read_only=False, destructive=False, idempotent=True, open_world=True),
    example='redeliver(delivery_id="msg_...")',
    toolset=_SET,
)
async def redeliver(args: Redeliver, ctx: CallContext) -> ToolResult:
    """Deliver an event again, now and for another 24 hours, under its old webhook-id, by which a receiver knows it. Its
    webhook has to be enabled."""
    one = await ctx.engine.schedules.redeliver(args.delivery_id, caller=ctx.caller)
    following: Json = {"tool": "list_deliveries", "arguments": {"webhook_id": one.webhook_id}}
    return ToolResult(
        answer(
            f"{one.status} · delivery {one.id} to webhook {one.webhook_id}",
            read.delivery_line(one),
            "Next: " + call(following["tool"], following["arguments"]),
        ),
        {"delivery_id": one.id, "webhook_id": one.webhook_id, "status": one.status, "next": following},
    )


TOOLS = (
    create_webhook,
    list_webhooks,
    update_webhook,
    ping_webhook,
    rotate_secret,
    delete_webhook,
    list_deliveries,
    redeliver,
)
