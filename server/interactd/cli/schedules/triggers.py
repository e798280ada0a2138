"""`interactd triggers ...`: what runs by itself, and when."""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

from interactd import paths
from interactd.agents.port import DEFAULT_AGENT
from interactd.cli.client import connected
from interactd.cli.durations import parse_ttl
from interactd.cli.main import print_json
from interactd.cli.schedules.common import deleted, each, edited, facts, listing, numbers, pairs, when
from interactd.cli.words import safe

_ALIVE = (
    "It runs while the daemon does, which stays for as long as a trigger is active. After a restart of this machine\n"
    "the next command or host starts the daemon; `interactd daemon install` has it started by itself."
)


def run(args: argparse.Namespace) -> int:
    """Run `interactd triggers ...`."""
    match args.triggers_command:
        case "show":
            return _show(args)
        case "create":
            return _create(args)
        case "edit":
            return _edit(args)
        case "run":
            return _run_now(args)
        case "pause" | "resume":
            status = "paused" if args.triggers_command == "pause" else "active"
            return each(
                args,
                lambda client, id: client.call("update_trigger", trigger_id=id, changes={"status": status}),
                lambda one: f"{one['id']}: {one['status']}{_next(one)}",
            )
        case "delete":
            return each(args, lambda client, id: deleted(client, args, "trigger", id, _name), _deleted)
        case "executions":
            return _executions(args)
        case _:
            return listing(
                args,
                "list_triggers",
                ("trigger", "status", "schedule", "zone", "next", "last", "name"),
                _row,
                empty="No triggers. Make one: interactd triggers create '0 9 * * *' 'What is new in ~/notes?'",
                more="interactd triggers list",
            )


def _row(one: dict[str, Any]) -> tuple[str, ...]:
    return (
        one["id"],
        one["status"],
        one["schedule"],
        one["time_zone"],
        when(one.get("next_run_time")),
        when(one.get("last_run_time")),
        _name(one),
    )


def _task(one: dict[str, Any]) -> str:
    parts: list[dict[str, Any]] = one["work"]["input"]
    text = " ".join(" ".join(str(part.get("text") or "") for part in parts).split())
    return text if len(text) <= 50 else text[:49] + "…"


def _next(one: dict[str, Any]) -> str:
    at = one.get("next_run_time")
    return f", next {one['next_run_local']} ({at}, {when(at)})" if at else ""


def _show(args: argparse.Namespace) -> int:
    with connected(paths.find()) as client:
        one = client.call("get_trigger", trigger_id=args.id)
        runs = client.call("list_executions", trigger_id=one["id"], limit=5)["items"]
    if args.json:
        print_json({**one, "executions": runs})
        return 0
    print(f"{one['id']}  {one['status']}{_next(one)}")
    work: dict[str, Any] = one["work"]
    error: dict[str, Any] = one.get("error") or {}
    facts(
        {
            "name": one.get("display_name"),
            "schedule": f"{one['schedule']} in {one['time_zone']}",
            "runs": work.get("agent") or work.get("model") or "the session's own",
            "input": _task(one),
            "session": work["session"],
            "environment": one.get("environment_id") or work.get("environment"),
            "budget": json.dumps(work["budget"]) if work.get("budget") else None,
            "missed": one["missed"],
            "overlap": one["overlap"],
            "time limit": f"{one['execution_timeout_seconds']:g} s",
            "failures": f"{one['consecutive_failure_count']} in a row, stops at "
            f"{one['max_consecutive_failures'] or 'never'}",
            "stopped by": error.get("message"),
        }
    )
    for each_run in runs:
        print("  " + "  ".join(cell for cell in _execution(each_run) if cell))
    return 0


