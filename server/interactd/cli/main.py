"""The command line for people: one parser, one lazily imported function a command.

Exit codes: 0 done, 1 an error (printed as `code: message` with what to do next), 2 wrong usage, 130 Ctrl-C.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from interactd import __version__
from interactd.cli import subcommands
from interactd.cli.schedules import declare as schedules
from interactd.cli.words import for_people, repair, safe
from interactd.errors import InteractdError

Command = Callable[[argparse.Namespace], int]


class _Usage(Exception):
    """A command line that cannot be read; `parser` is the one that read it."""

    def __init__(self, parser: argparse.ArgumentParser, message: str) -> None:
        self.parser = parser
        self.message = message


class _Parser(argparse.ArgumentParser):
    """Leaves it to `main` how a mistake is told."""

    def error(self, message: str) -> NoReturn:
        raise _Usage(self, message)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; `argv` is without the program's name."""
    given = sys.argv[1:] if argv is None else list(argv)
    parser = build_parser()
    try:
        args, unknown = parser.parse_known_args(given)
        if unknown:
            raise _Usage(getattr(args, "parser", parser), f"unrecognized arguments: {' '.join(unknown)}")
    except _Usage as usage:
        return _wrong_usage(usage, as_json="--json" in given)
    if not hasattr(args, "command"):
        parser.print_help()
        return 0
    try:
        return args.command(args)
    except InteractdError as error:
        return report(error, as_json=getattr(args, "json", False))
    except KeyboardInterrupt:
        print(file=sys.stderr)
        return 130
    except BrokenPipeError:
        # The reader of our output (head, less) left; the shell expects silence.
        sys.stderr.close()
        return 141


def _wrong_usage(usage: _Usage, *, as_json: bool) -> int:
    name = usage.parser.prog
    if as_json:
        repair = f"`{name} --help` shows what there is."
        print_json({"error": {"code": "usage", "message": usage.message, "repair": repair}})
    else:
        usage.parser.print_usage(sys.stderr)
        print(f"{name}: error: {usage.message}", file=sys.stderr)
    return 2


def report(error: InteractdError, *, as_json: bool) -> int:
    """Print an error for a person, or as JSON on stdout; returns the exit code."""
    data = error.as_dict()
    if as_json:
        print(json.dumps({"error": data}, indent=2))
    else:
        code = str(data["code"])
        print(f"{code}: {safe(for_people(error.message))}", file=sys.stderr)
        if advice := repair(code, error.repair, data.get("interaction_id")):
            print(advice, file=sys.stderr)
    return 1


