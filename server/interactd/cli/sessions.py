"""`interactd sessions | show | search | fork | delete`: what the store holds, for a person or as JSON."""

from __future__ import annotations

import argparse
import shlex
import sys
from datetime import UTC, datetime
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from interactd import paths
from interactd.cli.client import RemoteError, connected
from interactd.cli.durations import ago, span
from interactd.cli.main import print_json, report
from interactd.cli.words import safe
from interactd.errors import InteractdError, InvalidArgument


def list_sessions(args: argparse.Namespace) -> int:
    labels: dict[str, str] = {}
    given: list[str] = args.label or []
    for item in given:
        name, equals, value = item.partition("=")
        if not equals:
            raise InvalidArgument(f"--label: expected KEY=VALUE, got {item!r}")
        labels[name] = value
    with connected(paths.find()) as client:
        page = client.call(
            "list_sessions",
            state=args.state,
            labels=labels or None,
            unread=args.unread,
            limit=args.limit,
            cursor=args.cursor,
        )
    if args.detailed and page["items"]:
        with connected(paths.find()) as client:
            spent = client.call("costs", session_ids=[s["id"] for s in page["items"]])
        for one in page["items"]:
            one["cost"] = spent.get(one["id"])
    if args.json:
        print_json(page)
        return 0
    if not page["items"]:
        print("No sessions. Start one: interactd chat")
        return 0
    rows = [
        (s["id"], ago(s["updated_at"]), str(s["turns"]), s.get("model") or "", _state(s), s.get("title") or "")
        for s in page["items"]
    ]
    heads = ("session", "last used", "turns", "model", "state", "title")
    if args.detailed:
        heads = (*heads, "cost")
        rows = [(*row, _cost(s.get("cost"))) for row, s in zip(rows, page["items"], strict=True)]
    table(heads, rows)
    if page.get("cursor"):
        print(f"more: interactd sessions --cursor {page['cursor']}")
    return 0


def show(args: argparse.Namespace) -> int:
    with connected(paths.find()) as client:
        if args.id.lower().startswith("int_"):
            result = client.call("get_interaction", interaction_id=args.id)
            if result["interaction"].get("agent"):
                result["requests"] = client.call("requests", interaction_id=result["interaction"]["id"])
            if args.json:
                print_json(result)
            else:
                one = {**result["interaction"], "cost": result.get("cost")}
                _show_turn(Console(highlight=False), one, result["steps"], detailed=True)
                if result.get("queue_reason"):
                    print(f"it waits: {safe(result['queue_reason'])}")
                if result.get("waiting_for"):
                    from interactd.cli.waiting import print_waiting

                    print_waiting(result)
                for asked in result.get("requests", []):
                    why = f" ({asked['reason']})" if asked["reason"] else ""
                    said = f"{asked['method']} {asked['host']}:{asked['port']} {asked['verdict']}{why}"
                    print(f"network: {safe(said)}, {asked['bytes']:,} bytes")
            return 0
        page = client.call("get_session", session_id=args.id, limit=args.limit, before=args.before)
        if args.detailed:
            spent = client.call("costs", interaction_ids=[turn["interaction"]["id"] for turn in page["turns"]])
            for turn in page["turns"]:
                turn["interaction"]["cost"] = spent.get(turn["interaction"]["id"])
            of = client.call("costs", session_ids=[page["session"]["id"]])
            page["session"]["cost"] = of.get(page["session"]["id"])
    if args.json:
        print_json(page)
        return 0
    console = Console(highlight=False)
    session = page["session"]
    title = f"  {session['title']}" if session.get("title") else ""
    console.print(f"{session['id']}{title}", style="bold", markup=False)
    console.print(f"{session['turns']} turns, {session.get('model')}, {_state(session)}", style="dim", markup=False)
    if session.get("cost"):
        console.print(_cost(session["cost"]), style="dim", markup=False)
    for turn in page["turns"]:
        _show_turn(console, turn["interaction"], turn["steps"], detailed=args.detailed)
    if page["turns"] and page["turns"][0]["interaction"].get("previous_interaction_id"):
        first = page["turns"][0]["interaction"]["id"]
        console.print(f"\nearlier turns: interactd show {session['id']} --before {first}", style="dim")
    return 0


def list_queue(args: argparse.Namespace) -> int:
    with connected(paths.find()) as client:
        found: list[dict[str, Any]] = client.call("queue", limit=args.limit)
    if args.json:
        print_json(found)
        return 0
    if not found:
        print("Nothing runs and nothing waits.")
        return 0
    rows: list[tuple[str, ...]] = []
    for one in found:
        turn = one["interaction"]
        terms: dict[str, Any] = turn.get("dispatch") or {}
        priority = str(terms.get("priority") or "")
        since = ago(turn.get("started_at") or turn["created_at"])
        why = safe(one.get("queue_reason") or "")
        rows.append((turn["id"], turn["status"], since, priority, turn.get("model") or "", why))
    table(("interaction", "status", "since", "priority", "model", "waits for"), rows)
    return 0


def search(args: argparse.Namespace) -> int:
    query = " ".join(args.query)
    with connected(paths.find()) as client:
        page = client.call("search", query=query, session_id=args.session, limit=args.limit, cursor=args.cursor)
    if args.json:
        print_json(page)
        return 0
    if not page["items"]:
        print(f"Nothing found for {query!r}.")
        return 1
    console = Console(highlight=False)
    for hit in page["items"]:
        title = f"  {hit['session_title']}" if hit.get("session_title") else ""
        console.print(
            f"{hit['session_id']}  {hit['interaction_id']}  {ago(hit['created_at'])}  {hit['type']}{title}",
            style="dim",
            markup=False,
            soft_wrap=True,
        )
        console.print(_marked(hit["snippet"]), soft_wrap=True)
    if page.get("cursor"):
        print(f"more: interactd search {shlex.quote(query)} --cursor {page['cursor']}")
    return 0