def _create(args: argparse.Namespace) -> int:
    work = _work(args)
    if "agent" not in work and "model" not in work and work.get("session", "new") in ("new", "same"):
        work["agent"] = DEFAULT_AGENT
    with connected(paths.find()) as client:
        made = client.call("create_trigger", schedule=args.schedule, work=work, paused=args.paused, **_policies(args))
    if args.json:
        print_json(made)
        return 0
    print(f"{made['id']}: {made['status']}{_next(made)}")
    print(_ALIVE)
    return 0


def _edit(args: argparse.Namespace) -> int:
    changes = _policies(args)
    if args.schedule is not None:
        changes["schedule"] = args.schedule
    if work := _work(args):
        changes["work"] = work
    return edited(args, "trigger", changes, lambda one: f"{one['id']}: {one['status']}{_next(one)}")


def _policies(args: argparse.Namespace) -> dict[str, Any]:
    given: dict[str, Any] = {
        "time_zone": args.time_zone,
        "display_name": args.name,
        "missed": args.missed,
        "overlap": args.overlap,
        "max_consecutive_failures": args.failures,
        "execution_timeout_seconds": None if args.timeout is None else parse_ttl(args.timeout, "--timeout"),
    }
    return {name: value for name, value in given.items() if value is not None}


def _work(args: argparse.Namespace) -> dict[str, Any]:
    task = args.input
    if task == "-":
        task = sys.stdin.read()
    given: dict[str, Any] = {
        "input": task,
        "agent": args.agent,
        "model": args.model,
        "session": args.session,
        "environment": args.environment,
        "share_environment": None if args.fresh is None else False,
        "budget": numbers("--budget", args.budget),
        "labels": pairs("--label", args.label),
        "system_instruction": args.system,
        "title": args.title,
        "ttl_s": None if args.ttl is None else parse_ttl(args.ttl),
    }
    return {name: value for name, value in given.items() if value is not None}


def _run_now(args: argparse.Namespace) -> int:
    with connected(paths.find()) as client:
        one = client.call("run_trigger", trigger_id=args.id)
    if args.json:
        print_json(one)
    elif one["status"] == "failed" and not one.get("interaction_id"):
        print(f"{one['id']}: could not be started: {safe(one['error']['message'])}", file=sys.stderr)
    elif one.get("interaction_id"):
        print(f"{one['id']}: runs as {one['interaction_id']}")
        print(f"`interactd show {one['interaction_id']}` shows how far it is.")
    else:
        print(f"{one['id']}: {one['status'].replace('_', ' ')}")
    return 1 if one["status"] == "failed" and not one.get("interaction_id") else 0


def _name(one: dict[str, Any]) -> str:
    return one.get("display_name") or _task(one)


def _deleted(one: dict[str, Any]) -> str:
    running = f", {one['still_running']} of them still running" if one["still_running"] else ""
    return f"{one['id']}: deleted; {one['executions_kept']} executions stay on record{running}"


def _executions(args: argparse.Namespace) -> int:
    more = f"interactd triggers executions {args.id}" if args.id else "interactd triggers executions"
    return listing(
        args,
        "list_executions",
        ("execution", "due", "status", "took", "interaction", "why"),
        _execution,
        empty="Nothing was run yet.",
        more=more,
        **({"trigger_id": args.id} if args.id else {}),
    )


def _execution(one: dict[str, Any]) -> tuple[str, ...]:
    from datetime import datetime

    took = ""
    if one.get("start_time") and one.get("end_time"):
        began, ended = (datetime.fromisoformat(one[name]) for name in ("start_time", "end_time"))
        took = f"{(ended - began).total_seconds():.1f} s"
    error: dict[str, Any] = one.get("error") or {}
    details: dict[str, Any] = one.get("details") or {}
    why = error.get("message") or one.get("reason") or ("" if one["cause"] == "schedule" else one["cause"])
    if one.get("reason") == "missed":
        why = f"missed {details.get('count')} times"
    due = one["scheduled_time"][:19].replace("T", " ") + "Z"
    return one["id"], due, one["status"], took, one.get("interaction_id") or "", why.replace("_", " ")