def build_parser() -> argparse.ArgumentParser:
    """Return the whole parser; docs/cli.md is generated from it."""
    parser = _Parser(
        prog="interactd",
        description="Durable sessions and agents on your own machine, for any MCP host and any model.",
        epilog="Hosts launch `interactd mcp`. Start with `interactd setup`, then `interactd chat`.",
    )
    parser.add_argument("--version", action="version", version=f"interactd {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")

    def add(name: str, help_text: str, function: Command, *, has_json: bool = True) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=help_text, description=help_text[0].upper() + help_text[1:] + ".")
        sub.set_defaults(command=function, parser=sub)
        if has_json:
            sub.add_argument("--json", action="store_true", help="print JSON instead of text")
        return sub

    chat = add("chat", "talk to a model in a session that is kept", _chat)
    chat.add_argument("message", nargs="?", help="send this one message and leave; without it: a conversation")
    where = chat.add_mutually_exclusive_group()
    where.add_argument("-s", "--session", metavar="ID", help="go on in this session (a unique prefix is enough)")
    where.add_argument("-c", "--continue", dest="latest", action="store_true", help="go on in the latest session")
    chat.add_argument("-m", "--model", help="provider/name, or auto")
    chat.add_argument("--system", metavar="TEXT", help="system instruction for a new session")
    chat.add_argument("--thinking", choices=("minimal", "low", "medium", "high", "xhigh"), help="thinking level")
    chat.add_argument("--title", help="title for a new session")
    chat.add_argument("--priority", type=int, metavar="N", help="go before turns of a lower one (-100 to 100)")
    chat.add_argument("--start-timeout", metavar="TIME", help="give a turn up that has not begun by then: 30s, 10m")
    chat.add_argument("--timeout", metavar="TIME", help="stop a turn that runs longer; what it made is kept")
    chat.add_argument("--ttl", metavar="TIME", help="how long to keep a new session: 90m, 24h, 7d, forever")

    sessions = add("sessions", "list sessions, newest activity first", _sessions)
    sessions.add_argument("--state", choices=("active", "expired", "all"), default="active")
    sessions.add_argument("--label", action="append", metavar="KEY=VALUE", help="only those with this label")
    sessions.add_argument("--unread", action="store_true", help="only those with a finished result nobody read")
    sessions.add_argument("-n", "--limit", type=_positive, default=20)
    sessions.add_argument("--cursor", help="go on from an earlier page")
    sessions.add_argument("--detailed", action="store_true", help="what each cost, and what is left of its budget")

    show = add("show", "show a session's transcript, or one interaction", _show)
    show.add_argument("id", help="session or interaction id (a unique prefix is enough)")
    show.add_argument("--detailed", action="store_true", help="thoughts, calls, results, tokens and costs too")
    show.add_argument("-n", "--limit", type=_positive, default=20, help="turns, counted from the end")
    show.add_argument("--before", metavar="INTERACTION", help="turns before this one")

    queue = add("queue", "list what runs and what waits, and what it waits for", _queue)
    queue.add_argument("-n", "--limit", type=_positive, default=100)

    search = add("search", "search everything said in all sessions", _search)
    search.add_argument("query", nargs="+", help='words, a "quoted phrase", or a prefix*')
    search.add_argument("-s", "--session", metavar="ID")
    search.add_argument("-n", "--limit", type=_positive, default=10)
    search.add_argument("--cursor", help="go on from an earlier page")

    fork = add("fork", "make a new session that goes on from any point of an old one", _fork)
    fork.add_argument("id")
    fork.add_argument("--at", metavar="INTERACTION", help="the last turn to keep (default: all)")
    fork.add_argument("--title")
    fork.add_argument("-m", "--model")

    delete = add("delete", "delete sessions for good and print the receipts", _delete)
    delete.add_argument("ids", nargs="+", metavar="id")
    delete.add_argument("-y", "--yes", action="store_true", help="do not ask")

    subcommands.waiting(lambda name, text: add(name, text, _waiting))

    models = add("models", "list models that are reachable, and why the rest is not", _models)
    models.add_argument("--refresh", action="store_true", help="ask the providers for their lists")

    subcommands.money(add, _usage, _budget, _prices)

    agents = add("agents", "list agents; show, check or make one", _agents)
    _agent_commands(agents.add_subparsers(title="commands", metavar="COMMAND", dest="agents_command"))

    environments = add("environments", "list the workspaces of agents; show or delete one", _environments)
    subcommands.environments(
        environments.add_subparsers(title="commands", metavar="COMMAND", dest="environments_command")
    )
    credential = add("credential", "secrets that agents use without seeing them: add, list, remove", _credential)
    subcommands.credential(credential.add_subparsers(title="commands", metavar="COMMAND", dest="credential_command"))

    triggers = add("triggers", "what runs by itself, and when: list, create, edit, run, pause, delete", _triggers)
    schedules.triggers(triggers.add_subparsers(title="commands", metavar="COMMAND", dest="triggers_command"))
    webhooks = add("webhooks", "who is told of what happens: list, create, ping, rotate, deliveries", _webhooks)
    schedules.webhooks(webhooks.add_subparsers(title="commands", metavar="COMMAND", dest="webhooks_command"))

    subcommands.data(add)

    setup = add("setup", "fetch the embedded model's weights (once; resumes where it stopped)", _setup)
    setup.add_argument(
        "--model", default=None, help="qwen2.5-coder-0.5b (default, 491 MB), qwen2.5-coder-1.5b (1.1 GB)"
    )
    setup.add_argument("-y", "--yes", action="store_true", help="do not ask before downloading")

    add("doctor", "check everything and say what to do", _doctor)
    status = add("status", "show the daemon: connections, running turns, sizes", _status)
    status.add_argument("--no-start", action="store_true", help=argparse.SUPPRESS)
    stop = add("stop", "stop the daemon; running turns go on when it is started again", _stop)
    stop.add_argument("--now", action="store_true", help="do not wait for the running step")

    token = add("token", "show the bearer token for HTTP and SSE", _token)
    token.add_argument("--new", action="store_true", help="replace it; clients with the old one are refused")

    serve = add("serve", "serve MCP over Streamable HTTP (/mcp) and SSE (/sse)", _serve, has_json=False)
    serve.add_argument("--host", default=None, help="default 127.0.0.1; anything else needs the token")
    serve.add_argument("--port", type=_port, default=None, help="default 8642; 0 takes any free one")
    serve.add_argument("--allow-host", action="append", metavar="HOST", help="accept this Host header too")
    serve.add_argument("--allow-origin", action="append", metavar="ORIGIN", help="accept this Origin header too")
    serve.add_argument("--no-token", action="store_true", help="no bearer token; loopback only")
    serve.add_argument("--toolsets", metavar="A,B", default="", help="further tool sets to publish")

    demo = add("demo", "see the main job done: a session that outlives kill -9", _demo, has_json=False)
    demo.add_argument("--model", default="embedded", help="which model to use (default: embedded)")

    # `mcp` and `daemon` are run by interactd.__main__ before this parser is built; they are listed for --help.
    mcp = commands.add_parser("mcp", help="what MCP hosts launch: the stdio server")
    mcp.add_argument("--in-process", action="store_true", help="no daemon: everything in this process")
    mcp.add_argument("--toolsets", metavar="A,B", default="", help="further tool sets to publish")
    daemon = commands.add_parser("daemon", help="run the daemon (hosts and commands start it by themselves)")
    daemon.add_argument(
        "what",
        nargs="?",
        choices=("install", "uninstall"),
        help="have the system start it at every login, so that schedules run; or take that back",
    )
    daemon.add_argument("--foreground", action="store_true", help="stay in this terminal and log to it")
    daemon.add_argument("--stay", action="store_true", help="never leave for being idle")
    return parser


