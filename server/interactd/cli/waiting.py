"""`interactd inbox | approvals | respond | cancel`: what waits for its user, answering it, and giving it up."""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any, cast

from interactd import paths
from interactd.cli.client import ControlClient, RemoteError, connected
from interactd.cli.durations import ago
from interactd.cli.main import print_json, report
from interactd.cli.sessions import table
from interactd.cli.words import safe
from interactd.errors import Conflict, InvalidArgument

_WAIT_S = 30.0


def inbox(args: argparse.Namespace) -> int:
    """Print what waits: results that nobody read, and questions. Reads none of them."""
    with connected(paths.find()) as client:
        found = client.call("inbox", session_id=args.session, limit=args.limit)
    if args.json:
        print_json(found)
        return 0
    if not found["unread_total"] and not found["waiting_total"]:
        print("Nothing waits for you.")
        return 0
    for one in found["waiting"]:
        print_waiting(one)
    rows = [
        (one["id"], one["status"], ago(one["finished_at"]), one.get("agent") or one.get("model") or "")
        for one in found["unread"]
    ]
    if rows:
        print(f"{found['unread_total']} unread:" if not found["waiting"] else f"\n{found['unread_total']} unread:")
        table(("interaction", "status", "ended", "by"), rows)
        print(f"read: interactd show {rows[0][0]}")
    left = found["unread_total"] + found["waiting_total"] - len(found["unread"]) - len(found["waiting"])
    if left > 0:
        print(f"and {left} more: --limit shows them")
    return 0


def approvals(args: argparse.Namespace) -> int:
    """Print every question that waits for a decision."""
    with connected(paths.find()) as client:
        found = client.call("inbox", session_id=args.session, limit=args.limit)
    waiting = [one for one in found["waiting"] if _questions(one)]
    if args.json:
        print_json([_as_json(one) for one in waiting])
        return 0
    if not waiting:
        print("Nothing waits for a decision.")
        return 0
    for one in waiting:
        print_waiting(one)
    return 0


def respond(args: argparse.Namespace) -> int:
    """Answer what an interaction waits for."""
    with connected(paths.find()) as client:
        seen = client.call("get_interaction", interaction_id=args.id)
        one = seen["interaction"]
        results = _results(args, seen)
        sent = client.call("respond", interaction_id=one["id"], results=results, idempotency_key=args.idempotency_key)
        sent = _followed(client, sent) if args.wait else sent
    if args.json:
        print_json(sent)
        return 0
    left = _questions(sent)
    print(f"{one['id']}: {sent['interaction']['status']}")
    for question in left:
        print(f"  still asks: {safe(question['question'])}")
    if sent["interaction"]["status"] in ("in_progress", "queued"):
        print(f"it goes on by itself: interactd show {one['id']}")
    return 0


def cancel(args: argparse.Namespace) -> int:
    """Cancel interactions, or all that is open; a failure of one does not keep the others."""
    if bool(args.ids) == bool(args.all):
        raise InvalidArgument("give the ids of interactions, or --all", repair="`interactd inbox` shows some.")
    done: list[dict[str, Any]] = []
    code = 0
    with connected(paths.find()) as client:
        if args.all:
            done = [{"interaction_id": one, "status": "cancelled"} for one in client.call("cancel_all")]
        for given in args.ids:
            try:
                one = client.call("cancel", interaction_id=given)["interaction"]
                done.append({"interaction_id": one["id"], "status": one["status"]})
            except RemoteError as error:
                code = 1
                if args.json:
                    done.append({"interaction_id": given, "error": error.as_dict()})
                else:
                    report(error, as_json=False)
    if args.json:
        print_json(done)
        return code
    for one in done:
        print(f"{one['interaction_id']}: {one['status']}")
    if args.all and not done:
        print("Nothing runs or waits.")
    return code


