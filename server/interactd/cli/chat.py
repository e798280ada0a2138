"""`interactd chat`: a conversation in the terminal, in a session that is kept.

Ctrl-C stops the answer that is being made (what came is kept); at the prompt it leaves. Plain text on a pipe,
Markdown as it comes otherwise: the model's text is printed as it arrives and never rewritten.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import uuid
from typing import Any

from rich.console import Console
from rich.markup import escape

from interactd import paths
from interactd.cli.client import ControlClient, RemoteError, connected
from interactd.cli.durations import parse_ttl
from interactd.cli.main import print_json
from interactd.cli.words import for_people, repair, safe
from interactd.errors import DaemonUnavailable, InteractdError, InvalidArgument, NotFound

with contextlib.suppress(ImportError):
    # Importing it is what gives input() its arrow keys and history; some Pythons lack it.
    import readline  # noqa: F401  # pyright: ignore[reportUnusedImport]

_DAEMONS = 4
"""An interaction that outlived three is not begun again; one more tells how it ended."""
HELP = "/new  a fresh session   /id  this session's id   /fork  go on in a copy   /quit  leave (also Ctrl-D)"


def chat(args: argparse.Namespace) -> int:
    """Run `interactd chat`; returns the exit code."""
    if args.message is None and not sys.stdin.isatty():
        args.message = sys.stdin.read()
    if args.message is not None and not args.message.strip():
        # Before a session is made that nobody would use.
        raise InvalidArgument("message: is empty", repair="Give some text, or none at all for a conversation.")
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
    if dispatch := _dispatch(args):
        options["dispatch"] = dispatch
    # With a key it can be asked again of the next daemon, should this one die before it answers.
    options["idempotency_key"] = f"chat-{uuid.uuid4().hex}"
    started = _surviving(client, "send_turn", session_id=session["id"], content=text, **options)
    interaction = started["interaction"]["id"]
    if started.get("queue_reason") and out.isatty():
        out.write(f"({safe(str(started['queue_reason']))}) ")
        out.flush()
    teller = _Teller(out)
    for _ in range(_DAEMONS):
        try:
            _follow(client, interaction, teller)
            return client.call("wait", interaction_id=interaction, timeout_s=5)
        except DaemonUnavailable:
            client.reconnect()
    return _surviving(client, "wait", interaction_id=interaction, timeout_s=5)


def _dispatch(args: argparse.Namespace) -> dict[str, Any]:
    """When the turns of this chat go, where that was said."""
    wanted: dict[str, Any] = {"priority": args.priority}
    for name in ("start_timeout", "timeout"):
        if given := getattr(args, name):
            wanted[f"{name}_s"] = parse_ttl(given, f"--{name.replace('_', '-')}") or None
    return {name: value for name, value in wanted.items() if value is not None}


def _surviving(client: ControlClient, method: str, **params: Any) -> Any:
    """Call; once more of the next daemon when this one is gone. For calls that may be repeated."""
    try:
        return client.call(method, **params)
    except DaemonUnavailable:
        client.reconnect()
        return client.call(method, **params)


def _follow(client: ControlClient, interaction: str, teller: _Teller) -> None:
    """Write the interaction's text as it comes, from where it was, until it ends; the first Ctrl-C cancels it."""
    number = client.send("events", interaction_id=interaction, after=teller.after)
    cancelled = False
    while True:
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
            teller.tell(message["event"])
        elif "error" in message:
            raise RemoteError(message["error"])
        else:
            return


class _Teller:
    """Writes an interaction's text to `out`, each piece once, whatever becomes of the daemon meanwhile."""

    def __init__(self, out: Any) -> None:
        self.after = 0
        """The last event that was told."""
        self._out = out
        self._told: dict[int, int] = {}
        """Characters of each step that was begun and is not finished."""

    def tell(self, event: dict[str, Any]) -> None:
        self.after = max(self.after, int(event.get("seq") or 0))
        data: dict[str, Any] = event.get("data", {})
        index = int(data.get("index") or 0)
        if event.get("type") == "step.start":
            if self._told.get(index):
                self._out.write("\n(the answer was cut off; here it is from its beginning)\n")
            self._told[index] = 0
        elif event.get("type") == "step.stop":
            self._told.pop(index, None)
        delta: dict[str, Any] = data.get("delta") or {}
        if event.get("type") == "step.delta" and delta.get("type") == "text":
            text = str(delta.get("text", ""))
            self._told[index] = self._told.get(index, 0) + len(text)
            # On a pipe the text stays as it was said; a terminal must not be steered by it.
            self._out.write(safe(text) if self._out.isatty() else text)
            self._out.flush()


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
            code = str(data["code"])
            console.print(f"[red]{code}[/]: {escape(safe(for_people(error.message)))}")
            if advice := repair(code, error.repair, data.get("interaction_id")):
                console.print(f"[dim]{escape(advice)}[/]")
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
    console.print(f"[dim]{escape(', '.join(part for part in parts if part))}[/]")
    if interaction["status"] == "requires_action":
        waiting: list[dict[str, Any]] = result.get("waiting_for") or []
        names = ", ".join(str(call.get("name")) for call in waiting)
        console.print(
            f"[yellow]requires_action[/] it waits for the results of {escape(names)}, which the program that gave "
            "the session its functions must send; /fork goes on without them."
        )
    elif interaction["status"] != "completed":
        error: dict[str, Any] = interaction.get("error") or {}
        said = for_people(str(error.get("message") or ""))
        console.print(f"[yellow]{interaction['status']}[/] {escape(safe(said))}".rstrip())
        if error.get("repair"):
            console.print(f"[dim]{escape(for_people(str(error['repair'])))}[/]")


class _Nowhere:
    """Where streamed text goes when only JSON is wanted."""

    def isatty(self) -> bool:
        return False

    def write(self, text: str) -> None: ...

    def flush(self) -> None: ...
