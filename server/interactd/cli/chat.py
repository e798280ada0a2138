"""`interactd chat`: a conversation in the terminal, in a session that is kept.

Ctrl-C stops the answer that is being made (what came is kept); at the prompt it leaves. Plain text on a pipe,
Markdown as it comes otherwise: the model's text is printed as it arrives and never rewritten.
"""

from __future__ import annotations

import argparse
import sys
from typing import Any

from rich.console import Console

from interactd import paths
from interactd.cli.client import ControlClient, connected
from interactd.cli.durations import parse_ttl
from interactd.cli.main import print_json
from interactd.errors import InteractdError, NotFound

HELP = "/new  a fresh session   /id  this session's id   /fork  go on in a copy   /quit  leave (also Ctrl-D)"


def chat(args: argparse.Namespace) -> int:
    """Run `interactd chat`; returns the exit code."""
    if args.message is None and not sys.stdin.isatty():
        args.message = sys.stdin.read()
    with connected(paths.find()) as client:
        session = _session(client, args)
        if args.message is not None:
            return _once(client, session, args)
        return _loop(client, session, args)


def _session(client: ControlClient, args: argparse.Namespace) -> dict[str, Any]:
    if args.session:
        return client.call("get_session", session_id=args.session, limit=1)["session"]
    if args.latest:
        page = client.call("list_sessions", limit=1)
        if not page["items"]:
            raise NotFound("there is no session yet", repair="Start one: interactd chat")
        return page["items"][0]
    return _create(client, args)


def _create(client: ControlClient, args: argparse.Namespace) -> dict[str, Any]:
    wanted: dict[str, Any] = {"model": args.model, "system_instruction": args.system, "title": args.title}
    if args.ttl:
        wanted["ttl_s"] = parse_ttl(args.ttl)
    return client.call("create_session", **{name: value for name, value in wanted.items() if value is not None})


def _turn(client: ControlClient, session: dict[str, Any], text: str, args: argparse.Namespace, out: Any) -> Any:
    """Send one turn and write its text to `out` as it comes; returns the final result."""
    options: dict[str, Any] = {"model": args.model} if args.model else {}
    if args.thinking:
        options["generation_config"] = {"thinking_level": args.thinking}
    started = client.call("send_turn", session_id=session["id"], content=text, **options)
    interaction = started["interaction"]["id"]
    number = client.send("events", interaction_id=interaction)
    result: Any = None
    cancelled = False
    while result is None:
        try:
            message = client.receive()
        except KeyboardInterrupt:
            if cancelled:
                raise
            cancelled = True
            client.send("cancel", interaction_id=interaction)
            continue
        if message.get("id") != number:
            continue
        if "event" in message:
            _write(message["event"], out)
        elif "error" in message:
            from interactd.cli.client import RemoteError

            raise RemoteError(message["error"])
        else:
            result = client.call("wait", interaction_id=interaction, timeout_s=5)
    return result


def _write(event: dict[str, Any], out: Any) -> None:
    delta = event.get("data", {}).get("delta", {})
    if event.get("type") == "step.delta" and delta.get("type") == "text":
        out.write(delta.get("text", ""))
        out.flush()


def _once(client: ControlClient, session: dict[str, Any], args: argparse.Namespace) -> int:
    result = _turn(client, session, args.message, args, _Nowhere() if args.json else sys.stdout)
    status = result["interaction"]["status"]
    if args.json:
        print_json(result)
    else:
        print()
        note = f"session {result['session']['id']}, {result['interaction']['id']}, {status}"
        print(f"({note})", file=sys.stderr)
        _explain(result, Console(stderr=True))
    return 0 if status == "completed" else 1


def _loop(client: ControlClient, session: dict[str, Any], args: argparse.Namespace) -> int:
    console = Console(highlight=False)
    console.print(f"[dim]session[/] {session['id']}  [dim]model[/] {args.model or session.get('model')}")
    console.print(f"[dim]{HELP}[/]")
    while True:
        try:
            text = console.input("\n[bold cyan]you[/]    ").strip()
        except (EOFError, KeyboardInterrupt):
            console.print(f"\n[dim]kept: interactd chat -s {session['id']}[/]")
            return 0
        if not text:
            continue
        try:
            if text.startswith("/"):
                moved = _slash(client, session, text, args, console)
                if moved is None:
                    return 0
                session = moved
                continue
            console.print("[bold green]model[/]  ", end="")
            result = _turn(client, session, text, args, sys.stdout)
        except InteractdError as error:
            data = error.as_dict()
            console.print(f"[red]{data['code']}[/]: {error.message}", markup=True)
            if error.repair:
                console.print(f"[dim]{error.repair}[/]")
            continue
        console.print()
        _explain(result, console)


def _slash(
    client: ControlClient, session: dict[str, Any], text: str, args: argparse.Namespace, console: Console
) -> dict[str, Any] | None:
    """Run a /command; returns the session to go on with, or None to leave."""
    word = text.split()[0]
    if word in {"/quit", "/exit", "/q"}:
        console.print(f"[dim]kept: interactd chat -s {session['id']}[/]")
        return None
    if word == "/new":
        session = _create(client, args)
        console.print(f"[dim]session[/] {session['id']}")
    elif word == "/fork":
        session = client.call("fork_session", session_id=session["id"])
        console.print(f"[dim]now in[/] {session['id']}[dim], a copy; the old one stays as it is[/]")
    elif word == "/id":
        console.print(session["id"])
    else:
        console.print(f"[dim]{HELP}[/]")
    return session


def _explain(result: dict[str, Any], console: Console) -> None:
    """Say in one dim line what the turn cost, and in a clear one why it did not complete."""
    interaction = result["interaction"]
    usage: dict[str, Any] = interaction.get("usage") or {}
    parts = [interaction["model"] or ""]
    if "total_input_tokens" in usage:
        parts.append(f"{usage['total_input_tokens']} tokens in, {usage.get('total_output_tokens', '?')} out")
    if interaction.get("duration_s") is not None:
        parts.append(f"{interaction['duration_s']:.1f} s")
    console.print(f"[dim]{', '.join(part for part in parts if part)}[/]")
    if interaction["status"] != "completed":
        error: dict[str, Any] = interaction.get("error") or {}
        console.print(
            f"[yellow]{interaction['status']}[/] {error.get('message', '')} {error.get('repair', '')}".rstrip()
        )


class _Nowhere:
    """Where streamed text goes when only JSON is wanted."""

    def write(self, text: str) -> None: ...

    def flush(self) -> None: ...