def _agent_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:  # pyright: ignore[reportPrivateUsage]
    def add(name: str, text: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
        # Without a default of its own, which would undo `interactd agents --json list`.
        sub.add_argument("--json", action="store_true", default=argparse.SUPPRESS, help="print JSON instead of text")
        return sub

    add("list", "list agents and what is wrong with any (the same as no command)")
    add("show", "show one agent whole: instructions, files, what it needs").add_argument("id")
    check = add("validate", "say everything that is wrong with one agent, or with all")
    check.add_argument("target", nargs="?", metavar="PATH|ID", help="a folder or an id; without it: all agents")
    new = add("new", "make a new agent's folder to begin with")
    new.add_argument("id", help="also the folder's name: lower-case letters, digits, - and _")
    new.add_argument("--base", default="antigravity", metavar="ID", help="its base_agent (default: antigravity)")
    new.add_argument("--project", action="store_true", help="in .agents/agents of this directory, not for all projects")


def _positive(text: str) -> int:
    number = int(text)
    if not 1 <= number <= 1000:
        raise argparse.ArgumentTypeError("expected a number from 1 to 1000")
    return number


def _port(text: str) -> int:
    # The kernel would take 99999 and listen on what is left of it in 16 bits.
    number = int(text)
    if not 0 <= number <= 65535:
        raise argparse.ArgumentTypeError("expected a port from 0 to 65535")
    return number


def _chat(args: argparse.Namespace) -> int:
    from interactd.cli.chat import chat

    return chat(args)


def _sessions(args: argparse.Namespace) -> int:
    from interactd.cli.sessions import list_sessions

    return list_sessions(args)


def _show(args: argparse.Namespace) -> int:
    from interactd.cli.sessions import show

    return show(args)


def _queue(args: argparse.Namespace) -> int:
    from interactd.cli.sessions import list_queue

    return list_queue(args)


def _search(args: argparse.Namespace) -> int:
    from interactd.cli.sessions import search

    return search(args)


def _fork(args: argparse.Namespace) -> int:
    from interactd.cli.sessions import fork

    return fork(args)


def _delete(args: argparse.Namespace) -> int:
    from interactd.cli.sessions import delete

    return delete(args)


def _waiting(args: argparse.Namespace) -> int:
    from interactd.cli import waiting

    name: str = args.parser.prog.rpartition(" ")[2]
    return {
        "inbox": waiting.inbox,
        "approvals": waiting.approvals,
        "respond": waiting.respond,
        "cancel": waiting.cancel,
    }[name](args)


def _usage(args: argparse.Namespace) -> int:
    from interactd.cli.money import usage

    return usage(args)


def _budget(args: argparse.Namespace) -> int:
    from interactd.cli.money import budget

    return budget(args)


def _prices(args: argparse.Namespace) -> int:
    from interactd.cli.money import prices

    return prices(args)


def _models(args: argparse.Namespace) -> int:
    from interactd.cli.machine import models

    return models(args)


def _environments(args: argparse.Namespace) -> int:
    from interactd.cli.environments import run

    return run(args)


def _triggers(args: argparse.Namespace) -> int:
    from interactd.cli.schedules.triggers import run

    return run(args)


def _webhooks(args: argparse.Namespace) -> int:
    from interactd.cli.schedules.webhooks import run

    return run(args)


def _credential(args: argparse.Namespace) -> int:
    from interactd.cli.credentials import run

    return run(args)


def _agents(args: argparse.Namespace) -> int:
    from interactd.cli.agents import run

    return run(args)


def _setup(args: argparse.Namespace) -> int:
    from interactd.cli.setup import setup

    return setup(args)


def _doctor(args: argparse.Namespace) -> int:
    from interactd.cli.doctor import doctor

    return doctor(args)


def _token(args: argparse.Namespace) -> int:
    from interactd.cli.machine import token

    return token(args)


def _serve(args: argparse.Namespace) -> int:
    from interactd.cli.machine import serve

    return serve(args)


def _demo(args: argparse.Namespace) -> int:
    from interactd.cli.demo import run

    return run(args.model)


def _status(args: argparse.Namespace) -> int:
    from interactd import paths
    from interactd.daemon.commands import status

    return status(paths.find(), as_json=args.json)


def _stop(args: argparse.Namespace) -> int:
    from interactd import paths
    from interactd.daemon.commands import stop

    return stop(paths.find(), now=args.now, as_json=args.json)


def print_json(value: Any) -> None:
    """Print one JSON document, as every `--json` does."""
    print(json.dumps(value, indent=2, ensure_ascii=False))