def fork(args: argparse.Namespace) -> int:
    with connected(paths.find()) as client:
        session = client.call("fork_session", session_id=args.id, at=args.at, title=args.title, model=args.model)
    if args.json:
        print_json(session)
    else:
        print(f"{session['id']}: {session['turns']} turns, forked from {session['forked_from']}")
        print(f"go on: interactd chat -s {session['id']}")
    return 0


def delete(args: argparse.Namespace) -> int:
    """Delete each session; a failure of one does not keep the others, and sets the exit code.

    As JSON: a list of receipts, with `{"session_id", "error"}` in the place of one that failed.
    """
    receipts: list[dict[str, Any]] = []
    code = 0
    with connected(paths.find()) as client:
        for given in args.ids:
            try:
                session = client.call("get_session", session_id=given, limit=1)["session"]
                if not args.yes and not _confirmed(session):
                    print(f"{session['id']}: left as it is")
                    continue
                receipt = client.call("delete_session", session_id=session["id"])
            except RemoteError as error:
                if args.json:
                    receipts.append({"session_id": given, "error": error.as_dict()})
                    code = 1
                else:
                    code = report(error, as_json=False)
                continue
            receipts.append(receipt)
            if not args.json:
                removed = ", ".join(f"{count} {name}" for name, count in receipt["removed"].items() if count)
                print(f"{receipt['session_id']}: deleted for good ({removed or 'was gone already'})")
                print(f"  receipt {receipt['id']}")
                if receipt.get("kept"):
                    kept = receipt["kept"]
                    print(f"  {kept['interactions']} turns live on in the fork {', '.join(kept['sessions'])}")
    if args.json:
        print_json(receipts)
    return code


def _confirmed(session: dict[str, Any]) -> bool:
    if not sys.stdin.isatty():
        raise InteractdError(
            f"{session['id']}: deleting is final and nobody is there to confirm it",
            repair="Add --yes to delete without asking.",
        )
    title = f" {session['title']!r}" if session.get("title") else ""
    answer = input(f"Delete {session['id']}{title} with its {session['turns']} turns for good? [y/N] ")
    return answer.strip().lower() in {"y", "yes"}


def _cost(cost: dict[str, Any] | None) -> str:
    from interactd.cli.money import left, usd

    return "" if cost is None else f"{usd(cost)}, {cost['tokens']:,} tokens{left(cost)}"


def _state(session: dict[str, Any]) -> str:
    if session["state"] != "active":
        return session["state"]
    if not session.get("expires_at"):
        return "kept for ever"
    return f"{span((datetime.fromisoformat(session['expires_at']) - datetime.now(UTC)).total_seconds())} left"


def _show_turn(console: Console, interaction: dict[str, Any], steps: list[dict[str, Any]], *, detailed: bool) -> None:
    status = "" if interaction["status"] == "completed" else f"  {interaction['status']}"
    console.print(f"\n{interaction['id']}  {interaction['created_at'][:19].replace('T', ' ')}{status}", style="dim")
    for step in steps:
        label, text, style = _describe(step)
        if label in {"you", "model"} or detailed:
            # On a pipe the text stays as it was said; a terminal must not be steered by it.
            shown = safe(text) if console.is_terminal else text
            console.print(Text(f"{label:<7}", style="bold " + style), Text(shown), soft_wrap=True)
    if interaction.get("error"):
        problem = f"{interaction['error'].get('code')}: {interaction['error'].get('message')}"
        console.print(Text(safe(problem), style="yellow"), soft_wrap=True)
    if detailed and interaction.get("usage"):
        console.print(str(interaction["usage"]), style="dim", markup=False)
    if detailed and interaction.get("cost"):
        console.print(_cost(interaction["cost"]), style="dim", markup=False)


def _describe(step: dict[str, Any]) -> tuple[str, str, str]:
    kind = step["type"]
    if kind in {"user_input", "model_output"}:
        return (
            ("you", _text(step.get("content")), "cyan")
            if kind == "user_input"
            else ("model", _text(step.get("content")), "green")
        )
    if kind == "thought":
        return "thought", _text(step.get("summary")) or "(not shown by the provider)", "magenta"
    if kind == "function_call":
        return "call", f"{step.get('name')}({step.get('arguments')})", "blue"
    if kind == "function_result":
        result = step.get("result")
        return "result", str(result), "blue"
    return kind, str({name: value for name, value in step.items() if name != "type"}), "blue"


def _text(content: list[dict[str, Any]] | None) -> str:
    return "\n".join(
        str(part.get("text")) if part.get("type") == "text" else f"[{part.get('type')}]" for part in content or []
    )


def _marked(snippet: str) -> Text:
    """The snippet with its `[matches]` in bold."""
    text = Text("  ")
    for index, piece in enumerate(safe(snippet).replace("]", "[").split("[")):
        text.append(piece, style="bold yellow" if index % 2 else "")
    return text


def table(heads: tuple[str, ...], rows: list[tuple[str, ...]]) -> None:
    """A table on a terminal; tab-separated lines on a pipe, so that cut and awk work."""
    if not sys.stdout.isatty():
        for row in rows:
            print("\t".join(row))
        return
    table = Table(box=None, header_style="dim", pad_edge=False)
    for number, head in enumerate(heads):
        # An id that is cut is no id: the other columns give way.
        table.add_column(head, no_wrap=number == 0, min_width=len(rows[0][0]) if number == 0 else None)
    for row in rows:
        table.add_row(*(Text(safe(cell)) for cell in row))
    Console().print(table)
