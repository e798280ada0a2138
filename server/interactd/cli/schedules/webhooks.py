"""`interactd webhooks ...`: who is told of what happens."""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from typing import Any

from interactd import paths
from interactd.cli.client import connected
from interactd.cli.durations import parse_ttl
from interactd.cli.main import print_json
from interactd.cli.schedules.common import deleted, each, edited, facts, listing, when
from interactd.cli.words import safe
from interactd.errors import InvalidArgument

_SECRET = (
    "signing secret: {}\nIt is shown this once; give it to the receiver. `interactd webhooks rotate` makes another."
)


def run(args: argparse.Namespace) -> int:
    """Run `interactd webhooks ...`."""
    match args.webhooks_command:
        case "show":
            return _show(args)
        case "create":
            return _create(args)
        case "edit":
            return _edit(args)
        case "enable" | "disable":
            status = f"{args.webhooks_command}d"
            return each(
                args,
                lambda client, id: client.call("update_webhook", webhook_id=id, changes={"status": status}),
                lambda one: f"{one['id']}: {one['status']}",
            )
        case "ping":
            return _ping(args)
        case "rotate":
            return _rotate(args)
        case "delete":
            return each(args, lambda client, id: deleted(client, args, "webhook", id, _name), _deleted)
        case "deliveries":
            return _deliveries(args)
        case "redeliver":
            return each(
                args,
                lambda client, id: client.call("redeliver", delivery_id=id),
                lambda one: f"{one['id']}: {one['event']} is delivered again",
            )
        case _:
            return listing(
                args,
                "list_webhooks",
                ("webhook", "status", "to", "events", "last success", "name"),
                _row,
                empty="No webhooks. Make one: interactd webhooks create --desktop",
                more="interactd webhooks list",
            )


def _row(one: dict[str, Any]) -> tuple[str, ...]:
    events: list[str] = one["subscribed_events"]
    shown = events[0] if len(events) == 1 else f"{len(events)} events"
    status = one["status"] if not one.get("failing_since") else f"{one['status']}, failing"
    return one["id"], status, _to(one), shown, when(one.get("last_success_time")), one.get("name") or ""


def _to(one: dict[str, Any]) -> str:
    return str(one.get("uri") or (shlex.join(one["command"]) if one.get("command") else "the desktop"))


def _show(args: argparse.Namespace) -> int:
    with connected(paths.find()) as client:
        one = client.call("get_webhook", webhook_id=args.id)
    if args.json:
        print_json(one)
        return 0
    print(f"{one['id']}  {one['status']}")
    secrets: list[dict[str, Any]] = one.get("signing_secrets") or []
    facts(
        {
            "name": one.get("name"),
            "to": _to(one),
            "events": ", ".join(one["subscribed_events"]),
            "turns": "background only" if one["background_only"] else "all",
            "metadata": json.dumps(one["user_metadata"]) if one.get("user_metadata") else None,
            "secrets": ", ".join(_secret(each_one) for each_one in secrets),
            "last success": one.get("last_success_time"),
            "failing since": one.get("failing_since"),
            "last error": one.get("last_error"),
        }
    )
    return 0


def _secret(one: dict[str, Any]) -> str:
    return str(one["truncated_secret"]) + (f" (until {one['expire_time']})" if one.get("expire_time") else "")


def _create(args: argparse.Namespace) -> int:
    given = _given(args)
    if args.desktop:
        given["desktop"] = True
    if args.interaction is not None:
        given["interaction_id"] = args.interaction
    with connected(paths.find()) as client:
        made = client.call("create_webhook", **given)
    if args.json:
        print_json(made)
        return 0
    print(f"{made['id']}: {made['status']}, told of {', '.join(made['subscribed_events'])}")
    if made.get("new_signing_secret"):
        print(_SECRET.format(made["new_signing_secret"]))
    return 0


def _edit(args: argparse.Namespace) -> int:
    return edited(
        args,
        "webhook",
        _given(args),
        lambda one: f"{one['id']}: {one['status']}, told of {', '.join(one['subscribed_events'])}",
    )


def _given(args: argparse.Namespace) -> dict[str, Any]:
    metadata = None
    if args.metadata is not None:
        try:
            metadata = json.loads(args.metadata)
        except ValueError:
            raise InvalidArgument(f"--metadata: expected a JSON object, got {args.metadata!r:.60}") from None
    words: list[str] | None = args.words
    if words is not None and words[:1] == ["--"]:
        words = words[1:]
    given: dict[str, Any] = {
        "uri": args.uri,
        "command": args.shell if args.shell is not None else words,
        "shell": True if args.shell is not None else None,
        "subscribed_events": args.event,
        "name": args.name,
        "background_only": args.background_only,
        "allow_local": args.allow_local,
        "timeout_s": None if args.timeout is None else parse_ttl(args.timeout, "--timeout"),
        "user_metadata": metadata,
    }
    return {name: value for name, value in given.items() if value is not None}


def _ping(args: argparse.Namespace) -> int:
    with connected(paths.find()) as client:
        sent = client.call("ping_webhook", webhook_id=args.id)
    ok = sent["status"] == "delivered"
    if args.json:
        print_json(sent)
    else:
        print(safe(f"{sent['id']}: {_outcome(sent)}"), file=sys.stdout if ok else sys.stderr)
    return 0 if ok else 1


def _rotate(args: argparse.Namespace) -> int:
    how = "revoke_previous_secrets_immediately" if args.now else "revoke_previous_secrets_after_h24"
    with connected(paths.find()) as client:
        made = client.call("rotate_secret", webhook_id=args.id, revocation=how)
    if args.json:
        print_json(made)
        return 0
    print(_SECRET.format(made["new_signing_secret"]))
    print("The old one is void." if args.now else "Until then, both sign: the old one for 24 hours more.")
    return 0


def _name(one: dict[str, Any]) -> str:
    return one.get("name") or _to(one)


def _deleted(one: dict[str, Any]) -> str:
    lost = f"; {one['pending']} of them had not arrived" if one["pending"] else ""
    return f"{one['id']}: deleted with {one['deliveries']} deliveries{lost}"


def _deliveries(args: argparse.Namespace) -> int:
    return listing(
        args,
        "list_deliveries",
        ("delivery", "event", "of", "when", "status", "last attempt"),
        lambda one: (
            one["id"],
            one["event"],
            one["subject_id"],
            when(one["create_time"]),
            one["status"] + (f", {when(one['next_attempt_time'])}" if one.get("next_attempt_time") else ""),
            _outcome(one),
        ),
        empty="Nothing was delivered yet.",
        more=f"interactd webhooks deliveries {args.id}" if args.id else "interactd webhooks deliveries",
        **({"webhook_id": args.id} if args.id else {}),
    )


def _outcome(one: dict[str, Any]) -> str:
    log: list[dict[str, Any]] = one["log"]
    if not log:
        return str(one.get("reason") or "")
    last = log[-1]
    said = last.get("error") or f"status {last.get('status_code', 0)}"
    tries = f", attempt {len(log)}" if len(log) > 1 else ""
    return f"{said} in {last['duration_ms']} ms{tries}"