def _questions(result: dict[str, Any]) -> list[dict[str, Any]]:
    waiting: list[dict[str, Any]] = result.get("waiting_for") or []
    return [one for one in waiting if one.get("kind") in ("approval", "replay")]


def _as_json(result: dict[str, Any]) -> dict[str, Any]:
    one = result["interaction"]
    return {
        "interaction_id": one["id"],
        "session_id": one["session_id"],
        "agent": one.get("agent"),
        "created_at": one["created_at"],
        "questions": [
            {"call_id": asked["id"], **{name: value for name, value in asked.items() if name != "id"}}
            for asked in _questions(result)
        ],
    }


def print_waiting(result: dict[str, Any]) -> None:
    """Print what an interaction waits for, and the command that answers."""
    one = result["interaction"]
    title = result["session"].get("title")
    print(f"{one['id']}  waits for you{f'  {safe(title)}' if title else ''}")
    questions = _questions(result)
    for asked in questions:
        until = f"  (until {asked['deadline']}, then: {asked.get('default', 'deny')})" if asked.get("deadline") else ""
        print(f"  {safe(asked['question'])}{until}")
        if len(questions) > 1:
            print(f"    --call {asked['id']}")
    waiting: list[dict[str, Any]] = result["waiting_for"]
    for asked in (each for each in waiting if each not in questions):
        print(f"  the result of {asked.get('name')}({json.dumps(asked.get('arguments'))[:200]}), --call {asked['id']}")
    if questions:
        print(f"  interactd respond {one['id']} --allow, or --deny --reason '...'")
    else:
        print(f"  interactd respond {one['id']} --result '...'")


def _results(args: argparse.Namespace, seen: dict[str, Any]) -> list[dict[str, Any]]:
    """The results to send: of the call that was named, else of every one that an answer of this kind fits."""
    one = seen["interaction"]
    waiting: list[dict[str, Any]] = seen.get("waiting_for") or []
    if one["status"] != "requires_action":
        raise Conflict(
            f"{one['id']} is {one['status']}: it waits for no answer",
            repair=f"`interactd show {one['id']}` shows it; `interactd approvals` lists what waits.",
            interaction_id=None,
        )
    decides = args.allow or args.deny
    fits = _questions(seen) if decides else [each for each in waiting if each not in _questions(seen)]
    if args.call is not None:
        fits = [each for each in waiting if str(each["id"]).startswith(args.call)]
        if len(fits) != 1:
            raise InvalidArgument(
                f"--call: {'several calls' if fits else 'no open call'} of {one['id']} begin with {args.call!r}",
                repair=f"It waits for {', '.join(str(each['id']) for each in waiting)}.",
            )
    if not fits:
        what = "a decision" if decides else "the result of a function"
        raise InvalidArgument(
            f"{one['id']} does not wait for {what}",
            repair="Use --result for functions, --allow or --deny for questions.",
        )
    if not decides and len(fits) > 1:
        raise InvalidArgument(
            f"{one['id']} waits for {len(fits)} results",
            repair=f"Say which one with --call: {', '.join(str(each['id']) for each in fits)}.",
        )
    if decides:
        answer: dict[str, Any] = {"decision": "allow" if args.allow else "deny"}
        if args.scope != "call":
            answer["scope"] = args.scope
        if args.reason:
            answer["reason"] = args.reason
        return [{"call_id": each["id"], "result": answer} for each in fits]
    return [{"call_id": each["id"], "result": _value(args.result)} for each in fits]


def _value(text: str) -> Any:
    if text == "-":
        text = sys.stdin.read()
    try:
        value: Any = json.loads(text)
    except ValueError:
        return text
    return cast("Any", value) if isinstance(value, dict | list) else text


def _followed(client: ControlClient, sent: dict[str, Any]) -> dict[str, Any]:
    while sent["interaction"]["status"] in ("queued", "in_progress"):
        sent = client.call("wait", interaction_id=sent["interaction"]["id"], timeout_s=_WAIT_S)
    return sent
